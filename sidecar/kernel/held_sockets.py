"""Which of the pod's listening sockets a process holds, and whether it still holds one: the links in /proc/PID/fd."""

from __future__ import annotations

import os
from collections.abc import Collection
from pathlib import Path

from sidecar.errors import ASK_CHECK, NotPermittedError

# A process may hold a million; servers open those that they listen on first. The rest of them isn't looked at.
_MOST_DESCRIPTORS = 1 << 16


def find_descriptors(proc: Path, pid: int, inodes: Collection[int]) -> dict[int, int]:
    """The descriptor by which a process holds each of these sockets that it does hold; none if it has ended.

    Raises `NotPermittedError`.
    """
    links = {_link(inode): inode for inode in inodes}
    found: dict[int, int] = {}
    try:
        with os.scandir(proc / str(pid) / "fd") as entries:
            for _, entry in zip(range(_MOST_DESCRIPTORS), entries, strict=False):
                try:
                    inode = links.get(os.readlink(entry.path))  # noqa: PTH115 -- no Path object for each of thousands
                except FileNotFoundError:
                    continue
                if inode is not None:
                    found[inode] = int(entry.name)
    except PermissionError as error:
        raise NotPermittedError(f"the descriptors of process {pid} aren't readable: {ASK_CHECK}") from error
    except OSError:
        return {}
    return found


def holds(proc: Path, pid: int, descriptor: int, inode: int) -> bool:
    """Whether this descriptor is still that socket's: one link, whatever else there is. False where it isn't seen."""
    try:
        return os.readlink(f"{proc}/{pid}/fd/{descriptor}") == _link(inode)  # noqa: PTH115 -- this is asked in a crisis
    except OSError:
        return False


def _link(inode: int) -> str:
    return f"socket:[{inode}]"
