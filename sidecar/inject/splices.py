"""Changes of a text at given places. Pure."""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple

from sidecar.inject.model import ManifestError


class Splice(NamedTuple):
    """The characters from ``start`` to ``end`` give way to ``replacement``."""

    start: int
    end: int
    replacement: str


def join_splices(text: str, splices: Iterable[Splice]) -> str:
    """The text with every splice made; those at one place in the order given, an insertion before a removal.

    >>> join_splices("abc", [Splice(1, 2, ""), Splice(3, 3, "d"), Splice(1, 1, "x")])
    'axcd'

    Raises ManifestError for splices that overlap.
    """
    parts: list[str] = []
    position = 0
    for start, end, replacement in sorted(splices, key=lambda splice: (splice.start, splice.end > splice.start)):
        if start < position:
            line = text.count("\n", 0, start) + 1
            raise ManifestError(
                "two changes meet here: write the lists and mappings of the pod on lines of their own", line
            )
        parts += [text[position:start], replacement]
        position = end
    return "".join([*parts, text[position:]])
