"""Where pods are described in a Kubernetes object of any kind, and access to their parts. Pure."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import TypeGuard

from sidecar.errors import ConfigError
from sidecar.inject.model import PREFIX, SWITCH, PodError
from sidecar.inject.patch import join, look_up

_TEMPLATES = ("/spec/template", "/spec/jobTemplate/spec/template", "/template")
"""Of Deployment, StatefulSet, DaemonSet, ReplicaSet, ReplicationController, Job, Rollout and others; CronJob;
PodTemplate. An object that has one of them has no other."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PodSpot:
    """A pod template, or a Pod: ``at`` is its pointer in the document, ``owner_at`` that of the object it belongs to.

    ``annotations`` are those (and labels) of ours, of the object and the template together. ``is_live`` tells that the
    object comes from a cluster, which has given it a UID.
    """

    at: str
    owner_at: str
    api_version: str
    kind: str
    name: str
    pod: Mapping[str, object]
    annotations: Mapping[str, str]
    is_live: bool


def find_pods(document: object, at: str = "", kind: str = "") -> Iterator[PodSpot]:
    """Every pod of a document, also in lists (``List``, ``DeploymentList``, ...), in their order.

    ``kind`` is that of a list's items, which typed lists don't repeat.
    """
    if not isinstance(document, dict):
        return
    kind = str(document.get("kind") or kind)
    items = document.get("items")
    if kind.endswith("List") and isinstance(items, list):
        for index, item in enumerate(items):
            yield from find_pods(item, f"{at}{join('items', index)}", kind.removesuffix("List"))
        return
    for below, pod in _pods_in(document, kind):
        yield PodSpot(
            at=f"{at}{below}",
            owner_at=at,
            api_version=str(document.get("apiVersion")),
            kind=kind or "object",
            name=_name(document),
            pod=pod,
            annotations=settings_of(document, pod),
            is_live=bool(look_up(document, "/metadata/uid")),
        )


def _pods_in(document: dict[str, object], kind: str) -> Iterator[tuple[str, dict[str, object]]]:
    """The pods of one object by their pointers: itself, the template of a usual kind, or all those of another one."""
    if kind == "Pod":
        if isinstance(document.get("spec"), dict):
            yield "", document
        return
    for below in _TEMPLATES:
        template = look_up(document, below)
        if _is_template(template):
            yield below, template
            return
    yield from _templates_in(document, "")


def _templates_in(value: object, at: str) -> Iterator[tuple[str, dict[str, object]]]:
    """Every ``template`` of a pod, however deep: of a KEDA ScaledJob, a JobSet and others.

    Only what runs for certain: a policy's patch for pods has a template as well, with containers that lack a name, or
    an image.
    """
    parts: Iterator[tuple[object, object]] = iter(())
    if isinstance(value, dict):
        parts = iter(value.items())
    elif isinstance(value, list):
        parts = iter(enumerate(value))
    for key, part in parts:
        below = f"{at}{join(str(key))}"
        if key == "template" and _is_template(part):
            if _runs(part["spec"]):
                yield below, part
        elif isinstance(part, dict | list):
            yield from _templates_in(part, below)


def _is_template(value: object) -> TypeGuard[dict[str, object]]:
    """Whether it describes a pod: its containers may be anything, which is for a later check to refuse."""
    return isinstance(value, dict) and isinstance(value.get("spec"), dict) and "containers" in value["spec"]


def _runs(spec: object) -> bool:
    containers = look_up(spec, "/containers")
    return isinstance(containers, list) and all(
        isinstance(each, dict) and all(isinstance(each.get(key), str) for key in ("name", "image"))
        for each in containers
    )


def settings_of(*objects: Mapping[str, object]) -> dict[str, str]:
    """The annotations of ours of these objects, later ones winning, and the label that switches us off.

    Raises ConfigError for an annotation of ours that isn't text, which Kubernetes would refuse.
    """
    found: dict[str, str] = {}
    for each in objects:
        labels, annotations = (look_up(each, f"/metadata/{name}") for name in ("labels", "annotations"))
        if isinstance(labels, dict) and SWITCH in labels:
            found[SWITCH] = str(labels[SWITCH])
        if isinstance(annotations, dict):
            ours = {key: value for key, value in annotations.items() if str(key).startswith(PREFIX)}
            for key, value in ours.items():
                if not isinstance(value, str):
                    raise ConfigError(f"annotation {key} must be text: put its value in quotes")
                found[key] = value
    return found


def mapping(parent: object, pointer: str) -> dict[str, object]:
    """A mapping of a pod; an empty one where there is none. Raises PodError where there is something else."""
    value = look_up(parent, pointer)
    if value is None:
        return {}
    if not isinstance(value, dict):
        raise PodError(f"{_called(pointer)} must be a mapping (got {value!r:.60})", pointer)
    return value


def listing(parent: object, pointer: str) -> list[dict[str, object]]:
    """A list of mappings of a pod; an empty one where there is none. Raises PodError where there is something else."""
    value = look_up(parent, pointer)
    if value is None:
        return []
    if not isinstance(value, list):
        raise PodError(f"{_called(pointer)} must be a list (got {value!r:.60})", pointer)
    for index, item in enumerate(value):
        if not isinstance(item, dict):
            raise PodError(f"{_called(pointer)} must be a list of mappings (got {item!r:.60})", f"{pointer}/{index}")
    return value


def check_containers(pod: Mapping[str, object]) -> None:
    """Raise PodError for containers that have no name, or share one: nobody could tell what a change means."""
    seen: set[str] = set()
    for pointer in ("/spec/initContainers", "/spec/containers"):
        for index, container in enumerate(listing(pod, pointer)):
            name = container.get("name")
            where = f"{pointer}/{index}"
            if not isinstance(name, str) or not name:
                raise PodError("a container has no name: give it one", where)
            if name in seen:
                raise PodError(f"two containers of the pod are named {name}: rename one", f"{where}/name")
            seen.add(name)


def _name(document: Mapping[str, object]) -> str:
    metadata = document.get("metadata")
    names = [metadata.get(key) for key in ("name", "generateName")] if isinstance(metadata, dict) else []
    return next((str(name) for name in names if name), "unnamed")


def _called(pointer: str) -> str:
    return pointer.strip("/").replace("/", ".")
