"""What a process has mapped: where its executable lies, and the executable files that a profile names (proc(5))."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from sidecar.errors import ASK_CHECK, NotPermittedError, TargetGoneError, TargetReadError
from sidecar.goheap import raw
from sidecar.goheap.elf import ElfFile
from sidecar.goheap.errors import GoHeapError
from sidecar.goheap.memory import Memory, UnmappedError

_MAX_MAPS_BYTES = 1 << 22
# A program may map as many files as it likes, and make them up. Their build ids are only of use to people.
_MAX_LIBRARIES = 256
_LIBRARY_SEARCH_BYTES = 16 << 20
_ELF_HEADER_BYTES = 64
_DELETED = " (deleted)"
# Of /proc/PID/stat after the name: starttime, startcode, endcode, startstack. An exec draws the last ones anew.
_IMAGE_FIELDS = (19, 23, 24, 25)


@dataclass(frozen=True, slots=True, kw_only=True)
class MappedFile:
    """One line of /proc/PID/maps that has a name."""

    start: int
    end: int
    executable: bool
    offset: int
    path: str


def image_of(process: Path) -> tuple[bytes, ...]:
    """What tells a process and the program it runs from another process of the same number, and from an exec since.

    Raises `TargetGoneError`.
    """
    try:
        fields = (process / "stat").read_bytes().rpartition(b")")[2].split()
        return tuple(fields[index] for index in _IMAGE_FIELDS)
    except (OSError, IndexError) as error:
        raise TargetGoneError(f"{process}: the process has ended") from error


def read_mapped_files(process: Path) -> tuple[MappedFile, ...]:
    """Raises `NotPermittedError` or `TargetGoneError`."""
    try:
        with (process / "maps").open("rb") as file:
            text = file.read(_MAX_MAPS_BYTES).decode("utf-8", "surrogateescape")
    except PermissionError as error:
        raise NotPermittedError(f"{process / 'maps'} isn't readable: {ASK_CHECK}") from error
    except OSError as error:
        raise TargetGoneError(f"{process}: the process has ended") from error
    return tuple(_mapped_files(text))


def load_bias(elf: ElfFile, mapped: Sequence[MappedFile], memory: Memory) -> int:
    """How far the executable lies from where it was linked to: not at all, unless it is position-independent.

    It is known by its header, which is mapped with its first segment. Raises `TargetReadError` if none is.
    """
    header = elf.read(0, _ELF_HEADER_BYTES)
    for file in mapped:
        if file.offset:
            continue
        try:
            if memory.read(file.start, _ELF_HEADER_BYTES) == header:
                return file.start - elf.start_address()
        except UnmappedError:
            continue
    raise TargetReadError("the executable isn't among the mappings of its process")


def executable_mappings(process: Path, mapped: Sequence[MappedFile], elf: ElfFile) -> Iterator[raw.Mapping]:
    """The executable ones with their build ids, as runtime/pprof lists them (parseProcSelfMaps)."""
    try:
        own = str((process / "exe").readlink()).removesuffix(_DELETED)
    except OSError:
        own = ""
    build_ids = {own: elf.gnu_build_id()}
    for file in mapped:
        if not file.executable:
            continue
        if file.path not in build_ids:
            build_ids[file.path] = _build_id(process / "root", file.path) if len(build_ids) <= _MAX_LIBRARIES else ""
        yield raw.Mapping(
            start=file.start, end=file.end, offset=file.offset, path=file.path, build_id=build_ids[file.path]
        )


def _mapped_files(text: str) -> Iterator[MappedFile]:
    for line in text.split("\n"):
        fields = line.split(maxsplit=5)
        if len(fields) < 6:
            continue
        start, _, end = fields[0].partition("-")
        yield MappedFile(
            start=int(start, 16),
            end=int(end, 16),
            executable=fields[1][2:3] == "x",
            offset=int(fields[2], 16),
            path=fields[5].removesuffix(_DELETED),
        )


def _build_id(root: Path, path: str) -> str:
    """The build id of a library; empty where it can't be told. The program chose its path: don't hang on it."""
    if not path.startswith("/"):
        return ""
    try:
        descriptor = os.open(root / path[1:], os.O_RDONLY | os.O_NONBLOCK | os.O_NOFOLLOW | os.O_CLOEXEC)
    except OSError:
        return ""
    try:
        if not stat.S_ISREG(os.fstat(descriptor).st_mode):
            return ""
        return ElfFile(descriptor, search_bytes=_LIBRARY_SEARCH_BYTES).gnu_build_id()
    except GoHeapError:
        return ""
    finally:
        os.close(descriptor)
