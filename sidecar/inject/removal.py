"""Plans the removal of what an injection added, and of no more. Pure."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from functools import partial
from operator import eq

from sidecar.inject.container import VOLUMES
from sidecar.inject.gomemlimit import VARIABLE
from sidecar.inject.model import SIDECAR, STATE, Operation, Plan
from sidecar.inject.patch import join, look_up
from sidecar.inject.pods import check_containers, listing, mapping
from sidecar.inject.state import State, parse_state


def is_injected(pod: Mapping[str, object]) -> bool:
    """Whether an injection has left its annotation."""
    return STATE in mapping(pod, "/metadata/annotations")


def plan_removal(pod: Mapping[str, object], *, at: str) -> Plan:
    """Plan to take everything out again that an injection put into a pod.

    What is already gone is passed over, and a parent that was created stays if others have put something into it since.
    Raises PodError for a spec that is none.
    """
    check_containers(pod)
    if not is_injected(pod):
        return Plan(refusal="inject has put nothing into it")
    state = parse_state(mapping(pod, "/metadata/annotations")[STATE])
    operations = [*_operations(pod, state, at)]
    notes = (f"{SIDECAR} is taken out, as version {state.version} put it in.", *_kept(pod, state))
    return Plan(operations=tuple(operations), notes=notes)


def _operations(pod: Mapping[str, object], state: State, at: str) -> Iterator[Operation]:
    """In an order in which none moves what a later one points at."""
    for index, container in enumerate(listing(pod, "/spec/containers")):
        name = str(container["name"])
        if name in state.gomemlimit:
            pointer, named = join("spec", "containers", index, "env"), join("spec", "containers", name, "env")
            ours = {"name": VARIABLE, "value": state.gomemlimit[name]}
            yield from _without(pod, pointer, named, state=state, at=at, is_ours=partial(eq, ours))
    for pointer in ("/spec/containers", "/spec/initContainers"):
        yield from _without(
            pod, pointer, pointer, state=state, at=at, is_ours=lambda entry: entry.get("name") == SIDECAR
        )
    yield from _without(
        pod, "/spec/volumes", "/spec/volumes", state=state, at=at, is_ours=lambda entry: entry.get("name") in VOLUMES
    )
    share = "/spec/shareProcessNamespace"
    if share in state.created and look_up(pod, share) is True:
        yield _gone(share, share, state, at)
    yield from _forgotten(pod, state, at)


def _kept(pod: Mapping[str, object], state: State) -> Iterator[str]:
    """What to say of a GOMEMLIMIT that is another one by now: somebody's own."""
    for container in listing(pod, "/spec/containers"):
        given = state.gomemlimit.get(str(container["name"]))
        found = [entry.get("value") for entry in listing(container, "/env") if entry.get("name") == VARIABLE]
        if given is not None and found and found != [given]:
            yield f"{container['name']}: its {VARIABLE} was changed since, from {given}, and stays as it is."


def _without(
    pod: Mapping[str, object],
    pointer: str,
    named: str,
    *,
    state: State,
    at: str,
    is_ours: Callable[[Mapping[str, object]], bool],
) -> Iterator[Operation]:
    entries = listing(pod, pointer)
    ours = [index for index, entry in enumerate(entries) if is_ours(entry)]
    if ours and len(ours) == len(entries) and named in state.created:
        yield _gone(pointer, named, state, at)
        return
    for index in reversed(ours):
        yield Operation(op="remove", path=f"{at}{pointer}/{index}")


def _forgotten(pod: Mapping[str, object], state: State, at: str) -> Iterator[Operation]:
    """Remove the annotation, and its parents if they were created and would be empty."""
    annotations, metadata = mapping(pod, "/metadata/annotations"), mapping(pod, "/metadata")
    # The API server fills in creationTimestamp: null, which is nobody's.
    is_alone = not {key for key, value in metadata.items() if value is not None} - {"annotations"}
    if len(annotations) == 1 and "/metadata" in state.created and is_alone:
        yield _gone("/metadata", "/metadata", state, at)
    elif len(annotations) == 1 and {"/metadata", "/metadata/annotations"} & set(state.created):
        yield _gone("/metadata/annotations", "/metadata/annotations", state, at)
    else:
        yield Operation(op="remove", path=f"{at}{join('metadata', 'annotations', STATE)}")


def _gone(pointer: str, named: str, state: State, at: str) -> Operation:
    """What was created goes, or is as empty again as it was."""
    spelling = state.empties.get(named)
    if spelling is not None:
        value: object = [] if "[" in spelling else {} if "{" in spelling else None
        return Operation(op="replace", path=f"{at}{pointer}", value=value, spelling=spelling)
    return Operation(op="remove", path=f"{at}{pointer}")
