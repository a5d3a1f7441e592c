"""``oom-heap-dumper dump``: one dump of each program that answers, now, whatever the memory."""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Callable
from pathlib import Path

import click

from sidecar.capture import Dump
from sidecar.core.keys import NEWEST, DumpId, incident_id, pod_path
from sidecar.core.manifest import Incident, Place
from sidecar.core.model import Container, Process, Sample
from sidecar.core.printable import printable
from sidecar.core.quantities import format_bytes
from sidecar.core.trigger import Reason
from sidecar.errors import NotFoundError, OomHeapDumperError
from sidecar.heap_encoder import HeapEncoder
from sidecar.kernel import cgroup
from sidecar.kernel.cgroup import MemorySource
from sidecar.kernel.process_memory import ProcessMemory
from sidecar.kernel.processes import ProcessTable
from sidecar.options import watch_options
from sidecar.settings import Settings
from sidecar.spool import Spool
from sidecar.stores import location
from sidecar.uploader_process import REFUSED, UploaderProcess, encode_request
from sidecar.watch.captures import utc_now
from sidecar.watch.endpoints import Endpoints
from sidecar.watch.heaps import Heaps
from sidecar.watch.sources import Source, sources_of, take_heap, why_no_source

_PROC = Path("/proc")
_UPLOAD_DEADLINE_S = 60.0
_BUSY_PAUSE_S = 0.5


@click.command("dump")
@click.option("--container", "-c", help="Only this container.")
@watch_options
def command(settings: Settings, container: str | None) -> None:
    """Take a dump now, once, and store it; works beside a running watch.

    Exit code 0 if at least one heap profile was stored, 1 if none was.
    """
    spool = Spool(
        settings.spool.directory,
        settings.spool.size_bytes,
        pod_path(settings.identity.namespace, settings.identity.pod),
        on_drop=lambda dump_id, _: click.echo(f"the spool is full: dropped {dump_id}", err=True),
    )
    spool.prepare()
    taken = _take_all(settings, spool, container)
    _upload(settings, spool, taken)
    for dump in taken:
        click.echo(dump.key)


def _take_all(settings: Settings, spool: Spool, only: str | None) -> list[Dump]:
    table = ProcessTable(_PROC, pids=settings.targets.pids, container_name=settings.targets.container_name)
    containers = [container for container in table.scan() if only is None or container.name == only]
    if not containers:
        raise NotFoundError(
            f"no container is named {only!r}: see oom-heap-dumper check"
            if only
            else "no other container is visible: none runs yet, or the pod's spec lacks shareProcessNamespace: true"
        )
    endpoints = Endpoints(_PROC, settings.pprof)
    endpoints.refresh(tuple(containers), time.monotonic())
    heaps = Heaps(_PROC) if NEWEST in settings.pprof.profiles else None
    if heaps is not None:
        heaps.refresh(containers, time.monotonic())
    taken, problems = [], []
    try:
        for container in containers:
            sources = sources_of(container, heaps, endpoints)
            if not sources:
                problems.append(f"container {container.name}: {why_no_source(container, heaps, endpoints)}")
            for source in sources:
                try:
                    taken.append(_take(settings, spool, container, source, is_alive=table.is_alive))
                except OomHeapDumperError as error:
                    problems.append(f"container {container.name}: {error}")
    finally:
        endpoints.close()
        if heaps is not None:
            heaps.close()
    for problem in problems:
        click.echo(printable(problem), err=True)
    if not taken:
        raise NotFoundError("no heap profile was taken")
    return taken


def _take(
    settings: Settings, spool: Spool, container: Container, source: Source, *, is_alive: Callable[[Process], bool]
) -> Dump:
    memory = _memory_source(settings, container)
    try:
        sample = Sample(at_s=time.monotonic(), reading=memory.read())
    finally:
        memory.close()
    dump = Dump(
        spool=spool,
        place=Place(identity=settings.identity, store=location(settings.store), prefix=settings.store.prefix),
        dump_id=DumpId(
            at=utc_now(),
            container=container.name,
            pid=source.process.pid,
            incident=incident_id(os.urandom(8)),
            number=1,
        ),
        incident=Incident(
            container=container,
            reason=Reason.ON_DEMAND,
            policy=settings.trigger,
            sample=sample,
            history=[],
            memory_source=memory.description,
        ),
        subject=source.subject,
    )
    with contextlib.ExitStack() as held:
        executable = take_heap(dump, source, held, is_alive=is_alive)
        dump.draft()
        if source.answering is not None:
            if executable is not None:
                dump.take_plain(source.answering.client)
            dump.take_extras(settings.pprof.profiles, source.answering.client)
        if executable is not None:
            dump.encode_snapshot(HeapEncoder(), executable)
    dump.finish()
    click.echo(
        printable(f"container {container.name}: heap profile of {source.process.name}[{source.process.pid}], ")
        + format_bytes(dump.profiles[0].size_bytes),
        err=True,
    )
    return dump


def _memory_source(settings: Settings, container: Container) -> MemorySource:
    if not settings.targets.pids:
        try:
            return cgroup.open_cgroup(_PROC, container, settings.targets.limit_bytes)
        except OomHeapDumperError:
            pass  # the fallback tells less, and a dump is worth having all the same
    pids = [process.pid for process in container.processes]
    return ProcessMemory(_PROC, lambda: pids, settings.targets.limit_bytes)


def _upload(settings: Settings, spool: Spool, taken: list[Dump]) -> None:
    """Run the uploader until our dumps are stored; a running watch may be uploading them already."""
    deadline_s = time.monotonic() + _UPLOAD_DEADLINE_S
    failure = "the store didn't take it in time"
    while any(spool.holds(dump.dump_id) for dump in taken):
        with UploaderProcess(encode_request(spool.directory, settings.store)) as uploader:
            for report in uploader.reports():
                if report.get("event") == "upload-failed":
                    failure = ": ".join(filter(None, (report.get("error"), report.get("remedy"))))
        failed = time.monotonic() > deadline_s or uploader.exit_code in (1, REFUSED)
        if failed and any(spool.holds(dump.dump_id) for dump in taken):
            raise OomHeapDumperError(f"{failure}; the dump is kept in {spool.directory}")
        time.sleep(_BUSY_PAUSE_S if uploader.exit_code else 0)
