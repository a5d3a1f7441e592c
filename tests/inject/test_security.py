from __future__ import annotations

from typing import Any

import pytest

from sidecar.inject.model import Options
from sidecar.inject.security import choose_security
from tests.k8s.test_manifests import assert_restricted

Fields = dict[str, Any]

CONFINED = {"allowPrivilegeEscalation": False, "capabilities": {"drop": ["ALL"]}}
RESTRICTED = {**CONFINED, "runAsNonRoot": True, "seccompProfile": {"type": "RuntimeDefault"}}
SEES_ALL = {"drop": ["ALL"], "add": ["SYS_PTRACE", "DAC_READ_SEARCH"]}
SEES_ROOT = {"drop": ["ALL"], "add": ["SYS_PTRACE"]}


def pod(*contexts: Fields, pod_context: Fields | None = None) -> Fields:
    """A pod of containers with these security contexts, the later ones with the larger limits."""
    containers = [
        {"name": f"c{index}", "securityContext": context, "resources": {"limits": {"memory": f"{index + 1}Gi"}}}
        for index, context in enumerate(contexts)
    ]
    return {"spec": {"containers": containers} | ({"securityContext": pod_context} if pod_context else {})}


def chosen(described: Fields, **options: int) -> Fields:
    """The sidecar's security context as it is in effect, with what the pod says."""
    own = choose_security(described, Options(**options)).context  # type: ignore[arg-type]  # only IDs are given
    inherited: Fields = described["spec"].get("securityContext", {})
    return inherited | own


def test_the_app_s_user_is_copied_from_its_container() -> None:
    """Where the container says it, the sidecar's own context must."""
    context = choose_security(pod({"runAsUser": 1000, "runAsGroup": 2000}), Options()).context
    assert (context["runAsUser"], context["runAsGroup"]) == (1000, 2000)
    assert context["capabilities"] == {"drop": ["ALL"]}


def test_the_pod_s_user_is_inherited() -> None:
    """Where the pod says it for all, there is nothing to add."""
    context = choose_security(pod({}, pod_context={"runAsUser": 1000, "runAsGroup": 2000}), Options()).context
    assert not {"runAsUser", "runAsGroup"} & set(context)


def test_a_container_s_user_wins_over_the_pod_s() -> None:
    """As in Kubernetes."""
    context = chosen(pod({"runAsUser": 7}, pod_context={"runAsUser": 1000, "runAsGroup": 2000}))
    assert (context["runAsUser"], context["runAsGroup"]) == (7, 2000)


def test_an_unknown_user_is_said_aloud() -> None:
    """The image's own user isn't in the manifest: the sidecar keeps its image's, and the report says how to tell."""
    choice = choose_security(pod({}), Options())
    assert "runAsUser" not in choice.context
    assert "65532:65532" in choice.warnings[0]
    assert "--run-as-user" in choice.warnings[0]


def test_a_group_that_is_not_said_is_warned_of() -> None:
    """UID alone isn't enough for the kernel, and the group comes from the app's image."""
    choice = choose_security(pod({"runAsUser": 1000}), Options())
    assert "--run-as-group" in choice.warnings[0]


@pytest.mark.parametrize(
    ("app", "capabilities"),
    [
        ({"runAsUser": 0}, None),
        ({"runAsUser": 0, "capabilities": {"drop": ["ALL"]}}, {"drop": ["ALL"]}),
        (
            {"runAsUser": 0, "capabilities": {"drop": ["ALL"], "add": ["NET_BIND_SERVICE"]}},
            {"drop": ["ALL"], "add": ["NET_BIND_SERVICE"]},
        ),
        ({"runAsUser": 0, "capabilities": {"add": ["SYS_ADMIN"]}}, SEES_ROOT),
        ({"runAsUser": 0, "privileged": True}, SEES_ROOT),
    ],
)
def test_beside_root_the_sidecar_has_no_less_capabilities(app: Fields, capabilities: Fields | None) -> None:
    """The kernel shows nothing of a process with a capability that we lack; SYS_PTRACE stands for them all."""
    context = chosen(pod(app, pod_context={"runAsNonRoot": True}))
    assert (context["runAsUser"], context["runAsGroup"], context["runAsNonRoot"]) == (0, 0, False)
    assert context.get("capabilities") == capabilities
    assert context["allowPrivilegeEscalation"] is False


def test_different_users_need_ptrace() -> None:
    """The least that sees them all, said aloud, with what it costs."""
    choice = choose_security(pod({"runAsUser": 1}, {"runAsUser": 2}), Options())
    assert choice.context["capabilities"] == SEES_ALL
    assert "baseline refuses" in choice.warnings[0]


def test_different_users_of_a_restricted_pod_do_not_get_root() -> None:
    """The namespace would refuse the pod: the sidecar is the user of the container with most memory."""
    described = pod(RESTRICTED | {"runAsUser": 1, "runAsGroup": 1}, RESTRICTED | {"runAsUser": 2, "runAsGroup": 2})
    choice = choose_security(described, Options())
    assert (choice.context["runAsUser"], choice.context["runAsGroup"]) == (2, 2)
    assert "in part" in choice.warnings[0]


def test_the_proxy_of_a_mesh_is_not_the_app() -> None:
    """Its user is its own, and its limit may be the larger one."""
    described = pod({"runAsUser": 1000, "runAsGroup": 1000}, {"runAsUser": 1337, "runAsGroup": 1337})
    described["spec"]["containers"][1]["name"] = "istio-proxy"
    choice = choose_security(described, Options())
    assert (choice.context["runAsUser"], choice.context["runAsGroup"]) == (1000, 1000)
    assert choice.context["capabilities"] == {"drop": ["ALL"]}
    assert not choice.warnings


def test_of_several_users_the_default_container_s_is_chosen() -> None:
    """The annotation that kubectl reads says which container is meant; without it the largest limit does."""
    described = pod({**RESTRICTED, "runAsUser": 1}, {**RESTRICTED, "runAsUser": 2})
    assert chosen(described)["runAsUser"] == 2
    described["metadata"] = {"annotations": {"kubectl.kubernetes.io/default-container": "c0"}}
    assert chosen(described)["runAsUser"] == 1


def test_a_group_that_one_container_tells_is_no_reason_for_root() -> None:
    """The user is one and the same: the sidecar runs as that, and who is seen in part is said."""
    choice = choose_security(pod({"runAsUser": 1000, "runAsGroup": 1000}, {"runAsUser": 1000}), Options())
    assert (choice.context["runAsUser"], choice.context["runAsGroup"]) == (1000, 1000)
    (warning,) = choice.warnings
    assert "c1" in warning
    assert "c0" not in warning


def test_who_is_told_a_user_asks_nobody() -> None:
    """--run-as-user wins, and the group is taken to be of the same number unless told."""
    assert chosen(pod({"runAsUser": 1}), run_as_user=5)["runAsGroup"] == 5
    context = chosen(pod({"runAsUser": 1}, {"runAsUser": 2}), run_as_user=5, run_as_group=6)
    assert (context["runAsUser"], context["runAsGroup"], context["capabilities"]) == (5, 6, {"drop": ["ALL"]})


@pytest.mark.parametrize(
    "described",
    [
        pod(RESTRICTED),
        pod(RESTRICTED | {"runAsUser": 1000}),
        pod(CONFINED, pod_context={"runAsNonRoot": True, "seccompProfile": {"type": "RuntimeDefault"}}),
        pod(RESTRICTED | {"runAsUser": 1}, RESTRICTED | {"runAsUser": 2}),
        pod(RESTRICTED | {"runAsUser": 1}, RESTRICTED),
        pod(CONFINED, pod_context={"runAsNonRoot": True, "runAsUser": 5, "seccompProfile": {"type": "Localhost"}}),
    ],
)
def test_beside_a_restricted_app_the_sidecar_is_restricted(described: Fields) -> None:
    """Pod Security refuses the whole pod for one container."""
    assert_restricted(described["spec"])
    described["spec"]["containers"].append(
        {"name": "oom-heap-dumper", "securityContext": choose_security(described, Options()).context}
    )
    assert_restricted(described["spec"])
