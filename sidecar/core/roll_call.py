"""Who was in a container at the last looks, and who was gone after an OOM kill. Pure.

The kernel names its victims only in its log, which isn't ours to read. What is left is to compare.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field

from sidecar.core.quantities import format_bytes

_MOST_NAMED = 3


@dataclass(frozen=True, slots=True, kw_only=True)
class Resident:
    """A process as it was seen at ``at_s``, monotonic. Two of the same PID and start are equal, whatever the rest.

    ``start_ticks`` are clock ticks since boot. ``name`` is chosen by the program: never print it unescaped.
    """

    pid: int
    start_ticks: int
    name: str = field(compare=False)
    rss_bytes: int = field(compare=False)
    at_s: float = field(compare=False)


class RollCall:
    """Remembers the last two looks at a container, and after a kill who has vanished since.

    Two, as a victim may already be missing, or be stripped of its memory, at the last look before the kill is counted.
    """

    def __init__(self) -> None:
        self._earlier: dict[Resident, Resident] = {}
        self._latest: dict[Resident, Resident] = {}
        self._gone: dict[Resident, Resident] = {}
        self._victims = 0

    def look(self, residents: Iterable[Resident], *, kills: int = 0) -> None:
        """Take in who is there now; ``kills`` is how far the kernel's counter rose in the kill that is under way.

        Whoever vanishes is held for killed until that many are, so that a later exit isn't taken for one. Who was
        missing at the last look before already is told as well but doesn't count, as it may have left in peace.
        """
        now = {one: one for one in residents}
        if not kills:
            self._earlier, self._latest = self._latest, now
            return
        known = self._known()
        if self._victims < kills:
            self._gone.update({one: seen for one, seen in known.items() if one not in now})
            # Beyond that many they went along with a victim: they don't count against the next kill.
            self._victims = min(kills, self._victims + sum(one not in now for one in self._latest))
        self._earlier, self._latest = {}, {one: known.get(one, one) for one in now}

    def gone(self) -> tuple[Resident, ...]:
        """Who vanished with the kill that is under way, the largest first."""
        return _largest_first(self._gone.values())

    def everybody(self) -> tuple[Resident, ...]:
        """Who was there before the container ended, the largest first."""
        return _largest_first((self._known() | self._gone).values())

    def settle(self) -> None:
        """The kill was recorded: the next one is another story."""
        self._gone, self._victims = {}, 0

    def _known(self) -> dict[Resident, Resident]:
        """Each as it was seen when it was larger, of the two looks."""
        known = dict(self._latest)
        for one, seen in self._earlier.items():
            if one not in known or known[one].rss_bytes < seen.rss_bytes:
                known[one] = seen
        return known


def describe(residents: tuple[Resident, ...]) -> str:
    """The first few for people, with what they had in memory when last seen; "nobody that was seen before" for none."""
    named = [f"{one.name}[{one.pid}] ({format_bytes(one.rss_bytes)})" for one in residents[:_MOST_NAMED]]
    more = f" and {len(residents) - _MOST_NAMED} more" if len(residents) > _MOST_NAMED else ""
    return ", ".join(named) + more if named else "nobody that was seen before"


def _largest_first(residents: Iterable[Resident]) -> tuple[Resident, ...]:
    return tuple(sorted(residents, key=lambda one: (-one.rss_bytes, one.pid)))
