"""The command line: finds the subcommand, runs it, and owns the exit code.

Subcommands are imported when they are called, so that the resident ``watch`` carries nothing of the others.
"""

from __future__ import annotations

import contextlib
import importlib
import io
import os
import sys
from collections.abc import Iterator
from typing import TYPE_CHECKING

import click

from sidecar import __version__
from sidecar.errors import OomHeapDumperError, StoreError

if TYPE_CHECKING:
    from _typeshed import ReadableBuffer

_COMMANDS = {
    "watch": ("sidecar.commands.watch", "Watch the pod's containers and dump before the OOM killer comes."),
    "check": ("sidecar.commands.check", "Show what would be watched, and what is missing."),
    "dump": ("sidecar.commands.dump", "Take a dump now, once."),
    "list": ("sidecar.commands.list_dumps", "List the dumps, newest first."),
    "get": ("sidecar.commands.get_dump", "Fetch a dump and say how to open it."),
    "encode": ("sidecar.commands.encode", "Make a profile of a raw snapshot that came without one."),
    "inject": ("sidecar.commands.inject", "Put the sidecar into the pods of manifests."),
    "uninject": ("sidecar.commands.uninject", "Take it out of them again."),
    "webhook": ("sidecar.commands.webhook", "Serve inject as a mutating admission webhook."),
    "health": ("sidecar.commands.health", "Tell whether the watch is alive: its last successful sample."),
}


class _LazyGroup(click.Group):
    """A group that imports a subcommand's module only to run it."""

    def list_commands(self, _ctx: click.Context) -> list[str]:
        return list(_COMMANDS)

    def get_command(self, _ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in _COMMANDS:
            return None
        command = importlib.import_module(_COMMANDS[cmd_name][0]).command
        assert isinstance(command, click.Command)  # noqa: S101 -- narrows what import_module can't type
        return command

    def format_commands(self, _ctx: click.Context, formatter: click.HelpFormatter) -> None:
        with formatter.section("Commands"):
            formatter.write_dl([(name, summary) for name, (_, summary) in _COMMANDS.items()])


@click.command(cls=_LazyGroup, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110})
@click.version_option(__version__, prog_name="oom-heap-dumper")
def root() -> None:
    """Save a Go program's heap profile before the OOM killer takes the program.

    In a pod: run `watch` beside the app, with shareProcessNamespace: true. At your desk: `list` and `get`, rarely
    `encode`.
    """


def main() -> None:
    """Run the command line and exit."""
    with _told_output():
        code = _run(sys.argv[1:])
    sys.exit(code)


class _Output(io.RawIOBase):
    """Standard output, whose failures end a command as an error of ours, whoever writes; a gone reader's stay.

    One that was closed before we began has no ``descriptor``; to write nothing to it is no error.
    """

    def __init__(self, descriptor: int | None) -> None:
        self._descriptor = descriptor

    def fileno(self) -> int:
        return super().fileno() if self._descriptor is None else self._descriptor

    def isatty(self) -> bool:
        return self._descriptor is not None and os.isatty(self._descriptor)

    def writable(self) -> bool:
        return True

    def write(self, data: ReadableBuffer, /) -> int:
        if self._descriptor is None:
            raise OomHeapDumperError("standard output is closed: open it, or send it to a file or a pipe")
        try:
            return os.write(self._descriptor, data)
        except BrokenPipeError:
            raise
        except OSError as error:
            raise OomHeapDumperError(
                f"standard output: {error.strerror}: make room there, or send it to another place"
            ) from None


@contextlib.contextmanager
def _told_output() -> Iterator[None]:
    """Let what is written to standard output go through the above."""
    before = sys.stdout
    raw = _Output(None if before is None else before.fileno())
    sys.stdout = io.TextIOWrapper(
        io.BufferedWriter(raw),
        encoding="utf-8" if before is None else before.encoding,
        errors="replace" if before is None else before.errors,
        line_buffering=raw.isatty(),
    )
    try:
        yield
    finally:
        sys.stdout = before  # else Python tries again at exit what couldn't be written, and complains


def _run(arguments: list[str]) -> int:
    try:
        code = _call(arguments)
        if sys.stdout is not None:
            sys.stdout.flush()
    except click.ClickException as error:
        return _fail(error.format_message(), error.exit_code)
    except OomHeapDumperError as error:
        remedy = error.remedy if isinstance(error, StoreError) else ""
        return _fail(": ".join(filter(None, (str(error), remedy))), error.exit_code)
    except (KeyboardInterrupt, click.Abort):
        return 130
    except BrokenPipeError:
        if sys.stderr is not None:
            sys.stderr.close()  # the reader of our output has gone; Python would complain at exit
        return 141
    return code


def _call(arguments: list[str]) -> int:
    try:
        outcome = root.main(arguments, prog_name="oom-heap-dumper", standalone_mode=False)
    except click.exceptions.NoArgsIsHelpError as error:
        click.echo(error.format_message())
        return 2
    return outcome if isinstance(outcome, int) else 0


def _fail(message: str, code: int) -> int:
    try:
        click.echo(f"oom-heap-dumper: {' '.join(message.split())}", err=True)
    except OSError:  # it may go to the same full disk as standard output: then the exit code says it all
        with contextlib.suppress(OSError):
            sys.stderr.close()
    return code
