"""The JSON that lies beside each dump and tells what happened. Pure."""

from __future__ import annotations

import json
import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Protocol

from sidecar import __version__
from sidecar.core import keys
from sidecar.core.keys import DumpId
from sidecar.core.model import Container, GoProgram, Identity, Process, ProfileFile, Sample
from sidecar.core.outcome import Outcome, oom_kill_takes
from sidecar.core.roll_call import Resident
from sidecar.core.trigger import Reason, TriggerPolicy, threshold_bytes
from sidecar.core.verdict import judge

SCHEMA = "oom-heap-dumper/manifest/v1"
OUTCOME_SCHEMA = "oom-heap-dumper/outcome/v1"

_ROWS_MARK = "\0rows"  # no string of a document can be this one: names from the kernel end at NUL

# Of the processes that are gone after a kill; the count tells of the rest.
_MOST_GONE = 16

HistoryRow = tuple[float, int, int, int | None]


class NamedProfile(Protocol):
    """A profile as far as its opening needs it."""

    @property
    def name(self) -> str:
        """Its file name."""
        ...

    @property
    def kind(self) -> str:
        """Its kind, such as ``heap``."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Place:
    """Where a dump comes from and where it goes. ``store`` is what a person calls the store."""

    identity: Identity
    store: str
    prefix: str

    def key(self, dump_id: DumpId, name: str = "") -> str:
        """Key of a dump, or of a file in it."""
        pod = keys.pod_path(self.identity.namespace, self.identity.pod)
        return keys.join_key(self.prefix, pod, str(dump_id), name)


@dataclass(frozen=True, slots=True, kw_only=True)
class Incident:
    """The moment a dump was asked for: why, by what rule, and what the container's memory did before."""

    container: Container
    reason: Reason
    policy: TriggerPolicy
    sample: Sample
    history: list[HistoryRow]
    memory_source: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Subject:
    """The process that was dumped, as far as the kernel let us see it."""

    process: Process
    ports: tuple[int, ...]
    program: GoProgram | None
    go_environment: dict[str, str] | None


def manifest(
    *,
    place: Place,
    dump_id: DumpId,
    incident: Incident,
    subject: Subject,
    profiles: tuple[ProfileFile, ...],
    problems: tuple[str, ...],
    guard: dict[str, object] | None,
    complete: bool,
) -> dict[str, Any]:
    """Everything an engineer may ask of a dump. ``problems`` say which profiles are missing and why.

    ``guard`` tells what was done to hold the OOM killer off; None where the settings don't allow it.

    ``complete`` is false in a draft; a dump that was cut short by a crash is stored with it. The ``verdict`` needs
    what the collector said, so that a draft's is mostly unknown.
    """
    reading, policy = incident.sample.reading, incident.policy
    limit = reading.limit_bytes
    return {
        "schema": SCHEMA,
        "version": __version__,
        "dump_id": str(dump_id),
        "time": iso_time(dump_id.at),
        "complete": complete,
        "verdict": judge(reading, _collector(profiles), missing=_why_no_collector(profiles)).document(),
        "incident": {"id": dump_id.incident, "number": dump_id.number},
        "trigger": {
            "reason": incident.reason,
            "metric": policy.metric,
            "value_bytes": incident.sample.metric_bytes(policy.metric),
            "critical_percent": round(policy.critical_ratio * 100, 3),
            "threshold_bytes": threshold_bytes(policy, limit) if limit else None,
        },
        "memory": {
            "source": incident.memory_source,
            "limit_bytes": limit,
            "usage_bytes": reading.usage_bytes,
            "working_set_bytes": reading.working_set_bytes,
            "oom_kills": reading.oom_kills,
            "oom_group": oom_kill_takes(reading.oom_group),
        },
        "samples": {
            "columns": ["seconds", "usage_bytes", "working_set_bytes", "limit_bytes"],
            "rows": incident.history,
        },
        **_origin(place.identity, incident.container.name),
        "process": {
            "pid": subject.process.pid,
            "started": _epoch_iso(subject.process.created_at_s),
            "name": subject.process.name,
            "uid": subject.process.uid,
            "pprof_ports": subject.ports,
            "go_version": subject.program.go_version if subject.program else None,
            "go_build_id": subject.program.build_id if subject.program else None,
            "environment": subject.go_environment,
        },
        "profiles": [
            {
                "name": profile.name,
                "kind": profile.kind,
                "source": "memory" if profile.port is None else "http",
                "port": profile.port,
                "size_bytes": profile.size_bytes,
                "sha256": profile.sha256,
                "samples": profile.samples,
                "taken_at": profile.taken_at,
                "duration_s": profile.duration_s,
                "incomplete": profile.incomplete,
                "gc": profile.gc,
            }
            for profile in profiles
        ],
        "problems": problems,
        "guard": guard,
        "store": place.store,
        "keys": {name: place.key(dump_id, name) for name in (*(p.name for p in profiles), keys.MANIFEST_NAME)},
        "open": [f"oom-heap-dumper get {shlex.quote(place.key(dump_id))}", *pprof_commands(profiles, str(dump_id))],
    }


def _collector(profiles: Sequence[ProfileFile]) -> Mapping[str, int | None] | None:
    """What the collector said beside the heap that was read from the program's memory."""
    return next((profile.gc for profile in profiles if profile.gc is not None), None)


def _why_no_collector(profiles: Sequence[ProfileFile]) -> str:
    newest = next((profile for profile in profiles if profile.kind == keys.NEWEST), None)
    if newest is None:
        return "the program's memory wasn't read, see the problems"
    if newest.name == keys.RAW_NAME:
        return "no profile was made of the snapshot yet"
    return "what Go's collector keeps isn't known for this program"


def iso_time(at: datetime) -> str:
    """A UTC time as the manifest spells it."""
    return at.isoformat(timespec="milliseconds").replace("+00:00", "Z")


def pprof_commands(profiles: Sequence[NamedProfile], folder: str) -> list[str]:
    """The command lines that open a dump that lies in ``folder``."""
    best = {profile.kind: f"{folder}/{profile.name}" for profile in reversed(profiles)}
    commands = []
    if best.get("heap-newest", "").endswith(".raw"):
        commands.append(f"oom-heap-dumper encode {shlex.quote(best.pop('heap-newest'))} THE-PROGRAM")
    heap = best.get("heap-newest") or best.get("heap") or best.get("heap-gc")
    if heap is None:
        return commands
    commands += [f"go tool pprof -top {shlex.quote(heap)}", f"go tool pprof -http=: {shlex.quote(heap)}"]
    if "heap-baseline" in best:
        commands.append(f"go tool pprof -diff_base={shlex.quote(best['heap-baseline'])} -top {shlex.quote(heap)}")
    return commands


def outcome(
    *,
    place: Place,
    dump_id: DumpId,
    at: datetime,
    container: Container,
    result: Outcome,
    last: Sample | None,
    history: list[HistoryRow],
    why_no_dump: str | None,
    gone: tuple[Resident, ...],
) -> dict[str, Any]:
    """The last word on a container. ``why_no_dump`` is set where it ended without one.

    ``gone`` are the processes that a kill left no trace of, the largest first.
    """
    reading = last.reading if last else None
    return {
        "schema": OUTCOME_SCHEMA,
        "version": __version__,
        "dump_id": str(dump_id),
        "time": iso_time(at),
        "ending": result.ending,
        "counted": result.counted,
        "seen": result.seen,
        "why_no_dump": why_no_dump,
        **_origin(place.identity, container.name),
        "process": {"pid": container.main.pid, "name": container.main.name},
        "memory": reading
        and {
            "limit_bytes": reading.limit_bytes,
            "usage_bytes": reading.usage_bytes,
            "working_set_bytes": reading.working_set_bytes,
            "oom_kills": reading.oom_kills,
            "oom_group": oom_kill_takes(reading.oom_group),
        },
        "gone": {
            "count": len(gone),
            "largest_first": [
                {"pid": one.pid, "name": one.name, "rss_bytes": one.rss_bytes} for one in gone[:_MOST_GONE]
            ],
        },
        "samples": {"columns": ["seconds", "usage_bytes", "working_set_bytes", "limit_bytes"], "rows": history},
    }


def encode(document: dict[str, Any]) -> bytes:
    """As JSON for people and machines: ASCII, so that hostile names stay harmless in a terminal; a sample a line."""
    samples = document.get("samples")
    if not samples:
        return (json.dumps(document, indent=1) + "\n").encode()
    text = json.dumps({**document, "samples": {**samples, "rows": _ROWS_MARK}}, indent=1)
    rows = ",\n   ".join(json.dumps(row) for row in samples["rows"])
    return (text.replace(json.dumps(_ROWS_MARK), f"[\n   {rows}\n  ]") + "\n").encode()


def _origin(identity: Identity, container: str) -> dict[str, Any]:
    return {
        "cluster": identity.cluster,
        "namespace": identity.namespace,
        "pod": identity.pod,
        "container": container,
        "node": identity.node,
        "image": identity.image,
    }


def _epoch_iso(seconds: float) -> str:
    return iso_time(datetime.fromtimestamp(seconds, tz=UTC))
