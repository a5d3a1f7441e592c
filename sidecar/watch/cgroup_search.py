"""How often a container's cgroup is asked for that wasn't shown to us. Pure: the clock is an argument."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass

from sidecar.core.model import Container

_FIRST_DELAY_S = 1.0
_LAST_DELAY_S = 60.0


@dataclass(slots=True)
class _Refused:
    by: object
    next_s: float
    delay_s: float


class CgroupSearch:
    """Whose cgroups were refused: asked for less and less often, and at once when another refusal is to be expected."""

    def __init__(self) -> None:
        self._refused: dict[str, _Refused] = {}

    def is_due(self, container: Container, now_s: float) -> bool:
        """Whether it is time to ask: also when its main process is another or does other things, or a user is new."""
        refused = self._refused.get(container.key)
        return refused is None or now_s >= refused.next_s or refused.by != _appearance(container)

    def note_refusal(self, container: Container, now_s: float) -> None:
        """It was asked for in vain."""
        before, by = self._refused.get(container.key), _appearance(container)
        delay_s = _FIRST_DELAY_S
        if before is not None and before.by == by:
            delay_s = min(_LAST_DELAY_S, 2 * before.delay_s)
        self._refused[container.key] = _Refused(by=by, next_s=now_s + delay_s, delay_s=delay_s)

    def keep(self, keys: Collection[str]) -> None:
        """Forget the containers that aren't among these any more."""
        for key in self._refused.keys() - set(keys):
            del self._refused[key]


def _appearance(container: Container) -> object:
    """What our rights may hang on: a runtime that sets a container up changes the user and the program of its main."""
    users = frozenset((process.uid, process.gid) for process in container.processes)
    return container.main, container.main.name, users
