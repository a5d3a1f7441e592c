"""The sidecar's security context: the least that sees the app.

Where the app satisfies Pod Security "restricted", so does the sidecar. What is enough is tried row by row by
the tests of rights; see "Rights" in the README. Pure.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from sidecar.inject.gomemlimit import memory_limit_bytes
from sidecar.inject.model import Options
from sidecar.inject.patch import look_up
from sidecar.inject.pods import listing, mapping

# containerd's and CRI-O's defaults for root. Beside NET_RAW, "baseline" lets a container add each of them.
_DEFAULT_CAPABILITIES = {
    *("AUDIT_WRITE", "CHOWN", "DAC_OVERRIDE", "FOWNER", "FSETID", "KILL", "MKNOD", "NET_BIND_SERVICE", "NET_RAW"),
    *("SETFCAP", "SETGID", "SETPCAP", "SETUID", "SYS_CHROOT"),
}
_SEES_ALL = {"drop": ["ALL"], "add": ["SYS_PTRACE", "DAC_READ_SEARCH"]}
_SEES_ROOT = {"drop": ["ALL"], "add": ["SYS_PTRACE"]}
_DROPS_ALL = {"drop": ["ALL"]}
_PROFILES = ("RuntimeDefault", "Localhost")

# The proxies of service meshes, which run as users of their own and aren't what leaks.
_PROXIES = ("istio-proxy", "linkerd-proxy")
_DEFAULT_CONTAINER = "kubectl.kubernetes.io/default-container"


@dataclass(frozen=True, slots=True, kw_only=True)
class _User:
    container: Mapping[str, object]
    uid: int | None
    gid: int | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Choice:
    """A security context for the sidecar's container, and what to say of it."""

    context: dict[str, object]
    notes: tuple[str, ...] = ()
    warnings: tuple[str, ...] = ()


def choose_security(pod: Mapping[str, object], options: Options) -> Choice:
    """Choose by what the pod says of its app containers' users, or by what the options say instead."""
    mapping(pod, "/spec/securityContext")
    users = [_user_of(pod, container) for container in _apps(pod)]
    if options.run_as_user is not None or options.run_as_group is not None:
        return _told(pod, users, options)
    distinct = {(user.uid, user.gid) for user in users}
    named = {(uid, gid) for uid, gid in distinct if gid is not None}
    if len(distinct) > 1 and not (len(named) == 1 and len({uid for uid, _ in distinct}) == 1):
        return _several(pod, users, options)
    user = next((user for user in users if user.gid is not None), users[0])
    if user.uid is None:
        context = _context(pod, None, user.gid)
        return Choice(context=context, warnings=(_unknown_user(),))
    return _same(pod, users, user)


def is_restricted(pod: Mapping[str, object]) -> bool:
    """Whether the app's containers satisfy Pod Security "restricted" in what they say of users and privileges."""
    return all(_is_restricted(pod, container) for container in listing(pod, "/spec/containers"))


def _apps(pod: Mapping[str, object]) -> list[dict[str, object]]:
    """The containers that the sidecar is for."""
    containers = listing(pod, "/spec/containers")
    return [each for each in containers if each["name"] not in _PROXIES] or containers


def _is_restricted(pod: Mapping[str, object], container: Mapping[str, object]) -> bool:
    def setting(name: str) -> object:
        own = look_up(container, f"/securityContext/{name}")
        return own if own is not None else look_up(pod, f"/spec/securityContext/{name}")

    dropped = look_up(container, "/securityContext/capabilities/drop")
    return (
        setting("runAsNonRoot") is True
        and setting("runAsUser") != 0
        and setting("seccompProfile/type") in _PROFILES
        and look_up(container, "/securityContext/allowPrivilegeEscalation") is False
        and isinstance(dropped, list)
        and "ALL" in dropped
    )


def _user_of(pod: Mapping[str, object], container: Mapping[str, object]) -> _User:
    ids = []
    for name in ("runAsUser", "runAsGroup"):
        own = look_up(container, f"/securityContext/{name}")
        value = own if own is not None else look_up(pod, f"/spec/securityContext/{name}")
        ids.append(value if isinstance(value, int) and not isinstance(value, bool) else None)
    return _User(container=container, uid=ids[0], gid=ids[1])


def _told(pod: Mapping[str, object], users: list[_User], options: Options) -> Choice:
    uid = options.run_as_user if options.run_as_user is not None else users[0].uid
    gid = options.run_as_group if options.run_as_group is not None else users[0].gid
    if gid is None and options.run_as_user is not None:
        gid = uid  # as most images' own users have it
    capabilities = _capabilities(users) if uid == 0 else _DROPS_ALL
    note = f"The sidecar runs as {_called(uid, gid)}, as told."
    others = sorted({_called(user.uid, user.gid) for user in users if user.uid not in (None, uid)})
    warning = (
        f"The app runs as {', '.join(others)}, not as the sidecar was told to: its heap won't be read from memory."
    )
    return Choice(
        context=_context(pod, uid, gid, capabilities), notes=(note,), warnings=(warning,) if others and uid != 0 else ()
    )


def _same(pod: Mapping[str, object], users: list[_User], user: _User) -> Choice:
    """All app containers run as one user, which the manifest names."""
    warnings: tuple[str, ...] = ()
    groupless = [str(each.container["name"]) for each in users if each.gid is None]
    if groupless and user.uid != 0:
        warning = (
            f"The group of {', '.join(groupless)} isn't in the manifest, only its user {user.uid}: say runAsGroup in "
            "the pod's securityContext, or --run-as-group, or its heap is read by HTTP alone."
        )
        warnings = (warning,)
    gid = 0 if user.gid is None and user.uid == 0 else user.gid
    capabilities = _capabilities(users) if user.uid == 0 else _DROPS_ALL
    note = f"The sidecar runs as {_called(user.uid, gid)}, as the app does: the one right it needs."
    if capabilities is _SEES_ROOT:
        warnings += ("The app is root with capabilities beyond the usual, so the sidecar is root with SYS_PTRACE.",)
    elif user.uid == 0:
        note = "The sidecar runs as root with the app's capabilities, as the app does: with less it would see nothing."
    return Choice(context=_context(pod, user.uid, gid, capabilities), notes=(note,), warnings=warnings)


def _several(pod: Mapping[str, object], users: list[_User], options: Options) -> Choice:
    called = ", ".join(f"{user.container['name']} {_called(user.uid, user.gid)}" for user in users)
    may_add = not options.stays_baseline and not is_restricted(pod)
    if may_add and all(user.uid is not None for user in users):
        warning = (
            f"The app's containers run as different users ({called}): the sidecar is root with SYS_PTRACE and "
            "DAC_READ_SEARCH, the least that sees them all. Pod Security baseline refuses that; --run-as-user settles "
            "for one of them."
        )
        return Choice(context=_context(pod, 0, 0, _SEES_ALL), warnings=(warning,))
    default = mapping(pod, "/metadata/annotations").get(_DEFAULT_CONTAINER)
    chosen = max(
        users, key=lambda user: (user.container["name"] == default, memory_limit_bytes(user.container, 0) or 0)
    )
    user = _called(chosen.uid, chosen.gid)
    warning = (
        f"The app's containers run as different users ({called}): the sidecar runs as {user}, and of the "
        "others it sees the memory in part and only what they serve by HTTP; --run-as-user chooses another."
    )
    capabilities = _capabilities([chosen]) if chosen.uid == 0 else _DROPS_ALL
    return Choice(
        context=_context(pod, chosen.uid, chosen.gid, capabilities),
        warnings=(warning, *([_unknown_user()] if chosen.uid is None else [])),
    )


def _unknown_user() -> str:
    return (
        "The manifest doesn't say which user the app runs as: the sidecar keeps its image's, 65532:65532, which suits "
        "apps on distroless nonroot images; else say runAsUser and runAsGroup in the pod's securityContext, or "
        "--run-as-user and --run-as-group."
    )


def _capabilities(users: list[_User]) -> dict[str, list[str]]:
    """Those that root needs to see apps that are root: no less than they have (kernel/ptrace.c)."""
    added, dropped = set[str](), list[set[str]]()
    for user in users:
        context = mapping(user.container, "/securityContext")
        added |= {str(name).removeprefix("CAP_") for name in _names(context, "add")}
        dropped.append({str(name).removeprefix("CAP_") for name in _names(context, "drop")})
        if context.get("privileged") is True:
            return _SEES_ROOT
    if not added <= _DEFAULT_CAPABILITIES:
        return _SEES_ROOT
    kept = set.intersection(*dropped) if dropped else set()
    found = {"drop": sorted(kept), "add": sorted(added)}
    return {name: values for name, values in found.items() if values}


def _names(context: Mapping[str, object], which: str) -> list[object]:
    names = look_up(context, f"/capabilities/{which}")
    return names if isinstance(names, list) else []


def _context(
    pod: Mapping[str, object], uid: int | None, gid: int | None, capabilities: Mapping[str, list[str]] = _DROPS_ALL
) -> dict[str, object]:
    """The fields that the sidecar needs and doesn't inherit from the pod."""
    inherited = mapping(pod, "/spec/securityContext")
    wanted: dict[str, object] = {"runAsUser": uid, "runAsGroup": gid, "runAsNonRoot": uid != 0}
    context = {name: value for name, value in wanted.items() if value is not None and inherited.get(name) != value}
    if uid == 0 and "runAsNonRoot" in context and inherited.get("runAsNonRoot") is None:
        del context["runAsNonRoot"]
    if look_up(inherited, "/seccompProfile/type") not in _PROFILES:
        context["seccompProfile"] = {"type": "RuntimeDefault"}
    context |= {"allowPrivilegeEscalation": False, "readOnlyRootFilesystem": True}
    if capabilities:
        context["capabilities"] = {name: list(values) for name, values in capabilities.items()}
    return context


def _called(uid: int | None, gid: int | None) -> str:
    user = "its image's user" if uid is None else str(uid)
    return user if gid is None else f"{user}:{gid}"
