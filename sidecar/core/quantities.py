"""Parsing and printing of durations, byte quantities and percentages. Pure."""

from __future__ import annotations

import re

_DURATION_UNITS_S = {"ns": 1e-9, "us": 1e-6, "µs": 1e-6, "ms": 1e-3, "s": 1.0, "m": 60.0, "h": 3600.0}
_DURATION_PART = re.compile(r"(\d+(?:\.\d+)?)(ns|us|µs|ms|s|m|h)", re.ASCII)
_BARE_NUMBER = re.compile(r"\d+(?:\.\d+)?", re.ASCII)

# apimachinery/pkg/api/resource: a signed number with a suffix or an exponent, at most what an int64 holds.
_QUANTITY = re.compile(r"\+?(\d+\.?\d*|\.\d+)(?:([numkMGTPE]|[KMGTPE]i)|[eE]([+-]?\d{1,2}))?", re.ASCII)
_POWERS_OF_TEN = {"n": -9, "u": -6, "m": -3, "k": 3, "M": 6, "G": 9, "T": 12, "P": 15, "E": 18}
_POWERS_OF_TWO = {"Ki": 10, "Mi": 20, "Gi": 30, "Ti": 40, "Pi": 50, "Ei": 60}
_MOST_BYTES = 2**63 - 1
_LONGEST_QUANTITY = 1000  # characters; int() has a limit of its own, and none of its errors is made for people


def parse_duration_s(text: str) -> float:
    """Read a Go-style duration as seconds (the grammar of Go's ``time.ParseDuration``, without a sign).

    >>> parse_duration_s("100ms"), parse_duration_s("1m30s")
    (0.1, 90.0)

    Raises ValueError with a message made for people.
    """
    stripped = text.strip()
    if _BARE_NUMBER.fullmatch(stripped):
        raise ValueError(f"{text!r} has no unit: write {stripped}s or {stripped}ms")
    position, total_s = 0, 0.0
    while position < len(stripped):
        part = _DURATION_PART.match(stripped, position)
        if part is None:
            break
        total_s += float(part[1]) * _DURATION_UNITS_S[part[2]]
        position = part.end()
    if position != len(stripped) or not stripped:
        raise ValueError(f"{text!r} is not a duration: write one like 100ms, 30s or 1m30s")
    return total_s


def parse_bytes(text: str) -> int:
    """Read a size that a person set, written as `quantity_bytes` has it; blanks around it don't matter.

    Raises ValueError with a message made for people.
    """
    return quantity_bytes(text.strip())


def quantity_bytes(value: object) -> int:
    """A Kubernetes quantity, as text or a number, as bytes; parts of a byte are rounded up, as Kubernetes does.

    As there, what is beyond an int64 is taken for the most that it holds. A sign of less than zero is refused.

    >>> quantity_bytes("512Mi"), quantity_bytes("1.5G"), quantity_bytes("1e9"), quantity_bytes("1500m")
    (536870912, 1500000000, 1000000000, 2)

    Raises ValueError for what is none.
    """
    count, power_of_ten = _digits(value)
    factor: int = 10 ** abs(power_of_ten)
    return min(count * factor if power_of_ten >= 0 else -(-count // factor), _MOST_BYTES)


def is_same_quantity(one: object, other: object) -> bool:
    """Whether two quantities, of whatever resource, are the same, however they are written.

    >>> is_same_quantity("1", "1000m"), is_same_quantity("1Gi", 1024**3), is_same_quantity("100m", "0.2")
    (True, True, False)

    Raises ValueError for what is none.
    """
    (count, power_of_ten), (other_count, other_power_of_ten) = _digits(one), _digits(other)
    factor: int = 10 ** abs(power_of_ten - other_power_of_ten)
    return count * factor == other_count if power_of_ten > other_power_of_ten else count == other_count * factor


def _digits(value: object) -> tuple[int, int]:
    """A quantity as a whole number and the power of ten that it is to be multiplied by.

    In whole numbers, as the resident process has no use for the modules of fractions.
    """
    text = str(value)
    match = _QUANTITY.fullmatch(text) if len(text) <= _LONGEST_QUANTITY else None
    if match is None or isinstance(value, bool):
        raise ValueError(f"must be a size like 512Mi or 1Gi (got {value!r:.60})")
    number, suffix, exponent = match.groups()
    whole, _, decimals = number.partition(".")
    power_of_ten = _POWERS_OF_TEN.get(suffix, int(exponent or 0)) - len(decimals)
    return int(whole + decimals) << _POWERS_OF_TWO.get(suffix, 0), power_of_ten


def parse_percent(text: str) -> float:
    """Read a percentage of 1 to 100, with or without its sign.

    >>> parse_percent("80"), parse_percent("92.5%")
    (80.0, 92.5)

    Raises ValueError with a message made for people.
    """
    stripped = text.strip().removesuffix("%")
    if not _BARE_NUMBER.fullmatch(stripped):
        raise ValueError(f"must be a percentage of 1 to 100 (got {text!r})")
    value = float(stripped)
    if not 1 <= value <= 100:
        raise ValueError(f"must be 1 to 100 percent (got {text!r})")
    return value


def format_bytes(count: int) -> str:
    """Print bytes for people with a binary unit.

    >>> format_bytes(536870912), format_bytes(1536), format_bytes(12)
    ('512.0MiB', '1.5KiB', '12B')
    """
    value = float(count)
    for unit in ("B", "KiB", "MiB", "GiB"):
        if abs(value) < 1024:
            return f"{count}B" if unit == "B" else f"{value:.1f}{unit}"
        value /= 1024
    return f"{value:.1f}TiB"


def format_duration(seconds: float) -> str:
    """Print seconds for people, in the grammar that `parse_duration_s` reads.

    >>> format_duration(0.1), format_duration(30), format_duration(90), format_duration(5400)
    ('100ms', '30s', '1m30s', '1h30m')
    """
    if seconds < 1:
        return f"{seconds * 1000:g}ms"
    whole, parts = int(seconds), ""
    if whole != seconds:
        return f"{seconds:g}s"
    for unit, size in (("h", 3600), ("m", 60), ("s", 1)):
        if whole >= size:
            parts += f"{whole // size}{unit}"
            whole %= size
    return parts
