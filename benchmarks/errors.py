"""The one error of this package."""

from __future__ import annotations


class BenchmarkError(Exception):
    """A measurement that can't be made or didn't come to its end. The message is one line for people."""
