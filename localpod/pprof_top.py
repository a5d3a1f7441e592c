"""What ``go tool pprof -top`` says."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class TopRow:
    """A row of its table: the function, with " (inline)" behind it where that applies, and its flat share of all."""

    function: str
    flat_percent: float


def first_row(text: str) -> TopRow | None:
    r"""The row with the largest value, which is the one below the head of the table; None if there is none.

    >>> first_row("Type: inuse_space\n flat  flat%   sum%   cum   cum%\n 90MB 97.50% 97.50%  90MB 97.50%  main.leak")
    TopRow(function='main.leak', flat_percent=97.5)
    """
    rows = iter(text.splitlines())
    for line in rows:
        if line.split()[:2] == ["flat", "flat%"]:
            fields = next(rows, "").split(maxsplit=5)
            return TopRow(fields[5], float(fields[1].rstrip("%"))) if len(fields) == 6 else None
    return None
