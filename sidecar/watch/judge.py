"""Turns what a sample says into deeds: ask for a dump, keep a snapshot in hand, hold the OOM killer off."""

from __future__ import annotations

import logging
import time

from sidecar import logs
from sidecar.core.model import Container
from sidecar.core.trigger import Hold, Reason
from sidecar.settings import Settings
from sidecar.watch.captures import Captures, utc_now
from sidecar.watch.last_moments import LastMoments
from sidecar.watch.scout import Scout
from sidecar.watch.target import Target

_HOUR_S = 3600.0
_NO_GO = "none of its processes is a Go program"
_TOO_YOUNG = "it had just begun, and what it runs hadn't been looked at yet"


class Judge:
    """For the loop's thread alone; nothing here waits."""

    def __init__(self, settings: Settings, *, scout: Scout, captures: Captures, last_moments: LastMoments) -> None:
        self._policy = settings.trigger
        self._interval_s = settings.interval_s
        self._scout = scout
        self._captures = captures
        self._last_moments = last_moments
        self._holds = logs.RateLimit(interval_s=_HOUR_S)

    def can_be_dumped(self, container: Container) -> bool:
        """Whether the heap of any of a container's processes can be had."""
        return self._has_heap(container) or bool(self._scout.endpoints.of(container))

    def judge(self, target: Target, *, freely: bool) -> None:
        """Judge the sample that a target took in last; ``freely`` if there is CPU time for snapshots."""
        container, endpoints = target.surveyed.container, self._scout.endpoints
        has_heap = self._has_heap(container)
        if not self._is_known(target, has_heap=has_heap):
            return  # how it ends is told all the same
        if target.awaits_endpoint and (has_heap or endpoints.of(container)):
            target.found_endpoint()
        verdict = target.judge(self._policy, self._interval_s, last_is_kept=bool(target.life.in_hand))
        braked = self._hold_killer(target, verdict.fire)
        if verdict.fire is not None:
            self._captures.request(target.request(self._policy, verdict.fire, utc_now()))
            target.note_snapshot(self._policy)
        elif has_heap:
            self._keep_in_hand(target, braked=braked, freely=freely)
        elif braked and not target.state.capturing:
            target.life.let_killer_go(time.monotonic())  # there is nothing more to save
        if verdict.hold is Hold.HOURLY_CAP:
            reason = f"above its threshold, but {self._policy.max_per_hour} dumps were taken in this hour"
            target.life.why_no_dump = reason
            if self._admit_hold(target):
                target.warn("held-back", reason)
        if verdict.incident_ended and target.killed_at_s is None:  # the dead need no memory
            logs.event(
                logging.INFO,
                "calm",
                f"container {container.name}: memory is back below {self._policy.rearm_ratio:.0%} of the limit, "
                "armed again",
                **target.log_fields(),
            )

    def _is_known(self, target: Target, *, has_heap: bool) -> bool:
        """Whether anybody could be dumped, as far as is known by now; why not is noted for the end."""
        container, life = target.surveyed.container, target.life
        if not has_heap and not self._scout.endpoints.was_looked_at(container):
            if (target.ratio(self._policy) or 0.0) >= self._policy.critical_ratio:
                life.why_no_dump = _TOO_YOUNG
            return False
        if not has_heap and self._scout.endpoints.is_without_go(container):
            life.why_no_dump = _NO_GO
            return False
        if life.why_no_dump == _TOO_YOUNG or (life.why_no_dump == _NO_GO and self.can_be_dumped(container)):
            life.why_no_dump = None  # it was looked at, or a script has become the program by exec
        return True

    def forget(self, container: Container) -> None:
        """It has ended."""
        self._holds.forget(container.key)

    def _has_heap(self, container: Container) -> bool:
        return self._scout.heaps is not None and bool(self._scout.heaps.of(container))

    def _hold_killer(self, target: Target, fire: Reason | None) -> bool:
        """Have the guard act before anything is read; whether its brake slows the program down."""
        guarded = target.life.guarded
        if guarded is None or target.last is None:
            return False
        braked = guarded.is_biting(target.last.reading)
        if braked or (fire is not None and guarded.mode == "raise"):
            guarded.hold(time.monotonic())
        return braked

    def _keep_in_hand(self, target: Target, *, braked: bool, freely: bool) -> None:
        """Replace the snapshot in hand if it pays; while the brake bites always, and then it lets go."""
        if (
            target.last is not None
            and (braked or target.wants_snapshot(self._policy, freely=freely))
            and self._last_moments.keep(
                target.life,
                target.surveyed.container,
                target.last,
                is_urgent=target.state.in_incident,
                lets_go=braked,
            )
        ):
            target.note_snapshot(self._policy)

    def _admit_hold(self, target: Target) -> bool:
        """Once for each hour and container is enough."""
        return self._holds.admit(target.surveyed.container.key, time.monotonic()) is not None
