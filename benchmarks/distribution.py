"""Order statistics of a few figures. Pure."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Self


@dataclass(frozen=True, slots=True, kw_only=True)
class Distribution:
    """How figures of one kind spread; ``p90`` is the nearest rank, so that it is one of the figures."""

    count: int
    least: float
    median: float
    p90: float
    most: float

    @classmethod
    def of(cls, figures: Iterable[float]) -> Self | None:
        """Sum up any number of figures; None if there are none."""
        ordered = sorted(figures)
        if not ordered:
            return None
        return cls(
            count=len(ordered),
            least=ordered[0],
            median=_median(ordered),
            p90=ordered[math.ceil(0.9 * len(ordered)) - 1],
            most=ordered[-1],
        )


def slope(points: Iterable[tuple[float, float]]) -> float | None:
    """Growth of y for each x by least squares; None where fewer than two different x tell of it.

    >>> slope([(1, 10), (2, 12), (3, 14)])
    2.0
    """
    pairs = tuple(points)
    if len({x for x, _ in pairs}) < 2:
        return None
    mean_x = sum(x for x, _ in pairs) / len(pairs)
    mean_y = sum(y for _, y in pairs) / len(pairs)
    return sum((x - mean_x) * (y - mean_y) for x, y in pairs) / sum((x - mean_x) ** 2 for x, _ in pairs)


def _median(ordered: Sequence[float]) -> float:
    middle = len(ordered) // 2
    return ordered[middle] if len(ordered) % 2 else (ordered[middle - 1] + ordered[middle]) / 2
