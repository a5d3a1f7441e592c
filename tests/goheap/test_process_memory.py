"""Reading memory: whatever is asked for, it is all there or there is an error that says so."""

from __future__ import annotations

import ctypes
import errno
import mmap
import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sidecar.goheap.memory import UnmappedError
from sidecar.goheap.process_memory import PAGE_BYTES, ProcessMemory
from tests.goheap.images import hole


def refuse(*_: object) -> int:
    """As a seccomp profile does with process_vm_readv."""
    ctypes.set_errno(errno.EPERM)
    return -1


@pytest.fixture(params=["process_vm_readv", "mem"], scope="module")
def memory(request: pytest.FixtureRequest) -> Iterator[ProcessMemory]:
    """Our own, through either door."""
    own = ProcessMemory(Path("/proc"), os.getpid())
    if request.param == "mem":
        own._library = type("Library", (), {"process_vm_readv": staticmethod(refuse)})  # type: ignore[assignment]
    yield own
    own.close()


numbers = st.integers(-(1 << 65), 1 << 65) | st.sampled_from([0, -1, (1 << 63) - 8, 1 << 63, (1 << 64) - 8, 1 << 64])


@given(address=numbers, size_bytes=st.integers(-(1 << 65), 1 << 16))
def test_any_number_is_an_address_or_unmapped(memory: ProcessMemory, address: int, size_bytes: int) -> None:
    """A table in a hostile program may say anything."""
    try:
        content = memory.read(address, size_bytes)
    except UnmappedError:
        return
    assert len(content) == size_bytes


def test_pages_that_are_not_there_are_told(memory: ProcessMemory) -> None:
    """Those around them are read, and if there are none that is an error."""
    room = mmap.mmap(-1, 4 * PAGE_BYTES)
    room.write(b"x" * 4 * PAGE_BYTES)
    start = ctypes.addressof(ctypes.c_char.from_buffer(room))
    assert memory.read_pages(start, 4 * PAGE_BYTES) == (b"x" * 4 * PAGE_BYTES, frozenset())
    missing_page = start + PAGE_BYTES
    with hole(missing_page):
        content, missing = memory.read_pages(start, 4 * PAGE_BYTES)
        assert missing == {missing_page}
        assert content == b"x" * PAGE_BYTES + bytes(PAGE_BYTES) + b"x" * 2 * PAGE_BYTES
        with pytest.raises(UnmappedError):
            memory.read_pages(missing_page, PAGE_BYTES)
