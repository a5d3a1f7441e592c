"""How long to wait before the next upload run after failed ones. Pure."""

from __future__ import annotations

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
