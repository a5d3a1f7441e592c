"""Why memory was at the limit, as far as a dump's figures can tell. Pure.

The figures are those of the cgroup, of Go's collector (runtime/mgcpacer.go says what they mean) and of the profile at
one moment. At what was allocated since the last collection nobody has looked: it may be live or garbage. So a verdict
says "garbage" only where the record of the code that holds the heap speaks for it, and leaves it open else. The record
is of earlier work: it can't tell a leak of some requests from requests at hand, nor a leak from a program's first work.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

from sidecar.core.figures import GOMEMLIMIT_SHARE, Figures, figures_of
from sidecar.core.model import Reading
from sidecar.core.quantities import format_bytes

Name = Literal[
    "gc-headroom",
    "live-heap",
    "near-gomemlimit",
    "heap-growth",
    "outside-the-go-heap",
    "fragmented-heap",
    "room-left",
    "unknown",
]

# Of what a right GOMEMLIMIT leaves to the heap: with less than a tenth to spare the collector works without a pause.
_LIVE_AT = 0.9
# Of GOMEMLIMIT: from here on collections are due to it.
_NEAR_GOMEMLIMIT = 0.85
# Of GOMEMLIMIT: beyond this the collector has lost.
_OVER_GOMEMLIMIT = 1.1
# Of GOMEMLIMIT as well: live memory above it makes collections frequent.
_WORKS_HARD_AT = 0.7
# Of what is in use: code that has freed less than this may leak, or have done nothing before.
_FREED_LITTLE = 0.1
# Of what a right GOMEMLIMIT leaves to the heap: so much live memory may be work at hand or a leak.
_LIVE_IS_MUCH = 0.4
# Of the limit: with so much left, memory wasn't at it.
_ROOM = 0.5
# Of the limit: what a heap must have grown by since the last collection to be called growing.
_GROWN = 0.1

_WHO_HOLDS_IT = "the profile's top says who holds it, and the difference to the baseline what has grown"


@dataclass(frozen=True, slots=True, kw_only=True)
class MemoryVerdict:
    """A name for programs, one sentence why and one what to do for people, and the figures that both rest upon."""

    name: Name
    why: str
    remedy: str
    figures: Mapping[str, int | None]

    def document(self) -> dict[str, object]:
        """As the manifest has it."""
        return {"name": self.name, "why": self.why, "remedy": self.remedy, **self.figures}


def judge(reading: Reading, gc: Mapping[str, int | None] | None, *, missing: str) -> MemoryVerdict:
    """Say why memory is where it is, from a cgroup's reading and what a ``heap-newest`` profile knows of the collector.

    ``gc`` is `ProfileFile.gc`; ``missing`` says why there is none. Anything may be missing: then the verdict is
    ``unknown`` and names it. Never raises.
    """
    found = figures_of(reading, gc, missing=missing)
    if isinstance(found, str):
        return MemoryVerdict(
            name="unknown",
            why=f"why memory was where it was can't be told: {found}",
            remedy="oom-heap-dumper check, run in the sidecar, says what it can read and what grants the rest",
            figures={"limit_bytes": reading.limit_bytes, "working_set_bytes": reading.working_set_bytes},
        )
    name, why, remedy = _judge(found)
    figures = {
        "limit_bytes": found.limit,
        "working_set_bytes": found.working_set,
        "live_after_gc_bytes": found.live_after_gc,
        "allocated_since_gc_bytes": found.grown,
        "gc_goal_bytes": found.goal,
        "gomemlimit_bytes": found.gomemlimit,
        "gogc_percent": (gc or {}).get("gc_percent"),
        "stacks_bytes": found.stacks,
        "outside_go_bytes": found.outside_runtime,
        "profile_in_use_bytes": found.in_use,
        "profile_short_lived_bytes": found.short_lived,
    }
    return MemoryVerdict(name=name, why=why, remedy=remedy, figures=figures)


def line_of(document: object) -> str | None:
    """The line of a manifest's verdict for people; None if it has none. ``document`` may be anything, and lie."""
    verdict = document.get("verdict") if isinstance(document, Mapping) else None
    if not isinstance(verdict, Mapping):
        return None
    name, why, remedy = (verdict.get(key) for key in ("name", "why", "remedy"))
    if not all(isinstance(text, str) and text for text in (name, why, remedy)):
        return None
    return f"{name}: {why}; {remedy}"


def _judge(f: Figures) -> tuple[Name, str, str]:
    """The first of the causes that fits."""
    if f.limit - f.working_set + f.free >= _ROOM * f.limit and f.heap_live <= f.working_set:
        why = (
            f"{_size(f.working_set)} of {_size(f.limit)} were in use, and {_size(f.free)} of that is the heap's to use "
            "again: at least half of the limit was left"
        )
        remedy = (
            "this moment has no cause to name: a later dump of the same incident, if there is one, tells more; if the "
            "container was killed right after, what filled the rest came in between, or couldn't use that part of the "
            "heap"
        )
        return "room-left", why, remedy
    if f.outside_heap > f.working_set / 2:
        return _outside(f)
    if f.between_objects > f.working_set / 2:
        return _fragmented(f)
    if f.surely_live >= _LIVE_AT * f.for_the_heap:
        why = (
            f"{_size(f.live_after_gc)} were live after the last collection, nearly all that a limit of "
            f"{_size(f.limit)}{_gomemlimit(f)} leaves to the heap"
        )
        raised = "the limit, and GOMEMLIMIT with it" if f.gomemlimit_helps else "the limit"
        return "live-heap", why, f"{_WHO_HOLDS_IT}: mend that, or raise {raised}"
    if f.gomemlimit_helps and f.gomemlimit is not None and f.runtime >= _NEAR_GOMEMLIMIT * f.gomemlimit:
        return _near_gomemlimit(f, f.gomemlimit)
    comes_late = not f.gomemlimit_helps and (f.goal is None or f.goal > GOMEMLIMIT_SHARE * f.for_the_runtime)
    was_late = not f.gomemlimit_helps and f.unswept >= _GROWN * f.limit
    if (comes_late or was_late) and f.is_freed_again:
        return _headroom(f)
    if comes_late or f.grown >= _GROWN * f.limit:
        return _growth(f, comes_late=comes_late)
    why = (
        f"no known cause fits: {_size(f.live_after_gc)} were live after the last collection, the next one {_due(f)}, "
        f"GOMEMLIMIT is {_setting(f)}, the heap took {_size(f.heap)} and the rest {_size(f.outside_heap)}"
    )
    return "unknown", why, _WHO_HOLDS_IT


def _outside(f: Figures) -> tuple[Name, str, str]:
    inside = max(0, f.outside_heap - f.outside_runtime)
    stacks = min(f.stacks, inside)  # the rest of them was never touched
    why = (
        f"only {_size(f.working_set - f.outside_heap)} of {_size(f.working_set)} are the program's Go heap; "
        f"{_size(stacks)} are stacks, {_size(inside - stacks)} the Go runtime's tables, and {_size(f.outside_runtime)} "
        "not the runtime's at all"
    )
    if stacks > f.outside_runtime:
        return "outside-the-go-heap", why, "the goroutine profile says what keeps so many goroutines, or so deep ones"
    remedy = (
        "the heap profile can't tell who holds that: look for cgo, mmap, other processes of the container, files in a "
        "tmpfs, and page cache in use"
    )
    return "outside-the-go-heap", why, remedy


def _fragmented(f: Figures) -> tuple[Name, str, str]:
    why = (
        f"{_size(f.between_objects)} of the {_size(f.heap)} that the Go heap takes are free slots between objects, and "
        f"{_size(f.heap_live)} are objects: pages go back to the kernel only when the last object on them is freed"
    )
    remedy = (
        "the baseline, or an earlier dump, says what filled them: keep what lives long apart from what is freed soon, "
        "or hold less at once; a GOMEMLIMIT doesn't free them"
    )
    return "fragmented-heap", why, remedy


def _near_gomemlimit(f: Figures, gomemlimit: int) -> tuple[Name, str, str]:
    where = "above" if f.runtime > _OVER_GOMEMLIMIT * gomemlimit else "near"
    held = "could not hold" if where == "above" else "holds"
    why = (
        f"the runtime takes {_size(f.runtime)}, {where} GOMEMLIMIT={_size(gomemlimit)} where the collector {held} it, "
        f"with {_size(f.live_after_gc)} live after the last collection"
    )
    if f.live_after_gc >= _WORKS_HARD_AT * f.for_the_heap:
        remedy = "raise the limit and GOMEMLIMIT with it, or use less: the profile's top says who holds it"
        return "near-gomemlimit", f"{why}: there is little to free, so it runs often", remedy
    remedy = (
        "if what is live grows from dump to dump, the profile's top says who holds it; if it doesn't, all is as it "
        "should be, and CRITICAL belongs above GOMEMLIMIT"
    )
    return "near-gomemlimit", why, remedy


def _headroom(f: Figures) -> tuple[Name, str, str]:
    why = (
        f"garbage was left to pile up: {_size(f.live_after_gc)} were live after the last collection, and the next "
        f"one {_due(f)}, with a limit of {_size(f.limit)} and GOMEMLIMIT {_setting(f)}; the code that "
        f"holds the heap has freed {_freed(f)} of what it allocated so far"
    )
    if f.unswept >= _GROWN * f.limit:
        why += f"; {_size(f.unswept)} that this collection found to be garbage weren't swept yet"
    if f.surely_live > _LIVE_IS_MUCH * f.for_the_heap:
        share = 100 * f.surely_live // max(1, f.for_the_heap)
        why += f"; but what was live is {share} % of what the limit leaves to the heap, by work at hand or a leak"
    remedy = (
        f"set {_advice(f)}, so that the collector knows the limit; if what is live after a collection grows from dump "
        "to dump, it leaks besides: the difference to the baseline says where"
    )
    return "gc-headroom", why, remedy


def _growth(f: Figures, *, comes_late: bool) -> tuple[Name, str, str]:
    looked = (
        f"{_size(f.live_after_gc)} were live after the last collection"
        if f.live_after_gc
        else "no collection has ended yet"
    )
    why = (
        f"{_size(f.grown)} were allocated since the collector last looked, so that nobody knows whether they are live; "
        f"{looked}, the next one {_due(f)}"
    )
    if f.has_large_object:
        why += f"; one object alone takes {_size(f.largest_object)}"
    elif f.in_use:
        why += f"; the code that holds the heap has freed {_freed(f)} of what it allocated so far"
        if f.short_lived < _FREED_LITTLE * f.in_use and f.live_after_gc >= f.grown:
            why += ", which a leak has in common with a program's first work"
    if comes_late:
        return "heap-growth", why, f"{_WHO_HOLDS_IT}; set {_advice(f)}, so that the collector looks before the kill"
    return "heap-growth", why, _WHO_HOLDS_IT


def _size(count: int) -> str:
    return format_bytes(count)


def _due(f: Figures) -> str:
    if f.gomemlimit_helps and f.gomemlimit is not None and (f.goal is None or f.goal > f.for_the_heap):
        return f"was due near GOMEMLIMIT={_size(f.gomemlimit)}"
    return "wasn't due at all (GOGC=off)" if f.goal is None else f"was due at {_size(f.goal)}"


def _setting(f: Figures) -> str:
    if f.gomemlimit is None:
        return "unset"
    return _size(f.gomemlimit) if f.gomemlimit_helps else f"{_size(f.gomemlimit)}, too high to help"


def _gomemlimit(f: Figures) -> str:
    return f" with GOMEMLIMIT={_size(f.gomemlimit)}" if f.gomemlimit is not None else ""


def _freed(f: Figures) -> str:
    return f"{100 * f.short_lived // max(1, f.in_use)} %"


def _advice(f: Figures) -> str:
    """A GOMEMLIMIT as Go reads it, in whole MiB."""
    share = "90 % of the limit" if f.outside_runtime < 0.05 * f.limit else "90 % of what else leaves of the limit"
    return f"GOMEMLIMIT={f.advised_gomemlimit >> 20}MiB ({share})"
