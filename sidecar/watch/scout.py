"""Keeps looking who is in the pod, where they answer pprof, and whose heap can be read.

Three threads: one looks for containers and waits for nothing but the kernel, one probes ports, which may keep silent,
and one prepares the reading of heaps from memory. The loop reads `Scout.survey`, an immutable value that is swapped
whole; captures ask `Scout.endpoints` and `Scout.heaps`.
"""

from __future__ import annotations

import functools
import logging
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from sidecar import logs
from sidecar.core.keys import NEWEST
from sidecar.core.model import Container, Process
from sidecar.core.roll_call import Resident
from sidecar.errors import NotPermittedError, TargetGoneError
from sidecar.kernel import cgroup, residents
from sidecar.kernel.cgroup import MemorySource
from sidecar.kernel.process_memory import ProcessMemory
from sidecar.kernel.processes import ProcessTable
from sidecar.settings import Settings
from sidecar.watch.cgroup_search import CgroupSearch
from sidecar.watch.endpoints import Endpoints
from sidecar.watch.heaps import Heaps
from sidecar.watch.sources import Source, sources_of

_SCAN_INTERVAL_S = 1.0
_VERIFY_EVERY_SCANS = 5
_POLL_S = 0.01


@dataclass(frozen=True, slots=True, kw_only=True)
class Surveyed:
    """A container and where its memory is read. ``life`` is another number after each end of the container."""

    container: Container
    source: MemorySource
    life: int


class Scout:
    """Looks once a second; `run` is the thread's body and survives whatever one container does."""

    def __init__(self, proc: Path, settings: Settings, *, wake_loop: Callable[[], None]) -> None:
        """``wake_loop`` is called when containers came or went."""
        self.survey: tuple[Surveyed, ...] = ()
        self.endpoints = Endpoints(proc, settings.pprof)
        self.heaps = Heaps(proc) if NEWEST in settings.pprof.profiles else None
        self._proc = proc
        self._settings = settings
        self._table = ProcessTable(proc, pids=settings.targets.pids, container_name=settings.targets.container_name)
        self._wake_loop = wake_loop
        self._wake_look = threading.Event()
        self._wake_probe = threading.Event()
        self._wake_prepare = threading.Event()
        self._faults = logs.RateLimit()
        self._stopping = False
        self._scans = 0
        self._lives = 0
        self._search = CgroupSearch()
        self._unreadable = logs.RateLimit(interval_s=600.0)
        self._pids: dict[str, tuple[int, ...]] = {}

    @property
    def faults(self) -> int:
        """How often the work on a single process failed in an unforeseen way."""
        return self.endpoints.faults + (self.heaps.faults if self.heaps is not None else 0)

    def sources(self, container: Container) -> list[Source]:
        """Where the heaps of a container's processes can be had from now, oldest process first."""
        return sources_of(container, self.heaps, self.endpoints)

    def residents(self, surveyed: Surveyed) -> tuple[Resident, ...]:
        """Who is in a container at this moment, also who came since the last look."""
        pids = surveyed.source.read_pids()
        if pids is None:
            pids = tuple(process.pid for process in surveyed.container.processes)
        return residents.look(self._proc, pids, time.monotonic())

    def look(self) -> None:
        """One look at processes and their cgroups; publishes a new survey if anything changed."""
        self._scans += 1
        lost = {surveyed.container.key for surveyed in self.survey if not surveyed.source.is_open}
        containers = self._table.scan(verify=bool(lost) or self._scans % _VERIFY_EVERY_SCANS == 0)
        before = {surveyed.container.key: surveyed for surveyed in self.survey if surveyed.container.key not in lost}
        self._pids = {container.key: tuple(p.pid for p in container.processes) for container in containers}
        self._search.keep(self._pids.keys())
        survey = []
        for container in containers:
            known = before.get(container.key)
            source = known.source if known else None
            if source is None or isinstance(source, ProcessMemory):
                source = self._open(container, fallback=source)
            if source is not None:
                self._lives += known is None
                survey.append(Surveyed(container=container, source=source, life=known.life if known else self._lives))
        if tuple(survey) != self.survey:
            self.survey = tuple(survey)
            for key in before.keys() - self._pids.keys():
                self._unreadable.forget(key)
            self._wake_loop()
            self._wake_probe.set()
            self._wake_prepare.set()

    def watch_containers(self) -> None:
        """Look for containers until `stop`; a thread's body."""
        self._repeat(self.look, self._wake_look, "looking for containers")

    def watch_ports(self) -> None:
        """Probe the ports of the containers that were found, until `stop`; a thread's body."""
        self._repeat(self.probe, self._wake_probe, "probing ports")

    def watch_heaps(self) -> None:
        """Prepare the reading of the heaps of what was found, until `stop`; a thread's body."""
        self._repeat(self.prepare, self._wake_prepare, "preparing to read heaps")

    def prepare(self) -> None:
        """One round of preparations, as far as any are due."""
        if self.heaps is not None:
            self.heaps.refresh([surveyed.container for surveyed in self.survey], time.monotonic())

    def probe(self) -> None:
        """One round of probes, as far as any are due."""
        self.endpoints.refresh(tuple(surveyed.container for surveyed in self.survey), time.monotonic())

    def _repeat(self, act: Callable[[], None], wake: threading.Event, what: str) -> None:
        while not self._stopping:
            try:
                act()
            except Exception:  # noqa: BLE001 -- nothing may stop the watch; the next round starts afresh
                if self._faults.admit(what, time.monotonic()) is not None:
                    logs.fault("scout-failed", f"{what} failed, trying again")
            wake.wait(_SCAN_INTERVAL_S)
            wake.clear()

    def stop(self) -> None:
        """End the threads soon and close what they opened."""
        self._stopping = True
        self._wake_look.set()
        self._wake_probe.set()
        self._wake_prepare.set()
        self.endpoints.close()

    def look_again(self) -> None:
        """The loop found a container's cgroup gone and closed it: it may come back under the same name."""
        self._wake_look.set()

    def hurry(self) -> None:
        """A capture found no endpoint: probe again at once."""
        self.endpoints.forget_refusals()
        self._wake_probe.set()

    def is_alive(self, process: Process) -> bool:
        """Whether this very process still runs."""
        return self._table.is_alive(process)

    def lives_on(self, container: Container, until_s: float) -> bool:
        """Whether any process of a container is alive at that moment; a kill takes its time to end them. Waits."""
        while any(self.is_alive(process) for process in container.processes):
            if time.monotonic() >= until_s:
                return True
            time.sleep(_POLL_S)
        return False

    def _open(self, container: Container, fallback: MemorySource | None) -> MemorySource | None:
        """The best source of memory figures that our rights allow; ``fallback`` if they still allow no better one.

        A container may be seen while its runtime sets it up, as another user: what is refused then is granted later.
        """
        if self._settings.targets.pids:
            return fallback or self._process_memory(container)
        now_s = time.monotonic()
        if fallback is not None and not self._search.is_due(container, now_s):
            return fallback
        try:
            return cgroup.open_cgroup(self._proc, container, self._settings.targets.limit_bytes)
        except TargetGoneError:
            return None
        except NotPermittedError as error:
            self._search.note_refusal(container, now_s)
            if fallback is not None:
                self._report_unreadable(container, str(error))
            return fallback or self._process_memory(container)

    def _report_unreadable(self, container: Container, reason: str) -> None:
        """Said from the second look on: the first may have been too early."""
        if self._unreadable.admit(container.key, time.monotonic()) is not None:
            hint = "" if self._settings.targets.limit_bytes else ", which needs MEMORY_LIMIT"
            logs.event(
                logging.WARNING,
                "cgroup-unreadable",
                f"{reason}; falling back to the memory of its processes{hint}",
                container=container.name,
            )

    def _process_memory(self, container: Container) -> ProcessMemory:
        return ProcessMemory(
            self._proc, functools.partial(self._pids_of, container.key), self._settings.targets.limit_bytes
        )

    def _pids_of(self, key: str) -> tuple[int, ...]:
        return self._pids.get(key, ())
