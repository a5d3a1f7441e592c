"""Who races against what, and what is known of one try. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from benchmarks.ground import MEBIBYTE

THRESHOLD = 0.8
"""Where every tool fires, as a fraction of the limit."""

LIVED_S = 0.1
"""A kill that could be foreseen by sampling each 100 ms: the container was that long above half of its limit."""

_FLOOR = 0.4
_FIXED_S = 1.5


@dataclass(frozen=True, slots=True, kw_only=True)
class Program:
    """A way to take memory. ``mode`` is what the Go program calls it; without a rate it takes what it can.

    ``usual_bytes_per_s`` is for the estimate of the time that is left, with all CPUs and with 250m and a busy loop.
    With ``has_floor`` it holds 40 % of the limit from its start on, so that slow leaks don't take minutes.
    """

    name: str
    mode: str
    rate_bytes_per_s: int
    usual_bytes_per_s: tuple[int, int]
    has_floor: bool = False

    def floor_bytes(self, limit_bytes: int) -> int:
        """What it holds before it begins to grow."""
        return int(limit_bytes * _FLOOR) if self.has_floor else 0


def _leak(rate: int, throttled: int) -> Program:
    return Program(
        name=f"leak-{rate}",
        mode="leak",
        rate_bytes_per_s=rate * MEBIBYTE,
        usual_bytes_per_s=(rate * MEBIBYTE, throttled * MEBIBYTE),
        has_floor=True,
    )


def _program(name: str, rate: int, usual: tuple[int, int]) -> Program:
    return Program(
        name=name,
        mode=name,
        rate_bytes_per_s=rate * MEBIBYTE,
        usual_bytes_per_s=(usual[0] * MEBIBYTE, usual[1] * MEBIBYTE),
    )


PROGRAMS = (
    _leak(10, 10),
    _leak(50, 50),
    _leak(200, 160),
    _leak(800, 180),
    _program("pointers", 100, (100, 90)),
    _program("doubling", 0, (400, 100)),
    _program("json", 0, (200, 35)),
    _program("cache", 100, (100, 37)),
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Cell:
    """A program, its memory limit and its CPU: ``cpu_millicores`` of None is no quota; else it burns all of it too."""

    program: Program
    limit_bytes: int
    cpu_millicores: int | None

    @property
    def cpu(self) -> str:
        """The CPU in a word."""
        return "none" if self.cpu_millicores is None else f"{self.cpu_millicores}m busy"

    @property
    def threshold_bytes(self) -> int:
        """From here on a dump is due."""
        return int(self.limit_bytes * THRESHOLD)

    @property
    def growth_s(self) -> float:
        """How long it grows, roughly."""
        grown = self.limit_bytes - self.program.floor_bytes(self.limit_bytes)
        return grown / self.program.usual_bytes_per_s[self.cpu_millicores is not None]

    @property
    def usual_s(self) -> float:
        """How long a try takes, roughly, with its start and its end."""
        return _FIXED_S + self.growth_s

    @property
    def deadline_s(self) -> float:
        """When a try that still grows is given up."""
        return 120.0 + 4 * self.growth_s

    def __str__(self) -> str:
        return f"{self.program.name} into {self.limit_bytes // MEBIBYTE} MiB, CPU {self.cpu}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Saved:
    """What a tool had saved of one life: the in-use bytes of its best profile, and when the first one was safe.

    ``safe_at_s`` is the wall clock; ``best`` the file's name.
    """

    inuse_bytes: int
    safe_at_s: float
    best: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Observed:
    """What a fast reader saw of the cgroup; moments are the wall clock's.

    ``crossed_at_s`` is None if the threshold was never seen crossed, ``ended_at_s`` if it had to be given up.
    ``peak_bytes`` is the kernel's own high-water mark.
    """

    oom_killed: bool
    crossed_at_s: float | None
    ended_at_s: float | None
    above_half_s: float
    peak_bytes: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Try:
    """One life of a program beside one tool. ``saved`` is None where there is no whole profile of that life."""

    tool: str
    cell: Cell
    observed: Observed
    saved: Saved | None

    @property
    def is_kill(self) -> bool:
        """Whether the OOM killer ended it; everything else counts for nothing."""
        return self.observed.oom_killed

    @property
    def lived(self) -> bool:
        """Whether a sampling interval above half of the limit was there to see it coming."""
        return self.observed.above_half_s >= LIVED_S

    @property
    def explained(self) -> float:
        """The best profile's in-use bytes over the container's peak; nothing saved explains nothing."""
        if self.saved is None or not self.observed.peak_bytes:
            return 0.0
        return self.saved.inuse_bytes / self.observed.peak_bytes

    @property
    def safe_s(self) -> float | None:
        """From the crossing to the first safe profile, negative if it was safe before; None without either."""
        if self.saved is None or self.observed.crossed_at_s is None:
            return None
        return self.saved.safe_at_s - self.observed.crossed_at_s


def killed(tries: Sequence[Try], *, lived_only: bool = False) -> list[Try]:
    """The tries that count: kills, perhaps only those that could be seen coming."""
    return [one for one in tries if one.is_kill and (one.lived or not lived_only)]
