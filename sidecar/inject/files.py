"""Manifests from files and standard input, and where their new texts go. All are read before any is written."""

from __future__ import annotations

import contextlib
import difflib
import gc
import os
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import click

from sidecar.core.printable import printable
from sidecar.errors import ConfigError, OomHeapDumperError
from sidecar.inject.manifests import Outcome, Result
from sidecar.inject.model import ManifestError
from sidecar.inject.yaml_reader import decode

_BOM = "\ufeff"
_STDIN = "-"
_COLOURS = {"+": "green", "-": "red", "@": "cyan"}


class InputError(OomHeapDumperError):
    """A file can't be read, or isn't manifests: its name, the line and the remedy."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Target:
    """Where the texts go: to standard output unless one of these says otherwise. ``color`` None asks the terminal."""

    output: Path | None = None
    is_in_place: bool = False
    is_diff: bool = False
    color: bool | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class _Changed:
    name: str
    before: str
    result: Result


def change_files(
    names: Sequence[str], change: Callable[[str], Result], target: Target, *, verb: str, is_quiet: bool
) -> None:
    """Change each file's text and write what comes of it, with a report on standard error.

    ``verb`` says in the report what was done to a pod. Raises ConfigError for a target that makes no sense and
    InputError for what can't be read or changed; nothing is written then.
    """
    _check(names, target)
    # The collector would walk millions of nodes again and again, none of which is garbage: half of the time.
    gc.disable()
    try:
        changed = [_changed(name, change) for name in names]
    finally:
        gc.enable()
    if target.is_diff:
        click.echo("".join(_diff(changed)), nl=False, color=_is_colored(target))
    elif target.is_in_place:
        for each in changed:
            if each.result.text != each.before:
                _write(Path(each.name).resolve(), each.result.text)
    elif target.output is not None:
        _write(target.output, _joined(changed))
    else:
        sys.stdout.buffer.write(_joined(changed).encode())
        sys.stdout.buffer.flush()
    for each in changed:
        for line in _report(each, verb, is_quiet=is_quiet):
            click.echo(printable(line), err=True)


def _check(names: Sequence[str], target: Target) -> None:
    if target.is_in_place and (target.output is not None or _STDIN in names):
        raise ConfigError("--in-place changes the files themselves: leave out --output and -")
    if target.is_diff and (target.output is not None or target.is_in_place):
        raise ConfigError("--diff only shows what would change: leave out --output and --in-place")
    if names.count(_STDIN) > 1:
        raise ConfigError("- stands for standard input, which can be read once: give it once")


def _changed(name: str, change: Callable[[str], Result]) -> _Changed:
    shown = "stdin" if name == _STDIN else printable(name)
    try:
        text = decode(sys.stdin.buffer.read() if name == _STDIN else Path(name).read_bytes())
        return _Changed(name=name, before=text, result=change(text))
    except ManifestError as error:
        raise InputError(f"{shown}:{error.line}: {printable(str(error))}") from None
    except IsADirectoryError:
        raise InputError(f"{shown} is a directory: name the files in it, as {shown.rstrip('/')}/*.yaml") from None
    except OSError as error:
        raise InputError(f"{shown}: {error.strerror}: name a file that can be read, or - for standard input") from None


def _joined(changed: Sequence[_Changed]) -> str:
    """One text of all, with a document's end between two files."""
    texts = [each.result.text for each in changed]
    joined = texts[0]
    for text in texts[1:]:
        following = text.removeprefix(_BOM)
        joined += "" if not joined or joined.endswith("\n") else "\n"
        joined += following if following.startswith("---") else f"---\n{following}"
    return joined


def _write(path: Path, text: str) -> None:
    """Replace a file at once, keeping its mode, or make it."""
    try:
        mode = path.stat().st_mode & 0o7777 if path.exists() else 0o666 & ~_umask()
        descriptor, part = tempfile.mkstemp(prefix=f".{path.name}.", dir=path.parent)
        try:
            with os.fdopen(descriptor, "wb") as file:
                file.write(text.encode())
                os.fchmod(file.fileno(), mode)
            Path(part).replace(path)
        except BaseException:
            with contextlib.suppress(OSError):
                Path(part).unlink()
            raise
    except OSError as error:
        message = f"{printable(str(path))}: {error.strerror}: choose a file that can be written"
        raise OomHeapDumperError(message) from None


def _umask() -> int:
    mask = os.umask(0o022)
    os.umask(mask)
    return mask


def _diff(changed: Sequence[_Changed]) -> Iterator[str]:
    """Unified diffs that ``patch -p1`` takes; colours are taken out again where there is no terminal."""
    for each in changed:
        name = "stdin" if each.name == _STDIN else each.name.lstrip("/")
        before, after = (text.splitlines(keepends=True) for text in (each.before, each.result.text))
        for line in difflib.unified_diff(before, after, f"a/{name}", f"b/{name}"):
            text = line.removesuffix("\n")
            is_head = line.startswith(("---", "+++"))
            yield click.style(text, fg=_COLOURS.get(line[0]), bold=is_head or None) if line[0] != " " else text
            yield "\n" if line.endswith("\n") else "\n\\ No newline at end of file\n"


def _is_colored(target: Target) -> bool:
    if target.color is not None:
        return target.color
    return sys.stdout.isatty() and not os.environ.get("NO_COLOR")


def _report(changed: _Changed, verb: str, *, is_quiet: bool) -> Iterator[str]:
    shown = "stdin" if changed.name == _STDIN else changed.name
    if not changed.result.outcomes and not is_quiet:
        yield f"{shown}: no pod spec in it, so it stays as it is"
    for outcome in changed.result.outcomes:
        plan = outcome.plan
        where = f"{shown}:{outcome.line}: {outcome.kind}/{outcome.name}"
        notes = () if is_quiet else plan.notes
        if plan.refusal is not None:
            yield f"{where}: left as it is: {plan.refusal}"
        elif notes or plan.warnings:
            yield f"{where}: {_done(changed, outcome, verb)}"
        yield from (f"  {note}" for note in notes)
        yield from (f"  warning: {warning}" for warning in plan.warnings)


def _done(changed: _Changed, outcome: Outcome, verb: str) -> str:
    if not outcome.is_renewed:
        return verb
    return "already up to date" if changed.result.text == changed.before else "renewed"
