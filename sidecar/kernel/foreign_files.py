"""Opens what another container shows us, and trusts neither its links nor what it has put there.

A container may mount and link in its own tree as it likes. An absolute link in there is followed from our own root
(path_resolution(7)), and a pipe keeps whoever opens it waiting.
"""

from __future__ import annotations

import errno
import os
import stat

_STEP = os.O_PATH | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_READ = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC


def open_directory(root: str, path: str, mount_id: str) -> int:
    """Open a directory to open files in: ``path`` below ``root`` (such as /proc/PID/root), by no link below the root.

    Raises OSError: ENOTDIR at a link, EXDEV if it isn't in the very mount that mountinfo has under ``mount_id``.
    """
    names = [name for name in path.split("/") if name]
    if ".." in names:
        raise OSError(errno.EXDEV, "a path that leads upwards", path)
    opened = os.open(root, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        for name in names:
            below = os.open(name, _STEP, dir_fd=opened)
            os.close(opened)
            opened = below
    except OSError:
        os.close(opened)
        raise
    if _mount_of(opened) not in {mount_id, None}:
        os.close(opened)
        raise OSError(errno.EXDEV, "something else is mounted there", path)
    return opened


def open_file(directory: int, name: str) -> int:
    """Open a regular file of the directory's own mount for reading; never waits.

    Raises OSError: ELOOP for a link, EXDEV for anything else that isn't one.
    """
    opened = os.open(name, _READ, dir_fd=directory)
    if not stat.S_ISREG(os.fstat(opened).st_mode) or _mount_of(opened) != _mount_of(directory):
        os.close(opened)
        raise OSError(errno.EXDEV, "not a file of its directory's file system", name)
    return opened


def _mount_of(opened: int) -> str | None:
    """By its number in mountinfo (proc_pid_fdinfo(5)); None on what only looks like Linux and doesn't tell."""
    with open(f"/proc/self/fdinfo/{opened}") as file:  # noqa: PTH123 -- nothing but a descriptor's number in the path
        return next((line.split()[1] for line in file if line.startswith("mnt_id:")), None)
