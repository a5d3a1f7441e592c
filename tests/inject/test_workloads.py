"""What only the workload around a pod template tells."""

from __future__ import annotations

import pytest

from sidecar.inject.manifests import inject_text
from sidecar.inject.model import ManifestError, Options

TEMPLATE = """\
apiVersion: {version}
kind: {kind}
metadata:
  name: x
  annotations: {{{annotations}}}
spec:
  template:
    spec:
      containers:
      - name: app
        image: i:1
"""


def written(version: str = "apps/v1", kind: str = "Deployment", annotations: str = "") -> str:
    """A workload without a restartPolicy."""
    return TEMPLATE.format(version=version, kind=kind, annotations=annotations)


def test_knative_services_are_left_alone() -> None:
    """Their API refuses what a sidecar needs; the reason is said, and other documents are done."""
    service = written("serving.knative.dev/v1", "Service").replace("- name: app\n        image", "- image")
    result = inject_text(f"{service}---\n{written()}", Options())
    assert result.text.startswith(service)
    first, second = (outcome.plan for outcome in result.outcomes)
    assert first.refusal is not None
    assert "Knative" in first.refusal
    assert second.operations


@pytest.mark.parametrize("kind", ["Job", "CronJob"])
def test_an_ordinary_sidecar_stays_out_of_a_job(kind: str) -> None:
    """As in bases and patches, where the restartPolicy is elsewhere."""
    (outcome,) = inject_text(written("batch/v1", kind), Options(native_sidecar=False)).outcomes
    assert outcome.plan.refusal is not None
    (outcome,) = inject_text(written("batch/v1", kind), Options()).outcomes
    assert outcome.plan.operations


@pytest.mark.parametrize("value", ["off", "", "0100"])
def test_annotations_that_yaml_reads_otherwise_are_named(value: str) -> None:
    """``off`` without quotes is a boolean: Kubernetes would refuse it, and we don't guess."""
    with pytest.raises(ManifestError, match="oom-heap-dumper/gomemlimit must be text: put its value in quotes"):
        inject_text(written(annotations=f"oom-heap-dumper/gomemlimit: {value}"), Options())
