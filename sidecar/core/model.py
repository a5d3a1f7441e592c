"""The values that flow from the kernel to the store. Sizes are bytes, times are seconds."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

Metric = Literal["working-set", "usage"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Process:
    """A process of a watched container: PIDs are reused, the pair of PID and creation time is not.

    Two of the same pair are equal, whatever the rest: a program may rename itself, execute another one, or give up its
    user. ``created_at_s`` is in seconds of the epoch as told when the process was first seen. ``name`` is chosen by the
    program: never print or store it unescaped.
    """

    pid: int
    created_at_s: float
    name: str = field(compare=False)
    uid: int = field(compare=False)
    gid: int = field(compare=False)


@dataclass(frozen=True, slots=True, kw_only=True)
class Container:
    """Processes that share a memory cgroup, oldest first. ``key`` is the cgroup's path as this process sees it."""

    key: str
    name: str
    processes: tuple[Process, ...]

    @property
    def main(self) -> Process:
        """The oldest process: what the container was started for."""
        return self.processes[0]


@dataclass(frozen=True, slots=True, kw_only=True)
class Reading:
    """What one read of a memory cgroup tells.

    ``limit_bytes`` is None without a limit; ``oom_kills`` is None where the kernel doesn't say.
    ``inactive_file_bytes`` is page cache that the kernel can drop at once. ``oom_group`` is whether an OOM kill takes
    every process of the container (``memory.oom.group``), None where that isn't known.
    """

    usage_bytes: int
    inactive_file_bytes: int
    limit_bytes: int | None
    oom_kills: int | None
    oom_group: bool | None = None

    @property
    def working_set_bytes(self) -> int:
        """Usage without inactive page cache, as the kubelet counts it."""
        return max(0, self.usage_bytes - self.inactive_file_bytes)


@dataclass(frozen=True, slots=True, kw_only=True)
class Sample:
    """A reading and the moment it was taken, on the monotonic clock."""

    at_s: float
    reading: Reading

    def metric_bytes(self, metric: Metric) -> int:
        """The number that is held against the limit."""
        return self.reading.working_set_bytes if metric == "working-set" else self.reading.usage_bytes


@dataclass(frozen=True, slots=True, kw_only=True)
class Identity:
    """Where the dumps come from; None where nobody told."""

    cluster: str | None
    namespace: str
    pod: str
    node: str | None
    image: str | None


@dataclass(frozen=True, slots=True, kw_only=True)
class GoProgram:
    """What the executable of a Go process says of itself (``debug/buildinfo``).

    ``go_version`` is None where it isn't told in a form that is read here (before Go 1.18).
    """

    go_version: str | None
    build_id: str | None


@dataclass(frozen=True, slots=True, kw_only=True)
class ProfileFile:
    """A verified profile as it lies in the spool and will lie in the store.

    ``port`` is that of the endpoint that gave it; None for one that was read from the program's memory. Only such a one
    has ``gc``, what Go's collector said at that moment and what the profile's stacks have freed so far, and may be
    ``incomplete``, for the reason given.
    """

    name: str
    kind: str
    port: int | None
    size_bytes: int
    sha256: str
    samples: int | None
    taken_at: str
    duration_s: float
    gc: Mapping[str, int | None] | None = None
    incomplete: str | None = None
