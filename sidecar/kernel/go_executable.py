"""What the executable of a process says: whether it is a Go program, of which version and build.

The formats are those of Go's ``debug/buildinfo`` (magic, flags, inline strings since Go 1.18) and
``cmd/internal/buildid`` (an ELF note named "Go"), in the sections that the linker names for them.
"""

from __future__ import annotations

import os
import struct
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

from sidecar.core.model import GoProgram
from sidecar.errors import NotPermittedError, TargetGoneError

_BUILDINFO_MAGIC = b"\xff Go buildinf:"
_BUILDINFO_HEADER_BYTES = 32
_INLINE_STRINGS = 0x2
_GO_NOTE = b"Go\0\0"
_MAX_SECTIONS = 4096
_MAX_NAMES_BYTES = 1 << 20
_MAX_SECTION_READ_BYTES = 4096


def read_go_program(proc: Path, pid: int) -> GoProgram | None:
    """The Go program behind a process; None if it isn't one.

    Raises `NotPermittedError` if the executable isn't ours to read, `TargetGoneError` if the process has ended.
    """
    try:
        with (proc / str(pid) / "exe").open("rb") as file:
            return parse_go_program(file)
    except PermissionError as error:
        raise NotPermittedError(f"the executable of process {pid} isn't readable: run with its UID and GID") from error
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
    """Read an ELF file's Go build information; None if it has none or isn't ELF."""
    version, build_id = None, None
    try:
        for name, content in _sections(file, {b".go.buildinfo", b".note.go.buildid"}):
            if name == b".go.buildinfo":
                version = parse_buildinfo_version(content)
            else:
                build_id = parse_go_note(content)
    except (struct.error, ValueError, IndexError):
        return None
    return None if version is None else GoProgram(go_version=version, build_id=build_id)


def parse_buildinfo_version(content: bytes) -> str | None:
    """The Go version in a ``.go.buildinfo`` section; None for the pointer form of Go before 1.18."""
    if not content.startswith(_BUILDINFO_MAGIC) or not content[15] & _INLINE_STRINGS:
        return None
    length, shift, position = 0, 0, _BUILDINFO_HEADER_BYTES
    while True:  # unsigned LEB128, as in encoding/binary
        byte = content[position]
        length |= (byte & 0x7F) << shift
        position += 1
        shift += 7
        if byte < 0x80:
            break
    version = content[position : position + length]
    return version.decode("ascii") if len(version) == length <= 100 else None


def parse_go_note(content: bytes) -> str | None:
    """The Go build id in a ``.note.go.buildid`` section."""
    name_bytes, description_bytes = struct.unpack_from("<II", content)
    if content[12 : 12 + name_bytes] != _GO_NOTE:
        return None
    return content[12 + name_bytes : 12 + name_bytes + description_bytes].decode("ascii")


def _sections(file: BinaryIO, wanted: set[bytes]) -> Iterator[tuple[bytes, bytes]]:
    """Name and beginning of each wanted section of a 64-bit little-endian ELF file (elf(5))."""
    header = file.read(64)
    if header[:6] != b"\x7fELF\x02\x01":
        return
    (table_offset,) = struct.unpack_from("<Q", header, 0x28)
    entry_bytes, count, names_index = struct.unpack_from("<HHH", header, 0x3A)
    if entry_bytes < 64 or not 0 < count <= _MAX_SECTIONS or names_index >= count:
        return
    file.seek(table_offset)
    table = file.read(entry_bytes * count)
    names_offset, names_size = struct.unpack_from("<QQ", table, names_index * entry_bytes + 0x18)
    file.seek(names_offset)
    names = file.read(min(names_size, _MAX_NAMES_BYTES))
    for index in range(count):
        (name_at,) = struct.unpack_from("<I", table, index * entry_bytes)
        name = names[name_at : names.find(b"\0", name_at)]
        if name in wanted:
            offset, size = struct.unpack_from("<QQ", table, index * entry_bytes + 0x18)
            file.seek(offset)
            yield name, file.read(min(size, _MAX_SECTION_READ_BYTES))
