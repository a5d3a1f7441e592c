"""Executables and memory made to mislead or to cost: an error of ours, within a budget, whatever they hold."""

from __future__ import annotations

import os
import random
import struct
import tracemalloc
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from sidecar.errors import OomHeapDumperError
from sidecar.goheap import GoHeapError, Limits, layouts
from sidecar.goheap.elf import STEP_BYTES, ElfFile
from sidecar.goheap.mappings import MappedFile, executable_mappings, load_bias, read_mapped_files
from sidecar.goheap.memory import Memory
from sidecar.goheap.module import Module, find_module
from sidecar.goheap.process_memory import ProcessMemory
from sidecar.goheap.raw import Program
from sidecar.goheap.snapshot import BucketReader
from sidecar.goheap.symbols import find_variables
from tests.goheap.programs import NEWEST, Cell, Running, build

PROC = Path("/proc")
MIB = 1 << 20
NUMBERS = (0, 1, 0x7FFFFFFF, 0xFFFFFFFF, (1 << 63) - 1, 1 << 63, (1 << 64) - 1)
SYMBOL = b"runtime.firstmoduledata"


def section(name_at: int, kind: int, offset: int, size_bytes: int, link: int = 0) -> bytes:
    """An entry of the table of sections."""
    return struct.pack("<IIQQQQIIQQ", name_at, kind, 0, 0, offset, size_bytes, link, 0, 0, 0)


def elf_with(sections: list[bytes], segments: list[bytes] | None = None) -> bytes:
    """The head of an executable with these entries in its tables; the first section has the names."""
    segments = segments or []
    at = 64 + 56 * len(segments)
    tables = struct.pack("<HHIQQQI", 2, 62, 1, 0, 64, at, 0)
    counts = struct.pack("<HHHHHH", 64, 56, len(segments), 64, len(sections), 0)
    return b"\x7fELF\x02\x01\x01" + bytes(9) + tables + counts + b"".join(segments) + b"".join(sections)


def segment(offset: int, address: int, size_bytes: int) -> bytes:
    """An entry of the table of segments: one that is loaded."""
    return struct.pack("<IIQQQQQQ", 1, 6, offset, address, address, size_bytes, size_bytes, 4096)


Open = Callable[..., ElfFile]


@pytest.fixture
def opened(tmp_path: Path) -> Iterator[Open]:
    """Makes an executable of some content, with zeros after it up to a size, and closes it afterwards."""
    descriptors: list[int] = []

    def made(content: bytes, size_bytes: int = 0, **options: int) -> ElfFile:
        path = tmp_path / str(len(descriptors))
        path.write_bytes(content)
        if size_bytes:
            os.truncate(path, size_bytes)
        descriptors.append(os.open(path, os.O_RDONLY))
        return ElfFile(descriptors[-1], **options)

    yield made
    for descriptor in descriptors:
        os.close(descriptor)


@pytest.fixture
def reads(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Sizes of all reads of executables."""
    sizes: list[int] = []
    read = os.pread

    def counted(descriptor: int, size_bytes: int, offset: int) -> bytes:
        content = read(descriptor, size_bytes, offset)
        sizes.append(len(content))
        return content

    monkeypatch.setattr(os, "pread", counted)
    return sizes


def test_a_huge_executable_is_not_searched_to_its_end(opened: Open, reads: list[int]) -> None:
    """Strings of 64 GiB, nearly none of them on disk: the error says what is wrong with it."""
    size_bytes = 64 << 30
    strings = elf_with([section(0, 3, 0, 1), section(0, 2, 4096, 240, 2), section(0, 3, 8192, size_bytes)])
    elf = opened(strings, size_bytes, search_bytes=32 * MIB)
    with pytest.raises(GoHeapError, match="too large to search"):
        elf.symbols([SYMBOL])
    loaded = opened(elf_with([], [segment(0, 0, size_bytes)]), size_bytes, search_bytes=32 * MIB)
    with Running(build(NEWEST)) as program:
        memory = ProcessMemory(PROC, program.pid)
        with pytest.raises(GoHeapError, match="too large to search"):
            find_module(loaded, memory, 0, 344)
        memory.close()
    assert sum(reads) < 80 * MIB


def test_there_is_a_budget_unless_another_one_is_given(opened: Open) -> None:
    """Of a second or so; ordinary executables are far below it."""
    elf = opened(elf_with([]))
    elf.charge(MIB)
    with pytest.raises(GoHeapError, match="too large to search"):
        elf.charge(2 << 30)


@pytest.mark.parametrize("what", ["strings", "entries", "notes", "magic"])
def test_a_file_made_of_what_is_looked_for_costs_no_more(what: str, opened: Open, reads: list[int]) -> None:
    """Each find is charged, as somebody has to look at it."""
    name = b"\0" + SYMBOL
    at = 64 + 64 * 4096
    if what == "strings":
        content = elf_with([section(0, 3, 0, 1), section(0, 2, 0, 24 * 4096, 2), section(0, 3, 4096, 8 * MIB)])
        content = content.ljust(4096, b"\0") + name * (8 * MIB // len(name))
    elif what == "entries":
        content = elf_with([section(0, 3, 0, 1), section(0, 2, 8192, 8 * MIB, 2), section(0, 3, 4096, 64)])
        content = content.ljust(4096, b"\0") + name + b"\0"
        content = content.ljust(8192, b"\0") + (bytes(5) + struct.pack("<I", 1) * 3).ljust(24, b"\xff") * (MIB // 3)
    elif what == "notes":
        content = elf_with([section(0, 7, at, 4096) for _ in range(4096)]).ljust(at, b"\0") + bytes(4096)
    else:
        content = elf_with([], [segment(0, 0, 8 * MIB)]) + struct.pack("<IHBB", layouts.PC_MAGIC, 0, 1, 8) * MIB
    elf = opened(content, search_bytes=16 * MIB)
    found: list[int] = []
    search = {
        "notes": elf.gnu_build_id,
        "magic": lambda: found.extend(elf.find(content[-8:], 0, len(content))),
    }.get(what, lambda: elf.symbols([SYMBOL]))
    with pytest.raises(GoHeapError, match="too large to search"):
        search()
    assert len(found) <= 16 * MIB // STEP_BYTES
    assert sum(reads) < 24 * MIB


def test_long_names_of_sections_take_no_memory(opened: Open) -> None:
    """A small file, thousands of sections, and one name of a mebibyte that each of them has a part of."""
    at = 64 + 64 * 4096
    content = elf_with([section(number, 1, at, MIB) for number in range(4096)]) + b"x" * MIB
    tracemalloc.start()
    try:
        assert len(opened(content).sections) == 4096
        _, peak_bytes = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak_bytes < 16 * MIB


def test_many_segments_are_few(opened: Open) -> None:
    """Each step of a search goes through them."""
    content = elf_with([], [segment(0, 0, MIB) for _ in range(65000)])
    assert len(opened(content).segments) < 100


def test_few_of_very_many_mapped_files_are_looked_at(opened: Open, tmp_path: Path) -> None:
    """A program may make them up; all are in the profile, those beyond a few hundred without a build id."""
    note = struct.pack("<III", 4, 4, 3) + b"GNU\0" + b"\1\2\3\4"
    content = elf_with([section(0, 7, 128, len(note))]) + note
    (tmp_path / "root").mkdir()
    (tmp_path / "root" / "0").write_bytes(content)
    for number in range(1, 1000):
        os.link(tmp_path / "root" / "0", tmp_path / "root" / str(number))
    files = [
        MappedFile(start=number, end=number + 1, executable=True, offset=0, path=f"/{number}") for number in range(1000)
    ]
    found = [mapping.build_id for mapping in executable_mappings(tmp_path, files, opened(content))]
    assert len(found) == 1000
    assert found[:200] == ["01020304"] * 200
    assert 200 <= len([build_id for build_id in found if build_id]) <= 300


CELLS = (NEWEST, Cell("1.27", "plain"))


@pytest.fixture(scope="module")
def running() -> Iterator[list[Running]]:
    """A program without a symbol table and one with it."""
    with Running(build(CELLS[0]), rate=1) as stripped, Running(build(CELLS[1]), rate=1) as plain:
        yield [stripped, plain]


class Noisy:
    """A process's memory with some of it changed."""

    def __init__(self, memory: Memory, chance: random.Random, share: float) -> None:
        self._memory, self._chance, self._share = memory, chance, share

    def read(self, address: int, size_bytes: int) -> bytes:
        """As asked for, but for some words."""
        content = bytearray(self._memory.read(address, size_bytes))
        words = len(content) // 8
        for at in self._chance.sample(range(words), int(words * self._share + self._chance.random())):
            content[8 * at : 8 * at + 8] = hostile_number(self._chance).to_bytes(8, "little")
        return bytes(content)


def hostile_number(chance: random.Random) -> int:
    """One that is likely to be off by much, or by little."""
    return chance.choice((*NUMBERS, chance.getrandbits(64), chance.getrandbits(22)))


def changed(content: bytearray, chance: random.Random) -> bytes:
    """Numbers in its tables that lead anywhere, bytes changed all over it, another end."""
    sections_at = int.from_bytes(content[40:48], "little")
    for _ in range(chance.randrange(5)):
        start = chance.choice((16, 64, sections_at, sections_at + 64 * chance.randrange(24)))
        at, size = start + 2 * chance.randrange(24), chance.choice((2, 4, 8))
        content[at : at + size] = (hostile_number(chance) & (1 << 8 * size) - 1).to_bytes(size, "little")
    for at in chance.sample(range(len(content)), chance.choice((0, 0, 50, 2000))):
        content[at] = chance.randrange(256)
    return bytes(content[: len(content) - chance.choice((0, 0, 0, 100, 10000, 1 << 20))])


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(seed=st.integers(0, 1 << 40))
def test_only_errors_of_ours_come_of_any_executable_and_memory(seed: int, running: list[Running], opened: Open) -> None:
    """All that `prepare` asks: of executables with anything in them, and of memory that says something else."""
    chance = random.Random(seed)
    program = chance.choice(running)
    memory = ProcessMemory(PROC, program.pid)
    share = chance.choice((0.0, 0.0, 0.001, 0.1))
    noisy = Noisy(memory, chance, share) if share else memory
    try:
        elf = opened(changed(bytearray(program.path.read_bytes()), chance), search_bytes=64 * MIB)
        elf.gnu_build_id()
        module = find_module(elf, noisy, chance.choice((0, 0, 0, -(1 << 63), 1 << 63)), 344)
        find_variables(elf, noisy, module, 0)
        variables = find_variables(elf, memory, replace(module, **wrong(chance)), 0)
        load_bias(elf, read_mapped_files(PROC / str(program.pid)), noisy)
        mbuckets = chance.choice((variables.mbuckets or 0, hostile_number(chance)))
        BucketReader(memory, program_of(module), variables, mbuckets).refresh(Limits())
    except OomHeapDumperError:
        pass
    finally:
        memory.close()


def wrong(chance: random.Random) -> dict[str, Any]:
    """Some of a module's numbers, as its own memory may have them."""
    names = ("functions", "funcnametab", "cutab", "pclntable", "ftab", "text")
    return {name: hostile_number(chance) for name in chance.sample(names, chance.randrange(3))}


def program_of(module: Module) -> Program:
    """One of Go 1.27."""
    return Program(go_version="go1.27", go_build_id=None, record=layouts.COUNTS, bias=0, module=module, mappings=())
