"""What in a pod counts on an app's first process being PID 1, which it no longer is once PIDs are shared. Pure.

PID 1 is then the pod's pause process: "kill -HUP 1" reaches that, and an init system refuses to start
(kubernetes.io/docs/tasks/configure-pod-container/share-process-namespace).
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping

from sidecar.inject.patch import look_up
from sidecar.inject.pods import listing

_COMMANDS = ("", "/livenessProbe/exec", "/readinessProbe/exec", "/startupProbe/exec")
_HOOKS = ("/lifecycle/postStart/exec", "/lifecycle/preStop/exec")
_ADDRESSES = re.compile(r"\bkill\b(?:(?!\bkill\b)[^;&|\n])*[ \t]1(\s|$|[;&|])|/proc/1(/|\b)")
_INIT_SYSTEM = re.compile(r"(.*/)?(init|systemd|s6-svscan|runit-init)")


def first_process_warnings(pod: Mapping[str, object]) -> Iterator[str]:
    """What to mind before PIDs are shared, container by container."""
    for container in listing(pod, "/spec/containers"):
        name = container["name"]
        for at in (*_COMMANDS, *_HOOKS):
            words = _words(container, f"{at}/command") + _words(container, f"{at}/args")
            if _ADDRESSES.search(" ".join(words)):
                where = at.strip("/").replace("/", ".") or "command"
                yield (
                    f"{name}: its {where} addresses PID 1, which won't be the app: with PID sharing name the process "
                    "(pkill), or keep the sidecar out."
                )
        first = (_words(container, "/command") or _words(container, "/args") or [""])[0]
        if _INIT_SYSTEM.fullmatch(first):
            yield f"{name}: it starts {first}, which may refuse to run as another process than PID 1: try it first."


def _words(container: Mapping[str, object], pointer: str) -> list[str]:
    value = look_up(container, pointer)
    return [str(word) for word in value] if isinstance(value, list) else []
