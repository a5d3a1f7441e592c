"""How much memory a heap profile explains: the sum of ``inuse_space`` over its samples. Pure.

The fields are those of ``profile.proto`` of google/pprof: 1 sample_type, 2 sample, 6 string_table of Profile; 1 type of
ValueType; 2 value of Sample, packed or not.
"""

from __future__ import annotations

import gzip
import zlib
from collections.abc import Iterator

from sidecar.core.profile_check import ProfileCheck
from sidecar.errors import PprofError

_MAX_RAW_BYTES = 512 << 20
_KIND = b"inuse_space"


def inuse_bytes(content: bytes) -> int | None:
    """The bytes in use by a profile's account; None if it isn't a whole heap profile with at least one sample."""
    check = ProfileCheck(_MAX_RAW_BYTES)
    try:
        check.feed(content)
        check.finish()
        return _sum(gzip.decompress(content))
    except (PprofError, OSError, EOFError, zlib.error, ValueError, IndexError):
        return None


def _sum(raw: bytes) -> int:
    kinds: list[int] = []
    samples: list[bytes] = []
    texts: list[bytes] = []
    for number, value in _fields(raw):
        if not isinstance(value, bytes):
            continue
        if number == 1:
            kinds.append(next((one for at, one in _fields(value) if at == 1 and isinstance(one, int)), 0))
        elif number == 2:
            samples.append(value)
        elif number == 6:
            texts.append(value)
    column = [texts[kind] for kind in kinds].index(_KIND)
    return sum(_values(sample)[column] for sample in samples)


def _values(sample: bytes) -> list[int]:
    values: list[int] = []
    for number, value in _fields(sample):
        if number == 2:
            values += [value] if isinstance(value, int) else _varints(value)
    return values


def _fields(data: bytes) -> Iterator[tuple[int, int | bytes]]:
    at = 0
    while at < len(data):
        tag, at = _varint(data, at)
        size, at = _varint(data, at)
        if tag & 7 == 0:
            yield tag >> 3, size
        elif tag & 7 == 2:
            if at + size > len(data):
                raise ValueError("a field is cut short")
            yield tag >> 3, data[at : at + size]
            at += size
        else:
            raise ValueError(f"wire type {tag & 7} isn't in profiles")


def _varints(data: bytes) -> list[int]:
    values, at = [], 0
    while at < len(data):
        value, at = _varint(data, at)
        values.append(value)
    return values


def _varint(data: bytes, at: int) -> tuple[int, int]:
    value = shift = 0
    while True:
        byte = data[at]
        at += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value, at
        shift += 7
