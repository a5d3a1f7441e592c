"""The machine's cgroupfs as it is mounted for the guard: a cgroup found by identity, its files opened for writing.

A path doesn't tell which cgroup it is, as each cgroup namespace has its own root; device and inode do. On 64-bit
kernels an inode of kernfs is never used twice (fs/kernfs/dir.c, __kernfs_new_node).
"""

from __future__ import annotations

import contextlib
import errno
import itertools
import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Self

from sidecar.guard.errors import GuardUnavailableError
from sidecar.kernel import cgroup_files
from sidecar.kernel.cgroup import MemoryCgroup
from sidecar.kernel.cgroup_files import CgroupVersion

# What a cgroup answers that was removed.
GONE = frozenset({errno.ENOENT, errno.ENODEV})

_READ_BYTES = 8192
# Beyond any container's: the search for one of its processes has an end.
_MOST_MEMBERS = 1 << 16


@dataclass(frozen=True, slots=True, kw_only=True)
class CgroupId:
    """What tells a cgroup from every other one until the machine restarts: ``st_dev`` and ``st_ino``."""

    device: int
    inode: int

    @classmethod
    def of(cls, directory: Path) -> Self:
        """The cgroup that a directory shows. Raises OSError as stat(2) does."""
        status = directory.stat()
        return cls(device=status.st_dev, inode=status.st_ino)


@dataclass(frozen=True, slots=True, kw_only=True)
class FileNames:
    """What the files of a memory cgroup are called. ``swap_*`` count memory and swap together and exist on v1 only."""

    limit: str
    usage: str
    swap_limit: str | None
    swap_usage: str | None
    inactive_file: bytes
    dirty: tuple[bytes, ...]


FILE_NAMES: dict[CgroupVersion, FileNames] = {
    1: FileNames(
        limit="memory.limit_in_bytes",
        usage="memory.usage_in_bytes",
        swap_limit="memory.memsw.limit_in_bytes",
        swap_usage="memory.memsw.usage_in_bytes",
        inactive_file=b"total_inactive_file",
        dirty=(b"total_dirty", b"total_writeback"),
    ),
    2: FileNames(
        limit="memory.max",
        usage="memory.current",
        swap_limit=None,
        swap_usage=None,
        inactive_file=b"inactive_file",
        dirty=(b"file_dirty", b"file_writeback"),
    ),
}


def find(view: Path, wanted: CgroupId) -> Path:
    """Walk the view for a cgroup. On v1 the controllers are directories of the view.

    Raises `GuardUnavailableError` where the view doesn't show it.
    """
    for top in _tops(view, wanted.device):
        with contextlib.suppress(OSError):
            if CgroupId.of(top) == wanted:
                return top
        for directory in _below(top):
            if directory.inode() == wanted.inode:
                return Path(directory.path)
    raise GuardUnavailableError(
        f"the container's memory cgroup isn't below {view}",
        "mount the machine's /sys/fs/cgroup there (a writable hostPath volume), or set GUARD_CGROUPS to where it is",
    )


def find_home(view: Path, memory: MemoryCgroup) -> tuple[CgroupId, Path]:
    """The cgroup that a container's memory is read from, in the view.

    A container shows us its cgroup through mounts of its own, so it may show us another one's: whose it is is told by
    the processes in there. Raises `GuardUnavailableError` where the view doesn't show it or it isn't the container's.
    """
    wanted = CgroupId(device=memory.device, inode=memory.inode)
    try:
        directory = find(view, wanted)
    except GuardUnavailableError:
        with contextlib.suppress(PermissionError):
            if not memory.directory.exists():
                raise GuardUnavailableError(f"{memory.directory} is gone", "the container has ended") from None
        raise
    if not memory.is_home_of(_members(directory)):
        raise GuardUnavailableError(
            f"what the container shows as its cgroup, {directory}, has none of its processes",
            "see what it mounts below /sys/fs/cgroup, or it has ended",
        )
    return wanted, directory


def _members(directory: Path) -> Iterator[int]:
    """The processes in a cgroup as our PID namespace has them, which has 0 for those outside of it."""
    with contextlib.suppress(OSError), (directory / "cgroup.procs").open("rb") as file:
        yield from filter(None, map(int, itertools.islice(file, _MOST_MEMBERS)))


def is_view(view: Path, wanted: CgroupId) -> bool:
    """Whether this is the very view that a cgroup was once found below: only that one tells that it has vanished."""
    try:
        return CgroupId.of(view) == wanted
    except OSError:
        return False


def _tops(view: Path, device: int) -> list[Path]:
    """The view itself, or the directories in it that are on this device: what is mounted there."""
    try:
        with os.scandir(view) as entries:
            candidates = [view, *(Path(entry.path) for entry in entries if entry.is_dir(follow_symlinks=False))]
    except OSError as error:
        raise GuardUnavailableError(
            f"{view}: {error.strerror}", "mount the machine's /sys/fs/cgroup there (a hostPath volume)"
        ) from error
    tops = []
    for candidate in candidates:
        with contextlib.suppress(OSError):
            if candidate.stat().st_dev == device:
                tops.append(candidate)
    return tops[:1] if tops[:1] == [view] else tops


def _below(top: Path) -> Iterator[os.DirEntry[str]]:
    """Every cgroup below, the upper ones first; those that vanish meanwhile are left out."""
    pending = [str(top)]
    while pending:
        with contextlib.suppress(OSError), os.scandir(pending.pop(0)) as entries:
            for entry in entries:
                if entry.is_dir(follow_symlinks=False):
                    pending.append(entry.path)
                    yield entry


def ancestors(view: Path, directory: Path) -> Iterator[Path]:
    """The cgroups above one, as far as the view shows them, the nearest first."""
    device = directory.stat().st_dev
    for parent in directory.parents:
        with contextlib.suppress(OSError):
            if parent.stat().st_dev == device:
                yield parent
        if parent == view:
            return


class NumberFile:
    """A file with one number, kept open. "max", or v1's huge number, is None: no limit."""

    def __init__(self, path: Path, flags: int = os.O_RDONLY) -> None:
        """Raises OSError as open(2) does."""
        self.name = path.name
        self.path = path
        self._fd = os.open(path, flags | os.O_CLOEXEC)

    def read(self) -> int | None:
        """One ``pread``. Raises OSError, ENODEV once the cgroup was removed."""
        return cgroup_files.limit_of(int(text)) if (text := self.read_text()) != b"max\n" else None

    def read_text(self) -> bytes:
        """What the file says. Raises as `read`."""
        return os.pread(self._fd, _READ_BYTES, 0)

    def write(self, value_bytes: int | None) -> None:
        """One ``pwrite``; None is "max" (v2 only). Raises OSError: EBUSY if v1 can't reclaim down to the value."""
        os.pwrite(self._fd, b"max" if value_bytes is None else b"%d" % value_bytes, 0)

    def close(self) -> None:
        """Give back the descriptor."""
        os.close(self._fd)


def open_writable(path: Path, flags: int = 0) -> NumberFile:
    """Open a limit for reading and writing; nothing is written.

    Raises `GuardUnavailableError` without the right to, and where the file is missing.
    """
    try:
        return NumberFile(path, os.O_RDWR | flags)
    except OSError as error:
        if error.errno == errno.EROFS:
            remedy = "mount the machine's cgroups without readOnly"
        elif error.errno in GONE:
            remedy = "the container has ended, or its cgroup has no memory controller"
        else:
            remedy = "the machine's cgroups can be written by root alone, so run the sidecar as user 0"
        raise GuardUnavailableError(f"{path} can't be written ({error.strerror})", remedy) from error


class Parent:
    """A cgroup above the guarded one: what its limits leave."""

    def __init__(self, directory: Path, version: CgroupVersion) -> None:
        """Open what it has: the root of v2 has no limit, and v1 counts swap only where the kernel was told to."""
        names = FILE_NAMES[version]
        self._pairs: list[tuple[NumberFile, NumberFile]] = []
        for limit, usage in ((names.limit, names.usage), (names.swap_limit, names.swap_usage)):
            if limit is None or usage is None:
                continue
            with contextlib.suppress(OSError):
                opened = NumberFile(directory / limit)
                try:
                    self._pairs.append((opened, NumberFile(directory / usage)))
                except OSError:
                    opened.close()

    def rooms_bytes(self) -> Iterator[int]:
        """What each of its limits leaves; nothing where it has none. Raises OSError."""
        for limit_file, usage_file in self._pairs:
            limit = limit_file.read()
            if limit is not None:
                yield limit - (usage_file.read() or 0)

    def close(self) -> None:
        """Give back the descriptors."""
        for pair in self._pairs:
            for file in pair:
                file.close()
        self._pairs.clear()
