"""Parsers of what flags and annotations say. Each raises ValueError with a message made for people. Pure."""

from __future__ import annotations

import re

from sidecar.core.quantities import parse_percent
from sidecar.variables import check_variable

_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*", re.ASCII)
_IMAGE = re.compile(r"[!-~]+", re.ASCII)
_HIGHEST_ID = 2**31 - 1
"""Of a user or group: Kubernetes refuses more (apimachinery, ``IsValidUserID``)."""

_HIGHEST_GOMEMLIMIT = 95

OWN_FLAGS = {
    "BUCKET": "bucket",
    "PREFIX": "prefix",
    "CLUSTER_NAME": "cluster",
    "CRITICAL": "critical",
    "MEMORY_CRITICAL_PERCENTAGE": "critical",
}
"""Variables that have an option of their own, which the plan reads."""


def image(text: str) -> str:
    """An image's reference; what is behind it the cluster finds out."""
    if not _IMAGE.fullmatch(text):
        raise ValueError(f"must be an image like registry.example.com/oom-heap-dumper:0.1.0 (got {text!r})")
    return text


def user_id(text: str) -> int:
    """The number of a user or group: 0 to 2147483647."""
    if not text.isascii() or not text.isdecimal() or int(text) > _HIGHEST_ID:
        raise ValueError(f"must be a number of 0 to {_HIGHEST_ID} (got {text!r})")
    return int(text)


def gomemlimit_percent(text: str) -> float | None:
    """The part of a memory limit that GOMEMLIMIT is to be; None for ``off``.

    >>> gomemlimit_percent("90%"), gomemlimit_percent("off")
    (90.0, None)
    """
    if text.strip() == "off":
        return None
    try:
        percent = parse_percent(text)
    except ValueError as error:
        raise ValueError(f"{error}, or off to set none") from None
    if percent > _HIGHEST_GOMEMLIMIT:
        raise ValueError(f"must be at most {_HIGHEST_GOMEMLIMIT}, as Go doesn't count all that it takes (got {text!r})")
    return percent


def environment(text: str) -> tuple[tuple[str, str], ...]:
    r"""Variables, one ``NAME=VALUE`` a line.

    >>> environment("A=1\nB=x=y")
    (('A', '1'), ('B', 'x=y'))
    """
    return tuple(variable(line) for line in text.splitlines() if line.strip())


def variable(text: str) -> tuple[str, str]:
    """One variable as ``NAME=VALUE``, with a value that the sidecar starts with.

    Text without a name isn't quoted back, as it may be a secret.
    """
    name, equals, value = text.partition("=")
    name = name.strip()
    if not equals or not _NAME.fullmatch(name):
        raise ValueError("a variable is written NAME=VALUE (the text given is not shown, it may be a secret)")
    if name in OWN_FLAGS:
        raise ValueError(f"{name} has an option of its own: use {OWN_FLAGS[name]}")
    check_variable(name, value)
    return name, value
