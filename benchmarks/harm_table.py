"""The figures of `harm` for people: each round's against the same round without a sidecar. Pure."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Sequence

from benchmarks.harm import NOBODY, Turn
from benchmarks.report import NOTHING, Table
from benchmarks.startup import quota_name

Figure = Callable[[Turn], float]


def ratios(turns: Sequence[Turn], base: Sequence[Turn], figure: Figure) -> list[float]:
    """A figure of each turn over that of the base in the same round; a round without either is left out."""
    of_round = {turn.number: figure(turn) for turn in base}
    return [figure(turn) / of_round[turn.number] for turn in turns if of_round.get(turn.number)]


def span(figures: Sequence[float], *, digits: int = 2) -> str:
    """Median, and in brackets the first and the third quartile.

    >>> span([1.0, 0.8, 1.2]), span([0.5]), span([])
    ('1.00 (0.90-1.10)', '0.50 (0.50-0.50)', '-')
    """
    if not figures:
        return NOTHING
    pair = [*figures, *figures] if len(figures) == 1 else figures  # there are no quartiles of one
    return "{1:.{digits}f} ({0:.{digits}f}-{2:.{digits}f})".format(
        *statistics.quantiles(pair, n=4, method="inclusive"), digits=digits
    )


def least(figures: Sequence[float]) -> str:
    """The least, then the median.

    >>> least([3.0, 0.5, 2.0]), least([])
    ('0.50, 2.00', '-')
    """
    return f"{min(figures):.2f}, {statistics.median(figures):.2f}" if figures else NOTHING


def table(found: Sequence[Turn]) -> Table:
    """The figures for people."""
    rows: list[tuple[str, ...]] = []
    bases: list[str] = []
    for quota in dict.fromkeys(one.cpu_millicores for one in found):
        turns = [one for one in found if one.cpu_millicores == quota]
        base = [one for one in turns if one.condition == NOBODY]
        bases.append(_base(quota, base))
        # Rounds begin with different conditions; the first one has them in their order.
        conditions = dict.fromkeys(one.condition for one in turns)
        rows += [_row(quota, [one for one in turns if one.condition == condition], base) for condition in conditions]
    return Table(
        title="What the app loses",
        notes=(
            "Each figure is of the same round without a sidecar = 1: median (first-third quartile) of the rounds.",
            "Latency at an even pace of requests, throughput with four clients that never rest.",
            *bases,
            '"Once more" is the same thing twice: what it differs by is the noise of this machine.',
            "A stall is the longest time in a second that a goroutine that only reads the clock was kept from it; lost",
            "is the sum of those above 0.1 ms. Other work on the machine adds to them, while what captures do is in",
            "every round: so the least says most. With a quota it would see the throttling alone.",
            "CPU is what the sidecar or the reader took of a core.",
        ),
        columns=(
            "CPU quota, condition",
            "throughput",
            "latency p50",
            "latency p99",
            "longest stall ms: least, median",
            "lost ms/s: least, median",
            "captures/s",
            "one takes ms",
            "CPU %",
        ),
        rows=tuple(rows),
    )


def _row(quota: int | None, turns: Sequence[Turn], base: Sequence[Turn]) -> tuple[str, ...]:
    stalls = [one.stall for one in turns if one.stall is not None]
    return (
        f"{quota_name(quota)}, {turns[0].condition.name}",
        span(ratios(turns, base, lambda turn: turn.throughput.per_s)),
        span(ratios(turns, base, lambda turn: turn.latency.p50_s)),
        span(ratios(turns, base, lambda turn: turn.latency.p99_s)),
        least([one.longest_s * 1000 for one in stalls]),
        least([one.lost_ratio * 1000 for one in stalls]),
        _median([one.captures_per_s for one in turns]),
        _median([one.capture_s and one.capture_s * 1000 for one in turns]),
        _median([one.cpu_ratio and one.cpu_ratio * 100 for one in turns]),
    )


def _median(figures: Sequence[float | None]) -> str:
    known = [figure for figure in figures if figure is not None]
    return f"{statistics.median(known):.1f}" if known else NOTHING


def _base(quota: int | None, base: Sequence[Turn]) -> str:
    """What 1 is. The pace of the latency's load is that of the first round."""
    per_s, p50_s, p99_s = (
        statistics.median(figures)
        for figures in (
            [one.throughput.per_s for one in base],
            [one.latency.p50_s for one in base],
            [one.latency.p99_s for one in base],
        )
    )
    return (
        f"CPU quota {quota_name(quota)}: 1 is {per_s:.0f} requests/s, {p50_s * 1000:.2f} ms and {p99_s * 1000:.1f} ms "
        f"at {base[0].latency.per_s:.0f} requests/s."
    )
