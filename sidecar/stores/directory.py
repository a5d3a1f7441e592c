"""Dumps in a local directory, for where there is no bucket: the same keys, as paths.

The directory is held to its size by dropping dumps as `sidecar.core.retention` plans it; files that are no dump of ours
are neither counted nor touched. A file appears under its name only when it is whole and on the disk.
"""

from __future__ import annotations

import errno
import filecmp
import logging
import os
import shutil
from collections import defaultdict
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path

from sidecar.core.keys import parse_dump_id
from sidecar.core.quantities import format_bytes
from sidecar.core.retention import HeldDump, plan_eviction
from sidecar.errors import NotFoundError, StoreError
from sidecar.stores import StoredObject, StoreSettings
from sidecar.stores.errors import ObjectRefusedError

_CHUNK_BYTES = 256 * 1024
_NO_LINKS = frozenset({errno.EXDEV, errno.EPERM, errno.EMLINK, errno.ENOSYS, errno.EOPNOTSUPP, errno.EACCES})

_REMEDIES = {
    errno.ENOSPC: "free space on the volume, or lower DUMP_DIR_SIZE to what it has",
    errno.EDQUOT: "raise the volume's quota, or lower DUMP_DIR_SIZE",
    errno.EROFS: "mount the volume writable",
    errno.EACCES: "let user {uid} write there (securityContext.fsGroup), or set DUMP_DIR to where it may",
    errno.EPERM: "let user {uid} write there (securityContext.fsGroup), or set DUMP_DIR to where it may",
    errno.ENOTDIR: "a file is in the way: remove it, or set DUMP_DIR or PREFIX to another place",
    errno.ENAMETOOLONG: "shorten PREFIX",
}

_log = logging.getLogger("sidecar.stores")


class DirectoryStore:
    """A directory of at most ``directory_size_bytes`` of dumps."""

    def __init__(self, settings: StoreSettings) -> None:
        self._root = settings.directory
        self._size_bytes = settings.directory_size_bytes

    @property
    def location(self) -> str:
        """The directory."""
        return str(self._root)

    def put(self, key: str, source: Path) -> None:
        """Link ``source`` into the directory, or copy it across file systems; it must not change afterwards.

        Drops older dumps to make room. A file that is there already is kept: the same is success, another a refusal.
        """
        target = self._path(key)
        with _translated(target):
            size_bytes = _source_size(source)
            if target.exists():
                if not filecmp.cmp(source, target, shallow=False):
                    raise ObjectRefusedError(
                        f"{target} holds something else", remedy="nothing is ever overwritten: move that file away"
                    )
                return
            self._make_room(target.parent, size_bytes)
            _make_folder(target.parent)
            _place(source, target)

    def list(self, prefix: str) -> Iterator[StoredObject]:
        """The files whose path below the directory begins with ``prefix``."""
        with _translated(self._root):
            found = [
                (key, path)
                for path in self._files()
                if (key := path.relative_to(self._root).as_posix()).startswith(prefix)
            ]
        for key, path in sorted(found):
            try:
                status = path.stat()
            except FileNotFoundError:
                continue  # dropped to make room, just now
            yield StoredObject(
                key=key, size_bytes=status.st_size, modified=datetime.fromtimestamp(status.st_mtime, tz=UTC)
            )

    def read(self, key: str, offset: int = 0) -> Iterator[bytes]:
        """The bytes of a file from ``offset`` on."""
        path = self._path(key)
        with _translated(path):
            try:
                file = path.open("rb")
            except FileNotFoundError as error:
                raise NotFoundError(f"{path} doesn't exist") from error
            with file:
                file.seek(offset)
                while chunk := file.read(_CHUNK_BYTES):
                    yield chunk

    def probe(self, key: str) -> None:
        """Write a few bytes as ``key`` and remove them."""
        path = self._path(key)
        with _translated(path):
            _make_folder(path.parent)
            path.write_bytes(b"oom-heap-dumper was here to see whether it may write\n")
            path.unlink()

    def _path(self, key: str) -> Path:
        """Where a key lies; refuses one that leads out of the directory, by its parts or through a link."""
        path = self._root / key
        parts = key.split("/")
        if any(part in ("", ".", "..") for part in parts) or "\0" in key:
            raise ObjectRefusedError(f"{key!r} is no path below {self._root}", remedy="mend PREFIX")
        with _translated(path):
            if not path.resolve().is_relative_to(self._root.resolve()):
                raise ObjectRefusedError(f"{path} leads out of {self._root}", remedy="remove the link on its way")
        return path

    def _files(self) -> Iterator[Path]:
        """Every file but those being written; none where the directory doesn't exist yet."""
        for folder, _, names in os.walk(self._root, onerror=_raise_unless_gone):
            for name in names:
                if not name.startswith("."):
                    yield Path(folder, name)

    def _make_room(self, growing: Path, size_bytes: int) -> None:
        """Drop dumps until ``size_bytes`` more fit; the dump that is being written never goes.

        Drops nothing where that wouldn't be enough.
        """
        folders: dict[Path, int] = {}
        for path in self._files():
            if parse_dump_id(path.parent.name):
                folders[path.parent] = folders.get(path.parent, 0) + _size(path)
        folders.setdefault(growing, 0)
        excess_bytes = sum(folders.values()) + size_bytes - self._size_bytes
        if excess_bytes <= 0:
            return
        held: defaultdict[HeldDump, list[Path]] = defaultdict(list)
        for folder, total_bytes in folders.items():
            if dump_id := parse_dump_id(folder.name):
                # as if the dump being written took no room: dropping it would be no help
                freed_bytes = 0 if folder == growing else total_bytes
                held[HeldDump(dump_id=dump_id, size_bytes=freed_bytes)].append(folder)
        plan = plan_eviction([dump for dump, copies in held.items() for _ in copies], excess_bytes)
        if sum(dump.size_bytes for dump in plan) < excess_bytes:
            raise ObjectRefusedError(
                f"{self._root} is full: {format_bytes(excess_bytes)} over its {format_bytes(self._size_bytes)}, "
                "and only the newest incident is left to drop",
                remedy="raise DUMP_DIR_SIZE",
            )
        for dump in plan:
            folder = held[dump].pop()
            if folder != growing:
                self._drop(folder, dump.size_bytes)

    def _drop(self, folder: Path, size_bytes: int) -> None:
        shutil.rmtree(folder)
        key = folder.relative_to(self._root).as_posix()
        _log.warning(
            "dropped %s to make room",
            key,
            extra={"event_fields": {"event": "dump-dropped", "key": key, "size_bytes": size_bytes}},
        )


def _raise_unless_gone(error: OSError) -> None:
    if not isinstance(error, FileNotFoundError):
        raise error


@contextmanager
def _translated(path: Path) -> Iterator[None]:
    """Turn the operating system's errors into StoreError."""
    try:
        yield
    except OSError as error:
        remedy = _REMEDIES.get(error.errno or 0, "check the volume that DUMP_DIR is on")
        raise StoreError(f"{path}: {error.strerror or error}", remedy=remedy.format(uid=os.geteuid())) from error


def _source_size(source: Path) -> int:
    try:
        return source.stat().st_size
    except OSError as error:
        raise ObjectRefusedError(f"can't read {source}: {error.strerror}", remedy="check the spool's volume") from error


def _size(path: Path) -> int:
    try:
        return path.stat().st_size
    except FileNotFoundError:
        return 0


def _make_folder(folder: Path) -> None:
    """Make a folder and those above it, each of them on the disk before anything is put in it."""
    missing = [each for each in (folder, *folder.parents) if not each.exists()]
    for each in reversed(missing):
        each.mkdir(exist_ok=True)
        _sync(each.parent)


def _place(source: Path, target: Path) -> None:
    """Let ``source`` appear as ``target``, whole and on the disk. What a killed run left half-written is replaced."""
    temporary = target.with_name(f".{target.name}.part")
    temporary.unlink(missing_ok=True)
    try:
        os.link(source, temporary)
    except OSError as error:
        if error.errno not in _NO_LINKS:
            raise
        shutil.copyfile(source, temporary)
    _sync(temporary)
    temporary.rename(target)
    _sync(target.parent)


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
