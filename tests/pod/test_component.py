"""The component of k8s/ applied to Deployments of several kinds, and in real pods what comes of it.

There needn't be a kubectl: its patches are applied as data. tests/k8s holds that against kubectl, where there is one.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml
from kubernetes_validate import latest_version, validate  # type: ignore[import-untyped]  # the package carries no types

from localpod.podman import Podman
from tests.k8s.manifests import (
    K8S,
    SIDECAR,
    Manifest,
    containers_of,
    load,
    pod_of,
    security_of,
    with_component,
)
from tests.pod.conftest import Images, Play
from tests.pod.kube import with_environment, with_limit
from tests.pod.running import RunningPod

MIB = 1 << 20

# It stays above the threshold of a limit of 64 MiB and below the limit.
HOVER = {"LEAK_MODE": "steady", "LEAK_RATE": "16MiB/s", "LEAK_DELAY": "6s", "LEAK_MAX": "52MiB", "GOGC": "10"}


def shop(pod: str = "{}", container: str = "{}") -> Manifest:
    """A Deployment of one app, with these fields (YAML) of its pod and its container beside the least there can be."""
    deployment: Manifest = yaml.safe_load("""
apiVersion: apps/v1
kind: Deployment
metadata:
  name: shop
spec:
  selector:
    matchLabels: { app: shop }
  template:
    metadata:
      labels: { app: shop }
    spec:
      containers:
        - name: shop
          image: registry.example.com/shop:1.0.0
          resources:
            limits: { memory: 64Mi }
""")
    pod_of(deployment).update(yaml.safe_load(pod))
    containers_of(pod_of(deployment))["shop"].update(yaml.safe_load(container))
    return deployment


PLAIN = shop()
"""A Deployment that says nothing of users or rights: they are those of the images."""

PREPARED = shop(
    pod="""
securityContext: { runAsUser: 10002, runAsGroup: 10003 }
initContainers:
  - name: migrate
    image: registry.example.com/migrate:1.0.0
    command: [python3, -c, "open('/data/migrated', 'x')"]
    securityContext: { runAsUser: 0 }
    volumeMounts: [{ name: data, mountPath: /data }]
  - name: warm-up
    image: registry.example.com/warm-up:1.0.0
    command: [python3, -c, "open('/data/migrated').close()"]
    volumeMounts: [{ name: data, mountPath: /data }]
volumes: [{ name: data, emptyDir: {} }]
""",
    container="volumeMounts: [{ name: data, mountPath: /data }]",
)
"""A Deployment with a volume that two init containers prepare: root, then the pod's user."""


def restricted() -> Manifest:
    """The component's example: an app with a security context, whose overlay tells the pod's user and group."""
    (app,) = load(K8S / "component-example" / "app.yaml")
    (kustomization,) = load(K8S / "component-example" / "kustomization.yaml")
    (patch,) = kustomization["patches"]
    pod_of(app)["securityContext"] |= pod_of(yaml.safe_load(patch["patch"]))["securityContext"]
    return with_limit(app, "checkout", "64Mi")


def component_on(kind: str) -> Manifest:
    """The component on one of the three Deployments."""
    return with_component({"restricted": restricted(), "plain": PLAIN, "prepared": PREPARED}[kind])


def app_of(deployment: Manifest) -> str:
    """The name of the container that was there before the component."""
    return next(
        str(container["name"]) for container in pod_of(deployment)["containers"] if container["name"] != SIDECAR
    )


def played(play: Play, deployment: Manifest, image: str, built: Images) -> RunningPod:
    """A pod of it, with ``image`` for its app, which leaks."""
    del containers_of(pod_of(deployment))[SIDECAR]["envFrom"]  # the ConfigMap that each cluster has its own of
    app = app_of(deployment)
    inits = {container["name"]: built.sidecar for container in pod_of(deployment).get("initContainers", [])}
    return play(with_environment(deployment, app, HOVER), images={app: image} | inits)


each_kind = pytest.mark.parametrize("kind", ["restricted", "plain", "prepared"])


@each_kind
@pytest.mark.parametrize("version", ["1.29", latest_version()])
def test_what_the_component_makes_is_valid(kind: str, version: str) -> None:
    """No unknown field, and of the app's own volumes, init containers and settings none is lost or changed."""
    after = component_on(kind)
    validate(after, version, strict=True)
    pod = pod_of(after)
    before = {"restricted": restricted(), "plain": PLAIN, "prepared": PREPARED}[kind]
    added = {"containers", "volumes", "shareProcessNamespace"}
    assert {key: pod[key] for key in pod if key not in added} == {
        key: value for key, value in pod_of(before).items() if key not in added
    }
    assert [container for container in pod["containers"] if container["name"] != SIDECAR] == pod_of(before)[
        "containers"
    ]
    names = [volume["name"] for volume in pod["volumes"]]
    assert len(set(names)) == len(names)
    assert all(volume in pod["volumes"] for volume in pod_of(before).get("volumes", []))


@each_kind
def test_the_app_is_dumped_under_its_own_name(play: Play, built: Images, kind: str) -> None:
    """Every right is there, the dump is stored, and the init containers have run before, once and in order."""
    deployment = component_on(kind)
    app = app_of(deployment)
    pod = played(play, deployment, built.example, built)
    assert pod.wait_for("captured", container=app)["limit_bytes"] == 64 * MIB
    manifest = pod.wait_for_document("manifest.json")
    assert manifest["container"] == app
    for container in pod_of(deployment).get("initContainers", []):
        assert pod.exits(container["name"]) == [0]
    (finding,) = checked(pod)["containers"]
    assert all(finding["rights"].values()), finding


@pytest.fixture
def rooted(podman: Podman, built: Images, tmp_path: Path) -> Iterator[str]:
    """The example in an image that names no user but root."""
    folder = tmp_path / "rooted"
    folder.mkdir()
    (folder / "Dockerfile").write_text(f"FROM {built.example}\nUSER 0:0\n")
    name = "localhost/rooted:test"
    podman.run("build", "--quiet", "--network", "none", "--pull=never", "--tag", name, folder)
    yield name
    podman.run("image", "rm", "--force", name)


def patch_of_the_readme() -> Manifest:
    """The sidecar's security context that k8s/README.md gives for apps whose image runs as root."""
    (block,) = re.findall(r"```yaml\n(patches:.*?)```", (K8S / "README.md").read_text(), re.DOTALL)
    (entry,) = yaml.safe_load(block)["patches"]
    app, container = pod_of(yaml.safe_load(entry["patch"]))["containers"]
    assert app == {"name": "shop"}
    assert container.keys() == {"name", "securityContext"}
    assert container["name"] == SIDECAR
    context: Manifest = container["securityContext"]
    return context


def with_sidecar_context(deployment: Manifest, change: Manifest) -> Manifest:
    """The Deployment with the sidecar's security context changed, as a strategic merge does: null removes."""
    sidecar = containers_of(pod_of(deployment))[SIDECAR]
    merged = security_of({}, sidecar) | change
    sidecar["securityContext"] = {key: value for key, value in merged.items() if value is not None}
    return deployment


def test_an_image_that_runs_as_root_is_said_with_the_lines(play: Play, built: Images, rooted: str) -> None:
    """The component can't know such an app's user: ``check`` gives the lines, and with these every right is there."""
    pod = played(play, component_on("plain"), rooted, built)
    pod.wait_for("watching", container="shop")
    (finding,) = checked(pod)["containers"]
    assert not finding["rights"]["cgroup"]
    assert any("MEMORY_LIMIT" in problem for problem in finding["problems"])
    context = yaml.safe_load("\n".join(finding["remedy"]))["securityContext"]
    helped = played(play, with_sidecar_context(component_on("plain"), context), rooted, built)
    assert helped.wait_for("captured", container="shop")["limit_bytes"] == 64 * MIB
    (finding,) = checked(helped)["containers"]
    assert all(finding["rights"].values()), finding


def test_the_patch_for_root_grants_everything(play: Play, built: Images, rooted: str) -> None:
    """What k8s/README.md says to add for an app that runs as root is valid, and the app is dumped with every right."""
    deployment = with_sidecar_context(component_on("plain"), patch_of_the_readme())
    validate(deployment, latest_version(), strict=True)
    pod = played(play, deployment, rooted, built)
    assert pod.wait_for("captured", container="shop")["limit_bytes"] == 64 * MIB
    (finding,) = checked(pod)["containers"]
    assert all(finding["rights"].values()), finding


def checked(pod: RunningPod) -> Manifest:
    """What ``check`` says in the pod."""
    said = pod.podman.attempt("exec", pod.in_podman(SIDECAR), "oom-heap-dumper", "check", "--output", "json")
    document: Manifest = json.loads(said.stdout)
    return document
