"""From the moment a leak crosses the threshold until its heap profile is safe in the spool, with the kill behind it."""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from benchmarks import service, sidecar_run
from benchmarks.errors import BenchmarkError
from benchmarks.ground import MEBIBYTE, Ground, say
from benchmarks.report import NOTHING, Table, spread
from benchmarks.service import MANY_STACKS
from benchmarks.sidecar_run import Event, Fields, SidecarRun
from benchmarks.startup import quota_name
from localpod.cgroups import Cgroup
from localpod.pod import LocalContainer, LocalPod

_LIMIT_BYTES = 128 * MEBIBYTE
_THRESHOLD_BYTES = _LIMIT_BYTES * 80 // 100
_CALM_BYTES = _LIMIT_BYTES * 60 // 100
_LEAK_BYTES_PER_S = 50 * MEBIBYTE
_INTERVAL_S = 0.1
_POLL_S = 0.001
_KILL_WITHIN_S = 60.0

# The leak is anonymous memory, so that both metrics mean the same; this one can be read a thousand times a second.
# The log tells at the debug level which process answers pprof.
_SETTINGS = {
    "METRIC": "usage",
    "MAX_DUMPS_PER_HOUR": "100000",  # here one container dies again and again
    "CRITICAL": "80",
    "WATCH_TIME": f"{_INTERVAL_S * 1000:.0f}ms",
    "LOG_LEVEL": "debug",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Condition:
    """What the app has to work with, and whether it burns all of that beside the leak."""

    cpu_millicores: int | None
    busy: bool


_CONDITIONS = (Condition(cpu_millicores=None, busy=False), Condition(cpu_millicores=250, busy=True))


@dataclass(frozen=True, slots=True, kw_only=True)
class Saved:
    """A profile that was safe before the kill. Times run from the crossing.

    ``sampled_s`` is when the sidecar saw it, ``safe_s`` when the profile was synced to the disk.
    """

    sampled_s: float
    safe_s: float
    profile_samples: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Leak:
    """One leak until its kill, ``killed_s`` after the crossing."""

    condition: Condition
    killed_s: float
    saved: Saved | None


def measure(ground: Ground) -> list[Leak]:
    """Let one leak after the other run into its limit, watched by one sidecar."""
    found: list[Leak] = []
    with LocalPod() as pod, sidecar_run.running(pod, ground.python, {**_SETTINGS, **ground.settings}) as run:
        for condition in _CONDITIONS:
            say(f"latency: {ground.effort.leaks} leaks, {_describe(condition)}")
            for number in range(ground.effort.leaks):
                # The sidecar's own events time us: even phases keep the crossings from falling between the same ticks.
                phase_s = _INTERVAL_S * number / ground.effort.leaks
                found.append(_measure(pod, ground, run, condition, phase_s))
    return found


def _measure(pod: LocalPod, ground: Ground, run: SidecarRun, condition: Condition, phase_s: float) -> Leak:
    before = run.mark()
    app = service.start(
        pod,
        ground.service,
        "app",
        memory_limit_bytes=_LIMIT_BYTES,
        cpu_millicores=condition.cpu_millicores,
        stacks=MANY_STACKS,
        busy=condition.busy,
    )

    def is_this(fields: Fields) -> bool:
        return fields.get("pid") == app.pod_pid

    # A process that was met before it had joined its cgroup is watched without a threshold for some seconds first.
    run.wait_for("watching", lambda fields: is_this(fields) and fields["threshold_bytes"] is not None, after=before)
    run.wait_for("pprof-found", is_this, after=before)
    app.hold(_CALM_BYTES)
    time.sleep(phase_s)
    app.leak(_LEAK_BYTES_PER_S)
    killing = run.mark()
    crossed_at_s, killed_at_s = _follow(app.container)
    app.container.remove()
    run.wait_for("container-ended", is_this, after=killing)
    captured = [event for event in run.events("captured", after=before) if is_this(event.fields)]
    in_time = [event for event in captured if event.at_s <= killed_at_s]
    if not in_time:
        say(f"latency: a leak was killed without a profile; {run.story(before)}")
    return Leak(
        condition=condition,
        killed_s=killed_at_s - crossed_at_s,
        saved=_saved(in_time[0], crossed_at_s) if in_time else None,
    )


def _follow(container: LocalContainer) -> tuple[float, float]:
    """Wall clock of the crossing and of the kill, each to a millisecond or so."""
    deadline_s = time.monotonic() + _KILL_WITHIN_S
    crossed_at_s = None
    with _usage(container.cgroup) as usage_fd:
        while container.is_running:
            if crossed_at_s is None and int(os.pread(usage_fd, 32, 0)) >= _THRESHOLD_BYTES:
                crossed_at_s = time.time()
            if time.monotonic() > deadline_s:
                raise BenchmarkError(f"the leak wasn't killed within {_KILL_WITHIN_S:g} s")
            time.sleep(_POLL_S)
    if crossed_at_s is None:
        raise BenchmarkError("the leak ended before it crossed the threshold")
    return crossed_at_s, time.time()


@contextlib.contextmanager
def _usage(cgroup: Cgroup) -> Iterator[int]:
    name = "memory.current" if cgroup.version == 2 else "memory.usage_in_bytes"
    fd = os.open(cgroup.memory / name, os.O_RDONLY | os.O_CLOEXEC)
    try:
        yield fd
    finally:
        os.close(fd)


def _saved(captured: Event, crossed_at_s: float) -> Saved:
    safe_s = captured.at_s - crossed_at_s
    return Saved(
        sampled_s=max(0.0, safe_s - float(str(captured.fields["latency_s"]))),  # the log cuts to milliseconds
        safe_s=safe_s,
        profile_samples=int(str(captured.fields["profile_samples"])),
    )


def _describe(condition: Condition) -> str:
    return f"CPU quota {quota_name(condition.cpu_millicores)}{', busy' if condition.busy else ''}"


def table(found: Sequence[Leak]) -> Table:
    """The figures for people."""
    rows = []
    for condition in dict.fromkeys(one.condition for one in found):
        leaks = [one for one in found if one.condition == condition]
        saved = [one.saved for one in leaks if one.saved is not None]
        rows.append(
            (
                _describe(condition),
                f"{len(saved)} of {len(leaks)}",
                spread([one.sampled_s for one in saved], scale=1000),
                spread([one.safe_s - one.sampled_s for one in saved], scale=1000),
                spread([one.safe_s for one in saved], scale=1000),
                spread([one.killed_s for one in leaks], scale=1000),
            )
        )
    stacks = max((one.saved.profile_samples for one in found if one.saved), default=0) or NOTHING
    rate, limit = _LEAK_BYTES_PER_S // MEBIBYTE, _LIMIT_BYTES // MEBIBYTE
    return Table(
        title="From the threshold to a safe heap profile",
        notes=(
            f"Leaks of {rate} MiB/s into a limit of {limit} MiB, threshold 80 %, sampled each 100 ms; {stacks} stacks.",
            "Milliseconds, median / p90 / most, of the leaks whose profile was safe before the kill.",
            "The crossing is seen by reading the cgroup once a millisecond; safe is written, synced and named.",
        ),
        columns=(
            "app",
            "saved before the kill",
            "crossing to sample ms",
            "sample to safe ms",
            "crossing to safe ms",
            "crossing to kill ms",
        ),
        rows=tuple(rows),
    )
