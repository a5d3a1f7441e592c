"""What captures and uploads cost in memory: the figures behind the sidecar's memory limit."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from benchmarks import service, sidecar_run
from benchmarks.gauges import PeakWatch, cgroup_charge, process_use
from benchmarks.ground import MEBIBYTE, Ground, say
from benchmarks.report import Table, mebibytes
from benchmarks.service import MANY_STACKS, Service
from benchmarks.sidecar_run import Fields, SidecarRun
from localpod.pod import LocalPod
from localpod.s3 import local_s3

_LIMIT_BYTES = 256 * MEBIBYTE
_HIGH_BYTES = _LIMIT_BYTES * 85 // 100
_LOW_BYTES = _LIMIT_BYTES // 10

# Each crossing is to be an incident of its own, and none is to be held back.
_SETTINGS = {"COOLDOWN": "100ms", "MAX_DUMPS_PER_HOUR": "100000"}


@dataclass(frozen=True, slots=True, kw_only=True)
class UploadCost:
    """Resident memory of the watch before and after ``captures`` dumps, and the most of everyone meanwhile."""

    store: str
    captures: int
    calm_rss_bytes: int
    after_rss_bytes: int
    watch_peak_rss_bytes: int
    uploader_peak_rss_bytes: int
    calm_charge_bytes: int
    peak_charge_bytes: int
    profile_samples: int


def measure(ground: Ground) -> list[UploadCost]:
    """Take dumps one after the other, into a directory and into S3."""
    found = [_measure(ground, "directory", {})]
    with local_s3() as store:
        found.append(_measure(ground, "S3", {**store.environment, "BUCKET": store.bucket, "S3_PATH_STYLE": "1"}))
    return found


def _measure(ground: Ground, store: str, settings: Mapping[str, str]) -> UploadCost:
    captures = ground.effort.captures
    say(f"uploads: {captures} dumps to the store {store}")
    with LocalPod() as pod:
        app = service.start(pod, ground.service, "app", memory_limit_bytes=_LIMIT_BYTES, stacks=MANY_STACKS)
        with sidecar_run.running(pod, ground.python, {**_SETTINGS, **settings, **ground.settings}) as run:
            run.wait_for("watching", lambda fields: bool(fields["pprof"]))
            time.sleep(ground.effort.settle_s)
            calm, calm_charge = process_use(run.pid), cgroup_charge(run.container.cgroup)
            with PeakWatch(run.container.cgroup, run.pid) as peaks:
                for _ in range(captures):
                    _capture(app, run)
            time.sleep(ground.effort.settle_s)
            after = process_use(run.pid)
            samples = run.events("captured")[-1].fields["profile_samples"]
            return UploadCost(
                store=store,
                captures=captures,
                calm_rss_bytes=calm.rss_bytes,
                after_rss_bytes=after.rss_bytes,
                watch_peak_rss_bytes=peaks.seen.watch_rss_bytes,
                uploader_peak_rss_bytes=peaks.seen.uploader_rss_bytes,
                calm_charge_bytes=calm_charge,
                peak_charge_bytes=peaks.seen.charge_bytes,
                profile_samples=int(str(samples)),
            )


def _capture(app: Service, run: SidecarRun) -> None:
    """One incident: over the threshold, until the dump is stored, and back."""
    before = run.mark()
    app.hold(_HIGH_BYTES)
    key = run.wait_for("captured", after=before).fields["key"]

    def is_this(fields: Fields) -> bool:
        return fields["key"] == key

    run.wait_for("stored", is_this, after=before)
    app.hold(_LOW_BYTES)
    run.wait_for("calm", after=before)


def table(found: Sequence[UploadCost]) -> Table:
    """The figures for people."""
    samples = max((one.profile_samples for one in found), default=0)
    return Table(
        title="Captures and uploads",
        notes=(
            f"Dumps one after the other of a program with {samples} heap stacks, each with every profile.",
            "The uploader is a process that lives while there is something to upload.",
            "The charge is of the watch, the uploader and the files being written, without inactive page cache.",
        ),
        columns=(
            "store",
            "dumps",
            "watch RSS before MiB",
            "after MiB",
            "watch peak MiB",
            "uploader peak MiB",
            "sum of peaks MiB",
            "charge before MiB",
            "peak charge MiB",
        ),
        rows=tuple(
            (
                one.store,
                str(one.captures),
                mebibytes(one.calm_rss_bytes),
                mebibytes(one.after_rss_bytes),
                mebibytes(one.watch_peak_rss_bytes),
                mebibytes(one.uploader_peak_rss_bytes),
                mebibytes(one.watch_peak_rss_bytes + one.uploader_peak_rss_bytes),
                mebibytes(one.calm_charge_bytes),
                mebibytes(one.peak_charge_bytes),
            )
            for one in found
        ),
    )
