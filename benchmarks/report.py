"""Tables in Markdown, and how their figures are written. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from benchmarks.distribution import Distribution

NOTHING = "-"


@dataclass(frozen=True, slots=True, kw_only=True)
class Table:
    """A table with its title and what a reader must know to read it. Every row is as long as ``columns``."""

    title: str
    notes: tuple[str, ...]
    columns: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]


def markdown(table: Table) -> str:
    """Print a table, readable without rendering as well; text to the left, everything else to the right."""
    texts = [[_cell(text) for text in row] for row in (table.columns, *table.rows)]
    widths = [max(3, *(len(row[column]) for row in texts)) for column in range(len(table.columns))]
    head, *body = [_line(row, widths) for row in texts]
    rule = "|".join(["", "-" * (widths[0] + 2), *("-" * (width + 1) + ":" for width in widths[1:]), ""])
    return "\n".join([f"## {table.title}", "", *table.notes, "", head, rule, *body])


def spread(figures: Sequence[float], *, scale: float = 1.0, digits: int = 0) -> str:
    """Median / 90th percentile / greatest, each times ``scale``.

    >>> spread([0.01, 0.02, 0.06], scale=1000)
    '20 / 60 / 60'
    """
    found = Distribution.of(figures)
    if found is None:
        return NOTHING
    return " / ".join(f"{value * scale:.{digits}f}" for value in (found.median, found.p90, found.most))


def mebibytes(size_bytes: float | None) -> str:
    """A size for a table cell.

    >>> mebibytes(1572864), mebibytes(None)
    ('1.5', '-')
    """
    return NOTHING if size_bytes is None else f"{size_bytes / 2**20:.1f}"


def _line(row: Sequence[str], widths: Sequence[int]) -> str:
    first, *others = zip(row, widths, strict=True)
    cells = [first[0].ljust(first[1]), *(text.rjust(width) for text, width in others)]
    return f"| {' | '.join(cells)} |"


def _cell(text: str) -> str:
    return text.replace("|", "\\|")
