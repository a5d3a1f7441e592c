"""GOMEMLIMIT for the app's containers. Pure.

Go's runtime doesn't know the container's limit: it lets the heap grow to twice what is live (GOGC=100) and is killed
with garbage in hand. GOMEMLIMIT tells it; Kubernetes can only express the whole limit (``resourceFieldRef``), which
leaves no room for what the runtime doesn't count.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from fractions import Fraction

from sidecar.core.quantities import quantity_bytes
from sidecar.inject.model import PodError
from sidecar.inject.patch import join, look_up
from sidecar.inject.pods import listing

VARIABLE = "GOMEMLIMIT"

_USUAL_PERCENT = 90.0  # taken for a GOMEMLIMIT whose value isn't in the manifest
_LEAST_LIMIT_BYTES = 4 << 20
_HIGHEST_LIMIT_BYTES = 1 << 60  # beyond that Go couldn't read it

# runtime/string.go, parseByteCount.
_GO_SIZE = re.compile(r"(\d+)(B|KiB|MiB|GiB|TiB)?", re.ASCII)
_GO_UNITS = {"B": 1, "KiB": 2**10, "MiB": 2**20, "GiB": 2**30, "TiB": 2**40}


@dataclass(frozen=True, slots=True, kw_only=True)
class Addition:
    """A GOMEMLIMIT to set in the container at ``index``."""

    index: int
    container: str
    value: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Cure:
    """What to set and what to say. ``highest_percent`` is the highest GOMEMLIMIT of all below its limit, or None."""

    additions: tuple[Addition, ...]
    notes: tuple[str, ...]
    warnings: tuple[str, ...]
    highest_percent: float | None


def go_size(count_bytes: int) -> str:
    """Bytes as GOMEMLIMIT takes them: rounded down to a unit where that loses less than a hundredth.

    >>> go_size(483183820), go_size(60397977), go_size(1 << 30), go_size(50)
    ('460MiB', '58982KiB', '1024MiB', '50B')
    """
    for unit in ("MiB", "KiB"):
        if count_bytes >= 100 * _GO_UNITS[unit] or count_bytes % _GO_UNITS[unit] == 0 < count_bytes:
            return f"{count_bytes // _GO_UNITS[unit]}{unit}"
    return f"{count_bytes}B"


def plan_gomemlimit(pod: Mapping[str, object], percent: float | None) -> Cure:
    """Decide for each app container whether it gets a GOMEMLIMIT of so many percent of its limit; None for nowhere.

    Raises PodError for a memory limit that is none.
    """
    additions: list[Addition] = []
    notes: list[str] = []
    warnings: list[str] = []
    percents: list[float] = []
    for index, container in enumerate(listing(pod, "/spec/containers")):
        name = str(container["name"])
        limit_bytes = memory_limit_bytes(container, index)
        present = [each for each in listing(container, "/env") if each.get("name") == VARIABLE]
        if present:
            found, said = _found(name, present[-1], limit_bytes)
            notes.append(said)
            warnings += [f"{name}: {each}" for each in _minded(present[-1], found)]
            percents += [found] if found is not None and found < 100 else []
        elif limit_bytes is None:
            warnings.append(
                f"{name}: it has no memory limit, so nothing will fire for it: set resources.limits.memory."
            )
        elif percent is not None and not _LEAST_LIMIT_BYTES <= limit_bytes <= _HIGHEST_LIMIT_BYTES:
            limit = look_up(container, "/resources/limits/memory")
            warnings.append(f"{name}: a memory limit of {limit} is for no Go program: is its unit right?")
        elif percent is not None:
            value = go_size(int(limit_bytes * Fraction(percent) / 100))
            additions.append(Addition(index=index, container=name, value=value))
            limit = look_up(container, "/resources/limits/memory")
            notes.append(f"{name}: {VARIABLE}={value}, {percent:g} % of its memory limit of {limit}.")
            percents += [percent] if percent < 100 else []
            if look_up(container, "/envFrom"):
                warnings.append(f"{name}: a {VARIABLE} that comes by envFrom is overridden; --gomemlimit off keeps it.")
    return Cure(
        additions=tuple(additions),
        notes=tuple(notes),
        warnings=tuple(warnings),
        highest_percent=max(percents, default=None),
    )


def memory_limit_bytes(container: Mapping[str, object], index: int) -> int | None:
    """A container's memory limit; None without one, or with 0, which is none. Raises PodError for a wrong one."""
    limit = look_up(container, "/resources/limits/memory")
    if limit is None:
        return None
    try:
        return quantity_bytes(limit) or None
    except ValueError as error:
        where = join("spec", "containers", index, "resources", "limits", "memory")
        raise PodError(f"{container['name']}: the memory limit {error}", where) from None


def _minded(entry: Mapping[str, object], found_percent: float | None) -> list[str]:
    """What is wrong with a GOMEMLIMIT of the manifest's own."""
    if found_percent is not None and found_percent >= 100:
        return [f"{VARIABLE} isn't below the memory limit, so it protects from nothing."]
    if "valueFrom" in entry:
        divisor = look_up(entry, "/valueFrom/resourceFieldRef/divisor")
        if _is_one(divisor):
            return []
        return [f"{VARIABLE} comes with divisor {divisor}, and Go takes the number as bytes: leave the divisor out."]
    text = str(entry.get("value") or "")
    if text in {"", "off"}:
        return [f"{VARIABLE} is off, so it protects from nothing."]
    if _GO_SIZE.fullmatch(text) or "$(" in text:
        return []
    return [f"Go doesn't take {VARIABLE}={text}, and the program won't start: sizes are written like 512MiB."]


def _found(name: str, entry: Mapping[str, object], limit_bytes: int | None) -> tuple[float | None, str]:
    """The percentage that a GOMEMLIMIT of the manifest's own is (None: can't be told), and what to say of it."""
    if "valueFrom" in entry:
        field = look_up(entry, "/valueFrom/resourceFieldRef")
        is_whole_limit = (
            isinstance(field, dict)
            and field.get("resource") == "limits.memory"
            and field.get("containerName") in (None, "", name)
            and _is_one(field.get("divisor"))
        )
        percent = 100.0 if is_whole_limit else None if field is not None else _USUAL_PERCENT
        return percent, f"{name}: its {VARIABLE} comes by valueFrom and stays as it is."
    said = f"{name}: it has a {VARIABLE} of its own ({entry.get('value')}), which stays as it is."
    match = _GO_SIZE.fullmatch(str(entry.get("value")))
    if match is None or limit_bytes is None:
        return None, said
    return 100.0 * int(match[1]) * _GO_UNITS[match[2] or "B"] / limit_bytes, said


def _is_one(divisor: object) -> bool:
    """Whether a divisor leaves bytes as they are: the API server writes one that isn't given as 0."""
    return divisor is None or str(divisor) in {"", "0", "1"}
