"""Fetches one profile that a program publishes by HTTP into a file, and verifies it on the way.

What the queries cost the program is told in Go's ``runtime/pprof``: a plain heap profile is a walk over the published
buckets, ``gc=1`` runs a whole collection first, ``debug=1`` appends ``runtime.MemStats`` as text.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Protocol

from sidecar.core.manifest import iso_time
from sidecar.core.model import ProfileFile
from sidecar.core.profile_check import ProfileCheck
from sidecar.errors import PprofError, SpoolError
from sidecar.spool import SpoolWriter

_QUERIES = {
    "heap": "/heap",
    "heap-gc": "/heap?gc=1",
    "goroutine": "/goroutine",
    "memstats": "/heap?debug=1",
    "heap-baseline": "/heap",
}
# The first answer is due soon, as it is tried again; a collection may take seconds under a CPU quota.
_DEADLINES_S = {"heap": 10.0, "heap-gc": 30.0, "goroutine": 15.0, "memstats": 15.0, "heap-baseline": 10.0}

_MAX_RAW_BYTES = 512 << 20
_MEMSTATS_MARK = b"\n# runtime.MemStats\n"


class Pprof(Protocol):
    """What a capture needs of a pprof endpoint."""

    port: int

    def fetch(self, query: str, consume: Callable[[bytes], None], *, deadline_s: float) -> None:
        """Hand the body of a profile to ``consume``; raises `PprofError`."""
        ...


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
        taken_at=iso_time(taken_at),
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
