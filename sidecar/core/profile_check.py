"""Verifies that bytes are a non-empty pprof profile, while they stream by and in constant memory.

The form is perftools.profiles.Profile of google/pprof's ``profile.proto``: a gzipped protobuf message whose field 1 is
``sample_type`` and field 2 ``sample``, both repeated messages. Only the top level is walked; the sample types' names
are indexes into the string table and not followed.
"""

from __future__ import annotations

import zlib

from sidecar.errors import EmptyProfileError, PprofError

_GZIP_MAGIC = b"\x1f\x8b"
_FIELD_SAMPLE_TYPE = 1
_FIELD_SAMPLE = 2
_HIGHEST_FIELD = 15  # doc_url, the last one of the proto; an unknown field says that this is something else
# 50,000 stacks make about 190,000 fields. Each costs our own process time: a packed bomb of a million empty ones takes
# 0.1 s of one core, of the longest numbers 1.2 s, where the cap on the unpacked bytes alone would let minutes pass.
_MAX_FIELDS = 1_000_000
_PIECE_BYTES = 1 << 16
_VARINT, _FIXED64, _BYTES, _FIXED32 = 0, 1, 2, 5


class ProfileCheck:
    """Feed it the body as it arrives, then ask `finish`. Any error is a `PprofError` that says what the body is."""

    def __init__(self, max_raw_bytes: int) -> None:
        """``max_raw_bytes`` caps the body after gunzip: a gzip bomb ends there."""
        self._gunzip = zlib.decompressobj(wbits=31)
        self._max_raw_bytes = max_raw_bytes
        self._raw_bytes = 0
        self._first = b""
        self._walk = _TopLevel()

    def feed(self, piece: bytes) -> None:
        """Take the next bytes of the body."""
        if len(self._first) < 2:
            self._first = (self._first + piece)[:64]
            if len(self._first) >= 2 and not self._first.startswith(_GZIP_MAGIC):
                raise PprofError(f"the body isn't gzip: {_describe(self._first)}")
        try:
            while piece:
                raw = self._gunzip.decompress(piece, _PIECE_BYTES)
                self._raw_bytes += len(raw)
                if self._raw_bytes > self._max_raw_bytes:
                    raise PprofError(f"the body unpacks to more than {self._max_raw_bytes} bytes")
                self._walk.feed(raw)
                if self._gunzip.eof:
                    if self._gunzip.unused_data:
                        raise PprofError("there are bytes after the end of the gzip stream")
                    return
                piece = self._gunzip.unconsumed_tail
        except zlib.error as error:
            raise PprofError(f"the body is broken gzip: {error}") from error

    def finish(self) -> int:
        """The number of samples, at least one."""
        if not self._gunzip.eof:
            raise PprofError("the body ended in the middle of its gzip stream")
        return self._walk.finish()


class _TopLevel:
    """An incremental walk over the fields of one protobuf message that skips what is inside them."""

    def __init__(self) -> None:
        self._pending = b""
        self._skip = 0
        self._counts = [0] * (_HIGHEST_FIELD + 1)

    def feed(self, raw: bytes) -> None:
        if self._skip >= len(raw):
            self._skip -= len(raw)
            return
        data = self._pending + raw[self._skip :]
        position = self._walk(data)
        self._pending = data[position:]
        self._skip = max(0, position - len(data))
        if len(self._pending) > 20:
            raise PprofError("the body isn't a pprof profile: a field has no end")
        if sum(self._counts) > _MAX_FIELDS:
            raise PprofError(f"the body has more than {_MAX_FIELDS} fields")

    def finish(self) -> int:
        if self._pending or self._skip:
            raise PprofError("the profile is cut short")
        if not self._counts[_FIELD_SAMPLE_TYPE]:
            raise PprofError("the body isn't a pprof profile: it has no sample type")
        if not self._counts[_FIELD_SAMPLE]:
            raise EmptyProfileError("the profile has no samples yet")
        return self._counts[_FIELD_SAMPLE]

    def _walk(self, data: bytes) -> int:
        """Count the fields that begin in ``data``; the end of the last one whose head is whole, perhaps beyond it.

        One loop without calls for what nearly all fields are: less than 128 bytes behind a head of two.
        """
        counts, position, last = self._counts, 0, len(data) - 1
        while position < last:
            tag, short = data[position], data[position + 1]
            if tag & 7 == _BYTES and 8 <= tag < 0x80 and short < 0x80:
                counts[tag >> 3] += 1
                position += 2 + short
                continue
            after = _end_of_field(data, position)
            if after is None:
                break
            counts[tag >> 3] += 1
            position = after
        return position


def _end_of_field(data: bytes, position: int) -> int | None:
    """Where the next field begins, perhaps beyond the data at hand; None if this one's head isn't whole yet."""
    tag = data[position]  # a field up to 15 has a tag of one byte
    field, wire = tag >> 3, tag & 7
    if not 1 <= field <= _HIGHEST_FIELD:
        raise PprofError("the body isn't a pprof profile: it has a field that profiles don't have")
    if wire in (_VARINT, _BYTES):
        value = _varint(data, position + 1)
        return value and value[1] + (value[0] if wire == _BYTES else 0)
    if wire in (_FIXED64, _FIXED32):
        return position + 1 + (8 if wire == _FIXED64 else 4)
    raise PprofError(f"the body isn't a pprof profile: wire type {wire}")


def _varint(data: bytes, position: int) -> tuple[int, int] | None:
    value = shift = 0
    while position < len(data):
        byte = data[position]
        position += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value, position
        shift += 7
        if shift > 63:
            raise PprofError("the body isn't a pprof profile: a number has no end")
    return None


def _describe(first: bytes) -> str:
    if first.lstrip().lower().startswith((b"<!doctype", b"<html", b"<")):
        return "it looks like HTML"
    return f"it begins with {first[:16]!r}"
