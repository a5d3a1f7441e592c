"""Addresses of the runtime's variables: from the symbol table, and in a stripped executable from the runtime's code.

Functions that refer to them: runtime/mprof.go (``mProf_FlushLocked`` walks mbuckets, ``mProf_Flush`` begins with
mProfCycle), runtime/malloc.go (``profilealloc`` reads MemProfileRate), runtime/mgcpacer.go (``gcControllerCommit``).
"""

from __future__ import annotations

import struct
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from sidecar.goheap.code import references
from sidecar.goheap.elf import ElfFile
from sidecar.goheap.errors import UnknownLayoutError
from sidecar.goheap.memory import Memory, UnmappedError
from sidecar.goheap.module import Module, Range

_MAX_FUNCTION_BYTES = 4096
_PIECE_BYTES = 1 << 20
_MAX_SCAN_BYTES = 16 << 20  # a program may have arrays of any size among its zeroed data
_MEMORY_LIMIT_AT = 8  # in gcController


@dataclass(frozen=True, slots=True, kw_only=True)
class Variables:
    """Addresses as linked; None for those that could not be told. ``mbuckets`` is to be proven by what it heads."""

    mbuckets: int | None
    mem_profile_rate: int
    prof_cycle: int | None
    gc_controller: int | None
    allglen: int | None


def find_variables(elf: ElfFile, memory: Memory, module: Module, bias: int) -> Variables:
    """Look them all up. Raises `UnknownLayoutError` if ``MemProfileRate``, which every number needs, isn't found."""
    names = ("mbuckets", "MemProfileRate", "mProfCycle", "gcController", "allglen")
    table = elf.symbols(b"runtime." + name.encode() for name in names)
    symbols = {name: table.get(b"runtime." + name.encode()) for name in names}
    if all(symbols[name] is not None for name in names[:3]):
        rate = symbols["MemProfileRate"]
    else:
        code = _RuntimeCode(elf, memory, module, bias)
        rate = code.first("profilealloc", module.initialized)
        symbols["mbuckets"] = code.first("mProf_FlushLocked", module.zeroed)
        symbols["mProfCycle"] = code.first("mProf_Flush", module.zeroed)
        symbols["gcController"] = code.twice_and_beside("gcControllerCommit", module.zeroed, _MEMORY_LIMIT_AT)
    if rate is None:
        raise UnknownLayoutError("runtime.MemProfileRate isn't where the known versions of Go have it")
    return Variables(
        mbuckets=symbols["mbuckets"],
        mem_profile_rate=rate,
        prof_cycle=symbols["mProfCycle"],
        gc_controller=symbols["gcController"],
        allglen=symbols["allglen"],
    )


def zeroed_pointers(memory: Memory, module: Module, bias: int) -> Iterator[tuple[int, int]]:
    """Addresses, as linked, and values of all words in the module's zeroed data that could be pointers."""
    for low, high in module.zeroed:
        limit = min(high, low + _MAX_SCAN_BYTES)
        for start in range(low, limit, _PIECE_BYTES):
            end = min(start + _PIECE_BYTES, limit)
            try:
                piece = memory.read(start + bias, (end - start) & ~7)
            except UnmappedError:
                continue
            for at, (value,) in enumerate(struct.iter_unpack("<Q", piece)):
                if 1 << 16 <= value < 1 << 56 and value % 8 == 0:
                    yield start + 8 * at, value


class _RuntimeCode:
    """The code of the runtime's functions, found by name through the pclntab."""

    def __init__(self, elf: ElfFile, memory: Memory, module: Module, bias: int) -> None:
        self._elf, self._memory, self._module, self._bias = elf, memory, module, bias

    def first(self, function: str, ranges: Iterable[Range]) -> int | None:
        """The first variable inside of the ranges that a function refers to."""
        return next(iter(self._references(function, ranges)), None)

    def twice_and_beside(self, function: str, ranges: Iterable[Range], distance: int) -> int | None:
        """The first variable that a function refers to more than once, and to its field at a distance."""
        targets = self._references(function, ranges)
        for target in targets:
            if targets.count(target) > 1 and target + distance in targets:
                return target
        return None

    def _references(self, function: str, ranges: Iterable[Range]) -> list[int]:
        bounds = self._bounds(b"runtime." + function.encode())
        if bounds is None:
            return []
        start, end = bounds
        try:
            code = self._memory.read(start + self._bias, min(end - start, _MAX_FUNCTION_BYTES))
        except UnmappedError:
            return []
        ranges = tuple(ranges)
        found = references(self._elf.machine, code, start)
        return [target for target in found if any(low <= target < high for low, high in ranges)]

    def _bounds(self, name: bytes) -> tuple[int, int] | None:
        """Begin and end of a function: its name, the record that has the name, and the entry after its own."""
        module = self._module
        name_at = next(self._find(b"\0" + name + b"\0", module.funcnametab, module.cutab), None)
        if name_at is None:
            return None
        name_offset = name_at + 1 - module.funcnametab
        table_bytes = 8 * (module.functions + 1)
        records = module.pclntable + table_bytes
        limit = records + 256 * module.functions + (1 << 16)  # generous: a record is 44 bytes and its tables' offsets
        for at in self._find(name_offset.to_bytes(4, "little"), records, limit):
            record = at - 4
            if record % 4:
                continue
            needle = (record - module.pclntable).to_bytes(4, "little")
            for entry in self._find(needle, module.ftab, module.ftab + table_bytes):
                if (entry - module.ftab) % 8 == 4:
                    own, _, following = struct.unpack("<III", self._memory.read(entry - 4 + self._bias, 12))
                    return module.text + own, module.text + following
        return None

    def _find(self, needle: bytes, start: int, end: int) -> Iterator[int]:
        """Addresses, as linked, of some bytes; looked for in the file, of which the tables are a plain part."""
        for segment in self._elf.segments:
            if segment.address <= start < segment.address + segment.file_bytes:
                offset = segment.offset + start - segment.address
                size_bytes = min(end, segment.address + segment.file_bytes) - start
                for at in self._elf.find(needle, offset, size_bytes):
                    yield at - segment.offset + segment.address
