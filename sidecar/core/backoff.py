"""When to try again what failed. Pure."""

from __future__ import annotations

from dataclasses import dataclass

FIRST_DELAY_S = 1.0
MAX_DELAY_S = 300.0


def upload_delay_s(consecutive_errors: int, jitter: float) -> float:
    """Seconds to wait after ``consecutive_errors`` failed runs in a row; none after a success (0).

    The delay doubles with each error, from 1 s up to 5 min: short enough to get a dump out before a passing fault ends
    the pod, rare enough to leave a store alone that is down for hours. ``jitter``, a random number in [0, 1), spreads
    the delay over one doubling, so that the pods of a cluster don't return to a recovered store all at once.

    >>> upload_delay_s(1, 0.0), upload_delay_s(1, 0.5), upload_delay_s(4, 0.0), upload_delay_s(99, 0.0)
    (1.0, 1.5, 8.0, 150.0)
    """
    if consecutive_errors <= 0:
        return 0.0
    doublings = min(consecutive_errors - 1, 16)  # far beyond the cap: keeps the power small
    lower_s = min(FIRST_DELAY_S * 2.0**doublings, MAX_DELAY_S / 2)
    return lower_s * (1.0 + jitter)


@dataclass(slots=True)
class Retry:
    """When something is tried again: ``first_s`` after its first failure, and after each further one twice as late.

    The delay grows up to ``last_s``. Times are seconds of any one clock; ``next_s`` is when the next try is due.

    >>> retry = Retry(first_s=2.0, last_s=600.0)
    >>> retry.is_due(0.0), retry.note_failure(0.0), retry.is_due(1.9), retry.note_failure(2.0), retry.next_s
    (True, None, False, None, 6.0)
    """

    first_s: float
    last_s: float
    next_s: float = float("-inf")
    delay_s: float = 0.0

    def is_due(self, now_s: float) -> bool:
        """Whether it is time."""
        return now_s >= self.next_s

    def note_failure(self, now_s: float) -> None:
        """It was tried in vain."""
        self.delay_s = min(self.last_s, 2 * self.delay_s or self.first_s)
        self.next_s = now_s + self.delay_s

    def hasten(self) -> None:
        """Make it due, though its failures aren't forgotten."""
        self.next_s = float("-inf")
