"""Memory cgroups of our own, with a CPU quota where the machine has that controller, on cgroup v1 and v2.

The files and their meaning: Documentation/admin-guide/cgroup-v2.rst and cgroup-v1/memory.rst of the kernel.
"""

from __future__ import annotations

import contextlib
import functools
import os
import secrets
import signal
import subprocess
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from localpod.errors import LocalPodError

NAME_PREFIX = "oom-heap-dumper-"

_ROOT = Path("/sys/fs/cgroup")
_CPU_PERIOD_US = 100_000
_REMOVE_WITHIN_S = 60.0
_POLL_S = 0.01


@dataclass(frozen=True, slots=True, kw_only=True)
class Cgroup:
    """A cgroup: one directory on v2 (``cpu`` is ``memory``), one for each controller on v1.

    ``cpu`` is None where the machine has no CPU controller.
    """

    version: Literal[1, 2]
    memory: Path
    cpu: Path | None

    @property
    def directories(self) -> tuple[Path, ...]:
        """The directories that make up the cgroup."""
        return tuple(dict.fromkeys(path for path in (self.memory, self.cpu) if path is not None))

    @property
    def join_files(self) -> tuple[Path, ...]:
        """A process that writes ``0`` into each of these has joined."""
        return tuple(directory / "cgroup.procs" for directory in self.directories)

    @property
    def usage_bytes(self) -> int:
        """Memory charged to the cgroup now, page cache included."""
        return int((self.memory / ("memory.current" if self.version == 2 else "memory.usage_in_bytes")).read_text())

    @property
    def peak_bytes(self) -> int:
        """The most memory that was ever charged to the cgroup; on v2 as of Linux 5.19."""
        return int((self.memory / ("memory.peak" if self.version == 2 else "memory.max_usage_in_bytes")).read_text())

    @property
    def oom_kills(self) -> int:
        """Processes that the OOM killer took here; on v2 in cgroups below as well."""
        text = (self.memory / ("memory.events" if self.version == 2 else "memory.oom_control")).read_text()
        return next(int(line.split()[1]) for line in text.splitlines() if line.startswith("oom_kill "))

    @property
    def pids(self) -> tuple[int, ...]:
        """The processes in the cgroup, by the PIDs that the caller knows them by; not those of cgroups below."""
        return tuple(int(line) for line in (self.memory / "cgroup.procs").read_text().split())


@functools.cache
def unavailable() -> str | None:
    """Why this process can't make memory cgroups here, in one line; None if it can. Asks the kernel once."""
    if os.geteuid() != 0:
        return "only root may make cgroups"
    try:
        return _trial()
    except LocalPodError as error:
        return str(error)


@contextlib.contextmanager
def new_cgroup() -> Iterator[Cgroup]:
    """Make a cgroup that may hold others, directly below the root, and remove it and all in it afterwards.

    Raises `LocalPodError` where the machine doesn't let us.
    """
    root = _root()
    created = _below(root, NAME_PREFIX + secrets.token_hex(4))
    try:
        _make(root, created)
        yield created
    finally:
        remove(created)


def add_child(
    parent: Cgroup, name: str, *, memory_limit_bytes: int | None = None, cpu_millicores: int | None = None
) -> Cgroup:
    """Make a cgroup below ``parent``. Swap is held to nothing, as the kubelet does, so that the limit means memory.

    Raises `LocalPodError` where the machine doesn't let us or has no CPU controller for a quota.
    """
    child = _below(parent, name)
    if cpu_millicores is not None and child.cpu is None:
        raise LocalPodError("this machine's cgroups have no CPU controller: leave the CPU quota out")
    try:
        for directory in child.directories:
            directory.mkdir()
        if memory_limit_bytes is not None:
            _limit_memory(child, memory_limit_bytes)
        if cpu_millicores is not None and child.cpu is not None:
            _limit_cpu(child, child.cpu, cpu_millicores)
    except OSError as error:
        raise _failure(error) from error
    return child


def kill(cgroup: Cgroup) -> None:
    """Kill every process in the cgroup, not in those below, and wait until none is left.

    Raises `LocalPodError` if the kernel doesn't part with one within a minute.
    """
    for directory in cgroup.directories:
        _kill_in(directory)


def remove(cgroup: Cgroup) -> None:
    """Kill what is left in the cgroup and below, and remove it. One that is gone already is no error.

    Raises `LocalPodError` if it is still in use after a minute.
    """
    for top in cgroup.directories:
        for directory, _, _ in os.walk(top, topdown=False):
            _kill_in(Path(directory))
            _remove_directory(Path(directory))


def _kill_in(directory: Path) -> None:
    deadline_s = time.monotonic() + _REMOVE_WITHIN_S
    while pids := _pids_in(directory):
        for pid in pids:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        if time.monotonic() > deadline_s:
            raise LocalPodError(f"process {pids[0]} in {directory} doesn't end: kill it by hand")
        time.sleep(_POLL_S)


def _remove_directory(directory: Path) -> None:
    deadline_s = time.monotonic() + _REMOVE_WITHIN_S
    while True:
        try:
            directory.rmdir()
        except FileNotFoundError:
            return
        except OSError as error:  # EBUSY: the kernel is still at work on the last process
            if time.monotonic() > deadline_s:
                raise LocalPodError(f"{directory} can't be removed ({error.strerror}): rmdir it by hand") from error
            time.sleep(_POLL_S)
        else:
            return


def _pids_in(directory: Path) -> tuple[int, ...]:
    try:
        return tuple(int(line) for line in (directory / "cgroup.procs").read_text().split())
    except OSError:  # ENOENT, or ENODEV from a cgroup that is on its way out
        return ()


def _root() -> Cgroup:
    if (_ROOT / "memory" / "memory.limit_in_bytes").exists():
        cpu = _ROOT / "cpu"
        has_quota = (cpu / "cgroup.procs").exists()
        return Cgroup(version=1, memory=_ROOT / "memory", cpu=cpu if has_quota else None)
    try:
        controllers = (_ROOT / "cgroup.controllers").read_text().split()
    except OSError:
        raise LocalPodError("no cgroups at /sys/fs/cgroup: mount cgroup2 there") from None
    if "memory" not in controllers:
        raise LocalPodError("cgroups here have no memory controller: boot the kernel with cgroup_enable=memory")
    return Cgroup(version=2, memory=_ROOT, cpu=_ROOT if "cpu" in controllers else None)


def _below(parent: Cgroup, name: str) -> Cgroup:
    return Cgroup(version=parent.version, memory=parent.memory / name, cpu=parent.cpu and parent.cpu / name)


def _make(root: Cgroup, created: Cgroup) -> None:
    try:
        _delegate(root)
        for directory in created.directories:
            directory.mkdir()
        _delegate(created)
    except OSError as error:
        raise _failure(error) from error


def _delegate(cgroup: Cgroup) -> None:
    """Let cgroups below have the controllers; on v1 they have them anyway."""
    if cgroup.version == 1:
        return
    control = cgroup.memory / "cgroup.subtree_control"
    enabled = control.read_text().split()
    for controller in ("memory", "cpu") if cgroup.cpu is not None else ("memory",):
        if controller not in enabled:
            control.write_text(f"+{controller}")


def _limit_memory(cgroup: Cgroup, limit_bytes: int) -> None:
    if cgroup.version == 2:
        (cgroup.memory / "memory.max").write_text(str(limit_bytes))
        swap, swap_bytes = cgroup.memory / "memory.swap.max", 0
    else:
        (cgroup.memory / "memory.limit_in_bytes").write_text(str(limit_bytes))
        swap, swap_bytes = cgroup.memory / "memory.memsw.limit_in_bytes", limit_bytes
    if swap.exists():  # not where the kernel doesn't account swap
        swap.write_text(str(swap_bytes))


def _limit_cpu(cgroup: Cgroup, directory: Path, millicores: int) -> None:
    quota_us = millicores * _CPU_PERIOD_US // 1000
    if cgroup.version == 2:
        (directory / "cpu.max").write_text(f"{quota_us} {_CPU_PERIOD_US}")
    else:
        (directory / "cpu.cfs_period_us").write_text(str(_CPU_PERIOD_US))
        (directory / "cpu.cfs_quota_us").write_text(str(quota_us))


def _failure(error: OSError) -> LocalPodError:
    return LocalPodError(f"{error.filename or _ROOT}: {error.strerror}: run as root where cgroups are writable")


def _trial() -> str | None:
    with new_cgroup() as parent:
        child = add_child(parent, "trial", memory_limit_bytes=1 << 26)
        script = 'for file in "$@"; do echo 0 >"$file" || exit 1; done'
        command = ["/bin/sh", "-c", script, "sh", *map(str, child.join_files)]
        joined = subprocess.run(command, capture_output=True, check=False, text=True)
        return None if joined.returncode == 0 else f"a process can't join a cgroup: {joined.stderr.strip()}"
