"""What to drop when dumps outgrow the room they were given. Pure.

An incident is best told by its first dump (before the growth) and its newest (closest to the kill), so the dumps
between those two go first. What just happened matters more than what happened last week, so whole incidents go oldest
first, and the newest one keeps its first and its newest dump whatever the price.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from sidecar.core.keys import DumpId


@dataclass(frozen=True, slots=True, kw_only=True)
class HeldDump:
    """A dump that takes up room. ``size_bytes`` is what dropping it would free."""

    dump_id: DumpId
    size_bytes: int


def plan_eviction(dumps: Iterable[HeldDump], excess_bytes: int) -> tuple[HeldDump, ...]:
    """Choose what to drop, in order, to free at least ``excess_bytes``.

    Frees less when only the first and the newest dump of the newest incident are left: the caller compares the sums.
    An incident without a dump (number 0: the container died too fast) never counts as the newest while a real dump
    exists, so that a crash loop's notes don't push out the profile that explains it.
    """
    incidents: defaultdict[str, list[HeldDump]] = defaultdict(list)
    for dump in dumps:
        incidents[dump.dump_id.incident].append(dump)
    for incident in incidents.values():
        incident.sort(key=lambda dump: (dump.dump_id.number, dump.dump_id.pid))
    freed_bytes = 0
    planned: list[HeldDump] = []
    for group in _expendable(list(incidents.values())):
        if freed_bytes >= excess_bytes:
            break
        planned.extend(group)
        freed_bytes += sum(dump.size_bytes for dump in group)
    return tuple(planned)


def _expendable(incidents: list[list[HeldDump]]) -> Iterator[list[HeldDump]]:
    """Groups of dumps that go together, the least worth keeping first; each incident is in order of number.

    Dumps of several processes may share a number: each is among the first, or the newest, if any of them is.
    """
    ends, middles = [], []
    for incident in incidents:
        outermost = {incident[0].dump_id.number, incident[-1].dump_id.number}
        ends.append([dump for dump in incident if dump.dump_id.number in outermost])
        middles += [dump for dump in incident if dump.dump_id.number not in outermost]
    for dump in sorted(middles, key=_age):
        yield [dump]
    ends.sort(key=lambda incident: (incident[-1].dump_id.number > 0, _age(incident[-1])))
    yield from sorted(ends[:-1], key=lambda incident: _age(incident[-1]))


def _age(dump: HeldDump) -> tuple[object, ...]:
    """Sort key, oldest first; total, so that a plan doesn't depend on the order of its input."""
    return (dump.dump_id.at, dump.dump_id.incident, dump.dump_id.number, dump.dump_id.pid)
