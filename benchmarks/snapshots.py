"""What it takes to read the heap of a program with very many stacks from its memory: time, and memory of the reader."""

from __future__ import annotations

import json
import os
import subprocess
import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from benchmarks import service
from benchmarks.errors import BenchmarkError
from benchmarks.ground import MEBIBYTE, QUICK, Ground, say
from benchmarks.report import Table, mebibytes, spread
from benchmarks.startup import quota_name
from localpod import toolchain
from localpod.pod import LocalPod

_SOURCE = Path(__file__).with_name("go-stacks")
_APP_LIMIT_BYTES = 512 * MEBIBYTE
_WITHIN_S = 600.0

# A period of the kernel's CPU quota is 100 ms: after three of them a reader at 100m may run for 10 ms at once again.
_REST_S = 0.3


@dataclass(frozen=True, slots=True, kw_only=True)
class Sizes:
    """How much to measure; ``repeats`` are of each try. Under a quota only the first tries encode: it takes long."""

    stacks: tuple[int, ...]
    tries: int
    slow_tries: int
    slow_encodings: int
    repeats: int


_FULL = Sizes(stacks=(10_000, 50_000), tries=10, slow_tries=5, slow_encodings=2, repeats=10)
_QUICK = Sizes(stacks=(10_000,), tries=1, slow_tries=1, slow_encodings=0, repeats=3)
_SLOW_MILLICORES = 100


@dataclass(frozen=True, slots=True, kw_only=True)
class Encoding:
    """A profile made of a raw snapshot, its process's start included."""

    samples: int
    took_s: float
    peak_bytes: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Try:
    """One program, read by one process. ``growth_bytes`` is what a snapshot adds to its resident memory.

    ``kept_bytes`` of that stay when it is written and let go. ``first_`` is the snapshot that knew nothing.
    """

    stacks: int
    cpu_millicores: int | None
    buckets: int
    raw_bytes: int
    prepare_s: float
    none_known_s: float
    some_new_s: float
    all_known_s: tuple[float, ...]
    refresh_s: tuple[float, ...]
    first_growth_bytes: int
    first_kept_bytes: int
    growth_bytes: int
    kept_bytes: int
    encoding: Encoding | None


def measure(ground: Ground) -> list[Try]:
    """Make all tries, each with a program and a reader of its own."""
    sizes = _QUICK if ground.effort is QUICK else _FULL
    program = toolchain.find().build(_SOURCE)
    found: list[Try] = []
    for quota in (None, _SLOW_MILLICORES):
        tries = sizes.slow_tries if quota else sizes.tries
        for stacks in sizes.stacks:
            say(f"snapshots: {tries} programs with {stacks} stacks, the reader's CPU quota {quota_name(quota)}")
            for number in range(tries):
                encodes = quota is None or number < sizes.slow_encodings
                found.append(_measure(ground, program, stacks, quota, repeats=sizes.repeats, encodes=encodes))
    return found


def _measure(ground: Ground, program: Path, stacks: int, quota: int | None, *, repeats: int, encodes: bool) -> Try:
    with LocalPod() as pod, tempfile.TemporaryDirectory(prefix="oom-heap-dumper-bench-") as folder:
        app = service.start(pod, program, "app", memory_limit_bytes=_APP_LIMIT_BYTES)
        options: Mapping[str, object] = {
            "--pid": app.pod_pid,
            "--address": f"{app.host}:{app.port}",
            "--stacks": stacks,
            "--repeats": repeats,
            "--rest-s": _REST_S if quota else 0.0,
            "--folder": folder,
        }
        command: list[str | Path] = [ground.python, "-m", "benchmarks.snapshot_try"]
        command += [str(word) for option in options.items() for word in option]
        reader = pod.start(
            "reader",
            [*command, *(["--encode"] if encodes else [])],
            env={"PATH": os.defpath, "LANG": "C.UTF-8"},
            cpu_millicores=quota,
            directory=Path("/"),
            stdout=subprocess.PIPE,
        )
        try:
            output, _ = reader.process.communicate(timeout=_WITHIN_S)
        except subprocess.TimeoutExpired:
            raise BenchmarkError(f"a reader of {stacks} stacks didn't end within {_WITHIN_S:g} s") from None
    if reader.process.returncode != 0:
        raise BenchmarkError(f"a reader of {stacks} stacks failed: see its words above")
    return read_try(output.decode(), stacks=stacks, cpu_millicores=quota)


def read_try(text: str, *, stacks: int, cpu_millicores: int | None) -> Try:
    """What a reader said. Raises `BenchmarkError` if it hasn't seen all stacks, or not all came into the profile."""
    said = json.loads(text)
    encoding = Encoding(**said.pop("encoding")) if said["encoding"] else None
    said.pop("encoding", None)
    if said["buckets"] < stacks or (encoding and encoding.samples < stacks):
        samples = encoding.samples if encoding else "none"
        raise BenchmarkError(f"of {stacks} stacks {said['buckets']} were read and {samples} encoded")
    said |= {name: tuple(said[name]) for name in ("all_known_s", "refresh_s")}
    return Try(stacks=stacks, cpu_millicores=cpu_millicores, encoding=encoding, **said)


def table(found: Sequence[Try]) -> Table:
    """The figures for people."""
    rows = []
    for quota, stacks in dict.fromkeys((one.cpu_millicores, one.stacks) for one in found):
        tries = [one for one in found if (one.cpu_millicores, one.stacks) == (quota, stacks)]
        rows.append((f"{stacks} stacks, quota {quota_name(quota)}", *_cells(tries)))
    return Table(
        title="Reading very many stacks from memory",
        notes=(
            "Median / p90 / most. The quota is the reader's. Each snapshot is written to a new file, and not synced.",
            "Snapshots with all stacks known beforehand, a tenth new, and none known; refresh finds nothing new.",
            "Memory is resident: what a snapshot adds at most, and what of that stays when it was written and let go.",
            "Encoding is a process of its own, its start included.",
        ),
        columns=(
            "program",
            "tries",
            "prepare ms",
            "refresh ms",
            "all known ms",
            "a tenth new ms",
            "none known ms",
            "raw MiB",
            "adds, stays MiB",
            "none known adds, stays MiB",
            "encode s",
            "its peak MiB",
        ),
        rows=tuple(rows),
    )


def _cells(tries: Sequence[Try]) -> tuple[str, ...]:
    encodings = [one.encoding for one in tries if one.encoding is not None]

    def times(of: Callable[[Try], float]) -> str:
        return spread([of(one) for one in tries], scale=1000, digits=1)

    def most(of: Callable[[Try], int]) -> str:
        return mebibytes(max(0, *map(of, tries)))  # the kernel's counters lag behind, by less than a MiB

    return (
        str(len(tries)),
        times(lambda one: one.prepare_s),
        spread([took_s for one in tries for took_s in one.refresh_s], scale=1000, digits=1),
        spread([took_s for one in tries for took_s in one.all_known_s], scale=1000, digits=1),
        times(lambda one: one.some_new_s),
        times(lambda one: one.none_known_s),
        most(lambda one: one.raw_bytes),
        f"{most(lambda one: one.growth_bytes)}, {most(lambda one: one.kept_bytes)}",
        f"{most(lambda one: one.first_growth_bytes)}, {most(lambda one: one.first_kept_bytes)}",
        spread([one.took_s for one in encodings], digits=2),
        mebibytes(max((one.peak_bytes for one in encodings), default=None)),
    )
