"""Which variables a function of machine code refers to. Pure.

Both architectures address a variable relative to the instruction: amd64 in one instruction (an offset from RIP), arm64
in two (ADRP gives the page, the next one the place in it). Nothing else is decoded: what isn't a reference looks like
one only by chance, and the caller knows in which range the variable must be.
"""

from __future__ import annotations

import re
import struct
from collections.abc import Iterator

# An optional REX prefix, MOV or LEA (8B, 8D), and a ModRM byte of mode 0 with base 5: RIP plus 32 bits follow.
_AMD64_REFERENCE = re.compile(rb"[\x8b\x8d][\x05\x0d\x15\x1d\x25\x2d\x35\x3d](?=(....))", re.DOTALL)

_ADRP, _ADRP_MASK = 0x90000000, 0x9F000000
_ADD_64, _ADD_64_MASK = 0x91000000, 0xFFC00000
_LOAD_64, _LOAD_32, _LOAD_MASK = 0xF9400000, 0xB9400000, 0xFFC00000
_PAGE = 4096


def references(machine: str, code: bytes, address: int) -> Iterator[int]:
    """Addresses that the code at ``address`` loads from or takes, in order of appearance."""
    return _amd64(code, address) if machine == "amd64" else _arm64(code, address)


def _amd64(code: bytes, address: int) -> Iterator[int]:
    for match in _AMD64_REFERENCE.finditer(code):
        (offset,) = struct.unpack("<i", match[1])
        yield address + match.end() + 4 + offset


def _arm64(code: bytes, address: int) -> Iterator[int]:
    pages: dict[int, int] = {}
    for at, (word,) in enumerate(struct.iter_unpack("<I", code[: len(code) & ~3])):
        target = word & 31
        if word & _ADRP_MASK == _ADRP:
            offset = (word >> 5 & 0x7FFFF) << 2 | word >> 29 & 3
            offset -= (offset & 1 << 20) << 1
            pages[target] = (address + 4 * at & ~(_PAGE - 1)) + offset * _PAGE
            continue
        page = pages.get(word >> 5 & 31)
        immediate = word >> 10 & 0xFFF
        if page is None:
            continue
        if word & _ADD_64_MASK == _ADD_64:
            yield page + immediate
        elif word & _LOAD_MASK == _LOAD_64:
            yield page + immediate * 8
        elif word & _LOAD_MASK == _LOAD_32:
            yield page + immediate * 4
