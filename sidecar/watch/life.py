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

    ``idle`` is set while no capture is under way, ``rested`` while no snapshot is being taken to be kept in hand.
    ``captured_s`` has the moment of the last sample that a dump of a process was made for.
    """

    last_dump: DumpId | None = None
    why_no_dump: str | None = None
    idle: threading.Event = field(default_factory=_idle)
    rested: threading.Event = field(default_factory=_idle)
    captured_s: dict[Process, float] = field(default_factory=dict)
    in_hand: dict[Process, InHand] = field(default_factory=dict)
