"""Reads the memory of a container from its cgroup.

v2 files: ``memory.current``, ``memory.max``, ``memory.stat``, ``memory.events``, ``memory.oom.group``
(Documentation/admin-guide/cgroup-v2).
v1 files: ``memory.usage_in_bytes``, ``memory.limit_in_bytes``, ``memory.stat``, ``memory.oom_control``
(Documentation/admin-guide/cgroup-v1/memory).
"""

from __future__ import annotations

import contextlib
import errno
import os
from collections.abc import Callable, Iterable
from functools import partial
from pathlib import Path
from typing import Protocol

from sidecar.core.model import Container, Reading
from sidecar.errors import ASK_CHECK, NotPermittedError, TargetGoneError, TargetReadError
from sidecar.kernel import cgroup_files, foreign_files, membership, proc_files, spokesmen
from sidecar.kernel.cgroup_files import CgroupVersion

# What a removed cgroup or an ended process answers.
_GONE = {errno.ENOENT, errno.ENODEV, errno.ESRCH}
_REFUSED = {errno.EACCES, errno.EPERM}

# memory.stat is about 2 KiB; a longer file only loses keys that aren't read here.
_READ_BYTES = 8192

# What a kill did to a container of more processes isn't told in full. Each takes eleven bytes at most.
_MOST_PIDS = 4096
_MOST_PIDS_BYTES = 11 * _MOST_PIDS

# The processes of a container share its mounts as a rule, and what one doesn't show us another of its user doesn't.
_MOST_ASKED = 4


class MemorySource(Protocol):
    """Something that tells a container's memory, again and again."""

    @property
    def description(self) -> str:
        """Where the numbers come from, for people."""
        ...

    @property
    def is_open(self) -> bool:
        """False after `close`."""
        ...

    @property
    def events_fd(self) -> int | None:
        """A descriptor that becomes POLLPRI when the kernel counts an event, and calm by `read`; None without one."""
        ...

    def read(self) -> Reading:
        """Read once. Raises `TargetGoneError` when the container has ended, `TargetReadError` on anything else."""
        ...

    def read_usage_bytes(self) -> int:
        """The usage alone, which is cheaper. Raises as `read` does."""
        ...

    def read_pids(self) -> tuple[int, ...] | None:
        """The processes that are in there now, as our PID namespace has them; None if it isn't told. Raises nothing."""
        ...

    def close(self) -> None:
        """Give back the file descriptors."""
        ...


class MemoryCgroup:
    """A memory cgroup whose files are kept open: one ``pread`` each per reading."""

    def __init__(
        self,
        directory: Path,
        version: CgroupVersion,
        assumed_limit_bytes: int | None = None,
        *,
        is_home: Callable[[int], bool] | None = None,
        open_directory: Callable[[], int] | None = None,
    ) -> None:
        """Open the files in ``directory``, which may be opened in another way than by its path.

        ``assumed_limit_bytes`` stands in where the cgroup has no limit. ``is_home`` tells whether a process is in the
        cgroup that was meant, as /proc has it; without it the path is of one's own choice, and nothing is compared.

        Raises as `open_cgroup` does.
        """
        self._fds: list[int] = []
        self._is_home = is_home
        self._extra_fds: dict[str, int] = {}
        self._assumed_limit_bytes = assumed_limit_bytes
        self.directory = directory
        self.version = version
        names = (
            ("memory.current", "memory.max", "memory.stat", "memory.events")
            if version == 2
            else ("memory.usage_in_bytes", "memory.limit_in_bytes", "memory.stat", "memory.oom_control")
        )
        try:
            opened = open_directory() if open_directory else os.open(directory, os.O_PATH | os.O_DIRECTORY)
            try:
                self._open(opened, names)
            finally:
                os.close(opened)
        except OSError as error:
            self.close()
            raise _translate(error, str(directory)) from error

    def _open(self, opened: int, names: tuple[str, ...]) -> None:
        status = os.fstat(opened)
        self.device, self.inode = status.st_dev, status.st_ino
        for name in names:
            self._fds.append(foreign_files.open_file(opened, name))
        self._extra_fds["."] = os.dup(opened)
        with contextlib.suppress(OSError):  # v1 and kernels before 4.19 have no such flag
            self._extra_fds["memory.oom.group"] = foreign_files.open_file(opened, "memory.oom.group")

    @property
    def description(self) -> str:
        """Where the numbers come from, for people."""
        return f"cgroup v{self.version}"

    @property
    def is_open(self) -> bool:
        """False after `close`."""
        return bool(self._fds)

    @property
    def events_fd(self) -> int | None:
        """On v2 that of memory.events, see cgroup-v2.rst; v1 notifies nobody who may only read."""
        return self._fds[-1] if self.version == 2 and self._fds else None

    def is_home_of(self, pids: Iterable[int]) -> bool:
        """Whether any of these processes is in the container's cgroup, which the container can't feign."""
        return self._is_home is None or any(self._is_home(pid) for pid in pids)

    def read_usage_bytes(self) -> int:
        """One ``pread``. Raises as `read` does."""
        try:
            return int(os.pread(self._fds[0], _READ_BYTES, 0))
        except OSError as error:
            raise _translate(error, str(self.directory)) from error
        except ValueError as error:
            raise TargetReadError(f"{self.directory}: its usage isn't a number ({error})") from error

    def read_pids(self) -> tuple[int, ...] | None:
        """From cgroup.procs, which has a 0 for those outside of our PID namespace; they are left out.

        Opened anew each time: v1 shows a descriptor that is read more than once a second an ever older list
        (kernel/cgroup/cgroup-v1.c, cgroup_pidlist_start).
        """
        try:
            fd = foreign_files.open_file(self._extra_fds["."], "cgroup.procs")
            with os.fdopen(fd, "rb") as file:
                pids = file.read(_MOST_PIDS_BYTES).split()
            return tuple(int(pid) for pid in pids[:_MOST_PIDS] if pid != b"0")
        except (KeyError, OSError, ValueError):  # closed; EOPNOTSUPP from one that is divided by threads
            return None

    def _read_oom_group(self) -> bool | None:
        if self.version == 1:
            return False  # mm/oom_kill.c kills groups on v2 only
        fd = self._extra_fds.get("memory.oom.group")
        return None if fd is None else os.pread(fd, _READ_BYTES, 0).startswith(b"1")

    def read(self) -> Reading:
        """Read the files. Raises `TargetGoneError` once the cgroup was removed."""
        try:
            usage, limit, stat, events = (os.pread(fd, _READ_BYTES, 0) for fd in self._fds)
            if self.version == 2:
                return Reading(
                    usage_bytes=int(usage),
                    inactive_file_bytes=cgroup_files.parse_flat_keyed(stat, b"inactive_file") or 0,
                    limit_bytes=cgroup_files.parse_memory_max(limit.decode()) or self._assumed_limit_bytes,
                    oom_kills=cgroup_files.parse_flat_keyed(events, b"oom_kill"),
                    oom_group=self._read_oom_group(),
                )
            # The limit of a cgroup above, of the pod or of all pods, counts beside its own, or what stands in for that.
            own = cgroup_files.limit_of(int(limit)) or self._assumed_limit_bytes
            above = cgroup_files.limit_of(
                cgroup_files.parse_flat_keyed(stat, b"hierarchical_memory_limit") or int(limit)
            )
            return Reading(
                usage_bytes=int(usage),
                inactive_file_bytes=cgroup_files.parse_flat_keyed(stat, b"total_inactive_file") or 0,
                limit_bytes=min(filter(None, (own, above)), default=None),
                oom_kills=cgroup_files.parse_flat_keyed(events, b"oom_kill"),
                oom_group=self._read_oom_group(),
            )
        except OSError as error:
            raise _translate(error, str(self.directory)) from error
        except ValueError as error:
            raise TargetReadError(f"{self.directory}: not what a memory cgroup says ({error})") from error

    def close(self) -> None:
        """Give back the file descriptors."""
        while self._fds:
            os.close(self._fds.pop())
        while self._extra_fds:
            os.close(self._extra_fds.popitem()[1])

    def __del__(self) -> None:
        """A survey may be replaced by the next before anybody has seen it, and what was opened for it with it."""
        self.close()


def open_cgroup(proc: Path, container: Container, assumed_limit_bytes: int | None = None) -> MemoryCgroup:
    """Open the memory cgroup of a container through the mounts of its processes, else through our own.

    Few of many processes are asked, the oldest of each user before the others. ``assumed_limit_bytes`` stands in where
    the cgroup has no limit.

    Raises `TargetGoneError` if all processes have ended, `NotPermittedError` if the kernel shows it to us nowhere.
    """
    asked = 0
    for process in spokesmen.by_user(container.processes):
        is_there = False
        for viewer in (str(process.pid), "self"):
            try:
                return _open_seen_by(proc, process.pid, viewer, assumed_limit_bytes)
            except TargetGoneError:
                continue
            except (NotPermittedError, TargetReadError):
                is_there = True
        asked += is_there
        if asked == _MOST_ASKED:
            break
    if not asked:
        raise TargetGoneError(f"container {container.name!r} has ended")
    raise NotPermittedError(f"the memory cgroup of container {container.name!r} isn't readable: {ASK_CHECK}")


def _open_seen_by(proc: Path, pid: int, viewer: str, assumed_limit_bytes: int | None) -> MemoryCgroup:
    try:
        found = membership.read_cgroup(proc, pid)
        mounts = proc_files.read_lines(proc / viewer / "mountinfo")
    except OSError as error:
        raise _translate(error, f"process {pid}") from error
    if found is None:
        raise TargetReadError(f"process {pid} is in no memory cgroup")
    version, path = found
    for mount in cgroup_files.parse_mountinfo(mounts, version):
        shown = cgroup_files.directory_in_mount(mount, path)
        if shown is None:
            continue
        root = f"{proc}/{viewer}/root"
        with contextlib.suppress(TargetGoneError, TargetReadError):  # a mount may hide behind another
            return MemoryCgroup(
                Path(f"{root}{shown}"),
                version,
                assumed_limit_bytes,
                is_home=partial(membership.is_in, proc, found),
                open_directory=partial(foreign_files.open_directory, root, shown, mount.mount_id),
            )
    raise TargetReadError(f"no mount seen by {viewer} shows the memory cgroup {path}")


def _translate(error: OSError, subject: str) -> TargetGoneError | NotPermittedError | TargetReadError:
    if error.errno in _GONE:
        return TargetGoneError(f"{subject} is gone")
    if error.errno in _REFUSED:
        return NotPermittedError(f"{subject}: {error.strerror}")
    return TargetReadError(f"{subject}: {error.strerror}")
