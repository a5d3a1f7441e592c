"""Finds what the trees of inlined calls are counted from, where a version of Go isn't known. Pure.

``moduledata.gofunc`` has moved between versions. With a wrong one names of inlined calls are wrong and look right, so
it is taken only where the trees of many functions make sense: each call names a function of the table of names and
stands inside of the function that it was inlined into (runtime/symtabinl.go).
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from dataclasses import replace

from sidecar.goheap.errors import UnknownLayoutError
from sidecar.goheap.layouts import FUNC, FUNCDATA_INLINE_TREE, INLINED_CALL
from sidecar.goheap.memory import Memory, UnmappedError
from sidecar.goheap.module import FIRST_UNSURE, MODULE_BYTES, Module

_MOST_EXAMINED = 4096
_ENOUGH_TREES = 64
_SOUND_SHARE = 0.9
_NO_TREE = (1 << 32) - 1


def find_trees(memory: Memory, module: Module, bias: int) -> Module:
    """The module with the ``gofunc`` from which the program's trees make sense, as it is if it has no trees.

    Raises `UnknownLayoutError` if no word of the moduledata is that.
    """
    trees = list(_trees(memory, module, bias))
    for candidate in (module.gofunc, *_words(memory, module, bias)):
        sound = sum(_is_sound(memory, module, bias, candidate + tree, size_bytes) for tree, size_bytes in trees)
        if sound >= _SOUND_SHARE * len(trees):
            return replace(module, gofunc=candidate)
    raise UnknownLayoutError("the trees of inlined calls aren't where the known versions of Go have them")


def _words(memory: Memory, module: Module, bias: int) -> Iterator[int]:
    """What the moduledata points to, behind what has been in its place in all versions."""
    try:
        content = memory.read(module.address + FIRST_UNSURE + bias, MODULE_BYTES - FIRST_UNSURE)
    except UnmappedError:
        return
    for (word,) in struct.iter_unpack("<Q", content):
        yield word - bias


def _trees(memory: Memory, module: Module, bias: int) -> Iterator[tuple[int, int]]:
    """Offsets of trees, and the sizes of the functions that they are of, from all over the program."""
    found = 0
    for index in range(0, module.functions - 1, max(1, module.functions // _MOST_EXAMINED)):
        try:
            entry, at, following = struct.unpack("<III", memory.read(module.ftab + 8 * index + bias, 12))
            record = module.pclntable + at + bias
            fields = FUNC.unpack(memory.read(record, FUNC.size))
            pcdatas, funcdatas = fields[7], fields[12]
            if funcdatas <= FUNCDATA_INLINE_TREE:
                continue
            place = record + FUNC.size + 4 * (pcdatas + FUNCDATA_INLINE_TREE)
            tree = int.from_bytes(memory.read(place, 4), "little")
        except UnmappedError:
            continue
        if tree != _NO_TREE:
            yield tree, following - entry
            found += 1
            if found == _ENOUGH_TREES:
                return


def _is_sound(memory: Memory, module: Module, bias: int, tree: int, size_bytes: int) -> bool:
    """Whether the first call of a tree could be one."""
    try:
        _, name_at, parent, _ = INLINED_CALL.unpack(memory.read(tree + bias, INLINED_CALL.size))
        if not 0 < name_at < module.cutab - module.funcnametab or not 0 <= parent < size_bytes:
            return False
        return memory.read(module.funcnametab + name_at - 1 + bias, 1) == b"\0"
    except UnmappedError:
        return False
