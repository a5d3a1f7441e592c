"""Follows a growing container until its end, by reading its cgroup once a millisecond."""

from __future__ import annotations

import os
import time

from benchmarks.race.model import Observed
from benchmarks.race.program import App

_POLL_S = 0.001
_READ_BYTES = 32


def follow(app: App) -> Observed:
    """Wait until the program has ended, or kill it when it still grows at its deadline."""
    version, memory, cell = app.container.cgroup.version, app.container.cgroup.memory, app.cell
    deadline_s = time.monotonic() + cell.deadline_s
    crossed_at_s = ended_at_s = None
    above_half_s, was_above = 0.0, False
    before_s = time.monotonic()
    fd = os.open(memory / ("memory.current" if version == 2 else "memory.usage_in_bytes"), os.O_RDONLY | os.O_CLOEXEC)
    try:
        while app.container.is_running and before_s < deadline_s:
            usage_bytes, now_s = int(os.pread(fd, _READ_BYTES, 0)), time.monotonic()
            if was_above:
                above_half_s += now_s - before_s
            # The memory of a killed program takes its time to be freed, which is no life.
            was_above = usage_bytes * 2 >= cell.limit_bytes and not app.container.oom_kills
            before_s = now_s
            if crossed_at_s is None and usage_bytes >= cell.threshold_bytes:
                crossed_at_s = time.time()
            time.sleep(_POLL_S)
        if not app.container.is_running:
            ended_at_s = time.time()
    finally:
        os.close(fd)
    return Observed(
        oom_killed=ended_at_s is not None and app.container.oom_kills > 0,
        crossed_at_s=crossed_at_s,
        ended_at_s=ended_at_s,
        above_half_s=above_half_s,
        peak_bytes=int((memory / ("memory.peak" if version == 2 else "memory.max_usage_in_bytes")).read_text()),
    )
