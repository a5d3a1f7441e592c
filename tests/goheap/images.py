"""Lists of profile buckets as the runtime lays them out, made from scratch."""

from __future__ import annotations

import contextlib
import ctypes
import mmap
import struct
from collections.abc import Iterator, Sequence

from sidecar.goheap.layouts import BUCKET_HEADER, COUNTS_AND_BYTES, MEM_PROFILE, RecordLayout
from sidecar.goheap.process_memory import PAGE_BYTES
from sidecar.goheap.raw import Image

BASE = 0x7F0000000000
_MAP_FIXED_NOREPLACE = 0x100000
_WORD = (1 << 64) - 1

Plan = tuple[tuple[int, ...], int, tuple[tuple[int, int], ...]]
"""Stack, size of an object, and (allocs, frees) of the four cycles."""


def runtime_hash(words: Sequence[int]) -> int:
    """Jenkins' one-at-a-time over words, as the runtime hashes a stack and its size."""
    value = 0
    for word in words:
        value = (value + word) & _WORD
        value = (value + (value << 10)) & _WORD
        value ^= value >> 6
    value = (value + (value << 3)) & _WORD
    return value ^ (value >> 11)


def bucket_list(plans: Sequence[Plan], layout: RecordLayout) -> tuple[bytearray, list[int]]:
    """Memory at ``BASE`` with a bucket for each plan, and their addresses. The last one heads the list."""
    memory, addresses, older = bytearray(), [], 0
    for stack, size, cycles in plans:
        addresses.append(BASE + len(memory))
        memory += BUCKET_HEADER.pack(0, older, MEM_PROFILE, runtime_hash((*stack, size)), size, len(stack))
        memory += struct.pack(f"<{len(stack)}Q", *stack)
        for allocs, frees in cycles:
            memory += struct.pack("<2Q", allocs, frees)
            if layout is COUNTS_AND_BYTES:
                memory += struct.pack("<2Q", allocs * size, frees * size)
        older = addresses[-1]
    return memory, addresses


@contextlib.contextmanager
def hole(address: int) -> Iterator[None]:
    """Takes a page of our own memory away for a while; what was in it is lost."""
    library = ctypes.CDLL(None, use_errno=True)
    library.munmap.argtypes = (ctypes.c_void_p, ctypes.c_size_t)
    library.mmap.argtypes = (ctypes.c_void_p, ctypes.c_size_t, *(ctypes.c_int,) * 3, ctypes.c_long)
    library.mmap.restype = ctypes.c_void_p
    flags = mmap.MAP_PRIVATE | mmap.MAP_ANON | _MAP_FIXED_NOREPLACE
    assert library.munmap(address, PAGE_BYTES) == 0
    try:
        yield
    finally:
        again = library.mmap(address, PAGE_BYTES, mmap.PROT_READ | mmap.PROT_WRITE, flags, -1, 0)
        assert again == address


def image_of(memory: bytes | bytearray, *, split: int = 1 << 16) -> Image:
    """The memory in pieces, as a snapshot has it."""
    extents = [(BASE + at, min(split, len(memory) - at)) for at in range(0, len(memory), split)]
    return Image(extents, memoryview(memory))
