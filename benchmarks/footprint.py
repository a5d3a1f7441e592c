"""What the resident sidecar costs while nothing happens, with few and with many containers."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass

from benchmarks import service, sidecar_run
from benchmarks.distribution import slope
from benchmarks.gauges import ProcessUse, cgroup_charge, cpu_s, process_use
from benchmarks.ground import MEBIBYTE, Ground, say
from benchmarks.report import NOTHING, Table, mebibytes
from localpod.pod import LocalPod

_LIMIT_BYTES = 128 * MEBIBYTE


@dataclass(frozen=True, slots=True, kw_only=True)
class Footprint:
    """Figures of one number of containers. ``cpu_ratio`` is of one core, over ``window_s``."""

    containers: int
    use: ProcessUse
    charge_bytes: int
    cpu_ratio: float
    window_s: float


def measure(ground: Ground) -> list[Footprint]:
    """Measure each number of containers with a sidecar of its own."""
    with LocalPod() as pod:
        found: list[Footprint] = []
        started = 0
        for containers in sorted(ground.effort.containers):
            say(f"footprint: {containers} containers, {ground.effort.window_s:g} s")
            for number in range(started, containers):
                service.start(pod, ground.service, f"app-{number}", memory_limit_bytes=_LIMIT_BYTES)
            started = containers
            found.append(_measure(pod, ground, containers))
        return found


def _measure(pod: LocalPod, ground: Ground, containers: int) -> Footprint:
    with sidecar_run.running(pod, ground.python, ground.settings) as run:
        run.wait_for("watching", lambda fields: bool(fields["pprof"]), count=containers)
        time.sleep(ground.effort.settle_s)  # the profiles of calm times are taken meanwhile
        cpu_before_s, began_s = cpu_s(run.pid), time.monotonic()
        time.sleep(ground.effort.window_s)
        used_s, window_s = cpu_s(run.pid) - cpu_before_s, time.monotonic() - began_s
        return Footprint(
            containers=containers,
            use=process_use(run.pid),
            charge_bytes=cgroup_charge(run.container.cgroup),
            cpu_ratio=used_s / window_s,
            window_s=window_s,
        )


def table(found: Sequence[Footprint]) -> Table:
    """The figures for people."""
    windows = ", ".join(dict.fromkeys(f"{one.window_s:.0f} s" for one in found))
    return Table(
        title="Footprint of the resident sidecar",
        notes=(
            "Sampling every 100 ms, calm. Each container is a Go program that answers pprof on a connection kept open.",
            f"CPU is of one core, over {windows}; the charge is the cgroup's without inactive page cache.",
            "File pages that were in memory before, such as Python's own, are in RSS but not in the charge.",
            _growth(found),
        ),
        columns=(
            "containers",
            "RSS MiB",
            "PSS MiB",
            "anonymous MiB",
            "peak RSS MiB",
            "charge MiB",
            "CPU %",
            "threads",
            "fds",
        ),
        rows=tuple(
            (
                str(one.containers),
                mebibytes(one.use.rss_bytes),
                mebibytes(one.use.pss_bytes),
                mebibytes(one.use.anonymous_bytes),
                mebibytes(one.use.peak_rss_bytes),
                mebibytes(one.charge_bytes),
                f"{one.cpu_ratio:.3%}".rstrip("%"),
                str(one.use.threads),
                str(one.use.fds),
            )
            for one in found
        ),
    )


def _growth(found: Sequence[Footprint]) -> str:
    memory = slope((one.containers, one.use.anonymous_bytes) for one in found)
    cpu = slope((one.containers, one.cpu_ratio) for one in found)
    grown = f"{memory / 1024:.0f} KiB and {cpu:.4%} of a core" if memory is not None and cpu is not None else NOTHING
    return f"Each further container adds {grown}."
