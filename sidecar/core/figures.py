"""The figures that a verdict on a container's memory rests upon. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from sidecar.core.model import Reading

# GOMEMLIMIT counts the runtime's own memory only: the rest of the limit is for the program's text, threads, cgo.
GOMEMLIMIT_SHARE = 0.9
# A GOMEMLIMIT above this share of what the limit leaves to the runtime comes too late.
_HELPS_BELOW = 0.95
# Of what is in use: the share that the same code would free again, by its record.
_FREED_SHARE = 0.5
# Of the limit: a buffer of this size may be alive twice while it grows, whatever became of its predecessors.
_LARGE_OBJECT = 0.25
# Of what the collector counts: a profile that shows less is no record of it.
_PROFILED_SHARE = 0.5

_NO_GOMEMLIMIT = 1 << 62  # math.MaxInt64 is Go's default; nobody has half of that


@dataclass(frozen=True, slots=True, kw_only=True)
class Figures:
    """Bytes all. ``gomemlimit`` is None where it is unset, ``goal`` where no collection is due (GOGC=off)."""

    limit: int
    working_set: int
    live_after_gc: int
    heap_live: int
    heap: int
    free: int
    stacks: int
    runtime: int
    goal: int | None
    gomemlimit: int | None
    in_use: int
    short_lived: int
    largest_object: int

    @property
    def outside_runtime(self) -> int:
        """What isn't the Go runtime's at all; more of it if some of the runtime's pages were never touched."""
        return max(0, self.working_set - self.runtime)

    @property
    def outside_heap(self) -> int:
        """What isn't the heap's: the above, stacks and the runtime's tables."""
        return max(0, self.working_set - self.heap)

    @property
    def surely_live(self) -> int:
        """What was live after the last collection and is in memory: pages that were never touched are not."""
        return max(0, self.live_after_gc - max(0, self.runtime - self.working_set))

    @property
    def grown(self) -> int:
        """What was allocated since the last collection."""
        return max(0, self.heap_live - self.live_after_gc)

    @property
    def unswept(self) -> int:
        """What the last collection found to be garbage and hasn't been swept, so that it is in memory still.

        The newest view of the profile shows it until then (mProf_Free in runtime/mprof.go).
        """
        return min(self._beyond_objects, max(0, self.in_use - self._objects))

    @property
    def between_objects(self) -> int:
        """Free slots in spans that are in use, which objects of the same sizes can take (MemStats.HeapInuse)."""
        return self._beyond_objects - self.unswept if self.is_profiled else 0

    @property
    def is_profiled(self) -> bool:
        """Whether the profile shows enough of the heap to be a record of it."""
        return self.in_use >= _PROFILED_SHARE * self.heap_live

    @property
    def _objects(self) -> int:
        return max(self.heap_live, self.live_after_gc)

    @property
    def _beyond_objects(self) -> int:
        return max(0, self.heap - self.free - self._objects)

    @property
    def for_the_runtime(self) -> int:
        """What the limit leaves to the Go runtime."""
        return max(0, self.limit - self.outside_runtime)

    @property
    def gomemlimit_helps(self) -> bool:
        """Whether there is one, and low enough to make the collector look before the limit is reached."""
        return self.gomemlimit is not None and self.gomemlimit <= _HELPS_BELOW * self.for_the_runtime

    @property
    def advised_gomemlimit(self) -> int:
        """The GOMEMLIMIT that would be right."""
        return int(GOMEMLIMIT_SHARE * self.for_the_runtime)

    @property
    def for_the_heap(self) -> int:
        """What the heap could have if GOMEMLIMIT were right, or has as it is."""
        runtime = self.gomemlimit if self.gomemlimit_helps and self.gomemlimit is not None else self.advised_gomemlimit
        return max(0, runtime - max(0, self.runtime - self.heap))

    @property
    def has_large_object(self) -> bool:
        """Whether one object is so large that it alone may decide."""
        return self.largest_object >= _LARGE_OBJECT * self.limit

    @property
    def is_freed_again(self) -> bool:
        """Whether the record of the code that holds the heap speaks for garbage."""
        return self.is_profiled and self.short_lived >= _FREED_SHARE * self.in_use and not self.has_large_object


def figures_of(reading: Reading, gc: Mapping[str, int | None] | None, *, missing: str) -> Figures | str:
    """What the verdict needs, or in words which of it is missing; ``missing`` says why there is no ``gc``."""
    if reading.limit_bytes is None or reading.limit_bytes <= 0:
        return "the container has no memory limit"
    if gc is None:
        return missing
    known = {name: value for name, value in gc.items() if value is not None}
    needed = ("heap_marked_bytes", "heap_live_bytes", "heap_in_use_bytes", "mapped_ready_bytes", "memory_limit_bytes")
    absent = [name for name in needed if name not in known]
    if absent:
        return f"the dump doesn't have {', '.join(absent)}"
    if min(known[name] for name in needed) < 0:
        return "the collector's figures make no sense"
    free = known.get("heap_free_bytes", 0)
    gomemlimit = known["memory_limit_bytes"]
    return Figures(
        limit=reading.limit_bytes,
        working_set=reading.working_set_bytes,
        live_after_gc=known["heap_marked_bytes"],
        heap_live=known["heap_live_bytes"],
        heap=known["heap_in_use_bytes"] + free,
        free=free,
        stacks=known.get("stacks_bytes", 0),
        runtime=known["mapped_ready_bytes"],
        goal=_goal(known),
        gomemlimit=gomemlimit if gomemlimit < _NO_GOMEMLIMIT else None,
        in_use=known.get("profile_in_use_bytes", 0),
        short_lived=known.get("profile_short_lived_bytes", 0),
        largest_object=known.get("profile_largest_object_bytes", 0),
    )


def _goal(known: Mapping[str, int]) -> int | None:
    """The next collection's goal; None where none is due.

    As a collection ends, what it marked is known a moment before the next goal is (gcMarkTermination in
    runtime/mgc.go), and only then is the goal below it: GOGC tells the next one.
    """
    goal, marked, gogc_percent = known.get("heap_goal_bytes"), known["heap_marked_bytes"], known.get("gc_percent", -1)
    if goal is None or goal >= marked or gogc_percent < 0:
        return goal
    return marked + marked * gogc_percent // 100
