"""Manifests from files and standard input, and where their new texts go. All are read before any is written."""

from __future__ import annotations

import gc
import os
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import click

from sidecar.core.printable import printable
from sidecar.errors import ConfigError, OomHeapDumperError
from sidecar.inject.hunks import unified_diff
from sidecar.inject.manifests import Outcome, Result
from sidecar.inject.model import ManifestError
from sidecar.inject.outputs import write_file, write_stdout
from sidecar.inject.yaml_reader import decode

_BOM = "\ufeff"
_STDIN = "-"
_KUSTOMIZATIONS = ("kustomization.yaml", "kustomization.yml", "Kustomization")
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
    InputError for what can't be read or changed; nothing is written then. Raises OomHeapDumperError for what can't be
    written.
    """
    _check(names, target)
    # The collector would walk millions of nodes again and again, none of which is garbage: half of the time.
    gc.disable()
    try:
        changed = [_changed(name, change) for name in names]
    finally:
        gc.enable()
    if target.is_diff:
        write_stdout("".join(_diff(changed, is_colored=_is_colored(target))).encode())
    elif target.is_in_place:
        for each in changed:
            if each.result.text != each.before:
                write_file(Path(each.name), each.result.text.encode())
    elif target.output is not None:
        write_file(target.output, _joined(changed).encode())
    else:
        write_stdout(_joined(changed).encode())
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
        text = decode(_read_stdin() if name == _STDIN else Path(name).read_bytes())
        return _Changed(name=name, before=text, result=change(text))
    except ManifestError as error:
        raise InputError(f"{shown}:{error.line}: {printable(str(error))}") from None
    except IsADirectoryError:
        raise InputError(f"{shown} is a directory: {_instead_of(Path(name), shown.rstrip('/'))}") from None
    except OSError as error:
        raise InputError(f"{shown}: {error.strerror}: name a file that can be read, or - for standard input") from None


def _instead_of(directory: Path, shown: str) -> str:
    """What to give in a directory's place."""
    if any((directory / name).exists() for name in _KUSTOMIZATIONS):
        return f"give what it renders, kubectl kustomize {shown} | oom-heap-dumper inject -"
    return f"name the files in it, as {shown}/*.yaml"


def _read_stdin() -> bytes:
    if sys.stdin is None:
        raise InputError("standard input is closed: give it something to read, or name a file")
    return sys.stdin.buffer.read()


def _joined(changed: Sequence[_Changed]) -> str:
    """One text of all, with a document's end between two files."""
    texts = [each.result.text for each in changed]
    joined = texts[0]
    for text in texts[1:]:
        following = text.removeprefix(_BOM)
        joined += "" if not joined or joined.endswith("\n") else "\n"
        joined += following if following.startswith("---") else f"---\n{following}"
    return joined


def _diff(changed: Sequence[_Changed], *, is_colored: bool) -> Iterator[str]:
    for each in changed:
        name = "stdin" if each.name == _STDIN else each.name.lstrip("/")
        for line in unified_diff(each.before, each.result.text, name):
            yield _painted(line) if is_colored else line
            yield "\n"


def _painted(line: str) -> str:
    color = _COLOURS.get(line[0])
    return click.style(line, fg=color, bold=line.startswith(("---", "+++")) or None) if color else line


def _is_colored(target: Target) -> bool:
    if target.color is not None:
        return target.color
    return sys.stdout is not None and sys.stdout.isatty() and not os.environ.get("NO_COLOR")


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
