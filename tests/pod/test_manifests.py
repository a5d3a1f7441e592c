"""The manifests of k8s/, run: from a leak in a limited container to the line of code, read from S3."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from localpod.pprof_top import first_row
from localpod.toolchain import Toolchain
from tests.e2e.sidecar_run import PROJECT
from tests.k8s.manifests import SIDECAR, containers_of, deployments, pod_of
from tests.pod.conftest import Play
from tests.pod.kube import NAMESPACE, NODE
from tests.pod.running import RunningPod

MIB = 1 << 20

# Calm until the sidecar, which starts at the same time, has a baseline; then about four seconds to 256 MiB.
LEAK = {"LEAK_MODE": "steady", "LEAK_RATE": "60MiB/s", "LEAK_DELAY": "6s"}


def at_the_desk(pod: RunningPod, *arguments: str) -> str:
    """What an engineer's own oom-heap-dumper prints, with the store's credentials."""
    environment = pod.store.environment | {"BUCKET": pod.store.bucket, "PREFIX": pod.name, "PATH": os.environ["PATH"]}
    command = [sys.executable, "-m", "sidecar", *arguments]
    return subprocess.run(command, env=environment, cwd=PROJECT, capture_output=True, text=True, check=True).stdout


@pytest.mark.parametrize("name", ["deployment", "native-sidecar"])
def test_the_leak_is_named_from_s3_and_the_restarted_app_is_followed(
    play: Play, go: Toolchain, tmp_path: Path, name: str
) -> None:
    """Killed for its memory and restarted by its policy, twice: each kill has an incident of its own in the bucket.

    The profile, fetched as the README says, has the guilty function on top.
    """
    pod = play(deployments()[name], app=LEAK)
    for life in (1, 2):
        assert pod.wait_for_exit("app", life) == 137
        pod.wait_for("container-ended", life, container="app", ending="oom-killed")
        pod.wait_for_document("outcome-oom-killed.json", life)
        pod.wait_for_document("manifest.json", life)
    outcomes = pod.stored("outcome-oom-killed.json")
    incidents = {key.split("/")[-2].split("_")[3].split("-")[0] for key in outcomes}
    assert len(incidents) == 2

    assert "oom-killed" in at_the_desk(pod, "list", "--namespace", NAMESPACE, "--pod", pod.name)
    at_the_desk(pod, "get", "--pod", pod.name, "--latest", "--dir", str(tmp_path / "here"))
    heap = next(path for name in ("heap-newest.pb.gz", "heap-[0-9]*.pb.gz") for path in (tmp_path / "here").rglob(name))
    top = first_row(subprocess.run([go.pprof(), "-top", heap], capture_output=True, text=True, check=True).stdout)
    assert top is not None
    assert top.function == "main.serializeJSON"

    manifest = pod.documents("manifest.json")[0]
    assert (manifest["container"], manifest["pod"], manifest["namespace"]) == ("app", pod.name, NAMESPACE)
    assert manifest["node"] == NODE
    assert manifest["memory"]["limit_bytes"] == 256 * MIB
    assert pod.exits(SIDECAR) == []


def test_the_probe_and_check_agree_that_all_is_well(play: Play) -> None:
    """In the pod as the manifest has it the liveness probe's command succeeds, and ``check`` finds every right."""
    pod = play(app={"LEAK_MODE": "off"})
    pod.wait_for("watching", container="app")
    container = containers_of(pod_of(deployments()["deployment"]))[SIDECAR]
    assert "healthy" in pod.execute(*container["livenessProbe"]["exec"]["command"])
    assert "all is well" in pod.execute("oom-heap-dumper", "check")
