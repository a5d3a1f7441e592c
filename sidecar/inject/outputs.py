"""Writes texts to standard output and to files."""

from __future__ import annotations

import contextlib
import os
import stat
import sys
import tempfile
from pathlib import Path

from sidecar.core.printable import printable
from sidecar.errors import OomHeapDumperError


def write_stdout(data: bytes) -> None:
    """Write all of it at once."""
    sys.stdout.buffer.write(data)
    sys.stdout.buffer.flush()


def write_file(path: Path, data: bytes) -> None:
    """Replace a file at once, keeping its mode and owner, or make it.

    A link stays one: what it points to is written. Devices and pipes are written into. Raises OomHeapDumperError.
    """
    try:
        try:
            there = path.stat()
        except FileNotFoundError:
            there = None
        if there is not None and not stat.S_ISREG(there.st_mode):
            with path.open("wb") as file:
                file.write(data)
        else:
            _replace(Path(os.path.realpath(path)), data, there)
    except OSError as error:
        message = f"{printable(str(path))}: {error.strerror}: choose a file that can be written"
        raise OomHeapDumperError(message) from None


def _replace(path: Path, data: bytes, there: os.stat_result | None) -> None:
    descriptor, part = tempfile.mkstemp(prefix=f".{path.name}.", dir=path.parent)
    try:
        with os.fdopen(descriptor, "wb") as file:
            file.write(data)
            if there is not None:
                _give(file.fileno(), there)
            os.fchmod(file.fileno(), 0o666 & ~_umask() if there is None else stat.S_IMODE(there.st_mode))
        Path(part).replace(path)
    except BaseException:
        with contextlib.suppress(OSError):
            Path(part).unlink()
        raise


def _give(descriptor: int, there: os.stat_result) -> None:
    """To the owner and the group of the file before, as far as we may; of two, the group alone is often allowed."""
    for owner in (there.st_uid, -1):
        with contextlib.suppress(OSError):
            os.fchown(descriptor, owner, there.st_gid)
            return


def _umask() -> int:
    mask = os.umask(0o022)
    os.umask(mask)
    return mask
