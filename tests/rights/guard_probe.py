"""Run inside a pod: whether the guard can raise the limit of the first container it sees, as JSON.

Its argument is a directory for the guard's journal. The machine's cgroups are at their usual place.
"""

from __future__ import annotations

import json
import sys
import time
from pathlib import Path

from sidecar.core.guard import GuardPolicy
from sidecar.errors import OomHeapDumperError
from sidecar.guard import Guard
from sidecar.kernel.cgroup import open_cgroup
from sidecar.kernel.processes import ProcessTable

PROC = Path("/proc")


def raise_limit(journal: Path) -> dict[str, object]:
    """Raise it for a moment; tells the limit before and during, or why it can't be."""
    (container,) = ProcessTable(PROC).scan()
    try:
        memory = open_cgroup(PROC, container)
        before = memory.read()
        guarded = Guard(GuardPolicy(mode="raise"), Path("/sys/fs/cgroup"), journal).adopt(memory)
    except OomHeapDumperError as error:
        return {"why_not": str(error)}
    guarded.arm(before, time.monotonic())
    guarded.hold(time.monotonic())
    during = memory.read()
    guarded.close()
    return {"before": before.limit_bytes, "during": during.limit_bytes, "after": memory.read().limit_bytes}


if __name__ == "__main__":
    sys.stdout.write(json.dumps(raise_limit(Path(sys.argv[1]))))
