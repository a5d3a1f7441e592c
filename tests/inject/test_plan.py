"""What is done to a pod, what is refused, and what comes out again."""

from __future__ import annotations

import pytest

from sidecar.errors import ConfigError
from sidecar.inject.model import SIDECAR, STATE, Options, PodError
from sidecar.inject.patch import apply
from sidecar.inject.plan import plan_injection, plan_removal
from sidecar.inject.pods import find_pods
from tests.inject.pods import OPTIONS, Pod, environment, injected, pod, sidecar_of


def test_a_native_sidecar_comes_after_the_other_init_containers() -> None:
    """It starts before the app, keeps running, and doesn't run beside init containers, which nobody asked to watch."""
    after = injected(pod(initContainers=[{"name": "migrate", "image": "m:1"}]))
    assert [each["name"] for each in after["spec"]["initContainers"]] == ["migrate", SIDECAR]
    assert sidecar_of(after)["restartPolicy"] == "Always"


def test_an_ordinary_sidecar_comes_last() -> None:
    """The app stays the first container, which is the default one of kubectl."""
    after = injected(pod(), Options(bucket="my-dumps", native_sidecar=False))
    assert [each["name"] for each in after["spec"]["containers"]] == ["app", SIDECAR]
    assert "restartPolicy" not in sidecar_of(after)
    assert "initContainers" not in after["spec"]


@pytest.mark.parametrize("restart_policy", ["Never", "OnFailure"])
def test_a_job_is_not_kept_from_completing(restart_policy: str) -> None:
    """A native sidecar ends with the app; an ordinary one beside a Job's container would run for ever."""
    before = pod(restartPolicy=restart_policy)
    plan = plan_injection(before, at="", options=Options(native_sidecar=False), annotations={})
    assert plan.refusal is not None
    assert "meant to end" in plan.refusal
    assert injected(before) != before


@pytest.mark.parametrize(
    "spec",
    [
        {"os": {"name": []}},
        {"nodeSelector": {"kubernetes.io/os": {}}},
        {"restartPolicy": []},
        {"volumes": [{"name": {}}]},
        {"securityContext": {"seccompProfile": {"type": []}, "runAsUser": [], "runAsNonRoot": {}}},
    ],
)
def test_values_of_odd_types_are_no_crash(spec: Pod) -> None:
    """The API server will say what is wrong with them; that isn't ours to judge."""
    assert plan_injection(pod(**spec), at="", options=OPTIONS, annotations={}).operations


def test_the_users_of_several_containers_are_seen_only_as_far_as_allowed() -> None:
    """Root with capabilities sees them all; where "baseline" must go on admitting the pod, one of them is chosen."""
    users = [
        {"name": name, "image": "i:1", "securityContext": {"runAsUser": uid, "runAsGroup": uid}}
        for name, uid in (("app", 1000), ("proxy", 2000))
    ]
    freely = sidecar_of(injected(pod(*users)))["securityContext"]
    assert (freely["runAsUser"], freely["capabilities"]["add"]) == (0, ["SYS_PTRACE", "DAC_READ_SEARCH"])
    carefully = sidecar_of(injected(pod(*users), Options(bucket="my-dumps", stays_baseline=True)))["securityContext"]
    assert carefully["runAsUser"] in {1000, 2000}
    assert carefully["capabilities"] == {"drop": ["ALL"]}


def test_resources_of_the_pod_itself_are_not_overdrawn() -> None:
    """The API server holds the sum of the containers against them, ours included."""
    before = pod(resources={"requests": {"memory": "64Mi"}, "limits": {"memory": "100Mi"}})
    plan = plan_injection(before, at="", options=OPTIONS, annotations={})
    assert plan.refusal is not None
    assert "spec.resources" in plan.refusal


def test_a_gomemlimit_that_somebody_tuned_is_theirs() -> None:
    """Injecting again and uninject leave it, and say so; one that is as it was set follows the limit."""
    tuned = injected(pod())
    tuned["spec"]["containers"][0]["env"][0]["value"] = "400MiB"
    assert environment(injected(tuned)["spec"]["containers"][0]) == {"GOMEMLIMIT": "400MiB"}
    removal = plan_removal(tuned, at="")
    assert any("changed since, from 460MiB" in each for each in removal.notes)
    clean = apply(tuned, removal.operations)
    assert isinstance(clean, dict)
    assert environment(clean["spec"]["containers"][0]) == {"GOMEMLIMIT": "400MiB"}
    grown = injected(pod())
    grown["spec"]["containers"][0]["resources"]["limits"]["memory"] = "1Gi"
    assert environment(injected(grown)["spec"]["containers"][0]) == {"GOMEMLIMIT": "921MiB"}


@pytest.mark.parametrize(
    ("spec", "reason"),
    [
        ({"hostPID": True}, "hostPID"),
        ({"os": {"name": "windows"}}, "Windows"),
        ({"nodeSelector": {"kubernetes.io/os": "windows"}}, "Windows"),
        ({"shareProcessNamespace": False}, "shareProcessNamespace"),
        ({"initContainers": [{"name": SIDECAR}]}, "inject didn't put there"),
        ({"volumes": [{"name": "oom-heap-dumper-spool", "emptyDir": {}}]}, "inject didn't put there"),
        ({"containers": []}, "no containers"),
        ({"containers": None}, "no containers"),
    ],
)
def test_what_is_refused(spec: Pod, reason: str) -> None:
    """A pod that can't have it, or has one of somebody else's, stays as it is, with the reason."""
    plan = plan_injection({"spec": pod()["spec"] | spec}, at="", options=OPTIONS, annotations={})
    assert plan.operations == ()
    assert plan.refusal is not None
    assert reason in plan.refusal


@pytest.mark.parametrize("where", ["annotations", "labels"])
def test_a_workload_may_opt_out(where: str) -> None:
    """By annotation or label, of the workload or of its template."""
    workload = {"kind": "Deployment", "metadata": {where: {"oom-heap-dumper/inject": "disabled"}}, "spec": {}}
    workload["spec"] = {"template": pod()}
    (spot,) = find_pods(workload)
    plan = plan_injection(spot.pod, at=spot.at, options=OPTIONS, annotations=spot.annotations)
    assert plan.refusal is not None
    assert "oom-heap-dumper/inject: disabled" in plan.refusal


def test_annotations_win_over_options() -> None:
    """Each key does what its flag does."""
    before = pod()
    before["metadata"]["annotations"] = {
        "oom-heap-dumper/bucket": "other-dumps",
        "oom-heap-dumper/prefix": "p",
        "oom-heap-dumper/cluster": "c",
        "oom-heap-dumper/critical": "97%",
        "oom-heap-dumper/image": "i:2",
        "oom-heap-dumper/sidecar": "ordinary",
        "oom-heap-dumper/gomemlimit": "50%",
        "oom-heap-dumper/run-as-user": "7",
        "oom-heap-dumper/run-as-group": "8",
        "oom-heap-dumper/env": "LOG_LEVEL=debug\nGUARD=off",
    }
    after = injected(before)
    container = sidecar_of(after)
    variables = environment(container)
    told = {key: variables[key] for key in ("BUCKET", "PREFIX", "CLUSTER_NAME", "CRITICAL", "LOG_LEVEL", "GUARD")}
    assert list(told.values()) == ["other-dumps", "p", "c", "97", "debug", "off"]
    assert container["image"] == "i:2"
    assert "restartPolicy" not in container
    assert environment(after["spec"]["containers"][0]) == {"GOMEMLIMIT": "256MiB"}
    assert (container["securityContext"]["runAsUser"], container["securityContext"]["runAsGroup"]) == (7, 8)


@pytest.mark.parametrize(
    ("key", "value", "remedy"),
    [
        ("bucket", "s3://x", "without s3://"),
        ("critical", "120", "1 to 100"),
        ("gomemlimit", "much", "or off"),
        ("sidecar", "yes", "native or ordinary"),
        ("run-as-user", "root", "2147483647"),
        ("env", "novalue", "NAME=VALUE"),
        ("env", "BUCKET=x", "use bucket"),
        ("image", "a b", "registry.example.com"),
        ("inject", "no", "enabled or disabled"),
        ("buckt", "x", "oom-heap-dumper/bucket"),
    ],
)
def test_a_wrong_annotation_is_named(key: str, value: str, remedy: str) -> None:
    """With its key and the remedy, rather than taken for a default."""
    with pytest.raises(ConfigError, match=f"oom-heap-dumper/{key}") as caught:
        plan_injection(pod(), at="", options=OPTIONS, annotations={f"oom-heap-dumper/{key}": value})
    assert remedy in str(caught.value)


@pytest.mark.parametrize(
    ("spec", "message", "pointer"),
    [
        ({"containers": [{"name": "a"}, {"name": "a"}]}, "named a", "/spec/containers/1/name"),
        ({"containers": [{"name": "a"}], "initContainers": [{"name": "a"}]}, "named a", "/spec/containers/0/name"),
        ({"containers": [{"image": "a"}]}, "no name", "/spec/containers/0"),
        ({"containers": [{"name": "a", "resources": {"limits": {"memory": "lots"}}}]}, "512Mi", "/memory"),
        ({"containers": "a"}, "must be a list", "/spec/containers"),
        ({"containers": ["a"]}, "list of mappings", "/spec/containers/0"),
    ],
)
def test_a_spec_that_is_none_is_an_error(spec: Pod, message: str, pointer: str) -> None:
    """It says what is wrong and where."""
    with pytest.raises(PodError, match=message) as caught:
        plan_injection({"spec": spec}, at="", options=OPTIONS, annotations={})
    assert pointer in caught.value.pointer


def test_a_pod_inside_of_a_document_is_changed_there() -> None:
    """Every path begins at the document's root."""
    document = {"kind": "CronJob", "spec": {"jobTemplate": {"spec": {"template": pod()}}}}
    (spot,) = find_pods(document)
    plan = plan_injection(spot.pod, at=spot.at, options=OPTIONS, annotations={})
    assert {each.path.startswith("/spec/jobTemplate/spec/template/") for each in plan.operations} == {True}
    after = apply(document, plan.operations)
    (spot,) = find_pods(after)
    assert apply(after, plan_removal(spot.pod, at=spot.at).operations) == document


def test_a_live_object_loses_what_was_added_and_no_more() -> None:
    """The API server has filled in defaults, and somebody has added to what the injection had created."""
    before = pod()
    live = injected(before)
    live["spec"]["restartPolicy"] = "Always"
    live["spec"]["volumes"].append({"name": "cache", "emptyDir": {}})
    live["spec"]["containers"].insert(0, {"name": "proxy", "env": []})
    live["spec"]["containers"][1]["env"].append({"name": "MINE", "value": "1"})
    live["metadata"]["annotations"]["kubectl.kubernetes.io/restartedAt"] = "now"
    clean = apply(live, plan_removal(live, at="").operations)
    assert clean == {
        "metadata": {"labels": {"a": "b"}, "annotations": {"kubectl.kubernetes.io/restartedAt": "now"}},
        "spec": {
            "restartPolicy": "Always",
            "volumes": [{"name": "cache", "emptyDir": {}}],
            "containers": [
                {"name": "proxy", "env": []},
                before["spec"]["containers"][0] | {"env": [{"name": "MINE", "value": "1"}]},
            ],
        },
    }


def test_pid_sharing_that_was_there_stays() -> None:
    """What the app's team had switched on themselves isn't taken back."""
    before = pod(shareProcessNamespace=True)
    after = injected(before)
    assert apply(after, plan_removal(after, at="").operations) == before


def test_injecting_again_renews() -> None:
    """With other options the pod is as if only they had ever been given."""
    other = Options(bucket="other-dumps", native_sidecar=False, gomemlimit_percent=None)
    assert injected(injected(pod()), other) == injected(pod(), other)


def test_what_was_not_injected_is_not_removed() -> None:
    """A sidecar that somebody wrote by hand is theirs."""
    plan = plan_removal(pod(initContainers=[{"name": SIDECAR}]), at="")
    assert plan.operations == ()
    assert plan.refusal is not None


@pytest.mark.parametrize(
    "state", ["", "{}", "[]", '{"version":"1","created":3}', '{"version":"1","gomemlimit":["app"]}', "not json"]
)
def test_a_state_that_nobody_wrote_is_an_error(state: str) -> None:
    """Guessing what to take back could take too much."""
    broken = pod()
    broken["metadata"]["annotations"] = {STATE: state}
    with pytest.raises(PodError, match="by hand"):
        plan_removal(broken, at="")
