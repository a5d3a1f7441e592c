from __future__ import annotations

from typing import Any

import pytest

from sidecar.errors import ConfigError
from sidecar.inject.model import SIDECAR, STATE, Options, PodError
from sidecar.inject.patch import apply
from sidecar.inject.plan import plan_injection, plan_removal
from sidecar.inject.pods import find_pods, settings_of

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


@pytest.mark.parametrize(
    ("resources", "warns"),
    [
        ({"limits": {"cpu": "1", "memory": "1Gi"}}, True),
        ({"limits": {"cpu": 1, "memory": "1Gi"}, "requests": {"cpu": "1", "memory": "1Gi"}}, True),
        ({"limits": {"cpu": "1", "memory": "1Gi"}, "requests": {"cpu": "1000m", "memory": "1024Mi"}}, True),
        ({"limits": {"cpu": "200m", "memory": "1Gi"}, "requests": {"cpu": "100m", "memory": "1Gi"}}, False),
        ({"limits": {"cpu": "1", "memory": "1Gi"}, "requests": {"memory": "64Mi"}}, False),
        ({"limits": {"memory": "1Gi"}}, False),
    ],
)
def test_a_guaranteed_pod_hears_that_it_was(resources: Pod, *, warns: bool) -> None:
    """The sidecar has a limit above its request, so the pod's class changes."""
    before = pod({"name": "app", "image": "i:1", "resources": resources})
    plan = plan_injection(before, at="", options=OPTIONS, annotations={})
    assert any("Guaranteed" in each for each in plan.warnings) == warns


@pytest.mark.parametrize(
    ("variable", "warning"),
    [
        ({"value": "512Mi"}, "the program won't start"),
        ({"value": "512MB"}, "the program won't start"),
        ({"value": "off"}, "protects from nothing"),
        ({"value": ""}, "protects from nothing"),
        ({"value": "2GiB"}, "protects from nothing"),
        ({"valueFrom": {"resourceFieldRef": {"resource": "limits.memory"}}}, "protects from nothing"),
        ({"valueFrom": {"resourceFieldRef": {"resource": "limits.memory", "divisor": "1Mi"}}}, "as bytes"),
        ({"valueFrom": {"resourceFieldRef": {"resource": "limits.memory", "divisor": "0"}}}, "protects from nothing"),
        ({"valueFrom": {"resourceFieldRef": {"resource": "limits.memory", "divisor": 1}}}, "protects from nothing"),
        ({"valueFrom": {"resourceFieldRef": {"resource": "requests.memory", "divisor": "0"}}}, None),
        ({"value": "400MiB"}, None),
        ({"value": "$(SIZE)"}, None),
        ({"valueFrom": {"configMapKeyRef": {"name": "c", "key": "k"}}}, None),
    ],
)
def test_a_gomemlimit_that_is_wrong_is_warned_of(variable: Pod, warning: str | None) -> None:
    """It stays as it is, but what Go would make of it is said."""
    container = {"name": "app", "image": "i:1", "resources": {"limits": {"memory": "512Mi"}}}
    before = pod({**container, "env": [{"name": "GOMEMLIMIT", **variable}]})
    plan = plan_injection(before, at="", options=OPTIONS, annotations={})
    said = [each for each in plan.warnings if "GOMEMLIMIT" in each]
    assert (warning in str(said)) if warning else not said


def test_variables_of_an_annotation_are_further_ones() -> None:
    """Those of the call stay, but for the same name."""
    options = Options(bucket="my-dumps", env=(("AWS_REGION", "eu"), ("LOG_LEVEL", "info")))
    annotations = {"oom-heap-dumper/env": "LOG_LEVEL=debug\nX=y"}
    plan = plan_injection(pod(), at="", options=options, annotations=annotations)
    added = next(each.value for each in plan.operations if "initContainers" in each.path)
    assert isinstance(added, list)
    assert {"AWS_REGION": "eu", "LOG_LEVEL": "debug", "X": "y"}.items() <= environment(added[0]).items()


def test_another_user_than_the_app_is_warned_of() -> None:
    """What was asked for is done, and its price is said."""
    before = pod(securityContext={"runAsUser": 1000, "runAsGroup": 1000})
    plan = plan_injection(before, at="", options=Options(run_as_user=2000), annotations={})
    assert any("1000:1000" in each for each in plan.warnings)


@pytest.mark.parametrize("limit", [512, "1e30"])
def test_a_limit_with_a_wrong_unit_gets_no_gomemlimit(limit: object) -> None:
    """512 for 512Mi: a GOMEMLIMIT of 460 bytes would only hide the mistake. And one beyond 64 bits Go can't read."""
    before = pod({"name": "app", "image": "i:1", "resources": {"limits": {"memory": limit}}})
    plan = plan_injection(before, at="", options=OPTIONS, annotations={})
    assert any(f"a memory limit of {limit} " in each for each in plan.warnings)
    assert "GOMEMLIMIT" not in str(plan.operations)


def test_a_short_grace_period_is_warned_of() -> None:
    """The last upload may take 20 s after SIGTERM."""
    plan = plan_injection(pod(terminationGracePeriodSeconds=10), at="", options=OPTIONS, annotations={})
    assert any("terminationGracePeriodSeconds is 10" in each for each in plan.warnings)


def test_the_sidecar_knows_its_pod_and_its_store() -> None:
    """Bucket, prefix and cluster as given, names by the downward API, the limit from the app's container."""
    options = Options(bucket="my-dumps", prefix="p", cluster="c", env=(("AWS_REGION", "eu-central-1"), ("EMPTY", "")))
    assert environment(sidecar_of(injected(pod(), options))) == {
        "BUCKET": "my-dumps",
        "PREFIX": "p",
        "CLUSTER_NAME": "c",
        "CRITICAL": "95",
        "AWS_REGION": "eu-central-1",
        "EMPTY": "",
        "POD_NAME": {"fieldRef": {"fieldPath": "metadata.name"}},
        "POD_NAMESPACE": {"fieldRef": {"fieldPath": "metadata.namespace"}},
        "NODE_NAME": {"fieldRef": {"fieldPath": "spec.nodeName"}},
        "MEMORY_LIMIT": {"resourceFieldRef": {"containerName": "app", "divisor": "1", "resource": "limits.memory"}},
    }


@pytest.mark.parametrize(
    "containers",
    [
        [{"name": "a"}],
        [{"name": "a", "resources": {"limits": {"memory": "1Gi"}}}, {"name": "b"}],
    ],
)
def test_a_limit_is_told_only_where_it_is_everybody_s(containers: list[Pod]) -> None:
    """MEMORY_LIMIT holds for every container without a limit, so another's would make false alarms."""
    assert "MEMORY_LIMIT" not in environment(sidecar_of(injected(pod(*containers))))


def test_beside_another_native_sidecar_no_limit_is_told() -> None:
    """It runs as long as the app and may have no limit; an init container that ends is in nobody's way."""
    cache = {"name": "cache", "image": "cache:1"}
    told = [
        environment(sidecar_of(injected(pod(initContainers=[cache | more])))).get("MEMORY_LIMIT")
        for more in ({"restartPolicy": "Always"}, {})
    ]
    assert told[0] is None
    assert told[1] is not None


def test_volumes_are_larger_than_what_they_may_hold() -> None:
    """Above its size limit the kubelet evicts the pod, so that grows with SPOOL_SIZE and DUMP_DIR_SIZE."""
    options = Options(env=(("SPOOL_SIZE", "1Gi"), ("DUMP_DIR_SIZE", "100M")))
    sizes = {each["name"]: each["emptyDir"]["sizeLimit"] for each in injected(pod(), options)["spec"]["volumes"]}
    assert sizes == {"oom-heap-dumper-spool": "1280Mi", "oom-heap-dumper-dumps": "120Mi"}
    options = Options(env=(("SPOOL_SIZE", "$(SIZE)"),), bucket="my-dumps")
    (volume,) = injected(pod(), options)["spec"]["volumes"]
    assert volume["emptyDir"]["sizeLimit"] == "320Mi"


@pytest.mark.parametrize(
    ("fields", "warning"),
    [
        ({"lifecycle": {"preStop": {"exec": {"command": ["sh", "-c", "kill -QUIT 1; sleep 5"]}}}}, "preStop"),
        ({"livenessProbe": {"exec": {"command": ["test", "-d", "/proc/1/fd"]}}}, "livenessProbe"),
        ({"command": ["sh", "-c"], "args": ["app & kill -s HUP 1"]}, "command"),
        ({"command": ["/sbin/init"]}, "/sbin/init"),
        ({"args": ["/usr/lib/systemd/systemd"]}, "systemd"),
        ({"command": ["/app", "init"], "args": ["--kill", "10", "--keep=1"]}, None),
        ({"command": ["sh", "-c", "kill 17 && echo 1; ls /proc/11"]}, None),
    ],
)
def test_what_counts_on_being_pid_1_is_warned_of(fields: Pod, warning: str | None) -> None:
    """With PID sharing the pause process is PID 1; that it is shared is said in any case, unless it was."""
    container = {"name": "app", "image": "i:1", "resources": {"limits": {"memory": "512Mi"}}, **fields}
    before = pod(container, securityContext={"runAsUser": 1000, "runAsGroup": 1000})
    plan = plan_injection(before, at="", options=OPTIONS, annotations={})
    assert any("no longer PID 1" in each for each in plan.notes)
    assert len(plan.warnings) == bool(warning)
    assert warning is None or warning in plan.warnings[0]
    before["spec"]["shareProcessNamespace"] = True
    plan = plan_injection(before, at="", options=OPTIONS, annotations={})
    assert "PID" not in f"{plan.notes}{plan.warnings}"


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


def test_without_a_bucket_the_dumps_have_a_volume() -> None:
    """The root file system is read-only: dumps get a volume of their own, and the report says that they go with it."""
    before = pod()
    after = injected(before, Options(image="r.example.com/dumper:1"))
    mounts = {each["mountPath"]: each["name"] for each in sidecar_of(after)["volumeMounts"]}
    sizes = {each["name"]: each["emptyDir"]["sizeLimit"] for each in after["spec"]["volumes"]}
    assert sizes[mounts["/var/lib/oom-heap-dumper"]] == "640Mi"
    assert sizes[mounts["/var/spool/oom-heap-dumper"]] == "320Mi"
    (warning,) = [
        each for each in plan_injection(before, at="", options=Options(), annotations={}).warnings if "--bucket" in each
    ]
    assert "go with the pod" in warning


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


@pytest.mark.parametrize(
    ("critical", "gomemlimit", "chosen", "warns"),
    [
        (None, 90.0, "95", False),
        (None, 70.0, None, False),
        (None, 80.0, "90", False),
        (None, 99.0, "99", False),
        (None, None, None, False),
        (80.0, 90.0, "80", True),
        (92.0, 90.0, "92", False),
        (80.0, None, "80", False),
    ],
)
def test_the_threshold_stays_above_gomemlimit(
    critical: float | None, gomemlimit: float | None, chosen: str | None, *, warns: bool
) -> None:
    """Left to us it is set above; given below, it is kept and the report warns. Our own defaults never warn."""
    options = Options(bucket="my-dumps", critical_percent=critical, gomemlimit_percent=gomemlimit)
    plan = plan_injection(pod(), at="", options=options, annotations={})
    assert environment(sidecar_of(injected(pod(), options))).get("CRITICAL") == chosen
    assert any("dump in peace" in each for each in plan.warnings) == warns
