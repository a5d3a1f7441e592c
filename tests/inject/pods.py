"""Pods to inject into, and what became of them."""

from __future__ import annotations

from typing import Any

from sidecar.inject.model import SIDECAR, Options
from sidecar.inject.patch import apply
from sidecar.inject.plan import plan_injection
from sidecar.inject.pods import settings_of

Pod = dict[str, Any]

OPTIONS = Options(image="r.example.com/dumper:1", bucket="my-dumps")


def pod(*containers: Pod, **spec: object) -> Pod:
    """A pod template of these containers; without any, of one with a memory limit."""
    limited = {"name": "app", "image": "app:1", "resources": {"limits": {"memory": "512Mi"}}}
    return {"metadata": {"labels": {"a": "b"}}, "spec": {"containers": list(containers) or [limited], **spec}}


def injected(before: Pod, options: Options = OPTIONS) -> Pod:
    """The pod with the plan carried out."""
    plan = plan_injection(before, at="", options=options, annotations=settings_of(before))
    assert plan.refusal is None
    after = apply(before, plan.operations)
    assert isinstance(after, dict)
    return after


def sidecar_of(after: Pod) -> Pod:
    """The sidecar's container, wherever it is."""
    every = [*after["spec"].get("initContainers", []), *after["spec"]["containers"]]
    (found,) = (each for each in every if each["name"] == SIDECAR)
    return dict(found)


def environment(container: Pod) -> dict[str, object]:
    """Its variables, by name: the value, or where it comes from."""
    return {each["name"]: each.get("value", each.get("valueFrom")) for each in container.get("env", [])}
