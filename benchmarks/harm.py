"""What the app loses while it is watched and captured: its latency, its throughput, and how long it stands still."""

from __future__ import annotations

import contextlib
import statistics
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from benchmarks import harm_gauges, service, sidecar_run
from benchmarks.gauges import cpu_s
from benchmarks.ground import MEBIBYTE, QUICK, Ground, say
from benchmarks.harm_gauges import Client, Load, Stall
from benchmarks.service import Service
from benchmarks.startup import quota_name
from localpod import toolchain
from localpod.pod import LocalPod

_LIMIT_BYTES = 256 * MEBIBYTE
_RECORDS = 60_000
_STACKS = 2_000
_QUOTAS_MILLICORES = (None, 250)

# Enough below what the app can do that requests don't queue in calm times.
_LOAD_RATIO = 0.3


@dataclass(frozen=True, slots=True, kw_only=True)
class Condition:
    """What else happens to the app. ``way`` is the reader's, ``interval_s`` the time between its captures."""

    name: str
    watched: bool = False
    way: str | None = None
    interval_s: float | None = None


NOBODY = Condition(name="no sidecar")
CONDITIONS = (
    NOBODY,
    Condition(name="no sidecar, once more"),
    Condition(name="watched, calm", watched=True),
    Condition(name="from memory, 10/s", way="memory", interval_s=0.1),
    Condition(name="from memory, 100/s", way="memory", interval_s=0.01),
    Condition(name="HTTP, 10/s", way="http", interval_s=0.1),
    Condition(name="HTTP with gc=1, 1/s", way="gc", interval_s=1.0),
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Sizes:
    """How much to measure: times of one condition in one round."""

    rounds: int
    latency_s: float
    throughput_s: float
    stall_s: float
    settle_s: float


_FULL = Sizes(rounds=8, latency_s=2.0, throughput_s=1.5, stall_s=1.2, settle_s=2.0)
_QUICK = Sizes(rounds=1, latency_s=0.4, throughput_s=0.3, stall_s=0.2, settle_s=0.5)


@dataclass(frozen=True, slots=True, kw_only=True)
class Turn:
    """One condition in one round. ``cpu_ratio`` is what the sidecar or reader took of a core.

    ``stall`` is None under a CPU quota, where a goroutine that runs without rest sees the kernel's throttling alone.
    """

    condition: Condition
    cpu_millicores: int | None
    number: int
    latency: Load
    throughput: Load
    stall: Stall | None
    captures_per_s: float | None
    capture_s: float | None
    cpu_ratio: float | None


@dataclass(frozen=True, slots=True, kw_only=True)
class _App:
    """The app with its client; ``rate`` is the requests per second of the latency's load."""

    pod: LocalPod
    service: Service
    client: Client
    cpu_millicores: int | None
    rate: float


def measure(ground: Ground) -> list[Turn]:
    """Measure all conditions in turns, each round beginning with another one, so that noise meets all of them alike."""
    sizes = _QUICK if ground.effort is QUICK else _FULL
    client = harm_gauges.build(toolchain.find())
    found: list[Turn] = []
    for quota in _QUOTAS_MILLICORES:
        with LocalPod() as pod:
            app = _start(pod, ground, client, quota, sizes)
            for number in range(sizes.rounds):
                say(f"harm: CPU quota {quota_name(quota)}, round {number + 1} of {sizes.rounds}")
                first = number % len(CONDITIONS)
                turns = (*CONDITIONS[first:], *CONDITIONS[:first])
                found += [_measure(app, ground, condition, sizes, number) for condition in turns]
    return found


def _start(pod: LocalPod, ground: Ground, client: Client, quota: int | None, sizes: Sizes) -> _App:
    app = service.start(
        pod,
        ground.service,
        "app",
        memory_limit_bytes=_LIMIT_BYTES,
        cpu_millicores=quota,
        stacks=_STACKS,
        records=_RECORDS,
    )
    capacity = client.ask_closely(app, sizes.throughput_s).per_s
    return _App(pod=pod, service=app, client=client, cpu_millicores=quota, rate=capacity * _LOAD_RATIO)


def _measure(app: _App, ground: Ground, condition: Condition, sizes: Sizes, number: int) -> Turn:
    with _company(app, ground, condition, sizes) as company:
        cpu_before_s, began_s = cpu_s(company.pid) if company.pid else 0.0, time.monotonic()
        latency = app.client.ask_evenly(app.service, app.rate, sizes.latency_s)
        throughput = app.client.ask_closely(app.service, sizes.throughput_s)
        stall = None if app.cpu_millicores else harm_gauges.stall(app.service, sizes.stall_s)
        window_s = time.monotonic() - began_s
        cpu_ratio = (cpu_s(company.pid) - cpu_before_s) / window_s if company.pid else None
        took_s = company.end()
    return Turn(
        condition=condition,
        cpu_millicores=app.cpu_millicores,
        number=number,
        latency=latency,
        throughput=throughput,
        stall=stall,
        captures_per_s=len(took_s) / window_s if took_s else None,
        capture_s=statistics.median(took_s) if took_s else None,
        cpu_ratio=cpu_ratio,
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class _Company:
    """Who watches or captures: its process, if any, and what ends it and tells how long each capture took."""

    pid: int | None
    end: Callable[[], list[float]]


@contextlib.contextmanager
def _company(app: _App, ground: Ground, condition: Condition, sizes: Sizes) -> Iterator[_Company]:
    """Have a condition hold while a ``with`` block lasts."""
    if condition.watched:
        with sidecar_run.running(app.pod, ground.python, ground.settings) as run:
            run.wait_for("watching", lambda fields: bool(fields["pprof"]))
            time.sleep(sizes.settle_s)  # the profiles of calm times are taken meanwhile
            yield _Company(pid=run.pid, end=list)
    elif condition.way is not None and condition.interval_s is not None:
        with harm_gauges.capturing(
            app.pod, ground.python, app.service, way=condition.way, interval_s=condition.interval_s
        ) as capturing:
            yield _Company(pid=capturing.pid, end=capturing.end)
    else:
        yield _Company(pid=None, end=list)
