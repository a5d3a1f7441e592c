"""Guard by raising the limit: by a bounded amount, for a bounded time, then down again as far as the usage lets."""

from __future__ import annotations

from pathlib import Path
from typing import ClassVar, Literal

from sidecar.core import guard
from sidecar.core.guard import GuardPolicy
from sidecar.core.model import Reading
from sidecar.guard.cgroup_view import Parent
from sidecar.guard.guarded import Guarded, Plan, Subject
from sidecar.guard.journal import Change, Journal
from sidecar.guard.levers import Levers


class Raised(Guarded):
    """`hold` raises the limit at once; `release`, or the bound of time, lets it down.

    While the usage is above the original limit it is let down to just above the usage, so that growth meets the killer.
    """

    mode: ClassVar[Literal["brake", "raise"]] = "raise"

    def __init__(
        self,
        subject: Subject,
        policy: GuardPolicy,
        journal: Journal,
        *,
        directory: Path,
        parents: list[Parent],
        left: tuple[Change, ...],
    ) -> None:
        """``left`` is what the journal says an earlier run may have left raised.

        Raises `GuardUnavailableError` without the right to write, or if the journal can't be written; OSError if the
        cgroup has vanished.
        """
        super().__init__(subject, policy, journal)
        self._parents = parents
        self._step_bytes = guard.step_bytes(subject.page_bytes)
        self._most_steps = policy.raise_bytes // self._step_bytes
        self._raised_to_bytes: int | None = None
        self._levers = Levers(directory, subject.version)
        try:
            # What is left stays in the journal as it is, until it has been let down.
            self._noted = not self._levers.resume(left)
            if self._noted:
                originals = self._levers.read_limits()
                self._write_entry(self._levers.changes(originals, self._most_steps, self._step_bytes))
                self._levers.settle(originals, self._most_steps, self._step_bytes)
        except BaseException:
            self._levers.close()
            raise

    def nominal_limit_bytes(self, limit_bytes: int | None) -> int | None:
        """The original limit, if this one is ours."""
        span = self._levers.main.span
        return limit_bytes if span is None or span.steps_of(limit_bytes) is None else span.base_bytes

    def record(self) -> dict[str, object]:
        """From what to what, since when, for how long, and if not, why."""
        with self._lock:
            return {
                "mode": self.mode,
                "times": self._times,
                "since": self._since,
                "held_s": self._held_s if self._held_s is None else round(self._held_s, 3),
                "limit_bytes": self._levers.main.original_bytes,
                "raised_to_bytes": self._raised_to_bytes,
                "restored": not self._levers.are_up or self._gone,
                "why_not": self._why_not,
            }

    def _is_busy(self) -> bool:
        return self._began_s is not None or self._levers.are_up

    def _plan(self, reading: Reading, now_s: float) -> list[Plan]:
        del reading
        if self._is_busy():
            self._keep(now_s)
            return []
        if self._noted and self._levers.originals_hold():
            return []
        # until the journal knows the new originals nothing may be raised
        self._noted = False
        originals = self._levers.read_limits()
        return [
            Plan(
                changes=self._levers.changes(originals, self._most_steps, self._step_bytes),
                apply=lambda: self._settle(originals),
            )
        ]

    def _settle(self, originals: list[int | None]) -> None:
        if not self._is_busy():
            self._levers.settle(originals, self._most_steps, self._step_bytes)
            self._noted = True

    def _hold(self, now_s: float) -> None:
        if self._is_busy():
            return
        main = self._levers.main
        if not self._noted or not self._levers.originals_hold():
            self._why_not = "its limit was changed a moment ago"
            return
        if main.original_bytes is None or main.span is None:
            self._why_not = "the container has no limit of its own"
            return
        steps = guard.raise_steps(
            self._policy,
            limit_bytes=main.original_bytes,
            usage_bytes=main.usage.read() or 0,
            rooms_bytes=[room for parent in self._parents for room in parent.rooms_bytes()],
            step_bytes=self._step_bytes,
        )
        if not steps:
            self._why_not = "a limit of a parent cgroup leaves too little to raise it by"
            return
        self._begin(now_s)
        self._levers.raise_by(steps)
        self._raised_to_bytes = main.span.value_bytes(steps)
        self._say(
            "guard-raised",
            f"limit raised by {steps * self._step_bytes} bytes",
            limit_bytes=main.original_bytes,
            raised_to_bytes=self._raised_to_bytes,
        )

    def _keep(self, now_s: float) -> None:
        if not self._is_busy():
            return
        for name in self._levers.lost():
            self._why_not = f"somebody else has changed {name}"
            self._warn("guard-theirs", f"{self._why_not}: it stays as they set it")
        if self._began_s is not None and (now_s - self._began_s >= self._policy.hold_s or not self._levers.main.steps):
            self._end(now_s)
        if self._began_s is None:
            self._lower()

    def _release(self, now_s: float) -> None:
        if self._began_s is not None:
            self._end(now_s)
            self._keep(now_s)

    def _lower(self) -> None:
        if self._levers.are_up and self._levers.lower():
            self._say("guard-restored", "the limit is as it was", limit_bytes=self._levers.main.limit.read())

    def _restore(self) -> bool:
        if self._levers.lower_fully():
            return True
        self._warn("guard-kept", "more is in use than the original limit, which the next start of the sidecar restores")
        return False

    def _close_files(self) -> None:
        self._levers.close()
        for parent in self._parents:
            parent.close()
