"""The bounded directory that owns each dump until the store confirmed it.

    SPOOL/queue/NAMESPACE/POD/DUMP_ID/heap-8080.pb.gz    complete, to be uploaded, then removed by the uploader
    SPOOL/queue/NAMESPACE/POD/DUMP_ID/.manifest.json     the draft of a manifest, sealed by renaming it
    SPOOL/queue/NAMESPACE/POD/DUMP_ID/.part-*            being written
    SPOOL/baseline/...                                   profiles of calm times, linked into each dump

A file appears under its name only when it is whole and on the disk: temporary name, fsync, rename, fsync of the folder.
The uploader removes folders that it has emptied, at any moment, so that a folder may have to be made anew.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import hashlib
import os
import shutil
import threading
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Self, TypeVar

from sidecar.core import keys
from sidecar.core.keys import DumpId
from sidecar.core.retention import HeldDump, plan_eviction
from sidecar.errors import SpoolError, StartupError

QUEUE = "queue"
_BASELINE = "baseline"
_PART_PREFIX = ".part-"
_DRAFT = f".{keys.MANIFEST_NAME}"
_FULL = {errno.ENOSPC, errno.EDQUOT}
_MAKE_ATTEMPTS = 5
# How much room a growing file asks for at a time: asking means to walk the spool.
_RESERVE_STEP_BYTES = 256 << 10

T = TypeVar("T")

Dropped = Callable[[DumpId, int], None]


@dataclass(frozen=True, slots=True, kw_only=True)
class WrittenFile:
    """A file that is whole and on the disk."""

    path: Path
    size_bytes: int
    sha256: str


class Spool:
    """Files of dumps on their way to the store. Safe to use from several threads and beside the uploader."""

    def __init__(self, directory: Path, size_bytes: int, pod_path: str, *, on_drop: Dropped) -> None:
        """``on_drop`` hears of each dump that had to make room, with its size."""
        self.directory = directory
        self._size_bytes = size_bytes
        self._pod = directory / QUEUE / pod_path
        self._on_drop = on_drop
        self._lock = threading.Lock()
        self._exclusive: int | None = None

    def open(self) -> int:
        """Make the directory ready for the watch and take over what an earlier run left; the number of files left.

        Raises `StartupError` if it can't be written or another watch uses it.
        """
        self.prepare()
        try:
            self._exclusive = os.open(self.directory / ".watch.lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
            fcntl.flock(self._exclusive, fcntl.LOCK_EX | fcntl.LOCK_NB)
            shutil.rmtree(self.directory / _BASELINE, ignore_errors=True)
            for folder in self._folders():
                for part in folder.glob(f"{_PART_PREFIX}*"):
                    part.unlink()
                self._seal(folder)
        except BlockingIOError as error:
            raise StartupError(
                f"the spool {self.directory} is in use by another watch: give this one its own SPOOL_DIR"
            ) from error
        except OSError as error:
            raise self._unusable(error) from error
        return self.pending_files()

    def prepare(self) -> None:
        """Make the directory, to add a dump beside a running watch. Raises `StartupError` if it can't be written."""
        try:
            self._pod.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise self._unusable(error) from error

    def _unusable(self, error: OSError) -> StartupError:
        return StartupError(
            f"the spool {self.directory} can't be written ({error.strerror}): "
            "mount an emptyDir there that our user may write, or set SPOOL_DIR"
        )

    def close(self) -> None:
        """Let another watch use the directory."""
        if self._exclusive is not None:
            os.close(self._exclusive)
            self._exclusive = None

    def holds(self, dump_id: DumpId) -> bool:
        """Whether anything of a dump still waits for the uploader."""
        return (self._pod / str(dump_id)).exists()

    def pending_files(self) -> int:
        """Files that wait for the uploader."""
        return sum(not name.startswith(".") for _, _, names in os.walk(self.directory / QUEUE) for name in names)

    def write(self, dump_id: DumpId, name: str) -> SpoolWriter:
        """Begin a file of a dump. Use as a context manager; it is kept only if the block ends well."""
        return SpoolWriter(self, self._pod / str(dump_id), name, dump_id)

    def write_baseline(self, name: str) -> SpoolWriter:
        """Begin a baseline profile; an earlier one of this name is replaced."""
        return SpoolWriter(self, self.directory / _BASELINE, name, None)

    def put(self, dump_id: DumpId, name: str, content: bytes) -> None:
        """Keep a small file of a dump."""
        with self.write(dump_id, name) as writer:
            writer.write(content)

    def draft_manifest(self, dump_id: DumpId, content: bytes) -> None:
        """Keep what is known of a dump so far; replaces an earlier draft. Nothing of it is uploaded yet."""
        self.put(dump_id, _DRAFT, content)

    def seal(self, dump_id: DumpId) -> None:
        """The dump is complete: its manifest may be uploaded."""
        try:
            self._seal(self._pod / str(dump_id))
        except OSError as error:
            raise SpoolError(f"manifest of {dump_id}: {error.strerror}") from error

    def link(self, dump_id: DumpId, name: str, source: Path) -> None:
        """Add a baseline to a dump without copying it."""
        folder = self._pod / str(dump_id)
        try:
            _in_folder(folder, lambda: os.link(source, folder / name))
        except OSError as error:
            raise SpoolError(f"{source.name} can't be linked into {dump_id}: {error.strerror}") from error

    def drop_baseline(self, name: str) -> None:
        """The process of this baseline has ended."""
        (self.directory / _BASELINE / name).unlink(missing_ok=True)

    def make_room(self, needed_bytes: int, keep: DumpId | None) -> bool:
        """Drop dumps until ``needed_bytes`` more fit; false if nothing droppable is left."""
        with self._lock:
            excess = self._used_bytes() + needed_bytes - self._size_bytes
            return excess <= 0 or self._evict(excess, keep)

    def free_disk(self, needed_bytes: int, keep: DumpId | None) -> bool:
        """The disk itself is full: drop as much as is needed whatever our own bound says."""
        with self._lock:
            return self._evict(needed_bytes, keep)

    def _evict(self, excess_bytes: int, keep: DumpId | None) -> bool:
        folders = {folder.name: folder for folder in self._folders() if folder.name != str(keep)}
        held = [
            HeldDump(dump_id=dump_id, size_bytes=_tree_bytes(folder))
            for folder in folders.values()
            if (dump_id := keys.parse_dump_id(folder.name)) is not None
        ]
        freed = 0
        for dump in plan_eviction(held, excess_bytes):
            shutil.rmtree(folders[str(dump.dump_id)], ignore_errors=True)
            freed += dump.size_bytes
            self._on_drop(dump.dump_id, dump.size_bytes)
        return freed >= excess_bytes

    def _folders(self) -> list[Path]:
        """Folders of all dumps, also of another pod that used this directory before."""
        return [folder for folder in (self.directory / QUEUE).glob("*/*/*") if folder.is_dir()]

    def _used_bytes(self) -> int:
        return _tree_bytes(self.directory)

    def _seal(self, folder: Path) -> None:
        with contextlib.suppress(FileNotFoundError):
            (folder / _DRAFT).rename(folder / keys.MANIFEST_NAME)
            _sync_folder(folder)


class SpoolWriter:
    """One file on its way into the spool."""

    def __init__(self, spool: Spool, folder: Path, name: str, dump_id: DumpId | None) -> None:
        self._spool = spool
        self._path = folder / name
        self._part = folder / f"{_PART_PREFIX}{name}-{threading.get_ident()}"
        self._dump_id = dump_id
        self._digest = hashlib.sha256()
        self._size_bytes = 0
        self._reserved_bytes = 0
        self._fd = -1
        self.result: WrittenFile | None = None

    def __enter__(self) -> Self:
        try:
            flags = os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC
            self._fd = _in_folder(self._part.parent, lambda: os.open(self._part, flags, 0o640))
        except OSError as error:
            raise self._error(error) from error
        return self

    def write(self, piece: bytes) -> None:
        """Append. Raises `SpoolError` when there is no room and nothing to drop."""
        if self._size_bytes + len(piece) > self._reserved_bytes:
            step = max(len(piece), _RESERVE_STEP_BYTES)
            if not self._spool.make_room(step, self._dump_id):
                raise SpoolError(f"{self._path.name} doesn't fit: the spool is full, raise SPOOL_SIZE")
            self._reserved_bytes += step
        self._write_all(piece)
        self._digest.update(piece)
        self._size_bytes += len(piece)

    def _write_all(self, piece: bytes) -> None:
        rest = memoryview(piece)
        while rest:
            try:
                rest = rest[os.write(self._fd, rest) :]
            except OSError as error:
                if error.errno not in _FULL or not self._spool.free_disk(len(rest), self._dump_id):
                    raise self._error(error) from error

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        try:
            if kind is None:
                os.fsync(self._fd)
                self._part.rename(self._path)
                _sync_folder(self._path.parent)
                self.result = WrittenFile(path=self._path, size_bytes=self._size_bytes, sha256=self._digest.hexdigest())
        except OSError as failure:
            raise self._error(failure) from failure
        finally:
            os.close(self._fd)
            if self.result is None:
                self._part.unlink(missing_ok=True)

    def _error(self, error: OSError) -> SpoolError:
        return SpoolError(f"{self._path.name} can't be written to the spool: {error.strerror}")


def _in_folder(folder: Path, act: Callable[[], T]) -> T:
    """Make a folder and act in it, again if the uploader took the empty folder away in between."""
    for _ in range(_MAKE_ATTEMPTS):
        with contextlib.suppress(FileNotFoundError):
            folder.mkdir(parents=True, exist_ok=True)
            return act()
    folder.mkdir(parents=True, exist_ok=True)
    return act()


def _sync_folder(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _tree_bytes(folder: Path) -> int:
    """Bytes of the files below a folder; files that vanish meanwhile count nothing."""
    total = 0
    for parent, _, names in os.walk(folder):
        for name in names:
            with contextlib.suppress(OSError):
                total += os.lstat(f"{parent}/{name}").st_size
    return total
