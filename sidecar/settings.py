"""What the sidecar was told to do: plain values, made by `sidecar.options` and passed down."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from sidecar.core.guard import GuardPolicy
from sidecar.core.model import Identity
from sidecar.core.trigger import TriggerPolicy
from sidecar.stores import StoreSettings

LogFormat = Literal["auto", "human", "json"]
Scheme = Literal["auto", "http", "https"]
OomGroupMode = Literal["kubelet", "process"]

PROFILE_KINDS = ("heap-newest", "heap", "heap-gc", "goroutine", "memstats", "heap-baseline")


@dataclass(frozen=True, slots=True, kw_only=True)
class PprofSettings:
    """Where to look for ``net/http/pprof`` and what to take from it.

    With ``ports`` only these are asked; else every listening port of a Go process. ``headers`` go to them and to ports
    that are proven to be the program's. Certificates are checked only against ``ca_file``: the peer is already proven
    by its socket's inode.
    """

    ports: tuple[int, ...] = ()
    path: str = "/debug/pprof"
    headers: tuple[tuple[str, str], ...] = ()
    scheme: Scheme = "auto"
    ca_file: Path | None = None
    profiles: tuple[str, ...] = PROFILE_KINDS


@dataclass(frozen=True, slots=True, kw_only=True)
class SpoolSettings:
    """The directory that owns each dump until the store confirmed it, and how much it may hold."""

    directory: Path
    size_bytes: int


@dataclass(frozen=True, slots=True, kw_only=True)
class TargetSettings:
    """Whom to watch. Without ``pids``: every container of the pod but our own.

    ``limit_bytes`` stands in where a cgroup has no limit. ``container_name`` names the only container of a pod where
    the kernel doesn't tell.
    """

    pids: tuple[int, ...] = ()
    limit_bytes: int | None = None
    container_name: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class GuardSettings:
    """Whether and how the OOM killer may be held off; ``cgroups`` is where the machine's cgroups can be written."""

    policy: GuardPolicy
    cgroups: Path


@dataclass(frozen=True, slots=True, kw_only=True)
class OomGroupSettings:
    """Whether ``memory.oom.group`` is kept off ("process"), for the containers of these names; for all without any."""

    mode: OomGroupMode = "kubelet"
    containers: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class LogSettings:
    """Format and least level of the log on stderr."""

    format: LogFormat
    level: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """Everything that ``watch``, ``check`` and ``dump`` go by.

    ``cpu_budget_share`` is the fraction of a core that looking more often than each ``interval_s`` may take.
    """

    interval_s: float
    cpu_budget_share: float
    trigger: TriggerPolicy
    identity: Identity
    targets: TargetSettings
    pprof: PprofSettings
    spool: SpoolSettings
    store: StoreSettings
    guard: GuardSettings
    oom_group: OomGroupSettings
    upload_grace_s: float
    log: LogSettings
