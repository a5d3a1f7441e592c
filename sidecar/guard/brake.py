"""Guard by a brake: memory.high set in advance, near the limit; a program beyond it is slowed down by the kernel.

What it does to a task: mem_cgroup_handle_over_high and calculate_high_delay in the kernel's mm/memcontrol.c.
"""

from __future__ import annotations

import contextlib
import os
from functools import partial
from pathlib import Path
from typing import ClassVar, Literal

from sidecar.core import guard
from sidecar.core.guard import GuardPolicy, Span
from sidecar.core.model import Reading
from sidecar.guard.cgroup_view import FILE_NAMES, NumberFile, Parent, open_writable
from sidecar.guard.guarded import Guarded, Plan, Subject
from sidecar.guard.journal import Change, Journal

HIGH = "memory.high"


class Brake(Guarded):
    """`arm` sets it, `release` lets go if it bites; it comes back after a pause, once the program has come down.

    Where `hold` isn't heard, `arm` itself sees that it bites and lets go within the bound of time.
    """

    mode: ClassVar[Literal["brake", "raise"]] = "brake"

    def __init__(
        self, subject: Subject, policy: GuardPolicy, journal: Journal, *, directory: Path, parents: list[Parent]
    ) -> None:
        """Open the files. Raises `GuardUnavailableError` without the right to write, OSError for the others."""
        super().__init__(subject, policy, journal)
        self._parents = parents
        self._step_bytes = guard.brake_step_bytes(subject.page_bytes)
        self._span: Span | None = None
        self._noted: tuple[Span, ...] = ()
        self._value_bytes: int | None = None
        self._rests_from_s: float | None = None
        self._files: list[NumberFile] = []
        names = FILE_NAMES[subject.version]
        try:
            # With O_NONBLOCK the kernel (6.16 and later) leaves the reclaim to the program's next allocation.
            self._high = self._opened(open_writable(directory / HIGH, os.O_NONBLOCK))
            self._limit_file = self._opened(NumberFile(directory / names.limit))
            self._usage = self._opened(NumberFile(directory / names.usage))
        except BaseException:
            self._close_files()
            raise

    def _opened(self, file: NumberFile) -> NumberFile:
        self._files.append(file)
        return file

    def record(self) -> dict[str, object]:
        """Where the brake is, since when it bit last, for how long, and if it isn't set, why."""
        with self._lock:
            return {
                "mode": self.mode,
                "times": self._times,
                "since": self._since,
                "held_s": self._held_s if self._held_s is None else round(self._held_s, 3),
                "level_bytes": self._value_bytes if self._span is None else self._span.base_bytes,
                "armed": self._value_bytes is not None and not self._gone,
                "restored": self._value_bytes is None or self._gone,
                "why_not": self._why_not,
            }

    def is_biting(self, reading: Reading) -> bool:
        """Whether memory is where the kernel puts the program to sleep. Without the lock: a look, no decision."""
        value_bytes = self._value_bytes
        return value_bytes is not None and guard.brake_bites(value_bytes, reading)

    def _is_busy(self) -> bool:
        return self._began_s is not None

    def _plan(self, reading: Reading, now_s: float) -> list[Plan]:
        if self._heed_others(now_s) != self._value_bytes:
            self._why_not = f"somebody else has set {HIGH}"
            return []
        if self._value_bytes is not None and self._began_s is None and guard.brake_bites(self._value_bytes, reading):
            self._trip(now_s)
        if self._began_s is not None:
            self._keep(now_s)
            return []
        if self._rests_from_s is not None and now_s - self._rests_from_s < self._policy.rearm_pause_s:
            self._why_not = "it rests after a trip"
            return []
        rooms = [room for parent in self._parents for room in parent.rooms_bytes()]
        effective = guard.effective_limit_bytes(self._limit_file.read(), self._usage.read() or 0, rooms)
        if effective is None:
            self._why_not = "the container has no limit"
            self._let_go(now_s)
            return []
        return self._approach(effective, reading)

    def _approach(self, effective_bytes: int, reading: Reading) -> list[Plan]:
        """Set the brake, or move it towards its level."""
        level = guard.brake_level_bytes(self._policy, effective_bytes, self._subject.page_bytes)
        span = self._span
        if span is None or guard.brake_moves(span.base_bytes, level):
            above = effective_bytes - level
            span = Span(base_bytes=level, step_bytes=self._step_bytes, steps=above // self._step_bytes + 2)
        if not guard.may_brake(span.base_bytes, reading, again=self._rests_from_s is not None):
            if self._value_bytes is None:
                self._why_not = "memory was near the brake's level already"
            return []
        value = span.value_bytes(guard.brake_steps(span, reading))
        if self._value_bytes is not None and span == self._span and value >= self._value_bytes:
            return []
        noted = span in self._noted
        spans = (span,) if self._span is None else (self._span, span)
        changes = None if noted else (Change(file=HIGH, original_bytes=None, spans=spans),)
        return [Plan(changes=changes, apply=partial(self._set, span, value, self._noted if noted else spans))]

    def _set(self, span: Span, value_bytes: int, noted: tuple[Span, ...]) -> None:
        self._noted = noted
        if self._began_s is not None or self._high.read() != self._value_bytes:
            return
        self._high.write(value_bytes)
        self._why_not = None
        if self._value_bytes is None or span != self._span:
            self._say("guard-armed", f"{HIGH} set to {value_bytes} bytes", level_bytes=span.base_bytes)
        self._span, self._value_bytes, self._rests_from_s = span, value_bytes, None

    def _heed_others(self, now_s: float) -> int | None:
        """What memory.high says. One that isn't as we left it is somebody else's, and the brake rests.

        A reset to "max" (systemd does it with a new limit) isn't held against setting it again later.
        """
        current = self._high.read()
        if self._value_bytes is not None and current != self._value_bytes:
            self._warn("guard-theirs", f"somebody else has changed {HIGH}: it stays as they set it", theirs=current)
            self._value_bytes = None
            self._rests_from_s = now_s
            self._end(now_s)
        return current

    def _hold(self, now_s: float) -> None:
        if self._value_bytes is not None and self._began_s is None:
            self._trip(now_s)

    def _trip(self, now_s: float) -> None:
        self._begin(now_s)
        self._say("guard-braked", f"{HIGH} is reached or near", level_bytes=self._value_bytes)

    def _keep(self, now_s: float) -> None:
        self._heed_others(now_s)
        if self._began_s is not None and now_s - self._began_s >= self._policy.hold_s:
            self._release(now_s)

    def _release(self, now_s: float) -> None:
        if self._began_s is None:
            return
        self._end(now_s)
        # A brake that was never reached isn't in the way, and may still be needed.
        if self._value_bytes is not None and (self._usage.read() or 0) >= self._value_bytes:
            self._let_go(now_s)

    def _let_go(self, now_s: float) -> None:
        self._heed_others(now_s)
        if self._value_bytes is not None:
            self._high.write(None)
            self._value_bytes = None
            self._rests_from_s = now_s
            self._say("guard-restored", f'{HIGH} is "max" again')

    def _restore(self) -> bool:
        if self._value_bytes is not None and self._high.read() == self._value_bytes:
            self._high.write(None)
            self._value_bytes = None
        return True

    def _close_files(self) -> None:
        while self._files:
            with contextlib.suppress(OSError):
                self._files.pop().close()
        for parent in self._parents:
            parent.close()
