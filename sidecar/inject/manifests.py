"""Whole texts of manifests: finds the pods, plans for each, and edits. Pure."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace

from yaml.nodes import MappingNode, Node, ScalarNode

from sidecar.errors import ConfigError
from sidecar.inject.annotations import with_annotations
from sidecar.inject.model import ManifestError, Operation, Options, Plan, PodError
from sidecar.inject.patch import join, look_up, split
from sidecar.inject.plan import is_injected, plan_injection, plan_removal
from sidecar.inject.pods import PodSpot, find_pods
from sidecar.inject.yaml_editor import Edit, edit_text
from sidecar.inject.yaml_reader import Document, line_of, read_documents

_BOM = "\ufeff"

_FIXED = ("Pod", "Job")
"""Kinds whose pods the API server lets nobody change (``ValidatePodUpdate``, ``ValidateJobUpdate``)."""

_Planner = Callable[[Document, PodSpot], Plan]


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """What became of one pod: its workload's kind and name, its line in the text, and the plan.

    ``is_renewed`` tells that an earlier injection gave way to this one.
    """

    kind: str
    name: str
    line: int
    plan: Plan
    is_renewed: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Result:
    """A text and what became of each of its pods."""

    text: str
    outcomes: tuple[Outcome, ...]


def inject_text(text: str, options: Options) -> Result:
    """Put the sidecar into every pod of a text, in place of one that an earlier call put there.

    Raises ManifestError, with the line, for a text that can't be read or edited; nothing is changed then.
    """

    def removal(_: Document, spot: PodSpot) -> Plan:
        # What would be refused keeps the sidecar that it has.
        planned = _injection(spot, options, None)
        return plan_removal(spot.pod, at=spot.at) if is_injected(spot.pod) and planned.refusal is None else Plan()

    def injection(document: Document, spot: PodSpot) -> Plan:
        return _injection(spot, options, _empties(cleaned.text, document, spot))

    plain = text.removeprefix(_BOM)
    documents = list(read_documents(plain))
    cleaned = _planned(plain, documents, removal)
    if cleaned.text != plain:
        documents = list(read_documents(cleaned.text))
    injected = _planned(cleaned.text, documents, injection)
    return _restored(text, injected, cleaned)


def _injection(spot: PodSpot, options: Options, empties: Mapping[str, str] | None) -> Plan:
    """Plan for one pod, after what only its workload tells."""
    if spot.api_version.startswith("serving.knative.dev/"):
        return Plan(refusal="Knative allows neither PID sharing nor, by default, init containers")
    chosen = with_annotations(options, spot.annotations)
    if spot.kind in ("Job", "CronJob") and not chosen.native_sidecar:
        return Plan(refusal="a Job is meant to end, from which an ordinary sidecar would keep it: use the native one")
    plan = plan_injection(spot.pod, at=spot.at, options=options, annotations=spot.annotations, empties=empties)
    if spot.is_live and spot.kind in _FIXED and plan.refusal is None:
        warning = f"A {spot.kind} that is in the cluster can't be changed: inject what makes it, or replace it."
        return replace(plan, warnings=(*plan.warnings, warning))
    return plan


def remove_text(text: str) -> Result:
    """Take the sidecar out of every pod of a text that has one of ours. Raises ManifestError."""
    plain = text.removeprefix(_BOM)
    result = _planned(plain, list(read_documents(plain)), lambda _, spot: plan_removal(spot.pod, at=spot.at))
    return replace(result, text=_with_mark(text, result.text))


def _restored(text: str, result: Result, cleaned: Result) -> Result:
    """With the byte order mark that there was, and the lines of the text as it was given."""
    outcomes = tuple(
        replace(each, line=before.line, is_renewed=bool(before.plan.operations))
        for each, before in zip(result.outcomes, cleaned.outcomes, strict=True)
    )
    return Result(text=_with_mark(text, result.text), outcomes=outcomes)


def _with_mark(text: str, changed: str) -> str:
    return f"{_BOM * text.startswith(_BOM)}{changed}"


def _planned(text: str, documents: Sequence[Document], planner: _Planner) -> Result:
    edits, outcomes = [], []
    for document in documents:
        operations: list[Operation] = []
        for spot in _pods_of(document):
            plan = _with_line(document, spot, planner)
            operations += plan.operations
            line = _line_at(document, spot.owner_at)
            outcomes.append(Outcome(kind=spot.kind, name=spot.name, line=line, plan=plan))
        if operations:
            edits.append(Edit(document=document, operations=operations))
    return Result(text=edit_text(text, edits) if edits else text, outcomes=tuple(outcomes))


def _pods_of(document: Document) -> list[PodSpot]:
    try:
        return list(find_pods(document.value))
    except ConfigError as error:
        raise ManifestError(str(error), document.line) from None


def _with_line(document: Document, spot: PodSpot, planner: _Planner) -> Plan:
    try:
        return planner(document, spot)
    except PodError as error:
        line = _line_at(document, f"{spot.at}{error.pointer}")
        raise ManifestError(f"{spot.kind}/{spot.name}: {error}", line) from None
    except ConfigError as error:
        raise ManifestError(f"{spot.kind}/{spot.name}: {error}", _line_at(document, spot.owner_at)) from None


def _line_at(document: Document, pointer: str) -> int:
    """The line of what a pointer points at, or of the last part of it that is there."""
    node, line = document.root, document.line
    for part in split(pointer):
        if isinstance(node, MappingNode):
            found = next(((key, child) for key, child in node.value if key.value == part), None)
            if found is None:
                break
            line, node = line_of(found[0]), found[1]
        elif not isinstance(node, ScalarNode) and part.isdecimal() and int(part) < len(node.value):
            node = node.value[int(part)]
            line = line_of(node)
        else:
            break
    return line


def _empties(text: str, document: Document, spot: PodSpot) -> dict[str, str]:
    """How the empty values of a pod that an injection may fill are written: all from their key's colon to their end."""
    spec = look_up(spot.pod, "/spec/containers")
    pointers = ["/metadata", "/metadata/annotations", "/spec/shareProcessNamespace"]
    pointers += ["/spec/initContainers", "/spec/volumes"]
    pointers += [
        join("spec", "containers", index, "env") for index in range(len(spec) if isinstance(spec, list) else 0)
    ]
    found = {}
    for pointer in pointers:
        spelling = _spelling(text, document, split(f"{spot.at}{pointer}"))
        if spelling is not None:
            found[pointer] = spelling
    return found


def _spelling(text: str, document: Document, parts: Sequence[str]) -> str | None:
    """That of a null, and of empty braces in a mapping without braces, which look out of place once they are filled."""
    node: Node = document.root
    key: Node | None = None
    is_in_block = False
    for part in parts:
        if isinstance(node, MappingNode):
            found = next(((each, child) for each, child in node.value if each.value == part), None)
            if found is None:
                return None
            is_in_block = not node.flow_style
            key, node = found
        elif isinstance(node, ScalarNode):
            return None
        else:
            node = node.value[int(part)]
    is_null = isinstance(node, ScalarNode) and node.tag == "tag:yaml.org,2002:null"
    if key is None or not (is_null or (is_in_block and not node.value and not isinstance(node, ScalarNode))):
        return None
    colon = text.find(":", int(key.end_mark.index))
    return text[colon + 1 : int(node.end_mark.index)]
