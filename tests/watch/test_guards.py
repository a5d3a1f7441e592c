"""A guard is let go in time whatever else is waiting: for a disk, or for a thread."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import cast

import pytest

from sidecar.core.guard import GuardPolicy
from sidecar.core.model import Container, Reading
from sidecar.guard import Guard, Guarded
from sidecar.guard.cgroup_view import CgroupId
from sidecar.guard.guarded import Plan, Subject
from sidecar.guard.journal import Change, Entry, Journal
from sidecar.kernel.cgroup import MemorySource
from sidecar.watch.guards import Guards
from sidecar.watch.life import Life
from sidecar.watch.workers import Workers
from tests.watch.test_uploads import logged

DEADLINE_S = 60.0
CONTAINER = Container(key="/x", name="app", processes=())
READING = Reading(usage_bytes=90, inactive_file_bytes=0, limit_bytes=100, oom_kills=0)


class Stalled(Journal):
    """A journal on a disk that takes nothing until it is ``freed``."""

    def __init__(self, directory: Path) -> None:
        super().__init__(directory)
        self.entered, self.freed = threading.Event(), threading.Event()

    def write(self, entry: Entry) -> None:
        """As `Journal.write`, but for its duration."""
        del entry
        self.entered.set()
        assert self.freed.wait(DEADLINE_S)


class Held(Guarded):
    """A guard that holds, and has something new to note whenever it is armed."""

    mode = "brake"

    def __init__(self, directory: Path, journal: Journal) -> None:
        here = CgroupId.of(directory)
        subject = Subject(id=here, view=here, version=2, path="app", name="app", page_bytes=4096)
        super().__init__(subject, GuardPolicy(mode="brake"), journal)
        self.kept = threading.Event()

    def record(self) -> dict[str, object]:
        """Nothing of interest here."""
        return {}

    def _is_busy(self) -> bool:
        return not self.kept.is_set()

    def _plan(self, reading: Reading, now_s: float) -> list[Plan]:
        del reading, now_s
        change = Change(file="memory.high", original_bytes=None, spans=())
        return [Plan(changes=(change,), apply=lambda: None)]

    def _hold(self, now_s: float) -> None:
        del now_s

    def _keep(self, now_s: float) -> None:
        del now_s
        self.kept.set()

    def _release(self, now_s: float) -> None:
        del now_s

    def _restore(self) -> bool:
        return True

    def _close_files(self) -> None:
        pass


@pytest.fixture
def journal(tmp_path: Path) -> Iterator[Stalled]:
    """Freed at the end, so that no thread is left."""
    journal = Stalled(tmp_path)
    yield journal
    journal.freed.set()


def test_a_stalled_disk_does_not_keep_the_killer_off(tmp_path: Path, journal: Stalled) -> None:
    """While arming waits for the journal, the bound of time is minded, and so it is the next time."""
    workers = Workers()
    guards = Guards(Guard(GuardPolicy(mode="brake"), tmp_path, tmp_path), workers)
    held = Held(tmp_path, journal)
    life = Life(guarded=held)
    guards.tend(life, CONTAINER, cast("MemorySource", None), READING)
    assert journal.entered.wait(DEADLINE_S)
    for _ in range(2):
        guards.mind(life)
        assert held.kept.wait(DEADLINE_S / 3)
        assert life.minded.wait(DEADLINE_S)
        held.kept.clear()
    assert not life.tended.is_set()
    journal.freed.set()
    workers.join(DEADLINE_S)


def test_a_pod_without_another_thread_does_not_either(
    tmp_path: Path, journal: Stalled, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Every worker waits, and no further thread can be had: the one for this has been there all along."""
    workers = Workers()
    guards = Guards(Guard(GuardPolicy(mode="brake"), tmp_path, tmp_path), workers)

    def refuse(_: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    monkeypatch.setattr(threading.Thread, "start", refuse)
    lives = [Life(guarded=Held(tmp_path, journal)) for _ in range(10)]
    for life in lives:
        guards.tend(life, CONTAINER, cast("MemorySource", None), READING)
    assert journal.entered.wait(DEADLINE_S)
    for life in lives:
        guards.mind(life)
    for life in lives:
        assert cast("Held", life.guarded).kept.wait(DEADLINE_S / 3)
    journal.freed.set()
    workers.join(DEADLINE_S)


def test_a_container_that_is_being_set_up_is_guarded_soon(tmp_path: Path) -> None:
    """Its cgroup isn't seen at first: nothing is said yet, and it is looked at again within seconds, not a minute."""
    guards = Guards(Guard(GuardPolicy(mode="brake"), tmp_path, tmp_path), Workers())
    life = Life()
    with logged() as events:
        guards.tend(life, CONTAINER, cast("MemorySource", None), READING)
        assert life.adopt_from_s - time.monotonic() < 5
        assert events == []
        life.adopt_from_s = 0.0
        guards.tend(life, CONTAINER, cast("MemorySource", None), READING)
    assert events == ["no-guard"]
