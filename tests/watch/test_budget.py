"""What the CPU budget is spent on: looking more often than was asked for."""

from __future__ import annotations

import subprocess
import time
from pathlib import Path

import pytest

from sidecar.core.model import Reading
from sidecar.core.pace import CpuBudget
from sidecar.kernel.cgroup import MemoryCgroup
from tests.watch.loop_ground import Ground, Quiet

SAMPLE_CPU_S = 0.05


class Eventful(Quiet):
    """The kernel has an event of this descriptor each time the loop would sleep, until it was asked so often."""

    def __init__(self, ground: Ground, events_fd: int, events: int) -> None:
        super().__init__()
        self._ground, self._events_fd, self._left = ground, events_fd, events

    def sleep(self, seconds: float) -> frozenset[int]:
        """At once."""
        del seconds
        self._left -= 1
        if self._left < 0:
            self._ground.loop.stop()
        return frozenset({self._events_fd})


@pytest.mark.parametrize("events", [0, 3])
def test_samples_for_events_are_paid_from_it(
    tmp_path: Path, program: subprocess.Popen[bytes], events: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A container at its limit may have events without end. Those of the interval are on the house."""
    spent: list[float] = []
    read = MemoryCgroup.read

    def costly(cgroup: MemoryCgroup) -> Reading:
        began_s = time.thread_time()
        while time.thread_time() - began_s < SAMPLE_CPU_S:
            pass
        return read(cgroup)

    monkeypatch.setattr(MemoryCgroup, "read", costly)
    monkeypatch.setattr(CpuBudget, "spend", lambda _, cpu_s, __: spent.append(cpu_s))
    ground = Ground(tmp_path, program.pid)
    ground.loop.tick()
    events_fd = ground.scout.survey[0].source.events_fd
    assert events_fd is not None
    monkeypatch.setattr(ground.loop, "_wakeup", Eventful(ground, events_fd, events))
    ground.loop.run()
    assert sum(cpu_s >= SAMPLE_CPU_S for cpu_s in spent) == events
