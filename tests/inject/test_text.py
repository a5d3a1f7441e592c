"""Texts as people write them: what is added fits in, what isn't meant stays byte for byte."""

from __future__ import annotations

import copy
import json
import re
import textwrap

import pytest
import yaml

from sidecar.inject.manifests import inject_text, remove_text
from sidecar.inject.model import STATE, ManifestError, Options

POD = "spec: {containers: [{name: a}]}"
OPTIONS = Options(bucket="my-dumps", image="r.example.com/dumper:1")


def text_of(block: str) -> str:
    """A text without the indentation that it has in here."""
    return textwrap.dedent(block).lstrip("\n")


def injected(text: str) -> str:
    """The text with the sidecar in it; taking it out gives the text back."""
    result = inject_text(text, OPTIONS)
    assert any(each.plan.operations for each in result.outcomes)
    assert remove_text(result.text).text == text
    return result.text


def test_comments_order_and_quotes_stay() -> None:
    """Every line is still there, in its order; all that is new stands between them."""
    text = text_of("""
        # head
        kind: "Deployment"   # a remark
        spec:
          template:
            # of the template
            spec:
              containers:

                - image: 'x'
                  name: app

                # the end of the containers
        # the end
    """)
    lines = iter(injected(text).splitlines())
    assert all(line in lines for line in text.splitlines())


def test_comments_stay_with_what_they_are_of() -> None:
    """A field that is switched off stays its container's: switched on, it is no field of the sidecar's."""
    after = injected(
        text_of("""
            kind: Pod
            spec:
              initContainers:
              - name: migrate
                # command: [x]

                # args: [y]
              # - name: seed
              containers:
              - name: app
                resources: {limits: {memory: 1Gi}}
                env:
                - name: A
                  # value: a
                # livenessProbe: soon
              # - name: other
            # the end
        """)
    )
    switched_on = yaml.safe_load(re.sub(r"# (command|args|value|livenessProbe)", r"\1", after))
    migrate, sidecar = switched_on["spec"]["initContainers"]
    assert {"command", "args"} <= migrate.keys()
    assert not {"command", "args"} & sidecar.keys()
    (app,) = switched_on["spec"]["containers"]
    assert app["livenessProbe"] == "soon"
    assert [each.get("value") for each in app["env"]] == ["a", "921MiB"]


@pytest.mark.parametrize(
    ("text", "lines"),
    [
        (
            "spec:\n  containers:\n  - name: a\nkind: Pod\n",
            ["  volumes:\n  - name: ", "    emptyDir:\n      sizeLimit: "],
        ),
        (
            "spec:\n  containers:\n    - name: a\nkind: Pod\n",
            ["  volumes:\n    - name: ", "      emptyDir:\n        size"],
        ),
        (
            "spec:\n    containers:\n    -   name: a\nkind: Pod\n",
            ["    volumes:\n    - name: ", "      emptyDir:\n          size"],
        ),
    ],
)
def test_indentation_is_the_neighbours(text: str, lines: list[str]) -> None:
    """Mappings and lists are indented as the pod's own are."""
    for line in lines:
        assert f"\n{line}" in injected(text)


def test_line_breaks_are_the_neighbours() -> None:
    """A file of Windows stays one."""
    result = injected("kind: Pod\r\nspec:\r\n  containers:\r\n  - name: a\r\n")
    assert result.count("\n") == result.count("\r\n") > 20


def test_a_missing_line_break_at_the_end_stays_missing() -> None:
    """The last line is no different for that."""
    assert not injected("kind: Pod\nspec:\n  containers:\n  - name: a").endswith("\n")


def test_a_byte_order_mark_stays() -> None:
    """Editors of Windows write one."""
    assert injected("\ufeffkind: Pod\nspec:\n  containers:\n  - name: a\n").startswith("\ufeffkind: Pod\n")


@pytest.mark.parametrize(("indent", "separators"), [(None, None), (None, (",", ":")), (2, None), ("\t", None)])
def test_json_stays_json(indent: int | str | None, separators: tuple[str, str] | None) -> None:
    """As kubectl writes it, or jq: what comes of it is what the same tool would write."""
    value = {"kind": "Pod", "metadata": {"name": "a"}, "spec": {"containers": [{"name": "a", "image": "b:1"}]}}
    text = json.dumps(value, indent=indent, separators=separators)
    result = injected(text)
    assert json.dumps(json.loads(result), indent=indent, separators=separators) == result


def test_flow_style_stays() -> None:
    """Entries between braces are added between them."""
    result = injected(
        "{kind: Pod, spec: {containers: [{name: a, resources: {limits: {memory: 1Gi}}}], volumes: [ ]}}\n"
    )
    assert result.count("\n") == 1
    assert "env: [{name: GOMEMLIMIT, value: 921MiB}]" in result


@pytest.mark.parametrize("empty", ["", " null", " ~", "   Null # none", " []", "\n    []", " # none", " [ ] # none"])
def test_what_was_empty_is_written_as_a_list(empty: str) -> None:
    """Helm leaves such; taking the sidecar out leaves just that again."""
    result = injected(f"kind: Pod\nspec:\n  volumes:{empty}\n  containers:\n  - name: a\n")
    assert "\n  - name: oom-heap-dumper-spool\n" in result


def test_trailing_commas_and_broken_lines_stay() -> None:
    """YAML allows both between braces."""
    result = injected("kind: Pod\nspec: {\n  containers: [\n    {name: a},\n    {name: b,},\n  ],\n}\n")
    assert "    {name: b,},\n  ],\n" in result


def test_block_scalars_at_the_end_keep_their_meaning() -> None:
    """A script is often the last of a container."""
    args = '    args:\n    - |+\n      echo "a"\n\n    - >-\n      b\n\n\n# end\n'
    text = f"kind: Pod\nspec:\n  containers:\n  - name: a\n{args}"
    container = yaml.safe_load(injected(text))["spec"]["containers"][0]
    assert container["args"] == ['echo "a"\n\n', "b"]


def test_typed_lists_and_lists_of_lists() -> None:
    """DeploymentList's items have no kind of their own, and a List may hold a List."""
    item = {"metadata": {"name": "a"}, "spec": {"template": {"spec": {"containers": [{"name": "c"}]}}}}
    inner = {"kind": "DeploymentList", "items": [item, copy.deepcopy(item) | {"metadata": {"name": "b"}}]}
    text = yaml.safe_dump({"kind": "List", "items": [inner, {"kind": "ConfigMap"}]}, sort_keys=False)
    outcomes = inject_text(text, OPTIONS).outcomes
    assert [(each.kind, each.name) for each in outcomes] == [("Deployment", "a"), ("Deployment", "b")]
    assert [text.splitlines()[each.line - 1].strip(" -") for each in outcomes] == ["metadata:", "metadata:"]
    assert len({each.line for each in outcomes}) == 2
    injected(text)


@pytest.mark.parametrize(
    "text",
    [
        f"kind: Job\nx: &l {{a: b}}\nspec: {{template: {{metadata: {{labels: *l}}, {POD}}}}}\n",
        "kind: Pod\nx: &r\n  limits: {memory: 1Gi}\nspec:\n  containers:\n  - name: a\n    resources: *r\n",
        "kind: Pod\nx: &p {image: b}\nspec:\n  containers:\n  - <<: *p\n    name: a\n",
        "kind: Pod\nspec:\n  containers: &c-1\n  - &c-2\n    name: a\n    args: &c-3\n      - - a\n",
        "kind: Pod\nspec: &alone\n  containers:\n  - name: a\n",
        "kind: Pod\nx: &v {name: v, emptyDir: {}}\nspec:\n  containers:\n  - name: a\n  volumes:\n  - *v\n",
    ],
)
def test_aliases_that_nobody_changes_are_fine(text: str) -> None:
    """Labels used twice, shared limits, a merged image, anchors without aliases, an alias that ends a list."""
    assert STATE in injected(text)


def test_documents_are_told_apart() -> None:
    """Only the documents with pods change, whatever marks begin and end them."""
    other = "%YAML 1.1\n---\nkind: ConfigMap\ndata:\n  containers: |\n    - name: a\n...\n"
    text = f"{other}---  # next\nkind: Pod\nspec:\n  containers:\n  - name: a\n--- {{kind: Secret}}\n---\n# nothing\n"
    result = injected(text)
    assert result.startswith(other)
    assert result.endswith("--- {kind: Secret}\n---\n# nothing\n")


def test_what_can_not_be_edited_is_said_and_nothing_is_written() -> None:
    """A last line that would mean something else with a line break behind it."""
    with pytest.raises(Exception, match="end the file with a line break"):
        inject_text("kind: Pod\nspec:\n  containers:\n  - name: a\n    args:\n    - |\n      b", OPTIONS)


def test_half_a_line_break_at_the_end_is_refused() -> None:
    """A carriage return alone would become part of the line break that is written behind it."""
    with pytest.raises(ManifestError, match="half a line break") as caught:
        inject_text("kind: Pod\nspec:\n  containers:\n  - name: a\r", OPTIONS)
    assert caught.value.line == 4
    assert not inject_text("kind: Secret\r", OPTIONS).outcomes


def test_the_remedy_is_one_that_can_help() -> None:
    """Who has a line break at the end isn't told to put one there."""
    with pytest.raises(ManifestError, match="kubectl get -o yaml") as caught:
        inject_text("kind: Pod\r\nspec:\r  containers:\r  - name: a\n", OPTIONS)
    assert "line break" not in str(caught.value)


@pytest.mark.parametrize(
    "items",
    [
        "  - # web-app\n    name: a\n",
        "  # - the -first\n  -   # a - b\n      # - c\n      name: a\n  # - last\n  - # b-c\n    name: b\n",
        "  - name: a\n    env: &-e # - x\n    -  # - y\n      name: X\n",
    ],
)
def test_dashes_in_comments_are_no_dashes_of_lists(items: str) -> None:
    """New items are written below the list's own dashes."""
    spec = yaml.safe_load(injected(f"kind: Pod\nspec:\n  containers:\n{items}  volumes:\n  - # v-w\n    name: v\n"))[
        "spec"
    ]
    assert [each["name"] for each in spec["volumes"]] == ["v", "oom-heap-dumper-spool"]


def test_a_pod_that_is_refused_keeps_the_sidecar_it_has() -> None:
    """Opting out afterwards doesn't take anything away by the way."""
    text = injected("kind: Pod\nmetadata:\n  labels:\n    a: b\nspec:\n  containers:\n  - name: a\n")
    disabled = text.replace("    a: b\n", "    oom-heap-dumper/inject: disabled\n")
    assert inject_text(disabled, OPTIONS).text == disabled


def test_a_manifest_that_kubectl_wrote_again_is_taken_apart() -> None:
    """Sorted keys, empties gone, env the first key behind a dash: the same object is left as before."""
    before = {
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": {"name": "a"},
        "spec": {"template": {"spec": {"containers": [{"name": "a", "resources": {"limits": {"memory": "1Gi"}}}]}}},
        "status": {"replicas": 1},
    }
    live = yaml.safe_dump(yaml.safe_load(injected(yaml.safe_dump(before))), sort_keys=True)
    assert "- env:" in live
    assert yaml.safe_load(remove_text(live).text)["spec"] == {
        "template": before["spec"]["template"],  # type: ignore[index]  # it is a mapping
    }
