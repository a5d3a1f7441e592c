"""Where texts are written: what was there before keeps what it is."""

from __future__ import annotations

import os
import stat
from pathlib import Path

import pytest

from sidecar.errors import OomHeapDumperError
from sidecar.inject.outputs import write_file


def test_a_link_stays_a_link(tmp_path: Path) -> None:
    """What it points to is written, whether it is there or not."""
    (tmp_path / "there").write_text("before")
    for name in ("there", "later"):
        link = tmp_path / f"to-{name}"
        link.symlink_to(name)
        write_file(link, b"a")
        assert link.is_symlink()
        assert (tmp_path / name).read_text() == "a"
        assert not (tmp_path / name).is_symlink()


def test_links_in_a_circle_are_one_clear_line(tmp_path: Path) -> None:
    """They point to nothing that could be written."""
    link = tmp_path / "circle"
    link.symlink_to("circle")
    with pytest.raises(OomHeapDumperError, match="choose a file that can be written"):
        write_file(link, b"a")
    assert link.is_symlink()


@pytest.mark.skipif(os.geteuid() != 0, reason="only root may give files away")
def test_the_owner_and_the_mode_stay(tmp_path: Path) -> None:
    """A manifest that root changes can still be read by those who wrote it."""
    path = tmp_path / "x"
    path.write_text("before")
    os.chown(path, 1234, 2345)
    path.chmod(0o2640)
    write_file(path, b"a")
    after = path.stat()
    assert (after.st_uid, after.st_gid, stat.S_IMODE(after.st_mode)) == (1234, 2345, 0o2640)


def test_a_pipe_is_written_into(tmp_path: Path) -> None:
    """As a device such as /dev/null is, in whose place root could put a file."""
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    reader = os.open(pipe, os.O_RDONLY | os.O_NONBLOCK)
    try:
        write_file(pipe, b"abc")
        assert os.read(reader, 100) == b"abc"
    finally:
        os.close(reader)
    assert pipe.is_fifo()
