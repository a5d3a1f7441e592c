"""How often a container's cgroup is asked for that wasn't shown to us. Pure: the clock is an argument."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass, field
from functools import partial

from sidecar.core.backoff import Retry
from sidecar.core.model import Container

_retry = partial(Retry, first_s=1.0, last_s=60.0)


@dataclass(slots=True)
class _Refused:
    by: object
    retry: Retry = field(default_factory=_retry)


class CgroupSearch:
    """Whose cgroups were refused: asked for less and less often, and at once when another refusal is to be expected."""

    def __init__(self) -> None:
        self._refused: dict[str, _Refused] = {}

    def is_due(self, container: Container, now_s: float) -> bool:
        """Whether it is time to ask: also when its main process is another or does other things, or a user is new."""
        refused = self._refused.get(container.key)
        return refused is None or refused.retry.is_due(now_s) or refused.by != _appearance(container)

    def note_refusal(self, container: Container, now_s: float) -> None:
        """It was asked for in vain."""
        refused, by = self._refused.get(container.key), _appearance(container)
        if refused is None or refused.by != by:
            refused = self._refused[container.key] = _Refused(by=by)
        refused.retry.note_failure(now_s)

    def keep(self, keys: Collection[str]) -> None:
        """Forget the containers that aren't among these any more."""
        for key in self._refused.keys() - set(keys):
            del self._refused[key]


def _appearance(container: Container) -> object:
    """What our rights may hang on: a runtime that sets a container up changes the user and the program of its main."""
    users = frozenset((process.uid, process.gid) for process in container.processes)
    return container.main, container.main.name, users
