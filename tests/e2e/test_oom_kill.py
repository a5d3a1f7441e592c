"""The whole job: a real Go program, a real memory cgroup, the real OOM killer, and what is left afterwards."""

from __future__ import annotations

import subprocess
from collections.abc import Callable
from pathlib import Path

from localpod.pod import LocalPod
from localpod.pprof_top import first_row
from localpod.s3 import local_s3
from localpod.toolchain import Toolchain
from tests.e2e.sidecar_run import DEADLINE_S, SidecarRun, manifest_of, wait_until

MIB = 1 << 20
MakeSidecar = Callable[..., SidecarRun]

# A second of calm so that there is a baseline, then about two seconds from the threshold to the kill.
LEAK = {"LEAK_MODE": "steady", "LEAK_RATE": "12MiB/s", "LEAK_DELAY": "2s", "ADDR": "127.0.0.1:0", "GOGC": "50"}


def test_an_oom_killed_program_is_explained_from_s3(
    pod: LocalPod, sidecar: MakeSidecar, leak: Path, go: Toolchain, tmp_path: Path
) -> None:
    """The dump is listed, fetched and opened with the commands of the README, and names the guilty function."""
    with local_s3("heap-dumps") as store:
        run = sidecar(BUCKET="heap-dumps", PREFIX="team", **store.environment)
        run.start()
        app = pod.start("api", [leak], memory_limit_bytes=64 * MIB, env={**LEAK, "LEAK_DELAY": "5s"})
        assert app.process.wait(DEADLINE_S) == -9
        assert app.oom_kills >= 1
        run.wait_for("container-ended", container="api", ending="oom-killed")
        assert run.stop() == 0
        assert run.events("stopped")[0]["files_left"] == 0

        listing = run.command("list", "--namespace", "prod", "--pod", "api-0")
        assert "oom-killed" in listing.stdout, listing.stderr
        fetched = run.command("get", "--pod", "api-0", "--latest", "--dir", str(tmp_path / "here"))
        assert fetched.returncode == 0, fetched.stderr
        assert "-diff_base" in fetched.stdout
    (manifest_path,) = (tmp_path / "here").rglob("manifest.json")
    manifest = manifest_of(manifest_path)
    assert manifest["complete"]
    assert manifest["container"] == "api"
    assert manifest["memory"]["limit_bytes"] == 64 * MIB
    assert manifest["process"]["go_version"] == go.version
    assert manifest["process"]["environment"] == {"GOGC": "50"}
    assert {"heap-newest", "heap-baseline"} <= {profile["kind"] for profile in manifest["profiles"]}
    assert manifest["keys"]["manifest.json"].startswith("team/prod/api-0/")
    heap = next(manifest_path.parent.glob("heap-newest.pb.gz"))
    top = first_row(subprocess.run([go.pprof(), "-top", heap], capture_output=True, text=True, check=True).stdout)
    assert top is not None
    assert top.function == "main.serializeJSON"
    baseline = next(manifest_path.parent.glob("heap-baseline-*"))
    diff = subprocess.run(
        [go.pprof(), f"-diff_base={baseline}", "-top", heap], capture_output=True, text=True, check=True
    )
    assert "main.serializeJSON" in diff.stdout


def test_a_restarted_container_is_followed(pod: LocalPod, sidecar: MakeSidecar, leak: Path) -> None:
    """The runtime starts it anew in another cgroup: the second kill has its own incident and dump."""
    run = sidecar(COOLDOWN="1s")
    run.start()
    for life in (1, 2):
        app = pod.start("api", [leak], memory_limit_bytes=48 * MIB, env=LEAK)
        assert app.process.wait(DEADLINE_S) == -9
        run.wait_for("container-ended", count=life, container="api", ending="oom-killed")
    run.stop()
    outcomes = run.stored("outcome-oom-killed.json")
    assert len({path.parent.name.split("_")[3].split("-")[0] for path in outcomes}) == 2
    assert all(list(path.parent.glob("heap-newest.pb.gz")) for path in outcomes)


def test_two_containers_are_told_apart(pod: LocalPod, sidecar: MakeSidecar, leak: Path) -> None:
    """Only the one that leaks is dumped, under the name that the pod spec gives it."""
    run = sidecar()
    run.start()
    pod.start("calm", [leak], memory_limit_bytes=64 * MIB, env={**LEAK, "LEAK_MODE": "off"})
    app = pod.start("leaky", [leak], memory_limit_bytes=64 * MIB, env=LEAK)
    assert {run.wait_for("watching", container=name)["limit_bytes"] for name in ("calm", "leaky")} == {64 * MIB}
    app.wait(DEADLINE_S)
    run.wait_for("container-ended", container="leaky")
    run.stop()
    assert {manifest_of(path)["container"] for path in run.stored("manifest.json")} == {"leaky"}


def test_an_invisible_kill_of_a_child_is_reported(pod: LocalPod, sidecar: MakeSidecar, leak: Path) -> None:
    """The OOM killer takes a child, the container lives on: Kubernetes shows nothing, we do."""
    run = sidecar()
    run.start()
    shell = f'"{leak}" & exec sleep 600'
    app = pod.start("multi", ["/bin/sh", "-c", shell], memory_limit_bytes=64 * MIB, env=LEAK)
    run.wait_for("oom-kill", container="multi")
    (path,) = wait_until("it is reported", lambda: run.stored("outcome-process-oom-killed.json"))
    assert app.is_running
    assert manifest_of(path)["counted"]
    wait_until("what was in hand is readable", lambda: list(path.parent.glob("heap-newest.pb.gz")))
    run.stop()


def test_a_stop_right_after_the_kill_of_a_child_is_no_end(pod: LocalPod, sidecar: MakeSidecar, leak: Path) -> None:
    """The sidecar is stopped before it is sure that the container lives on: it says what is so at that moment."""
    run = sidecar()
    run.start()
    app = pod.start("multi", ["/bin/sh", "-c", f'"{leak}" & exec sleep 600'], memory_limit_bytes=64 * MIB, env=LEAK)
    run.wait_for("oom-kill", container="multi")
    assert run.stop() == 0
    assert app.is_running
    # What starts the container may have been seen on its way into the container's cgroup.
    assert "multi" not in [event["container"] for event in run.events("container-ended")]
    assert run.stored("outcome-process-oom-killed.json")
    assert not run.stored("outcome-oom-killed.json")


def test_a_kill_is_counted_where_the_cgroup_outlives_it(pod: LocalPod, sidecar: MakeSidecar, leak: Path) -> None:
    """The runtime takes its time to remove the cgroup: the kernel's own counter tells, nothing is inferred."""
    run = sidecar()
    run.start()
    app = pod.start("api", [leak], memory_limit_bytes=64 * MIB, env=LEAK)
    app.process.wait(DEADLINE_S)
    run.wait_for("container-ended", ending="oom-killed", counted=True)
    run.stop()


def test_a_kill_too_fast_to_see_is_never_called_an_exit(pod: LocalPod, sidecar: MakeSidecar, leak: Path) -> None:
    """At 800 MiB/s the cgroup may be gone before the next sample: killed or unknown, and listed."""
    run = sidecar()
    run.start()
    for life in range(1, 4):
        fast = {**LEAK, "LEAK_RATE": "800MiB/s", "LEAK_DELAY": "4s"}
        app = pod.start("api", [leak], memory_limit_bytes=128 * MIB, env=fast)
        assert app.wait(DEADLINE_S) == -9
        assert run.wait_for("container-ended", count=life)["ending"] in {"oom-killed", "unknown"}
    run.stop()
    listed = run.command("list", "--output", "json").stdout
    assert listed.count('"outcome": "oom-killed"') + listed.count('"outcome": "unknown"') >= 3


def test_a_container_that_ends_in_calm_says_so(pod: LocalPod, sidecar: MakeSidecar, leak: Path) -> None:
    """No dump, no kill: a last manifest all the same, that tells why there is no dump."""
    run = sidecar()
    run.start()
    app = pod.start("job", [leak], memory_limit_bytes=64 * MIB, env={**LEAK, "LEAK_MODE": "off"})
    run.wait_for("watching", container="job")
    app.terminate()
    app.wait(DEADLINE_S)
    run.wait_for("container-ended", container="job", ending="exited")
    run.stop()
    (path,) = run.stored("outcome-exited.json")
    assert manifest_of(path)["why_no_dump"] == "no sample was above the threshold"


def test_without_a_limit_the_setting_stands_in(pod: LocalPod, sidecar: MakeSidecar, leak: Path) -> None:
    """A container without a limit is watched against MEMORY_LIMIT."""
    run = sidecar(MEMORY_LIMIT="40Mi")
    run.start()
    pod.start("api", [leak], env={**LEAK, "LEAK_MAX": "60MiB"})
    assert run.wait_for("captured")["limit_bytes"] == 40 * MIB
    run.stop()


def test_no_limit_at_all_is_said_once(pod: LocalPod, sidecar: MakeSidecar, leak: Path) -> None:
    """Without a limit and without the setting nothing can fire: that is said, with the remedy, and watching goes on."""
    run = sidecar()
    run.start()
    pod.start("api", [leak], env={**LEAK, "LEAK_MODE": "off"})
    assert "MEMORY_LIMIT" in run.wait_for("watching")["message"]
    run.stop()
    assert len(run.events("watching")) == 1


def test_an_entry_point_script_that_becomes_the_app(pod: LocalPod, sidecar: MakeSidecar, leak: Path) -> None:
    """First a shell, seven seconds later, by exec, the Go program: its port is found all the same."""
    run = sidecar()
    run.start()
    pod.start("api", ["/bin/sh", "-c", f'sleep 7; exec "{leak}"'], memory_limit_bytes=64 * MIB, env=LEAK)
    assert run.wait_for("captured")["container"] == "api"
    run.stop()
