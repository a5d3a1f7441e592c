"""Damaged snapshots and damaged executables: a profile of what is left or an error in a line, never a crash."""

from __future__ import annotations

import io
import json
import random
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from sidecar.goheap import GoHeapError, prepare, raw
from sidecar.goheap.encode import encode
from tests.goheap.decoded import decode_profile
from tests.goheap.programs import NEWEST, Running, build

PROC = Path("/proc")
Edit = tuple[int, int]
edits = st.lists(st.tuples(st.integers(0, 1 << 30), st.integers(0, 255)), min_size=1, max_size=60)


@pytest.fixture(scope="module")
def intact(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A raw snapshot of an ordinary program."""
    path = tmp_path_factory.mktemp("intact") / "raw"
    with Running(build(NEWEST), rate=1) as program, prepare(PROC, program.pid) as reader:
        program.tell("features", "gc", "features")
        path.write_bytes(reader.snapshot())
    return path


def attempt(snapshot: Path, executable: Path) -> int | None:
    """Samples of the profile; None if it was refused."""
    out = io.BytesIO()
    try:
        result = encode(snapshot, executable, out)
    except GoHeapError:
        return None
    assert len(decode_profile(out.getvalue()).samples) == result.samples
    return result.samples


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(changes=edits)
def test_changed_memory_costs_no_more_than_what_was_changed(changes: list[Edit], intact: Path, tmp_path: Path) -> None:
    """The header is intact, any bytes of the buckets are not."""
    content = bytearray(intact.read_bytes())
    start = content.index(b"}", content.rindex(b"extents", 0, 65536)) + 1
    for at, value in changes:
        content[start + at % (len(content) - start)] = value
    (tmp_path / "raw").write_bytes(content)
    assert attempt(tmp_path / "raw", build(NEWEST)) is not None


@settings(max_examples=50, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(changes=edits, cut=st.integers(0, 5000))
def test_a_changed_header_is_refused_or_understood(changes: list[Edit], cut: int, intact: Path, tmp_path: Path) -> None:
    """Any bytes of the first kilobytes, any end of the file."""
    content = bytearray(intact.read_bytes())
    for at, value in changes[:3]:
        content[at % 3000] = value
    (tmp_path / "raw").write_bytes(content[: len(content) - cut])
    attempt(tmp_path / "raw", build(NEWEST))


@settings(max_examples=80, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_a_header_of_other_values_is_refused_or_understood(data: st.DataObject, intact: Path, tmp_path: Path) -> None:
    """Valid JSON with wrong types, huge numbers or missing fields."""
    content = intact.read_bytes()
    length = int.from_bytes(content[len(raw.MAGIC) : len(raw.MAGIC) + 4], "little")
    start = len(raw.MAGIC) + 4
    document = json.loads(content[start : start + length])
    room = data.draw(
        st.sampled_from([document, document["program"], document["program"]["module"], document["moment"]])
    )
    key = data.draw(st.sampled_from(sorted(room)))
    values = st.none() | st.booleans() | st.floats() | st.text(max_size=5) | st.integers() | st.just(1 << 70)
    room[key] = data.draw(
        values | st.lists(values, max_size=3) | st.dictionaries(st.text(max_size=3), values, max_size=2)
    )
    header = json.dumps(document).encode()
    changed = raw.MAGIC + len(header).to_bytes(4, "little") + header + content[start + length :]
    (tmp_path / "raw").write_bytes(changed)
    attempt(tmp_path / "raw", build(NEWEST))


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(seed=st.integers(0, 1 << 30), density=st.sampled_from((20, 200, 5000)))
def test_a_damaged_executable_gives_other_names_at_worst(seed: int, density: int, intact: Path, tmp_path: Path) -> None:
    """Its table of functions is as hostile as it likes: no endless table, no endless chain of inlined calls."""
    chance = random.Random(seed)
    content = bytearray(build(NEWEST).read_bytes())
    start = content.index(b"\xf1\xff\xff\xff\x00\x00\x01\x08") + 72
    for at in chance.sample(range(start, len(content)), (len(content) - start) // density):
        content[at] = chance.randrange(256)
    (tmp_path / "program").write_bytes(content)
    attempt(intact, tmp_path / "program")


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(changes=edits, cut=st.integers(0, 1 << 22))
def test_a_damaged_elf_file_is_refused_or_understood(
    changes: list[Edit], cut: int, intact: Path, tmp_path: Path
) -> None:
    """Any bytes of its headers, any end of the file."""
    content = bytearray(build(NEWEST).read_bytes())
    sections_at = int.from_bytes(content[40:48], "little")
    for at, value in changes[:5]:
        content[at % 1024] = value
        content[sections_at + at % 1024] = value
    (tmp_path / "program").write_bytes(content[: max(len(content) - cut, 0)])
    attempt(intact, tmp_path / "program")
