"""The tools of the race, each in a pod of its own, where one program after the other lives and dies."""

from __future__ import annotations

import contextlib
import os
import subprocess
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Protocol

from benchmarks.errors import BenchmarkError
from benchmarks.race.model import Saved
from benchmarks.race.poller_tool import PollerTool
from benchmarks.race.program import App
from benchmarks.race.sidecar_tool import running_sidecar
from localpod.pod import LocalPod

# What `localpod` shows of the machine's cgroups to a container that is to have them writable.
_GUARD = {"GUARD": "auto", "GUARD_CGROUPS": "/sys/fs/cgroup"}

TOOLS = ("http-1s", "http-100ms", "default", "guard")
"""A poller at 1 s, the same at 100 ms, the sidecar as it comes, the sidecar with its guard."""

GUARD = TOOLS[-1]

_HELP_WITHIN_S = 60
_POLLER_INTERVALS_S = {"http-1s": 1.0, "http-100ms": 0.1}


class Tool(Protocol):
    """What saves profiles. It looks after one program at a time."""

    @property
    def pod(self) -> LocalPod:
        """Where the programs are to be started."""
        ...

    @property
    def interval_s(self) -> float:
        """How often it looks while nothing happens."""
        ...

    def settle(self, app: App) -> None:
        """Wait until the tool watches a program. Raises `BenchmarkError` if it doesn't come to that."""
        ...

    def finish(self, app: App) -> Saved | None:
        """Wait until it is done with a program whose container was removed, and tell what it has saved of it.

        Raises `BenchmarkError` if it doesn't come to an end.
        """
        ...


def check_guard(python: Path, settings: Mapping[str, str]) -> None:
    """Make sure that this sidecar has a guard: it would ignore settings that it doesn't know, and race without.

    Raises `BenchmarkError`.
    """
    command = [str(python), "-m", "sidecar", "watch", "--help"]
    done = subprocess.run(
        command,
        capture_output=True,
        check=False,
        text=True,
        cwd="/",
        env={"PATH": os.defpath, "LANG": "C.UTF-8", **settings},
        timeout=_HELP_WITHIN_S,
    )
    if not all(name in done.stdout for name in _GUARD):
        raise BenchmarkError(f"this sidecar has no guard: --tools {','.join(TOOLS[:-1])} leaves it out")


@contextlib.contextmanager
def running(name: str, python: Path, settings: Mapping[str, str]) -> Iterator[Tool]:
    """Have a tool ready in a new pod while a ``with`` block lasts; ``settings`` are for the sidecar."""
    with LocalPod() as pod:
        if name in _POLLER_INTERVALS_S:
            with contextlib.closing(PollerTool(pod, _POLLER_INTERVALS_S[name])) as poller:
                yield poller
            return
        guard = _GUARD if name == GUARD else {}
        with running_sidecar(pod, python, {**guard, **settings}, private_cgroups=not guard) as tool:
            yield tool
