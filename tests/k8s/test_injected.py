"""The manifests with the sidecar are what ``inject`` makes of those without, and the component adds the same."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from sidecar.inject.manifests import remove_text
from sidecar.inject.model import Options
from sidecar.inject.patch import apply
from sidecar.inject.plan import plan_injection
from tests.k8s.manifests import K8S, SIDECAR, containers_of, deployments, load, pod_of

PROJECT = K8S.parent
EXAMPLE = PROJECT / "examples" / "go-memory-leak" / "deployment.yaml"
INJECTED = [K8S / "deployment.yaml", K8S / "native-sidecar.yaml"]


def test_the_manifests_are_the_output_of_the_readme_s_lines(tmp_path: Path) -> None:
    """Run as they stand in k8s/README.md, in a folder of their own, the lines give the files byte for byte."""
    (block,) = re.findall(r"```sh\n(set -- .*?)```", (K8S / "README.md").read_text(), re.DOTALL)
    for folder in ("k8s", "examples/go-memory-leak", "bin"):
        (tmp_path / folder).mkdir(parents=True)
    (tmp_path / EXAMPLE.relative_to(PROJECT)).write_bytes(EXAMPLE.read_bytes())
    command = tmp_path / "bin" / "oom-heap-dumper"
    command.write_text(f'#!/bin/sh\nexec {sys.executable} -m sidecar "$@"\n')
    command.chmod(0o755)
    environment = {"PATH": f"{command.parent}:{os.environ['PATH']}", "PYTHONPATH": str(PROJECT)}
    done = subprocess.run(
        ["sh", "-euc", block], cwd=tmp_path, env=environment, capture_output=True, text=True, check=True
    )
    assert "warning" not in done.stderr
    for path in INJECTED:
        assert (tmp_path / "k8s" / path.name).read_text() == path.read_text()


@pytest.mark.parametrize("path", INJECTED, ids=lambda path: path.stem)
def test_without_the_sidecar_they_are_the_example(path: Path) -> None:
    """Everything of ours is taken out again."""
    assert remove_text(path.read_text()).text == EXAMPLE.read_text()


def test_the_component_s_sidecar_is_that_of_inject() -> None:
    """The differences are those that k8s/README.md names.

    A component takes its settings from a ConfigMap and its image from the kustomization, leaves GOMEMLIMIT, the
    threshold and MEMORY_LIMIT to those who know the app, and can't know what the pod's security context says.
    """
    (app,) = load(K8S / "component-example" / "app.yaml")
    options = Options(bucket="example-heap-dumps", native_sidecar=False)
    template = app["spec"]["template"]
    patched = apply(template, plan_injection(template, at="", options=options, annotations={}).operations)
    assert isinstance(patched, dict)
    injected, component = patched["spec"], pod_of(deployments()["component"])
    ours, theirs = containers_of(injected)[SIDECAR], containers_of(component)[SIDECAR]

    by_setting = {"BUCKET", "CRITICAL", "MEMORY_LIMIT"}
    assert [entry for entry in ours["env"] if entry["name"] not in by_setting] == theirs["env"]
    assert {entry["name"] for entry in ours["env"]} - {entry["name"] for entry in theirs["env"]} == by_setting
    assert set(theirs) - set(ours) == {"envFrom"}
    explicit = {"runAsNonRoot": True, "seccompProfile": {"type": "RuntimeDefault"}}
    assert theirs["securityContext"] == ours["securityContext"] | explicit
    for field in set(ours) - {"env", "image", "securityContext"}:
        assert theirs[field] == ours[field], field
    assert component["volumes"] == injected["volumes"]
    assert component["shareProcessNamespace"] == injected["shareProcessNamespace"]
    assert [each["name"] for each in component["containers"]] == [each["name"] for each in injected["containers"]]
