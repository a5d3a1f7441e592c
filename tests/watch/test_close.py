"""The watch is told to stop right after a kill: what is recorded says what became of the container."""

from __future__ import annotations

import subprocess
import time
from dataclasses import replace
from pathlib import Path

import pytest

from sidecar.core.outcome import Ending
from sidecar.kernel.process_memory import ProcessMemory
from tests.watch.loop_ground import Ground


@pytest.fixture
def ground(tmp_path: Path, program: subprocess.Popen[bytes]) -> Ground:
    """It was sampled once, and nobody had been killed by then."""
    made = Ground(tmp_path, program.pid)
    made.loop.tick()
    return made


def test_a_container_that_lives_on_lost_a_process(ground: Ground) -> None:
    """The killer took a child: the container, which may live for years, isn't called killed."""
    ground.count_kills(1)
    ground.loop.close()
    assert ground.rest.endings == [Ending.PROCESS_OOM_KILLED]


def test_a_container_that_dies_was_killed(ground: Ground, program: subprocess.Popen[bytes]) -> None:
    """Its cgroup is still there, to tell what happened to the last of its processes."""
    program.kill()
    program.wait()
    ground.count_kills(1)
    ground.loop.close()
    assert ground.rest.endings == [Ending.OOM_KILLED]


def test_a_kill_is_counted_from_the_source_that_counts(tmp_path: Path, program: subprocess.Popen[bytes]) -> None:
    """A cgroup that is readable only later begins to count then; what was read before knows no kills."""
    ground = Ground(tmp_path, program.pid)
    (with_cgroup,) = ground.scout.survey
    ground.survey((replace(with_cgroup, source=ProcessMemory(Path("/proc"), lambda: (program.pid,), 64 << 20)),))
    ground.loop.tick()
    ground.survey((with_cgroup,))
    ground.loop.tick()
    ground.count_kills(1)
    program.kill()
    program.wait()
    ground.loop.close()
    assert ground.rest.endings == [Ending.OOM_KILLED]


def test_a_fault_in_an_end_does_not_end_the_watch(ground: Ground, program: subprocess.Popen[bytes]) -> None:
    """It is logged; the container is forgotten and the loop goes on."""
    ground.rest.fails = True
    ground.loop.tick()
    program.kill()
    program.wait()
    ground.survey(())
    ground.loop.tick()
    assert len(ground.rest.endings) == 1
    ground.loop.tick()
    assert ground.loop.targets == 0


def test_a_reading_that_fails_is_not_repeated_at_once(ground: Ground) -> None:
    """The next round is an interval away, as in peace."""
    (ground.cgroup / "memory.current").write_text("")
    deadline_s = time.monotonic() + 30
    while not ground.loop.read_errors:
        assert time.monotonic() < deadline_s
        ground.loop.tick()
    began_s, before = time.monotonic(), ground.loop.read_errors
    while time.monotonic() - began_s < 1.0:
        ground.loop.tick()
    assert ground.loop.read_errors - before <= 11


def test_nobody_was_killed(ground: Ground) -> None:
    """The sidecar stops, the container goes on: there is nothing to record."""
    ground.loop.close()
    assert ground.rest.endings == []
