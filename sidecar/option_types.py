"""Types of the options: parsers that refuse a bad value with one sentence naming it and the remedy."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

import click

from sidecar.core import quantities
from sidecar.settings import PROFILE_KINDS

_LEAST_RAISE_BYTES = 4 << 20
_LONGEST_HOLD_S = 60.0

_BUCKET_NAME = re.compile(r"[a-z0-9][a-z0-9.-]{1,61}[a-z0-9]", re.ASCII)
_HEADER_VALUE = re.compile(r"[\t -~]*", re.ASCII)
_URL_PATH = re.compile(r"/[!-~]*", re.ASCII)
_HEADER_NAME = re.compile(r"[A-Za-z0-9!#$%&'*+.^_`|~-]+", re.ASCII)


class Parsed(click.ParamType[Any]):
    """A click type around a parser that raises ValueError with a message made for people."""

    def __init__(self, name: str, parse: Callable[[str], object]) -> None:
        self.name = name
        self._parse = parse

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:  # noqa: ANN401 -- click's signature
        """Parse text; values that a default already made pass through."""
        if not isinstance(value, str):
            return value
        try:
            return self._parse(value)
        except ValueError as error:
            self.fail(str(error), param, ctx)


def positive_duration_s(text: str) -> float:
    """A duration longer than 0, in seconds."""
    seconds = quantities.parse_duration_s(text)
    if seconds <= 0:
        raise ValueError(f"must be longer than 0 (got {text!r})")
    return seconds


def interval_s(text: str) -> float:
    """A sampling interval in seconds; the bounds keep it from burning a core or from missing every leak."""
    seconds = quantities.parse_duration_s(text)
    if not 0.01 <= seconds <= 60:
        raise ValueError(f"must be 10ms to 1m (got {text!r})")
    return seconds


def limit_bytes(text: str) -> int:
    """A memory limit that a program can start in: who writes 512m, which is half a byte, means 512Mi."""
    count = quantities.parse_bytes(text)
    if count < 2**20:
        raise ValueError(f"must be at least 1Mi (got {text!r}; Mi and M are megabytes, m is a thousandth of a byte)")
    return count


def directory_bytes(text: str) -> int:
    """What a directory may hold: at least one dump."""
    count = quantities.parse_bytes(text)
    if count < 2**20:
        raise ValueError(f"must be at least 1Mi to hold a dump (got {text!r})")
    return count


def ports(text: str) -> tuple[int, ...]:
    """TCP ports, separated by commas or blanks."""
    ports = []
    for part in filter(None, re.split(r"[\s,]+", text)):
        if not part.isascii() or not part.isdigit() or not 1 <= int(part) <= 65535:
            raise ValueError(f"{part!r} is not a port: write numbers of 1 to 65535, separated by commas")
        ports.append(int(part))
    return tuple(ports)


def names(text: str) -> tuple[str, ...]:
    """Names, separated by commas or blanks."""
    return tuple(filter(None, re.split(r"[\s,]+", text)))


def profile_kinds(text: str) -> tuple[str, ...]:
    """Kinds of profiles; the plain heap is never left out."""
    kinds = names(text)
    for name in kinds:
        if name not in PROFILE_KINDS:
            raise ValueError(f"{name!r} is not a profile: choose from {', '.join(PROFILE_KINDS)}")
    if "heap" not in kinds:
        raise ValueError(f"must include heap (got {text!r})")
    return kinds


def brake_percent(text: str) -> float:
    """A level at which a brake makes sense: not in the midst of ordinary work, and not at the limit itself."""
    value = quantities.parse_percent(text)
    if not 50 <= value <= 99:
        raise ValueError(f"must be 50 to 99 percent (got {text!r})")
    return value


def hold_s(text: str) -> float:
    """How long the killer may be held off; an app must not wait for longer."""
    seconds = positive_duration_s(text)
    if seconds > _LONGEST_HOLD_S:
        raise ValueError(f"must be 1m at most (got {text!r})")
    return seconds


def raise_bytes(text: str) -> int:
    """How far a limit may be raised; less than this would help nobody."""
    value = quantities.parse_bytes(text)
    if value < _LEAST_RAISE_BYTES:
        raise ValueError(f"must be 4Mi at least (got {text!r})")
    return value


def headers(text: str) -> tuple[tuple[str, str], ...]:
    """HTTP headers, one a line. A wrong one isn't quoted back: it may be a secret."""
    headers = []
    for line in filter(str.strip, text.splitlines()):
        name, colon, value = line.partition(":")
        if not colon or not _HEADER_NAME.fullmatch(name.strip()):
            raise ValueError("each line must be 'Name: value' (the value given is not shown, it may be a secret)")
        if not _HEADER_VALUE.fullmatch(value.strip()):
            raise ValueError("a value must be printable ASCII (the value given is not shown, it may be a secret)")
        headers.append((name.strip(), value.strip()))
    return tuple(headers)


def url_path(text: str) -> str:
    """The path part of a URL, without a trailing slash."""
    if not text.startswith("/") or "?" in text or "#" in text:
        raise ValueError(f"must be a path that begins with / (got {text!r})")
    if not _URL_PATH.fullmatch(text):
        raise ValueError(f"must be percent-encoded, without blanks or letters beyond ASCII (got {text!r})")
    return text.rstrip("/")


def bucket_name(text: str) -> str:
    """An S3 bucket name (general purpose buckets' naming rules)."""
    if not _BUCKET_NAME.fullmatch(text):
        raise ValueError(
            f"{text!r} is not a bucket name: 3 to 63 of a-z, 0-9, dot and hyphen, without s3:// or a path (see PREFIX)"
        )
    return text
