"""What the kernel lets us see of another process, and the lines of a pod spec that would grant the rest.

Nearly all of it hangs on ``ptrace_may_access`` (kernel/ptrace.c): same UID and GID in all forms, and no capability in
the target that we lack; or CAP_SYS_PTRACE.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from sidecar.core.model import Container, Process
from sidecar.errors import OomHeapDumperError
from sidecar.kernel import cgroup


@dataclass(frozen=True, slots=True, kw_only=True)
class Right:
    """One thing we may or may not see, and what it costs not to."""

    name: str
    granted: bool
    without_it: str


def probe_rights(proc: Path, container: Container) -> tuple[Right, ...]:
    """Try each access on the container's main process."""
    process = proc / str(container.main.pid)
    return (
        Right(
            name="cgroup",
            granted=_can_open_cgroup(proc, container),
            without_it="memory is summed over the processes, and only MEMORY_LIMIT tells the limit",
        ),
        Right(
            name="sockets",
            granted=_can(lambda: os.listdir(process / "fd")),  # noqa: PTH208 -- only whether it works
            without_it="each port of the pod is asked whether it belongs to this process",
        ),
        Right(
            name="executable",
            granted=_can(lambda: os.stat(process / "exe")),  # noqa: PTH116 -- the target, seen from its own root
            without_it="ports of programs other than Go are asked too, and dumps lack the Go version",
        ),
        Right(
            name="environment",
            granted=_can((process / "environ").read_bytes),
            without_it="dumps lack GOMEMLIMIT, GOGC and GODEBUG",
        ),
    )


def granting_lines(target: Process, own_uid: int, own_gid: int) -> tuple[str, ...]:
    """The lines for the sidecar's container that let it see this process. Pure.

    With the same user and group no capability is needed, unless the app holds one itself.
    """
    if (own_uid, own_gid) != (target.uid, target.gid):
        return ("securityContext:", f"  runAsUser: {target.uid}", f"  runAsGroup: {target.gid}")
    if own_uid == 0:
        return ("securityContext:", "  capabilities:", "    add: [SYS_PTRACE, DAC_READ_SEARCH, KILL]")
    return ("# the app holds a capability that the sidecar lacks: drop it there, or add the same here",)


def _can(access: Callable[[], object]) -> bool:
    try:
        access()
    except OSError:
        return False
    return True


def _can_open_cgroup(proc: Path, container: Container) -> bool:
    try:
        cgroup.open_cgroup(proc, container).close()
    except OomHeapDumperError:
        return False
    return True
