"""What holds for any manifests, however they are written."""

from __future__ import annotations

from typing import Any

import yaml
from hypothesis import HealthCheck, Phase, assume, event, given, settings
from hypothesis import strategies as st
from hypothesis.strategies import DataObject
from kubernetes_validate import (  # type: ignore[import-untyped]  # the package carries no types
    latest_version,
    validate,
)

from sidecar.inject.manifests import inject_text, remove_text
from sidecar.inject.model import SIDECAR, STATE, Options
from tests.inject.generated import HAS_SCHEMA, Manifest, documents
from tests.inject.spelling import spelled

# Without shrinking, which takes minutes for texts like these.
CHECKED = settings(
    max_examples=80,
    deadline=None,
    suppress_health_check=list(HealthCheck),
    phases=(Phase.explicit, Phase.reuse, Phase.generate),
)

options = st.builds(
    Options,
    bucket=st.sampled_from([None, "my-dumps"]),
    native_sidecar=st.booleans(),
    gomemlimit_percent=st.sampled_from([None, 50.0, 90.0]),
    critical_percent=st.sampled_from([None, 80.0]),
    run_as_user=st.sampled_from([None, None, 0, 7]),
)


class _Loader(yaml.CSafeLoader):
    """Reads only what Kubernetes knows, as the sidecar does: dates and the like stay text."""


_Loader.yaml_implicit_resolvers = {
    first: [(tag, pattern) for tag, pattern in resolvers if not tag.endswith(("timestamp", "value"))]
    for first, resolvers in yaml.CSafeLoader.yaml_implicit_resolvers.items()
}


@st.composite
def files(draw: st.DrawFn) -> tuple[list[Manifest], list[str], str]:
    """Values, their documents' texts, and the text of all."""
    values = draw(st.lists(documents(), min_size=1, max_size=3))
    parts = [draw(spelled(value)) for value in values]
    separator = draw(st.sampled_from(["---\n", "--- # next\n", "\n---\n\n", "---\r\n"]))
    text = draw(st.sampled_from(["", "---\n", "# head\n", "\ufeff"])) + separator.join(parts)
    if draw(st.integers(0, 4)) == 0:
        text = text.rstrip("\r\n")
    # A comment or a blank line may have become part of a text that keeps what follows.
    assume(list(yaml.load_all(text, Loader=_Loader)) == values)
    return values, parts, text


def workloads_of(documents: list[Any]) -> list[Manifest]:
    """Every object, also of lists."""
    return [each for document in documents for each in document.get("items", [document])]


def pod_of(manifest: Manifest) -> Manifest | None:
    """The pod template of an object, found without the code that is tested."""
    spec = manifest.get("spec", {})
    candidates = [spec.get("jobTemplate", {}).get("spec", {}).get("template"), spec.get("template")]
    candidates += [manifest.get("template"), manifest if manifest["kind"] == "Pod" else None]
    return next((each for each in candidates if each), None)


def without_sidecar(pod: Manifest) -> Manifest:
    """A pod without what is ours by its name, and without what is empty."""
    spec = dict(pod["spec"])
    for key in ("containers", "initContainers", "volumes"):
        spec[key] = [each for each in spec.get(key) or [] if not each["name"].startswith(SIDECAR)]
    spec["containers"] = [_without_gomemlimit(each) for each in spec["containers"]]
    spec.pop("shareProcessNamespace", None)
    annotations = {key: text for key, text in (pod["metadata"].get("annotations") or {}).items() if key != STATE}
    return {"metadata": pod["metadata"] | {"annotations": annotations}, "spec": spec}


def _without_gomemlimit(container: Manifest) -> Manifest:
    return container | {"env": [each for each in container.get("env") or [] if each["name"] != "GOMEMLIMIT"]}


@CHECKED
@given(files(), options)
def test_uninject_gives_the_bytes_back(file: tuple[list[Manifest], list[str], str], chosen: Options) -> None:
    """Injecting and taking out again is nothing at all, and injecting twice is injecting once."""
    _, _, text = file
    injected = inject_text(text, chosen)
    event(f"injected: {any(each.plan.operations for each in injected.outcomes)}")
    assert remove_text(injected.text).text == text
    assert inject_text(injected.text, chosen).text == injected.text


@CHECKED
@given(files(), options, options)
def test_other_options_renew(file: tuple[list[Manifest], list[str], str], first: Options, then: Options) -> None:
    """What an injection leaves behind depends on the last options alone, unless these are refused, as for a Job."""
    _, _, text = file
    assume(then.native_sidecar or "restartPolicy" not in text)
    assert inject_text(inject_text(text, first).text, then).text == inject_text(text, then).text


@CHECKED
@given(files(), options)
def test_nothing_else_changes(file: tuple[list[Manifest], list[str], str], chosen: Options) -> None:
    """Documents without a pod are there byte for byte, and of the others only what is ours was added."""
    values, parts, text = file
    result = inject_text(text, chosen).text
    loaded = list(yaml.load_all(result, Loader=_Loader))
    for value, part in zip(values, parts, strict=True):
        if not any(pod_of(each) for each in workloads_of([value])):
            assert part.rstrip("\r\n") in result
    for before, after in zip(workloads_of(values), workloads_of(loaded), strict=True):
        pod, changed = pod_of(before), pod_of(after)
        if pod is None or changed is None:
            assert before == after
        else:
            assert without_sidecar(changed) == without_sidecar(pod)


@settings(CHECKED, max_examples=40)
@given(files(), options, st.data())
def test_the_result_fits_the_schemas_of_the_api(
    file: tuple[list[Manifest], list[str], str], chosen: Options, data: DataObject
) -> None:
    """What was valid is valid with the sidecar, with no unknown field."""
    _, _, text = file
    result = inject_text(text, chosen).text
    objects = [each for each in workloads_of(list(yaml.load_all(result, Loader=_Loader))) if each["kind"] in HAS_SCHEMA]
    for each in objects[: data.draw(st.integers(1, 2))]:
        validate(each, latest_version(), strict=True)
