"""Reads the memory of another process in few calls, and never writes to it.

Two doors with different rights (ptrace(2), proc(5)): process_vm_readv asks for the right to trace alone, and
/proc/PID/mem also for the right to open that file, but some seccomp profiles block only the first.
"""

from __future__ import annotations

import ctypes
import errno
import mmap
import os
import select
from array import array
from collections.abc import Iterator, Sequence
from pathlib import Path

from sidecar.errors import ASK_CHECK, NotPermittedError, TargetGoneError, TargetReadError
from sidecar.goheap.memory import Extent, UnmappedError

PAGE_BYTES = os.sysconf("SC_PAGE_SIZE")
"""What the kernel maps at least: all bytes of a page belong to one mapping."""

_MAX_VECTORS = 1024  # IOV_MAX
_ADDRESSES = 1 << 64
_REFUSED = (errno.EPERM, errno.EACCES, errno.ENOSYS)
_UNMAPPED = (errno.EFAULT, errno.EIO)


class ProcessMemory:
    """The memory of a live process. Close it after use.

    Every method raises `NotPermittedError` if neither door is open to us and `TargetGoneError` if the process ended.
    """

    def __init__(self, proc: Path, pid: int) -> None:
        """Remember the process; a later one with the same number is told apart by `ensure_alive`."""
        self._pid = pid
        self._mem_path = proc / str(pid) / "mem"
        self._mem: int | None = None
        self._library = ctypes.CDLL(None, use_errno=True)
        self._library.process_vm_readv.restype = ctypes.c_ssize_t
        self._library.process_vm_readv.argtypes = (
            *(ctypes.c_int, ctypes.c_void_p, ctypes.c_ulong),
            *(ctypes.c_void_p, ctypes.c_ulong, ctypes.c_ulong),
        )
        self._pidfd: int | None = None
        try:
            self._pidfd = os.pidfd_open(pid)
        except ProcessLookupError as error:
            raise self._gone() from error
        except OSError:
            pass  # before Linux 5.3 or behind an old seccomp profile

    def close(self) -> None:
        """Give the descriptors back."""
        for descriptor in (self._pidfd, self._mem):
            if descriptor is not None:
                os.close(descriptor)
        self._pidfd = self._mem = None

    def ensure_alive(self) -> None:
        """Raise `TargetGoneError` if the process has ended, even if its number lives on in another one."""
        if self._pidfd is not None:
            poll = select.poll()
            poll.register(self._pidfd, select.POLLIN)
            if poll.poll(0):
                raise self._gone()

    def read(self, address: int, size_bytes: int) -> bytes:
        """Exactly that many bytes; raises `UnmappedError` if they aren't all there.

        Any number will do: what a program says of itself may lead to no address at all.
        """
        if not size_bytes:
            return b""
        possible = 0 <= address <= address + size_bytes <= _ADDRESSES
        buffer = bytearray(size_bytes if possible else 0)
        if not possible or self._fill(buffer, 0, [(address, size_bytes)]) != size_bytes:
            raise UnmappedError(f"process {self._pid} has no {size_bytes} bytes of memory at {address:#x}")
        return bytes(buffer)

    def read_extents(self, extents: Sequence[Extent]) -> memoryview:
        """All of the pieces, one after the other.

        Raises `UnmappedError` if any of them can't be read: the memory of a dying process is taken away page by page,
        and a live one may take some of its own away.
        The room is mapped on its own: that of a large allocation might stay with the allocator when it is freed.
        """
        total = sum(size_bytes for _, size_bytes in extents)
        try:
            buffer = mmap.mmap(-1, total or 1)
        except OSError as error:
            raise TargetReadError(f"no room for {total} bytes of the memory of process {self._pid}") from error
        at = 0
        for first in range(0, len(extents), _MAX_VECTORS):
            batch = extents[first : first + _MAX_VECTORS]
            wanted = sum(size_bytes for _, size_bytes in batch)
            if self._fill(buffer, at, batch) != wanted:
                raise UnmappedError(f"process {self._pid} has lost memory that it had")
            at += wanted
        return memoryview(buffer)[:total]

    def read_pages(self, start: int, size_bytes: int) -> tuple[bytes, frozenset[int]]:
        """Whole pages, with zeros for those that can't be read, and the addresses of these.

        Raises `UnmappedError` if none of them can be read.
        """
        try:
            return self.read(start, size_bytes), frozenset()
        except UnmappedError:
            pass
        pages, missing = [], set()
        for address in range(start, start + size_bytes, PAGE_BYTES):
            try:
                pages.append(self.read(address, PAGE_BYTES))
            except UnmappedError:
                pages.append(bytes(PAGE_BYTES))
                missing.add(address)
        if len(missing) == len(pages):
            raise UnmappedError(f"process {self._pid} has no memory at {start:#x}")
        return b"".join(pages), frozenset(missing)

    def _fill(self, buffer: bytearray | mmap.mmap, at: int, extents: Sequence[Extent]) -> int:
        """Bytes read before the first piece that can't be."""
        if self._mem is not None:
            return self._fill_from_file(self._mem, buffer, at, extents)
        room = (ctypes.c_char * len(buffer)).from_buffer(buffer)
        local = array("Q", (ctypes.addressof(room) + at, len(buffer) - at))
        remote = array("Q", [word for extent in extents for word in extent])
        read: int = self._library.process_vm_readv(
            self._pid, local.buffer_info()[0], 1, remote.buffer_info()[0], len(extents), 0
        )
        if read >= 0:
            return read
        number = ctypes.get_errno()
        if number in _UNMAPPED:
            return 0
        if number == errno.ESRCH:
            raise self._gone()
        if number not in _REFUSED:
            raise TargetReadError(f"the memory of process {self._pid} can't be read: {os.strerror(number)}")
        self._mem = self._open_file()
        return self._fill_from_file(self._mem, buffer, at, extents)

    def _open_file(self) -> int:
        try:
            return os.open(self._mem_path, os.O_RDONLY | os.O_CLOEXEC)
        except PermissionError as error:
            raise NotPermittedError(f"the memory of process {self._pid} isn't ours to read: {ASK_CHECK}") from error
        except OSError as error:
            raise self._gone() from error

    def _fill_from_file(
        self, descriptor: int, buffer: bytearray | mmap.mmap, at: int, extents: Sequence[Extent]
    ) -> int:
        view, read = memoryview(buffer), 0
        for (address, size_bytes), count in _merged(extents):
            try:
                got = os.preadv(descriptor, [view[at + read : at + read + size_bytes]], address)
            except (OSError, OverflowError) as error:
                if isinstance(error, OSError) and error.errno not in _UNMAPPED:
                    raise TargetReadError(f"the memory of process {self._pid} can't be read: {error}") from error
                got = -1
            if got == 0 and count:
                raise self._gone()  # its memory was given back
            if got != size_bytes:
                return read + max(got, 0)
            read += got
        return read

    def _gone(self) -> TargetGoneError:
        return TargetGoneError(f"process {self._pid} has ended")


def _merged(extents: Sequence[Extent]) -> Iterator[tuple[Extent, int]]:
    """Neighbours as one, with how many they were."""
    start = end = count = 0
    for address, size_bytes in extents:
        if count and address == end:
            end, count = end + size_bytes, count + 1
            continue
        if count:
            yield (start, end - start), count
        start, end, count = address, address + size_bytes, 1
    if count:
        yield (start, end - start), count
