"""Reads what a process and a cgroup use: /proc/PID (proc(5)), the process's CPU clock and cgroupfs."""

from __future__ import annotations

import os
import threading
import time
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Self

from localpod.cgroups import Cgroup

_PEAK_POLL_S = 0.005
_UPLOADER = b"sidecar.drain"


@dataclass(frozen=True, slots=True, kw_only=True)
class ProcessUse:
    """Memory, threads and descriptors of a process at one moment; ``peak_rss_bytes`` since it was executed."""

    rss_bytes: int
    pss_bytes: int
    anonymous_bytes: int
    peak_rss_bytes: int
    threads: int
    fds: int


def process_use(pid: int) -> ProcessUse:
    """Look at a process of ours. Raises OSError if it has ended."""
    proc = Path(f"/proc/{pid}")
    status = _keyed((proc / "status").read_text())
    rollup = _keyed((proc / "smaps_rollup").read_text())
    return ProcessUse(
        rss_bytes=status["VmRSS"] << 10,
        pss_bytes=rollup["Pss"] << 10,
        anonymous_bytes=rollup["Anonymous"] << 10,
        peak_rss_bytes=status["VmHWM"] << 10,
        threads=status["Threads"],
        fds=len(os.listdir(proc / "fd")),  # noqa: PTH208 -- names are enough
    )


def cpu_s(pid: int) -> float:
    """CPU time that a process has used, ended threads included, children not; exact to the nanosecond.

    The clock's id is made as the kernel's include/linux/posix-timers.h does; /proc/PID/stat counts in 10 ms.
    """
    return time.clock_gettime((~pid << 3) | 2)


def cgroup_charge(cgroup: Cgroup) -> int:
    """Memory charged to a cgroup now, without page cache that the kernel can drop at once, as the kubelet counts."""
    stat = _keyed((cgroup.memory / "memory.stat").read_text().replace(" ", ": "))
    inactive = stat["inactive_file" if cgroup.version == 2 else "total_inactive_file"]
    return max(0, cgroup.usage_bytes - inactive)


@dataclass(frozen=True, slots=True, kw_only=True)
class Peaks:
    """The most that was seen: of the watch, of any uploader, of everything that is charged to their cgroup."""

    watch_rss_bytes: int
    uploader_rss_bytes: int
    charge_bytes: int


class PeakWatch:
    """Follows the sidecar's cgroup from a thread while a ``with`` block lasts, for `Peaks` in ``seen``."""

    def __init__(self, cgroup: Cgroup, watch_pid: int) -> None:
        self.seen = Peaks(watch_rss_bytes=0, uploader_rss_bytes=0, charge_bytes=0)
        self._cgroup = cgroup
        self._watch_pid = watch_pid
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._follow, name="peaks", daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._over.set()
        self._thread.join()

    def _follow(self) -> None:
        while not self._over.wait(_PEAK_POLL_S):
            uploaders = [pid for pid in self._cgroup.pids if pid != self._watch_pid and _is_uploader(pid)]
            # The kernel keeps each peak, so that only the last milliseconds of an uploader can escape us.
            self.seen = Peaks(
                watch_rss_bytes=max(self.seen.watch_rss_bytes, _peak_rss(self._watch_pid)),
                uploader_rss_bytes=max(self.seen.uploader_rss_bytes, *map(_peak_rss, uploaders), 0),
                charge_bytes=max(self.seen.charge_bytes, cgroup_charge(self._cgroup)),
            )


def _is_uploader(pid: int) -> bool:
    """Between vfork and exec a child still has its parent's memory and arguments, and none of its own."""
    try:
        return _UPLOADER in Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")
    except OSError:  # it has ended
        return False


def _peak_rss(pid: int) -> int:
    try:
        return _keyed(Path(f"/proc/{pid}/status").read_text()).get("VmHWM", 0) << 10
    except OSError:
        return 0


def _keyed(text: str) -> dict[str, int]:
    r"""The numbers of lines such as "VmRSS:  12 kB"; other lines are left out.

    >>> _keyed("Name:\tx\nVmRSS:\t  12 kB\n")
    {'VmRSS': 12}
    """
    found = {}
    for line in text.splitlines():
        name, _, value = line.partition(":")
        number = value.split()[:1]
        if number and number[0].isdigit():
            found[name] = int(number[0])
    return found
