"""Writes fields of protocol buffers: the two wire types that pprof uses. Pure."""

from __future__ import annotations

from collections.abc import Sequence


def _varint(value: int) -> bytes:
    """A varint; negative numbers as their two's complement of 64 bits."""
    if 0 <= value < 0x80:
        return _SMALL[value]
    value &= (1 << 64) - 1
    encoded = bytearray()
    while value >= 0x80:
        encoded.append(value & 0x7F | 0x80)
        value >>= 7
    encoded.append(value)
    return bytes(encoded)


_SMALL = tuple(bytes((value,)) for value in range(0x80))


def varint_field(number: int, value: int) -> bytes:
    """A number, also when it is 0, as in a repeated field."""
    return _SMALL[number << 3] + _varint(value)


def number_field(number: int, value: int) -> bytes:
    """A number; left out if it is 0, as that is the default."""
    return varint_field(number, value) if value else b""


def packed(number: int, values: Sequence[int]) -> bytes:
    """A repeated number in one piece."""
    return delimited(number, b"".join(map(_varint, values)))


def delimited(number: int, body: bytes) -> bytes:
    """A message or a text."""
    return _SMALL[number << 3 | 2] + _varint(len(body)) + body
