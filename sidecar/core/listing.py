"""From the objects of a store to dumps that a person can choose from. Pure.

Keys are chosen by whoever may write to the bucket. Only those that this program could have made are taken for dumps,
so that every name that comes out of here is fit for a terminal and for a path.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from typing import Protocol

from sidecar.core.keys import MANIFEST_NAME, OUTCOME_PREFIX, DumpId, join_key, parse_dump_id, safe_name, safe_pod_name
from sidecar.core.quantities import parse_duration_s

_FILE_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,199}", re.ASCII)
_PROFILE_NAME = re.compile(r"(?P<kind>[a-z]+(?:-[a-z]+)*)(?:-(?P<port>\d{1,5}))?\.(?:pb\.gz|txt|raw)", re.ASCII)
_ORDINARY_END = "exited"
_OUTCOME_NAME = re.compile(rf"{OUTCOME_PREFIX}(?P<ending>[a-z]+(?:-[a-z]+)*)\.json", re.ASCII)


class ObjectLike(Protocol):
    """What is needed of a stored object."""

    @property
    def key(self) -> str:
        """The whole key."""
        ...

    @property
    def size_bytes(self) -> int:
        """Its size."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class ProfileName:
    """What a profile's file name tells, see `sidecar.core.keys.profile_name`."""

    kind: str
    port: int | None


@dataclass(frozen=True, slots=True, kw_only=True)
class DumpFile:
    """A file of a dump."""

    name: str
    size_bytes: int


@dataclass(frozen=True, slots=True, kw_only=True)
class StoredProfile:
    """A profile of a dump."""

    name: str
    kind: str
    port: int | None
    size_bytes: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Dump:
    """A dump as it lies in a store. ``key`` is its folder's, prefix included; ``files`` are in order of name.

    ``outcome`` tells how the incident ended, where that is known: its note lies in one dump's folder and holds for all.
    """

    key: str
    namespace: str
    pod: str
    id: DumpId
    files: tuple[DumpFile, ...]
    outcome: str | None

    @property
    def name(self) -> str:
        """The dump id as the folder spells it."""
        return self.key.rpartition("/")[2]

    @property
    def size_bytes(self) -> int:
        """Sum of its files."""
        return sum(file.size_bytes for file in self.files)

    @property
    def profiles(self) -> tuple[StoredProfile, ...]:
        """The profiles in it; none in the folder of a container that died without a dump."""
        return tuple(
            StoredProfile(name=file.name, kind=name.kind, port=name.port, size_bytes=file.size_bytes)
            for file in self.files
            if (name := parse_profile_name(file.name)) is not None
        )

    @property
    def matters(self) -> bool:
        """False for what only says that a container ended in an ordinary way."""
        only_notes = all(_OUTCOME_NAME.fullmatch(file.name) for file in self.files)
        return not only_notes or self.outcome != _ORDINARY_END


@dataclass(frozen=True, slots=True, kw_only=True)
class DumpFilter:
    """Which dumps are wanted; None admits all. Names are compared as keys spell them."""

    namespace: str | None = None
    pod: str | None = None
    container: str | None = None
    since: datetime | None = None

    @property
    def folder(self) -> str:
        """The longest folder that holds everything wanted, below the prefix."""
        if not self.namespace:
            return ""
        return join_key(safe_name(self.namespace), safe_pod_name(self.pod) if self.pod else "")

    def admits(self, dump: Dump) -> bool:
        """Whether a dump is wanted."""
        named = (
            (self.namespace is None or safe_name(self.namespace) == dump.namespace)
            and (self.pod is None or safe_pod_name(self.pod) == dump.pod)
            and (self.container is None or safe_name(self.container) == dump.id.container)
        )
        return named and (self.since is None or dump.id.at >= self.since)


def parse_profile_name(name: str) -> ProfileName | None:
    """Read a profile's file name; None if it isn't one.

    >>> parse_profile_name("heap-gc-8080.pb.gz")
    ProfileName(kind='heap-gc', port=8080)
    >>> parse_profile_name("manifest.json")
    """
    match = _PROFILE_NAME.fullmatch(name)
    if match is None:
        return None
    return ProfileName(kind=match["kind"], port=int(match["port"]) if match["port"] else None)


def is_oom(outcome: str | None) -> bool:
    """Whether an outcome is the OOM killer's doing."""
    return outcome is not None and outcome.endswith("oom-killed")


def find_dumps(objects: Iterable[ObjectLike], prefix: str) -> list[Dump]:
    """The dumps among a store's objects, newest first. Objects that aren't ours are passed over."""
    folders: dict[str, list[DumpFile]] = {}
    for item in objects:
        folder, _, name = item.key.rpartition("/")
        if _FILE_NAME.fullmatch(name):
            folders.setdefault(folder, []).append(DumpFile(name=name, size_bytes=item.size_bytes))
    dumps = [dump for folder, files in folders.items() if (dump := _dump(folder, files, prefix)) is not None]
    endings: dict[str, list[str]] = {}
    for dump in dumps:
        if dump.outcome is not None:
            endings.setdefault(dump.id.incident, []).append(dump.outcome)
    return sorted(
        (_with_outcome(dump, _decisive(endings.get(dump.id.incident, []))) for dump in dumps),
        key=lambda dump: (dump.id.at, dump.id.number, dump.key),
        reverse=True,
    )


def dump_prefix(key: str) -> str | None:
    """The prefix that a dump lies below, by the key of its manifest; None for every other key.

    >>> dump_prefix("heap-dumps/prod/api-0/20261120T225012.123Z_app_pid42_k3x9-1/manifest.json")
    'heap-dumps'
    """
    folder, _, file = key.rpartition("/")
    parts = folder.rsplit("/", 3)
    prefix = parts[0] if len(parts) == 4 else ""
    # what --prefix can't say, for it loses the slashes at its ends, is no help
    if file != MANIFEST_NAME or prefix != prefix.strip("/"):
        return None
    return prefix if _dump(folder, [], prefix) is not None else None


def find_prefixes(objects: Iterable[ObjectLike]) -> list[str]:
    """The prefixes below which dumps lie, in the order of the objects. Anybody may have chosen them."""
    return list(dict.fromkeys(prefix for item in objects if (prefix := dump_prefix(item.key)) is not None))


def parse_since(text: str, now: datetime) -> datetime:
    """Read a moment: an age such as ``90m``, or an ISO 8601 time, in UTC where it names no zone.

    >>> parse_since("2026-11-20T22:50", datetime.now(UTC)).isoformat()
    '2026-11-20T22:50:00+00:00'

    Raises ValueError with a message made for people.
    """
    try:
        return now - timedelta(seconds=parse_duration_s(text))
    except (ValueError, OverflowError):
        pass
    try:
        moment = datetime.fromisoformat(text.strip())
    except ValueError as error:
        raise ValueError(
            f"{text!r} is neither an age such as 90m or 12h nor a time such as 2026-11-20T22:50"
        ) from error
    return moment if moment.tzinfo else moment.replace(tzinfo=UTC)


def _dump(folder: str, files: list[DumpFile], prefix: str) -> Dump | None:
    """Take a folder for a dump, if its place and its name are those of one."""
    base = join_key(prefix) + "/" if join_key(prefix) else ""
    if not folder.startswith(base):
        return None
    parts = folder.removeprefix(base).split("/")
    dump_id = parse_dump_id(parts[-1])
    if len(parts) != 3 or dump_id is None or [safe_name(parts[0]), safe_pod_name(parts[1])] != parts[:2]:
        return None
    files.sort(key=lambda file: file.name)
    return Dump(
        key=folder, namespace=parts[0], pod=parts[1], id=dump_id, files=tuple(files), outcome=_own_outcome(files)
    )


def _own_outcome(files: Iterable[DumpFile]) -> str | None:
    """What the notes of a dump say."""
    return _decisive(match["ending"] for file in files if (match := _OUTCOME_NAME.fullmatch(file.name)))


def _decisive(endings: Iterable[str]) -> str | None:
    """Of several, as where a container lived on after the kill of a child, the OOM killer's is the one that counts."""
    return max(endings, key=lambda ending: (is_oom(ending), ending), default=None)


def _with_outcome(dump: Dump, ending: str | None) -> Dump:
    return dump if dump.outcome else replace(dump, outcome=ending)
