"""Finds Go's own tables in a process: the pclntab (addresses to names and lines) and runtime.firstmoduledata.

The linker leaves both in every executable, also in a stripped one: the runtime itself needs them (runtime/symtab.go).
"""

from __future__ import annotations

import hashlib
import struct
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import pairwise
from typing import Any, Self

from sidecar.goheap.elf import STEP_BYTES, ElfFile
from sidecar.goheap.errors import UnknownLayoutError
from sidecar.goheap.layouts import PC_HEADER, PC_MAGIC
from sidecar.goheap.memory import Memory, UnmappedError

_PIECE_BYTES = 1 << 20
MODULE_BYTES = 400
_SECTIONS = (b".gopclntab", b".data.rel.ro.gopclntab")
_MAX_FUNCTIONS = 1 << 24
_QUANTA = {"amd64": 1, "arm64": 4}  # bytes that a machine's instructions are multiples of
# Offsets in moduledata; the same from 1.21 to 1.27 as far as here.
_SLICES_AT = {"funcnametab": 8, "cutab": 32, "filetab": 56, "pctab": 80, "pclntable": 104, "ftab": 128}
_BOUNDS_AT = 160  # minpc, maxpc, text, etext, then begin and end of noptrdata, data, bss, noptrbss
FIRST_UNSURE = 256
"""What comes from here on has moved between versions."""


Range = tuple[int, int]
"""Addresses from the first to before the second."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Module:
    """Where a module's tables and variables are. All addresses are as linked: the process has them at + load bias.

    ``address`` is that of the moduledata itself, 0 in snapshots of earlier versions.
    """

    pclntab: int
    quantum: int
    functions: int
    funcnametab: int
    cutab: int
    cutab_entries: int
    filetab: int
    filetab_bytes: int
    pctab: int
    pclntable: int
    ftab: int
    text: int
    minpc: int
    maxpc: int
    gofunc: int
    initialized: tuple[Range, ...]
    zeroed: tuple[Range, ...]
    address: int = 0

    @classmethod
    def from_json(cls, document: dict[str, Any]) -> Self:
        """Read it from the header of a raw snapshot; raises TypeError, ValueError or KeyError for anything else."""
        ranges = ("initialized", "zeroed")
        fields: dict[str, Any] = {name: int(value) for name, value in document.items() if name not in ranges}
        for name in ranges:
            fields[name] = tuple((int(low), int(high)) for low, high in document[name])
        return cls(**fields)


def find_module(elf: ElfFile, memory: Memory, bias: int, gofunc_at: int) -> Module:
    """Find and check the main module of a process that has just been started or runs for long.

    Raises `UnknownLayoutError` if nothing fits; right after an exec that may pass, as tables are relocated first.
    Another `GoHeapError` says that the executable is too large.
    """
    symbol = elf.symbols([b"runtime.firstmoduledata"]).get(b"runtime.firstmoduledata")
    for pclntab in _pclntabs(elf):
        try:
            header = PC_HEADER.unpack(memory.read(pclntab + bias, PC_HEADER.size))
        except UnmappedError:
            continue
        if not _plausible(header):
            continue
        for address in [symbol] if symbol else _pointers_to(elf, memory, bias, pclntab + bias):
            module = _read_module(
                memory, address + bias, bias=bias, pclntab=pclntab, header=header, gofunc_at=gofunc_at
            )
            if module is not None:
                return module
    raise UnknownLayoutError("Go's table of functions (pclntab) isn't where the known versions of Go have it")


def functions_sha256(elf: ElfFile, module: Module) -> str:
    """A digest of the names and places of all functions, which tells programs without a build id apart.

    Raises `GoHeapError` if the executable doesn't have them.
    """
    digest = hashlib.sha256()
    names_bytes = max(0, module.cutab - module.funcnametab)
    for address, size_bytes in ((module.ftab, 8 * module.functions), (module.funcnametab, names_bytes)):
        for piece in elf.loaded(address, size_bytes):
            digest.update(piece)
    return digest.hexdigest()


def _pclntabs(elf: ElfFile) -> Iterator[int]:
    """Where the table may be: in its section, or wherever its magic is when sections have other names."""
    section = elf.section(*_SECTIONS)
    if section is not None:
        yield section.address
    magic = struct.pack("<IHBB", PC_MAGIC, 0, _QUANTA[elf.machine], 8)
    for segment in elf.segments:
        for offset in elf.find(magic, segment.offset, segment.file_bytes):
            address = elf.address_of(offset)
            if address is not None and (section is None or address != section.address):
                yield address


def _plausible(header: tuple[int, ...]) -> bool:
    magic, padding, quantum, pointer_bytes, functions, _, _, *tables = header
    in_order = all(one < following for one, following in pairwise(tables))
    return (
        magic == PC_MAGIC
        and padding == 0
        and quantum in (1, 4)
        and pointer_bytes == 8
        and 0 < functions < _MAX_FUNCTIONS
        and in_order
    )


def _pointers_to(elf: ElfFile, memory: Memory, bias: int, target: int) -> Iterator[int]:
    """Addresses in the loaded data, without bias, that hold a pointer; those that can be written come first."""
    pattern = target.to_bytes(8, "little")
    for segment in sorted(elf.segments, key=lambda segment: not segment.writable):
        for start in range(segment.address, segment.address + segment.file_bytes, _PIECE_BYTES):
            end = min(start + _PIECE_BYTES, segment.address + segment.file_bytes)
            elf.charge(max(end - start, STEP_BYTES))
            try:
                piece = memory.read(start + bias, end - start)
            except UnmappedError:
                continue
            at = piece.find(pattern)
            while at >= 0:
                elf.charge(STEP_BYTES)
                if (start + at) % 8 == 0:
                    yield start + at
                at = piece.find(pattern, at + 1)


def _read_module(
    memory: Memory, address: int, *, bias: int, pclntab: int, header: tuple[int, ...], gofunc_at: int
) -> Module | None:
    """The moduledata at an address; None if its fields contradict the table that it points to."""
    try:
        content = memory.read(address, MODULE_BYTES)
    except UnmappedError:
        return None
    slices = {name: struct.unpack_from("<QQ", content, at) for name, at in _SLICES_AT.items()}
    minpc, maxpc, text, etext, *data = (value - bias for value in struct.unpack_from("<12Q", content, _BOUNDS_AT))
    ranges = tuple(zip(data[::2], data[1::2], strict=True))
    (gofunc,) = struct.unpack_from("<Q", content, gofunc_at)
    functions = header[4]
    offsets = dict(zip(("funcnametab", "cutab", "filetab", "pctab", "pclntable"), header[7:], strict=False))
    if any(slices[name][0] - bias != pclntab + offset for name, offset in offsets.items()):
        return None
    if (
        slices["ftab"][1] != functions + 1
        or not text <= minpc < maxpc <= etext
        or any(low > high for low, high in ranges)
    ):
        return None
    return Module(
        pclntab=pclntab,
        quantum=header[2],
        functions=functions,
        **{name: pointer - bias for name, (pointer, _) in slices.items()},
        cutab_entries=slices["cutab"][1],
        filetab_bytes=slices["filetab"][1],
        text=text,
        minpc=minpc,
        maxpc=maxpc,
        gofunc=gofunc - bias,
        initialized=ranges[:2],
        zeroed=ranges[2:],
        address=address - bias,
    )
