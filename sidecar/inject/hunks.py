"""Unified diffs of long texts that differ in a few places, in time that grows with their length. Pure."""

from __future__ import annotations

import difflib
from collections.abc import Iterator, Sequence
from typing import NamedTuple

_CONTEXT = 3  # lines; what patch looks for around a change
_ALIKE = 3  # lines in a row that have to be equal for a change to be over
_FIRST_WINDOW = 128  # lines; a sidecar has about sixty
_MOST_REFINED = 400  # lines; difflib's time grows with their square


class _Change(NamedTuple):
    """Lines ``old`` to ``old_end`` of one text give way to lines ``new`` to ``new_end`` of the other, from 0."""

    old: int
    old_end: int
    new: int
    new_end: int


def unified_diff(before: str, after: str, name: str) -> Iterator[str]:
    r"""The lines of a diff that ``patch -p1`` takes, without their line breaks; none for equal texts.

    >>> list(unified_diff("a\nb\n", "a\nc", "x"))[2:]
    ['@@ -1,2 +1,2 @@', ' a', '-b', '+c', '\\ No newline at end of file']
    """
    if before == after:
        return
    old, new = _lines(before), _lines(after)
    yield f"--- a/{name}"
    yield f"+++ b/{name}"
    hunk: list[_Change] = []
    for change in _changes(old, new):
        if hunk and change.old - hunk[-1].old_end > 2 * _CONTEXT:
            yield from _written(hunk, old, new)
            hunk = []
        hunk.append(change)
    yield from _written(hunk, old, new)


def _lines(text: str) -> list[str]:
    """With their line breaks, which are line feeds alone: YAML's others are no ends of lines for ``patch``."""
    *lines, rest = text.split("\n")
    return [f"{line}\n" for line in lines] + ([rest] if rest else [])


def _changes(old: Sequence[str], new: Sequence[str]) -> Iterator[_Change]:
    at, new_at = 0, 0
    while True:
        while at < len(old) and new_at < len(new) and old[at] == new[new_at]:
            at, new_at = at + 1, new_at + 1
        if at == len(old) and new_at == len(new):
            return
        end, new_end = _next_alike(old, new, at, new_at)
        yield from _refined(old, new, _Change(at, end, new_at, new_end))
        at, new_at = end, new_end


def _next_alike(old: Sequence[str], new: Sequence[str], at: int, new_at: int) -> tuple[int, int]:
    """Where both texts go on alike, with the fewest lines before it; the ends of both are alike."""
    window = _FIRST_WINDOW
    while True:
        # The window doubles: all searches together cost a few times what the change is long.
        last = min(len(new), new_at + window)
        places = {tuple(new[index : index + _ALIKE]): index for index in range(last, new_at - 1, -1)}
        found = [
            (index, place)
            for index in range(at, min(len(old), at + window) + 1)
            if (place := places.get(tuple(old[index : index + _ALIKE]))) is not None
        ]
        if found:
            return min(found, key=sum)
        window *= 2


def _refined(old: Sequence[str], new: Sequence[str], change: _Change) -> Iterator[_Change]:
    at, end, new_at, new_end = change
    if at == end or new_at == new_end or end - at + new_end - new_at > _MOST_REFINED:
        yield change
        return
    matcher = difflib.SequenceMatcher(None, old[at:end], new[new_at:new_end], autojunk=False)
    for tag, first, last, new_first, new_last in matcher.get_opcodes():
        if tag != "equal":
            yield _Change(at + first, at + last, new_at + new_first, new_at + new_last)


def _written(hunk: Sequence[_Change], old: Sequence[str], new: Sequence[str]) -> Iterator[str]:
    lead = min(_CONTEXT, hunk[0].old)
    trail = min(_CONTEXT, len(old) - hunk[-1].old_end)
    start, end = hunk[0].old - lead, hunk[-1].old_end + trail
    yield f"@@ -{_range(start, end)} +{_range(hunk[0].new - lead, hunk[-1].new_end + trail)} @@"
    for change in hunk:
        yield from _marked(" ", old[start : change.old])
        yield from _marked("-", old[change.old : change.old_end])
        yield from _marked("+", new[change.new : change.new_end])
        start = change.old_end
    yield from _marked(" ", old[start:end])


def _marked(mark: str, lines: Sequence[str]) -> Iterator[str]:
    for line in lines:
        yield f"{mark}{line.removesuffix(chr(10))}"
        if not line.endswith("\n"):
            yield "\\ No newline at end of file"


def _range(start: int, end: int) -> str:
    """As diff writes one: from 1, without a length of 1, and the line before where there is none."""
    length = end - start
    if length == 1:
        return f"{start + 1}"
    return f"{start + 1 if length else start},{length}"
