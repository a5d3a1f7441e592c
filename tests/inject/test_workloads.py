"""What only the workload around a pod template tells."""

from __future__ import annotations

import pytest

from sidecar.inject.manifests import inject_text, remove_text
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


SCALED_JOB = """\
apiVersion: keda.sh/v1alpha1
kind: ScaledJob
metadata: {name: x}
spec:
  jobTargetRef:
    template:
      spec:
        restartPolicy: Never
        containers:
        - name: app
          image: a
"""

JOB_SET = """\
apiVersion: jobset.x-k8s.io/v1alpha2
kind: JobSet
metadata: {name: x}
spec:
  replicatedJobs:
  - name: one
    template:
      spec:
        template:
          spec:
            containers:
            - name: app
              image: a
  - name: two
    template:
      spec:
        template:
          spec:
            containers:
            - name: app
              image: a
"""


@pytest.mark.parametrize(("text", "pods"), [(SCALED_JOB, 1), (JOB_SET, 2)])
def test_templates_of_unusual_kinds_are_found_wherever_they_are(text: str, pods: int) -> None:
    """Each gets its sidecar, and gives it back."""
    result = inject_text(text, Options())
    assert len(result.outcomes) == pods
    assert result.text.count("name: oom-heap-dumper\n") == pods
    assert remove_text(result.text).text == text


def test_templates_that_are_no_pods_are_left_alone() -> None:
    """A schema's property may be called so, and so may a text."""
    schema = "kind: CustomResourceDefinition\nspec:\n  template:\n    spec: {properties: {containers: {}}}\n"
    text = f"{schema}  x: {{template: t}}\n"
    assert inject_text(text, Options()).outcomes == ()


@pytest.mark.parametrize(("kind", "warns"), [("Pod", True), ("Job", True), ("Deployment", False)])
def test_what_the_cluster_won_t_let_change_is_warned_of(kind: str, *, warns: bool) -> None:
    """A Pod or Job that exists, which its UID tells, can only be replaced."""
    new = written(kind=kind).replace("  template:\n    spec:\n      ", "  ").replace("\n      ", "\n  ")
    text = new if kind == "Pod" else written(kind=kind)
    for uid, expected in (("", False), ("uid: 1-2-3\n  ", warns)):
        (outcome,) = inject_text(text.replace("name: x\n", f"{uid}name: x\n", 1), Options()).outcomes
        assert any("can't be changed" in each for each in outcome.plan.warnings) == expected


POLICY = """\
apiVersion: kyverno.io/v1
kind: ClusterPolicy
metadata: {name: x}
spec:
  rules:
  - mutate:
      patchStrategicMerge:
        spec:
          template:
            spec:
              containers:
              - (name): "*"
                resources: {limits: {memory: 1Gi}}
  - mutate:
      patchStrategicMerge:
        spec:
          template:
            spec:
              containers:
              - name: app
                imagePullPolicy: Always
"""


def test_a_patch_for_pods_is_no_pod() -> None:
    """A policy that changes templates has one itself, whose containers say but a part of what they are."""
    result = inject_text(POLICY, Options())
    assert (result.text, result.outcomes) == (POLICY, ())
