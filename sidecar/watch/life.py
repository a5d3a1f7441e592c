"""One life of a container, as the parts of the watch share it."""

from __future__ import annotations

import contextlib
import os
import threading
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from pathlib import Path

from sidecar.core.keys import DumpId
from sidecar.core.manifest import Subject, iso_time
from sidecar.core.model import Process, Reading, Sample
from sidecar.guard import Guarded


@dataclass(frozen=True, slots=True, kw_only=True)
class InHand:
    """A raw snapshot that only a kill makes a dump of. ``executable`` is an open descriptor, to name frames with."""

    subject: Subject
    executable: int
    path: Path
    samples: int
    sample: Sample
    at: datetime

    @property
    def process(self) -> Process:
        """Whose heap it is."""
        return self.subject.process

    def let_go(self) -> None:
        """Nobody wants it any more."""
        with contextlib.suppress(OSError):
            os.close(self.executable)
        with contextlib.suppress(OSError):
            self.path.unlink()


def _idle() -> threading.Event:
    event = threading.Event()
    event.set()
    return event


@dataclass(slots=True)
class Life:
    """From a container's first sample to its end.

    ``lock`` is for ``in_hand``, to which nothing is added once it has ``ended``. ``idle`` is set while no capture is
    under way, ``rested`` while no snapshot is being taken to be kept in hand, ``tended`` while its guard is left alone,
    but for ``minded``, which is set while nobody sees to its bound of time. ``captured_s`` has the moment of the last
    sample that a dump of a process was made for. ``guard_before`` tells of a guard that was closed, ``why_no_guard``
    why there is none; the next try to adopt is due at ``adopt_from_s``.
    """

    last_dump: DumpId | None = None
    why_no_dump: str | None = None
    idle: threading.Event = field(default_factory=_idle)
    rested: threading.Event = field(default_factory=_idle)
    tended: threading.Event = field(default_factory=_idle)
    minded: threading.Event = field(default_factory=_idle)
    guarded: Guarded | None = None
    guard_before: Callable[[], dict[str, object]] | None = None
    why_no_guard: str | None = None
    adopt_from_s: float = 0.0
    lock: threading.Lock = field(default_factory=threading.Lock)
    ended: bool = False
    captured_s: dict[Process, float] = field(default_factory=dict)
    in_hand: dict[Process, InHand] = field(default_factory=dict)

    def let_killer_go(self, now_s: float) -> None:
        """What the guard was to save is safe."""
        if self.guarded is not None:
            self.guarded.release(now_s)

    def as_if_not_raised(self, reading: Reading) -> Reading:
        """What the guard has added to the limit isn't the container's."""
        if self.guarded is None:
            return reading
        limit = self.guarded.nominal_limit_bytes(reading.limit_bytes)
        return reading if limit == reading.limit_bytes else replace(reading, limit_bytes=limit)

    def guard_record(self) -> dict[str, object] | None:
        """What the guard did so far, for the manifest; None where there is none."""
        record = self.guarded.record if self.guarded is not None else self.guard_before
        if record is not None:
            return {"as_of": iso_time(datetime.now(tz=UTC)), **record()}
        return {"mode": "off", "why_not": self.why_no_guard} if self.why_no_guard else None
