from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from localpod import cgroups
from localpod.errors import LocalPodError

ROOT = Path(__file__).resolve().parents[2]
JOIN = 'for file in "$@"; do echo 0 >"$file"; done; exec'

needs_cgroups = pytest.mark.skipif(cgroups.unavailable() is not None, reason=f"no cgroups: {cgroups.unavailable()}")


def run_in(cgroup: cgroups.Cgroup, command: str) -> subprocess.Popen[bytes]:
    """Start a shell command that joins the cgroup first."""
    return subprocess.Popen(["/bin/sh", "-c", f"{JOIN} {command}", "sh", *map(str, cgroup.join_files)])


@needs_cgroups
def test_what_exceeds_the_limit_is_killed_and_counted() -> None:
    """A process that takes more than its cgroup's limit ends by SIGKILL and the cgroup says so; its neighbour lives."""
    with cgroups.new_cgroup() as parent:
        small = cgroups.add_child(parent, "small", memory_limit_bytes=30 << 20)
        other = cgroups.add_child(parent, "other", memory_limit_bytes=30 << 20)
        greedy = run_in(small, f"{sys.executable} -c 'bytearray(100 << 20)'")
        assert greedy.wait(30) == -9
        assert (small.oom_kills, other.oom_kills) == (1, 0)


@needs_cgroups
def test_processes_left_behind_end_with_the_cgroup() -> None:
    """Leaving the block kills every process in every cgroup below and leaves no directory."""
    with cgroups.new_cgroup() as parent:
        child = cgroups.add_child(parent, "child")
        left_behind = run_in(child, "sleep 600")
        try:
            while left_behind.pid not in child.pids:
                assert left_behind.poll() is None
        except BaseException:
            left_behind.kill()
            raise
    assert left_behind.wait(10) == -9
    assert not any(directory.exists() for directory in (*child.directories, *parent.directories))


@needs_cgroups
def test_an_error_in_the_block_passes_unchanged() -> None:
    """An OSError of the caller's isn't taken for one of the cgroup's, and the cgroup is removed all the same."""
    made: list[Path] = []

    def fail() -> None:
        with cgroups.new_cgroup() as parent:
            made.extend(parent.directories)
            raise FileNotFoundError("mine")

    with pytest.raises(FileNotFoundError, match="mine"):
        fail()
    assert made
    assert not any(directory.exists() for directory in made)


@needs_cgroups
def test_a_cpu_quota_is_held_in_millicores() -> None:
    """250 millicores are a quarter of every period."""
    with cgroups.new_cgroup() as parent:
        if parent.cpu is None:
            pytest.skip("this machine has no CPU controller")
        child = cgroups.add_child(parent, "child", cpu_millicores=250)
        assert child.cpu is not None
        if child.version == 2:
            quota_us, period_us = (child.cpu / "cpu.max").read_text().split()
        else:
            quota_us, period_us = ((child.cpu / f"cpu.cfs_{name}_us").read_text() for name in ("quota", "period"))
        assert int(quota_us) * 4 == int(period_us)


@needs_cgroups
def test_a_quota_without_a_controller_is_refused() -> None:
    """Where there is no CPU controller a quota isn't silently dropped."""
    with cgroups.new_cgroup() as parent:
        without = cgroups.Cgroup(version=parent.version, memory=parent.memory, cpu=None)
        with pytest.raises(LocalPodError, match="no CPU controller"):
            cgroups.add_child(without, "child", cpu_millicores=250)


def test_everyone_but_root_is_told_why_not() -> None:
    """Without root the reason is told instead of an error raised."""
    script = "import os; from localpod import cgroups; os.getuid() or os.setuid(65534); print(cgroups.unavailable())"
    answer = subprocess.run([sys.executable, "-c", script], cwd=ROOT, capture_output=True, check=True, text=True)
    assert answer.stdout.strip() == "only root may make cgroups"
