"""A file on its way into the spool: under a temporary name until it is whole and on the disk."""

from __future__ import annotations

import contextlib
import functools
import hashlib
import os
import threading
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Self, TypeVar

from sidecar.core import keys
from sidecar.core.keys import DumpId
from sidecar.errors import SpoolError
from sidecar.spool.room import Room, is_full

_MAKE_ATTEMPTS = 5
# How much room a growing file reserves at a time where there is plenty: asking means to walk the spool.
_RESERVE_STEP_BYTES = 256 << 10

T = TypeVar("T")


@dataclass(frozen=True, slots=True, kw_only=True)
class WrittenFile:
    """A file that is whole and on the disk."""

    path: Path
    size_bytes: int
    sha256: str


class SpoolWriter:
    """One file on its way into the spool."""

    def __init__(self, room: Room, folder: Path, name: str, dump_id: DumpId | None) -> None:
        self._room = room
        self._path = folder / name
        self._part = folder / f"{keys.PART_PREFIX}{name}-{threading.get_ident()}"
        self._dump_id = dump_id
        self._digest = hashlib.sha256()
        self._size_bytes = 0
        self._reserved_bytes = 0
        self._fd = -1
        self.result: WrittenFile | None = None

    def __enter__(self) -> Self:
        try:
            flags = os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC
            self._fd = self._with_room(lambda: in_folder(self._part.parent, lambda: os.open(self._part, flags, 0o640)))
        except OSError as error:
            raise self._error(error) from error
        return self

    def write(self, piece: bytes | memoryview) -> None:
        """Append. Raises `SpoolError` when there is no room and nothing to drop."""
        self._reserve(self._size_bytes + len(piece) - self._reserved_bytes)
        rest = memoryview(piece)
        try:
            while rest:
                rest = rest[self._with_room(functools.partial(os.write, self._fd, rest)) :]
        except OSError as error:
            raise self._error(error) from error
        self._digest.update(piece)
        self._size_bytes += len(piece)

    def _reserve(self, needed_bytes: int) -> None:
        """Reserve ahead where there is room; drop dumps only for what is needed now."""
        if needed_bytes <= 0:
            return
        ahead_bytes = max(needed_bytes, _RESERVE_STEP_BYTES)
        if self._room.make(ahead_bytes, dumps_may_go=False):
            self._reserved_bytes += ahead_bytes
        elif self._room.make(needed_bytes, dumps_may_go=self._dump_id is not None, spared=self._dump_id):
            self._reserved_bytes += needed_bytes
        else:
            raise SpoolError(f"{self._path.name} doesn't fit: the spool is full, raise SPOOL_SIZE")

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        try:
            if kind is None:
                self._sync()
                self._with_room(lambda: self._part.rename(self._path))
                sync_folder(self._path.parent)
                self.result = WrittenFile(path=self._path, size_bytes=self._size_bytes, sha256=self._digest.hexdigest())
        except OSError as failure:
            raise self._error(failure) from failure
        finally:
            os.close(self._fd)
            if self.result is None:
                self._part.unlink(missing_ok=True)

    def _sync(self) -> None:
        """Put it on the disk. Not tried again: fsync(2) reports a failure once, a later success would mean nothing."""
        try:
            os.fsync(self._fd)
        except OSError as error:
            if is_full(error):
                self._room.free_disk(self._dump_id)  # for the next try of the whole file
            raise

    def _with_room(self, act: Callable[[], T]) -> T:
        return self._room.until_it_fits(self._dump_id, act)

    def _error(self, error: OSError) -> SpoolError:
        return SpoolError(f"{self._path.name} can't be written to the spool: {error.strerror}")


def in_folder(folder: Path, act: Callable[[], T]) -> T:
    """Make a folder and act in it, again if the uploader took the empty folder away in between."""
    for _ in range(_MAKE_ATTEMPTS):
        with contextlib.suppress(FileNotFoundError):
            folder.mkdir(parents=True, exist_ok=True)
            return act()
    folder.mkdir(parents=True, exist_ok=True)
    return act()


def sync_folder(folder: Path) -> None:
    """Put the names in a folder on the disk, unless the uploader has stored what was in it and removed it already."""
    try:
        descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    except FileNotFoundError:
        return
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
