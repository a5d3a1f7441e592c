"""What every benchmark needs: programs, settings and how much to measure."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

MEBIBYTE = 1 << 20


@dataclass(frozen=True, slots=True, kw_only=True)
class Effort:
    """How often and how long to measure; ``settle_s`` is how long a sidecar is left alone before a calm reading."""

    containers: tuple[int, ...]
    settle_s: float
    window_s: float
    captures: int
    starts: int
    slow_starts: int
    leaks: int


FULL = Effort(containers=(1, 10, 100), settle_s=3.0, window_s=60.0, captures=20, starts=10, slow_starts=5, leaks=15)
QUICK = Effort(containers=(1, 10), settle_s=1.0, window_s=5.0, captures=4, starts=3, slow_starts=1, leaks=3)


@dataclass(frozen=True, slots=True, kw_only=True)
class Ground:
    """``python`` runs the sidecar, ``service`` is the app, ``settings`` go to the sidecar's environment."""

    python: Path
    service: Path
    settings: Mapping[str, str]
    effort: Effort


def say(message: str) -> None:
    """Tell on stderr what is being done: stdout is for the tables."""
    print(f"bench: {message}", file=sys.stderr, flush=True)
