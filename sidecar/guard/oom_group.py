"""Keeps ``memory.oom.group`` off, so that an OOM kill takes one process and not every one of the container.

The kubelet has it set on cgroup v2 since Kubernetes 1.28. What it does: Documentation/admin-guide/cgroup-v2.rst, and
oom_kill_process in the kernel's mm/oom_kill.c. v1 has no such flag: there a kill takes one process.
"""

from __future__ import annotations

import logging
import threading
from pathlib import Path

from sidecar import logs
from sidecar.core.guard import Span
from sidecar.guard import cgroup_view
from sidecar.guard.cgroup_view import GONE, CgroupId, NumberFile, open_writable
from sidecar.guard.errors import GuardJournalError, GuardUnavailableError
from sidecar.guard.journal import Change, Entry, Journal
from sidecar.kernel.cgroup import MemoryCgroup

FILE = "memory.oom.group"

_CHANGES = (Change(file=FILE, original_bytes=1, spans=(Span(base_bytes=0, step_bytes=1, steps=0),)),)


class KeptOff:
    """The flag of one container. Every method may be called from any thread and raises nothing."""

    def __init__(self, flag: NumberFile, entry: Entry, journal: Journal, name: str) -> None:
        """Nothing is written yet. ``entry`` is what the journal will say before, or says as an earlier run wrote it."""
        self._flag = flag
        self._entry = entry
        self._journal = journal
        self._name = name
        self._lock = threading.Lock()
        self._limit = logs.RateLimit()
        self._is_noted = self._was_switched = journal.read(entry.id) is not None
        self._closed = False

    @property
    def is_closed(self) -> bool:
        """Whether `close` was called."""
        return self._closed

    def keep(self, now_s: float) -> None:
        """Look, and where it is set write 0, at monotonic ``now_s``; the first time it waits for the disk.

        Call every few seconds: a runtime may write it again, as with a resize in place. One that is 0 is left alone.
        """
        with self._lock:
            if self._closed:
                return
            try:
                if self._flag.read() == 0:
                    return
                if not self._is_noted:
                    self._journal.write(self._entry)
                    self._is_noted = True
                self._flag.write(0)
            except GuardJournalError as error:
                self._fail(str(error), now_s)
            except OSError as error:
                if error.errno not in GONE:
                    self._fail(f"{FILE} can't be written ({error.strerror})", now_s)
            else:
                again, self._was_switched = self._was_switched, True
                self._say_off(again=again, now_s=now_s)

    def close(self) -> None:
        """Set it again if this is where it was set, and it is still 0. Afterwards nothing is done."""
        with self._lock:
            if self._closed:
                return
            self._closed = True
            try:
                if self._is_noted:
                    self._restore()
            finally:
                self._flag.close()

    def _restore(self) -> None:
        try:
            if self._was_switched and self._flag.read() == 0:
                self._flag.write(1)
                self._log(logging.INFO, "oom-group-restored", f"{FILE} is set again, as it was")
        except OSError as error:
            if error.errno not in GONE:
                self._log(logging.WARNING, "oom-group-failed", f"{FILE} isn't restored ({error.strerror})")
                return
        try:
            self._journal.remove(self._entry.id)
        except GuardJournalError as error:
            self._log(logging.WARNING, "oom-group-failed", str(error))

    def _say_off(self, *, again: bool, now_s: float) -> None:
        if not again:
            self._log(logging.INFO, "oom-group-off", f"{FILE} was set and is 0 now: an OOM kill takes one process")
            return
        left_out = self._limit.admit("again", now_s)
        if left_out is not None:
            message = f"somebody had set {FILE} again: it is back at 0"
            self._log(logging.WARNING, "oom-group-again", message, times_not_logged=left_out)

    def _fail(self, why: str, now_s: float) -> None:
        if self._limit.admit("failed", now_s) is not None:
            self._log(logging.WARNING, "oom-group-failed", f"an OOM kill takes the whole container: {why}")

    def _log(self, level: int, name: str, message: str, **fields: object) -> None:
        who = f"container {self._name}" if self._name else self._entry.path
        logs.event(level, name, f"{who}: {message}", container=self._name or None, **fields)


class OomGroup:
    """Finds containers' cgroups in a writable view of the machine's cgroupfs, and repairs what an earlier run left."""

    def __init__(self, cgroups: Path, journal: Path) -> None:
        """``cgroups`` is where the machine's /sys/fs/cgroup is mounted, ``journal`` a directory of its own."""
        self._view = cgroups
        self._journal = Journal(journal)
        self._lock = threading.Lock()
        self._kept: dict[CgroupId, KeptOff] = {}
        self._closed = False

    @property
    def is_closed(self) -> bool:
        """Whether `close` was called: the sidecar is stopping."""
        return self._closed

    def probe(self, memory: MemoryCgroup) -> None:
        """Whether a container's flag could be kept off; nothing is written. Raises as `adopt` does."""
        self._open(memory)[0].close()

    def adopt(self, memory: MemoryCgroup, name: str = "") -> KeptOff:
        """Take over a container's flag, ``name`` in the log. Walks the view: not for the loop.

        One of the same cgroup that was given before is closed. Raises `GuardUnavailableError` with what to do about it.
        """
        flag, entry = self._open(memory)
        with self._lock:
            if self._closed:
                flag.close()
                raise GuardUnavailableError(f"{FILE} isn't changed any more", "the sidecar is stopping")
            for known, kept in tuple(self._kept.items()):
                if kept.is_closed or known == entry.id:
                    self._kept.pop(known).close()
            self._kept[entry.id] = KeptOff(flag, entry, self._journal, name)
            return self._kept[entry.id]

    def close(self) -> None:
        """Give every flag back: the last act, nothing can be adopted any more."""
        with self._lock:
            self._closed = True
            for kept in self._kept.values():
                kept.close()
            self._kept.clear()

    def repair(self) -> int:
        """Set again what an earlier run has left at 0, and log each; how many. Call it before the first `adopt`.

        What can't be restored yet stays in the journal. Raises nothing.
        """
        restored = 0
        try:
            for path, entry in self._journal.entries():
                restored += self._repair(path, entry)
        except GuardJournalError as error:
            _warn("oom-group-failed", str(error))
        except OSError as error:
            _warn("oom-group-failed", f"the journal of {FILE} can't be read: {error.strerror}")
        return restored

    def _repair(self, path: Path, entry: Entry | GuardJournalError) -> bool:
        try:
            if not isinstance(entry, GuardJournalError):
                return self._undo(entry)
            _warn("oom-group-damaged", f"{entry}; kept as {self._journal.set_aside(path).name}")
        except GuardUnavailableError as error:
            what = "the journal" if isinstance(entry, GuardJournalError) else f"{entry.path} may have {FILE} off"
            _warn("oom-group-kept", f"{what}: {error}")
        return False

    def _undo(self, entry: Entry) -> bool:
        """Drop the entry, and what is ours; whether anything was. Raises `GuardUnavailableError` if it must wait."""
        try:
            directory = cgroup_view.find(self._view, entry.id)
        except GuardUnavailableError:
            if not cgroup_view.is_view(self._view, entry.view):
                raise
            self._journal.remove(entry.id)  # the container is gone
            return False
        flag = open_writable(directory / FILE)
        try:
            was_ours = flag.read() == 0
            if was_ours:
                flag.write(1)
        except OSError as error:
            if error.errno not in GONE:
                raise GuardUnavailableError(f"{FILE}: {error.strerror}", "write 1 into it by hand") from error
            was_ours = False
        finally:
            flag.close()
        self._journal.remove(entry.id)
        if was_ours:
            logs.event(logging.INFO, "oom-group-repaired", f"{entry.path}: {FILE}, left off by an earlier run, is set")
        return was_ours

    def _open(self, memory: MemoryCgroup) -> tuple[NumberFile, Entry]:
        if memory.version == 1:
            raise GuardUnavailableError(f"cgroup v1 has no {FILE}", "there an OOM kill takes one process anyway")
        try:
            wanted, directory = cgroup_view.find_home(self._view, memory)
            entry = Entry(
                id=wanted,
                view=CgroupId.of(self._view),
                version=memory.version,
                mode="oom-group",
                path=str(directory.relative_to(self._view)),
                changes=_CHANGES,
            )
            return open_writable(directory / FILE), entry
        except OSError as error:
            remedy = "the container has ended" if error.errno in GONE else "run the sidecar as user 0"
            raise GuardUnavailableError(f"{error.filename or self._view}: {error.strerror}", remedy) from error


def _warn(name: str, message: str) -> None:
    logs.event(logging.WARNING, name, message)
