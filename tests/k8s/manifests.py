"""The manifests of k8s/ as data, and what Kubernetes makes of them."""

from __future__ import annotations

import copy
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml

K8S = Path(__file__).parents[2] / "k8s"
SIDECAR = "oom-heap-dumper"

Manifest = dict[str, Any]  # what YAML gives; its schema is checked by the tests


def load(path: Path) -> list[Manifest]:
    """The documents of a YAML file."""
    return list(yaml.safe_load_all(path.read_text()))


def of_kind(manifests: list[Manifest], kind: str) -> Manifest:
    """The only manifest of a kind."""
    (found,) = (manifest for manifest in manifests if manifest["kind"] == kind)
    return found


def with_component(deployment: Manifest) -> Manifest:
    """A Deployment as the component's two patches leave it (what kustomize does, for these patches)."""
    patched = copy.deepcopy(deployment)
    pod = pod_of(patched)
    (merge,) = load(K8S / "component" / "pod.yaml")
    addition = pod_of(merge)
    pod["volumes"] = addition.pop("volumes") + pod.get("volumes", [])
    pod |= addition
    (append,) = yaml.safe_load((K8S / "component" / "container.yaml").read_text())
    assert (append["op"], append["path"]) == ("add", "/spec/template/spec/containers/-")
    pod["containers"].append(append["value"])
    return patched


def rendered(kustomization: Path) -> list[Manifest]:
    """A kustomization as kubectl renders it; skips the test where there is no kubectl."""
    kubectl = shutil.which("kubectl")
    if kubectl is None:
        pytest.skip("kubectl isn't on PATH, so the kustomization can't be rendered")
    command = [kubectl, "kustomize", str(kustomization)]
    return list(yaml.safe_load_all(subprocess.run(command, check=True, capture_output=True, text=True).stdout))


def rendered_example() -> list[Manifest]:
    """The component's example."""
    return rendered(K8S / "component-example")


def deployments() -> dict[str, Manifest]:
    """Every Deployment that has the sidecar, by where it comes from."""
    (app,) = load(K8S / "component-example" / "app.yaml")
    return {
        "deployment": of_kind(load(K8S / "deployment.yaml"), "Deployment"),
        "native-sidecar": of_kind(load(K8S / "native-sidecar.yaml"), "Deployment"),
        "component": with_component(app),
    }


def pod_of(deployment: Manifest) -> Manifest:
    """The spec of a Deployment's pods."""
    pod: Manifest = deployment["spec"]["template"]["spec"]
    return pod


def containers_of(pod: Manifest) -> dict[str, Manifest]:
    """Every container of a pod by name, init containers first."""
    return {container["name"]: container for container in pod.get("initContainers", []) + pod["containers"]}


def security_of(pod: Manifest, container: Manifest) -> Manifest:
    """The security context that holds for a container: its own settings win over the pod's."""
    context: Manifest = pod.get("securityContext", {}) | container.get("securityContext", {})
    return context
