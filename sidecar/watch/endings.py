"""What is written when a container or one of its processes ended: what was in hand, and how it ended."""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import dataclass

from sidecar import logs
from sidecar.capture import PATIENCE_S, Dump
from sidecar.core import manifest
from sidecar.core.keys import DumpId
from sidecar.core.manifest import HistoryRow, Incident, Place
from sidecar.core.model import Container, Process, Sample
from sidecar.core.outcome import Ending, Outcome
from sidecar.core.quantities import format_bytes
from sidecar.core.roll_call import Resident
from sidecar.errors import OomHeapDumperError, SpoolError
from sidecar.heap_encoder import HeapEncoder
from sidecar.spool import Spool
from sidecar.watch.baselines import Baselines
from sidecar.watch.last_moments import LastMoments
from sidecar.watch.life import InHand, Life
from sidecar.watch.workers import Workers

_DUMP_WAIT_S = 15.0


@dataclass(frozen=True, slots=True, kw_only=True)
class End:
    """An end as the loop saw it, at ``at_s`` on its clock; ``stores_last`` if what was in hand is worth a dump.

    ``incident_of`` makes the incident of a dump out of the sample that it shows. The dump gets the id ``incident`` and
    the number ``number``; where none is made the outcome stands alone, in the folder ``fallback``. ``gone`` are the
    processes that vanished with a kill, the largest first.
    """

    life: Life
    container: Container
    outcome: Outcome
    stores_last: bool
    at_s: float
    last: Sample | None
    gone: tuple[Resident, ...]
    history: list[HistoryRow]
    incident_of: Callable[[Sample], Incident]
    incident: str
    number: int
    fallback: DumpId


class Endings:
    """Writes the last word on each container, beside the loop."""

    def __init__(
        self,
        *,
        spool: Spool,
        place: Place,
        workers: Workers,
        baselines: Baselines,
        last_moments: LastMoments,
        encoder: HeapEncoder,
        is_alive: Callable[[Process], bool],
        wake_uploads: Callable[[], None],
    ) -> None:
        self._spool = spool
        self._place = place
        self._workers = workers
        self._baselines = baselines
        self._last_moments = last_moments
        self._encoder = encoder
        self._is_alive = is_alive
        self._wake_uploads = wake_uploads

    def record(self, end: End) -> None:
        """Make a dump of what was in hand, if this was a kill; then write the outcome beside the last dump there is."""
        self._workers.run(lambda: self._record(end))

    def _record(self, end: End) -> None:
        """All snapshots are safe before anything is made of them: that takes seconds, and we may be ended meanwhile."""
        problems = []
        if not end.life.idle.wait(_DUMP_WAIT_S):  # a dump may be on its last yards
            problems.append("a dump was being taken and didn't come to an end")
        lives_on = end.outcome.ending is Ending.PROCESS_OOM_KILLED
        in_hand = self._last_moments.take(
            end.life, end.at_s, lambda process: not lives_on or not self._is_alive(process), all_of_it=not lives_on
        )
        dumps: list[tuple[InHand, Dump]] = []
        try:
            for one in in_hand if end.stores_last else ():
                try:
                    dumps.append((one, self._keep(end, one)))
                except OomHeapDumperError as error:
                    problems.append(str(error))
                except Exception as error:  # noqa: BLE001 -- it must not cost the others
                    problems.append(f"{type(error).__name__}: {error}")
                    logs.fault("last-moment-crashed", "what was in hand can't be kept")
            is_told = self._tries_outcome(end, problems)
            self._wake_uploads()
            for one, dump in reversed(dumps):  # the newest tells most
                self._finish(one, dump)
                self._wake_uploads()
            if not is_told:
                self._write_outcome(end, problems, PATIENCE_S)
        finally:
            for one in in_hand:
                one.let_go()
            self._wake_uploads()

    def _keep(self, end: End, one: InHand) -> Dump:
        """The dump of the last moment, safe but not readable yet."""
        dump = Dump(
            spool=self._spool,
            place=self._place,
            dump_id=DumpId(
                at=one.at,
                container=end.container.name,
                pid=one.process.pid,
                incident=end.incident,
                number=end.number,
            ),
            incident=end.incident_of(one.sample),
            subject=one.subject,
            guard=end.life.guard_record,
        )
        dump.adopt_snapshot(one.path, one.samples)
        end.life.last_dump = dump.dump_id
        _report(end, one, dump.key)
        baseline = self._baselines.of(one.process)
        if baseline is not None:
            dump.add_baseline(baseline)
        dump.draft()
        return dump

    def _finish(self, one: InHand, dump: Dump) -> None:
        try:
            try:
                dump.encode_snapshot(self._encoder, one.executable)
            finally:
                dump.finish()
        except OomHeapDumperError as error:
            logs.event(logging.WARNING, "capture-error", str(error))
        except Exception:  # noqa: BLE001 -- it must not cost the others
            logs.fault("last-moment-crashed", "what was in hand can't be made readable")

    def _tries_outcome(self, end: End, problems: list[str]) -> bool:
        """Whether it could be written at once; on a full disk it may not."""
        try:
            self._write_outcome(end, problems, 0.0)
        except SpoolError:
            return False
        return True

    def _write_outcome(self, end: End, problems: list[str], patience_s: float) -> None:
        life = end.life
        why_no_dump = "; ".join(filter(None, (life.why_no_dump, *problems))) or "no sample was above the threshold"
        dump_id = life.last_dump or end.fallback
        document = manifest.outcome(
            place=self._place,
            dump_id=dump_id,
            at=end.fallback.at,
            container=end.container,
            result=end.outcome,
            last=end.last,
            history=end.history,
            why_no_dump=None if life.last_dump else why_no_dump,
            gone=end.gone,
        )
        self._spool.put(dump_id, end.outcome.file_name, manifest.encode(document), patience_s=patience_s)


def _report(end: End, one: InHand, key: str) -> None:
    reading = one.sample.reading
    limit = reading.limit_bytes
    at = f" at {one.sample.reading.usage_bytes / limit:.0%} of {format_bytes(limit)}" if limit else ""
    age_s = end.at_s - one.sample.at_s
    logs.event(
        logging.WARNING,
        "last-moment",
        f"container {end.container.name}: heap of {one.process.name}[{one.process.pid}]{at}, "
        f"{age_s * 1000:.0f} ms before its end was seen",
        container=end.container.name,
        pid=one.process.pid,
        usage_bytes=reading.usage_bytes,
        limit_bytes=limit,
        age_s=round(age_s, 4),
        key=key,
    )
