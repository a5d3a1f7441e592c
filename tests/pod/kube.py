"""The manifests of k8s/, changed only in what podman needs, and in what a test says.

Each function takes a manifest and returns another one, or changes the copy that it was given; none runs anything.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from tests.k8s.manifests import SIDECAR, Manifest, containers_of, pod_of

NAMESPACE = "prod"
NODE = "node-1"

_DERIVED = {"GOMEMLIMIT", "CRITICAL", "MEMORY_LIMIT"}
_LONGEST_LABEL = 63
_FIELDS = {"metadata.namespace": NAMESPACE, "spec.nodeName": NODE}


@dataclass(frozen=True, slots=True, kw_only=True)
class Ground:
    """What stands here for the cluster: the images, by container, and a directory for what the kubelet would make."""

    images: Mapping[str, str]
    kubelet: Path | None

    def termination_log(self, pod: str, container: str) -> Path | None:
        """Where the kubelet puts a container's termination log: the path tells its name. None without a kubelet."""
        return self.kubelet / "pods" / pod / "containers" / container / "0" if self.kubelet is not None else None


def for_podman(deployment: Manifest, ground: Ground, name: str) -> Manifest:
    """The pod that Kubernetes would make of a Deployment, as podman can play it; ``name`` is the pod's.

    Everything that isn't named here stays as it is in the manifest.
    """
    template = copy.deepcopy(deployment["spec"]["template"])
    spec = pod_of(deployment | {"spec": {"template": template}})
    metadata = template["metadata"] | {"name": name}
    annotations = metadata.get("annotations", {}).items()  # podman 4.3 takes none that is longer than a label may be
    metadata["annotations"] = {key: text for key, text in annotations if len(text) <= _LONGEST_LABEL}
    pod = {"apiVersion": "v1", "kind": "Pod", "metadata": metadata, "spec": spec}
    # Podman 4.3 would wait for the end of an init container that restarts, so these are containers here.
    inits = spec.pop("initContainers", [])
    native = [container for container in inits if container.pop("restartPolicy", None) == "Always"]
    spec["containers"] = native + spec["containers"]
    once = [container for container in inits if container not in native]
    if once:
        spec["initContainers"] = once
        spec["restartPolicy"] = "OnFailure"  # the pod's Always would restart these too
    for container in containers_of(spec).values():
        _adapt_container(container, ground)
        _resolve_limits(container, spec)
        _mount_termination_log(spec, container, ground, name)
    _rename_volumes(spec, name)
    return pod


def _adapt_container(container: Manifest, ground: Ground) -> None:
    container["image"] = ground.images[container["name"]]
    container["imagePullPolicy"] = "Never"
    container.pop("ports", None)  # podman publishes them on this machine
    for variable in container.get("env", []):
        field = variable.get("valueFrom", {}).get("fieldRef", {}).get("fieldPath")
        if field in _FIELDS:  # podman knows only the pod's name
            del variable["valueFrom"]
            variable["value"] = _FIELDS[field]


def _resolve_limits(container: Manifest, spec: Manifest) -> None:
    """Podman takes every resource for the container's own."""
    for variable in container.get("env", []):
        source = variable.get("valueFrom", {}).get("resourceFieldRef")
        if source is not None:
            assert source["resource"] == "limits.memory"
            limit = containers_of(spec)[source["containerName"]]["resources"]["limits"]["memory"]
            del variable["valueFrom"]
            variable["value"] = limit


def _mount_termination_log(spec: Manifest, container: Manifest, ground: Ground, pod: str) -> None:
    """Podman has no termination log: the kubelet's mount of it, by which the sidecar knows the container's name."""
    path = ground.termination_log(pod, container["name"])
    if path is None:
        return
    volume = f"termination-log-{container['name']}"
    spec.setdefault("volumes", []).append({"name": volume, "hostPath": {"path": str(path), "type": "File"}})
    container.setdefault("volumeMounts", []).append({"name": volume, "mountPath": "/dev/termination-log"})


def _rename_volumes(spec: Manifest, pod: str) -> None:
    """Podman's emptyDirs are shared by all pods that name them the same."""
    mounts = (mount for each in containers_of(spec).values() for mount in each.get("volumeMounts", []))
    for entry in [*spec["volumes"], *mounts]:
        entry["name"] = f"{pod}-{entry['name']}"


def with_environment(deployment: Manifest, container: str, variables: Mapping[str, str]) -> Manifest:
    """The Deployment with variables of one of its containers set, in place of those of the same name."""
    changed = copy.deepcopy(deployment)
    target = containers_of(pod_of(changed))[container]
    kept = [entry for entry in target.get("env", []) if entry["name"] not in variables]
    target["env"] = kept + [{"name": key, "value": value} for key, value in variables.items()]
    return changed


def with_limit(deployment: Manifest, container: str, limit: str | None) -> Manifest:
    """The Deployment with another memory limit for one of its containers, or none.

    What inject has derived from the limit that it had goes with that.
    """
    changed = copy.deepcopy(deployment)
    for each in containers_of(pod_of(changed)).values():
        each["env"] = [entry for entry in each.get("env", []) if entry["name"] not in _DERIVED]
    resources = containers_of(pod_of(changed))[container]["resources"]
    resources.pop("limits", None)
    if limit is not None:
        resources["limits"] = {"memory": limit}
    return changed


def with_cpu_limit(deployment: Manifest, container: str, limit: str) -> Manifest:
    """The Deployment with a CPU limit for one of its containers beside the limits that it has."""
    changed = copy.deepcopy(deployment)
    containers_of(pod_of(changed))[container]["resources"].setdefault("limits", {})["cpu"] = limit
    return changed


def with_file(deployment: Manifest, container: str, source: Path, path: str) -> Manifest:
    """The Deployment with a file of this machine at a path of one of its containers, as a ConfigMap's would be."""
    changed = copy.deepcopy(deployment)
    spec = pod_of(changed)
    volume = source.name.replace(".", "-")
    spec.setdefault("volumes", []).append({"name": volume, "hostPath": {"path": str(source), "type": "File"}})
    mount = {"name": volume, "mountPath": path, "readOnly": True}
    containers_of(spec)[container].setdefault("volumeMounts", []).append(mount)
    return changed


def with_second_app(deployment: Manifest, name: str) -> Manifest:
    """The Deployment with a second container like its first app."""
    changed = copy.deepcopy(deployment)
    spec = pod_of(changed)
    twin = next(container for container in spec["containers"] if container["name"] != SIDECAR)
    spec["containers"].append(copy.deepcopy(twin) | {"name": name})
    return changed
