"""Takes the profiles of one process into the spool: the heap first, everything else after it."""

from __future__ import annotations

import contextlib
import hashlib
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Protocol

from sidecar.core import keys, manifest
from sidecar.core.keys import NEWEST, DumpId
from sidecar.core.manifest import Incident, Place, Subject, iso_time
from sidecar.core.model import ProfileFile
from sidecar.core.output import Output
from sidecar.errors import EmptyProfileError, OomHeapDumperError, SpoolError
from sidecar.heap_encoder import HeapEncoder
from sidecar.published_profile import Pprof, take_profile
from sidecar.spool import Spool

EXTRA_KINDS = ("heap-gc", "goroutine", "memstats")

# How long the last papers of a dump wait for room on a full disk.
PATIENCE_S = 300.0

_COPY_BYTES = 1 << 18


class Heap(Protocol):
    """What a capture needs of a program whose memory can be read."""

    @property
    def known_buckets(self) -> int:
        """How many stacks its profile has."""
        ...

    def write_snapshot(self, file: Output, /) -> int:
        """Write its heap as it is now; raises OomHeapDumperError."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Baseline:
    """A profile of calm times and where the spool keeps it."""

    profile: ProfileFile
    path: Path


class Dump:
    """One dump while it is being taken. Its manifest is drafted after each step and sealed by `finish`."""

    def __init__(
        self,
        *,
        spool: Spool,
        place: Place,
        dump_id: DumpId,
        incident: Incident,
        subject: Subject,
        guard: Callable[[], dict[str, object] | None] = lambda: None,
    ) -> None:
        """``guard`` tells, for each draft anew, what was done to hold the OOM killer off; None if nothing may be."""
        self.dump_id = dump_id
        self.key = place.key(dump_id)
        self.process = subject.process
        self.profiles: tuple[ProfileFile, ...] = ()
        self.problems: tuple[str, ...] = ()
        self._spool = spool
        self._place = place
        self._incident = incident
        self._subject = subject
        self._guard = guard

    def take(self, kind: str, endpoint: Pprof) -> ProfileFile:
        """Take one profile; it is safe in the spool on return. Raises `PprofError` or `SpoolError`."""
        name = keys.profile_name(kind, endpoint.port)
        profile = take_profile(kind, endpoint, self._spool.write(self.dump_id, name), name)
        self.profiles += (profile,)
        return profile

    def take_snapshot(self, heap: Heap) -> ProfileFile:
        """Read the heap from the program's memory; the raw snapshot is safe in the spool on return.

        Raises what the heap does, or `SpoolError`.
        """
        taken_at, began_s = datetime.now(tz=UTC), time.monotonic()
        with self._spool.write(self.dump_id, keys.RAW_DRAFT_NAME) as file:
            heap.write_snapshot(file)
        if file.result is None:
            raise SpoolError("the snapshot wasn't kept")
        return self._add_raw(
            file.result.size_bytes, file.result.sha256, heap.known_buckets, taken_at, time.monotonic() - began_s
        )

    def adopt_snapshot(self, raw: Path, samples: int) -> ProfileFile:
        """Take a snapshot that was in hand, as of the dump's time. Raises `SpoolError`."""
        self._spool.adopt_raw_draft(self.dump_id, raw)
        draft = self._spool.raw_draft(self.dump_id)
        try:
            with draft.open("rb") as file:
                digest, size_bytes = hashlib.file_digest(file, "sha256").hexdigest(), file.tell()
        except OSError as error:
            raise SpoolError(f"{draft.name} can't be read: {error.strerror}") from error
        return self._add_raw(size_bytes, digest, samples, self.dump_id.at, 0.0)

    def encode_snapshot(self, encoder: HeapEncoder, executable: int) -> None:
        """Make a profile of the raw snapshot. Where that fails the raw one stays, and the manifest says why.

        ``executable`` is an open descriptor of the program; it needn't run any more.
        """
        raw = next((profile for profile in self.profiles if profile.name == keys.RAW_NAME), None)
        if raw is None:
            return
        name = keys.profile_name(NEWEST, None)
        made = None
        try:
            made = self._spool.scratch_path(f"{self.dump_id}.pb.gz")
            encoded = encoder.encode(self._spool.raw_draft(self.dump_id), executable, made)
            with self._spool.write(self.dump_id, name) as file:
                for piece in _pieces(made):
                    file.write(piece)
        except (OomHeapDumperError, OSError) as error:
            remedy = "oom-heap-dumper encode makes it where the program's executable is"
            self.problems += (f"{NEWEST}: no profile could be made of the raw snapshot here ({error}); {remedy}",)
            return
        finally:
            if made is not None:
                for left in made.parent.glob(f"*{made.name}*"):  # a killed encoder leaves its part, too
                    left.unlink(missing_ok=True)
        if file.result is None:
            return
        profile = replace(
            raw,
            name=name,
            size_bytes=file.result.size_bytes,
            sha256=file.result.sha256,
            samples=encoded.samples,
            gc=encoded.gc,
            incomplete=encoded.incomplete,
        )
        self.profiles = tuple(profile if one is raw else one for one in self.profiles)
        self._spool.drop_raw_draft(self.dump_id)

    def _add_raw(
        self, size_bytes: int, sha256: str, samples: int, taken_at: datetime, duration_s: float
    ) -> ProfileFile:
        profile = ProfileFile(
            name=keys.RAW_NAME,
            kind=NEWEST,
            port=None,
            size_bytes=size_bytes,
            sha256=sha256,
            samples=samples,
            taken_at=iso_time(taken_at),
            duration_s=round(duration_s, 4),
        )
        self.profiles += (profile,)
        return profile

    def take_first(self, endpoint: Pprof) -> ProfileFile:
        """Take the plain heap profile. Raises `PprofError` or `SpoolError`."""
        try:
            return self.take("heap", endpoint)
        except EmptyProfileError:
            return self.take("heap-gc", endpoint)

    def take_plain(self, endpoint: Pprof) -> None:
        """Take what the program itself publishes, beside the snapshot of its memory; a failure is noted."""
        try:
            self.take("heap", endpoint)
        except OomHeapDumperError as error:
            self.problems += (f"heap: {error}",)

    def take_extras(self, kinds: Iterable[str], endpoint: Pprof, *, go_on: Callable[[], bool] = lambda: True) -> None:
        """Take what is good to have, as far as it is wanted and not there yet; a failure is noted in the manifest.

        ``go_on`` is asked before each. The draft of the manifest follows each step.
        """
        have = {profile.kind for profile in self.profiles}
        for kind in EXTRA_KINDS:
            if kind in kinds and kind not in have:
                if not go_on():
                    self.problems += (f"{kind}: left out, the sidecar was stopping",)
                    continue
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
        """Keep what is known so far, in case we don't live to finish; a full disk may have room again by then."""
        with contextlib.suppress(SpoolError):
            self._spool.draft_manifest(self.dump_id, manifest.encode(self._manifest(complete=False)))

    def finish(self) -> None:
        """Write the manifest, waiting for room if need be; the dump is complete."""
        document = manifest.encode(self._manifest(complete=True))
        try:
            self._spool.draft_manifest(self.dump_id, document, patience_s=PATIENCE_S)
        finally:
            self._spool.seal(self.dump_id)

    def _manifest(self, *, complete: bool) -> dict[str, object]:
        return manifest.manifest(
            place=self._place,
            dump_id=self.dump_id,
            incident=self._incident,
            subject=self._subject,
            profiles=self.profiles,
            problems=self.problems,
            guard=self._guard(),
            complete=complete,
        )


def _pieces(path: Path) -> Iterator[bytes]:
    with path.open("rb") as file:
        while piece := file.read(_COPY_BYTES):
            yield piece
