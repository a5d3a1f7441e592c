"""The Go programs of the race: built once, then started as containers that wait for the word to grow."""

from __future__ import annotations

import contextlib
import signal
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from benchmarks import first_words
from benchmarks.race.model import Cell
from localpod.pod import LocalContainer, LocalPod
from localpod.toolchain import Toolchain

_SOURCE = Path(__file__).with_name("go-programs")


def build(go: Toolchain) -> Path:
    """The program; compiled only if its sources are newer, so that a machine that can't build may run it.

    Raises `LocalPodError` with the compiler's words.
    """
    folder = go.cache / "race"
    built = folder / _SOURCE.name
    newest_s = max(path.stat().st_mtime for path in _SOURCE.iterdir())
    if built.exists() and built.stat().st_mtime >= newest_s:
        return built
    return go.build(_SOURCE, folder=folder)


@dataclass(frozen=True, slots=True, kw_only=True)
class App:
    """A running program. ``pod_pid`` is how those in its pod know its process."""

    container: LocalContainer
    cell: Cell
    pod_pid: int
    address: str

    @property
    def heap_url(self) -> str:
        """Where it serves its plain heap profile."""
        return f"http://{self.address}/debug/pprof/heap"

    def grow(self) -> None:
        """Let it begin."""
        self.container.process.send_signal(signal.SIGUSR1)


@contextlib.contextmanager
def running(pod: LocalPod, program: Path, cell: Cell, name: str) -> Iterator[App]:
    """Run the program in a cgroup of its own while a ``with`` block lasts; it listens and holds its floor.

    Raises `LocalPodError` or `BenchmarkError` if it doesn't get there.
    """
    container, address = first_words.start(
        pod,
        program,
        name,
        memory_limit_bytes=cell.limit_bytes,
        cpu_millicores=cell.cpu_millicores,
        env={
            "PROGRAM": cell.program.mode,
            "RATE": str(cell.program.rate_bytes_per_s),
            "FLOOR": str(cell.program.floor_bytes(cell.limit_bytes)),
            "BUSY": str(int(cell.cpu_millicores is not None)),
        },
    )
    try:
        yield App(container=container, cell=cell, pod_pid=container.pod_pid, address=address)
    finally:
        container.remove()
