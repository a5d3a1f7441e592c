"""Text chosen by others, made harmless for a terminal or a log. Pure."""

from __future__ import annotations


def printable(text: str) -> str:
    r"""Escape what could move a cursor, colour a line or end one; keep letters of every language.

    >>> print(printable("café \x1b[31m\n"))
    café \x1b[31m\n
    """
    return "".join(char if char.isprintable() else char.encode("unicode_escape").decode("ascii") for char in text)
