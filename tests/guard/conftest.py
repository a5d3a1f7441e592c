"""Containers' cgroups of our own, on whichever version this machine has."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from localpod import cgroups
from localpod.cgroups import Cgroup
from sidecar.core.guard import GuardMode, GuardPolicy
from sidecar.guard import Guard, Guarded
from sidecar.kernel.cgroup import MemoryCgroup
from tests.guard.eater import MIB

needs_unshare = pytest.mark.skipif(
    shutil.which("unshare") is None, reason="unshare isn't installed: it comes with util-linux"
)

VIEW = Path("/sys/fs/cgroup")
LIMIT_MIB = 100


@dataclass
class Box:
    """A container's cgroup below a pod's, and a sidecar's journal."""

    pod: Cgroup
    app: Cgroup
    journal: Path
    memories: list[MemoryCgroup] = field(default_factory=list)
    guards: list[Guard] = field(default_factory=list)

    @property
    def version(self) -> int:
        return self.app.version

    def file(self, meaning: str, *, of: Cgroup | None = None) -> Path:
        """The file of that meaning on this version."""
        v1 = {"limit": "memory.limit_in_bytes", "swap limit": "memory.memsw.limit_in_bytes"}
        v2 = {"limit": "memory.max", "high": "memory.high"}
        return (of or self.app).memory / (v1 if self.version == 1 else v2)[meaning]

    def limit_bytes(self, meaning: str = "limit") -> int:
        return int(self.file(meaning).read_text())

    def memory(self) -> MemoryCgroup:
        """The container's memory as the sidecar reads it."""
        self.memories.append(MemoryCgroup(self.app.memory, self.app.version))
        return self.memories[-1]

    def guard(self, mode: GuardMode = "raise", view: Path = VIEW, hold_s: float = 2.0) -> Guard:
        self.guards.append(Guard(GuardPolicy(mode=mode, hold_s=hold_s), view, self.journal))
        return self.guards[-1]

    def adopt(self, mode: GuardMode = "raise", hold_s: float = 2.0) -> Guarded:
        return self.guard(mode, hold_s=hold_s).adopt(self.memory())

    def entries(self) -> list[dict[str, Any]]:
        """What the journal says."""
        return [json.loads(path.read_text()) for path in self.journal.glob("*.json")]


@pytest.fixture
def box(tmp_path: Path) -> Iterator[Box]:
    """A pod without a limit, a container in it with one of 100 MiB."""
    reason = cgroups.unavailable()
    if reason is not None:
        pytest.skip(f"no cgroups: {reason}")
    with cgroups.new_cgroup() as parent:
        pod = cgroups.add_child(parent, "pod")
        if pod.version == 2:
            (pod.memory / "cgroup.subtree_control").write_text("+memory")
        app = cgroups.add_child(pod, "app", memory_limit_bytes=LIMIT_MIB * MIB)
        box = Box(pod=pod, app=app, journal=tmp_path / "guard")
        yield box
        for guard in box.guards:
            guard.close()
        for memory in box.memories:
            memory.close()


@pytest.fixture
def v2_box(box: Box) -> Box:
    """The same where the brake can be had."""
    if box.version != 2:
        pytest.skip("this machine has cgroup v1, which has neither memory.high nor memory.oom.group")
    return box


@pytest.fixture
def v1_box(box: Box) -> Box:
    """The same on v1."""
    if box.version != 1:
        pytest.skip("this machine has cgroup v2")
    return box
