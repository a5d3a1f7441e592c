"""What the guard of every container has in common: one lock, quiet failures, a journal entry, a last act."""

from __future__ import annotations

import logging
import threading
from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import ClassVar, Literal

from sidecar import logs
from sidecar.core.guard import GuardPolicy
from sidecar.core.model import Reading
from sidecar.guard.cgroup_view import GONE, CgroupId
from sidecar.guard.errors import GuardJournalError
from sidecar.guard.journal import Change, Entry, Journal
from sidecar.kernel.cgroup_files import CgroupVersion

# The watch calls `hold` between two samples. Letting go may sit in a write for as long as the kernel reclaims.
_HOLD_WITHIN_S = 0.005


@dataclass(frozen=True, slots=True, kw_only=True)
class Subject:
    """The cgroup that is guarded: ``path`` tells people where in the view it is, ``view`` is that view's identity."""

    id: CgroupId
    view: CgroupId
    version: CgroupVersion
    path: str
    name: str
    page_bytes: int

    def __str__(self) -> str:
        return f"container {self.name}" if self.name else self.path


class Guarded(ABC):
    """The guard of one container. Every method may be called from any thread and raises nothing.

    Times are monotonic seconds that the caller passes. Where nothing could be done, `record` says why.
    """

    mode: ClassVar[Literal["brake", "raise"]]

    def __init__(self, subject: Subject, policy: GuardPolicy, journal: Journal) -> None:
        self._subject = subject
        self._policy = policy
        self._journal = journal
        self._lock = threading.Lock()
        # Writing the journal waits for the disk, and `hold` may not wait for that: so arming has a lock of its own.
        self._arming = threading.Lock()
        self._limit = logs.RateLimit()
        self._closed = False
        self._gone = False
        self._began_s: float | None = None
        self._since: str | None = None
        self._held_s: float | None = None
        self._times = 0
        self._why_not: str | None = None

    @property
    def is_closed(self) -> bool:
        """Whether `close` was called."""
        return self._closed

    @property
    def is_held(self) -> bool:
        """Whether `keep` has something to do: held, or let go and not yet as it was. Without the lock: never waits."""
        return not self._closed and not self._gone and self._is_busy()

    def arm(self, reading: Reading, now_s: float) -> None:
        """Get ready, and follow a limit that has changed. Call about once a second.

        Mostly a few reads; where a value is new it waits for the disk first, but `hold` doesn't wait for that. Kernels
        before 6.16 may drop a little page cache within this call.
        """
        with self._arming:
            plans: list[Plan] = []
            self._act(lambda: plans.extend(self._plan(reading, now_s)), now_s)
            for plan in plans:
                if self._note(plan.changes, now_s):
                    self._act(plan.apply, now_s)

    def hold(self, now_s: float) -> None:
        """The limit is near: hold the killer off. Takes microseconds; does nothing where it is held already.

        Waits `_HOLD_WITHIN_S` at most for what is under way, then does nothing and says so. What takes longer than that
        is letting go, while which nothing could be held anyway.
        """
        if not self._lock.acquire(timeout=_HOLD_WITHIN_S):
            self._fail("an earlier change of its limits is still under way in the kernel", now_s)
            return
        try:
            self._act_locked(lambda: self._hold(now_s), now_s)
        finally:
            self._lock.release()

    def keep(self, now_s: float) -> None:
        """Mind the bound of time and others' changes; call about every 100 ms while `is_held`.

        Where page cache has to go first the kernel drops a few MiB of it within this call.
        """
        self._act(lambda: self._keep(now_s), now_s)

    def release(self, now_s: float) -> None:
        """What was to be saved is safe: let go. What can't go at once is left to `keep`."""
        self._act(lambda: self._release(now_s), now_s)

    def is_biting(self, reading: Reading) -> bool:
        """Whether the program is held up now, so that nothing should keep us from letting go soon."""
        del reading
        return False

    def nominal_limit_bytes(self, limit_bytes: int | None) -> int | None:
        """The limit that one just read stands for: that of before, if it is a value of ours."""
        return limit_bytes

    @abstractmethod
    def record(self) -> dict[str, object]:
        """For the manifest, as values of JSON: what was done and when, and if nothing, why."""

    def close(self) -> None:
        """Restore what is still ours, drop the journal entry, give back the descriptors. Afterwards nothing is done."""
        with self._arming, self._lock:
            if self._closed:
                return
            self._closed = True
            restored = False
            try:
                restored = self._gone or self._restore()
            except OSError as error:
                restored = error.errno in GONE
                if not restored:
                    self._warn("guard-failed", f"its limits aren't restored ({error.strerror})")
            finally:
                self._close_files()
            if not restored:
                return
            try:
                self._journal.remove(self._subject.id)
            except GuardJournalError as error:
                self._warn("guard-failed", str(error))

    @abstractmethod
    def _is_busy(self) -> bool:
        """As `is_held`; called without the lock, too."""

    @abstractmethod
    def _plan(self, reading: Reading, now_s: float) -> list[Plan]:
        """What to do next, and what the journal must say before; none or one."""

    @abstractmethod
    def _hold(self, now_s: float) -> None: ...

    @abstractmethod
    def _keep(self, now_s: float) -> None: ...

    @abstractmethod
    def _release(self, now_s: float) -> None: ...

    @abstractmethod
    def _restore(self) -> bool:
        """Undo at the end; whether nothing of ours is left."""

    @abstractmethod
    def _close_files(self) -> None: ...

    def _begin(self, now_s: float) -> None:
        self._began_s = now_s
        self._since = datetime.now(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
        self._held_s = 0.0
        self._times += 1
        self._why_not = None

    def _end(self, now_s: float) -> None:
        if self._began_s is not None:
            self._held_s = now_s - self._began_s
            self._began_s = None

    def _note(self, changes: tuple[Change, ...] | None, now_s: float) -> bool:
        """Write the journal's entry, if there is a new one; whether one may go on."""
        try:
            if changes is not None:
                self._write_entry(changes)
        except GuardJournalError as error:
            self._fail(str(error), now_s)
            return False
        return True

    def _write_entry(self, changes: tuple[Change, ...]) -> None:
        """Raises `GuardJournalError`."""
        subject = self._subject
        self._journal.write(
            Entry(
                id=subject.id,
                view=subject.view,
                version=subject.version,
                mode=self.mode,
                path=subject.path,
                changes=changes,
            )
        )

    def _fail(self, why: str, now_s: float) -> None:
        self._why_not = why
        if self._limit.admit("failed", now_s) is not None:
            self._warn("guard-failed", why)

    def _act(self, action: Callable[[], None], now_s: float) -> None:
        with self._lock:
            self._act_locked(action, now_s)

    def _act_locked(self, action: Callable[[], None], now_s: float) -> None:
        if self._closed or self._gone:
            return
        if self._began_s is not None:
            self._held_s = now_s - self._began_s
        try:
            action()
        except OSError as error:
            if error.errno in GONE:
                self._gone = True
                self._end(now_s)
                self._why_not = "its cgroup is gone"
                return
            self._fail(f"the kernel refused ({error.strerror})", now_s)

    def _say(self, name: str, message: str, **fields: object) -> None:
        logs.event(
            logging.INFO,
            name,
            f"{self._subject}: {message}",
            container=self._subject.name or None,
            mode=self.mode,
            **fields,
        )

    def _warn(self, name: str, message: str, **fields: object) -> None:
        logs.event(
            logging.WARNING,
            name,
            f"{self._subject}: {message}",
            container=self._subject.name or None,
            mode=self.mode,
            **fields,
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """A step of arming: first the journal says ``changes`` (None: it does already), then ``apply`` is called."""

    changes: tuple[Change, ...] | None
    apply: Callable[[], None]
