"""How a container ended, told from what was seen of it. Pure."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

from sidecar.core.keys import OUTCOME_PREFIX

# A container that vanishes at or above this fraction of its limit has most likely met the OOM killer.
_NEAR_LIMIT = 0.95
# Memory that rises by more of the limit than this each second isn't at rest.
_RISING_PER_S = 0.05
# Above this one can't tell an exit from a kill that nobody saw.
_SUSPICIOUS = 0.5
# Containers are sampled each 100 ms; who wasn't for so long, as we got no CPU time, may have met anything.
_UNSEEN_S = 2.0


class Ending(StrEnum):
    """What became of the container, or of a process of it that the OOM killer took alone."""

    OOM_KILLED = "oom-killed"
    PROCESS_OOM_KILLED = "process-oom-killed"
    EXITED = "exited"
    UNKNOWN = "unknown"


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """How it ended and how that was seen. ``counted`` is false where it is only inferred."""

    ending: Ending
    counted: bool
    seen: str

    @property
    def file_name(self) -> str:
        """Name of the object that tells it, so that a listing shows the ending without reading anything."""
        return f"{OUTCOME_PREFIX}{self.ending}.json"


SURVIVED_KILL = Outcome(
    ending=Ending.PROCESS_OOM_KILLED,
    counted=True,
    seen="the cgroup's oom_kill counter rose while the container lived on",
)


@dataclass(frozen=True, slots=True, kw_only=True)
class LastSeen:
    """The last sample of a container: memory over limit, its rise a second before, and how old the sample is."""

    ratio: float | None
    ratio_per_s: float
    age_s: float
    oom_kills: int | None


def oom_kill_takes(oom_group: bool | None) -> str:  # noqa: FBT001 -- the one thing that is translated
    """What ``memory.oom.group`` means for a container, for people and manifests.

    >>> oom_kill_takes(True), oom_kill_takes(None)
    ('whole container', 'unknown')
    """
    if oom_group is None:
        return "unknown"
    return "whole container" if oom_group else "one process"


def process_killed(oom_kills_before: int | None, oom_kills_now: int | None) -> bool:
    """Whether the OOM killer struck between two samples. The counter is no body count: it may rise by more."""
    return oom_kills_before is not None and oom_kills_now is not None and oom_kills_now > oom_kills_before


def is_worth_a_dump(outcome: Outcome, last: LastSeen | None, *, rearm_ratio: float) -> bool:
    """Whether what was in hand is to be stored: after a kill, and where one can't be excluded.

    A container that was at rest below ``rearm_ratio`` of its limit when last seen has most likely just been stopped.
    """
    if outcome.ending is not Ending.UNKNOWN:
        return outcome.ending is not Ending.EXITED
    return (
        last is not None and last.ratio is not None and (last.ratio >= rearm_ratio or last.ratio_per_s > _RISING_PER_S)
    )


def judge_end(*, oom_kills_first: int | None, last: LastSeen | None, was_killed: bool) -> Outcome:
    """Judge a container that is gone.

    ``oom_kills_first`` is the counter at the first sample, ``was_killed`` whether it was seen to rise in the
    container's last seconds. A runtime may remove the cgroup, and the counter with it, before anyone has read it.
    """
    if last is None:
        return Outcome(ending=Ending.UNKNOWN, counted=False, seen="no sample was taken of it")
    if was_killed and process_killed(oom_kills_first, last.oom_kills):
        seen = f"the cgroup's oom_kill counter rose from {oom_kills_first} to {last.oom_kills}"
        return Outcome(ending=Ending.OOM_KILLED, counted=True, seen=seen)
    if last.ratio is None:
        return Outcome(ending=Ending.UNKNOWN, counted=False, seen="it had no limit to hold its memory against")
    at = f"{last.ratio:.0%} of its limit"
    if last.ratio >= _NEAR_LIMIT:
        return Outcome(ending=Ending.OOM_KILLED, counted=False, seen=f"inferred: gone right after a sample at {at}")
    if last.ratio + last.ratio_per_s * last.age_s >= 1:
        seen = f"inferred: it was at {at} and rising by {last.ratio_per_s:.0%} of it a second when last seen"
        return Outcome(ending=Ending.OOM_KILLED, counted=False, seen=seen)
    if last.ratio >= _SUSPICIOUS:
        seen = f"gone after a sample at {at}; its cgroup went with it before its oom_kill counter could be read again"
        return Outcome(ending=Ending.UNKNOWN, counted=False, seen=seen)
    if last.age_s > _UNSEEN_S:
        seen = f"gone {last.age_s:.1f} s after a sample at {at}; nobody has looked in between"
        return Outcome(ending=Ending.UNKNOWN, counted=False, seen=seen)
    return Outcome(ending=Ending.EXITED, counted=False, seen=f"no OOM kill was seen; its last sample was at {at}")
