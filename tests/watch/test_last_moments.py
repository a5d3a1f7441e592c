"""What is in hand when a container ends: the newest snapshot, if it is worth anything."""

from __future__ import annotations

import json
import os
import threading
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, cast

import pytest

from sidecar.core.keys import DumpId
from sidecar.core.manifest import Incident, Place
from sidecar.core.model import Container, GoProgram, Identity, Process, Reading, Sample
from sidecar.core.outcome import Ending, Outcome
from sidecar.core.output import Output
from sidecar.core.trigger import Reason, TriggerPolicy
from sidecar.errors import OomHeapDumperError, TargetGoneError
from sidecar.heap_encoder import EncodedHeap, HeapEncoder
from sidecar.pprof import PprofClient
from sidecar.settings import PprofSettings
from sidecar.spool import Spool
from sidecar.watch.baselines import Baselines
from sidecar.watch.candidates import Answering
from sidecar.watch.endings import End, Endings
from sidecar.watch.heaps import ReadableHeap
from sidecar.watch.last_moments import LastMoments
from sidecar.watch.life import InHand, Life
from sidecar.watch.sources import MAX_PROCESSES, Source
from sidecar.watch.workers import Workers
from tests.watch.test_uploads import wait_until

PROCESS = Process(pid=42, created_at_s=1e9, name="app", uid=1, gid=1)
CONTAINER = Container(key="/c", name="app", processes=(PROCESS,))
DEADLINE_S = 60.0
POLICY = TriggerPolicy(critical_ratio=0.8, cooldown_s=30, max_per_hour=20)


class Heap:
    """A readable heap whose content the test chooses; None is a program that has ended."""

    program = GoProgram(go_version="go1.27", build_id=None)
    go_environment = None
    known_buckets = 1
    known_bytes = 5

    def __init__(self, process: Process = PROCESS) -> None:
        self.process = process
        self.content: bytes | None = b"first"

    def open_executable(self) -> int:
        """Any open file will do."""
        return os.open("/dev/null", os.O_RDONLY)

    def write_snapshot(self, file: Output) -> int:
        """Write the content."""
        if self.content is None:
            raise TargetGoneError("process 42 has ended")
        file.write(self.content)
        return len(self.content)


class Ground:
    """A `LastMoments` with one program, or several; ``answering`` is the endpoint of each."""

    def __init__(self, directory: Path) -> None:
        self.heap, self.life = Heap(), Life()
        self.heaps = [self.heap]
        self.answering: Answering | None = None
        self.workers = Workers()
        self.spool = Spool(directory, 1 << 20, "prod/api-0", on_drop=lambda *_: None)
        self.spool.open()
        self.moments = LastMoments(self.spool, self.sources, self.workers)

    def sources(self, _: Container) -> list[Source]:
        """As `Scout.sources`."""
        return [
            Source(process=heap.process, heap=cast("ReadableHeap", heap), answering=self.answering)
            for heap in self.heaps
        ]

    def keep(self, at_s: float, container: Container = CONTAINER) -> None:
        """Have a snapshot taken, and wait until it was."""
        reading = Reading(usage_bytes=90, inactive_file_bytes=0, limit_bytes=100, oom_kills=0)
        assert self.moments.keep(self.life, container, Sample(at_s=at_s, reading=reading))
        assert self.life.rested.wait(DEADLINE_S)

    def take(self, end_s: float, *, ended: bool = True) -> list[InHand]:
        """What is handed over at the end."""
        return self.moments.take(self.life, end_s, lambda _: ended, all_of_it=ended)

    def end(self, end_s: float) -> dict[str, Any]:
        """Have the kill recorded; the manifest of the dump that it leaves."""
        self.record(end_s)
        wait_until("its end is recorded", lambda: self.workers.is_idle)
        (path,) = (self.spool.directory / "queue").rglob("manifest.json")
        document = json.loads(path.read_text())
        assert isinstance(document, dict)
        return document

    def record(self, end_s: float, encoder: HeapEncoder | None = None) -> None:
        """Have the kill recorded beside us."""
        identity = Identity(cluster=None, namespace="prod", pod="api-0", node=None, image=None)
        endings = Endings(
            spool=self.spool,
            place=Place(identity=identity, store="here", prefix=""),
            workers=self.workers,
            baselines=Baselines(POLICY, self.spool, self.workers),
            last_moments=self.moments,
            encoder=encoder or HeapEncoder(),
            is_alive=lambda _: False,
            wake_uploads=lambda: None,
        )
        dump_id = DumpId(at=datetime(2026, 11, 20, tzinfo=UTC), container="app", pid=42, incident="aaaaaaaa", number=1)
        endings.record(
            End(
                life=self.life,
                container=CONTAINER,
                outcome=Outcome(ending=Ending.OOM_KILLED, counted=True, seen="counted"),
                stores_last=True,
                at_s=end_s,
                last=None,
                gone=(),
                history=[],
                incident_of=lambda sample: Incident(
                    container=CONTAINER,
                    reason=Reason.LAST_MOMENT,
                    policy=POLICY,
                    sample=sample,
                    history=[],
                    memory_source="cgroup v2",
                ),
                incident=dump_id.incident,
                number=dump_id.number,
                fallback=dump_id,
            )
        )

    def files(self) -> list[bytes]:
        """The content of what lies in the spool's scratch folder."""
        return [path.read_bytes() for path in self.spool.scratch_path("x").parent.glob("*.raw")]


@pytest.fixture
def ground(tmp_path: Path) -> Ground:
    """One program whose snapshots are kept."""
    return Ground(tmp_path)


def test_the_newest_replaces_the_one_before(ground: Ground) -> None:
    """One file is kept, and handed over once, with the memory of its moment."""
    ground.keep(1.0)
    ground.heap.content = b"second"
    ground.keep(2.0)
    assert ground.files() == [b"second"]
    (taken,) = ground.take(3.0)
    assert taken.path.read_bytes() == b"second"
    assert taken.sample.at_s == 2.0
    assert taken.at <= datetime.now(tz=UTC)
    taken.let_go()
    assert ground.files() == []
    assert ground.take(3.0) == []


def test_a_kill_in_the_middle_of_a_snapshot_leaves_the_one_before(ground: Ground) -> None:
    """The last good moment stays in hand."""
    ground.keep(1.0)
    ground.heap.content = None
    ground.keep(2.0)
    assert [taken.sample.at_s for taken in ground.take(3.0)] == [1.0]


def test_what_a_dump_shows_already_is_not_handed_over(ground: Ground) -> None:
    """A dump of the same moment or a later one tells more."""
    ground.keep(1.0)
    ground.life.captured_s[PROCESS] = 1.0
    assert ground.take(3.0) == []
    assert ground.files() == []


def test_an_old_snapshot_tells_nothing_of_the_end(ground: Ground) -> None:
    """Two minutes later it is let go."""
    ground.keep(1.0)
    assert ground.take(121.0) == []


def test_a_process_that_lives_on_keeps_its_snapshot(ground: Ground) -> None:
    """Another process of the container was killed: what is in hand of this one stays."""
    ground.keep(1.0)
    assert ground.take(3.0, ended=False) == []
    assert len(ground.take(3.0)) == 1


def test_processes_that_ended_in_peace_leave_nothing_behind(ground: Ground) -> None:
    """What is in hand of them is let go once it is too old to tell of anything, file and descriptor."""
    ground.keep(1.0)
    before = len(os.listdir("/proc/self/fd"))  # noqa: PTH208 -- only how many
    successor = replace(PROCESS, pid=43)
    ground.heap.process = successor
    container = replace(CONTAINER, processes=(successor,))
    ground.keep(2.0, container)
    ground.moments.forget_ended(ground.life, container, 3.0)
    assert len(ground.files()) == 2
    ground.moments.forget_ended(ground.life, container, 7.0)
    assert len(ground.files()) == 1
    assert len(os.listdir("/proc/self/fd")) == before  # noqa: PTH208


def test_a_spool_without_room_stops_nobody(tmp_path: Path) -> None:
    """The snapshot isn't kept; the next is tried."""
    ground = Ground(tmp_path)
    full = Spool(tmp_path, 1, "prod/api-0", on_drop=lambda *_: None)
    ground.moments = LastMoments(full, ground.sources, Workers())
    ground.keep(1.0)
    ground.keep(2.0)
    assert ground.take(3.0) == []


def test_a_snapshot_that_comes_after_the_end_is_nobodys(ground: Ground) -> None:
    """The end had to do without it: what was handed over stays untouched, and nothing is left in the spool."""
    ground.keep(1.0)
    ground.life.rested.clear()  # as while one is being taken, for longer than the end may wait
    (taken,) = ground.take(3.0)
    ground.life.rested.set()
    ground.keep(4.0)
    assert ground.files() == [b"first"]
    os.fstat(taken.executable)
    assert ground.life.in_hand == {}


def test_of_many_programs_the_oldest_are_kept(ground: Ground) -> None:
    """A container with a hundred Go programs costs no more than one with eight."""
    ground.heaps = [Heap(replace(PROCESS, pid=pid)) for pid in range(42, 142)]
    ground.keep(1.0)
    assert [process.pid for process in ground.life.in_hand] == list(range(42, 42 + MAX_PROCESSES))


def test_many_that_come_and_go_leave_the_newest_in_hand(ground: Ground) -> None:
    """A program that forks all the time: what is in hand stays bounded, and so are the dumps of its end."""
    for pid in range(100):
        ground.heaps = [Heap(replace(PROCESS, pid=pid))]
        ground.keep(1.0 + pid / 100)
    assert len(ground.files()) == len(ground.life.in_hand) == 2 * MAX_PROCESSES
    taken = ground.take(3.0)
    assert [one.process.pid for one in taken] == list(range(100 - MAX_PROCESSES, 100))
    assert len(ground.files()) == MAX_PROCESSES


class Stuck(HeapEncoder):
    """Makes nothing until it may."""

    def __init__(self) -> None:
        self.began, self.may = threading.Event(), threading.Event()

    def encode(self, raw: Path, executable: int, out: Path) -> EncodedHeap:
        """Wait, then fail."""
        self.began.set()
        self.may.wait(DEADLINE_S)
        raise OomHeapDumperError(f"nothing was made of {raw.name}, {executable} or {out.name}")


def test_all_that_is_in_hand_is_safe_before_profiles_are_made_of_it(ground: Ground) -> None:
    """Making the first takes its time: by then each snapshot is a dump of its own, and the outcome is written."""
    ground.heaps = [Heap(replace(PROCESS, pid=pid)) for pid in range(42, 46)]
    ground.keep(1.0)
    stuck = Stuck()
    ground.record(3.0, stuck)
    assert stuck.began.wait(DEADLINE_S)
    queue = ground.spool.directory / "queue"
    try:
        assert len(list(queue.rglob(".heap-newest.raw"))) == len(list(queue.rglob(".manifest.json"))) == 4
        assert len(list(queue.rglob("outcome-oom-killed.json"))) == 1
        assert ground.files() == []
    finally:
        stuck.may.set()
    wait_until("its end is recorded", lambda: ground.workers.is_idle)
    assert len(list(queue.rglob("manifest.json"))) == len(list(queue.rglob("heap-newest.raw"))) == 4


class Broken:
    """A path for which nobody has foreseen what happens."""

    name = "broken"

    def open(self, _: str) -> None:
        """As `Path.open`."""
        raise ValueError("unforeseen")

    def unlink(self) -> None:
        """As `Path.unlink`."""


def test_a_snapshot_that_cant_be_kept_costs_no_other(ground: Ground) -> None:
    """Whatever is wrong with it, the others become dumps and the outcome is written."""
    ground.heaps = [Heap(replace(PROCESS, pid=pid)) for pid in (42, 43, 44)]
    ground.keep(1.0)
    first, second = list(ground.life.in_hand.values())[:2]
    first.path.unlink()
    ground.life.in_hand[second.process] = replace(second, path=cast("Path", Broken()))
    stuck = Stuck()
    stuck.may.set()
    ground.record(3.0, stuck)
    wait_until("its end is recorded", lambda: ground.workers.is_idle)
    queue = ground.spool.directory / "queue"
    (kept,) = queue.rglob("heap-newest.raw")
    assert "pid44" in kept.parent.name
    assert len(list(queue.rglob("outcome-oom-killed.json"))) == 1


def test_the_dump_of_a_last_moment_tells_what_was_known_of_the_program(ground: Ground) -> None:
    """The ports that answered pprof, the version of Go: as in a dump that was asked for."""
    client = PprofClient(host="127.0.0.1", port=6060, settings=PprofSettings(), tls=None)
    ground.answering = Answering(process=PROCESS, client=client, program=None, go_environment=None, inode=1)
    ground.keep(1.0)
    manifest = ground.end(3.0)
    assert manifest["trigger"]["reason"] == "last-moment"
    assert manifest["process"]["pprof_ports"] == [6060]
    assert manifest["process"]["go_version"] == "go1.27"
