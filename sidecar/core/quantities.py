"""Parsing and printing of durations, byte quantities and percentages. Pure."""

from __future__ import annotations

import re

_DURATION_UNITS_S = {"ns": 1e-9, "us": 1e-6, "µs": 1e-6, "ms": 1e-3, "s": 1.0, "m": 60.0, "h": 3600.0}
_DURATION_PART = re.compile(r"(\d+(?:\.\d+)?)(ns|us|µs|ms|s|m|h)", re.ASCII)
_BARE_NUMBER = re.compile(r"\d+(?:\.\d+)?", re.ASCII)

_BYTE_UNITS = {"": 1, "k": 10**3, "M": 10**6, "G": 10**9, "T": 10**12, "P": 10**15}
_BYTE_UNITS |= {"Ki": 2**10, "Mi": 2**20, "Gi": 2**30, "Ti": 2**40, "Pi": 2**50}
_QUANTITY = re.compile(r"(\d+(?:\.\d+)?)([kMGTP]|[KMGTP]i)?", re.ASCII)


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
    """Read a Kubernetes resource quantity as bytes.

    >>> parse_bytes("512Mi"), parse_bytes("1G"), parse_bytes("134217728")
    (536870912, 1000000000, 134217728)

    Raises ValueError with a message made for people.
    """
    match = _QUANTITY.fullmatch(text.strip())
    if match is None:
        raise ValueError(f"{text!r} is not a size: write bytes or one like 256Mi or 1Gi")
    return int(float(match[1]) * _BYTE_UNITS[match[2] or ""])


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
