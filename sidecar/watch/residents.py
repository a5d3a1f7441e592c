"""Keeps the roll of one container's processes, within a bounded share of a core."""

from __future__ import annotations

import time
from collections.abc import Callable

from sidecar.core.roll_call import Resident, RollCall

_CALM_S = 1.0
# Of the limit: from here on a kill may come before the next look of calm times.
_NEAR = 0.5
# A container of a thousand processes is looked at less often.
_CPU_SHARE = 0.01


class Residents:
    """Looks who is there: once a second, at each call near the limit and after a kill, and never for more than 1 %."""

    def __init__(self) -> None:
        self.roll = RollCall()
        self._due_s = 0.0
        self._not_before_s = 0.0

    def look(
        self, seen_now: Callable[[], tuple[Resident, ...]], now_s: float, *, ratio: float | None, kills: int
    ) -> None:
        """``ratio`` is memory over limit, ``kills`` as `RollCall.look` has it; ``seen_now`` is called if it is time."""
        hurries = kills > 0 or (ratio is not None and ratio >= _NEAR)
        if now_s < self._not_before_s or (now_s < self._due_s and not hurries):
            return
        began_s = time.thread_time()
        self.roll.look(seen_now(), kills=kills)
        self._due_s = now_s + _CALM_S
        self._not_before_s = now_s + (time.thread_time() - began_s) / _CPU_SHARE
