"""Bad days, for real: each ends in one clear line, the watch goes on, and nothing captured is lost."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from localpod.pod import LocalPod
from tests.e2e.leaks import CALM, HOVER
from tests.e2e.sidecar_run import DEADLINE_S, PROJECT, SidecarRun, free_port, manifest_of, wait_until
from tests.s3_servers.moto import moto_server

MIB = 1 << 20
MakeSidecar = Callable[..., SidecarRun]
APP = Path(__file__).with_name("misbehaving_app.py")

CREDENTIALS = {"AWS_ACCESS_KEY_ID": "a", "AWS_SECRET_ACCESS_KEY": "b", "AWS_REGION": "us-east-1"}


@pytest.mark.parametrize(
    ("behaviour", "reason"),
    [
        ("html", "looks like HTML"),
        ("garbage", "isn't gzip"),
        ("endless", ""),
        ("bomb", "unpacks to more than"),
        ("redirect", "HTTP 302"),
        ("missing", "HTTP 404"),
        ("die", ""),
    ],
)
def test_an_app_that_answers_badly(pod: LocalPod, sidecar: MakeSidecar, behaviour: str, reason: str) -> None:
    """One line says what came instead of a profile; nothing of it is stored; a calm neighbour is watched on."""
    port = free_port()
    run = sidecar(PPROF_PORTS=str(port), PROFILES="heap")
    run.start()
    pod.start("bad", [sys.executable, APP, str(port), "86", behaviour], memory_limit_bytes=100 * MIB)
    failure = run.wait_for("capture-failed", container="bad")
    assert reason in failure["message"]
    assert "trying again" in failure["message"]
    samples = run.command("health").stdout
    assert "healthy" in samples
    assert run.stop() == 0
    assert run.stored("*.pb.gz") == []
    assert not run.events("capture-crashed")


def test_an_app_that_never_answers_does_not_stop_the_watch(pod: LocalPod, sidecar: MakeSidecar, leak: Path) -> None:
    """While one container's capture hangs, another one's is taken."""
    port, leaky = free_port(), free_port()
    run = sidecar()
    run.settings = {"PPROF_PORTS": f"{port},{leaky}"}
    run.start()
    pod.start("hangs", [sys.executable, APP, str(port), "86", "hang"], memory_limit_bytes=100 * MIB)
    run.wait_for("watching", container="hangs")
    leaks = {**HOVER, "ADDR": f"127.0.0.1:{leaky}", "LEAK_DELAY": "4s"}
    pod.start("leaky", [leak], memory_limit_bytes=64 * MIB, env=leaks)
    run.wait_for("captured", container="leaky")
    assert "no whole answer within" in run.wait_for("capture-failed", container="hangs")["message"]
    assert run.stop() == 0


def test_silent_ports_do_not_blind_the_watch(pod: LocalPod, sidecar: MakeSidecar, leak: Path) -> None:
    """Ports that take a connection and say nothing: a container that starts meanwhile is found, watched and dumped."""
    *silent, leaky = (free_port() for _ in range(4))
    run = sidecar(PPROF_PORTS=",".join(map(str, [*silent, leaky])))
    run.start()
    for number, port in enumerate(silent):
        pod.start(f"silent-{number}", [sys.executable, APP, str(port), "1", "silent"], memory_limit_bytes=100 * MIB)
    leaks = {**HOVER, "ADDR": f"127.0.0.1:{leaky}", "LEAK_DELAY": "4s"}
    pod.start("leaky", [leak], memory_limit_bytes=64 * MIB, env=leaks)
    run.wait_for("captured", container="leaky")
    run.stop()


def test_a_hanging_sibling_does_not_delay_a_dump(pod: LocalPod, sidecar: MakeSidecar, leak: Path) -> None:
    """Two processes in one container, the older one hangs: the other one's profile is taken, and again as it climbs."""
    port, leaky = free_port(), free_port()
    run = sidecar(PPROF_PORTS=f"{port},{leaky}", PROFILES="heap")
    run.start()
    script = f'"{sys.executable}" "{APP}" {port} 1 hang & sleep 1; exec "{leak}"'
    slow = {**HOVER, "LEAK_RATE": "8MiB/s", "LEAK_DELAY": "4s", "LEAK_MAX": "60MiB"}
    env = {**slow, "ADDR": f"127.0.0.1:{leaky}", "PATH": "/usr/bin:/bin"}
    pod.start("both", ["/bin/sh", "-c", script], memory_limit_bytes=72 * MIB, env=env)
    run.wait_for("captured", count=2, container="both")
    run.stop()


def test_a_container_without_go_is_left_in_peace(pod: LocalPod, sidecar: MakeSidecar) -> None:
    """It hovers above the threshold, but there is nothing to dump: no capture, no retry; its last manifest says why."""
    run = sidecar()
    run.start()
    hog = "import time; held = bytearray(84 << 20); held[::4096] = bytes(84 << 8); time.sleep(600)"
    database = pod.start("db", [sys.executable, "-S", "-c", hog], memory_limit_bytes=100 * MIB)
    run.wait_for("watching", container="db")
    before = run.samples()
    wait_until("a further hundred samples", lambda: run.samples() >= before + 100)
    database.kill()
    database.wait(DEADLINE_S)
    run.wait_for("container-ended", container="db")
    run.stop()
    assert not run.events("capture-failed")
    # What starts the container may have been seen on its way into the container's cgroup, and have an outcome as well.
    (outcome,) = (told for told in map(manifest_of, run.stored("outcome-*.json")) if told["container"] == "db")
    assert outcome["why_no_dump"] == "none of its processes is a Go program"


def test_programs_that_are_not_go_are_never_asked(pod: LocalPod, sidecar: MakeSidecar, tmp_path: Path) -> None:
    """Without PPROF_PORTS a database's port is left alone: no request reaches it."""
    run = sidecar()
    run.start()
    log = tmp_path / "requests"
    pod.start("db", [sys.executable, APP, str(free_port()), "1", "html", log], memory_limit_bytes=100 * MIB)
    run.wait_for("watching", container="db")
    run.stop()
    assert not log.exists()


def test_s3_is_down_then_back(pod: LocalPod, sidecar: MakeSidecar, leak: Path) -> None:
    """The dump waits in the spool, one line says so and why, and it is uploaded when the store is back."""
    port = free_port()
    run = sidecar(BUCKET="dumps", AWS_ENDPOINT_URL=f"http://127.0.0.1:{port}", UPLOAD_GRACE="5s", **CREDENTIALS)
    run.start()
    pod.start("api", [leak], memory_limit_bytes=64 * MIB, env=HOVER)
    run.wait_for("captured")
    failure = run.wait_for("upload-failed")
    assert "kept in the spool" in failure["message"]
    assert failure["pending_files"] >= 1
    with moto_server(port):
        run.wait_for("store-recovered")
        run.wait_for("stored")
        assert run.stop() == 0
        assert run.events("stopped")[0]["files_left"] == 0
        assert '"heap"' in run.command("list", "--output", "json").stdout


def test_a_killed_sidecar_uploads_at_its_next_start(pod: LocalPod, sidecar: MakeSidecar, leak: Path) -> None:
    """SIGKILL with the store down: everything captured is still in the spool and goes up once both are back."""
    port = free_port()
    run = sidecar(BUCKET="dumps", AWS_ENDPOINT_URL=f"http://127.0.0.1:{port}", UPLOAD_GRACE="5s", **CREDENTIALS)
    run.start()
    pod.start("api", [leak], memory_limit_bytes=64 * MIB, env=HOVER)
    captured = run.wait_for("captured")
    run.container.kill()
    run.container.wait(DEADLINE_S)
    with moto_server(port):
        run.start()
        assert run.wait_for("recovered")["files"] >= 1

        def listed() -> list[str]:
            dumps = json.loads(run.command("list", "--output", "json").stdout)
            return [p["kind"] for dump in dumps if dump["key"] == captured["key"] for p in dump["profiles"]]

        assert "heap-newest" in wait_until("its profile is listed", listed)
        run.stop()


def test_a_missing_bucket_is_one_clear_line(pod: LocalPod, sidecar: MakeSidecar, leak: Path) -> None:
    """The line names the bucket and what to do; the dump is kept."""
    port = free_port()
    run = sidecar(
        BUCKET="no-such-bucket", AWS_ENDPOINT_URL=f"http://127.0.0.1:{port}", UPLOAD_GRACE="2s", **CREDENTIALS
    )
    with moto_server(port):
        run.start()
        pod.start("api", [leak], memory_limit_bytes=64 * MIB, env=HOVER)
        assert "no-such-bucket" in run.wait_for("upload-failed")["message"]
        run.stop()
    assert list((run.folder / "spool/queue").rglob("heap-newest.pb.gz"))


def test_sigterm_in_a_capture_loses_nothing(pod: LocalPod, sidecar: MakeSidecar, leak: Path) -> None:
    """Stopped right after the trigger: the dump is complete or cut short by us, and stored with its manifest."""
    run = sidecar()
    run.start()
    pod.start("api", [leak], memory_limit_bytes=64 * MIB, env=HOVER)
    run.wait_for("captured")
    assert run.stop() == 0
    heaps = {path.parent for path in run.stored("heap-newest.pb.gz")}
    assert heaps
    assert heaps == {path.parent for path in run.stored("manifest.json")}
    assert run.events("stopped")[0]["files_left"] == 0


def test_sigterm_while_an_extra_hangs(pod: LocalPod, sidecar: MakeSidecar) -> None:
    """The heap is there, ``gc=1`` never answers: the manifest says that the dump was cut short, and both are stored."""
    port = free_port()
    run = sidecar(PPROF_PORTS=str(port), UPLOAD_GRACE="5s", PROFILES="heap,heap-gc")
    run.start()
    pod.start("bad", [sys.executable, APP, str(port), "86", "slow-extras"], memory_limit_bytes=100 * MIB)
    run.wait_for("captured")
    assert run.stop() == 0
    manifests = [manifest_of(path) for path in run.stored("manifest.json")]
    assert manifests
    for manifest in manifests:
        assert not manifest["complete"] or "stopping" in manifest["problems"][0]
        assert [profile["kind"] for profile in manifest["profiles"]] == ["heap"]


def test_three_hundred_processes(pod: LocalPod, sidecar: MakeSidecar, leak: Path) -> None:
    """A crowded pod: the leaking container is found and dumped all the same."""
    pod.start("crowd", ["/bin/sh", "-c", "for i in $(seq 300); do sleep 600 & done; wait"])
    run = sidecar()
    run.start()
    pod.start("api", [leak], memory_limit_bytes=64 * MIB, env=HOVER)
    assert run.wait_for("captured")["container"] == "api"
    assert run.stop() == 0


def test_hostile_names_reach_neither_terminal_nor_keys(pod: LocalPod, sidecar: MakeSidecar, leak: Path) -> None:
    """A program called with a newline and an escape code is one line in the log, and harmless in the key."""
    hostile = run_name = leak.with_name("a\n\x1b[2J")
    shutil.copy2(leak, hostile)
    run = sidecar(LOG_FORMAT="human")
    run.start()
    pod.start("api", [run_name], memory_limit_bytes=64 * MIB, env=HOVER)
    wait_until("a dump", lambda: run.stored("manifest.json"))
    run.stop()
    hostile.unlink()
    assert "\x1b" not in run.log_path.read_text()
    assert "a\\n\\x1b[2J" in run.log_path.read_text()


def test_without_pid_sharing_the_start_says_so(tmp_path: Path) -> None:
    """As PID 1 of a container of its own it can see nobody: exit code 3 and the line to add to the pod."""
    unshare = shutil.which("unshare")
    if unshare is None:
        pytest.skip("unshare isn't installed")
    done = subprocess.run(
        [unshare, "--pid", "--fork", "--mount-proc", "--kill-child", sys.executable, "-m", "sidecar", "watch"],
        env={"SPOOL_DIR": str(tmp_path)},
        cwd=PROJECT,
        capture_output=True,
        text=True,
        timeout=DEADLINE_S,
        check=False,
    )
    if "Operation not permitted" in done.stderr:
        pytest.skip("no PID namespaces here")
    assert done.returncode == 3
    assert "shareProcessNamespace: true" in done.stderr
    assert "Traceback" not in done.stderr


def test_without_rights_the_best_that_remains_works(
    pod: LocalPod, sidecar: MakeSidecar, leak: Path, rightless: tuple[str, ...]
) -> None:
    """No capability and another user than the app: memory from its processes, its port by the program's arguments."""
    port = free_port()
    run = sidecar(MEMORY_LIMIT="64Mi", PPROF_PORTS=str(port))
    run.wrapper = rightless
    run.start()
    hover = {**HOVER, "ADDR": f"127.0.0.1:{port}"}
    pod.start("api", [leak], memory_limit_bytes=64 * MIB, env=hover, uid=1000, gid=1000)
    assert "oom-heap-dumper check" in run.wait_for("cgroup-unreadable")["message"]
    assert run.wait_for("captured")["limit_bytes"] == 64 * MIB
    assert run.stop() == 0


def test_equal_programs_without_rights_are_not_mixed_up(
    pod: LocalPod, sidecar: MakeSidecar, leak: Path, rightless: tuple[str, ...]
) -> None:
    """Their arguments can't tell them apart: none is given another one's port, and ``check`` says why."""
    run = sidecar(MEMORY_LIMIT="64Mi")
    run.wrapper = rightless
    for name in ("one", "two"):
        pod.start(name, [leak], memory_limit_bytes=64 * MIB, env=CALM, uid=1000, gid=1000)
    status, output = run.exec("check", "--skip-store")
    assert status == 1
    assert output.count("pprof      none") == 2
    assert "the same arguments" in output


def test_a_crash_loop_meets_the_hourly_cap(pod: LocalPod, sidecar: MakeSidecar, leak: Path) -> None:
    """The cap is the container's, not one life's: the second life is held back, and that is said."""
    run = sidecar(MAX_DUMPS_PER_HOUR="1", COOLDOWN="1s")
    run.start()
    pod.start("api", [leak], memory_limit_bytes=64 * MIB, env=HOVER)
    run.wait_for("captured")
    pod.start("api", [leak], memory_limit_bytes=64 * MIB, env=HOVER)
    run.wait_for("held-back", container="api")
    run.stop()
    assert len(run.events("captured")) == 1
