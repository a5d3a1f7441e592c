"""How much of what a profile shows in use is likely to be freed, by what became of the same code's earlier objects.

Pure. The collector can't tell what it hasn't looked at yet. But each stack of the profile has a record: of a leak's
nothing was ever freed, of what serves requests nearly everything.
"""

from __future__ import annotations

from dataclasses import dataclass

from sidecar.goheap.buckets import scale


@dataclass(slots=True, kw_only=True)
class Turnover:
    """Sums over the stacks of a profile, in bytes as estimated from the sample.

    ``short_lived_bytes`` are those of ``in_use_bytes`` that would go if each stack's objects went on to be freed in the
    share that they were so far. ``largest_object_bytes`` is the size of the largest object in use.
    """

    in_use_bytes: int = 0
    short_lived_bytes: int = 0
    largest_object_bytes: int = 0

    def add(self, *, allocs: int, frees: int, size_bytes: int, rate: int) -> None:
        """Count a stack's objects of one size, sampled at ``rate``."""
        if not 0 <= frees < allocs:
            return
        _, in_use_bytes = scale(allocs - frees, size_bytes, rate)
        self.in_use_bytes += in_use_bytes
        self.short_lived_bytes += in_use_bytes * frees // allocs
        self.largest_object_bytes = max(self.largest_object_bytes, size_bytes)
