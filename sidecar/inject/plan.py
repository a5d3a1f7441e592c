"""Plans an injection, or its removal, as JSON patch operations. Pure."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace

from sidecar.core.quantities import is_same_quantity
from sidecar.inject.annotations import is_switched_off, with_annotations
from sidecar.inject.container import SHORTEST_GRACE_S, VOLUMES, sidecar_container, volume, volume_names
from sidecar.inject.first_process import first_process_warnings
from sidecar.inject.gomemlimit import VARIABLE, Cure, memory_limit_bytes, plan_gomemlimit
from sidecar.inject.model import SIDECAR, STATE, Operation, Options, Plan
from sidecar.inject.patch import apply, join, look_up
from sidecar.inject.pods import check_containers, listing, mapping
from sidecar.inject.removal import is_injected, plan_removal
from sidecar.inject.security import choose_security
from sidecar.inject.state import State, format_state
from sidecar.inject.thresholds import choose_thresholds

__all__ = ["is_injected", "plan_injection", "plan_removal"]

_SHARE = "/spec/shareProcessNamespace"
_SHARING = (
    "shareProcessNamespace: true lets the sidecar see the app's processes; the containers see each other's, and an "
    "app's first process is no longer PID 1."
)
_ENDING = ("Never", "OnFailure")
_OS_LABELS = ("kubernetes.io/os", "beta.kubernetes.io/os")


def plan_injection(
    pod: Mapping[str, object],
    *,
    at: str,
    options: Options,
    annotations: Mapping[str, str],
    empties: Mapping[str, str] | None = None,
) -> Plan:
    """Plan to put the sidecar into a pod, or to renew one that an earlier injection put there.

    ``pod`` is a pod template or a Pod: {"metadata": ..., "spec": ...}; ``at`` its JSON pointer in its document ("" for
    a Pod). ``annotations`` are the workload's and the template's together (``pods.settings_of``); those of ours win
    over ``options``. ``empties`` says by pointer how null and empty values of the pod are written, for YAML text.

    Raises ConfigError for an annotation that makes no sense and PodError for a pod spec that is none.
    """
    if is_switched_off(annotations):
        left = "; uninject takes out the one that is there" if is_injected(pod) else ""
        return Plan(refusal=f"oom-heap-dumper/inject: disabled is said of it{left}")
    options = with_annotations(options, annotations)
    check_containers(pod)
    if is_injected(pod):
        removal = plan_removal(pod, at="")
        clean = apply(pod, removal.operations)
        assert isinstance(clean, dict)  # noqa: S101 -- a removal touches no root
        renewed = plan_injection(clean, at=at, options=options, annotations={}, empties=empties)
        if renewed.refusal is not None:
            return renewed
        return replace(renewed, operations=(*_moved(removal.operations, at), *renewed.operations))
    refusal = _refusal(pod, options)
    return Plan(refusal=refusal) if refusal else _planned(pod, at, options, empties or {})


@dataclass(slots=True)
class _Draft:
    """Operations in the making, with what they create noted for the removal."""

    pod: Mapping[str, object]
    empties: Mapping[str, str]
    operations: list[Operation] = field(default_factory=list)
    created: list[str] = field(default_factory=list)
    filled: dict[str, str] = field(default_factory=dict)

    def set(self, pointer: str, value: object, named: str | None = None) -> None:
        """Give a key that is empty or isn't there a value; ``named`` is its pointer with names for indexes."""
        parent, _, key = pointer.rpartition("/")
        owner = look_up(self.pod, parent)
        self.created.append(named or pointer)
        if isinstance(owner, dict) and key in owner:
            self.filled[named or pointer] = self.empties.get(pointer, "")
            self.operations.append(Operation(op="replace", path=pointer, value=value))
        else:
            self.operations.append(Operation(op="add", path=pointer, value=value))

    def is_empty(self, pointer: str) -> bool:
        """Whether there is nothing, or something empty that may be written anew."""
        value = look_up(self.pod, pointer)
        return value is None or (value in ([], {}) and pointer in self.empties)

    def append(self, pointer: str, values: list[dict[str, object]], named: str | None = None) -> None:
        """Append to a list, which is made if it isn't there."""
        if self.is_empty(pointer):
            self.set(pointer, values, named)
        else:
            self.operations += [Operation(op="add", path=f"{pointer}/-", value=value) for value in values]


def _planned(pod: Mapping[str, object], at: str, options: Options, empties: Mapping[str, str]) -> Plan:
    cure = plan_gomemlimit(pod, options.gomemlimit_percent)
    security = choose_security(pod, options)
    thresholds = choose_thresholds(options, cure.highest_percent)
    container = sidecar_container(
        options, thresholds=thresholds, limit_of=_only_limited(pod), security=security.context
    )
    draft = _Draft(pod=pod, empties=empties)
    shared: tuple[str, ...] = ()
    if look_up(pod, _SHARE) is None:
        draft.set(_SHARE, value=True)
        shared = (_SHARING,)
    draft.append("/spec/initContainers" if options.native_sidecar else "/spec/containers", [container])
    draft.append("/spec/volumes", [volume(name, options) for name in volume_names(options)])
    for each in cure.additions:
        variable: dict[str, object] = {"name": VARIABLE, "value": each.value}
        named = join("spec", "containers", each.container, "env")
        draft.append(join("spec", "containers", each.index, "env"), [variable], named)
    _remember(draft, cure)
    where = (
        "a native sidecar, an init container that keeps running (Kubernetes 1.29 or newer)"
        if options.native_sidecar
        else "an ordinary container, after the app's"
    )
    return Plan(
        operations=_moved(draft.operations, at),
        notes=(f"{SIDECAR} is {where}: {options.image}.", *shared, *security.notes, *cure.notes, *thresholds.notes),
        warnings=(
            *(first_process_warnings(pod) if shared else ()),
            *security.warnings,
            *cure.warnings,
            *thresholds.warnings,
            *_reminders(pod, options),
        ),
    )


def _remember(draft: _Draft, cure: Cure) -> None:
    """Add the annotation of the state; its parents come first, as the state names them too."""
    first = next((pointer for pointer in ("/metadata", "/metadata/annotations") if draft.is_empty(pointer)), None)
    # The state is in what it describes, so what is filled here is noted before.
    created, filled = list(draft.created), dict(draft.filled)
    if first is not None:
        created.append(first)
        owner, key = (
            (draft.pod, "metadata") if first == "/metadata" else (mapping(draft.pod, "/metadata"), "annotations")
        )
        filled |= {first: draft.empties.get(first, "")} if key in owner else {}
    state = format_state(
        State(
            created=tuple(created),
            empties=filled,
            gomemlimit={each.container: each.value for each in cure.additions},
        )
    )
    if first == "/metadata":
        draft.set(first, {"annotations": {STATE: state}})
    elif first is not None:
        draft.set(first, {STATE: state})
    else:
        draft.operations.append(Operation(op="add", path=join("metadata", "annotations", STATE), value=state))


def _reminders(pod: Mapping[str, object], options: Options) -> Iterator[str]:
    if "/" not in options.image:
        yield f"The image {options.image} names no registry: --image gives one that the cluster can pull."
    if not options.bucket:
        yield "No bucket is given, so dumps stay in an emptyDir and go with the pod: --bucket sends them to S3."
    if _is_guaranteed(pod):
        yield (
            "The pod's QoS class was Guaranteed and becomes Burstable, as the sidecar's limits exceed its requests: it "
            "may lose exclusive CPUs, and is evicted earlier."
        )
    grace = look_up(pod, "/spec/terminationGracePeriodSeconds")
    if isinstance(grace, int) and grace < SHORTEST_GRACE_S:
        yield (
            f"terminationGracePeriodSeconds is {grace}: uploads may take 20 s after SIGTERM, so {SHORTEST_GRACE_S} or "
            "more lets the last dump leave the node."
        )


def _only_limited(pod: Mapping[str, object]) -> str | None:
    """The app's container if it runs alone and has a memory limit; others without one would be held to its limit."""
    containers = listing(pod, "/spec/containers")
    if any(each.get("restartPolicy") == "Always" for each in listing(pod, "/spec/initContainers")):
        return None
    if len(containers) == 1 and memory_limit_bytes(containers[0], 0) is not None:
        return str(containers[0]["name"])
    return None


def _is_guaranteed(pod: Mapping[str, object]) -> bool:
    """Whether each container has limits for CPU and memory, and requests that are no less (``qos.GetPodQOS``)."""
    containers = [each for key in ("initContainers", "containers") for each in listing(pod, f"/spec/{key}")]
    for container in containers:
        limits, requests = (mapping(container, f"/resources/{name}") for name in ("limits", "requests"))
        for resource in ("cpu", "memory"):
            limit = limits.get(resource)
            if limit is None or not _is_equal(requests.get(resource, limit), limit):
                return False
    return True


def _is_equal(one: object, other: object) -> bool:
    try:
        return is_same_quantity(one, other)
    except ValueError:
        return str(one) == str(other)


def _refusal(pod: Mapping[str, object], options: Options) -> str | None:
    """Why this pod gets no sidecar; None if it may."""
    spec = mapping(pod, "/spec")
    # Lists, as a value may be anything, also what no set can have.
    systems = [look_up(spec, "/os/name"), *(mapping(spec, "/nodeSelector").get(label) for label in _OS_LABELS)]
    names = [container["name"] for key in ("initContainers", "containers") for container in listing(spec, f"/{key}")]
    volumes = [entry.get("name") for entry in listing(spec, "/volumes")]
    if "windows" in systems:
        return "it is a Windows pod, and the sidecar needs Linux"
    if spec.get("hostPID") is True:
        return "it has hostPID: true, which shows the whole node's processes and excludes sharing the pod's own"
    if spec.get("shareProcessNamespace") is False:
        return "it has shareProcessNamespace: false, and without PID sharing the sidecar sees no app: remove that line"
    if SIDECAR in names:
        return f"it has a container {SIDECAR} that inject didn't put there: remove that first"
    if any(name in volumes for name in VOLUMES):
        return f"it has a volume of the sidecar's name that inject didn't put there ({', '.join(VOLUMES)}): remove that"
    if mapping(spec, "/resources"):
        return "it has resources of the pod's own (spec.resources), which weren't meant to hold the sidecar as well"
    if not options.native_sidecar and spec.get("restartPolicy") in _ENDING:
        return "it is meant to end, from which an ordinary sidecar would keep it: use the native one"
    if not listing(spec, "/containers"):
        return "it has no containers"
    return None


def _moved(operations: tuple[Operation, ...] | list[Operation], at: str) -> tuple[Operation, ...]:
    """The operations as the document has them, where the pod is at ``at``."""
    return tuple(replace(operation, path=f"{at}{operation.path}") for operation in operations)
