"""The tables of the race. Pure."""

from __future__ import annotations

import math
from collections.abc import Sequence

from benchmarks.distribution import Distribution
from benchmarks.ground import MEBIBYTE
from benchmarks.race.model import LIVED_S, Cell, Try, killed
from benchmarks.report import NOTHING, Table


def summary(tries: Sequence[Try], tools: Sequence[str]) -> Table:
    """One line for each tool over all kills, and one over those that could be seen coming."""
    rows = []
    for lived_only in (False, True):
        for tool in tools:
            of_tool = [one for one in tries if one.tool == tool]
            rows.append((tool, "lived" if lived_only else "all", *_figures(killed(of_tool, lived_only=lived_only))))
    lost = sum(not one.is_kill for one in tries)
    return Table(
        title="The race against the OOM killer",
        notes=(
            "Explained: in-use bytes of the best profile over the container's peak; a kill without a dump explains 0.",
            "Heap profiles are samples, so that one may explain somewhat more than all.",
            "Safe: from the crossing of 80 % of the limit, seen by reading the cgroup each millisecond, to the first",
            "profile on the disk (the sidecar's are synced, the poller's only written); negative: before the crossing.",
            f"Lived: at least {LIVED_S * 1000:.0f} ms above half of the limit.",
            f"Tries without an OOM kill within their time, not counted: {lost} of {len(tries)}.",
        ),
        columns=(
            "tool",
            "which kills",
            "kills",
            "with a dump",
            "share %",
            "explained median",
            "explained p10",
            "safe ms median",
            "safe ms p90",
        ),
        rows=tuple(rows),
    )


def by_cell(tries: Sequence[Try], tools: Sequence[str]) -> Table:
    """One line for each program, limit and CPU."""
    rows = []
    for cell in dict.fromkeys(one.cell for one in tries):
        of_cell = [one for one in tries if one.cell == cell]
        rows.append(
            (
                cell.program.name,
                str(cell.limit_bytes // MEBIBYTE),
                cell.cpu,
                _above_half(of_cell),
                *(_cell_figures(cell, of_cell, tool) for tool in tools),
            )
        )
    return Table(
        title="By program, limit and CPU",
        notes=(
            "For each tool: kills with a dump of all kills, median explained share of all, median time to safe.",
            "Above half: how long the container was above half of its limit, least to most, in all of its tries.",
        ),
        columns=("program", "limit MiB", "CPU", "above half ms", *tools),
        rows=tuple(rows),
    )


def low_tenth(figures: Sequence[float]) -> float | None:
    """The 10th percentile by nearest rank; None without figures.

    >>> low_tenth([0.5, 0.9, 0.8]), low_tenth([])
    (0.5, None)
    """
    return sorted(figures)[math.ceil(0.1 * len(figures)) - 1] if figures else None


def _figures(kills: Sequence[Try]) -> tuple[str, ...]:
    saved = [one for one in kills if one.saved is not None]
    explained = [one.explained for one in kills]
    share = Distribution.of(explained)
    safe = Distribution.of(_safe_s(kills))
    return (
        str(len(kills)),
        str(len(saved)),
        f"{100 * len(saved) / len(kills):.0f}" if kills else NOTHING,
        _ratio(share.median if share else None),
        _ratio(low_tenth(explained)),
        _milliseconds(safe.median if safe else None),
        _milliseconds(safe.p90 if safe else None),
    )


def _cell_figures(cell: Cell, tries: Sequence[Try], tool: str) -> str:
    of_tool = [one for one in tries if one.tool == tool and one.cell == cell]
    kills = killed(of_tool)
    if not kills:
        return "no kill" if of_tool else NOTHING
    saved = sum(one.saved is not None for one in kills)
    share = Distribution.of([one.explained for one in kills])
    safe = Distribution.of(_safe_s(kills))
    text = f"{saved}/{len(kills)} {_ratio(share.median if share else None)}"
    return f"{text} {_milliseconds(safe.median)} ms" if safe else text


def _safe_s(kills: Sequence[Try]) -> list[float]:
    return [one.safe_s for one in kills if one.safe_s is not None]


def _above_half(tries: Sequence[Try]) -> str:
    found = Distribution.of([one.observed.above_half_s for one in killed(tries)])
    return f"{_milliseconds(found.least)}-{_milliseconds(found.most)}" if found else NOTHING


def _ratio(value: float | None) -> str:
    return NOTHING if value is None else f"{value:.2f}"


def _milliseconds(seconds: float | None) -> str:
    return NOTHING if seconds is None else f"{seconds * 1000:.0f}"
