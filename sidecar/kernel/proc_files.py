"""Reads files of /proc whose length another process decides, and never more of one than was asked for.

A process may declare any part of its memory to be its arguments or its environment (PR_SET_MM_MAP of prctl(2) needs no
capability), and mount a hundred thousand times in a namespace of its own: the kernel then serves gigabytes.
"""

from __future__ import annotations

import os
from pathlib import Path

_PIECE_BYTES = 1 << 16


def read_start(path: Path, most_bytes: int) -> bytes:
    """The file, or its first ``most_bytes`` if it is longer: as many bytes may have been cut. Raises OSError."""
    content = b""
    fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        while len(content) < most_bytes:
            piece = os.read(fd, min(_PIECE_BYTES, most_bytes - len(content)))
            if not piece:
                break
            content += piece
    finally:
        os.close(fd)
    return content


def read_lines(path: Path, most_bytes: int = 1 << 20) -> str:
    """The file, or the whole lines among its first ``most_bytes`` if it is longer. Raises OSError.

    The mounts of a container come before those that its processes add, and 65,536 groups in a status are shorter.
    """
    content = read_start(path, most_bytes)
    if len(content) >= most_bytes:
        content = content[: content.rfind(b"\n") + 1]
    return content.decode(errors="replace")
