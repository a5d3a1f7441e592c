"""What was or may be changed, on the disk before the kernel hears of it: so that the next start can undo it.

One JSON file for each cgroup, named by its identity, in a directory that outlives the sidecar's process.
"""

from __future__ import annotations

import contextlib
import json
import os
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal, get_args

from sidecar.core.guard import Span
from sidecar.guard.cgroup_view import CgroupId
from sidecar.guard.errors import GuardJournalError
from sidecar.kernel.cgroup_files import CgroupVersion

EntryMode = Literal["brake", "raise", "oom-group"]

_FORMAT = 1
_MODES = frozenset(get_args(EntryMode))
_SUFFIX = ".json"
_PART_SUFFIX = ".part"
_DAMAGED_SUFFIX = ".damaged"
_BOOT_ID = Path("/proc/sys/kernel/random/boot_id")


@dataclass(frozen=True, slots=True, kw_only=True)
class Change:
    """A file that is or may be changed: values of ``spans`` are ours, ``original_bytes`` is to be restored.

    None is "max". In ``memory.oom.group`` they aren't bytes, but 0 and 1.
    """

    file: str
    original_bytes: int | None
    spans: tuple[Span, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Entry:
    """What may be changed in one cgroup, in the order of restoring. ``path`` is for people only.

    ``view`` is the directory that the cgroup was found below: only that one can tell that it has vanished.
    """

    id: CgroupId
    view: CgroupId
    version: CgroupVersion
    mode: EntryMode
    path: str
    changes: tuple[Change, ...]


class Journal:
    """A directory of entries. An entry of an earlier boot is none: its cgroup is gone with the kernel it was in."""

    def __init__(self, directory: Path) -> None:
        """The directory is made when the first entry is written."""
        self._directory = directory

    def write(self, entry: Entry) -> None:
        """Put an entry onto the disk in place of the one before. Waits for the disk; raises `GuardJournalError`."""
        path = self._path(entry.id)
        part = path.with_suffix(_PART_SUFFIX)
        try:
            text = json.dumps({"format": _FORMAT, "boot": _boot_id(), **asdict(entry)})
            self._directory.mkdir(mode=0o750, parents=True, exist_ok=True)
            with part.open("w") as stream:
                stream.write(text)
                stream.flush()
                os.fsync(stream.fileno())
            part.rename(path)
            self._sync()
        except OSError as error:
            raise GuardJournalError(
                f"{path} can't be written ({error.strerror}), so its cgroup isn't touched",
                "make the spool writable",
            ) from error

    def read(self, wanted: CgroupId) -> Entry | None:
        """The entry of a cgroup, if there is a sound one of this boot."""
        with contextlib.suppress(OSError, GuardJournalError):
            return _parse(self._path(wanted))
        return None

    def entries(self) -> Iterator[tuple[Path, Entry | GuardJournalError]]:
        """Every entry of this boot, or why one can't be read; those of earlier boots are dropped on the way.

        Raises `GuardJournalError` if the directory can't be read.
        """
        try:
            paths = sorted(self._directory.iterdir())
        except FileNotFoundError:
            return
        except OSError as error:
            raise GuardJournalError(
                f"{self._directory} can't be read ({error.strerror})", "let the sidecar read it"
            ) from error
        for path in paths:
            if path.suffix == _SUFFIX:
                yield from self._entry(path)
            elif path.suffix == _PART_SUFFIX:
                path.unlink(missing_ok=True)

    def _entry(self, path: Path) -> Iterator[tuple[Path, Entry | GuardJournalError]]:
        try:
            entry = _parse(path)
        except GuardJournalError as error:
            yield path, error
            return
        except OSError as error:
            yield path, GuardJournalError(f"{path} can't be read ({error.strerror})", "let the sidecar read it")
            return
        if entry is None:
            path.unlink(missing_ok=True)
        else:
            yield path, entry

    def set_aside(self, path: Path) -> Path:
        """Keep a damaged file for people, where it isn't read again. Raises `GuardJournalError`."""
        aside = path.with_suffix(_DAMAGED_SUFFIX)
        try:
            path.rename(aside)
        except OSError as error:
            raise GuardJournalError(f"{path} can't be set aside ({error.strerror})", "delete it") from error
        return aside

    def remove(self, gone: CgroupId) -> None:
        """Drop an entry: its cgroup is as it was, or isn't any more. Raises `GuardJournalError`."""
        path = self._path(gone)
        try:
            path.unlink(missing_ok=True)
            if self._directory.is_dir():
                self._sync()
        except OSError as error:
            raise GuardJournalError(f"{path} can't be removed ({error.strerror})", "delete it") from error

    def _path(self, of: CgroupId) -> Path:
        return self._directory / f"{of.device:x}-{of.inode:x}{_SUFFIX}"

    def _sync(self) -> None:
        fd = os.open(self._directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            os.fsync(fd)
        finally:
            os.close(fd)


def _boot_id() -> str:
    return _BOOT_ID.read_text().strip()


def _parse(path: Path) -> Entry | None:
    """None for an entry of an earlier boot. Raises OSError, and `GuardJournalError` for what isn't an entry."""
    text = path.read_bytes()
    try:
        found = json.loads(text)
        if found["format"] == _FORMAT and found["boot"] != _boot_id():
            return None
        return _parse_entry(found)
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise GuardJournalError(
            f"{path} isn't an entry of the guard's journal ({error!r})",
            "look whether a limit of a container is unusual",
        ) from error


def _parse_entry(found: dict[str, Any]) -> Entry:
    if found["format"] != _FORMAT or found["mode"] not in _MODES or found["version"] not in {1, 2}:
        raise ValueError("an entry of another kind")
    return Entry(
        id=_parse_id(found["id"]),
        view=_parse_id(found["view"]),
        version=found["version"],
        mode=found["mode"],
        path=str(found["path"]),
        changes=tuple(_parse_change(change) for change in found["changes"]),
    )


def _parse_id(found: dict[str, object]) -> CgroupId:
    device, inode = found["device"], found["inode"]
    if not isinstance(device, int) or not isinstance(inode, int):
        raise TypeError(f"no identity: {found!r}")
    return CgroupId(device=device, inode=inode)


def _parse_change(found: dict[str, object]) -> Change:
    file, original, spans = found["file"], found["original_bytes"], found["spans"]
    if not isinstance(file, str) or not file.startswith("memory.") or "/" in file:
        raise ValueError(f"no file of a memory cgroup: {file!r}")
    if not (original is None or isinstance(original, int)) or not isinstance(spans, list):
        raise TypeError(f"no number: {original!r}")
    parsed = tuple(Span(**{key: int(value) for key, value in span.items()}) for span in spans)
    if any(span.step_bytes <= 0 for span in parsed):
        raise ValueError("a step of nothing")
    return Change(file=file, original_bytes=original, spans=parsed)
