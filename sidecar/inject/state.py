"""What an injection remembers of itself, in an annotation of the pod template. Pure.

Everything named ``oom-heap-dumper...`` tells by its name whose it is. The rest is noted here, so that a removal takes
back that and no more. Pointers are from the pod; in ``/spec/containers/NAME/env`` a name stands for an index, as
containers may be added and moved later.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field

from sidecar import __version__
from sidecar.inject.model import PodError
from sidecar.inject.patch import join

_POINTER = join("metadata", "annotations")


@dataclass(frozen=True, slots=True, kw_only=True)
class State:
    """What was added beyond what bears our name, and by which version of this program.

    ``created`` are parents (and ``shareProcessNamespace``) that weren't there or were empty, ``empties`` how the latter
    were written (``""``, ``" null"``, ``" []"``), ``gomemlimit`` what the containers that had none got, by name.
    """

    version: str = __version__
    created: tuple[str, ...] = ()
    empties: Mapping[str, str] = field(default_factory=dict)
    gomemlimit: Mapping[str, str] = field(default_factory=dict)


def format_state(state: State) -> str:
    """The annotation's text: compact JSON.

    >>> format_state(State(version="1", created=("/spec/volumes",)))
    '{"version":"1","created":["/spec/volumes"]}'
    """
    fields = {
        "version": state.version,
        "created": list(state.created),
        "empties": dict(state.empties),
        "gomemlimit": dict(state.gomemlimit),
    }
    return json.dumps({name: value for name, value in fields.items() if value}, separators=(",", ":"))


def parse_state(text: object) -> State:
    """Read the annotation. Raises PodError for one that no injection wrote."""
    try:
        fields = json.loads(text if isinstance(text, str) else "")
        return State(
            version=str(fields["version"]),
            created=_texts(fields.get("created", [])),
            empties=_named(fields.get("empties", {})),
            gomemlimit=_named(fields.get("gomemlimit", {})),
        )
    except (ValueError, KeyError, TypeError, AttributeError):
        raise PodError(
            "the annotation oom-heap-dumper/injected isn't as inject wrote it: take the sidecar out by hand, with its "
            "annotation, and inject again",
            _POINTER,
        ) from None


def _named(values: Mapping[str, object]) -> dict[str, str]:
    return {str(key): str(value) for key, value in values.items()}


def _texts(values: object) -> tuple[str, ...]:
    if not isinstance(values, list) or not all(isinstance(value, str) for value in values):
        raise TypeError
    return tuple(values)
