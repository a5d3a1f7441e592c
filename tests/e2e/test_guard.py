"""Holding the OOM killer off: what is changed in the container's cgroup, and that it is always undone."""

from __future__ import annotations

import signal
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from localpod.cgroups import Cgroup
from localpod.pod import LocalPod
from tests.e2e.sidecar_run import DEADLINE_S, SidecarRun, free_port, manifest_of, wait_until

MIB = 1 << 20
LIMIT_BYTES = 128 * MIB
MakeSidecar = Callable[..., SidecarRun]
APP = Path(__file__).with_name("misbehaving_app.py")

LEAK = {"LEAK_MODE": "steady", "LEAK_RATE": "30MiB/s", "LEAK_DELAY": "3s", "ADDR": "127.0.0.1:0"}


def guarding(sidecar: MakeSidecar, **settings: str) -> SidecarRun:
    """A sidecar that may write the machine's cgroups."""
    run = sidecar(**{"GUARD": "auto", **settings})
    run.private_cgroups = False
    return run


def limit_of(cgroup: Cgroup) -> str:
    """The limit as the kernel has it."""
    return (cgroup.memory / ("memory.max" if cgroup.version == 2 else "memory.limit_in_bytes")).read_text().strip()


def brake_of(cgroup: Cgroup) -> str:
    """``memory.high`` as the kernel has it; "max" where there is none."""
    return (cgroup.memory / "memory.high").read_text().strip() if cgroup.version == 2 else "max"


def test_a_kill_with_the_guard_is_recorded_and_undone(pod: LocalPod, sidecar: MakeSidecar, leak: Path) -> None:
    """The program dies as it would have; the manifest says what was done to its cgroup, and that it was undone."""
    run = guarding(sidecar)
    run.start()
    app = pod.start("api", [leak], memory_limit_bytes=LIMIT_BYTES, env=LEAK)
    assert app.process.wait(DEADLINE_S) == -9
    run.wait_for("container-ended", ending="oom-killed")
    assert (limit_of(app.cgroup), brake_of(app.cgroup)) == (str(LIMIT_BYTES), "max")
    run.stop()
    last = max((manifest_of(path) for path in run.stored("manifest.json")), key=lambda one: str(one["time"]))
    assert last["guard"]["times"] >= 1
    assert last["guard"]["restored"]
    assert last["memory"]["limit_bytes"] == LIMIT_BYTES


def test_the_guard_is_off_by_default(pod: LocalPod, sidecar: MakeSidecar, leak: Path) -> None:
    """With every right to write, nothing is written, and the manifest has no word of it."""
    run = sidecar()
    run.private_cgroups = False
    run.start()
    app = pod.start("api", [leak], memory_limit_bytes=LIMIT_BYTES, env={**LEAK, "LEAK_MAX": "110MiB"})
    run.wait_for("captured")
    assert (limit_of(app.cgroup), brake_of(app.cgroup)) == (str(LIMIT_BYTES), "max")
    run.stop()
    assert not (run.folder / "spool/guard").exists()
    assert manifest_of(run.stored("manifest.json")[0])["guard"] is None


@pytest.fixture
def held(pod: LocalPod, sidecar: MakeSidecar) -> tuple[SidecarRun, Cgroup]:
    """A sidecar that has changed the cgroup of an app: on v2 in advance, on v1 because the app keeps silent."""
    port = free_port()
    run = guarding(sidecar, PPROF_PORTS=str(port), GUARD_HOLD="1m")
    run.start()
    used_mib = "86" if pod.cgroup.version == 1 else "30"
    app = pod.start(
        "api", [sys.executable, APP, str(port), used_mib, "hang"], memory_limit_bytes=LIMIT_BYTES * 100 // 128
    )
    before = str(LIMIT_BYTES * 100 // 128), "max"
    wait_until("its cgroup is changed", lambda: (limit_of(app.cgroup), brake_of(app.cgroup)) != before)
    return run, app.cgroup


def test_sigterm_undoes_it(held: tuple[SidecarRun, Cgroup]) -> None:
    """What was changed is as it was when the sidecar has ended."""
    run, cgroup = held
    run.stop()
    assert (limit_of(cgroup), brake_of(cgroup)) == (str(LIMIT_BYTES * 100 // 128), "max")


def test_after_sigkill_the_next_start_undoes_it(held: tuple[SidecarRun, Cgroup]) -> None:
    """Even one with the guard switched off."""
    run, cgroup = held
    run.container.kill()
    run.container.wait(DEADLINE_S)
    assert (limit_of(cgroup), brake_of(cgroup)) != (str(LIMIT_BYTES * 100 // 128), "max")
    run.settings = {**run.settings, "GUARD": "off"}
    run.start()
    run.wait_for("guard-repaired")
    assert (limit_of(cgroup), brake_of(cgroup)) == (str(LIMIT_BYTES * 100 // 128), "max")
    run.stop()


def test_a_program_that_cannot_be_dumped_is_not_braked(pod: LocalPod, sidecar: MakeSidecar, leak: Path) -> None:
    """A Go step at the start, then by exec something else: what was set in advance for the first is taken back."""
    run = guarding(sidecar)
    run.start()
    shell = f'trap : USR1; "{leak}" & wait; kill $!; exec sleep 600'
    app = pod.start("api", ["/bin/sh", "-c", shell], memory_limit_bytes=LIMIT_BYTES, env={**LEAK, "LEAK_MODE": "off"})
    if app.cgroup.version == 2:
        wait_until("the brake is set", lambda: brake_of(app.cgroup) != "max")
    journal = run.folder / "spool/guard"
    wait_until("it is guarded", lambda: list(journal.glob("*")))
    app.process.send_signal(signal.SIGUSR1)
    wait_until("it isn't any more", lambda: not list(journal.glob("*")))
    assert (limit_of(app.cgroup), brake_of(app.cgroup)) == (str(LIMIT_BYTES), "max")
    run.stop()


def test_check_says_whether_it_could_be_guarded(pod: LocalPod, sidecar: MakeSidecar, leak: Path) -> None:
    """With a writable view all is well, with a read-only one it isn't and the remedy is told; nothing is changed."""
    app = pod.start("api", [leak], memory_limit_bytes=LIMIT_BYTES, env={**LEAK, "LEAK_MODE": "off"})
    run = guarding(sidecar)
    status, output = run.exec("check")
    assert status == 0, output
    run.private_cgroups = True
    status, output = run.exec("check")
    assert status == 1
    assert "GUARD_CGROUPS" in output
    assert (limit_of(app.cgroup), brake_of(app.cgroup)) == (str(LIMIT_BYTES), "max")


def test_without_a_writable_view_the_watch_goes_on(pod: LocalPod, sidecar: MakeSidecar, leak: Path) -> None:
    """One line says what is missing and what to do; the dump is taken all the same, and says so too."""
    run = sidecar(GUARD="auto")
    run.start()
    pod.start("api", [leak], memory_limit_bytes=LIMIT_BYTES, env={**LEAK, "LEAK_MAX": "110MiB"})
    assert "GUARD_CGROUPS" in run.wait_for("no-guard")["message"]
    run.wait_for("captured")
    run.stop()
    assert manifest_of(run.stored("manifest.json")[0])["guard"]["why_not"]
