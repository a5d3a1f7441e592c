"""The watch's sign of life, and what a full disk does to it."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from sidecar.errors import OomHeapDumperError
from sidecar.watch.health import Status, read_status, write_status
from tests.e2e.disk import fill, small_disk

STATUS = Status(
    last_ok_s=1.0,
    interval_s=0.1,
    containers=1,
    samples=7,
    read_errors=0,
    process_faults=0,
    dumps=0,
    failed_captures=0,
    uploaded_files=0,
    consecutive_upload_errors=0,
)


def test_a_status_is_read_as_it_was_written(tmp_path: Path) -> None:
    """The newest one, and nothing else is left in the folder."""
    for samples in (1, 1000000, 5):
        write_status(tmp_path, replace(STATUS, samples=samples))
        assert read_status(tmp_path).samples == samples
    assert len(list(tmp_path.iterdir())) == 1


def test_a_full_disk_does_not_stop_the_heart(tmp_path: Path) -> None:
    """The probe must not kill a sidecar that waits for room on the disk."""
    with small_disk(tmp_path / "disk", 1 << 16) as disk:
        write_status(disk, STATUS)
        fill(disk / "filler")
        write_status(disk, replace(STATUS, last_ok_s=99999.5, samples=10**9))
        assert read_status(disk).last_ok_s == 99999.5


def test_a_foreign_file_is_no_status(tmp_path: Path) -> None:
    """It is an error, not a crash."""
    (tmp_path / ".status.json").write_text('{"last_ok_s": 1}')
    with pytest.raises(OomHeapDumperError, match="unreadable"):
        read_status(tmp_path)
