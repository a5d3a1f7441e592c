"""What an injection is made of. Pure values; the admission webhook and the command line share them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from sidecar import __version__
from sidecar.errors import OomHeapDumperError

SIDECAR = "oom-heap-dumper"
"""The sidecar's container, and the first part of every other name that is ours."""

PREFIX = "oom-heap-dumper/"
"""What the keys of our annotations and labels begin with."""

STATE = f"{PREFIX}injected"
"""The annotation of a pod template that says what an injection added; see ``sidecar.inject.state``."""

SWITCH = f"{PREFIX}inject"
"""The annotation or label whose value ``disabled`` keeps us out."""


class PodError(OomHeapDumperError):
    """A pod's spec isn't one (duplicate container names, a list that is none). ``pointer`` is where, from the pod."""

    def __init__(self, message: str, pointer: str) -> None:
        super().__init__(message)
        self.pointer = pointer


class ManifestError(OomHeapDumperError):
    """A text can't be read or edited as manifests. ``line`` counts from 1; the message has the remedy."""

    def __init__(self, message: str, line: int) -> None:
        super().__init__(message)
        self.line = line


@dataclass(frozen=True, slots=True, kw_only=True)
class Operation:
    """One operation of a JSON patch (RFC 6902).

    ``path`` is a JSON pointer (RFC 6901) from the root of the document that the pod was found in. ``spelling`` is for
    YAML text only: how an empty value was written before, with what is between its key's colon and it.
    """

    op: Literal["add", "replace", "remove"]
    path: str
    value: object = None
    spelling: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """What is to be done to one pod.

    ``notes`` say what is done and why, ``warnings`` what to mind: one plain sentence each. With a ``refusal``, the
    reason why nothing is done, there are no operations.
    """

    operations: tuple[Operation, ...] = ()
    notes: tuple[str, ...] = ()
    warnings: tuple[str, ...] = ()
    refusal: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Options:
    """How to inject; annotations win over these, see ``sidecar.inject.annotations``.

    ``critical_percent`` None leaves the choice to the plan, ``gomemlimit_percent`` None sets no GOMEMLIMIT. With
    ``stays_baseline`` nothing is added that Pod Security "baseline" refuses, though less is seen of the app then.
    """

    image: str = f"oom-heap-dumper:{__version__}"
    bucket: str | None = None
    prefix: str | None = None
    cluster: str | None = None
    critical_percent: float | None = None
    native_sidecar: bool = True
    gomemlimit_percent: float | None = 90.0
    run_as_user: int | None = None
    run_as_group: int | None = None
    env: tuple[tuple[str, str], ...] = ()
    stays_baseline: bool = False
