"""A heap of free slots between objects, in a real program."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path

import psutil

from sidecar.core.model import Reading
from sidecar.core.verdict import judge
from sidecar.goheap import prepare
from sidecar.heap_encoder import HeapEncoder
from tests.goheap.programs import NEWEST, Running, build

MIB = 1 << 20


def figures(program: Running, tmp_path: Path) -> Mapping[str, int | None]:
    """What a dump of the program would know of its collector."""
    raw = tmp_path / "raw"
    with prepare(program.proc, program.pid) as reader:
        raw.write_bytes(reader.snapshot())
        executable = os.dup(reader.executable)
    try:
        gc = HeapEncoder().encode(raw, executable, tmp_path / "heap.pb.gz").gc
    finally:
        os.close(executable)
    assert gc is not None
    return gc


def test_free_slots_between_objects_are_told_from_garbage(tmp_path: Path) -> None:
    """A cache that lost three of four entries takes nearly what it took; nothing of that is left to collect."""
    with Running(build(NEWEST), gogc="100") as program:
        program.tell("leak 400000 256", "gc", "evict 4", "gc", "gc")
        gc = figures(program, tmp_path)
        used_bytes = psutil.Process(program.pid).memory_info().rss
    assert (gc["heap_in_use_bytes"] or 0) > 2 * (gc["heap_live_bytes"] or 0)
    reading = Reading(usage_bytes=used_bytes, inactive_file_bytes=0, limit_bytes=used_bytes + 10 * MIB, oom_kills=0)
    found = judge(reading, gc, missing="")
    assert found.name == "fragmented-heap", found
    assert "GOMEMLIMIT doesn't free them" in found.remedy
