"""What the executable of a process says: whether it is a Go program, of which version and build.

The formats are those of Go's ``debug/buildinfo`` (magic, flags, inline strings since Go 1.18) and
``cmd/internal/buildid`` (an ELF note named "Go"), in the sections that the linker names for them or, in a file without
sections, in the segments that hold them.
"""

from __future__ import annotations

import os
import struct
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, Literal

from sidecar.core.model import GoProgram
from sidecar.errors import ASK_CHECK, NotPermittedError, TargetGoneError, UnreadableExecutableError

_BUILDINFO_MAGIC = b"\xff Go buildinf:"
_BUILDINFO_HEADER_BYTES = 32
_INLINE_STRINGS = 0x2
_BUILDINFO_ALIGNMENT = 16
_GO_NOTE = b"Go\0\0"
_BUILDINFO_SECTION, _NOTE_SECTION = b".go.buildinfo", b".note.go.buildid"
# Any of these is Go's linker's; the function table is there in whatever a `strip` has left.
_GO_SECTIONS = {_BUILDINFO_SECTION, _NOTE_SECTION, b".gopclntab", b".data.rel.ro.gopclntab", b".gosymtab"}
_PT_LOAD, _PT_NOTE, _PF_W = 1, 4, 2
ByteOrder = Literal["<", ">"]
"""As `struct` writes it."""

_MAX_SECTIONS = 4096
_MAX_NAMES_BYTES = 1 << 20
_MAX_OFFSET = 1 << 42
_MAX_NAME_BYTES = 64
_MAX_SECTION_READ_BYTES = 4096
# Linux starts nothing with a larger table of segments (load_elf_phdrs in fs/binfmt_elf.c).
_MAX_SEGMENTS_BYTES = 1 << 16
_MAX_SEGMENT_READ_BYTES = {_PT_LOAD: 1 << 16, _PT_NOTE: 4096}
# Of all segments together: Go's linker makes one of each type that can have what is looked for.
_MAX_SEGMENTS_READ_BYTES = 1 << 20
_MAX_VERSION_BYTES = 100
_MAX_LENGTH_BYTES = 10  # of 64 bits, seven in a byte


def read_go_program(proc: Path, pid: int) -> GoProgram | None:
    """The Go program behind a process; None if it isn't one, for certain.

    Raises `UnreadableExecutableError` if it may be one or not, `NotPermittedError` if the executable isn't ours to
    read, `TargetGoneError` if the process has ended.
    """
    try:
        with (proc / str(pid) / "exe").open("rb") as file:
            return parse_go_program(file)
    except PermissionError as error:
        raise NotPermittedError(f"the executable of process {pid} isn't readable: {ASK_CHECK}") from error
    except OSError as error:
        raise TargetGoneError(f"process {pid} has ended") from error


def executable_identity(proc: Path, pid: int) -> tuple[int, int] | None:
    """Device and inode of a process's executable, cheap to compare; None where it isn't visible."""
    try:
        status = os.stat(proc / str(pid) / "exe")  # noqa: PTH116 -- the link's target in the process's own root
    except OSError:
        return None
    return status.st_dev, status.st_ino


def parse_go_program(file: BinaryIO) -> GoProgram | None:
    """Read an ELF file's Go build information; None if it has none or isn't ELF.

    Raises `UnreadableExecutableError` if the file is broken, or has no sections and its segments don't say either.
    """
    try:
        elf = _Elf.open(file)
        if elf is None:
            return None
        sections = dict(elf.sections())
        if sections:
            if not sections.keys() & _GO_SECTIONS:
                return None
            return GoProgram(
                go_version=parse_buildinfo_version(sections.get(_BUILDINFO_SECTION, b"")),
                build_id=parse_go_note(sections.get(_NOTE_SECTION, b""), elf.order),
            )
        notes, data = elf.segments(_PT_NOTE, 0), elf.segments(_PT_LOAD, _PF_W)
        build_id = next(filter(None, (parse_go_note(note, elf.order) for note in notes)), None)
        buildinfo = next(filter(None, map(_find_buildinfo, data)), b"")
        version = parse_buildinfo_version(buildinfo)
    except (struct.error, ValueError, IndexError, OverflowError) as error:
        raise UnreadableExecutableError(f"the executable is no sound ELF file: {error}") from error
    if not buildinfo and build_id is None:
        raise UnreadableExecutableError("the executable has no sections that tell what it is")
    return GoProgram(go_version=version, build_id=build_id)


def parse_buildinfo_version(content: bytes) -> str | None:
    """The Go version in a ``.go.buildinfo`` section; None for the pointer form of Go before 1.18.

    Raises IndexError or ValueError for one that is broken.
    """
    if not content.startswith(_BUILDINFO_MAGIC) or not content[15] & _INLINE_STRINGS:
        return None
    length, position = 0, _BUILDINFO_HEADER_BYTES
    for number in range(_MAX_LENGTH_BYTES):  # unsigned LEB128, as in encoding/binary
        byte = content[position]
        length |= (byte & 0x7F) << 7 * number
        position += 1
        if byte < 0x80:
            version = content[position : position + length]
            return version.decode("ascii") if len(version) == length <= _MAX_VERSION_BYTES else None
    raise ValueError("the length of its version has no end")


def parse_go_note(content: bytes, order: ByteOrder) -> str | None:
    """The Go build id among ELF notes; None if none of them is Go's. Raises ValueError for one that isn't ASCII."""
    position = 0
    while position + 12 <= len(content):
        name_bytes, description_bytes, _ = struct.unpack_from(f"{order}III", content, position)
        name_at = position + 12
        description_at = name_at + (name_bytes + 3) // 4 * 4
        if content[name_at : name_at + name_bytes] == _GO_NOTE:
            return content[description_at : description_at + description_bytes].decode("ascii")
        position = description_at + (description_bytes + 3) // 4 * 4
    return None


def _find_buildinfo(data: bytes) -> bytes:
    """What follows the magic in a data segment, whose first thing it is but for alignment and relocated data."""
    at = data.find(_BUILDINFO_MAGIC)
    while at >= 0 and at % _BUILDINFO_ALIGNMENT:
        at = data.find(_BUILDINFO_MAGIC, at + 1)
    return data[at:] if at >= 0 else b""


@dataclass(frozen=True, slots=True, kw_only=True)
class _Layout:
    """Where elf(5) puts what is needed, for one width of addresses (``word`` in struct's letters)."""

    word: str
    table_offsets_at: int  # e_phoff, e_shoff
    table_sizes_at: int  # e_phentsize, e_phnum, e_shentsize, e_shnum, e_shstrndx
    segment_bytes: int
    segment_flags_at: int
    segment_offset_at: int
    segment_size_at: int
    section_bytes: int
    section_offset_at: int  # sh_offset, sh_size


_LAYOUTS = {
    1: _Layout(
        word="I",
        table_offsets_at=0x1C,
        table_sizes_at=0x2A,
        segment_bytes=32,
        segment_flags_at=0x18,
        segment_offset_at=0x04,
        segment_size_at=0x10,
        section_bytes=40,
        section_offset_at=0x10,
    ),
    2: _Layout(
        word="Q",
        table_offsets_at=0x20,
        table_sizes_at=0x36,
        segment_bytes=56,
        segment_flags_at=0x04,
        segment_offset_at=0x08,
        segment_size_at=0x20,
        section_bytes=64,
        section_offset_at=0x18,
    ),
}


class _Elf:
    """The tables of an ELF file of either width and byte order. What isn't sound raises ValueError or struct.error."""

    def __init__(self, file: BinaryIO, header: bytes) -> None:
        layout = _LAYOUTS.get(header[4])
        if layout is None or header[5] not in (1, 2):
            raise ValueError("neither 32 nor 64 bits, or of no byte order")
        self.order: ByteOrder = "<" if header[5] == 1 else ">"
        self._file, self._layout = file, layout
        self._segments_at, self._sections_at = self._unpack(layout.word * 2, header, layout.table_offsets_at)
        sizes = self._unpack("HHHHH", header, layout.table_sizes_at)
        self._segment_bytes, self._segment_count, self._section_bytes, self._section_count, self._names_index = sizes

    @classmethod
    def open(cls, file: BinaryIO) -> _Elf | None:
        """The ELF file; None if it is something else."""
        header = file.read(64)
        return cls(file, header) if header.startswith(b"\x7fELF") else None

    def sections(self) -> Iterator[tuple[bytes, bytes]]:
        """Name and beginning of each section; nothing where the table of sections is missing."""
        layout = self._layout
        if self._section_count == 0:
            return
        if self._section_bytes != layout.section_bytes or self._section_count > _MAX_SECTIONS:
            raise ValueError("its table of sections has another form")
        table = self._read(self._sections_at, self._section_bytes * self._section_count)
        names = self._section(table, self._names_index, _MAX_NAMES_BYTES)
        for index in range(self._section_count):
            (name_at,) = self._unpack("I", table, index * self._section_bytes)
            name = names[name_at : name_at + _MAX_NAME_BYTES].partition(b"\0")[0]
            wanted = _MAX_SECTION_READ_BYTES if name in (_BUILDINFO_SECTION, _NOTE_SECTION) else 0
            yield name, self._section(table, index, wanted)

    def segments(self, kind: int, flags: int) -> Iterator[bytes]:
        """The beginning of each segment of a type that has these flags."""
        layout, left_bytes = self._layout, _MAX_SEGMENTS_READ_BYTES
        if self._segment_count and self._segment_bytes != layout.segment_bytes:
            raise ValueError("its table of segments has another form")
        table_bytes = self._segment_bytes * self._segment_count
        if table_bytes > _MAX_SEGMENTS_BYTES:
            raise ValueError(f"its table of segments has {table_bytes} bytes")
        table = self._read(self._segments_at, table_bytes)
        for at in range(0, len(table), layout.segment_bytes):
            (has_kind,) = self._unpack("I", table, at)
            (has_flags,) = self._unpack("I", table, at + layout.segment_flags_at)
            if has_kind == kind and has_flags & flags == flags:
                (offset,) = self._unpack(layout.word, table, at + layout.segment_offset_at)
                (size,) = self._unpack(layout.word, table, at + layout.segment_size_at)
                content = self._read(offset, min(size, _MAX_SEGMENT_READ_BYTES[kind], left_bytes))
                left_bytes -= len(content)
                yield content

    def _section(self, table: bytes, index: int, most_bytes: int) -> bytes:
        at = index * self._section_bytes + self._layout.section_offset_at
        offset, size = self._unpack(self._layout.word * 2, table, at)
        return self._read(offset, min(size, most_bytes)) if most_bytes else b""

    def _read(self, offset: int, size: int) -> bytes:
        if offset > _MAX_OFFSET:
            raise ValueError("a table or section of it lies beyond any file")
        self._file.seek(offset)
        return self._file.read(size)

    def _unpack(self, form: str, data: bytes, at: int) -> tuple[int, ...]:
        return struct.unpack_from(self.order + form, data, at)
