"""Names and lines of addresses, with inlined calls, from Go's pclntab.

A rendering of runtime/symtab.go and runtime/symtabinl.go. Addresses here are as linked. A table that is damaged gives
frames without a name, never an exception.
"""

from __future__ import annotations

import struct
from bisect import bisect_right
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Protocol

from sidecar.goheap.frames import Frame
from sidecar.goheap.layouts import FUNC, FUNCDATA_INLINE_TREE, INLINED_CALL, PCDATA_INLINE_TREE_INDEX, GoLayout
from sidecar.goheap.module import Module

_NONE = (1 << 32) - 1
_MAX_NAME_BYTES = 1 << 16
_MAX_STEPS = 1 << 16
_MAX_INLINED = 1024


class Loaded(Protocol):
    """An executable as it is laid out in memory."""

    def at(self, address: int) -> tuple[memoryview | bytes, int]:
        """A buffer and the index in it of the byte at an address; raises IndexError if nothing is loaded there."""
        ...

    def until_nul(self, address: int, max_bytes: int) -> bytes:
        """The bytes before the next NUL; raises IndexError if nothing is loaded there."""
        ...


@dataclass(frozen=True, slots=True)
class _Function:
    entry: int
    name_at: int
    pcfile: int
    pcln: int
    cu_offset: int
    start_line: int
    func_id: int
    inline_index: int
    inline_tree: int | None


class LineTable:
    """Answers questions about addresses; each function and table is decoded once."""

    def __init__(self, loaded: Loaded, module: Module, layout: GoLayout) -> None:
        """``module`` must be of the executable: `check` says whether it is."""
        self._loaded = loaded
        self._module = module
        self._layout = layout
        self._functions: dict[int, _Function] = {}
        self._tables: dict[tuple[int, int], tuple[list[int], list[int]]] = {}
        self._names: dict[int, str] = {}

    def frame(self, return_pc: int) -> Frame | None:
        """The innermost call that returns to an address (``CallersFrames`` of that one address); None outside of Go."""
        function = self._function(return_pc)
        if function is None:
            return None
        pc = return_pc - 1 if return_pc > function.entry else return_pc
        index = self._inline_index(function, pc)
        inlined = self._inlined_call(function, index)
        name_at, start_line = (inlined[1], inlined[3]) if inlined else (function.name_at, function.start_line)
        file, line = self._position(function, pc)
        return Frame(
            pc=pc,
            name=self._name(name_at),
            file=file,
            line=line,
            start_line=start_line,
            entry=function.entry,
            inlined=inlined is not None,
        )

    def name(self, pc: int) -> str | None:
        """The function at an address, inlined or not (``FuncForPC``); None outside of Go."""
        function = self._function(pc)
        if function is None:
            return None
        inlined = self._inlined_call(function, self._inline_index(function, pc))
        return self._name(inlined[1] if inlined else function.name_at)

    def expand_last(self, return_pc: int) -> list[int]:
        """The addresses that stand for the callers inlined around the last address of a cut stack, itself included.

        As ``runtime_expandFinalInlineFrame``.
        """
        pc = return_pc - 1
        function = self._function(pc)
        if function is None:
            return [return_pc]
        index = self._inline_index(function, pc)
        if index < 0:
            return [return_pc]
        expanded, callee = [], 0
        for _ in range(_MAX_INLINED):
            inlined = self._inlined_call(function, index)
            func_id = inlined[0] if inlined else function.func_id
            if func_id != self._layout.func_ids.wrapper or callee in self._layout.func_ids.panics:
                expanded.append(pc + 1)
            callee = func_id
            if inlined is None:
                break
            pc = function.entry + inlined[2]
            index = self._inline_index(function, pc)
        return expanded

    def _function(self, pc: int) -> _Function | None:
        module = self._module
        if not module.minpc <= pc < module.maxpc:
            return None
        try:
            index = self._entry_index(pc - module.text)
            found = self._functions.get(index)
            if found is None:
                found = self._functions[index] = self._read_function(index)
        except (IndexError, struct.error):
            return None
        return found

    def _entry_index(self, offset: int) -> int:
        """The last entry of the table of functions that begins at or before an offset in the text."""
        data, base = self._loaded.at(self._module.ftab)
        low, high = 0, self._module.functions
        while low + 1 < high:
            middle = (low + high) // 2
            if int.from_bytes(data[base + 8 * middle : base + 8 * middle + 4], "little") <= offset:
                low = middle
            else:
                high = middle
        return low

    def _read_function(self, index: int) -> _Function:
        data, base = self._loaded.at(self._module.ftab)
        entry_offset, at = struct.unpack_from("<II", data, base + 8 * index)
        data, base = self._loaded.at(self._module.pclntable + at)
        _, name_at, _, _, _, pcfile, pcln, pcdatas, cu_offset, start_line, func_id, _, funcdatas = FUNC.unpack_from(
            data, base
        )
        tables = base + FUNC.size
        inline_index = inline_tree = 0
        if pcdatas > PCDATA_INLINE_TREE_INDEX:
            (inline_index,) = struct.unpack_from("<I", data, tables + 4 * PCDATA_INLINE_TREE_INDEX)
        if funcdatas > FUNCDATA_INLINE_TREE:
            (inline_tree,) = struct.unpack_from("<I", data, tables + 4 * (pcdatas + FUNCDATA_INLINE_TREE))
        has_tree = funcdatas > FUNCDATA_INLINE_TREE and inline_tree != _NONE
        return _Function(
            entry=self._module.text + entry_offset,
            name_at=name_at,
            pcfile=pcfile,
            pcln=pcln,
            cu_offset=cu_offset,
            start_line=start_line,
            func_id=func_id,
            inline_index=inline_index,
            inline_tree=self._module.gofunc + inline_tree if has_tree else None,
        )

    def _inline_index(self, function: _Function, pc: int) -> int:
        return -1 if function.inline_tree is None else self._value(function, function.inline_index, pc)

    def _inlined_call(self, function: _Function, index: int) -> tuple[int, int, int, int] | None:
        """Function number, name, parent's place and first line of an inlined call; None for the function itself."""
        if index < 0 or function.inline_tree is None:
            return None
        try:
            data, base = self._loaded.at(function.inline_tree)
            func_id, name_at, parent, start_line = INLINED_CALL.unpack_from(data, base + index * INLINED_CALL.size)
        except (IndexError, struct.error):
            return None
        return func_id, name_at, parent, start_line

    def _position(self, function: _Function, pc: int) -> tuple[str, int]:
        number = self._value(function, function.pcfile, pc)
        line = self._value(function, function.pcln, pc)
        entry = function.cu_offset + number
        if number < 0 or line < 0 or entry >= self._module.cutab_entries:
            return "?", 0
        try:
            data, base = self._loaded.at(self._module.cutab)
            (offset,) = struct.unpack_from("<I", data, base + 4 * entry)
        except (IndexError, struct.error):
            return "?", 0
        if offset >= self._module.filetab_bytes:
            return "?", 0
        return self._text(self._module.filetab + offset), line

    def _value(self, function: _Function, table: int, pc: int) -> int:
        """What a table says of an address (``pcvalue``); -1 where it says nothing."""
        if table == 0:
            return -1
        key = (function.entry, table)
        decoded = self._tables.get(key)
        if decoded is None:
            ends, values = [], []
            try:
                for end, value in self._steps(function.entry, table):
                    ends.append(end)
                    values.append(value)
            except IndexError:
                pass
            decoded = self._tables[key] = ends, values
        index = bisect_right(decoded[0], pc)
        return decoded[1][index] if index < len(decoded[1]) else -1

    def _steps(self, entry: int, table: int) -> Iterator[tuple[int, int]]:
        """The table's runs: before which address which value holds (``step``)."""
        data, at = self._loaded.at(self._module.pctab + table)
        pc, value = entry, -1
        for step in range(_MAX_STEPS):
            delta, at = _varint(data, at)
            if delta == 0 and step:
                return
            value += -(delta >> 1) - 1 if delta & 1 else delta >> 1
            advance, at = _varint(data, at)
            pc += advance * self._module.quantum
            yield pc, value

    def _name(self, offset: int) -> str:
        if offset <= 0:
            return ""
        name = self._names.get(offset)
        if name is None:
            name = self._names[offset] = self._text(self._module.funcnametab + offset)
        return name

    def _text(self, address: int) -> str:
        try:
            return self._loaded.until_nul(address, _MAX_NAME_BYTES).decode("utf-8", "replace")
        except IndexError:
            return ""


def _varint(data: memoryview | bytes, at: int) -> tuple[int, int]:
    result = shift = 0
    while True:
        byte = data[at]
        at += 1
        result |= (byte & 0x7F) << shift
        if byte < 0x80:
            return result & _NONE, at
        shift += 7
        if shift > 35:
            raise IndexError
