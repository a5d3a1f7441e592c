"""What somebody is to mind before the manifest is applied."""

from __future__ import annotations

import pytest

from sidecar.inject.model import Options
from sidecar.inject.plan import plan_injection
from tests.inject.pods import OPTIONS, Pod, pod


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
        ({"lifecycle": {"preStop": {"exec": {"command": ["sh", "-c", "kill $(cat pid)\nsleep 1\n"]}}}}, None),
        ({"command": ["sh", "-c", "sleep 1\nkill -HUP 1\n"]}, "command"),
        # Of any length: the webhook reads what anybody writes.
        ({"command": ["sh", "-c", "kill " * 200_000]}, None),
        ({"command": ["sh", "-c", "kill 1x " * 100_000 + " 1"]}, "command"),
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
