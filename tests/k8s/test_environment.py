from __future__ import annotations

from collections.abc import Iterator

import click
import pytest

from sidecar.cli import root
from tests.k8s.manifests import K8S, SIDECAR, containers_of, deployments, load, pod_of


def options_by_variable() -> dict[str, click.Parameter]:
    """The options of `watch` by the environment variables that set them."""
    watch = root.get_command(click.Context(root), "watch")
    assert watch is not None
    found: dict[str, click.Parameter] = {}
    for parameter in watch.params:
        names = [parameter.envvar] if isinstance(parameter.envvar, str) else parameter.envvar or []
        found |= dict.fromkeys(names, parameter)
    return found


def settings_of_the_example() -> Iterator[tuple[str, str]]:
    """The variables that the component's example gives by its ConfigMap."""
    (kustomization,) = load(K8S / "component-example" / "kustomization.yaml")
    for generator in kustomization["configMapGenerator"]:
        for literal in generator["literals"]:
            name, _, value = literal.partition("=")
            yield name, value


def test_every_variable_of_the_manifests_is_an_option() -> None:
    """No manifest sets a variable that `watch` doesn't read."""
    known = options_by_variable()
    used = {name for name, _ in settings_of_the_example()}
    for deployment in deployments().values():
        used |= {variable["name"] for variable in containers_of(pod_of(deployment))[SIDECAR].get("env", [])}
    assert {"BUCKET", "POD_NAME", "POD_NAMESPACE", "NODE_NAME"} <= used
    assert used <= known.keys()


def test_every_value_of_the_manifests_is_accepted() -> None:
    """Every plain value in the manifests passes the type of its option."""
    known = options_by_variable()
    values = list(settings_of_the_example())
    for deployment in deployments().values():
        environment = containers_of(pod_of(deployment))[SIDECAR]["env"]
        values += [(variable["name"], variable["value"]) for variable in environment if "value" in variable]
    assert len(values) >= 9
    for name, value in values:
        known[name].type.convert(value, known[name], None)


@pytest.mark.parametrize(("variable", "text"), [("SPOOL_DIR", "/var/spool/oom-heap-dumper"), ("SPOOL_SIZE", "256Mi")])
def test_the_defaults_that_the_manifests_build_on_hold(variable: str, text: str) -> None:
    """The spool's volume fits the default directory and size, which no manifest sets."""
    assert options_by_variable()[variable].default == text


def test_the_grace_that_the_manifests_build_on_holds() -> None:
    """The pods' grace periods were chosen for uploads that may take 20 s."""
    assert options_by_variable()["UPLOAD_GRACE"].default == "20s"
