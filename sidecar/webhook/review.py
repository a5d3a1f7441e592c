"""Answers AdmissionReview requests (admission.k8s.io/v1) with a patch that injects the sidecar. Pure.

Every answer allows the pod. Whatever speaks against an injection becomes a warning, which the API server hands to
whoever created the pod.
"""

from __future__ import annotations

import base64
import json
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Literal

from sidecar.core.printable import printable
from sidecar.errors import ConfigError, OomHeapDumperError
from sidecar.inject.annotations import is_switched_off
from sidecar.inject.model import SIDECAR, STATE, Operation, Options, PodError
from sidecar.inject.patch import apply, look_up
from sidecar.inject.plan import plan_injection
from sidecar.inject.pods import settings_of

API_VERSION = "admission.k8s.io/v1"
KIND = "AdmissionReview"

Outcome = Literal["injected", "refused", "left-alone", "failed"]
"""``refused``: there is a reason not to inject. ``left-alone``: nothing was asked of us. ``failed``: our own fault."""

_MIRROR = "kubernetes.io/config.mirror"
_ANNOTATIONS_BYTES = 256 << 10  # of keys and values together: apimachinery's TotalAnnotationSizeLimitB
_MOST_WARNINGS = 3
_LONGEST_WARNING = 119  # the API server's documentation asks for less than 120 characters


class ReviewError(OomHeapDumperError):
    """What was posted is no AdmissionReview that could be answered: there is no uid to answer to."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Request:
    """What matters of a request. ``kind`` is GROUP/KIND with an empty group for the core; ``pod`` is the object."""

    uid: str
    operation: str
    kind: str
    sub_resource: str
    namespace: str
    name: str
    dry_run: bool
    pod: object


@dataclass(frozen=True, slots=True, kw_only=True)
class Verdict:
    """What is done with a pod. ``reason`` says why nothing is; ``notes`` what was done; ``warnings`` what to mind."""

    outcome: Outcome
    reason: str = ""
    operations: tuple[Operation, ...] = ()
    notes: tuple[str, ...] = ()
    warnings: tuple[str, ...] = ()


def parse_review(body: bytes) -> Request:
    """Read what the API server posts. Raises ReviewError."""
    try:
        review = json.loads(body)
    except (ValueError, RecursionError) as error:
        why = "nested too deeply" if isinstance(error, RecursionError) else str(error)
        raise ReviewError(f"the body isn't JSON ({why}): post an {KIND}") from None
    if not isinstance(review, dict) or review.get("kind") != KIND:
        raise ReviewError(f"the body isn't an {KIND}: it must be an object with kind {KIND}")
    if review.get("apiVersion") != API_VERSION:
        raise ReviewError(
            f"apiVersion must be {API_VERSION} (got {printable(str(review.get('apiVersion')))[:60]!r}): "
            "admissionReviewVersions of the webhook configuration must be [v1]"
        )
    request = review.get("request")
    if not isinstance(request, dict):
        raise ReviewError(f"the {KIND} has no request")
    uid = request.get("uid")
    if not isinstance(uid, str) or not uid:
        raise ReviewError("the request has no uid to answer to")
    pod = request.get("object")
    return Request(
        uid=uid,
        operation=_text(request, "/operation"),
        kind=f"{_text(request, '/kind/group')}/{_text(request, '/kind/kind')}",
        sub_resource=_text(request, "/subResource"),
        # A pod's own metadata may still be without either.
        namespace=_text(request, "/namespace") or _text(pod, "/metadata/namespace"),
        name=_text(request, "/name") or _text(pod, "/metadata/name") or _text(pod, "/metadata/generateName"),
        dry_run=request.get("dryRun") is True,
        pod=pod,
    )


def decide(request: Request, options: Options) -> Verdict:
    """What to do with the object of a request; annotations of ours on the pod win over ``options``."""
    if (request.operation, request.kind, request.sub_resource) != ("CREATE", "/Pod", ""):
        return Verdict(outcome="left-alone", reason="only pods that are being created are changed")
    pod = request.pod
    if not isinstance(pod, dict) or not isinstance(pod.get("spec"), dict):
        return Verdict(outcome="failed", reason="the request has no pod with a spec")
    if _MIRROR in _keys(look_up(pod, "/metadata/annotations")):
        return Verdict(outcome="left-alone", reason="it mirrors a static pod, which runs from a file of its node")
    if _has_sidecar(pod):
        return Verdict(outcome="left-alone", reason="it has the sidecar already")
    annotations = settings_of(pod)
    try:
        if is_switched_off(annotations):
            return Verdict(outcome="left-alone", reason="it opts out")
        # What "baseline" admits without us it must admit with us.
        careful = replace(options, stays_baseline=True)
        plan = plan_injection(pod, at="", options=careful, annotations=annotations)
    except (ConfigError, PodError) as error:
        return _refused(str(error))
    if plan.refusal is not None:
        return _refused(plan.refusal)
    # The API server turns a pod away whose patch doesn't apply, whatever the failurePolicy.
    annotations_bytes = _annotations_bytes(apply(pod, plan.operations))
    if annotations_bytes > _ANNOTATIONS_BYTES:
        return _refused(
            f"with the sidecar's its annotations are {annotations_bytes} bytes, of {_ANNOTATIONS_BYTES} that a pod may "
            "have: shorten them"
        )
    return Verdict(
        outcome="injected",
        operations=plan.operations,
        notes=plan.notes,
        warnings=plan.warnings,
    )


def respond(request: Request, verdict: Verdict) -> bytes:
    """The AdmissionReview that answers a request, as JSON in ASCII. It allows the pod, always."""
    response: dict[str, object] = {"uid": request.uid, "allowed": True}
    if verdict.operations:
        patch = json.dumps([_operation(each) for each in verdict.operations]).encode()
        response |= {"patchType": "JSONPatch", "patch": base64.b64encode(patch).decode()}
    if verdict.warnings:
        response["warnings"] = [_short(text) for text in verdict.warnings[:_MOST_WARNINGS]]
    reason = {"reason": printable(verdict.reason)} if verdict.reason else {}
    response["auditAnnotations"] = {"outcome": verdict.outcome, **reason}
    return json.dumps({"apiVersion": API_VERSION, "kind": KIND, "response": response}).encode()


def _operation(operation: Operation) -> dict[str, object]:
    value = {} if operation.op == "remove" else {"value": operation.value}
    return {"op": operation.op, "path": operation.path, **value}


def _refused(reason: str) -> Verdict:
    return Verdict(outcome="refused", reason=reason, warnings=(f"not injected: {reason}",))


def _short(text: str) -> str:
    """A text as an HTTP Warning header can carry it: printable, and cut between words if it is too long."""
    text = printable(f"{SIDECAR}: {' '.join(text.split())}").encode("utf-8", "backslashreplace").decode()
    if len(text) <= _LONGEST_WARNING:
        return text
    return text[: _LONGEST_WARNING - 3].rsplit(" ", 1)[0].rstrip(" ,;:") + "..."


def _has_sidecar(pod: Mapping[str, object]) -> bool:
    """Whether an earlier injection, or somebody by hand, put the sidecar there; another version is as good."""
    containers = [look_up(pod, f"/spec/{name}") for name in ("containers", "initContainers")]
    names = [look_up(each, "/name") for listed in containers if isinstance(listed, list) for each in listed]
    return SIDECAR in names or STATE in _keys(look_up(pod, "/metadata/annotations"))


def _annotations_bytes(pod: object) -> int:
    annotations = look_up(pod, "/metadata/annotations")
    pairs = annotations.items() if isinstance(annotations, dict) else ()
    return sum(len(str(text).encode("utf-8", "replace")) for pair in pairs for text in pair)


def _keys(value: object) -> frozenset[object]:
    return frozenset(value) if isinstance(value, dict) else frozenset()


def _text(parent: object, pointer: str) -> str:
    value = look_up(parent, pointer)
    return value if isinstance(value, str) else ""
