"""The watch's sign of life: a small file in the spool that the ``health`` command reads."""

from __future__ import annotations

import json
import time
from dataclasses import asdict, dataclass
from pathlib import Path

from sidecar.errors import OomHeapDumperError

STATUS_NAME = ".status.json"
WRITE_INTERVAL_S = 5.0

_RECORD_BYTES = 1024  # always of one size, so that a full disk has room for the next in the place of the last


@dataclass(frozen=True, slots=True, kw_only=True)
class Status:
    """What the watch has done since it started. ``last_ok_s`` is its last successful sample, monotonic seconds."""

    last_ok_s: float
    interval_s: float
    containers: int
    samples: int
    read_errors: int
    process_faults: int
    dumps: int
    failed_captures: int
    uploaded_files: int
    consecutive_upload_errors: int


def write_status(directory: Path, status: Status) -> None:
    """Replace the file; a reader never sees half of it. On a full disk it is written over instead. Raises OSError."""
    record = json.dumps(asdict(status)).ljust(_RECORD_BYTES - 1) + "\n"
    path, part = directory / STATUS_NAME, directory / f"{STATUS_NAME}.part"
    try:
        part.write_text(record)
        part.replace(path)
    except OSError:
        part.unlink(missing_ok=True)
        with path.open("r+b", buffering=0) as file:
            file.write(record.encode())


def read_status(directory: Path) -> Status:
    """Read the file. Raises `OomHeapDumperError` if there is none or it isn't ours."""
    try:
        return Status(**json.loads((directory / STATUS_NAME).read_bytes()))
    except FileNotFoundError as error:
        raise OomHeapDumperError(f"no watch has written its status to {directory} (SPOOL_DIR)") from error
    except (OSError, ValueError, TypeError) as error:
        raise OomHeapDumperError(f"{directory / STATUS_NAME} is unreadable: {error}") from error


def age_s(status: Status) -> float:
    """Seconds since the last successful sample; infinite for a status of before the node's last boot.

    The monotonic clock is the same in all containers of a node.
    """
    age = time.monotonic() - status.last_ok_s
    return age if age >= 0 else float("inf")
