"""How far the guard may go: what to write into a cgroup's limits, as pure functions of what its files say. No clock.

Every value that the guard writes is a base and whole steps above it, and a step is no round number: so a value of ours
is told from one that a person, the kubelet or systemd wrote, also after a restart.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal

from sidecar.core.model import Reading

GuardMode = Literal["off", "brake", "raise", "auto"]

_STEP_BYTES = 1 << 20
_BRAKE_STEP_BYTES = 1 << 16
# mm/memcontrol.c, calculate_high_delay: up to a 64th above memory.high nobody is made to sleep.
_FREE_EXCESS = 1 / 80
# A level this close above the working set would bite at once, and reclaim would take the program's own text.
_ARM_BELOW = 0.98
# After a trip the program must have come down by more than that, or one that hovers is braked over and over.
_REARM_BELOW = 0.95
# How far below the usage the brake is set where page cache fills the gap: less than what makes anybody sleep.
_DESCENT = 0.01
_DESCENT_MOST_BYTES = 8 << 20
# A parent's room changes with the neighbours; following each MiB of it would mean a journal entry each second.
_LEVEL_MOVES = 0.01
# What a raise leaves of a parent's room to the neighbours' growth meanwhile, and the least that is worth it.
_PARENT_MARGIN_STEPS = 2
_USEFUL_STEPS = 4
# How much page cache one lowering may ask the kernel to drop: a few milliseconds of work.
_RECLAIM_STEPS = 4


@dataclass(frozen=True, slots=True, kw_only=True)
class GuardPolicy:
    """What the settings say. ``brake_ratio`` is a fraction of the limit.

    ``raise_bytes`` bounds a raise, ``hold_s`` a raise and a trip of the brake, which then rests ``rearm_pause_s``.
    """

    mode: GuardMode = "off"
    brake_ratio: float = 0.9
    raise_bytes: int = 64 << 20
    hold_s: float = 2.0
    rearm_pause_s: float = 30.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Span:
    """The values that the guard may write into one file: ``base_bytes`` and up to ``steps`` steps above it."""

    base_bytes: int
    step_bytes: int
    steps: int

    def value_bytes(self, steps: int) -> int:
        """The value so many steps above the base."""
        return self.base_bytes + steps * self.step_bytes

    def steps_of(self, value_bytes: int | None) -> int | None:
        """How many steps above the base a value is; None if it isn't one of these ("max" never is).

        >>> Span(base_bytes=100, step_bytes=7, steps=3).steps_of(114)
        2
        """
        if value_bytes is None:
            return None
        steps, rest = divmod(value_bytes - self.base_bytes, self.step_bytes)
        return steps if rest == 0 and 0 <= steps <= self.steps else None


def step_bytes(page_bytes: int) -> int:
    """One step of a raise: a page less than 1 MiB. With pages of 4 KiB, no round number within 254 MiB is one of ours.

    >>> step_bytes(4096)
    1044480
    """
    return max(page_bytes, _STEP_BYTES - page_bytes)


def brake_step_bytes(page_bytes: int) -> int:
    """One step of the brake on its way down: fine enough for `brake_steps` in a small container as well."""
    return max(page_bytes, _BRAKE_STEP_BYTES - page_bytes)


def effective_limit_bytes(limit_bytes: int | None, usage_bytes: int, rooms_bytes: Iterable[int]) -> int | None:
    """The usage at which a cgroup meets the first limit, its own or a parent's, if the neighbours stay as they are.

    ``rooms_bytes`` are what limited parents have left. None if nothing limits it.
    """
    limits = [usage_bytes + max(0, room) for room in rooms_bytes]
    if limit_bytes is not None:
        limits.append(limit_bytes)
    return min(limits, default=None)


def brake_level_bytes(policy: GuardPolicy, effective_bytes: int, page_bytes: int) -> int:
    """The ``memory.high`` for a limit: the page below the share, as the kubelet's MemoryQoS may write the share itself.

    >>> brake_level_bytes(GuardPolicy(), 100 << 20, 4096)
    94367744
    """
    return max(1, int(effective_bytes * policy.brake_ratio) // page_bytes - 1) * page_bytes


def brake_moves(old_bytes: int, new_bytes: int) -> bool:
    """Whether a new level differs enough from the one in force to write it."""
    return abs(new_bytes - old_bytes) > _LEVEL_MOVES * old_bytes


def may_brake(level_bytes: int, reading: Reading, *, again: bool) -> bool:
    """Whether the working set is far enough below a level to set it; ``again`` after a trip.

    Set below what the program needs, ``memory.high`` is a trap: reclaim takes the program's text and each fault waits.
    """
    return reading.working_set_bytes <= level_bytes * (_REARM_BELOW if again else _ARM_BELOW)


def brake_steps(span: Span, reading: Reading) -> int:
    """How many steps above the level to set the brake now.

    Page cache may fill a cgroup up to its limit. There the brake comes down over several calls, never further below
    the usage than what the kernel tolerates without making anybody sleep.
    """
    lowest = reading.usage_bytes - min(int(reading.usage_bytes * _DESCENT), _DESCENT_MOST_BYTES)
    return min(span.steps, _steps_up(lowest - span.base_bytes, span.step_bytes))


def brake_bites(value_bytes: int, reading: Reading) -> bool:
    """Whether a brake at this value holds the program up: it sleeps, or reclaim has nothing left but what it needs."""
    return reading.working_set_bytes >= value_bytes or reading.usage_bytes > value_bytes * (1 + _FREE_EXCESS)


def raise_steps(
    policy: GuardPolicy, *, limit_bytes: int, usage_bytes: int, rooms_bytes: Iterable[int], step_bytes: int
) -> int:
    """How many steps to raise a limit: not beyond what the parents leave; 0 if that is too little to help anybody."""
    wanted = policy.raise_bytes // step_bytes
    left = [(usage_bytes + room - limit_bytes) // step_bytes - _PARENT_MARGIN_STEPS for room in rooms_bytes]
    steps = min([wanted, *left])
    return steps if steps >= min(wanted, _USEFUL_STEPS) else 0


def lowered_steps(span: Span, steps: int, *, usage_bytes: int, reclaimable_bytes: int) -> int:
    """How far to lower a limit that is ``steps`` up: to the base if that holds what can't be reclaimed.

    Else one step above the usage, so that growth meets the killer soon, but not because of the writing.
    ``reclaimable_bytes`` of page cache are in the usage; only a little of it is asked for at a time.
    """
    needed = usage_bytes - max(0, reclaimable_bytes)
    floor = span.base_bytes if needed <= span.base_bytes else needed + span.step_bytes
    floor = max(floor, usage_bytes - _RECLAIM_STEPS * span.step_bytes)
    return min(steps, _steps_up(floor - span.base_bytes, span.step_bytes))


def _steps_up(distance_bytes: int, step_bytes: int) -> int:
    return max(0, -(-distance_bytes // step_bytes))
