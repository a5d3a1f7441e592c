"""Pages and pieces of memory as sets of neighbours. Pure."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator

from sidecar.goheap.memory import Extent


def runs(numbers: Collection[int]) -> Iterator[tuple[int, int]]:
    """First and count of each run of numbers.

    >>> list(runs({7, 3, 4, 5}))
    [(3, 3), (7, 1)]
    """
    first = following = -1
    for number in sorted(numbers):
        if number != following:
            if first >= 0:
                yield first, following - first
            first = number
        following = number + 1
    if first >= 0:
        yield first, following - first


def joined(extents: Iterable[Extent]) -> tuple[Extent, ...]:
    """The same memory in order, with neighbours as one. They may not overlap.

    >>> joined([(0x3000, 0x1000), (0x1000, 0x1000), (0x2000, 0x1000), (0x9000, 0x1000)])
    ((4096, 12288), (36864, 4096))
    """
    result: list[Extent] = []
    for start, size_bytes in sorted(extents):
        if result and sum(result[-1]) == start:
            result[-1] = result[-1][0], result[-1][1] + size_bytes
        else:
            result.append((start, size_bytes))
    return tuple(result)
