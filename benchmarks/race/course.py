"""Runs the race: one attempt after the other, the next one only when the tool of the last has come to rest."""

from __future__ import annotations

import contextlib
import random
import subprocess
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Self

from benchmarks.errors import BenchmarkError
from benchmarks.ground import say
from benchmarks.race import observer, program, tools
from benchmarks.race.model import Try
from benchmarks.race.plan import Attempt, rest_s
from benchmarks.race.tools import Tool
from localpod.errors import LocalPodError

_FAILURES_IN_A_ROW = 3


class Stable:
    """The tools, each in its pod from its first use on until the end of a ``with`` block."""

    def __init__(self, python: Path, settings: Mapping[str, str]) -> None:
        """``python`` runs the sidecar, ``settings`` are for its environment."""
        self._python = python
        self._settings = settings
        self._open: dict[str, tuple[Tool, contextlib.ExitStack]] = {}

    def tool(self, name: str) -> Tool:
        """The running tool. Raises `BenchmarkError` or `LocalPodError` if it can't be started."""
        if name not in self._open:
            with contextlib.ExitStack() as stack:
                found = stack.enter_context(tools.running(name, self._python, self._settings))
                self._open[name] = (found, stack.pop_all())
        return self._open[name][0]

    def close(self, name: str) -> None:
        """End a tool and its pod; it is started anew when it is asked for."""
        if name in self._open:
            self._open.pop(name)[1].close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        for name in tuple(self._open):
            self.close(name)


def run(app: Path, attempts: Sequence[Attempt], stable: Stable) -> Iterator[Try]:
    """Make the attempts and tell each that came to its end.

    An attempt whose tool fails is said and left out, and the tool started anew. Raises `BenchmarkError` when that
    happens three times in a row.
    """
    chance = random.Random(0)
    began_s, failures = time.monotonic(), 0
    for number, attempt in enumerate(attempts):
        try:
            found = _attempt(app, attempt, stable.tool(attempt.tool), number, chance)
        except (BenchmarkError, LocalPodError, OSError, subprocess.SubprocessError) as error:
            failures += 1
            say(f"race: {attempt.cell}, {attempt.tool}: left out, {error}")
            stable.close(attempt.tool)
            if failures == _FAILURES_IN_A_ROW:
                raise BenchmarkError(f"{failures} tries in a row came to nothing, the last one: {error}") from error
            continue
        failures = 0
        left_s = rest_s(attempts, number + 1, time.monotonic() - began_s)
        say(f"race: {number + 1}/{len(attempts)} {_story(found)}; about {left_s / 60:.0f} min left")
        yield found


def _attempt(app: Path, attempt: Attempt, tool: Tool, number: int, chance: random.Random) -> Try:
    with program.running(tool.pod, app, attempt.cell, f"app-{number}") as running:
        tool.settle(running)
        # The programs grow like clockwork: without this each crossing would meet the same moment between two looks.
        time.sleep(chance.uniform(0.0, tool.interval_s))
        running.grow()
        observed = observer.follow(running)
    return Try(tool=attempt.tool, cell=attempt.cell, observed=observed, saved=tool.finish(running))


def _story(found: Try) -> str:
    if not found.is_kill:
        return f"{found.cell}, {found.tool}: no OOM kill"
    if found.saved is None:
        return f"{found.cell}, {found.tool}: no dump"
    safe = "" if found.safe_s is None else f" safe after {found.safe_s * 1000:.0f} ms"
    return f"{found.cell}, {found.tool}: {found.explained:.2f} explained by {found.saved.best}{safe}"
