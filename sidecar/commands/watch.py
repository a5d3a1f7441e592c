"""``oom-heap-dumper watch``: composes the resident process and owns its life from start to SIGTERM."""

from __future__ import annotations

import contextlib
import logging
import os
import signal
import threading
import time
from pathlib import Path

import click

from sidecar import __version__, logs
from sidecar.core.keys import DumpId, pod_path
from sidecar.core.manifest import Place
from sidecar.core.quantities import format_bytes, format_duration
from sidecar.errors import StartupError
from sidecar.guard import Guard, OomGroup
from sidecar.heap_encoder import HeapEncoder
from sidecar.options import watch_options
from sidecar.settings import Settings
from sidecar.spool import Spool
from sidecar.stores import location
from sidecar.watch.baselines import Baselines
from sidecar.watch.captures import Captures
from sidecar.watch.endings import Endings
from sidecar.watch.guards import Guards
from sidecar.watch.health import WRITE_INTERVAL_S, Status, write_status
from sidecar.watch.last_moments import LastMoments
from sidecar.watch.loop import Loop
from sidecar.watch.oom_groups import OomGroups
from sidecar.watch.scout import Scout
from sidecar.watch.uploads import Uploads
from sidecar.watch.wakeup import Wakeup
from sidecar.watch.workers import Workers

_PROC = Path("/proc")
_GUARD_JOURNAL = "guard"
_OOM_GROUP_JOURNAL = "oom-group"
_CAPTURE_SHARE = 0.4  # of the grace after SIGTERM; the rest is for uploads


@click.command("watch")
@watch_options
def command(settings: Settings) -> None:
    """Watch the other containers of the pod and save heap profiles before the OOM killer comes.

    Runs until SIGTERM or Ctrl-C; then uploads what is left for at most --upload-grace.
    """
    logs.start(settings.log)
    if os.getpid() == 1 and not settings.targets.pids:
        raise StartupError(
            "the other containers' processes aren't visible (we are PID 1): "
            "set shareProcessNamespace: true in the pod's spec"
        )
    _require_dump_dir(settings)
    spool = Spool(
        settings.spool.directory,
        settings.spool.size_bytes,
        pod_path(settings.identity.namespace, settings.identity.pod),
        on_drop=_report_drop,
    )
    left_over = spool.open()
    guard = Guard(settings.guard.policy, settings.guard.cgroups, settings.spool.directory / _GUARD_JOURNAL)
    guard.repair()
    oom_group = OomGroup(settings.guard.cgroups, settings.spool.directory / _OOM_GROUP_JOURNAL)
    oom_group.repair()
    wakeup = Wakeup()
    scout = Scout(_PROC, settings, wake_loop=wakeup.set)
    uploads = Uploads(spool, settings.store)
    place = Place(identity=settings.identity, store=location(settings.store), prefix=settings.store.prefix)
    workers = Workers()
    baselines = Baselines(settings.trigger, spool, workers)
    encoder = HeapEncoder()
    last_moments = LastMoments(spool, scout.sources, workers)
    captures = Captures(
        settings=settings,
        spool=spool,
        place=place,
        scout=scout,
        workers=workers,
        baselines=baselines,
        encoder=encoder,
        wake_loop=wakeup.set,
        wake_uploads=uploads.wake,
    )
    endings = Endings(
        spool=spool,
        place=place,
        workers=workers,
        baselines=baselines,
        last_moments=last_moments,
        encoder=encoder,
        is_alive=scout.is_alive,
        wake_uploads=uploads.wake,
    )
    loop = Loop(
        settings,
        scout=scout,
        captures=captures,
        endings=endings,
        last_moments=last_moments,
        guards=Guards(None if settings.guard.policy.mode == "off" else guard, workers),
        oom_groups=OomGroups(
            oom_group if settings.oom_group.mode == "process" else None, settings.oom_group.containers, workers
        ),
        baselines=baselines,
        wakeup=wakeup,
    )
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: loop.stop())
    _report_start(settings, left_over)
    scout.look()
    uploader = threading.Thread(target=uploads.run, daemon=True, name="uploads")
    for thread in (
        threading.Thread(target=scout.watch_containers, daemon=True, name="containers"),
        threading.Thread(target=scout.watch_ports, daemon=True, name="ports"),
        threading.Thread(target=scout.watch_heaps, daemon=True, name="heaps"),
        threading.Thread(
            target=_keep_status, args=(settings, scout, loop, captures, uploads), daemon=True, name="status"
        ),
        uploader,
    ):
        thread.start()
    try:
        loop.run()
        loop.close()
    finally:
        guard.close()
        oom_group.close()
    _shut_down(settings, guard=guard, spool=spool, scout=scout, captures=captures, uploads=uploads, uploader=uploader)


def _require_dump_dir(settings: Settings) -> None:
    """Without a bucket the dumps end in a directory: better to hear now than at the kill that it can't be written."""
    directory = settings.store.directory
    if settings.store.bucket:
        return
    try:
        directory.mkdir(parents=True, exist_ok=True)
        writable = os.access(directory, os.W_OK | os.X_OK)
    except OSError:
        writable = False
    if not writable:
        raise StartupError(
            f"no BUCKET is set and the directory {directory} can't be written: set BUCKET, or DUMP_DIR to a directory "
            "that our user may write"
        )


def _report_start(settings: Settings, left_over: int) -> None:
    kept = " (no BUCKET is set, dumps stay local)" if not settings.store.bucket else ""
    where = location(settings.store)
    logs.event(
        logging.INFO,
        "started",
        f"oom-heap-dumper {__version__}: dumps at {settings.trigger.critical_ratio:.0%} of a container's memory limit "
        f"({settings.trigger.metric}), sampled every {format_duration(settings.interval_s)}; "
        f"dumps of {settings.identity.namespace}/{settings.identity.pod} go to {where}{kept}",
        version=__version__,
        critical_percent=settings.trigger.critical_ratio * 100,
        interval_s=settings.interval_s,
        cooldown_s=settings.trigger.cooldown_s,
        store=where,
        spool=str(settings.spool.directory),
        spool_size_bytes=settings.spool.size_bytes,
        namespace=settings.identity.namespace,
        pod=settings.identity.pod,
    )
    if left_over:
        logs.event(
            logging.INFO, "recovered", f"{left_over} files of an earlier run are left to upload", files=left_over
        )


def _report_drop(dump_id: DumpId, size_bytes: int) -> None:
    logs.event(
        logging.ERROR,
        "dump-dropped",
        f"the spool is full: dropped {dump_id} ({format_bytes(size_bytes)}) for a newer one; "
        "raise SPOOL_SIZE or see why uploads fail",
        dump_id=str(dump_id),
        size_bytes=size_bytes,
    )


def _keep_status(settings: Settings, scout: Scout, loop: Loop, captures: Captures, uploads: Uploads) -> None:
    while True:
        with contextlib.suppress(OSError):  # a full disk is told by whoever needs it
            write_status(
                settings.spool.directory,
                Status(
                    last_ok_s=loop.last_ok_s,
                    interval_s=settings.interval_s,
                    containers=loop.targets,
                    samples=loop.samples,
                    read_errors=loop.read_errors,
                    process_faults=scout.faults,
                    dumps=captures.taken,
                    failed_captures=captures.failed,
                    uploaded_files=uploads.uploaded,
                    consecutive_upload_errors=uploads.consecutive_errors,
                ),
            )
        time.sleep(WRITE_INTERVAL_S)


def _shut_down(
    settings: Settings,
    *,
    guard: Guard,
    spool: Spool,
    scout: Scout,
    captures: Captures,
    uploads: Uploads,
    uploader: threading.Thread,
) -> None:
    ends_s = time.monotonic() + settings.upload_grace_s
    logs.event(logging.INFO, "stopping", f"stopping; up to {format_duration(settings.upload_grace_s)} for uploads")
    captures.stop(settings.upload_grace_s * _CAPTURE_SHARE)
    scout.stop()
    spool.seal_all()
    left = uploads.stop(uploader, max(0.0, ends_s - time.monotonic()))
    guard.repair()  # what could not be undone a moment ago because more was in use
    spool.close()
    if left:
        logs.event(
            logging.WARNING,
            "stopped",
            f"stopped; {left} files stay in {settings.spool.directory} for the next start",
            files_left=left,
        )
    else:
        logs.event(logging.INFO, "stopped", "stopped; everything captured is stored", files_left=0)
