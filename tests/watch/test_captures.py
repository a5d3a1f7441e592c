"""One request, several processes: what can be had is safe, what can't be is told."""

from __future__ import annotations

import gzip
import json
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, cast

import pytest

from sidecar.core.manifest import Incident, Place
from sidecar.core.model import Container, Reading, Sample
from sidecar.core.trigger import Reason
from sidecar.heap_encoder import EncodedHeap, HeapEncoder
from sidecar.pprof import PprofClient
from sidecar.settings import PprofSettings
from sidecar.spool import Spool
from sidecar.watch.baselines import Baselines
from sidecar.watch.candidates import Answering
from sidecar.watch.captures import Captures, Request
from sidecar.watch.heaps import ReadableHeap
from sidecar.watch.life import Life
from sidecar.watch.scout import Scout
from sidecar.watch.sources import MAX_PROCESSES, Source
from sidecar.watch.workers import Workers
from tests.core.test_profile_check import PROFILE
from tests.hostile_server import HostileServer, http
from tests.watch.settings import settings_in
from tests.watch.test_last_moments import POLICY, PROCESS, Heap
from tests.watch.test_uploads import logged, wait_until


class Encoder:
    """Makes a profile of whatever it gets."""

    def encode(self, raw: Path, _: int, out: Path) -> EncodedHeap:
        """As `HeapEncoder.encode`."""
        out.write_bytes(raw.read_bytes())
        return EncodedHeap(samples=1, incomplete=None, gc=None)


class Ground:
    """`Captures` over a real spool, with as many programs as there are ``heaps``."""

    def __init__(self, directory: Path, programs: int) -> None:
        settings = settings_in(directory)
        self.heaps = [Heap(replace(PROCESS, pid=42 + index)) for index in range(programs)]
        self.life = Life()
        self.workers = Workers()
        self.spool = Spool(settings.spool.directory, settings.spool.size_bytes, "prod/api-0", on_drop=lambda *_: None)
        self.spool.open()
        self.hurried = 0
        self.captures = Captures(
            settings=settings,
            spool=self.spool,
            place=Place(identity=settings.identity, store="here", prefix=""),
            scout=cast("Scout", self),
            workers=self.workers,
            baselines=Baselines(POLICY, self.spool, self.workers),
            encoder=cast("HeapEncoder", Encoder()),
            wake_loop=lambda: None,
            wake_uploads=lambda: None,
        )

    def sources(self, _: Container) -> list[Source]:
        """As `Scout.sources`."""
        return [Source(process=heap.process, heap=cast("ReadableHeap", heap), answering=None) for heap in self.heaps]

    def is_alive(self, _: object) -> bool:
        """As `Scout.is_alive`."""
        return True

    def hurry(self) -> None:
        """As `Scout.hurry`."""
        self.hurried += 1

    def capture(self) -> list[bool]:
        """One request; how it ended, as the loop hears of it."""
        container = Container(key="/c", name="app", processes=tuple(heap.process for heap in self.heaps))
        reading = Reading(usage_bytes=90, inactive_file_bytes=0, limit_bytes=100, oom_kills=0)
        incident = Incident(
            container=container,
            reason=Reason.THRESHOLD,
            policy=POLICY,
            sample=Sample(at_s=1.0, reading=reading),
            history=[],
            memory_source="cgroup v2",
        )
        at = datetime(2026, 11, 20, tzinfo=UTC)
        self.captures.request(Request(incident=incident, incident_id="aaaaaaaa", number=1, at=at, life=self.life))
        wait_until("all is captured", lambda: self.workers.is_idle)
        results = []
        while not self.captures.results.empty():
            results.append(self.captures.results.get().ok)
        return results

    def manifests(self) -> list[dict[str, Any]]:
        """Of the dumps, oldest process first."""
        found = [json.loads(path.read_text()) for path in (self.spool.directory / "queue").rglob("manifest.json")]
        return sorted(found, key=lambda manifest: int(manifest["process"]["pid"]))


def test_a_process_that_fails_beside_another_is_told_of(tmp_path: Path) -> None:
    """The request has succeeded, and the log says that a profile is missing."""
    ground = Ground(tmp_path, 2)
    ground.heaps[1].content = None
    with logged() as events:
        assert ground.capture() == [True]
    assert events.count("captured") == 1
    assert events.count("capture-partial") == 1
    assert "capture-failed" not in events
    assert [manifest["process"]["pid"] for manifest in ground.manifests()] == [42]


@pytest.mark.parametrize("programs", [1, 3])
def test_a_request_that_fails_is_told_once_with_all_reasons(tmp_path: Path, programs: int) -> None:
    """The loop hears of one failure, the outcome will say why, and the ports are looked at again."""
    ground = Ground(tmp_path, programs)
    for heap in ground.heaps:
        heap.content = None
    with logged() as events:
        assert ground.capture() == [False]
    assert events == ["capture-failed"]
    assert ground.life.why_no_dump is not None
    assert ground.life.why_no_dump.count("has ended") == programs
    assert ground.hurried == 1


def test_a_fault_of_ours_ends_a_request_as_any_failure(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever raises it: the container must be dumped again, and the guard be let go."""

    def fault(*_: object) -> None:
        raise RuntimeError("dictionary changed size during iteration")

    for victim, name in ((Ground, "sources"), (Captures, "_begin")):
        ground = Ground(tmp_path / name, 2)
        with monkeypatch.context() as patched, logged() as events:
            patched.setattr(victim, name, fault)
            assert ground.capture() == [False]
        assert {"capture-failed", "capture-crashed"} <= set(events)
        assert ground.life.idle.is_set()
        assert ground.capture() == [True]


def test_a_fault_in_reading_memory_leaves_the_port(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where one way to the heap fails in an unforeseen way, the other is taken."""

    def fault(*_: object) -> int:
        raise IndexError("out of range")

    ground = Ground(tmp_path, 1)
    monkeypatch.setattr(Heap, "write_snapshot", fault)
    with HostileServer(lambda _: iter([http(gzip.compress(PROFILE))])) as server, logged() as events:
        client = PprofClient(host="127.0.0.1", port=server.port, settings=PprofSettings(), tls=None)
        answering = Answering(process=PROCESS, client=client, program=None, go_environment=None, inode=1)
        (source,) = ground.sources(Container(key="/c", name="app", processes=(PROCESS,)))
        monkeypatch.setattr(ground, "sources", lambda _: [replace(source, answering=answering)])
        assert ground.capture() == [True]
        client.close()
    (manifest,) = ground.manifests()
    assert manifest["profiles"][0]["source"] == "http"
    assert "IndexError" in str(manifest["problems"])
    assert "capture-crashed" in events


def test_of_many_programs_the_oldest_are_dumped(tmp_path: Path) -> None:
    """Each of the dumps says that there were more."""
    ground = Ground(tmp_path, MAX_PROCESSES + 3)
    assert ground.capture() == [True]
    manifests = ground.manifests()
    assert [manifest["process"]["pid"] for manifest in manifests] == list(range(42, 42 + MAX_PROCESSES))
    assert all("3 younger programs" in str(manifest["problems"]) for manifest in manifests)
