"""Takes the profiles of one process into the spool: the plain heap first, everything else after it.

What the queries cost the program is told in Go's ``runtime/pprof``: a plain heap profile is a walk over the published
buckets, ``gc=1`` runs a whole collection first, ``debug=1`` appends ``runtime.MemStats`` as text.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Protocol

from sidecar.core import keys, manifest
from sidecar.core.keys import DumpId
from sidecar.core.manifest import Incident, Place, Subject
from sidecar.core.model import ProfileFile
from sidecar.core.profile_check import ProfileCheck
from sidecar.errors import EmptyProfileError, OomHeapDumperError, PprofError, SpoolError
from sidecar.spool import Spool, SpoolWriter

_QUERIES = {
    "heap": "/heap",
    "heap-gc": "/heap?gc=1",
    "goroutine": "/goroutine",
    "memstats": "/heap?debug=1",
    "heap-baseline": "/heap",
}
# The first answer is due soon, as it is tried again; a collection may take seconds under a CPU quota.
_DEADLINES_S = {"heap": 10.0, "heap-gc": 30.0, "goroutine": 15.0, "memstats": 15.0, "heap-baseline": 10.0}

EXTRA_KINDS = ("heap-gc", "goroutine", "memstats")

_MAX_RAW_BYTES = 512 << 20
_MEMSTATS_MARK = b"\n# runtime.MemStats\n"


class Pprof(Protocol):
    """What a capture needs of a pprof endpoint."""

    port: int

    def fetch(self, query: str, consume: Callable[[bytes], None], *, deadline_s: float) -> None:
        """Hand the body of a profile to ``consume``; raises `PprofError`."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Baseline:
    """A profile of calm times and where the spool keeps it."""

    profile: ProfileFile
    path: Path


class Dump:
    """One dump while it is being taken. Its manifest is drafted after each step and sealed by `finish`."""

    def __init__(self, *, spool: Spool, place: Place, dump_id: DumpId, incident: Incident, subject: Subject) -> None:
        self.dump_id = dump_id
        self.key = place.key(dump_id)
        self.process = subject.process
        self.profiles: tuple[ProfileFile, ...] = ()
        self.problems: tuple[str, ...] = ()
        self._spool = spool
        self._place = place
        self._incident = incident
        self._subject = subject

    def take(self, kind: str, endpoint: Pprof) -> ProfileFile:
        """Take one profile; it is safe in the spool on return. Raises `PprofError` or `SpoolError`."""
        name = keys.profile_name(kind, endpoint.port)
        profile = take_profile(kind, endpoint, self._spool.write(self.dump_id, name), name)
        self.profiles += (profile,)
        return profile

    def take_first(self, endpoint: Pprof) -> ProfileFile:
        """Take the heap profile that the dump is for. Raises `PprofError` or `SpoolError`."""
        try:
            return self.take("heap", endpoint)
        except EmptyProfileError:
            return self.take("heap-gc", endpoint)

    def take_extras(self, kinds: Iterable[str], endpoint: Pprof, *, go_on: Callable[[], bool] = lambda: True) -> None:
        """Take what is good to have, as far as it is wanted and not there yet; a failure is noted in the manifest.

        ``go_on`` is asked before each. The draft of the manifest follows each step.
        """
        have = {profile.kind for profile in self.profiles}
        for kind in EXTRA_KINDS:
            if kind in kinds and kind not in have and go_on():
                self.draft()
                try:
                    self.take(kind, endpoint)
                except OomHeapDumperError as error:
                    self.problems += (f"{kind}: {error}",)

    def add_baseline(self, baseline: Baseline | None) -> None:
        """Put the profile of calm times beside the dump."""
        if baseline is None:
            self.problems += ("heap-baseline: none was taken, the container was never seen calm",)
            return
        try:
            self._spool.link(self.dump_id, baseline.profile.name, baseline.path)
            self.profiles += (baseline.profile,)
        except SpoolError as error:
            self.problems += (f"heap-baseline: {error}",)

    def draft(self) -> None:
        """Keep what is known so far, in case we don't live to finish."""
        self._spool.draft_manifest(self.dump_id, manifest.encode(self._manifest(complete=False)))

    def finish(self) -> None:
        """Write the manifest; the dump is complete."""
        self._spool.draft_manifest(self.dump_id, manifest.encode(self._manifest(complete=True)))
        self._spool.seal(self.dump_id)

    def _manifest(self, *, complete: bool) -> dict[str, object]:
        return manifest.manifest(
            place=self._place,
            dump_id=self.dump_id,
            incident=self._incident,
            subject=self._subject,
            profiles=self.profiles,
            problems=self.problems,
            complete=complete,
        )


def take_profile(kind: str, endpoint: Pprof, file: SpoolWriter, name: str) -> ProfileFile:
    """Fetch, verify and keep one profile. Raises `PprofError` or `SpoolError`; then nothing of it is left."""
    taken_at, began_s = datetime.now(tz=UTC), time.monotonic()
    with file:
        samples = None
        if kind == "memstats":
            _receive_text(endpoint, file)
        else:
            samples = _receive_profile(kind, endpoint, file)
    if file.result is None:
        raise SpoolError(f"{name} wasn't kept")
    return ProfileFile(
        name=name,
        kind=kind,
        port=endpoint.port,
        size_bytes=file.result.size_bytes,
        sha256=file.result.sha256,
        samples=samples,
        taken_at=taken_at.isoformat(timespec="milliseconds").replace("+00:00", "Z"),
        duration_s=round(time.monotonic() - began_s, 4),
    )


def _receive_profile(kind: str, endpoint: Pprof, file: SpoolWriter) -> int:
    check = ProfileCheck(_MAX_RAW_BYTES)

    def consume(piece: bytes) -> None:
        check.feed(piece)
        file.write(piece)

    endpoint.fetch(_QUERIES[kind], consume, deadline_s=_DEADLINES_S[kind])
    return check.finish()


def _receive_text(endpoint: Pprof, file: SpoolWriter) -> None:
    """Keep the MemStats at the end of the text form, not the stacks before them."""
    found, tail = False, b"\n"

    def consume(piece: bytes) -> None:
        nonlocal found, tail
        if found:
            file.write(piece)
            return
        tail += piece
        at = tail.find(_MEMSTATS_MARK)
        if at >= 0:
            found = True
            file.write(tail[at + 1 :])
        tail = tail[-len(_MEMSTATS_MARK) :]

    endpoint.fetch(_QUERIES["memstats"], consume, deadline_s=_DEADLINES_S["memstats"])
    if not found:
        raise PprofError("the text form of the heap profile has no runtime.MemStats")
