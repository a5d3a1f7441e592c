"""Proves that what was found is what we think, before any number of it is believed. Pure."""

from __future__ import annotations

from sidecar.goheap import buckets
from sidecar.goheap.errors import UnknownLayoutError
from sidecar.goheap.layouts import RecordLayout
from sidecar.goheap.memory import Memory, UnmappedError
from sidecar.goheap.raw import Image, Moment, Program

_PROBED_BUCKETS = 32
_MIN_SOUND = 0.75  # the rest may be in the middle of a change
_TOTAL_FACTOR = 3  # just after a collection the newest view has up to 2.5 times what lives
_SLACK_SAMPLES = 32  # sampling a small heap is luck


def prove_layout(memory: Memory, head: int, record: RecordLayout) -> None:
    """Check the first buckets of a list: links, bounds, hashes, sums. A list that is still empty proves nothing.

    Raises `UnknownLayoutError` if they aren't buckets.
    """
    address, sound, seen = head, 0, 0
    while address and seen < _PROBED_BUCKETS:
        seen += 1
        try:
            bucket, address = buckets.read_bucket(memory, address, record)
        except UnmappedError:
            break
        sound += bucket is not None
    if sound < seen * _MIN_SOUND:
        raise UnknownLayoutError(f"only {sound} of {seen} profile buckets are as the known versions of Go write them")


def prove_totals(program: Program, moment: Moment, image: Image) -> None:
    """Check that the buckets add up to about the live heap: a wrong record layout is far from it.

    For versions of Go that nobody has tried. Raises `UnknownLayoutError` if they don't or it can't be told.
    """
    if moment.gc is None:
        raise UnknownLayoutError(f"{program.go_version} is newer than is known, and its collector's state isn't found")
    total_bytes = 0
    for bucket in buckets.buckets(image, buckets.walk(image, moment.roots, program.record).addresses, program.record):
        allocs, frees = bucket.newest()
        total_bytes += buckets.scale(allocs - frees, bucket.size_bytes, moment.rate)[1]
    live_bytes, slack_bytes = moment.gc.heap_live_bytes, _SLACK_SAMPLES * moment.rate
    if not live_bytes / _TOTAL_FACTOR - slack_bytes <= total_bytes <= live_bytes * _TOTAL_FACTOR + slack_bytes:
        raise UnknownLayoutError(
            f"{program.go_version} is newer than is known, and its buckets add up to {total_bytes} bytes"
            f" where the live heap has {live_bytes}"
        )
