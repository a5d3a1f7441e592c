"""How closely to look at a container: a pure function of how much room is left to its limit. No clock.

Growth of up to `FORESEEN_BYTES_PER_S` is to be seen in time, however sudden. So the room to the limit, over that rate,
is the time in which nothing will happen; a fraction of it is a safe interval. Near the limit, or with a small one, that
is less than the sampling interval that was asked for.
"""

from __future__ import annotations

from dataclasses import dataclass

# A bound that we chose, as to foresee more would cost CPU time further away from the limit; programs can be faster. On
# two cores (Linux 6.18, Go 1.27, in a cgroup and without) one goroutine that touches each page of fresh memory once
# takes 2.3 GiB/s and two take 4.4; where they copy into all of it, 2.0 and 3.9 (medians of ten times 1 GiB). At twice
# the bound one look still falls on the way; of what is faster, what was in hand before it remains.
FORESEEN_BYTES_PER_S = 1 << 30
# Looks in the time that such growth needs to the limit: one to see it, the rest to act.
_LOOKS_TO_LIMIT = 2.5
_SHORTEST_S = 0.01
# Between two full samples, a rise of usage by this fraction of the limit makes the next one due at once.
_ALERT_STEP = 0.05


def look_interval_s(room_bytes: int, interval_s: float) -> float:
    """How long not to look, with this much room to the limit; at most ``interval_s``.

    >>> look_interval_s(8 << 30, 0.1), look_interval_s(0, 0.1)
    (0.1, 0.01)
    """
    fill_s = max(room_bytes, 0) / FORESEEN_BYTES_PER_S
    return min(interval_s, max(_SHORTEST_S, fill_s / _LOOKS_TO_LIMIT))


def alert_bytes(usage_bytes: int, value_bytes: int, threshold_bytes: int, limit_bytes: int) -> int:
    """The usage from which a quick look must be followed by a full sample.

    ``value_bytes`` is the metric of the last full sample, ``usage_bytes`` what the cgroup's counter said then.
    """
    return usage_bytes + max(0, min(threshold_bytes - value_bytes, int(_ALERT_STEP * limit_bytes)))


def reaches_limit(value_bytes: int, limit_bytes: int, rise_bytes_per_s: float, within_s: float) -> bool:
    """Whether memory that goes on like this is at its limit in so many seconds."""
    return rise_bytes_per_s > 0 and value_bytes + rise_bytes_per_s * within_s >= limit_bytes


@dataclass(frozen=True, slots=True, kw_only=True)
class KeepingPolicy:
    """When the snapshot in hand is replaced by a newer one.

    Above ``from_ratio`` of the limit, as from there one doubling may end it: after each rise by ``far_step`` of the
    limit, above the threshold by ``near_step``, and without a rise when the one in hand is older than ``stale_far_s``
    or ``stale_near_s``. A program that merely hovers costs no more than that. ``starved_s`` is the least time between
    two where the CPU budget is used up. After a fall by ``fall`` of the limit, more than collections make of it day in,
    day out, rises count from the bottom.
    """

    from_ratio: float = 0.5
    far_step: float = 0.05
    near_step: float = 0.01
    stale_far_s: float = 30.0
    stale_near_s: float = 2.0
    starved_s: float = 10.0
    fall: float = 0.2


@dataclass(frozen=True, slots=True, kw_only=True)
class Kept:
    """The snapshot in hand: when it was taken (monotonic seconds), and the memory at that moment."""

    at_s: float
    value_bytes: int


def snapshot_due(
    policy: KeepingPolicy, kept: Kept | None, *, value_bytes: int, limit_bytes: int, threshold_bytes: int, now_s: float
) -> bool:
    """Whether to replace the snapshot in hand now."""
    if value_bytes < limit_bytes * policy.from_ratio:
        return False
    if kept is None:
        return True
    near = value_bytes >= threshold_bytes
    step, stale_s = (policy.near_step, policy.stale_near_s) if near else (policy.far_step, policy.stale_far_s)
    return value_bytes >= kept.value_bytes + step * limit_bytes or now_s - kept.at_s >= stale_s


def lowered(policy: KeepingPolicy, kept: Kept | None, value_bytes: int, limit_bytes: int) -> Kept | None:
    """The mark from which rises count now that memory is at ``value_bytes``."""
    if kept is None or value_bytes > kept.value_bytes - policy.fall * limit_bytes:
        return kept
    return Kept(at_s=kept.at_s, value_bytes=value_bytes)


class CpuBudget:
    """CPU time of ours that looking closely may take: a share of one core, averaged over a minute.

    A crisis may spend at once what calm times saved, and no debt lasts for longer than a minute.
    """

    _SAVED_S = 60.0

    def __init__(self, share: float, now_s: float) -> None:
        """``share`` is a fraction of a core; at the start a minute's worth is saved."""
        self._share = share
        self._left_s = share * self._SAVED_S
        self._at_s = now_s

    def spend(self, cpu_s: float, now_s: float) -> None:
        """Account for CPU time that was used."""
        earned_s = max(0.0, now_s - self._at_s) * self._share
        saved_s = self._share * self._SAVED_S
        self._left_s = max(-saved_s, min(self._left_s + earned_s, saved_s) - cpu_s)
        self._at_s = max(now_s, self._at_s)

    def is_left(self) -> bool:
        """Whether anything is left, as of the last time something was spent."""
        return self._left_s > 0
