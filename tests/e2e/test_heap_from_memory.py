"""What only reading the program's memory can bring home, with the real OOM killer at work."""

from __future__ import annotations

import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

from localpod.pod import LocalPod
from localpod.pprof_top import first_row
from localpod.toolchain import Toolchain
from tests.e2e.sidecar_run import DEADLINE_S, SidecarRun, manifest_of, wait_until

MIB = 1 << 20
MakeSidecar = Callable[..., SidecarRun]

LEAK = {"LEAK_MODE": "steady", "LEAK_RATE": "30MiB/s", "LEAK_DELAY": "2s", "ADDR": "127.0.0.1:0"}
DOUBLING = {**LEAK, "LEAK_MODE": "doubling"}


def in_use_bytes(manifest: dict[str, Any]) -> int:
    """What Go's collector said was alive when the heap was read."""
    (newest,) = (profile for profile in manifest["profiles"] if profile["kind"] == "heap-newest")
    return int(newest["gc"]["heap_live_bytes"])


def top_function(go: Toolchain, profile: Path) -> str | None:
    """What ``go tool pprof -top`` names first."""
    top = first_row(subprocess.run([go.pprof(), "-top", profile], capture_output=True, text=True, check=True).stdout)
    return top.function if top else None


def test_a_doubling_slice_leaves_a_dump_that_names_it(
    pod: LocalPod, sidecar: MakeSidecar, leak: Path, go: Toolchain
) -> None:
    """It goes from half of the limit past it in one step, in which it answers no request."""
    run = sidecar()
    run.start()
    app = pod.start("api", [leak], memory_limit_bytes=128 * MIB, env=DOUBLING)
    assert app.process.wait(DEADLINE_S) == -9
    run.wait_for("container-ended", container="api", ending="oom-killed")
    run.stop()
    newest = run.stored("heap-newest.pb.gz")
    assert newest
    assert {top_function(go, profile) for profile in newest} == {"main.serializeJSON"}
    assert max(in_use_bytes(manifest_of(path)) for path in run.stored("manifest.json")) > 64 * MIB


def test_an_incident_has_its_first_and_its_last_moment(pod: LocalPod, sidecar: MakeSidecar, leak: Path) -> None:
    """The dump of the threshold, and what was in hand when the kill came: later, and of more memory."""
    run = sidecar()
    run.start()
    slow = {**LEAK, "LEAK_RATE": "15MiB/s", "LEAK_DELAY": "4s"}
    app = pod.start("api", [leak], memory_limit_bytes=128 * MIB, env=slow)
    assert app.process.wait(DEADLINE_S) == -9
    run.wait_for("container-ended", container="api", ending="oom-killed")
    run.stop()
    first, last = sorted((manifest_of(path) for path in run.stored("manifest.json")), key=lambda one: str(one["time"]))
    assert (first["trigger"]["reason"], last["trigger"]["reason"]) == ("threshold", "last-moment")
    assert first["incident"]["id"] == last["incident"]["id"]
    assert in_use_bytes(first) < in_use_bytes(last)
    assert in_use_bytes(last) > 0.8 * 128 * MIB
    assert first["process"] == last["process"]
    assert len(last["process"]["pprof_ports"]) == 1
    (outcome,) = run.stored("outcome-oom-killed.json")
    assert outcome.parent.name == last["dump_id"]
    assert {profile["kind"] for profile in first["profiles"]} >= {"heap-newest", "heap", "heap-baseline"}


def test_a_program_without_pprof_is_dumped_from_its_memory(pod: LocalPod, sidecar: MakeSidecar, leak: Path) -> None:
    """No endpoint answers where the settings look for one; its memory does."""
    run = sidecar(PPROF_PATH="/elsewhere")
    run.start()
    app = pod.start("api", [leak], memory_limit_bytes=64 * MIB, env={**LEAK, "LEAK_RATE": "12MiB/s"})
    assert app.wait(DEADLINE_S) == -9
    assert run.wait_for("captured")["source"] == "memory"
    run.wait_for("container-ended")
    run.stop()
    assert run.stored("heap-newest.pb.gz")
    assert not run.stored("heap-[0-9]*.pb.gz")


def test_reading_memory_can_be_switched_off(pod: LocalPod, sidecar: MakeSidecar, leak: Path) -> None:
    """Who leaves heap-newest out of PROFILES gets what the program publishes, and nothing else is looked at."""
    run = sidecar(PROFILES="heap")
    run.start()
    app = pod.start("api", [leak], memory_limit_bytes=64 * MIB, env={**LEAK, "LEAK_RATE": "12MiB/s"})
    assert app.wait(DEADLINE_S) == -9
    assert run.wait_for("captured")["source"] == "http"
    run.wait_for("container-ended")
    run.stop()
    assert not run.stored("heap-newest*")


def test_without_the_right_the_watch_says_what_is_lost(
    pod: LocalPod, sidecar: MakeSidecar, leak: Path, rightless: tuple[str, ...]
) -> None:
    """Another user without a capability: the heap comes by HTTP, and the first line about the container says so."""
    run = sidecar(MEMORY_LIMIT="64Mi")
    run.wrapper = rightless
    run.start()
    hover = {**LEAK, "LEAK_RATE": "6MiB/s", "LEAK_MAX": "52MiB"}
    pod.start("api", [leak], memory_limit_bytes=64 * MIB, env=hover, uid=1000, gid=1000)
    assert "no reading from memory" in run.wait_for("watching")["message"]
    assert run.wait_for("captured")["source"] == "http"
    run.stop()


def test_a_calm_end_leaves_nothing_of_what_was_in_hand(pod: LocalPod, sidecar: MakeSidecar, leak: Path) -> None:
    """Above half of the limit a snapshot is kept; the program ends by itself, so nobody needs it."""
    run = sidecar()
    run.start()
    app = pod.start("api", [leak], memory_limit_bytes=128 * MIB, env={**LEAK, "LEAK_MAX": "80MiB"})
    wait_until("a snapshot is in hand", lambda: list((run.folder / "spool/scratch").glob("*.raw")))
    app.terminate()
    app.process.wait(DEADLINE_S)  # its cgroup stays, to tell that nobody was killed
    run.wait_for("container-ended", ending="exited")
    run.stop()
    assert not run.stored("heap-newest*")
    assert not list((run.folder / "spool/scratch").glob("*"))
