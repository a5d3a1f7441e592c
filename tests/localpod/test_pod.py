from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import psutil
import pytest

from localpod import cgroups, pod
from localpod.errors import LocalPodError
from localpod.pod import LocalPod

ROOT = Path(__file__).resolve().parents[2]


def until(condition: Callable[[], bool]) -> None:
    """Wait for a condition, within a deadline."""
    deadline_s = time.monotonic() + 30
    while not condition():
        assert time.monotonic() < deadline_s, "waited for 30 s in vain"
        time.sleep(0.005)


def output_of(pod: LocalPod, script: str, **options: object) -> str:
    """What a shell script in a container of its own prints; it must succeed."""
    run = pod.start("probe", ["sh", "-c", script], stdout=subprocess.PIPE, **options)  # type: ignore[arg-type]  # passed through
    text = run.process.communicate(timeout=30)[0].decode()
    assert run.wait(30) == 0
    return text.strip()


def test_containers_share_a_pid_namespace_whose_first_process_is_pause(pod: LocalPod) -> None:
    """A container sees pause as PID 1 and its neighbour, in a cgroup of its own, and nothing of the machine."""
    app = pod.start("app", ["sleep", "600"])
    seen = output_of(pod, "cat /proc/[0-9]*/comm").splitlines()
    assert len(seen) == 3
    assert {"pause", "sleep"} < set(seen)
    assert output_of(pod, "cat /proc/1/comm") == "pause"
    assert output_of(pod, f"cat /proc/{app.pod_pid}/comm") == "sleep"
    assert app.pid in app.cgroup.pids
    assert psutil.Process(app.pid).name() == "sleep"


def test_a_container_sees_its_own_cgroup_and_cannot_write_to_it(pod: LocalPod) -> None:
    """The limit that is mounted at the usual place is the container's own, and read-only."""
    name = "memory.max" if pod.cgroup.version == 2 else "memory/memory.limit_in_bytes"
    file = f"/sys/fs/cgroup/{name}"
    assert output_of(pod, f"cat {file}", memory_limit_bytes=64 << 20) == str(64 << 20)
    assert "Read-only" in output_of(pod, f"(echo 0 >{file}) 2>&1 || true")


def test_an_oom_kill_ends_one_container_only(pod: LocalPod) -> None:
    """What takes more than its limit ends with -9 and one counted kill; its neighbour runs on."""
    neighbour = pod.start("neighbour", ["sleep", "600"])
    greedy = pod.start(
        "app", [sys.executable, "-c", "bytearray(100 << 20)"], memory_limit_bytes=30 << 20, cpu_millicores=None
    )
    assert (greedy.wait(60), greedy.oom_kills) == (-9, 1)
    assert not greedy.cgroup.memory.exists()
    assert neighbour.is_running


def test_only_the_program_is_charged(pod: LocalPod) -> None:
    """Neither what starts the program nor its pages on disk count: a small program fits into a small limit."""
    small = pod.start("app", ["sleep", "600"], memory_limit_bytes=4 << 20)
    assert small.cgroup.usage_bytes < 2 << 20
    assert small.oom_kills == 0


def test_a_restart_is_a_new_cgroup(pod: LocalPod) -> None:
    """A container started again under its name ends the one before and shares nothing with it."""
    first = pod.start("app", ["sleep", "600"])
    second = pod.start("app", ["sleep", "600"])
    assert not first.is_running
    assert not first.cgroup.memory.exists()
    assert second.is_running
    assert first.cgroup.memory.name != second.cgroup.memory.name


def test_the_main_process_takes_its_children_along(pod: LocalPod) -> None:
    """When the main process has ended a container is over, as with a container runtime."""
    app = pod.start("app", ["sh", "-c", "sleep 600 & exec sh -c 'sleep 600 & read -r _'"], stdout=subprocess.DEVNULL)
    assert app.wait(30) == 1
    assert output_of(pod, "cat /proc/[0-9]*/comm | grep -c sleep || true") == "0"


def test_orphans_are_reaped(pod: LocalPod) -> None:
    """A process whose parent has gone leaves no zombie behind: PID 1 takes it."""
    pod.start("app", ["sh", "-c", "(sleep 0 &); exec sleep 600"])
    until(lambda: output_of(pod, "grep -l 'State:.Z' /proc/[0-9]*/status || true") == "")


def test_the_users_ids_are_taken(pod: LocalPod) -> None:
    """UID and GID are as asked for, with no supplementary group."""
    assert output_of(pod, "id -u; id -g; id -G", uid=1234, gid=4321).split() == ["1234", "4321", "4321"]


def test_the_termination_log_tells_the_containers_name(pod: LocalPod) -> None:
    """The mount that the kubelet makes is there, and the container may write to it."""
    app = pod.start("billing-api", ["sleep", "600"], uid=1234, gid=1234)
    mounts = [line.split()[3] for line in Path(f"/proc/{app.pid}/mountinfo").read_text().splitlines()]
    log = next(root for root in mounts if "/pods/" in root)
    assert log.split("/")[-3:-1] == ["containers", "billing-api"]


@pytest.mark.parametrize(
    ("argv", "options", "words"),
    [
        (["no-such-program"], {}, "no-such-program is not a program"),
        (["sleep", "1"], {"directory": Path("/no/such")}, "/no/such"),
        (["sleep", "1"], {"uid": -5}, "uid"),
    ],
)
def test_what_cannot_start_says_why(pod: LocalPod, argv: list[str], options: dict[str, object], words: str) -> None:
    """A container that can't start is an error with its reason, and leaves no cgroup."""
    before = sorted(pod.cgroup.memory.glob("*/"))
    with pytest.raises(LocalPodError, match=words):
        pod.start("app", argv, stderr=subprocess.DEVNULL, **options)  # type: ignore[arg-type]  # passed through
    assert sorted(pod.cgroup.memory.glob("*/")) == before


def test_waiting_has_an_end(pod: LocalPod) -> None:
    """A program that doesn't end is a TimeoutError and runs on; SIGTERM then ends it."""
    app = pod.start("app", ["sleep", "600"])
    with pytest.raises(TimeoutError, match="app"):
        app.wait(0.05)
    app.terminate()
    assert app.wait(30) == -signal.SIGTERM


def test_nothing_is_left_after_an_error(pod: LocalPod) -> None:
    """An exception in the block passes, and processes, cgroups and files are gone."""
    del pod  # only whether pods can be made here
    kept: list[tuple[int, cgroups.Cgroup, Path]] = []

    def fail() -> None:
        with LocalPod() as failing:
            app = failing.start("app", ["sh", "-c", "sleep 600 & sleep 600"])
            kept.append((app.pid, failing.cgroup, failing.directory))
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        fail()
    [(pid, cgroup, directory)] = kept
    assert not psutil.pid_exists(pid)
    assert not any(path.exists() for path in (*cgroup.directories, directory))


def test_the_pod_dies_with_its_owner(pod: LocalPod) -> None:
    """When the process that owns a pod is killed with SIGKILL, the pod's processes end as well."""
    del pod  # only whether pods can be made here
    script = """
import sys
from localpod.pod import LocalPod
with LocalPod() as pod:
    app = pod.start("app", ["sleep", "600"])
    print(app.pid, pod.directory, *pod.cgroup.directories, flush=True)
    sys.stdin.read()
"""
    owner = subprocess.Popen(
        [sys.executable, "-c", script], cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    with owner:
        assert owner.stdout is not None
        pid, directory, *groups = owner.stdout.readline().split()
        process = psutil.Process(int(pid))
        owner.kill()
        owner.wait(30)
    until(lambda: not process.is_running() or process.status() == psutil.STATUS_ZOMBIE)
    cpu = Path(groups[1]) if len(groups) > 1 else None
    cgroups.remove(cgroups.Cgroup(version=1 if cpu else 2, memory=Path(groups[0]), cpu=cpu))
    subprocess.run(["rm", "-r", directory], check=True)


def test_without_rights_the_reason_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where pods can't be made, entering one raises the reason."""
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    pod.unavailable.cache_clear()
    cgroups.unavailable.cache_clear()
    try:
        with pytest.raises(LocalPodError, match="only root"), LocalPod():
            pass
    finally:
        pod.unavailable.cache_clear()
        cgroups.unavailable.cache_clear()
