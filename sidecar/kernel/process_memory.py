"""Reads the memory of a container from its processes, where its cgroup isn't visible."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterable
from pathlib import Path

from sidecar.core.model import Reading
from sidecar.errors import TargetGoneError
from sidecar.kernel import cgroup_files, proc_files


class ProcessMemory:
    """The fallback where the cgroup isn't visible: anonymous and shared memory summed over the processes.

    /proc/PID/status is readable without any right (proc_pid_status(5)). It knows no limit and no OOM kills.
    """

    def __init__(self, proc: Path, pids: Callable[[], Iterable[int]], limit_bytes: int | None) -> None:
        """``pids`` is asked at each reading: processes come and go. The limit is what the settings say."""
        self._closed = False
        self._limit_bytes = limit_bytes
        self._proc = proc
        self._pids = pids

    @property
    def description(self) -> str:
        """Where the numbers come from, for people."""
        return "RssAnon of its processes"

    @property
    def is_open(self) -> bool:
        """False after `close`."""
        return not self._closed

    @property
    def events_fd(self) -> int | None:
        """None: processes tell no events."""
        return None

    def read_usage_bytes(self) -> int:
        """As `read`, there is nothing cheaper."""
        return self.read().usage_bytes

    def read_pids(self) -> tuple[int, ...] | None:
        """Those that are asked at each reading."""
        return tuple(self._pids())

    def read(self) -> Reading:
        """Sum over the processes that are left; `TargetGoneError` if none is."""
        total, alive = 0, False
        for pid in self._pids():
            with contextlib.suppress(OSError):
                text = proc_files.read_lines(self._proc / str(pid) / "status")
                anonymous = cgroup_files.parse_status_kib(text, "RssAnon")
                if anonymous is not None:
                    alive = True
                    total += anonymous + (cgroup_files.parse_status_kib(text, "RssShmem") or 0)
        if not alive:
            raise TargetGoneError("no process is left")
        return Reading(usage_bytes=total, inactive_file_bytes=0, limit_bytes=self._limit_bytes, oom_kills=None)

    def close(self) -> None:
        """No more readings are wanted; nothing is held open."""
        self._closed = True
