"""Which memory cgroup a process is in, as /proc has it: what a container shows of its cgroups doesn't change that."""

from __future__ import annotations

from pathlib import Path

from sidecar.kernel import cgroup_files
from sidecar.kernel.cgroup_files import CgroupVersion


def read_cgroup(proc: Path, pid: int) -> tuple[CgroupVersion, str] | None:
    """The version and the path, as our cgroup namespace has it; None if it is in none. Raises OSError."""
    return cgroup_files.parse_proc_cgroup((proc / str(pid) / "cgroup").read_text(errors="replace"))


def is_in(proc: Path, cgroup: tuple[CgroupVersion, str], pid: int) -> bool:
    """Whether a process is in that very one; false once it has ended."""
    try:
        return read_cgroup(proc, pid) == cgroup
    except OSError:
        return False
