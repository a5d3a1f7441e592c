from __future__ import annotations

import gzip

import pytest

from benchmarks.race.inuse import inuse_bytes
from benchmarks.race.model import PROGRAMS, Cell, Observed, Saved, Try, killed
from benchmarks.race.plan import cells, rest_s, schedule, tries_of
from benchmarks.race.summary import by_cell, low_tenth, summary

MIB = 1 << 20
PROGRAM = {one.name: one for one in PROGRAMS}


def cell(name: str = "leak-200", limit_mib: int = 128, cpu: int | None = None) -> Cell:
    """A cell that needn't be run."""
    return Cell(program=PROGRAM[name], limit_bytes=limit_mib * MIB, cpu_millicores=cpu)


def a_try(
    *,
    tool: str = "default",
    explained: float | None = 0.5,
    safe_s: float = 0.01,
    lived_s: float = 1.0,
    killed: bool = True,
    of: Cell | None = None,
) -> Try:
    """A try with a peak of 100 MiB that crossed a second before its end."""
    observed = Observed(
        oom_killed=killed, crossed_at_s=100.0, ended_at_s=101.0, above_half_s=lived_s, peak_bytes=100 * MIB
    )
    saved = None
    if explained is not None:
        saved = Saved(inuse_bytes=int(explained * 100 * MIB), safe_at_s=100.0 + safe_s, best="heap-1.pb.gz")
    return Try(tool=tool, cell=of or cell(), observed=observed, saved=saved)


def field(number: int, content: bytes) -> bytes:
    """A field of bytes of a protobuf message."""
    return bytes([number << 3 | 2, len(content)]) + content


def varint(value: int) -> bytes:
    """A number as protobuf writes it."""
    found = bytearray()
    while value >= 0x80:
        found.append(value & 0x7F | 0x80)
        value >>= 7
    return bytes([*found, value])


def profile(*inuse: int, kind: bytes = b"inuse_space", packed: bool = True) -> bytes:
    """A heap profile with one sample for each size in use."""
    texts = [b"", b"alloc_space", b"bytes", kind]
    types = [field(1, bytes([1 << 3, 1, 2 << 3, 2])), field(1, bytes([1 << 3, 3, 2 << 3, 2]))]
    samples = []
    for size in inuse:
        values = (7_000_000, size)
        if packed:
            samples.append(field(2, field(2, b"".join(map(varint, values)))))
        else:
            samples.append(field(2, b"".join(b"\x10" + varint(value) for value in values)))
    return gzip.compress(b"".join([*types, *samples, *(field(6, text) for text in texts)]))


@pytest.mark.parametrize("packed", [True, False])
def test_in_use_bytes_are_summed_from_their_own_column(*, packed: bool) -> None:
    """Neither the allocations beside them nor the encoding of the values matters."""
    assert inuse_bytes(profile(3 * MIB, 5 * MIB, packed=packed)) == 8 * MIB


def test_what_is_no_whole_heap_profile_explains_nothing() -> None:
    """Cut short, of another kind, empty, or no profile at all: none of them counts as a dump."""
    whole = profile(3 * MIB)
    for content in (whole[:-9], whole + b"x", profile(MIB, kind=b"contentions"), profile(), b"", b"<html>"):
        assert inuse_bytes(content) is None


def test_a_profile_cut_inside_its_gzip_counts_for_nothing() -> None:
    """A body that ends in the middle of a field is told even where gzip is whole."""
    raw = gzip.decompress(profile(3 * MIB))
    assert inuse_bytes(gzip.compress(raw[:-3])) is None


def test_a_kill_without_a_dump_explains_zero() -> None:
    """Else a tool that saves little, but well, would lead."""
    rows = summary([a_try(explained=0.9), a_try(explained=None), a_try(explained=None)], ["default"]).rows
    assert rows[0][:6] == ("default", "all", "3", "1", "33", "0.00")


def test_only_kills_count() -> None:
    """A try that was given up or ended otherwise is neither a success nor a failure of the tool, and is told."""
    table = summary([a_try(), a_try(killed=False, explained=None)], ["default"])
    assert table.rows[0][2:4] == ("1", "1")
    assert any("not counted: 1 of 2" in note for note in table.notes)


def test_kills_that_nobody_could_see_coming_are_left_out_of_the_second_half() -> None:
    """The line of those that lived has only tries with 100 ms above half of the limit."""
    tries = [a_try(explained=0.9, lived_s=0.1), a_try(explained=None, lived_s=0.099)]
    assert [one.explained for one in killed(tries, lived_only=True)] == [0.9]
    assert [row[1:4] for row in summary(tries, ["default"]).rows] == [("all", "2", "1"), ("lived", "1", "1")]


def test_explained_is_held_against_the_peak_and_time_against_the_crossing() -> None:
    """A profile that was safe before the crossing has a negative time."""
    one = a_try(explained=0.75, safe_s=-0.25)
    assert one.explained == 0.75
    assert one.safe_s == -0.25
    assert "1/1 0.75 -250 ms" in by_cell([one], ["default"]).rows[0]


def test_cells_keep_the_tools_apart() -> None:
    """Each tool has its own column, and one that wasn't there has a dash."""
    other = cell("doubling", cpu=250)
    tries = [a_try(), a_try(tool="guard", explained=None), a_try(tool="guard", of=other, killed=False)]
    rows = by_cell(tries, ["default", "guard"]).rows
    assert [row[0] for row in rows] == ["leak-200", "doubling"]
    assert rows[0][4:] == ("1/1 0.50 10 ms", "0/1 0.00")
    assert rows[1][2:] == ("250m busy", "-", "-", "no kill")


def test_tools_take_turns_and_rounds_follow_each_other() -> None:
    """A run that is cut short has tried every cell with every tool before it tries one again."""
    found = cells([PROGRAM["leak-200"], PROGRAM["doubling"]], [128 * MIB], [None])
    attempts = schedule(found, ["a", "b"], 2)
    order = [(one.number, one.cell.program.name, one.tool) for one in attempts]
    assert order == [
        (number, name, tool) for number in (0, 1) for name in ("leak-200", "doubling") for tool in ("a", "b")
    ]


def test_slow_cells_are_tried_less_often_but_once() -> None:
    """Half a minute of a slow leak isn't repeated; a fast one is tried as often as was asked for."""
    assert tries_of(cell("leak-10", 512), 5) == 1
    assert tries_of(cell("leak-800"), 5) == 5


def test_the_estimate_follows_the_machine() -> None:
    """A machine that took twice as long as usual is expected to go on so."""
    attempts = schedule([cell()], ["a", "b"], 2)
    usual_s = rest_s(attempts, 0, 0.0)
    assert rest_s(attempts, 2, usual_s) == pytest.approx(usual_s)
    assert rest_s(attempts, 4, usual_s) == 0


def test_the_low_tenth_is_one_of_the_figures() -> None:
    """Nearest rank, from below: of ten the least, of eleven the second."""
    assert low_tenth([float(number) for number in range(10, 0, -1)]) == 1.0
    assert low_tenth([float(number) for number in range(11, 0, -1)]) == 2.0
