"""One life of a container, as the parts of the watch share it."""

from __future__ import annotations

import contextlib
import os
import threading
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path

from sidecar.core.keys import DumpId
from sidecar.core.model import GoProgram, Process, Sample
from sidecar.guard import Guarded


@dataclass(frozen=True, slots=True, kw_only=True)
class InHand:
    """A raw snapshot that only a kill makes a dump of. ``executable`` is an open descriptor, to name frames with."""

    process: Process
    program: GoProgram
    go_environment: dict[str, str] | None
    executable: int
    path: Path
    samples: int
    sample: Sample
    at: datetime

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

    ``idle`` is set while no capture is under way, ``rested`` while no snapshot is being taken to be kept in hand,
    ``tended`` while its guard is left alone. ``captured_s`` has the moment of the last sample that a dump of a process
    was made for. ``why_no_guard`` is set once it is known that there can't be one.
    """

    last_dump: DumpId | None = None
    why_no_dump: str | None = None
    idle: threading.Event = field(default_factory=_idle)
    rested: threading.Event = field(default_factory=_idle)
    tended: threading.Event = field(default_factory=_idle)
    guarded: Guarded | None = None
    why_no_guard: str | None = None
    captured_s: dict[Process, float] = field(default_factory=dict)
    in_hand: dict[Process, InHand] = field(default_factory=dict)

    def let_killer_go(self, now_s: float) -> None:
        """What the guard was to save is safe."""
        if self.guarded is not None:
            self.guarded.release(now_s)

    def guard_record(self) -> dict[str, object] | None:
        """What the guard did, for the manifest; None where there is none."""
        if self.guarded is not None:
            return self.guarded.record()
        return {"mode": "off", "why_not": self.why_no_guard} if self.why_no_guard else None
