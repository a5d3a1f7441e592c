"""A dump keeps what it has, whatever goes wrong with the rest."""

from __future__ import annotations

import hashlib
import json
import os
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from sidecar.capture import Dump
from sidecar.core.keys import DumpId
from sidecar.core.manifest import Incident, Place, Subject
from sidecar.core.model import Container, Identity, Process, Reading, Sample
from sidecar.core.output import Output
from sidecar.core.trigger import Reason, TriggerPolicy
from sidecar.errors import SpoolError, TargetGoneError
from sidecar.heap_encoder import HeapEncoder
from sidecar.spool import Spool

PROCESS = Process(pid=42, created_at_s=1e9, name="app", uid=1, gid=1)


class Heap:
    """A heap that reads as given, or is gone."""

    known_buckets = 3

    def __init__(self, content: bytes | None) -> None:
        self._content = content

    def write_snapshot(self, file: Output) -> int:
        """Write it, half of it if it is gone."""
        if self._content is None:
            file.write(b"half")
            raise TargetGoneError("process 42 has ended")
        file.write(self._content)
        return len(self._content)


@pytest.fixture
def spool(tmp_path: Path) -> Spool:
    """An open spool."""
    made = Spool(tmp_path / "spool", 1 << 20, "prod/api-0", on_drop=lambda *_: None)
    made.open()
    return made


def new_dump(spool: Spool) -> Dump:
    """A dump of ``PROCESS``."""
    reading = Reading(usage_bytes=90, inactive_file_bytes=0, limit_bytes=100, oom_kills=0)
    container = Container(key="/c", name="app", processes=(PROCESS,))
    identity = Identity(cluster=None, namespace="prod", pod="api-0", node=None, image=None)
    return Dump(
        spool=spool,
        place=Place(identity=identity, store="here", prefix=""),
        dump_id=DumpId(at=datetime(2026, 11, 20, tzinfo=UTC), container="app", pid=42, incident="aaaaaaaa", number=1),
        incident=Incident(
            container=container,
            reason=Reason.THRESHOLD,
            policy=TriggerPolicy(critical_ratio=0.8, cooldown_s=30, max_per_hour=20),
            sample=Sample(at_s=0.0, reading=reading),
            history=[],
            memory_source="cgroup v2",
        ),
        subject=Subject(process=PROCESS, ports=(), program=None, go_environment=None),
    )


def stored(spool: Spool) -> dict[str, Path]:
    """What is for upload, by file name."""
    return {path.name: path for path in (spool.directory / "queue").rglob("*") if not path.name.startswith(".")}


def manifest_of(spool: Spool) -> dict[str, Any]:
    """The sealed manifest."""
    document = json.loads(stored(spool)["manifest.json"].read_text())
    assert isinstance(document, dict)
    return document


def test_a_snapshot_that_no_profile_can_be_made_of_is_stored_raw(spool: Spool) -> None:
    """The encoder refuses it: the dump has what was read, with its checksum, the reason, and what to do."""
    dump = new_dump(spool)
    dump.take_snapshot(Heap(b"no snapshot of a Go program"))
    executable = os.open("/bin/true", os.O_RDONLY)
    try:
        dump.encode_snapshot(HeapEncoder(), executable)
    finally:
        os.close(executable)
    dump.finish()
    manifest = manifest_of(spool)
    (profile,) = manifest["profiles"]
    assert (profile["name"], profile["source"], profile["samples"]) == ("heap-newest.raw", "memory", 3)
    content = stored(spool)["heap-newest.raw"].read_bytes()
    assert content == b"no snapshot of a Go program"
    assert profile["sha256"] == hashlib.sha256(content).hexdigest()
    assert "not a raw snapshot" in manifest["problems"][0]
    assert "oom-heap-dumper encode" in manifest["problems"][0]
    assert any("oom-heap-dumper encode" in line for line in manifest["open"])


def test_a_program_that_ends_while_it_is_read_leaves_nothing_half(spool: Spool) -> None:
    """The error tells the caller to try another way; no part of it is kept."""
    dump = new_dump(spool)
    with pytest.raises(TargetGoneError):
        dump.take_snapshot(Heap(None))
    assert dump.profiles == ()
    assert [path for path in (spool.directory / "queue").rglob("*") if path.is_file()] == []


def test_what_was_in_hand_is_adopted_with_its_checksum(spool: Spool) -> None:
    """The dump of a last moment is as good as any other; one that vanished is an error, not an empty dump."""
    path = spool.keep_in_hand("42-1.raw", lambda file: file.write(b"raw"), 10)
    dump = new_dump(spool)
    assert dump.adopt_snapshot(path, 7).sha256 == hashlib.sha256(b"raw").hexdigest()
    dump.finish()
    assert manifest_of(spool)["profiles"][0]["samples"] == 7
    with pytest.raises(SpoolError):
        new_dump(spool).adopt_snapshot(path, 7)
