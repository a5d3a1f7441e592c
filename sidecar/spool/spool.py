"""The bounded directory that owns each dump until the store confirmed it.

    SPOOL/queue/NAMESPACE/POD/DUMP_ID/heap-8080.pb.gz    complete, to be uploaded, then removed by the uploader
    SPOOL/queue/NAMESPACE/POD/DUMP_ID/.manifest.json     the draft of a manifest, sealed by renaming it
    SPOOL/queue/NAMESPACE/POD/DUMP_ID/.heap-newest.raw   a heap as it lay in memory, until a profile was made of it
    SPOOL/queue/NAMESPACE/POD/DUMP_ID/.part-*            being written
    SPOOL/baseline/...                                   profiles of calm times, linked into each dump
    SPOOL/scratch/...                                    snapshots in hand, that only a kill makes a dump of

A file appears under its name only when it is whole and on the disk: temporary name, fsync, rename, fsync of the folder.
The uploader removes folders that it has emptied, at any moment, so that a folder may have to be made anew. Older dumps
make room for newer ones, in our own bound and on a full disk; for a baseline none has to go.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import shutil
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import BinaryIO

from sidecar.core import keys
from sidecar.core.keys import DumpId
from sidecar.errors import SpoolError, StartupError
from sidecar.spool.room import Dropped, Room, dump_folders
from sidecar.spool.writer import SpoolWriter, in_folder, sync_folder

_BASELINE = "baseline"
_SCRATCH = "scratch"
_RETRY_PAUSE_S = 1.0
_DRAFTS = {keys.DRAFT_NAME: keys.MANIFEST_NAME, keys.RAW_DRAFT_NAME: keys.RAW_NAME}


class Spool:
    """Files of dumps on their way to the store. Safe to use from several threads and beside the uploader."""

    def __init__(self, directory: Path, size_bytes: int, pod_path: str, *, on_drop: Dropped) -> None:
        """``on_drop`` hears of each dump that had to make room, with its size."""
        self.directory = directory
        self._queue = directory / keys.QUEUE_FOLDER
        self._pod = self._queue / pod_path
        self._room = Room(directory, size_bytes, on_drop)
        self._drafts_lock = threading.Lock()
        self._sealed_early: set[Path] = set()
        self._exclusive: int | None = None

    def open(self) -> int:
        """Make the directory ready for the watch and take over what an earlier run left; the number of files left.

        Raises `StartupError` if it can't be written or another watch uses it.
        """
        self.prepare()
        try:
            self._exclusive = os.open(self.directory / ".watch.lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
            fcntl.flock(self._exclusive, fcntl.LOCK_EX | fcntl.LOCK_NB)
            for folder_name in (_BASELINE, _SCRATCH):
                shutil.rmtree(self.directory / folder_name, ignore_errors=True)
            for folder in dump_folders(self._queue):
                for part in folder.glob(f"{keys.PART_PREFIX}*"):
                    part.unlink()
            self.seal_all()
        except BlockingIOError as error:
            raise StartupError(
                f"the spool {self.directory} is in use by another watch: give this one its own SPOOL_DIR"
            ) from error
        except OSError as error:
            raise self._unusable(error) from error
        return self.pending_files()

    def prepare(self) -> None:
        """Make the directory, to add a dump beside a running watch. Raises `StartupError` if it can't be written."""
        try:
            self._pod.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise self._unusable(error) from error

    def _unusable(self, error: OSError) -> StartupError:
        return StartupError(
            f"the spool {self.directory} can't be written ({error.strerror}): "
            "mount an emptyDir there that our user may write, or set SPOOL_DIR"
        )

    def close(self) -> None:
        """Let another watch use the directory."""
        if self._exclusive is not None:
            os.close(self._exclusive)
            self._exclusive = None

    def holds(self, dump_id: DumpId) -> bool:
        """Whether anything of a dump still waits for the uploader."""
        return (self._pod / str(dump_id)).exists()

    def pending(self) -> set[str]:
        """The files that wait for the uploader, each as ``NAMESPACE/POD/DUMP_ID/NAME``."""
        return {"/".join(parts) for parts in self._files() if keys.is_for_upload(parts)}

    def pending_files(self) -> int:
        """How many files wait for the uploader."""
        return len(self.pending())

    def left_files(self) -> int:
        """How many files stay if everything ends now: those that wait for the uploader, and drafts nobody sealed."""
        return sum(keys.is_for_upload(parts) or parts[-1] in _DRAFTS for parts in self._files())

    def write(self, dump_id: DumpId, name: str) -> SpoolWriter:
        """Begin a file of a dump. Use as a context manager; it is kept only if the block ends well."""
        return SpoolWriter(self._room, self._pod / str(dump_id), name, dump_id)

    def write_baseline(self, name: str) -> SpoolWriter:
        """Begin a baseline profile; an earlier one of this name is replaced."""
        return SpoolWriter(self._room, self.directory / _BASELINE, name, None)

    def put(self, dump_id: DumpId, name: str, content: bytes, *, patience_s: float = 0.0) -> None:
        """Keep a small file of a dump; where that fails, try again for ``patience_s``. Raises `SpoolError`."""
        _patiently(lambda: self._put(dump_id, name, content), patience_s)

    def draft_manifest(self, dump_id: DumpId, content: bytes, *, patience_s: float = 0.0) -> None:
        """Keep what is known of a dump so far; replaces an earlier draft. Nothing of it is uploaded yet.

        Does nothing for a dump that `seal_all` has sealed: its manifest may be in the store, where none is replaced.
        Where it fails it is tried again for ``patience_s``. Raises `SpoolError`.
        """

        def draft() -> None:
            with self._drafts_lock:
                if self._pod / str(dump_id) not in self._sealed_early:
                    self._put(dump_id, keys.DRAFT_NAME, content)

        _patiently(draft, patience_s)

    def seal(self, dump_id: DumpId) -> None:
        """The dump is complete: its manifest may be uploaded, and a raw snapshot that nothing was made of."""
        try:
            self._seal(self._pod / str(dump_id))
        except OSError as error:
            raise SpoolError(f"manifest of {dump_id}: {error.strerror}") from error

    def raw_draft(self, dump_id: DumpId) -> Path:
        """Where the raw snapshot of a dump lies until a profile was made of it."""
        return self._pod / str(dump_id) / keys.RAW_DRAFT_NAME

    def drop_raw_draft(self, dump_id: DumpId) -> None:
        """A profile was made of it."""
        with contextlib.suppress(OSError):
            self.raw_draft(dump_id).unlink()

    def adopt_raw_draft(self, dump_id: DumpId, source: Path) -> None:
        """Make a snapshot that was in hand the raw snapshot of a dump. Raises `SpoolError`."""
        target = self.raw_draft(dump_id)
        try:
            with source.open("rb") as file:
                os.fsync(file.fileno())
            self._room.until_it_fits(dump_id, lambda: in_folder(target.parent, lambda: source.rename(target)))
            sync_folder(target.parent)
        except OSError as error:
            raise SpoolError(f"{source.name} can't be moved into {dump_id}: {error.strerror}") from error

    def scratch_path(self, name: str) -> Path:
        """A place for a file that nobody misses after a crash. Raises `SpoolError` if there can be none."""
        folder = self.directory / _SCRATCH
        try:
            folder.mkdir(exist_ok=True)
        except OSError as error:
            raise SpoolError(f"{folder} can't be made: {error.strerror}") from error
        return folder / name

    def keep_in_hand(
        self, name: str, write: Callable[[BinaryIO], int], expected_bytes: int, *, older_dumps_may_go: bool = False
    ) -> Path:
        """Keep a snapshot that may be replaced by the next one; it isn't synced.

        What was under that name stays until the new one is whole. With ``older_dumps_may_go`` they make room for it.
        Raises `SpoolError`, and what ``write`` raises.
        """
        path = self.scratch_path(name)
        if not self._room.make(expected_bytes, dumps_may_go=older_dumps_may_go):
            raise SpoolError(f"no room to keep {name}: raise SPOOL_SIZE")
        part = path.with_name(f"{keys.PART_PREFIX}{name}")
        try:
            with in_folder(path.parent, lambda: part.open("wb")) as file:
                write(file)
            part.replace(path)
        except OSError as error:
            raise SpoolError(f"{name} can't be kept in the spool: {error.strerror}") from error
        finally:
            with contextlib.suppress(OSError):
                part.unlink()
        return path

    def seal_all(self) -> None:
        """Nobody will finish what was begun: let all drafts be uploaded as they are.

        One that can't be sealed stays, and counts in `left_files`.
        """
        with self._drafts_lock:
            for folder in dump_folders(self._queue):
                with contextlib.suppress(OSError):
                    if self._seal(folder):
                        self._sealed_early.add(folder)

    def link(self, dump_id: DumpId, name: str, source: Path) -> None:
        """Add a baseline to a dump without copying it."""
        folder = self._pod / str(dump_id)
        try:
            self._room.until_it_fits(dump_id, lambda: in_folder(folder, lambda: os.link(source, folder / name)))
        except OSError as error:
            raise SpoolError(f"{source.name} can't be linked into {dump_id}: {error.strerror}") from error

    def drop_baseline(self, name: str) -> None:
        """Nobody wants this baseline any more. Should it stay, it goes at the next start."""
        with contextlib.suppress(OSError):
            (self.directory / _BASELINE / name).unlink()

    def _put(self, dump_id: DumpId, name: str, content: bytes) -> None:
        with self.write(dump_id, name) as writer:
            writer.write(content)

    def _files(self) -> Iterator[tuple[str, ...]]:
        """The path of each regular file below the queue, in its parts."""
        for folder, _, names in os.walk(self._queue):
            for name in names:
                path = Path(folder, name)
                if not path.is_symlink():
                    yield path.relative_to(self._queue).parts

    def _seal(self, folder: Path) -> bool:
        """Whether there was a draft of a manifest. Raises OSError."""
        sealed = {draft: self._rename(folder, draft, name) for draft, name in _DRAFTS.items()}
        if any(sealed.values()):
            sync_folder(folder)
        return sealed[keys.DRAFT_NAME]

    def _rename(self, folder: Path, draft: str, name: str) -> bool:
        """Whether there was one."""
        try:
            self._room.until_it_fits(keys.parse_dump_id(folder.name), lambda: (folder / draft).rename(folder / name))
        except FileNotFoundError:
            return False
        return True


def _patiently(act: Callable[[], None], patience_s: float) -> None:
    """Act, again every second while it raises `SpoolError` and patience lasts: a full disk may have room soon."""
    ends_s = time.monotonic() + patience_s
    while True:
        try:
            act()
        except SpoolError:
            if time.monotonic() >= ends_s:
                raise
            time.sleep(_RETRY_PAUSE_S)
        else:
            return
