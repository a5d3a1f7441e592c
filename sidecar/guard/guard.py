"""The guard of a machine's containers: adopts them one by one, and repairs what an earlier run has left."""

from __future__ import annotations

import logging
import resource
import threading
from pathlib import Path
from typing import Literal

from sidecar import logs
from sidecar.core.guard import GuardPolicy
from sidecar.guard import cgroup_view
from sidecar.guard.brake import HIGH, Brake
from sidecar.guard.cgroup_view import FILE_NAMES, GONE, CgroupId, Parent, open_writable
from sidecar.guard.errors import GuardJournalError, GuardUnavailableError
from sidecar.guard.guarded import Guarded, Subject
from sidecar.guard.journal import Change, Entry, Journal
from sidecar.guard.levers import Levers
from sidecar.guard.raised import Raised
from sidecar.kernel.cgroup import MemoryCgroup
from sidecar.kernel.cgroup_files import CgroupVersion


class Guard:
    """Finds containers' cgroups in a writable view of the machine's cgroupfs, and guards them as the policy says."""

    def __init__(self, policy: GuardPolicy, cgroups: Path, journal: Path) -> None:
        """``cgroups`` is where the machine's /sys/fs/cgroup is mounted, ``journal`` a directory of the spool.

        Nothing is read yet. With the mode "off" only `repair` is of use.
        """
        self._policy = policy
        self._view = cgroups
        self._journal = Journal(journal)
        self._lock = threading.Lock()
        self._adopted: dict[CgroupId, Guarded] = {}
        self._closed = False

    def repair(self) -> int:
        """Undo what the journal of an earlier run says, and log each; call it before the first `adopt`.

        Tells how many limits' entries were undone. What can't be undone yet stays in the journal. Raises nothing.
        """
        undone = 0
        try:
            for path, entry in self._journal.entries():
                undone += self._repair(path, entry)
        except GuardJournalError as error:
            _log(logging.WARNING, "guard-failed", str(error))
        except OSError as error:
            _log(logging.WARNING, "guard-failed", f"the guard's journal can't be read: {error.strerror}")
        return undone

    def _repair(self, path: Path, entry: Entry | GuardJournalError) -> bool:
        try:
            if not isinstance(entry, GuardJournalError):
                return self._undo(entry)
            _log(logging.WARNING, "guard-damaged", f"{entry}; kept as {self._journal.set_aside(path).name}")
        except GuardJournalError as error:
            _log(logging.WARNING, "guard-failed", str(error))
        return False

    def close(self) -> None:
        """Close every guard that is left: the last act, nothing can be adopted any more."""
        with self._lock:
            self._closed = True
            for guarded in self._adopted.values():
                guarded.close()
            self._adopted.clear()

    def probe(self, memory: MemoryCgroup) -> None:
        """Whether a container could be adopted; nothing is written. Raises `GuardUnavailableError` if not."""
        mode = self._mode(memory.version)
        try:
            _, directory = cgroup_view.find_home(self._view, memory)
        except OSError as error:
            raise GuardUnavailableError(f"{memory.directory}: {error.strerror}", "see the rights above") from error
        open_writable(directory / (HIGH if mode == "brake" else FILE_NAMES[memory.version].limit)).close()

    def adopt(self, memory: MemoryCgroup, name: str = "") -> Guarded:
        """Guard a container, ``name`` in the log. Walks the view and writes the journal: not for the loop.

        A guard of the same cgroup that was given before is closed.

        Raises `GuardUnavailableError` with what to do about it.
        """
        mode = self._mode(memory.version)
        try:
            wanted, directory = cgroup_view.find_home(self._view, memory)
            with self._lock:
                if self._closed:
                    raise GuardUnavailableError("the guard is closed", "the sidecar is stopping")
                for known, guarded in tuple(self._adopted.items()):
                    if guarded.is_closed or known == wanted:
                        self._adopted.pop(known).close()
                self._adopted[wanted] = self._open(wanted, directory, memory.version, mode, name)
                return self._adopted[wanted]
        except OSError as error:
            remedy = "the container has ended" if error.errno in GONE else "run the sidecar as user 0"
            raise GuardUnavailableError(f"{error.filename or self._view}: {error.strerror}", remedy) from error

    def _open(
        self, wanted: CgroupId, directory: Path, version: CgroupVersion, mode: Literal["brake", "raise"], name: str
    ) -> Guarded:
        left = self._left(wanted, mode)
        subject = Subject(
            id=wanted,
            view=CgroupId.of(self._view),
            version=version,
            path=str(directory.relative_to(self._view)),
            name=name,
            page_bytes=resource.getpagesize(),
        )
        parents = [Parent(above, version) for above in cgroup_view.ancestors(self._view, directory)]
        try:
            if mode == "brake":
                return Brake(subject, self._policy, self._journal, directory=directory, parents=parents)
            return Raised(subject, self._policy, self._journal, directory=directory, parents=parents, left=left)
        except BaseException:
            for parent in parents:
                parent.close()
            raise

    def _mode(self, version: CgroupVersion) -> Literal["brake", "raise"]:
        mode = self._policy.mode
        if mode == "off":
            raise GuardUnavailableError("the guard is off", "set GUARD to auto, brake or raise")
        if mode == "auto":
            return "brake" if version == 2 else "raise"
        if mode == "brake" and version == 1:
            raise GuardUnavailableError("the guard's brake needs cgroup v2, here is v1", "set GUARD to auto or raise")
        return mode

    def _left(self, wanted: CgroupId, mode: Literal["brake", "raise"]) -> tuple[Change, ...]:
        """What an earlier guard of this cgroup has left raised, and can't be lowered yet."""
        entry = self._journal.read(wanted)
        if entry is None:
            return ()
        self._undo(entry)
        entry = self._journal.read(wanted)
        if entry is not None and entry.mode != mode:
            raise GuardUnavailableError(
                "an earlier run has changed a limit in another mode and it can't be restored yet",
                "restart the container, or lower its memory and restart the sidecar",
            )
        return () if entry is None else entry.changes

    def _undo(self, entry: Entry) -> bool:
        """Undo an entry and drop it; False if there was nothing to undo or it can't be undone yet."""
        try:
            directory = cgroup_view.find(self._view, entry.id)
        except GuardUnavailableError as error:
            if cgroup_view.is_view(self._view, entry.view):
                self._journal.remove(entry.id)
            else:
                _log(logging.WARNING, "guard-kept", f"{entry.path} may have a limit of an earlier run: {error}")
            return False
        try:
            found, whole = _unbrake(directory, entry) if entry.mode == "brake" else _lower(directory, entry)
        except GuardUnavailableError as error:
            _log(logging.WARNING, "guard-kept", f"{entry.path} may have a limit of an earlier run: {error}")
            return False
        except OSError as error:
            if error.errno not in GONE:
                _log(logging.WARNING, "guard-kept", f"{entry.path}: {error.strerror}: its limits aren't restored")
                return False
            found, whole = False, True
        if whole:
            self._journal.remove(entry.id)
        if not found:
            return False
        state, level = ("restored", logging.INFO) if whole else ("lowered to what is in use", logging.WARNING)
        _log(level, "guard-repaired", f"{entry.path}: a limit that an earlier run had left was {state}")
        return whole


def _unbrake(directory: Path, entry: Entry) -> tuple[bool, bool]:
    """Whether a value of ours was found, and whether nothing of ours is left."""
    found = False
    for change in entry.changes:
        file = open_writable(directory / change.file)
        try:
            value = file.read()
            if any(span.steps_of(value) is not None for span in change.spans):
                file.write(change.original_bytes)
                found = True
        finally:
            file.close()
    return found, True


def _lower(directory: Path, entry: Entry) -> tuple[bool, bool]:
    levers = Levers(directory, entry.version)
    try:
        found = levers.resume(entry.changes)
        return found, levers.lower_fully() if found else True
    finally:
        levers.close()


def _log(level: int, name: str, message: str) -> None:
    logs.event(level, name, message)
