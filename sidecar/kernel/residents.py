"""Reads name, start and memory of processes, in one cheap read each that waits for no lock of theirs."""

from __future__ import annotations

import os
import resource
from collections.abc import Iterable
from pathlib import Path

from sidecar.core.roll_call import Resident

_READ_BYTES = 1024
# Dead, and dead but not yet waited for.
_DEAD = frozenset({b"X", b"x", b"Z"})


def look(proc: Path, pids: Iterable[int], at_s: float) -> tuple[Resident, ...]:
    """Those of these processes that live, as of ``at_s``. One that has given up its memory is as good as dead."""
    found = (look_at(proc, pid, at_s) for pid in pids)
    return tuple(seen for seen in found if seen is not None and seen.rss_bytes)


def look_at(proc: Path, pid: int, at_s: float = 0.0) -> Resident | None:
    """One process, also if it has given up its memory; None if it is dead. Its name is cut to 15 bytes (proc(5))."""
    try:
        return parse_stat(_read(f"{proc}/{pid}/stat"), page_bytes=resource.getpagesize(), at_s=at_s)
    except OSError:
        return None


def parse_stat(text: bytes, *, page_bytes: int, at_s: float) -> Resident | None:
    r"""/proc/PID/stat (proc_pid_stat(5)); None for a dead process, and for what isn't such a file.

    >>> parse_stat(b"7 (a) b) S 1 7" + b" 0" * 16 + b" 350 4096 3 0\n", page_bytes=4096, at_s=1.0)
    Resident(pid=7, start_ticks=350, name='a) b', rss_bytes=12288, at_s=1.0)
    """
    head, _, tail = text.rpartition(b") ")
    pid, _, name = head.partition(b" (")
    fields = tail.split(maxsplit=22)
    try:
        if fields[0] in _DEAD:
            return None
        return Resident(
            pid=int(pid),
            start_ticks=int(fields[19]),
            name=name.decode(errors="replace"),
            rss_bytes=int(fields[21]) * page_bytes,
            at_s=at_s,
        )
    except (ValueError, IndexError):
        return None


def _read(path: str) -> bytes:
    fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        return os.read(fd, _READ_BYTES)
    finally:
        os.close(fd)
