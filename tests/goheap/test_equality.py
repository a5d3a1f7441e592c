"""The published view is what the program itself says; the newest view is the truth."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import pytest

from sidecar.goheap import prepare
from tests.goheap.conftest import Decode
from tests.goheap.decoded import DecodedProfile, DecodedSample, decode_profile
from tests.goheap.programs import CELLS, Cell, Running, build


def done_before(profile: DecodedProfile) -> Counter[DecodedSample]:
    """What commands allocated that had ended: reading the next command and writing a profile allocate too."""
    return Counter(
        {
            sample: count
            for sample, count in profile.comparable().items()
            if any(name.startswith(("main.leak", "main.features")) for name in sample.functions())
        }
    )


@pytest.mark.parametrize("cell", CELLS, ids=str)
def test_the_published_view_equals_the_programs_own_profile(cell: Cell, decode: Decode, tmp_path: Path) -> None:
    """Sample by sample: stacks with inlined calls, lines, values, labels; and the profile's head and mappings."""
    with Running(build(cell), rate=1) as program, prepare(program.proc, program.pid) as reader:
        program.tell("features", "stacks 500", "leak 5 1000000", "gc", "leak 7 70000")
        ours = decode(reader.snapshot(), program.path, "published")
        theirs = decode_profile(program.profile(tmp_path / "own"))
    assert ours.comparable() == theirs.comparable()
    assert len(ours.comparable()) > 600
    assert ours.mappings == theirs.mappings
    head = ("sample_types", "period_type", "period", "default_sample_type", "comments")
    assert [getattr(ours, name) for name in head] == [getattr(theirs, name) for name in head]
    assert abs(ours.time_ns - theirs.time_ns) < 60 * 10**9


@pytest.mark.parametrize("cell", CELLS, ids=str)
def test_samples_are_scaled_as_the_program_does(cell: Cell, decode: Decode, tmp_path: Path) -> None:
    """At Go's own sampling rate the estimates are equal to the last byte."""
    with Running(build(cell)) as program, prepare(program.proc, program.pid) as reader:
        program.tell(*(f"leak 300 {size}" for size in (900, 7000, 40000, 300000)), "features", "gc")
        ours = decode(reader.snapshot(), program.path, "published")
        theirs = decode_profile(program.profile(tmp_path / "own"))
    assert ours.comparable() == theirs.comparable()
    assert ours.total("inuse_space") > 60_000_000
    assert ours.period == 524288


@pytest.mark.parametrize("cell", CELLS, ids=str)
def test_before_the_first_collection_everything_is_published(cell: Cell, decode: Decode, tmp_path: Path) -> None:
    """The program then shows what it would else keep back, and so do we."""
    with Running(build(cell), rate=1) as program, prepare(program.proc, program.pid) as reader:
        program.tell("features", "leak 9 50000")
        ours = decode(reader.snapshot(), program.path, "published")
        theirs = decode_profile(program.profile(tmp_path / "own"))
    assert ours.by_function("alloc_space")["main.leak"] > 9 * 50000
    assert done_before(ours) == done_before(theirs)
    assert len(done_before(ours)) > 50


@pytest.mark.parametrize("cell", CELLS, ids=str)
def test_the_newest_view_has_what_no_collection_has_seen(cell: Cell, decode: Decode) -> None:
    """A leak since the last collection is there to the last object; the program's own profile has none of it."""
    with Running(build(cell), rate=1) as program, prepare(program.proc, program.pid) as reader:
        program.tell("features", "gc", "leak 100 1048576")
        snapshot = reader.snapshot()
        newest = decode(snapshot, program.path, "newest")
        published = decode(snapshot, program.path, "published")
    leak = [s for s in newest.samples if ("bytes", 1048576) in s.labels and s.functions()[0] == "main.leak"]
    assert [sample.values for sample in leak] == [(100, 100 << 20, 100, 100 << 20)]
    assert published.by_function("inuse_space")["main.leak"] == 0
    assert newest.comments
    assert newest.sample_types == published.sample_types


def test_one_collection_publishes_what_the_one_before_it_saw(decode: Decode, tmp_path: Path) -> None:
    """Between two collections the three cycles hold different things; the published view picks the right one."""
    with Running(build(CELLS[0]), rate=1) as program, prepare(program.proc, program.pid) as reader:
        for size in (10000, 20000, 30000, 40000):
            program.tell(f"leak 3 {size}", "once")
            ours = decode(reader.snapshot(), program.path, "published")
            theirs = decode_profile(program.profile(tmp_path / "own"))
            assert ours.comparable() == theirs.comparable()
        assert ours.by_function("inuse_objects")["main.leak"] >= 9


def test_stacks_of_any_depth_are_whole(decode: Decode, tmp_path: Path) -> None:
    """A program may ask for more than Go's usual depth."""
    with (
        Running(build(Cell("1.27", "plain")), rate=1, depth=1000) as program,
        prepare(program.proc, program.pid) as reader,
    ):
        program.tell("features", "gc")
        ours = decode(reader.snapshot(), program.path, "published")
        theirs = decode_profile(program.profile(tmp_path / "own"))
    assert ours.comparable() == theirs.comparable()
    assert max(len(sample.functions()) for sample in ours.samples) > 200
