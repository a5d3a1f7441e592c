"""Reads a Go program's heap profile from its memory: without its help, and with what it hasn't published yet.

`prepare` once when the program is first seen, `HeapReader.snapshot` when it matters, and afterwards, in another
process, ``python -m sidecar.goheap encode``.
"""

from sidecar.goheap.errors import GoHeapError, NotGoError, ProfilingOffError, UnknownLayoutError
from sidecar.goheap.layouts import GcState
from sidecar.goheap.reader import HeapReader, prepare
from sidecar.goheap.snapshot import Limits

__all__ = [
    "GcState",
    "GoHeapError",
    "HeapReader",
    "Limits",
    "NotGoError",
    "ProfilingOffError",
    "UnknownLayoutError",
    "prepare",
]
