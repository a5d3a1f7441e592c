"""How long a sidecar needs from its execution until it guards a container, with and without a CPU quota."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from benchmarks import service, sidecar_run
from benchmarks.gauges import cpu_s
from benchmarks.ground import MEBIBYTE, Ground, say
from benchmarks.report import Table, spread
from localpod.pod import LocalPod

_LIMIT_BYTES = 128 * MEBIBYTE
_HIGH_BYTES = _LIMIT_BYTES * 85 // 100
_QUOTAS_MILLICORES = (None, 100)


@dataclass(frozen=True, slots=True, kw_only=True)
class Start:
    """One start beside a container that is above its threshold already. Times run from the execution.

    ``first_verdict_s`` is when the first sample had been judged and a capture begun, ``first_profile_s`` when a heap
    profile was safe.
    """

    cpu_millicores: int | None
    configured_s: float
    first_verdict_s: float
    first_profile_s: float
    cpu_s: float


def measure(ground: Ground) -> list[Start]:
    """Start a new sidecar again and again beside the same container."""
    found: list[Start] = []
    with LocalPod() as pod:
        app = service.start(pod, ground.service, "app", memory_limit_bytes=_LIMIT_BYTES)
        app.hold(_HIGH_BYTES)
        for quota in _QUOTAS_MILLICORES:
            runs = ground.effort.starts if quota is None else ground.effort.slow_starts
            say(f"startup: {runs} starts, CPU quota {quota_name(quota)}")
            found += [_measure(pod, ground, quota) for _ in range(runs)]
    return found


def _measure(pod: LocalPod, ground: Ground, quota: int | None) -> Start:
    with sidecar_run.running(pod, ground.python, ground.settings, cpu_millicores=quota) as run:
        configured = run.wait_for("started")
        captured = run.wait_for("captured")
        used_s = cpu_s(run.pid)
        # The capture of a container whose port isn't known yet fails at once, and is tried again.
        attempts = [*run.events("capture-failed"), captured]
        return Start(
            cpu_millicores=quota,
            configured_s=configured.at_s - run.executed_s,
            first_verdict_s=min(event.at_s for event in attempts) - run.executed_s,
            first_profile_s=captured.at_s - run.executed_s,
            cpu_s=used_s,
        )


def quota_name(millicores: int | None) -> str:
    """A CPU quota as Kubernetes writes it."""
    return "none" if millicores is None else f"{millicores}m"


def table(found: Sequence[Start]) -> Table:
    """The figures for people."""
    rows = []
    for quota in dict.fromkeys(one.cpu_millicores for one in found):
        runs = [one for one in found if one.cpu_millicores == quota]
        rows.append(
            (
                quota_name(quota),
                str(len(runs)),
                spread([one.configured_s for one in runs], digits=2),
                spread([one.first_verdict_s for one in runs], digits=2),
                spread([one.first_profile_s for one in runs], digits=2),
                spread([one.cpu_s for one in runs], digits=2),
            )
        )
    return Table(
        title="Start-up",
        notes=(
            "Seconds from its execution, beside a container that is above its threshold already: median / p90 / most.",
            "CPU is what the sidecar had used when the first profile was safe.",
        ),
        columns=("CPU quota", "starts", "configured s", "first sample judged s", "first profile safe s", "CPU s"),
        rows=tuple(rows),
    )
