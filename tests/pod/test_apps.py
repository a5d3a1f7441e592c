"""Apps of many kinds in real pods: where they listen, whom they answer, how many they are, and who of them dies."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.k8s.manifests import K8S, SIDECAR, Manifest, containers_of, load, of_kind, pod_of
from tests.pod.conftest import Images, Play
from tests.pod.kube import with_cpu_limit, with_environment, with_limit, with_second_app

MIB = 1 << 20

# Calm until the sidecar, which starts at the same time, has looked around; then about four seconds to 64 MiB.
LEAK = {"LEAK_MODE": "steady", "LEAK_RATE": "16MiB/s", "LEAK_DELAY": "6s", "GOGC": "50"}


@pytest.fixture
def deployment() -> Manifest:
    """k8s/deployment.yaml with a smaller app, so that it is full sooner."""
    return with_limit(of_kind(load(K8S / "deployment.yaml"), "Deployment"), "app", "64Mi")


@pytest.mark.parametrize(("address", "url"), [("127.0.0.1:8080", "127.0.0.1:8080"), ("[::1]:8080", "[::1]:8080")])
def test_an_app_that_only_loopback_reaches(play: Play, deployment: Manifest, address: str, url: str) -> None:
    """The sidecar shares the pod's network, so an app on loopback alone, IPv4 or IPv6, is found and dumped."""
    pod = play(deployment, app=LEAK | {"ADDR": address})
    assert pod.wait_for("watching", container="app")["pprof"] == [f"http://{url}/debug/pprof"]
    manifest = pod.wait_for_document("manifest.json")
    assert manifest["container"] == "app"
    assert any(name.endswith("heap-8080.pb.gz") for name in pod.stored())


def test_cpu_limits_of_both_containers(play: Play, deployment: Manifest) -> None:
    """The app at a quarter of a core, as many platforms demand, the sidecar at a tenth: the kill leaves its dump."""
    limited = with_cpu_limit(with_cpu_limit(deployment, "app", "250m"), SIDECAR, "100m")
    pod = play(limited, app=LEAK)
    pod.wait_for("watching", container="app")
    assert {name: cpu_quota(pod.pid(name)) for name in ("app", SIDECAR)} == {"app": 0.25, SIDECAR: 0.1}
    pod.wait_for_document("outcome-oom-killed.json")
    assert pod.wait_for_document("manifest.json")["container"] == "app"
    assert any(name.endswith("/heap-newest.pb.gz") for name in pod.stored())


def cpu_quota(pid: int) -> float:
    """How much of a core the process's cgroup may use."""
    for line in Path(f"/proc/{pid}/cgroup").read_text().splitlines():
        _, controllers, path = line.split(":", 2)
        if "cpu" in controllers.split(","):
            cgroup = Path("/sys/fs/cgroup/cpu") / path[1:]
            quota, period = (int((cgroup / f"cpu.cfs_{name}_us").read_text()) for name in ("quota", "period"))
            return quota / period
        if not controllers:
            maximum = Path("/sys/fs/cgroup") / path[1:] / "cpu.max"
            if maximum.exists():
                quota, period = map(int, maximum.read_text().split())
                return quota / period
    raise AssertionError(f"process {pid} has no CPU limit")


def test_two_apps_are_told_apart_and_named(play: Play, deployment: Manifest, built: Images) -> None:
    """Two containers of one image: both are watched under their own names, and only the one that leaks is dumped."""
    calm = {"LEAK_MODE": "off", "ADDR": ":8081"}
    both = with_environment(with_second_app(deployment, "calm"), "calm", calm)
    pod = play(both, app=LEAK, images={"calm": built.example})
    limits = {name: pod.wait_for("watching", container=name)["limit_bytes"] for name in ("app", "calm")}
    assert limits == {"app": 64 * MIB, "calm": 64 * MIB}
    pod.wait_for("container-ended", container="app", ending="oom-killed")
    pod.wait_for_document("outcome-oom-killed.json")
    assert {document["container"] for document in pod.documents("*.json")} == {"app"}


def test_pprof_under_a_prefix_and_behind_a_token(play: Play, deployment: Manifest, built: Images) -> None:
    """With PPROF_PATH and PPROF_HEADERS the profile comes; the token is in no log line and in no stored file."""
    token = "a-token-that-nobody-guesses"
    pod = play(
        deployment,
        app={"ADDR": ":8080", "PREFIX": "/internal/profiles", "TOKEN": token},
        sidecar={
            "PPROF_PATH": "/internal/profiles",
            "PPROF_HEADERS": f"Authorization: Bearer {token}",
            "LOG_LEVEL": "debug",
        },
        images={"app": built.program},
    )
    assert pod.wait_for("watching", container="app")["pprof"] == ["http://[::1]:8080/internal/profiles"]
    pod.wait_for_document("manifest.json")
    stored = pod.stored()
    assert any(name.endswith("heap-8080.pb.gz") for name in stored)
    assert token not in pod.log()
    assert not [name for name, body in stored.items() if token.encode() in body]


def test_a_token_that_is_not_given_costs_the_http_profiles_only(
    play: Play, deployment: Manifest, built: Images
) -> None:
    """Nobody told the sidecar the app's token: what HTTP refuses is read from the app's memory."""
    pod = play(deployment, app={"ADDR": ":8080", "TOKEN": "secret"}, images={"app": built.program})
    assert pod.wait_for("watching", container="app")["pprof"] == []
    pod.wait_for_document("manifest.json")
    assert {name.rpartition("/")[2] for name in pod.stored("heap-*")} == {"heap-newest.pb.gz"}


def test_a_child_that_is_killed_is_reported(play: Play, deployment: Manifest, built: Images) -> None:
    """The OOM killer takes the child alone and the container lives on: no restart shows it, the bucket does."""
    pod = play(
        deployment, app={"ADDR": ":8080", "PREFIX": "/debug/pprof", "ROLE": "parent"}, images={"app": built.program}
    )
    outcome = pod.wait_for_document("outcome-process-oom-killed.json")
    assert outcome["counted"]
    assert outcome["container"] == "app"
    assert "signal: killed" in pod.log("app")
    assert pod.exits("app") == []
    pod.wait_for_document("manifest.json")
    assert any("/heap-" in name for name in pod.stored("heap-*.pb.gz"))


def test_no_limit_is_said_once_and_a_setting_stands_in(play: Play, deployment: Manifest) -> None:
    """Without a limit nothing can fire, which is said with the remedy; with that, MEMORY_LIMIT, it does."""
    unlimited = with_limit(deployment, "app", None)
    pod = play(unlimited, app={"LEAK_MODE": "off"})
    assert "MEMORY_LIMIT" in pod.wait_for("watching", container="app")["message"]
    helped = play(unlimited, app=LEAK | {"LEAK_MAX": "80MiB"}, sidecar={"MEMORY_LIMIT": "64Mi"})
    assert helped.wait_for("captured", container="app")["limit_bytes"] == 64 * MIB
    helped.wait_for_document("manifest.json")
    assert len(pod.events("watching")) == 1


def test_without_the_kubelets_mount_the_program_names_it(play: Play, deployment: Manifest) -> None:
    """Where no termination log is mounted, the container is called after its program, or as CONTAINER_NAME says."""
    spec = pod_of(deployment)
    assert containers_of(spec)["app"]
    named = play(deployment, app={"LEAK_MODE": "off"}, sidecar={"CONTAINER_NAME": "shop"}, kubelet=False)
    assert named.wait_for("watching")["container"] == "shop"
    unnamed = play(deployment, app={"LEAK_MODE": "off"}, kubelet=False)
    assert unnamed.wait_for("watching")["container"] == "go-memory-leak"
    assert not unnamed.exits(SIDECAR)
