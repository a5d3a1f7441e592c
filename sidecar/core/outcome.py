"""How a container ended, told from what was seen of it. Pure."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

from sidecar.core.keys import OUTCOME_PREFIX

# A container that vanishes at or above this fraction of its limit has most likely met the OOM killer.
_NEAR_LIMIT = 0.95


class Ending(StrEnum):
    """What became of the container, or of a process of it that the OOM killer took alone."""

    OOM_KILLED = "oom-killed"
    PROCESS_OOM_KILLED = "process-oom-killed"
    EXITED = "exited"


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


def process_killed(oom_kills_before: int | None, oom_kills_now: int | None) -> bool:
    """Whether the OOM killer struck between two samples. The counter is no body count: it may rise by more."""
    return oom_kills_before is not None and oom_kills_now is not None and oom_kills_now > oom_kills_before


def judge_end(
    *, oom_kills_first: int | None, oom_kills_last: int | None, last_ratio: float | None, was_killed: bool
) -> Outcome:
    """Judge a container that is gone.

    ``oom_kills_*`` are the counter at the first and the last sample, ``last_ratio`` memory over limit in the last
    one, ``was_killed`` whether the kill of one of its processes was seen in its last seconds.
    """
    if process_killed(oom_kills_first, oom_kills_last) and was_killed:
        return Outcome(
            ending=Ending.OOM_KILLED,
            counted=True,
            seen=f"the cgroup's oom_kill counter rose from {oom_kills_first} to {oom_kills_last}",
        )
    if last_ratio is not None and last_ratio >= _NEAR_LIMIT:
        return Outcome(
            ending=Ending.OOM_KILLED,
            counted=False,
            seen=f"inferred: it was gone right after a sample at {last_ratio:.0%} of its limit",
        )
    seen = (
        "no sample was taken of it" if last_ratio is None else f"its last sample was at {last_ratio:.0%} of its limit"
    )
    return Outcome(ending=Ending.EXITED, counted=oom_kills_last is not None, seen=f"no OOM kill was counted; {seen}")
