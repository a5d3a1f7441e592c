"""What one flag of ``memory.oom.group`` says in the log and gives back, where writing it fails at first."""

from __future__ import annotations

import errno
import logging
import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from sidecar.guard import KeptOff
from sidecar.guard.cgroup_view import CgroupId, NumberFile
from sidecar.guard.journal import Entry, Journal


class Flag(NumberFile):
    """A plain file that refuses writes while it ``fails``."""

    def __init__(self, path: Path) -> None:
        path.write_text("1\n")
        super().__init__(path, os.O_RDWR)
        self.fails = True

    def write(self, value_bytes: int | None) -> None:
        """As `NumberFile.write`, or EIO."""
        if self.fails:
            raise OSError(errno.EIO, os.strerror(errno.EIO))
        super().write(value_bytes)


class Ground:
    """A flag that can't be written yet, and the names of the events that are logged."""

    def __init__(self, directory: Path) -> None:
        self.flag = Flag(directory / "memory.oom.group")
        self.journal = Journal(directory / "journal")
        here = CgroupId.of(directory)
        self.entry = Entry(id=here, view=here, version=2, mode="oom-group", path="app", changes=())
        self.kept = KeptOff(self.flag, self.entry, self.journal, "app")
        self.events: list[str] = []

    def note(self, record: logging.LogRecord) -> bool:
        """A filter of the log that lets all through."""
        self.events.append(getattr(record, "event_fields", {})["event"])
        return True

    def value(self) -> str:
        """What the file says."""
        return self.flag.path.read_text()


@pytest.fixture
def ground(tmp_path: Path) -> Iterator[Ground]:
    """One whose log is listened to."""
    made = Ground(tmp_path)
    logger, level = logging.getLogger("sidecar"), logging.getLogger("sidecar").level
    logger.setLevel(logging.INFO)
    logger.addFilter(made.note)
    yield made
    logger.removeFilter(made.note)
    logger.setLevel(level)
    made.kept.close()


def test_the_first_write_that_works_is_the_first_one(ground: Ground) -> None:
    """After one that failed nobody has set it again; that is said only when somebody did."""
    ground.kept.keep(1.0)
    ground.flag.fails = False
    ground.kept.keep(4.0)
    assert ground.value() == "0\n"
    assert ground.events == ["oom-group-failed", "oom-group-off"]
    ground.flag.path.write_text("1\n")
    ground.kept.keep(7.0)
    assert ground.events[2:] == ["oom-group-again"]


def test_what_was_never_switched_off_is_not_given_back(ground: Ground) -> None:
    """Our write failed, somebody else's 0 stays; the entry of the journal goes."""
    ground.kept.keep(1.0)
    assert ground.journal.read(ground.entry.id) is not None
    ground.flag.fails = False
    ground.flag.path.write_text("0\n")
    ground.kept.close()
    assert ground.value() == "0\n"
    assert ground.journal.read(ground.entry.id) is None
