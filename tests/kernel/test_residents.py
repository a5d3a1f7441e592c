"""What is read of processes in passing: the living with their memory, whatever they call themselves."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

from hypothesis import given
from hypothesis import strategies as st

from sidecar.kernel import residents

PROC = Path("/proc")


def test_a_living_process_is_seen_with_its_memory() -> None:
    """Name, memory and start of this very one; a PID that nobody has is left out."""
    (seen,) = residents.look(PROC, (os.getpid(), 4_194_304), 7.0)
    assert seen.pid == os.getpid()
    assert seen.name == Path("/proc/self/comm").read_text().rstrip("\n")
    assert seen.rss_bytes > 1 << 20
    assert seen.start_ticks > 0
    assert seen.at_s == 7.0


def test_one_that_nobody_has_waited_for_is_dead() -> None:
    """A zombie still has its PID and its name."""
    with subprocess.Popen([sys.executable, "-c", ""], stdout=subprocess.PIPE) as process:
        os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOWAIT)
        assert residents.look(PROC, (process.pid,), 1.0) == ()


@given(name=st.binary(max_size=15).filter(lambda name: b"\0" not in name))
def test_no_name_breaks_the_line(name: bytes) -> None:
    """Brackets, blanks, line feeds and bytes that are no text: the fields behind it are found."""
    text = b"42 (" + name + b") R 1 42" + b" 0" * 16 + b" 350 4096 3 0 0 0\n"
    seen = residents.parse_stat(text, page_bytes=4096, at_s=1.0)
    assert seen is not None
    assert (seen.pid, seen.start_ticks, seen.rss_bytes) == (42, 350, 3 * 4096)


@given(text=st.binary())
def test_what_is_no_stat_file_is_nobody(text: bytes) -> None:
    """Nothing is raised, whatever is read."""
    residents.parse_stat(text, page_bytes=4096, at_s=1.0)
