"""A loop with a real process to watch, in a cgroup of plain files, and nothing else of the watch."""

from __future__ import annotations

from pathlib import Path
from queue import SimpleQueue
from typing import cast

from sidecar.core.outcome import Ending
from sidecar.kernel.cgroup import MemoryCgroup
from sidecar.watch.baselines import Baselines
from sidecar.watch.captures import Captures, Result
from sidecar.watch.endings import End, Endings
from sidecar.watch.guards import Guards
from sidecar.watch.last_moments import LastMoments
from sidecar.watch.loop import Loop
from sidecar.watch.oom_groups import OomGroups
from sidecar.watch.scout import Scout, Surveyed
from sidecar.watch.wakeup import Wakeup
from sidecar.watch.workers import Workers
from tests.watch.settings import settings_in

MIB = 1 << 20


class Rest:
    """What of the watch is of no matter here; the endings are remembered."""

    cpu_s = 0.0

    def __init__(self) -> None:
        self.results: SimpleQueue[Result] = SimpleQueue()
        self.endings: list[Ending] = []
        self.fails = False

    def record(self, end: End) -> None:
        """As `Endings.record`."""
        self.endings.append(end.outcome.ending)
        if self.fails:
            raise RuntimeError("a fault of ours")

    def forget(self, *_: object) -> None:
        """As `Captures.forget` and `Baselines.forget`."""

    def keep(self, *_: object) -> None:
        """As `Baselines.keep`."""

    def forget_ended(self, *_: object) -> None:
        """As `LastMoments.forget_ended`."""


class Quiet(Wakeup):
    """Plain files have no events to wait for."""

    def watch(self, events_fd: int) -> None:
        """Do nothing."""


class Ground:
    """A loop that watches a real process, in a cgroup v2 of plain files."""

    def __init__(self, directory: Path, pid: int) -> None:
        self.cgroup = directory / "cgroup"
        self.cgroup.mkdir()
        (self.cgroup / "memory.current").write_text(f"{60 * MIB}\n")
        (self.cgroup / "memory.max").write_text(f"{64 * MIB}\n")
        (self.cgroup / "memory.stat").write_text("inactive_file 0\n")
        self.count_kills(0)
        settings = settings_in(directory, "--pid", str(pid), "--memory-limit", "64Mi")
        self.scout = scout = Scout(Path("/proc"), settings, wake_loop=lambda: None)
        scout.look()
        (surveyed,) = scout.survey
        scout.survey = (Surveyed(container=surveyed.container, source=MemoryCgroup(self.cgroup, 2), life=1),)
        self.rest = Rest()
        self.loop = Loop(
            settings,
            scout=scout,
            captures=cast("Captures", self.rest),
            endings=cast("Endings", self.rest),
            last_moments=cast("LastMoments", self.rest),
            guards=Guards(None, Workers()),
            oom_groups=OomGroups(None, (), Workers()),
            baselines=cast("Baselines", self.rest),
            wakeup=Quiet(),
        )

    def survey(self, found: tuple[Surveyed, ...]) -> None:
        """What the scout finds from now on."""
        self.scout.survey = found

    def count_kills(self, oom_kills: int) -> None:
        """What the kernel's counter says from now on."""
        (self.cgroup / "memory.events").write_text(f"oom_kill {oom_kills}\n")
