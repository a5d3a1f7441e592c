"""Files of /proc that another process makes as long as it likes cost us no more than was meant for them."""

from __future__ import annotations

import os
import subprocess
import sys
import tracemalloc
from collections.abc import Callable, Iterator
from pathlib import Path

import psutil
import pytest

from sidecar.core.model import Container, Process
from sidecar.errors import NotPermittedError
from sidecar.kernel import cgroup, environment, proc_files
from sidecar.kernel.process_memory import ProcessMemory
from sidecar.kernel.processes import ProcessTable
from sidecar.settings import PprofSettings
from sidecar.watch.port_probe import PortProbe
from tests.kernel.fake_proc import FakeProc

PROC = Path("/proc")
NAME = "fifteen-letters"
CLAIM_BYTES = 256 << 20
# Far less than the claim, far more than what is kept of it.
MOST_BYTES = 16 << 20

# No capability is needed; the memory was never touched, so that it costs the program nothing.
CLAIMANT = f"""
import ctypes, mmap, sys
libc = ctypes.CDLL(None, use_errno=True)
libc.prctl(15, b"{NAME}", 0, 0, 0)
libc.mmap.restype = libc.sbrk.restype = ctypes.c_void_p
libc.mmap.argtypes = [ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int, ctypes.c_int, ctypes.c_int, ctypes.c_long]
at = libc.mmap(None, {CLAIM_BYTES}, 1, mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS | 0x4000, -1, 0)
stat = open("/proc/self/stat").read().rpartition(")")[2].split()
names = "start_code end_code start_data end_data start_brk brk start_stack arg_start arg_end env_start env_end auxv"
class Map(ctypes.Structure):
    _fields_ = [(name, ctypes.c_uint64) for name in names.split()]
    _fields_ += [("size", ctypes.c_uint32), ("fd", ctypes.c_uint32)]
old = [int(stat[number - 3]) for number in (26, 27, 45, 46, 47)]
end = at + {CLAIM_BYTES} - 1
new = Map(*old, libc.sbrk(0), int(stat[25]), at, end, at, end, 0, 0, 0xFFFFFFFF)
print("refused" if libc.prctl(35, 14, ctypes.byref(new), ctypes.sizeof(new), 0) else "claimed", flush=True)
sys.stdin.read()
"""


@pytest.fixture(scope="module")
def claimant() -> Iterator[int]:
    """A process that says that a quarter of a gigabyte is its arguments, and its environment too."""
    with subprocess.Popen(
        [sys.executable, "-c", CLAIMANT], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as process:
        try:
            assert process.stdout is not None
            told = process.stdout.readline()
            if told != "claimed\n":
                pytest.skip("this kernel lets nobody move his arguments")
            yield process.pid
        finally:
            process.kill()


def peak_bytes(act: Callable[[], object]) -> int:
    """The most that Python had allocated meanwhile."""
    tracemalloc.start()
    try:
        act()
        return tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


def test_a_name_is_not_looked_up_in_the_arguments(claimant: int) -> None:
    """A name of 15 characters may have been cut; the rest of it is in the first argument, not in all of them."""
    found: list[Container] = []
    table = ProcessTable(PROC, pids=(claimant,))
    assert peak_bytes(lambda: found.extend((*table.scan(), *table.scan(verify=True)))) < MOST_BYTES
    assert [container.main.name for container in found] == [NAME, NAME]


def test_an_environment_is_read_up_to_a_bound(claimant: int) -> None:
    """Nothing is found in it, and nothing is raised."""
    found: list[dict[str, str] | None] = []
    assert peak_bytes(lambda: found.append(environment.read_go_environment(PROC, claimant))) < MOST_BYTES
    assert found == [{}]


def test_arguments_are_read_up_to_a_bound(claimant: int) -> None:
    """Those that are compared with what a port answers."""
    probe = PortProbe(PROC, claimant, PprofSettings())
    assert peak_bytes(probe.command_line) < MOST_BYTES


@pytest.fixture
def crowded(tmp_path: Path) -> Iterator[FakeProc]:
    """A process with more mounts than anybody has use for."""
    fake = FakeProc(tmp_path / "proc")
    (fake.root / "self").mkdir()
    (fake.root / "self/mountinfo").write_text("")
    line = "9 8 0:5 /{} /" + "x" * 1000 + " rw - tmpfs none rw\n"
    log = "9 8 0:5 /pods/0a-1b/containers/api/77aa /dev/termination-log rw - ext4 /dev/sda rw\n"
    fake.process(42, "0::/../c1\n", mountinfo=log + line * 2000)
    os.truncate(fake.root / "42/mountinfo", CLAIM_BYTES)  # a hole costs nothing to make
    yield fake
    psutil.PROCFS_PATH = "/proc"


def test_mounts_are_read_up_to_a_bound(crowded: FakeProc) -> None:
    """The name of the container is among the first of them; its cgroup isn't among those that are read."""
    process = Process(pid=42, created_at_s=1.0, name="app", uid=1, gid=1)
    container = Container(key="/../c1", name="app", processes=(process,))

    def look() -> None:
        with pytest.raises(NotPermittedError):
            cgroup.open_cgroup(crowded.root, container)

    names: list[str] = []
    assert peak_bytes(lambda: names.extend(c.name for c in ProcessTable(crowded.root).scan())) < MOST_BYTES
    assert names == ["api"]
    assert peak_bytes(look) < MOST_BYTES


def test_a_status_is_read_up_to_a_bound(crowded: FakeProc) -> None:
    """What comes first counts."""
    with (crowded.root / "42/status").open("a") as status:
        status.write("Groups:\t" + "4294967295 " * 200_000)
        status.truncate(CLAIM_BYTES)
    source = ProcessMemory(crowded.root, lambda: (42,), None)
    assert peak_bytes(source.read) < MOST_BYTES
    assert source.read_usage_bytes() == 1 << 20


def test_no_line_is_cut(tmp_path: Path) -> None:
    """Half a path would be another path."""
    path = tmp_path / "mountinfo"
    path.write_bytes(b"one\ntwo\nthree\n")
    assert [proc_files.read_lines(path, most) for most in (3, 4, 9, 14, 15)] == [
        "",
        "one\n",
        "one\ntwo\n",
        "one\ntwo\nthree\n",
        "one\ntwo\nthree\n",
    ]
    assert proc_files.read_start(path, 5) == b"one\nt"


def test_a_variable_that_may_be_cut_is_left_out(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Half a limit would be another limit; one that ends before the bound is whole."""
    monkeypatch.setattr(environment, "_MOST_BYTES", 24)
    (tmp_path / "7").mkdir()
    for content, found in ((b"GOGC=50\0GOMEMLIMIT=100MiB\0", {"GOGC": "50"}), (b"A=\0GOGC=50", {"GOGC": "50"})):
        (tmp_path / "7/environ").write_bytes(content)
        assert environment.read_go_environment(tmp_path, 7) == found


def test_a_value_without_end_is_not_kept() -> None:
    """It would be kept for each process as long as it runs; and of two the runtime heeds the first."""
    assert environment.parse_go_environment(b"GODEBUG=" + b"x" * 5000 + b"\0GOGC=1\0GOGC=2\0MYGOGC=3") == {"GOGC": "1"}
