"""What is changed in the manifests before podman gets them; this needs no podman."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.k8s.manifests import SIDECAR, Manifest, containers_of, deployments, pod_of
from tests.pod.kube import Ground, for_podman, with_environment, with_limit

GROUND = Ground(images={"app": "one", SIDECAR: "two", "checkout": "three"}, kubelet=Path("/kubelet"))
CHANGED = {"image", "imagePullPolicy", "ports", "env", "volumeMounts", "restartPolicy"}


@pytest.mark.parametrize("name", deployments())
def test_only_what_podman_needs_is_changed(name: str) -> None:
    """Everything else of the pod and of its containers is what the manifest says: users, limits, probes, volumes."""
    before = pod_of(deployments()[name])
    pod = for_podman(deployments()[name], GROUND, "p")
    after = pod["spec"]
    assert set(pod) == {"apiVersion", "kind", "metadata", "spec"}
    assert {key: after[key] for key in after if key not in {"containers", "volumes"}} == {
        key: before[key] for key in before if key not in {"containers", "volumes", "initContainers"}
    }
    assert list(containers_of(after)) == list(containers_of(before))
    for key, container in containers_of(after).items():
        original = containers_of(before)[key]
        assert untouched(container) == untouched(original)
        own = [mount["mountPath"] for mount in original.get("volumeMounts", [])]
        assert [mount["mountPath"] for mount in container["volumeMounts"]] == [*own, "/dev/termination-log"]
        assert [entry["name"] for entry in container.get("env", [])] == [e["name"] for e in original.get("env", [])]
    own_volumes = [entry for entry in after["volumes"] if "hostPath" not in entry]
    assert [entry["emptyDir"] for entry in own_volumes] == [entry["emptyDir"] for entry in before["volumes"]]


def untouched(container: Manifest) -> Manifest:
    """A container without what the transformation may change."""
    return {key: value for key, value in container.items() if key not in CHANGED}


def test_nothing_is_published_and_nothing_is_pulled() -> None:
    """No port of a pod opens one of this machine, and every image is one that is already there."""
    for container in for_podman(deployments()["deployment"], GROUND, "p")["spec"]["containers"]:
        assert "ports" not in container
        assert container["imagePullPolicy"] == "Never"
        assert container["image"] in GROUND.images.values()


def test_fields_of_the_downward_api_that_podman_lacks_have_values() -> None:
    """The pod's name is podman's to tell; namespace and node are given."""
    spec = for_podman(deployments()["deployment"], GROUND, "p")["spec"]
    variables = {entry["name"]: entry for entry in containers_of(spec)[SIDECAR]["env"]}
    assert variables["POD_NAME"]["valueFrom"]["fieldRef"]["fieldPath"] == "metadata.name"
    assert variables["POD_NAMESPACE"]["value"] == "prod"
    assert variables["NODE_NAME"]["value"] == "node-1"


def test_a_limit_of_another_container_is_resolved() -> None:
    """The sidecar is told the app's limit, which podman would take for the sidecar's own."""
    spec = for_podman(deployments()["deployment"], GROUND, "p")["spec"]
    variables = {entry["name"]: entry for entry in containers_of(spec)[SIDECAR]["env"]}
    assert variables["MEMORY_LIMIT"] == {"name": "MEMORY_LIMIT", "value": "256Mi"}


def test_another_limit_takes_what_was_derived_from_the_old_one() -> None:
    """A smaller app isn't run with the GOMEMLIMIT and the threshold of the larger one."""
    spec = pod_of(with_limit(deployments()["deployment"], "app", "64Mi"))
    names = {entry["name"] for container in containers_of(spec).values() for entry in container["env"]}
    assert not names & {"GOMEMLIMIT", "CRITICAL", "MEMORY_LIMIT"}


def test_a_test_changes_a_copy() -> None:
    """Variables replace those of the same name, a limit is replaced or removed, and the manifest stays as it was."""
    manifest = deployments()["deployment"]
    changed = with_limit(with_environment(manifest, SIDECAR, {"BUCKET": "mine"}), "app", None)
    containers = containers_of(pod_of(changed))
    assert [entry for entry in containers[SIDECAR]["env"] if entry["name"] == "BUCKET"] == [
        {"name": "BUCKET", "value": "mine"}
    ]
    assert "limits" not in containers["app"]["resources"]
    assert manifest == deployments()["deployment"]
