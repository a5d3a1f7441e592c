"""What the sidecar's container and its volumes are."""

from __future__ import annotations

import pytest

from sidecar.inject.model import Options
from sidecar.inject.plan import plan_injection
from tests.inject.pods import Pod, environment, injected, pod, sidecar_of


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


def test_variables_of_an_annotation_are_further_ones() -> None:
    """Those of the call stay, but for the same name."""
    options = Options(bucket="my-dumps", env=(("AWS_REGION", "eu"), ("LOG_LEVEL", "info")))
    annotations = {"oom-heap-dumper/env": "LOG_LEVEL=debug\nX=y"}
    plan = plan_injection(pod(), at="", options=options, annotations=annotations)
    added = next(each.value for each in plan.operations if "initContainers" in each.path)
    assert isinstance(added, list)
    assert {"AWS_REGION": "eu", "LOG_LEVEL": "debug", "X": "y"}.items() <= environment(added[0]).items()


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


def test_a_variable_may_refer_to_those_that_are_known() -> None:
    """The kubelet resolves what stands above: the pod's names, and variables of the call in the options' values."""
    options = Options(bucket="my-dumps", prefix="$(REGION)/$(POD_NAMESPACE)", env=(("REGION", "eu"),))
    names = [each["name"] for each in sidecar_of(injected(pod(), options))["env"]]
    assert names.index("POD_NAMESPACE") < names.index("PREFIX")
    assert names.index("REGION") < names.index("PREFIX")
    assert {"POD_NAME", "NODE_NAME", "MEMORY_LIMIT"} == set(names[: names.index("REGION")]) - {"POD_NAMESPACE"}
