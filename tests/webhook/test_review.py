from __future__ import annotations

import json

import pytest
from kubernetes_validate import latest_version, validate  # type: ignore[import-untyped]  # the package carries no types

from sidecar.inject.model import Options
from sidecar.webhook.review import ReviewError, decide, parse_review, respond
from tests.webhook.reviews import Json, patched, pod, response_of, review_of

OPTIONS = Options(image="registry.example.com/oom-heap-dumper:0.1.0", bucket="dumps")


def answer(review: Json, options: Options = OPTIONS) -> Json:
    """The response to a review."""
    request = parse_review(json.dumps(review).encode())
    return response_of(review, respond(request, decide(request, options)))


def outcome(review: Json) -> str:
    """What became of a review."""
    found: str = answer(review)["auditAnnotations"]["outcome"]
    return found


def containers(made: Json) -> list[str]:
    """The names of all containers of a pod."""
    return [each["name"] for each in [*made["spec"].get("initContainers", []), *made["spec"]["containers"]]]


@pytest.mark.parametrize("version", ["1.29", latest_version()])
def test_a_pod_gets_the_sidecar(version: str) -> None:
    """The patch applies, and what comes of it is a valid pod with the sidecar, the app's user, and GOMEMLIMIT."""
    review = review_of(pod())
    injected = patched(review, answer(review))
    validate(injected, version, strict=True)
    (sidecar,) = injected["spec"]["initContainers"]
    assert sidecar["image"] == OPTIONS.image
    assert sidecar["securityContext"]["runAsUser"] == 10001
    assert injected["spec"]["shareProcessNamespace"] is True
    assert {"name": "GOMEMLIMIT", "value": "460MiB"} in injected["spec"]["containers"][0]["env"]


def test_a_second_review_leaves_the_pod_alone() -> None:
    """As after another webhook's change, or where `inject` or another version of it was there before."""
    review = review_of(pod())
    again = review_of(patched(review, answer(review)))
    again["request"]["object"]["metadata"]["annotations"]["oom-heap-dumper/injected"] = '{"version":"0.0.1"}'
    response = answer(again)
    assert response["auditAnnotations"]["outcome"] == "left-alone"
    assert "patch" not in response
    assert "warnings" not in response


def test_a_sidecar_that_somebody_wrote_by_hand_is_enough() -> None:
    """No second one, and no warning either: nothing is wrong."""
    made = pod()
    made["spec"]["containers"].append({"name": "oom-heap-dumper", "image": "x"})
    response = answer(review_of(made))
    assert response["auditAnnotations"]["outcome"] == "left-alone"
    assert "warnings" not in response


@pytest.mark.parametrize("where", ["labels", "annotations"])
def test_a_pod_that_opts_out_stays_as_it_is(where: str) -> None:
    """By label or annotation, silently: its owner knows."""
    response = answer(review_of(pod(**{where: {"oom-heap-dumper/inject": "disabled"}})))
    assert response["auditAnnotations"] == {"outcome": "left-alone", "reason": "it opts out"}
    assert "patch" not in response
    assert "warnings" not in response


@pytest.mark.parametrize(
    "request_fields",
    [
        {"operation": "UPDATE"},
        {"operation": "DELETE", "object": None, "oldObject": pod()},
        {"operation": "CONNECT"},
        {"subResource": "ephemeralcontainers"},
        {"kind": {"group": "apps", "version": "v1", "kind": "Deployment"}},
        {"kind": {"group": "metrics.k8s.io", "version": "v1", "kind": "Pod"}},
    ],
)
def test_only_pods_that_are_created_are_changed(request_fields: Json) -> None:
    """A webhook that is configured too widely does no harm."""
    response = answer(review_of(pod(), **request_fields))
    assert response["auditAnnotations"]["outcome"] == "left-alone"
    assert "patch" not in response


def test_mirrors_of_static_pods_stay_as_they_are() -> None:
    """The pod itself runs from a file of its node, and its mirror must be equal to that."""
    assert outcome(review_of(pod(annotations={"kubernetes.io/config.mirror": "3f1a"}))) == "left-alone"


@pytest.mark.parametrize(
    ("spec", "word"),
    [
        ({"hostPID": True}, "hostPID"),
        ({"shareProcessNamespace": False}, "shareProcessNamespace"),
        ({"os": {"name": "windows"}}, "Windows"),
    ],
)
def test_a_refused_pod_passes_with_a_warning(spec: Json, word: str) -> None:
    """What can't have the sidecar starts without it, and whoever creates it reads why."""
    made = pod()
    made["spec"] |= spec
    response = answer(review_of(made))
    assert response["auditAnnotations"]["outcome"] == "refused"
    assert "patch" not in response
    (warning,) = response["warnings"]
    assert warning.startswith("oom-heap-dumper: not injected: ")
    assert word in warning


@pytest.mark.parametrize(
    ("annotation", "value"),
    [("critical", "120"), ("bucket", "s3://dumps"), ("sidecar", "yes"), ("nope", "1"), ("inject", "perhaps")],
)
def test_a_wrong_annotation_passes_with_a_warning(annotation: str, value: str) -> None:
    """A typing error costs the sidecar and never the pod; the warning names the annotation."""
    response = answer(review_of(pod(annotations={f"oom-heap-dumper/{annotation}": value})))
    assert response["auditAnnotations"]["outcome"] == "refused"
    assert "patch" not in response
    assert f"oom-heap-dumper/{annotation}" in response["warnings"][0]


def test_annotations_of_the_pod_win_over_the_options() -> None:
    """As they do for `inject`."""
    review = review_of(pod(annotations={"oom-heap-dumper/bucket": "others", "oom-heap-dumper/sidecar": "ordinary"}))
    injected = patched(review, answer(review))
    assert containers(injected) == ["checkout", "oom-heap-dumper"]
    assert {"name": "BUCKET", "value": "others"} in injected["spec"]["containers"][1]["env"]


@pytest.mark.parametrize("policy", ["Never", "OnFailure"])
def test_a_job_is_not_kept_from_its_end(policy: str) -> None:
    """A pod ends with its last ordinary container, so beside one that is to end only a native sidecar may run."""
    made = pod()
    made["spec"]["restartPolicy"] = policy
    assert outcome(review_of(made)) == "injected"
    made["metadata"]["annotations"] = {"oom-heap-dumper/sidecar": "ordinary"}
    response = answer(review_of(made))
    assert "patch" not in response
    assert "native" in response["warnings"][0]


def test_annotations_stay_within_what_a_pod_may_have() -> None:
    """The API server would turn the patched pod away; with room for ours it is injected, to the last byte."""
    review = review_of(pod(annotations={"note": ""}))
    injected = patched(review, answer(review))["metadata"]["annotations"]
    room = 262_144 - sum(len(text) for pair in injected.items() for text in pair)
    assert outcome(review_of(pod(annotations={"note": "x" * room}))) == "injected"
    assert outcome(review_of(pod(annotations={"note": "\u00e4" * (room // 2)}))) == "injected"
    response = answer(review_of(pod(annotations={"note": "x" * (room + 1)})))
    assert response["auditAnnotations"]["outcome"] == "refused"
    assert "patch" not in response
    assert "262145 bytes" in response["warnings"][0]


def test_duplicate_containers_pass_with_a_warning() -> None:
    """The API server will refuse the pod itself, and say so better."""
    made = pod()
    made["spec"]["containers"] *= 2
    assert "two containers" in answer(review_of(made))["warnings"][0]


def test_a_dry_run_is_answered_as_the_real_thing() -> None:
    """There are no side effects to leave out."""
    dry, real = review_of(pod(), dryRun=True), review_of(pod())
    assert answer(dry)["patch"] == answer(real)["patch"]


def test_names_come_from_the_request() -> None:
    """A pod's metadata may have neither its namespace nor its name yet."""
    request = parse_review(json.dumps(review_of(pod())).encode())
    assert (request.namespace, request.name) == ("shop", "checkout-7d9f8c6b5-")
    request = parse_review(json.dumps(review_of(pod(name="a", namespace="b"), namespace="c", name="d")).encode())
    assert (request.namespace, request.name) == ("c", "d")


@pytest.mark.parametrize(
    ("body", "words"),
    [
        (b"", "isn't JSON"),
        (b"\xff\xfe", "isn't JSON"),
        (b"{", "isn't JSON"),
        (b"[" * 100_000, "nested too deeply"),
        (b'{"a": ' + b"9" * 10_000 + b"}", "isn't JSON"),
        (b"[]", "isn't an AdmissionReview"),
        (b'{"kind": "Pod", "apiVersion": "v1"}', "isn't an AdmissionReview"),
        (b'{"kind": "AdmissionReview", "apiVersion": "admission.k8s.io/v1beta1"}', "must be [v1]"),
        (b'{"kind": "AdmissionReview", "apiVersion": "admission.k8s.io/v1"}', "no request"),
        (b'{"kind": "AdmissionReview", "apiVersion": "admission.k8s.io/v1", "request": {}}', "no uid"),
        (b'{"kind": "AdmissionReview", "apiVersion": "admission.k8s.io/v1", "request": {"uid": 1}}', "no uid"),
    ],
)
def test_what_is_no_review_is_said_to_be_none(body: bytes, words: str) -> None:
    """One sentence each; there is no uid that an answer could have."""
    with pytest.raises(ReviewError) as caught:
        parse_review(body)
    assert words in str(caught.value)


def test_warnings_fit_into_a_header() -> None:
    """Long or hostile texts are cut between words and escaped."""
    made = pod(annotations={"oom-heap-dumper/critical": "\x1b[31m\n" + "word " * 200})
    (warning,) = answer(review_of(made))["warnings"]
    assert len(warning) > 100
    assert warning.endswith("...")
