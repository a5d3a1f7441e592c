"""The runtime's variables are found in stripped executables, of machines too that we can't run."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from sidecar.goheap import UnknownLayoutError, layouts, prepare
from sidecar.goheap import reader as reader_module
from sidecar.goheap.code import references
from sidecar.goheap.elf import ElfFile
from sidecar.goheap.memory import UnmappedError
from sidecar.goheap.module import Module, find_module
from sidecar.goheap.symbols import Variables, find_variables
from tests.goheap.programs import CELLS, NEWEST, VERSIONS, Cell, Running, build

MACHINES = ("amd64", "arm64")
STATIC = (
    tuple(Cell(version, "plain", machine) for version in VERSIONS for machine in MACHINES)
    if len(CELLS) > len(VERSIONS)
    else (Cell("1.27", "plain", "arm64"), Cell("1.27", "plain", "amd64"), Cell("1.21", "plain", "amd64"))
)


class FileMemory:
    """An executable's memory before it runs."""

    def __init__(self, elf: ElfFile) -> None:
        self._elf = elf

    def read(self, address: int, size_bytes: int) -> bytes:
        """From the file; zeros where it has none."""
        for segment in self._elf.segments:
            inside = address - segment.address
            if inside >= 0 and inside + size_bytes <= segment.memory_bytes:
                in_file = max(0, min(size_bytes, segment.file_bytes - inside))
                content = self._elf.read(segment.offset + inside, in_file)
                return content + bytes(size_bytes - len(content))
        raise UnmappedError(hex(address))


class Stripped(ElfFile):
    """The same executable without a symbol table and without names of sections."""

    def symbols(self, _: Iterable[bytes]) -> dict[bytes, int]:
        """None."""
        return {}

    def section(self, *_: bytes) -> None:
        """None."""


def found_in(elf: ElfFile, version: str) -> tuple[Module, Variables]:
    """What a reader would find."""
    memory = FileMemory(elf)
    module = find_module(elf, memory, 0, layouts.layout_of(f"go{version}").gofunc_at)
    return module, find_variables(elf, memory, module, 0)


@pytest.mark.parametrize("cell", STATIC, ids=str)
def test_code_and_symbol_table_agree(cell: Cell) -> None:
    """What is read out of the runtime's code is what the linker wrote down, even with no sections to go by."""
    descriptor = os.open(build(cell), os.O_RDONLY)
    try:
        with_symbols = found_in(ElfFile(descriptor), cell.version)
        without = found_in(Stripped(descriptor), cell.version)
    finally:
        os.close(descriptor)
    assert with_symbols[0] == without[0]
    for name in ("mbuckets", "mem_profile_rate", "prof_cycle", "gc_controller"):
        assert getattr(with_symbols[1], name) == getattr(without[1], name) is not None, name
    assert with_symbols[1].allglen is not None


@pytest.mark.parametrize("cell", [NEWEST, Cell("1.21", "stripped"), Cell("1.27", "stripped-pie")], ids=str)
def test_the_list_is_found_by_its_content_where_the_code_says_nothing(
    cell: Cell, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One pointer in the zeroed data leads to a bucket whose hash is right, and it is the list's head."""
    with Running(build(cell), rate=1) as program:
        program.tell("stacks 100")
        with prepare(Path("/proc"), program.pid) as reader:
            expected = reader._buckets._mbuckets
        monkeypatch.setattr(
            reader_module, "find_variables", lambda *args: replace(find_variables(*args), mbuckets=None)
        )
        with prepare(Path("/proc"), program.pid) as reader:
            assert reader._buckets._mbuckets == expected
            assert reader._buckets.known_buckets > 100


@pytest.mark.parametrize("what", ["nothing", "a bucket"])
def test_data_full_of_pointers_is_not_looked_through_for_ever(what: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """A program may have nothing else, and each of them may look like the list's head."""
    tried = 0

    def endless(*_: object) -> Iterator[tuple[int, int]]:
        nonlocal tried
        while True:
            tried += 1
            yield wrong, 8 if what == "nothing" else head

    with Running(build(Cell("1.27", "plain")), rate=1) as program:
        with prepare(Path("/proc"), program.pid) as reader:
            head, allglen = reader._buckets.readings().head, reader._buckets._variables.allglen
        assert allglen is not None
        wrong = allglen
        monkeypatch.setattr(
            reader_module, "find_variables", lambda *args: replace(find_variables(*args), mbuckets=None)
        )
        monkeypatch.setattr(reader_module, "zeroed_pointers", endless)
        with pytest.raises(UnknownLayoutError):
            prepare(Path("/proc"), program.pid)
    assert tried <= (1 << 18 if what == "nothing" else 10)


def test_references_of_both_machines() -> None:
    """Loads and addresses relative to the instruction, in either direction; everything else is passed over."""
    amd64 = b"\x90\x48\x8b\x0d\x10\x00\x00\x00" + b"\x8b\x05\xf0\xff\xff\xff" + b"\x48\x8d\x15\x00\x01\x00\x00\xc3"
    assert list(references("amd64", amd64, 0x1000)) == [0x1018, 0xFFE, 0x1115]
    words = (
        0xB0000000,  # adrp x0, one page on
        0xF9400401,  # ldr x1, [x0, #8]
        0xB9400C02,  # ldr w2, [x0, #12]
        0x91004000,  # add x0, x0, #16
        0xF0FFFFE3,  # adrp x3, one page back
        0xF9400064,  # ldr x4, [x3]
        0xF94000C5,  # ldr x5, [x6]: no page known
        0xD65F03C0,  # ret
    )
    code = b"".join(word.to_bytes(4, "little") for word in words)
    assert list(references("arm64", code, 0x401000)) == [0x402008, 0x40200C, 0x402010, 0x400000]
