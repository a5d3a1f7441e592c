"""``check`` and ``dump`` from inside the pod, beside a running watch."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

from localpod.pod import LocalPod
from tests.e2e.leaks import CALM
from tests.e2e.sidecar_run import SidecarRun, manifest_of

MIB = 1 << 20
MakeSidecar = Callable[..., SidecarRun]


def test_check_finds_all_well(pod: LocalPod, sidecar: MakeSidecar, leak: Path) -> None:
    """Limit, threshold, port and rights of the app; a store that was written to; exit code 0."""
    run = sidecar(CRITICAL="75")
    pod.start("api", [leak], memory_limit_bytes=64 * MIB, env=CALM)
    status, output = run.exec("check", "--output", "json")
    found = json.loads(output)
    assert status == 0, output
    assert found["ok"]
    (container,) = found["containers"]
    assert container["name"] == "api"
    assert container["threshold_bytes"] == 48 * MIB
    assert container["limit_bytes"] == 64 * MIB
    assert len(container["pprof"]) == 1
    assert all(container["rights"].values())
    assert list((run.folder / "dumps").rglob("*probe*")) == []
    assert "all is well" in run.exec("check")[1]


def test_check_names_what_is_missing(pod: LocalPod, sidecar: MakeSidecar, leak: Path) -> None:
    """No limit, and a store that can't be written: exit code 1 and a line for each, with the remedy."""
    run = sidecar(DUMP_DIR="/proc/nowhere")
    pod.start("api", [leak], env=CALM)
    status, output = run.exec("check")
    assert status == 1
    assert "set MEMORY_LIMIT" in output
    assert "/proc/nowhere" in output
    assert "Traceback" not in output


def test_check_without_rights_gives_the_lines_to_add(
    pod: LocalPod, sidecar: MakeSidecar, leak: Path, rightless: tuple[str, ...]
) -> None:
    """The user and group of the app, as lines of a pod spec."""
    run = sidecar()
    run.wrapper = rightless
    pod.start("api", [leak], memory_limit_bytes=64 * MIB, env=CALM, uid=1234, gid=4321)
    status, output = run.exec("check")
    assert status == 1
    assert "runAsUser: 1234" in output
    assert "runAsGroup: 4321" in output
    assert "sockets NO" in output


def test_check_in_an_empty_pod(pod: LocalPod, sidecar: MakeSidecar) -> None:
    """Nobody else is there: the remedy for the usual cause."""
    del pod
    status, output = sidecar().exec("check")
    assert status == 1
    assert "shareProcessNamespace: true" in output


def test_dump_now_beside_a_running_watch(pod: LocalPod, sidecar: MakeSidecar, leak: Path) -> None:
    """A calm program is dumped on demand, stored at once, and its key is printed for scripts."""
    run = sidecar()
    run.start()
    pod.start("api", [leak], memory_limit_bytes=64 * MIB, env=CALM)
    run.wait_for("watching")
    status, output = run.exec("dump", "--container", "api")
    assert status == 0, output
    key = output.splitlines()[-1]
    manifest = manifest_of(run.folder / "dumps" / key / "manifest.json")
    assert manifest["trigger"]["reason"] == "on-demand"
    assert {profile["kind"] for profile in manifest["profiles"]} == {
        *("heap-newest", "heap", "heap-gc", "goroutine", "memstats"),
    }
    assert run.stop() == 0


def test_dump_of_an_unknown_container(pod: LocalPod, sidecar: MakeSidecar, leak: Path) -> None:
    """One line that says which name, exit code 1."""
    pod.start("api", [leak], memory_limit_bytes=64 * MIB, env=CALM)
    status, output = sidecar().exec("dump", "--container", "nope")
    assert status == 1
    assert "no container is named 'nope'" in output


def test_dump_keeps_what_the_store_refuses(pod: LocalPod, sidecar: MakeSidecar, leak: Path) -> None:
    """The store is down: exit code 1, and the line says where the dump is kept."""
    run = sidecar(
        BUCKET="dumps",
        AWS_ENDPOINT_URL="http://127.0.0.1:9",
        AWS_ACCESS_KEY_ID="a",
        AWS_SECRET_ACCESS_KEY="b",
        AWS_REGION="us-east-1",
    )
    pod.start("api", [leak], memory_limit_bytes=64 * MIB, env=CALM)
    status, output = run.exec("dump")
    assert status == 1
    assert "kept in" in output
    assert list((run.folder / "spool").rglob("heap-newest.pb.gz"))
