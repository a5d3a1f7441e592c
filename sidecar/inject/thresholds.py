"""The percentages of the memory limit that go with GOMEMLIMIT: of the dump, and of the guard's brake. Pure."""

from __future__ import annotations

from dataclasses import dataclass

from sidecar.core.guard import GuardPolicy
from sidecar.inject.gomemlimit import VARIABLE
from sidecar.inject.model import Options

DEFAULT_CRITICAL_PERCENT = 80.0
"""What the watch uses if nobody says otherwise; see ``sidecar.options``."""

_ROOM_PERCENT = 5.0  # least distance from GOMEMLIMIT to the threshold
_HIGHEST_PERCENT = 99.0
_BRAKING = ("brake", "auto")


@dataclass(frozen=True, slots=True, kw_only=True)
class Thresholds:
    """What to set, None where the default of the watch will do, what to say of it and what to mind."""

    critical_percent: float | None = None
    brake_percent: float | None = None
    notes: tuple[str, ...] = ()
    warnings: tuple[str, ...] = ()


def choose_critical(highest_percent: float | None) -> float | None:
    """The threshold for a GOMEMLIMIT of so many percent: midway from it to the limit. None where the default will do.

    A healthy program hovers just below its GOMEMLIMIT; a threshold below that fires in peace. A late one costs no
    evidence, as the watch keeps the newest snapshot in hand from half of the limit on.

    >>> choose_critical(90.0), choose_critical(50.0), choose_critical(None)
    (95.0, None, None)
    """
    if highest_percent is None or highest_percent + _ROOM_PERCENT <= DEFAULT_CRITICAL_PERCENT:
        return None
    return min(float(round((highest_percent + 100) / 2)), _HIGHEST_PERCENT)


def choose_thresholds(options: Options, highest_percent: float | None) -> Thresholds:
    """The thresholds for the highest GOMEMLIMIT of a pod, None if it has none."""
    given = options.critical_percent
    chosen = choose_critical(highest_percent) if given is None else given
    notes: list[str] = []
    warnings: list[str] = []
    if given is None and chosen is not None:
        notes.append(
            f"CRITICAL={chosen:g}: a healthy program hovers just below its {VARIABLE}, {highest_percent:.0f} % of the "
            "limit, so it dumps above that; the newest snapshot is kept in hand from half of the limit on."
        )
    elif given is not None and highest_percent is not None and given <= highest_percent:
        warnings.append(
            f"CRITICAL {given:g} is not above {VARIABLE}, {highest_percent:.0f} % of the limit: it will dump in peace. "
            f"Leave --critical out, or say {choose_critical(highest_percent) or DEFAULT_CRITICAL_PERCENT:g}."
        )
    elif given is not None:
        notes.append(f"CRITICAL={given:g}, as told.")
    brake = _choose_brake(options, chosen)
    if brake is not None:
        notes.append(f"GUARD_BRAKE={brake:g}: the brake is for what the dump at CRITICAL was too slow for.")
    return Thresholds(critical_percent=chosen, brake_percent=brake, notes=tuple(notes), warnings=tuple(warnings))


def _choose_brake(options: Options, critical_percent: float | None) -> float | None:
    """The brake's level, midway from the threshold to the limit where its default isn't above the threshold."""
    variables = dict(options.env)
    if variables.get("GUARD") not in _BRAKING or variables.get("GUARD_BRAKE") or critical_percent is None:
        return None
    if critical_percent < GuardPolicy().brake_ratio * 100:
        return None
    return min((critical_percent + 100) / 2, _HIGHEST_PERCENT)
