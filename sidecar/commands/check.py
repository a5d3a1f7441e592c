"""``oom-heap-dumper check``: what would be watched, what is missing, and the lines that mend it."""

from __future__ import annotations

import contextlib
import json
import time
from dataclasses import asdict, dataclass
from pathlib import Path

import click

from sidecar.core.keys import NEWEST, join_key, pod_path
from sidecar.core.model import Container, Reading
from sidecar.core.outcome import oom_kill_takes
from sidecar.core.printable import printable
from sidecar.core.quantities import format_bytes
from sidecar.core.trigger import threshold_bytes
from sidecar.errors import NotPermittedError, OomHeapDumperError, StoreError
from sidecar.guard import Guard, OomGroup
from sidecar.kernel import cgroup, rights
from sidecar.kernel.process_memory import ProcessMemory
from sidecar.kernel.processes import ProcessTable
from sidecar.kernel.rights import Credentials, Right
from sidecar.options import watch_options
from sidecar.settings import Settings
from sidecar.stores import open_store
from sidecar.watch.endpoints import Endpoints
from sidecar.watch.heaps import Heaps
from sidecar.watch.sources import sources_of, why_no_source

_PROC = Path("/proc")
_PROBE_NAME = ".write-probe"
_WITHOUT_MEMORY = "dumps have only what the program publishes, as of its last collection"


@dataclass(frozen=True, slots=True, kw_only=True)
class _Finding:
    """What was found of one container; ``problems`` end the check with exit code 1."""

    name: str
    processes: list[str]
    memory_source: str | None
    usage_bytes: int | None
    working_set_bytes: int | None
    limit_bytes: int | None
    threshold_bytes: int | None
    oom_kill_takes: str
    heap_from_memory: list[str]
    pprof: list[str]
    rights: dict[str, bool]
    problems: list[str]
    remedy: list[str]


@click.command("check")
@click.option("--output", "-o", type=click.Choice(["text", "json"]), default="text", show_default=True)
@click.option("--skip-store", is_flag=True, help="Don't try to write to the store.")
@watch_options
def command(settings: Settings, output: str, *, skip_store: bool) -> None:
    """Show what would be watched, at what threshold, which port answers, and which rights are missing.

    Exit code 0 if all is well, 1 if something would keep a dump from being taken or stored.
    """
    findings, general = _find(settings), []
    if not findings:
        general.append(
            "no other container is visible: none runs yet, or the pod's spec lacks shareProcessNamespace: true"
        )
    general += [
        f"OOM_GROUP_CONTAINERS names {name!r}, but no container is named so"
        for name in settings.oom_group.containers
        if findings and name not in {finding.name for finding in findings}
    ]
    store = None if skip_store else _probe_store(settings)
    if store:
        general.append(store)
    ok = not general and not any(finding.problems for finding in findings)
    if output == "json":
        document = {"ok": ok, "containers": [asdict(finding) for finding in findings], "problems": general}
        click.echo(json.dumps(document, indent=2))
    else:
        for finding in findings:
            _print(finding)
        if not skip_store:
            click.echo(f"store      {'FAILED' if store else 'ok'}: {open_store(settings.store).location}")
        for problem in general:
            click.echo(f"PROBLEM    {printable(problem)}")
        click.echo("all is well" if ok else "something is missing, see PROBLEM above")
    if not ok:
        raise SystemExit(1)


def _find(settings: Settings) -> list[_Finding]:
    table = ProcessTable(_PROC, pids=settings.targets.pids, container_name=settings.targets.container_name)
    containers = table.scan()
    endpoints = Endpoints(_PROC, settings.pprof)
    endpoints.refresh(containers, time.monotonic())
    heaps = Heaps(_PROC) if NEWEST in settings.pprof.profiles else None
    if heaps is not None:
        heaps.refresh(containers, time.monotonic())
    seen = {container.key: _credentials_of(container) for container in containers}
    try:
        return [_examine(settings, endpoints, heaps, container, seen) for container in containers]
    finally:
        endpoints.close()
        if heaps is not None:
            heaps.close()


def _examine(
    settings: Settings,
    endpoints: Endpoints,
    heaps: Heaps | None,
    container: Container,
    credentials: dict[str, list[Credentials]],
) -> _Finding:
    problems: list[str] = []
    source, reading = _read(settings, container, problems)
    limit = reading.limit_bytes if reading else settings.targets.limit_bytes
    if limit is None:
        problems.append("no memory limit, so nothing will fire: give the container one or set MEMORY_LIMIT")
    sources = sources_of(container, heaps, endpoints)
    unreadable = heaps.why_none(container) if heaps is not None else None
    found = rights.probe_rights(_PROC, container)
    if heaps is not None:
        found += (Right(name=rights.MEMORY, granted=not heaps.is_refused(container), without_it=_WITHOUT_MEMORY),)
    missing = [right for right in found if not right.granted]
    if settings.guard.policy.mode != "off" and (unguarded := _why_unguarded(settings, container)):
        problems.append(f"it can't be guarded, so a fast leak may outrun the snapshot: {unguarded}")
    if reading is None or reading.oom_group is not False:  # one that is off needs no right
        problems += _why_group_stays(settings, container)
    if not sources and not endpoints.is_without_go(container):
        problems.append(f"no heap profile: {why_no_source(container, heaps, endpoints)}")
    elif unreadable is not None and not (heaps and heaps.is_refused(container)):
        problems.append(f"its heap can't be read from its memory, {_WITHOUT_MEMORY}: {unreadable}")
    problems += [_lacking(right) for right in missing]
    return _Finding(
        name=container.name,
        processes=[f"{process.name}[{process.pid}]" for process in container.processes],
        memory_source=source,
        usage_bytes=reading.usage_bytes if reading else None,
        working_set_bytes=reading.working_set_bytes if reading else None,
        limit_bytes=limit,
        threshold_bytes=threshold_bytes(settings.trigger, limit) if limit else None,
        oom_kill_takes=oom_kill_takes(reading.oom_group if reading else None),
        heap_from_memory=[
            f"{source.process.name}[{source.process.pid}] ({source.heap.known_buckets} stacks)"
            for source in sources
            if source.heap
        ],
        pprof=[
            f"{source.answering.client.url} ({source.process.name}[{source.process.pid}])"
            for source in sources
            if source.answering
        ],
        rights={right.name: right.granted for right in found},
        problems=problems,
        remedy=_remedy([right.name for right in missing], container, credentials),
    )


def _credentials_of(container: Container) -> list[Credentials]:
    found = (rights.read_credentials(_PROC, process.pid) for process in container.processes)
    return list(dict.fromkeys(filter(None, found)))


def _remedy(missing: list[str], container: Container, credentials: dict[str, list[Credentials]]) -> list[str]:
    """Lines that grant what is missing here and take nothing away elsewhere in the pod."""
    targets, own = credentials[container.key], rights.read_credentials(_PROC, "self")
    if not missing or not targets or own is None:
        return []
    others = [one for key, found in credentials.items() if key != container.key for one in found]
    scope = rights.read_ptrace_scope(_PROC)
    return list(rights.granting_lines(missing, targets, own, others=others, ptrace_scope=scope))


def _read(settings: Settings, container: Container, problems: list[str]) -> tuple[str | None, Reading | None]:
    """As the watch would; that the cgroup isn't ours to read is among the rights."""
    limit_bytes = settings.targets.limit_bytes
    try:
        if not settings.targets.pids:
            with contextlib.suppress(NotPermittedError):
                memory = cgroup.open_cgroup(_PROC, container, limit_bytes)
                try:
                    return f"{memory.description}, {memory.directory}", memory.read()
                finally:
                    memory.close()
        pids = settings.targets.pids or tuple(process.pid for process in container.processes)
        source = ProcessMemory(_PROC, lambda: pids, limit_bytes)
        return source.description, source.read()
    except OomHeapDumperError as error:
        problems.append(str(error))
        return None, None


def _why_unguarded(settings: Settings, container: Container) -> str | None:
    guard = Guard(settings.guard.policy, settings.guard.cgroups, settings.spool.directory)
    try:
        memory = cgroup.open_cgroup(_PROC, container)
        try:
            guard.probe(memory)
        finally:
            memory.close()
    except OomHeapDumperError as error:
        return str(error)
    return None


def _why_group_stays(settings: Settings, container: Container) -> list[str]:
    chosen = settings.oom_group.containers
    if settings.oom_group.mode != "process" or (chosen and container.name not in chosen):
        return []
    try:
        memory = cgroup.open_cgroup(_PROC, container)
        try:
            OomGroup(settings.guard.cgroups, settings.spool.directory).probe(memory)
        finally:
            memory.close()
    except OomHeapDumperError as error:
        return [f"memory.oom.group can't be kept off, so an OOM kill takes the whole container: {error}"]
    return []


def _lacking(right: Right) -> str:
    return f"its {right.name} can't be seen: {right.without_it}"


def _probe_store(settings: Settings) -> str | None:
    key = join_key(settings.store.prefix, pod_path(settings.identity.namespace, settings.identity.pod), _PROBE_NAME)
    try:
        open_store(settings.store).probe(key)
    except StoreError as error:
        return f"the store can't be written: {error}" + (f": {error.remedy}" if error.remedy else "")
    return None


def _print(finding: _Finding) -> None:
    def row(label: str, text: str) -> None:
        click.echo(f"{label:<10} {printable(text)}")

    shown = finding.processes[:5] + ([f"and {len(finding.processes) - 5} more"] if len(finding.processes) > 5 else [])
    row("container", f"{finding.name}: {', '.join(shown)}")
    if finding.working_set_bytes is not None and finding.usage_bytes is not None:
        limit = f" of {format_bytes(finding.limit_bytes)}" if finding.limit_bytes else ", no limit"
        row("memory", f"working set {format_bytes(finding.working_set_bytes)}{limit} ({finding.memory_source})")
    if finding.threshold_bytes:
        row("threshold", f"{format_bytes(finding.threshold_bytes)}")
    row("OOM kill", f"takes: {finding.oom_kill_takes}")
    row(
        "heap",
        f"from the memory of {', '.join(finding.heap_from_memory)}" if finding.heap_from_memory else "by pprof only",
    )
    row("pprof", ", ".join(finding.pprof) or "none")
    row("rights", ", ".join(f"{name} {'yes' if granted else 'NO'}" for name, granted in finding.rights.items()))
    for problem in finding.problems:
        row("PROBLEM", problem)
    if finding.remedy:
        row("remedy", "in the sidecar's container:")
        for line in finding.remedy:
            click.echo(f"             {line}")
    click.echo()
