"""Names of dumps and of the objects in them. Pure.

A dump is a folder ``PREFIX/NAMESPACE/POD/DUMP_ID/``. Its id begins with the UTC time, so that listing a pod sorts by
time, and ends with the incident's random id and the dump's number in it, so that no two dumps share a name even where
the clock was set back:

    20261120T225012.123Z_app_pid42_k3x9q2mw-1
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime

MANIFEST_NAME = "manifest.json"
OUTCOME_PREFIX = "outcome-"

# The kind of a heap that was read from the program's memory.
NEWEST = "heap-newest"

# The spool's queue: where it lies in the spool, and the names in it of what isn't whole yet.
QUEUE_FOLDER = "queue"
DRAFT_NAME = f".{MANIFEST_NAME}"
RAW_NAME = f"{NEWEST}.raw"
RAW_DRAFT_NAME = f".{RAW_NAME}"
PART_PREFIX = ".part-"

_LONGEST_POD_NAME = 253  # a DNS subdomain; other names are DNS labels
_INCIDENT_ALPHABET = "abcdefghijkmnpqrstuvwxyz23456789"
_UNSAFE = re.compile(r"[^A-Za-z0-9.-]+")
_DUMP_ID = re.compile(
    r"(?P<time>\d{8}T\d{6}\.\d{3}Z)_(?P<container>[A-Za-z0-9.-]+)_pid(?P<pid>\d+)_(?P<incident>[a-z0-9]+)-(?P<number>\d+)",
    re.ASCII,
)


@dataclass(frozen=True, slots=True, kw_only=True)
class DumpId:
    """The parts of a dump's name. ``number`` counts the dumps of an incident from 1; 0 is an incident without one."""

    at: datetime
    container: str
    pid: int
    incident: str
    number: int

    def __str__(self) -> str:
        return f"{format_time(self.at)}_{safe_name(self.container)}_pid{self.pid}_{self.incident}-{self.number}"


def incident_id(entropy: bytes) -> str:
    """Turn random bytes into the id of an incident, one character each, none that reads like another."""
    return "".join(_INCIDENT_ALPHABET[byte % len(_INCIDENT_ALPHABET)] for byte in entropy)


def parse_dump_id(text: str) -> DumpId | None:
    """Read a dump's folder name; None if it isn't one."""
    match = _DUMP_ID.fullmatch(text)
    if match is None:
        return None
    try:
        at = datetime.strptime(match["time"], "%Y%m%dT%H%M%S.%fZ").replace(tzinfo=UTC)
    except ValueError:
        return None
    return DumpId(
        at=at,
        container=match["container"],
        pid=int(match["pid"]),
        incident=match["incident"],
        number=int(match["number"]),
    )


def format_time(at: datetime) -> str:
    """Print a UTC time with milliseconds so that text order is time order.

    >>> format_time(datetime(2026, 11, 20, 22, 50, 12, 123456, tzinfo=UTC))
    '20261120T225012.123Z'
    """
    utc = at.astimezone(UTC)
    return f"{utc:%Y%m%dT%H%M%S}.{utc.microsecond // 1000:03d}Z"


def safe_name(text: str, longest: int = 63) -> str:
    """Reduce a name chosen by others to what is harmless in keys, file names and terminals.

    >>> safe_name("my app/1"), safe_name("../.."), safe_name("")
    ('my-app-1', 'unnamed', 'unnamed')
    """
    return _UNSAFE.sub("-", text).strip("-.")[:longest].rstrip("-.") or "unnamed"


def safe_pod_name(text: str) -> str:
    """The same of a pod's name, which may be longer than other names."""
    return safe_name(text, _LONGEST_POD_NAME)


def profile_name(kind: str, port: int | None) -> str:
    """File name of a profile in its dump, such as ``heap-8080.pb.gz``."""
    stem = kind if port is None else f"{kind}-{port}"
    return f"{stem}.txt" if kind == "memstats" else f"{stem}.pb.gz"


def pod_path(namespace: str, pod: str) -> str:
    """Folder of a pod's dumps, below the prefix."""
    return f"{safe_name(namespace)}/{safe_pod_name(pod)}"


def is_for_upload(parts: Sequence[str]) -> bool:
    """Whether the uploader may take a file of the queue, by its path below the queue: a whole file of a dump.

    >>> [is_for_upload(("prod", "api-0", "DUMP_ID", name)) for name in (MANIFEST_NAME, DRAFT_NAME)]
    [True, False]
    """
    return len(parts) == 4 and not parts[-1].startswith(".")


def join_key(*parts: str) -> str:
    """Join parts of a key with single slashes, leaving out empty ones.

    >>> join_key("team/", "", "prod/api-0", "x")
    'team/prod/api-0/x'
    """
    return "/".join(part.strip("/") for part in parts if part.strip("/"))
