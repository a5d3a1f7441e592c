from __future__ import annotations

from typing import Any

import pytest

from sidecar.inject.gomemlimit import Cure, go_size, plan_gomemlimit


def cure(percent: float | None = 90.0, **fields: Any) -> Cure:  # noqa: ANN401 -- fields of a container
    """What is decided for a pod of one container with these fields, and a limit of 512Mi if none is given."""
    container = {"name": "app", "resources": {"limits": {"memory": "512Mi"}}} | fields
    return plan_gomemlimit({"spec": {"containers": [container]}}, percent)


@pytest.mark.parametrize("count_bytes", [1, 1023, 1 << 10, 100 << 10, 99 << 20, (100 << 20) - 1, 483183820, 1 << 40])
def test_a_size_for_go_loses_less_than_a_hundredth(count_bytes: int) -> None:
    """It is never more than asked for, and Go's parser knows its unit."""
    text = go_size(count_bytes)
    unit = {"KiB": 1 << 10, "MiB": 1 << 20}.get(text[-3:])
    written = int(text[:-3]) * unit if unit else int(text.removesuffix("B"))
    assert 0.99 * count_bytes <= written <= count_bytes


def test_ninety_percent_of_the_limit() -> None:
    """The container gets the value in Go's syntax, and the report says what it is a part of."""
    (addition,) = cure().additions
    assert (addition.container, addition.value) == ("app", "460MiB")
    assert "460MiB, 90 % of its memory limit of 512Mi" in cure().notes[0]


@pytest.mark.parametrize(
    "entry",
    [
        {"name": "GOMEMLIMIT", "value": "300MiB"},
        {"name": "GOMEMLIMIT", "value": "off"},
        {"name": "GOMEMLIMIT", "valueFrom": {"configMapKeyRef": {"name": "c", "key": "k"}}},
    ],
)
def test_a_gomemlimit_of_its_own_stays(entry: dict[str, object]) -> None:
    """Whatever it is and wherever it comes from, and the report says so."""
    found = cure(env=[entry])
    assert found.additions == ()
    assert "stays as it is" in found.notes[0]


def test_the_whole_limit_is_no_protection() -> None:
    """All that Kubernetes can express is 100 %: that is respected, with a warning, and no threshold is above it."""
    entry = {"name": "GOMEMLIMIT", "valueFrom": {"resourceFieldRef": {"resource": "limits.memory"}}}
    found = cure(env=[entry])
    assert "protects from nothing" in found.warnings[0]
    assert found.highest_percent is None


def test_a_gomemlimit_of_its_own_counts_for_the_threshold() -> None:
    """384 of 512 MiB are 75 %."""
    assert cure(env=[{"name": "GOMEMLIMIT", "value": "384MiB"}]).highest_percent == 75


def test_what_envfrom_brings_is_warned_of() -> None:
    """A variable of the container wins over envFrom, and what that brings isn't in the manifest."""
    found = cure(envFrom=[{"configMapRef": {"name": "c"}}])
    assert "envFrom" in found.warnings[0]
    assert "--gomemlimit off" in found.warnings[0]


def test_off_sets_nothing() -> None:
    """Nor says anything."""
    assert cure(None) == Cure(additions=(), notes=(), warnings=(), highest_percent=None)


@pytest.mark.parametrize("resources", [{}, {"limits": {"cpu": "1"}}, {"requests": {"memory": "1Gi"}}, {"limits": None}])
def test_without_a_limit_there_is_nothing_to_take_a_part_of(resources: dict[str, object]) -> None:
    """And the report says that nothing will fire."""
    found = cure(resources=resources)
    assert found.additions == ()
    assert "no memory limit" in found.warnings[0]
