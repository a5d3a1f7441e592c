"""A container of several processes runs into its limit: what the kill takes, who it was, and what is left of it."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest

from localpod.pod import LocalContainer, LocalPod
from tests.e2e.sidecar_run import DEADLINE_S, SidecarRun, manifest_of, wait_until

MIB = 1 << 20
LIMIT_BYTES = 64 * MIB
MakeSidecar = Callable[..., SidecarRun]

LEAK = {"LEAK_MODE": "steady", "LEAK_RATE": "12MiB/s", "LEAK_DELAY": "1s", "ADDR": "127.0.0.1:0"}


class Family:
    """A shell that waits for a sign, starts a child that leaks, and would live on without it."""

    def __init__(self, pod: LocalPod, leak: Path, sign: Path, name: str = "multi") -> None:
        self._sign = sign
        os.mkfifo(sign)
        shell = f'read go <"{sign}"; "{leak}" & exec sleep 600'
        self.app: LocalContainer = pod.start(name, ["/bin/sh", "-c", shell], memory_limit_bytes=LIMIT_BYTES, env=LEAK)
        self.flag = self.app.cgroup.memory / "memory.oom.group"
        if self.app.cgroup.version == 2:
            self.flag.write_text("1")  # as the kubelet has it done

    def is_set(self) -> bool:
        """Whether a kill takes them all; never on v1."""
        return self.flag.exists() and self.flag.read_text() == "1\n"

    def leak(self) -> None:
        """Let the child leak."""
        self._sign.write_text("go\n")


@pytest.fixture
def family(pod: LocalPod, leak: Path, tmp_path: Path) -> Family:
    """One whose processes die together."""
    return Family(pod, leak, tmp_path / "sign")


@pytest.fixture
def v2_family(family: Family) -> Family:
    """The same where there is such a flag."""
    if family.app.cgroup.version != 2:
        pytest.skip("this machine has cgroup v1, which has no memory.oom.group")
    return family


def keeping_off(sidecar: MakeSidecar, **settings: str) -> SidecarRun:
    """A sidecar that is to keep the flag off, and may write the machine's cgroups."""
    run = sidecar(**{"OOM_GROUP": "process", **settings})
    run.private_cgroups = False
    return run


def names_of(outcome: dict[str, object]) -> list[str]:
    """Whom an outcome calls gone, the largest first."""
    gone = outcome["gone"]
    assert isinstance(gone, dict)
    assert gone["count"] == len(gone["largest_first"])
    return [one["name"] for one in gone["largest_first"]]


def test_the_whole_container_dies_together(v2_family: Family, sidecar: MakeSidecar, leak: Path) -> None:
    """By default the flag is left as it is: every process is gone, and the outcome says so, the largest first."""
    run = sidecar()
    run.private_cgroups = False
    run.start()
    run.wait_for("watching", container="multi")
    v2_family.leak()
    assert v2_family.app.process.wait(DEADLINE_S) == -9
    assert leak.name in run.wait_for("container-ended", ending="oom-killed")["message"]
    run.stop()
    (path,) = run.stored("outcome-oom-killed.json")
    outcome = manifest_of(path)
    assert outcome["memory"]["oom_group"] == "whole container"
    assert names_of(outcome) == [leak.name, "sleep"]
    assert outcome["gone"]["largest_first"][0]["rss_bytes"] > LIMIT_BYTES // 2
    assert {manifest_of(one)["memory"]["oom_group"] for one in run.stored("manifest.json")} == {"whole container"}
    assert not (run.folder / "spool/oom-group").exists()


def test_only_the_child_dies(family: Family, sidecar: MakeSidecar, leak: Path) -> None:
    """With OOM_GROUP=process, and on v1 in any case, the parent lives; dump and outcome name the child."""
    run = keeping_off(sidecar)
    run.start()
    if family.app.cgroup.version == 1:
        assert "v1 has no memory.oom.group" in run.wait_for("oom-group-none")["message"]
    else:
        run.wait_for("oom-group-off", container="multi")
    assert not family.is_set()
    family.leak()
    run.wait_for("oom-kill", container="multi")
    assert leak.name in run.wait_for("process-oom-killed", container="multi")["message"]
    (path,) = wait_until("it is reported", lambda: run.stored("outcome-process-oom-killed.json"))
    assert family.app.is_running
    outcome = manifest_of(path)
    assert outcome["memory"]["oom_group"] == "one process"
    assert names_of(outcome) == [leak.name]
    run.stop()
    dumps = [manifest_of(one) for one in path.parent.glob("manifest.json")]
    assert [dump["process"]["name"] for dump in dumps] == [leak.name]
    assert dumps[0]["process"]["pid"] == outcome["gone"]["largest_first"][0]["pid"]
    assert list(path.parent.glob("heap-newest.pb.gz"))
    assert family.is_set() == (family.app.cgroup.version == 2)


def test_one_that_is_set_again_is_switched_off_again(v2_family: Family, sidecar: MakeSidecar) -> None:
    """A runtime writes it with each resize; that is said, and at the end it is given back."""
    run = keeping_off(sidecar)
    run.start()
    run.wait_for("oom-group-off")
    v2_family.flag.write_text("1")
    run.wait_for("oom-group-again", container="multi")
    assert not v2_family.is_set()
    run.stop()
    run.wait_for("oom-group-restored")
    assert v2_family.is_set()


def test_after_sigkill_the_next_start_gives_it_back(v2_family: Family, sidecar: MakeSidecar) -> None:
    """Even one that isn't to keep it off any more."""
    run = keeping_off(sidecar)
    run.start()
    run.wait_for("oom-group-off")
    run.container.kill()
    run.container.wait(DEADLINE_S)
    assert not v2_family.is_set()
    run.settings = {**run.settings, "OOM_GROUP": "kubelet"}
    run.start()
    run.wait_for("oom-group-repaired")
    assert v2_family.is_set()
    run.stop()
    assert v2_family.is_set()


def test_only_containers_that_ask_for_it(
    v2_family: Family, pod: LocalPod, sidecar: MakeSidecar, leak: Path, tmp_path: Path
) -> None:
    """The others stay as the kubelet wants them."""
    other = Family(pod, leak, tmp_path / "never", name="other")
    run = keeping_off(sidecar, OOM_GROUP_CONTAINERS="other, third")
    run.start()
    run.wait_for("oom-group-off", container="other")
    run.wait_for("watching", container="multi")
    assert (v2_family.is_set(), other.is_set()) == (True, False)
    run.stop()
    status, output = run.exec("check")
    assert status == 1
    assert "'third'" in output
    assert "'other'" not in output


def test_without_the_right_the_watch_goes_on(v2_family: Family, sidecar: MakeSidecar) -> None:
    """One line says what is missing and what to do, and check says the same; the kill is recorded."""
    run = sidecar(OOM_GROUP="process")
    run.start()
    assert "GUARD_CGROUPS" in run.wait_for("oom-group-unavailable", container="multi")["message"]
    status, output = run.exec("check")
    assert status == 1
    assert "memory.oom.group can't be kept off" in output
    assert "GUARD_CGROUPS" in output
    assert v2_family.is_set()
    v2_family.leak()
    v2_family.app.wait(DEADLINE_S)
    run.wait_for("container-ended", ending="oom-killed")
    run.stop()
    assert [one["container"] for one in run.events("oom-group-unavailable")].count("multi") == 1


def test_check_says_what_a_kill_takes(family: Family, sidecar: MakeSidecar) -> None:
    """And that it could be changed, where it could; nothing is written."""
    status, output = keeping_off(sidecar).exec("check")
    assert status == 0, output
    is_v1 = family.app.cgroup.version == 1
    assert ("takes: one process" if is_v1 else "takes: whole container") in output
    assert family.is_set() != is_v1
