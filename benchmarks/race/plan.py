"""The order of the tries and how long what is left will take. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from benchmarks.race.model import Cell, Program

# Slow cells would take most of the time otherwise, and differ least from try to try.
_TRY_S = 2.7


@dataclass(frozen=True, slots=True, kw_only=True)
class Attempt:
    """A try that is to be made; ``number`` counts those of its cell and tool from 0."""

    tool: str
    cell: Cell
    number: int


def cells(programs: Iterable[Program], limits_bytes: Iterable[int], cpus: Iterable[int | None]) -> list[Cell]:
    """Every combination."""
    return [
        Cell(program=program, limit_bytes=limit, cpu_millicores=cpu)
        for program in programs
        for limit in limits_bytes
        for cpu in cpus
    ]


def tries_of(cell: Cell, most: int) -> int:
    """How often to try a cell: as often as fits into 2.7 seconds for each of the ``most``, at least once."""
    return max(1, min(most, int(most * _TRY_S / cell.usual_s)))


def schedule(found: Sequence[Cell], tools: Sequence[str], most: int) -> list[Attempt]:
    """All attempts. The tools take turns at each cell, and the cells go round and round.

    So a machine that becomes slower, or a run that is cut short, treats all of them alike.
    """
    return [
        Attempt(tool=tool, cell=cell, number=number)
        for number in range(most)
        for cell in found
        if number < tries_of(cell, most)
        for tool in tools
    ]


def rest_s(attempts: Sequence[Attempt], done: int, elapsed_s: float) -> float:
    """How long the attempts after the first ``done`` will take, if this machine goes on as it did."""
    usual_s = sum(one.cell.usual_s for one in attempts[:done])
    left_s = sum(one.cell.usual_s for one in attempts[done:])
    return left_s * elapsed_s / usual_s if usual_s else left_s
