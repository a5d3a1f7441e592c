"""The watch's sign of life: a small file in the spool that the ``health`` command reads."""

from __future__ import annotations

import json
import time
from dataclasses import asdict, dataclass
from pathlib import Path

from sidecar.errors import OomHeapDumperError

STATUS_NAME = ".status.json"
WRITE_INTERVAL_S = 5.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Status:
    """What the watch has done since it started. ``last_ok_s`` is its last successful sample, monotonic seconds."""

    last_ok_s: float
    interval_s: float
    containers: int
    samples: int
    read_errors: int
    dumps: int
    failed_captures: int
    uploaded_files: int
    consecutive_upload_errors: int


def write_status(directory: Path, status: Status) -> None:
    """Replace the file; a reader never sees half of it. Raises OSError."""
    part = directory / f"{STATUS_NAME}.part"
    part.write_text(json.dumps(asdict(status)) + "\n")
    part.replace(directory / STATUS_NAME)


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
