"""Manifests of every kind, valid by the API's schemas, as values for tests that hold for all of them."""

from __future__ import annotations

from typing import Any

from hypothesis import strategies as st
from hypothesis.strategies import DrawFn

Manifest = dict[str, Any]

WORKLOADS = {
    "Deployment": "apps/v1",
    "StatefulSet": "apps/v1",
    "DaemonSet": "apps/v1",
    "ReplicaSet": "apps/v1",
    "ReplicationController": "v1",
    "Job": "batch/v1",
    "CronJob": "batch/v1",
    "Pod": "v1",
    "PodTemplate": "v1",
    "Rollout": "argoproj.io/v1alpha1",
}
HAS_SCHEMA = set(WORKLOADS) - {"Rollout"}

_names = st.sampled_from(["app", "web", "y", "no", "db-1", "istio-proxy"])
_texts = st.sampled_from(
    ["x", "a: b", "#", "yes", "1e3", "", "a\nb\n", "line\n\n", " lead", "é😀", "'", '"', "0x10", "- a"]
)
_limits = st.sampled_from(
    ["512Mi", "64Mi", "1Gi", "1.5G", "1e9", "536870912", "200M", "0.5Gi", "100000Ki", "1234567890m"]
)


def _optional(key: str, values: st.SearchStrategy[Any]) -> st.SearchStrategy[Manifest]:
    return st.one_of(st.just({}), st.builds(lambda value: {key: value}, values))


_entries = st.one_of(
    st.builds(lambda value: {"name": "A", "value": value}, _texts),
    st.just({"name": "HOST", "valueFrom": {"fieldRef": {"fieldPath": "status.hostIP"}}}),
)
_gomemlimits = st.one_of(
    st.builds(lambda value: {"name": "GOMEMLIMIT", "value": value}, st.sampled_from(["400MiB", "off", "10GiB", "1"])),
    st.just({"name": "GOMEMLIMIT", "valueFrom": {"resourceFieldRef": {"resource": "limits.memory"}}}),
)
_environments = st.one_of(
    st.none(), st.lists(_entries, max_size=2), st.lists(st.one_of(_entries, _gomemlimits), min_size=1, max_size=3)
)
_users: st.SearchStrategy[Manifest] = st.one_of(
    st.just({}),
    st.fixed_dictionaries({"runAsUser": st.sampled_from([0, 1000, 65532])}, optional={"runAsGroup": st.just(1000)}),
)
_contexts = st.builds(
    lambda user, rest: user | rest,
    _users,
    st.sampled_from([{}, {"allowPrivilegeEscalation": False, "capabilities": {"drop": ["ALL"]}}, {"privileged": True}]),
)


@st.composite
def containers(draw: DrawFn, name: str) -> Manifest:
    """One container."""
    made: Manifest = {"name": name, "image": draw(st.sampled_from(["web:1", "r.example.com/a/b@sha256:00", "x"]))}
    made |= draw(
        _optional("resources", st.one_of(st.just({}), st.builds(lambda size: {"limits": {"memory": size}}, _limits)))
    )
    made |= draw(_optional("env", _environments))
    made |= draw(_optional("securityContext", _contexts))
    made |= draw(_optional("args", st.lists(_texts, max_size=2)))
    return _shuffled(draw, made)


@st.composite
def pods(draw: DrawFn) -> Manifest:
    """A pod template."""
    names = draw(st.lists(_names, min_size=1, max_size=3, unique=True))
    spec: Manifest = {"containers": [draw(containers(name)) for name in names]}
    inits = st.one_of(st.none(), st.just([]), st.builds(lambda one: [one], containers("init")))
    spec |= draw(_optional("initContainers", inits))
    spec |= draw(_optional("volumes", st.sampled_from([None, [], [{"name": "data", "emptyDir": {}}]])))
    spec |= draw(_optional("shareProcessNamespace", st.sampled_from([True, True, None, False])))
    spec |= draw(_optional("hostPID", st.sampled_from([False, False, True])))
    spec |= draw(_optional("securityContext", _users))
    spec |= draw(
        _optional("nodeSelector", st.sampled_from([{"kubernetes.io/os": "linux"}, {"kubernetes.io/os": "windows"}]))
    )
    annotations = st.one_of(st.none(), st.just({}), st.builds(lambda text: {"example.com/note": text}, _texts))
    metadata = {"labels": {"app": "x"}} | draw(_optional("annotations", annotations))
    return _shuffled(draw, {"metadata": _shuffled(draw, metadata), "spec": _shuffled(draw, spec)})


@st.composite
def workloads(draw: DrawFn) -> Manifest:
    """An object of a kind that has pods."""
    kind = draw(st.sampled_from(sorted(WORKLOADS)))
    head = {"apiVersion": WORKLOADS[kind], "kind": kind, "metadata": {"name": "x"}}
    pod = draw(pods())
    selector = {"selector": {"matchLabels": {"app": "x"}}}
    if kind in {"Job", "CronJob"}:
        pod["spec"]["restartPolicy"] = "Never"
    if kind == "Pod":
        return head | {"metadata": {"name": "x"} | pod["metadata"], "spec": pod["spec"]}
    if kind == "PodTemplate":
        return head | {"template": pod}
    if kind == "CronJob":
        return head | {"spec": {"schedule": "* * * * *", "jobTemplate": {"spec": {"template": pod}}}}
    if kind == "ReplicationController":
        return head | {"spec": {"template": pod}}
    return head | {"spec": _shuffled(draw, ({} if kind == "Job" else selector) | {"template": pod})}


def config_maps() -> st.SearchStrategy[Manifest]:
    """Objects without pods."""
    return st.builds(
        lambda text: {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "c"}, "data": {"containers": text}},
        _texts,
    )


def documents() -> st.SearchStrategy[Manifest]:
    """What a file may have."""
    lists = st.builds(
        lambda items: {"apiVersion": "v1", "kind": "List", "items": items},
        st.lists(st.one_of(workloads(), config_maps()), min_size=1, max_size=2),
    )
    return st.one_of(workloads(), workloads(), config_maps(), lists)


def _shuffled(draw: DrawFn, value: Manifest) -> Manifest:
    return dict(draw(st.permutations(list(value.items()))))
