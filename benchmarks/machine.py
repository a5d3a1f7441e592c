"""What the figures were measured on: without it they say nothing."""

from __future__ import annotations

import os
import platform
from dataclasses import dataclass
from pathlib import Path

from sidecar import __version__


@dataclass(frozen=True, slots=True, kw_only=True)
class Machine:
    """A machine and its state when the benchmarks began. ``load`` is the mean of the last minute."""

    version: str
    processor: str
    cores: int
    memory_bytes: int
    kernel: str
    cgroup_version: int
    python: str
    go: str
    load: float


def describe(*, cgroup_version: int, go: str) -> Machine:
    """Look at this machine."""
    return Machine(
        version=__version__,
        processor=_processor(),
        cores=len(os.sched_getaffinity(0)),
        memory_bytes=os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"),
        kernel=f"{platform.system()} {platform.release()} {platform.machine()}",
        cgroup_version=cgroup_version,
        python=platform.python_version(),
        go=go,
        load=round(os.getloadavg()[0], 2),
    )


def sentence(machine: Machine) -> str:
    """The machine in one line."""
    return (
        f"oom-heap-dumper {machine.version} on {machine.processor}, {machine.cores} cores, "
        f"{machine.memory_bytes / 2**30:.0f} GiB; {machine.kernel}, cgroup v{machine.cgroup_version}; "
        f"Python {machine.python}, {machine.go}; load {machine.load:g} before the start."
    )


def _processor() -> str:
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        name, _, value = line.partition(":")
        if name.strip() == "model name":
            return value.strip()
    return platform.processor() or platform.machine()
