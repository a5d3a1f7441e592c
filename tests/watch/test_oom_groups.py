"""When ``memory.oom.group`` is looked at, and what is said of it, on a cgroup v2 of plain files."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from pathlib import Path

import pytest

from sidecar.core.model import Container
from sidecar.guard import OomGroup
from sidecar.kernel.cgroup import MemoryCgroup, MemorySource
from sidecar.kernel.process_memory import ProcessMemory
from sidecar.watch.oom_groups import OomGroups
from sidecar.watch.workers import Workers

DEADLINE_S = 60.0
CONTAINER = Container(key="/x", name="app", processes=())


class Ground:
    """A container whose processes die together, and the names of the events that are logged."""

    def __init__(self, directory: Path) -> None:
        cgroup = directory / "cgroup"
        cgroup.mkdir()
        files = {"current": "1\n", "max": "max\n", "stat": "inactive_file 0\n", "events": "oom_kill 0\n"}
        for name, text in files.items():
            (cgroup / f"memory.{name}").write_text(text)
        self.flag = cgroup / "memory.oom.group"
        self.flag.write_text("1\n")
        self.memory = MemoryCgroup(cgroup, 2)
        self.processes = ProcessMemory(Path("/proc"), lambda: (), None)
        self.oom_group = OomGroup(cgroup, directory / "journal")
        self.now_s = 1000.0
        self.workers = Workers(standing=1)
        self.oom_groups = OomGroups(self.oom_group, (), self.workers, clock=lambda: self.now_s)
        self.messages: list[str] = []

    def note(self, record: logging.LogRecord) -> bool:
        """A filter of the log that lets all through."""
        if getattr(record, "event_fields", {})["event"] == "oom-group-unavailable":
            self.messages.append(record.getMessage())
        return True

    def tend(self, source: MemorySource, after_s: float = 0.0) -> None:
        """Tend once, so much later, and see it done."""
        self.now_s += after_s
        self.oom_groups.tend(CONTAINER, source)
        self.workers.join(DEADLINE_S)
        assert self.workers.is_idle

    def is_set(self) -> bool:
        """Whether a kill takes them all."""
        return self.flag.read_text() == "1\n"


@pytest.fixture
def ground(tmp_path: Path) -> Iterator[Ground]:
    """One whose log is listened to."""
    made = Ground(tmp_path)
    logger = logging.getLogger("sidecar")
    logger.addFilter(made.note)
    yield made
    logger.removeFilter(made.note)
    made.oom_group.close()
    made.memory.close()


def test_a_container_that_is_being_set_up_is_looked_at_again_soon(ground: Ground) -> None:
    """Its cgroup is seen a few seconds later: nothing is said, and it is kept off from then on."""
    ground.tend(ground.processes)
    ground.tend(ground.memory, after_s=5.0)
    assert not ground.is_set()
    assert ground.messages == []


def test_a_cgroup_that_stays_unseen_is_told_once(ground: Ground) -> None:
    """From the second look on it is no matter of setting up; and should it be seen after all, it is kept off."""
    for _ in range(10):
        ground.tend(ground.processes, after_s=5.0)
    (message,) = ground.messages
    assert "can't be seen" in message
    ground.tend(ground.memory, after_s=5.0)
    assert not ground.is_set()


def test_what_is_in_the_way_after_it_was_seen_is_told_as_well(ground: Ground) -> None:
    """Each of the two has a remedy of its own."""
    for _ in range(2):
        ground.tend(ground.processes, after_s=5.0)
    ground.flag.unlink()
    ground.tend(ground.memory, after_s=5.0)
    assert len(ground.messages) == 2
    assert "memory.oom.group can't be written" in ground.messages[1]


def test_what_is_in_the_way_is_tried_again_after_a_minute(ground: Ground) -> None:
    """Each try walks the machine's cgroups, so not every few seconds."""
    ground.flag.unlink()
    ground.tend(ground.memory)
    ground.flag.write_text("1\n")
    ground.tend(ground.memory, after_s=30.0)
    assert ground.is_set()
    ground.tend(ground.memory, after_s=40.0)
    assert not ground.is_set()


def test_a_container_that_comes_during_the_stop_is_no_trouble(ground: Ground) -> None:
    """It stays as it is, and nothing is said: there is nothing to do about it."""
    ground.oom_group.close()
    ground.tend(ground.memory)
    assert ground.is_set()
    assert ground.messages == []
