"""Who has to make room: the spool's bound, the full disk, and the older dumps that go for the newer."""

from __future__ import annotations

import contextlib
import errno
import os
import shutil
import threading
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

from sidecar.core import keys
from sidecar.core.keys import DumpId
from sidecar.core.retention import HeldDump, plan_eviction

_FULL = {errno.ENOSPC, errno.EDQUOT}

T = TypeVar("T")

Dropped = Callable[[DumpId, int], None]


class Room:
    """The room in a spool. Safe to use from several threads and beside the uploader."""

    def __init__(self, directory: Path, size_bytes: int, on_drop: Dropped) -> None:
        """``on_drop`` hears of each dump that had to go, with its size."""
        self._directory = directory
        self._size_bytes = size_bytes
        self._on_drop = on_drop
        self._lock = threading.Lock()

    def make(self, needed_bytes: int, *, dumps_may_go: bool, spared: DumpId | None = None) -> bool:
        """Whether ``needed_bytes`` more fit, where ``dumps_may_go`` after dropping some if need be.

        Never ``spared``, the dump that grows or is to come, nor any that is still being taken. Drops nothing where that
        wouldn't be enough.
        """
        with self._lock:
            excess = _tree_bytes(self._directory) + needed_bytes - self._size_bytes
            return excess <= 0 or (dumps_may_go and self._evict(excess, spared))

    def free_disk(self, dump_id: DumpId | None) -> bool:
        """The disk itself is full: drop the next dump in favour of ``dump_id``, whatever our own bound says.

        False if none could be dropped; None drops none.
        """
        with self._lock:
            return dump_id is not None and self._evict(1, dump_id)

    def until_it_fits(self, dump_id: DumpId | None, act: Callable[[], T]) -> T:
        """Act; as long as the disk is full and another dump than ``dump_id`` can go, drop it and act again.

        ``act`` must be repeatable. Raises OSError.
        """
        while True:
            try:
                return act()
            except OSError as error:
                if not is_full(error) or not self.free_disk(dump_id):
                    raise

    def _evict(self, excess_bytes: int, spared: DumpId | None) -> bool:
        folders: dict[DumpId, Path | None] = {}
        for folder in dump_folders(self._directory / keys.QUEUE_FOLDER):
            dump_id = keys.parse_dump_id(folder.name)
            if dump_id is not None:
                folders[dump_id] = None if _is_being_taken(folder) else folder
        if spared is not None:
            folders[keys.parse_dump_id(str(spared)) or spared] = None
        # What stays counts for the order of an incident, and frees nothing.
        held = [
            HeldDump(dump_id=dump_id, size_bytes=_tree_bytes(folder) if folder is not None else 0)
            for dump_id, folder in folders.items()
        ]
        plan = plan_eviction(held, excess_bytes)
        if sum(dump.size_bytes for dump in plan) < excess_bytes:
            return False
        freed = 0
        for dump in plan:
            dropped = folders[dump.dump_id]
            if dropped is None:
                continue
            shutil.rmtree(dropped, ignore_errors=True)
            if not dropped.exists():
                freed += dump.size_bytes
                self._on_drop(dump.dump_id, dump.size_bytes)
        return freed >= excess_bytes


def dump_folders(queue: Path) -> list[Path]:
    """Folders of all dumps in a queue, also of another pod that used this directory before."""
    return [folder for folder in queue.glob("*/*/*") if folder.is_dir() and not folder.is_symlink()]


def _is_being_taken(folder: Path) -> bool:
    """Whether something in it isn't whole yet: what is written of the dump later would stand alone."""
    with contextlib.suppress(OSError):
        return any(name.startswith(".") for name in os.listdir(folder))  # noqa: PTH208 -- names alone, of each dump
    return False


def is_full(error: OSError) -> bool:
    """Whether the disk had no room."""
    return error.errno in _FULL


def _tree_bytes(folder: Path) -> int:
    """Bytes of the files below a folder; files that vanish meanwhile count nothing."""
    total = 0
    for parent, _, names in os.walk(folder):
        for name in names:
            with contextlib.suppress(OSError):
                total += os.lstat(f"{parent}/{name}").st_size
    return total
