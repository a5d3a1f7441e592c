"""The poller that one would write (`benchmarks.race.http_poller`) as a tool of the race: one run for each program."""

from __future__ import annotations

import json
import os
import select
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import IO

from benchmarks.errors import BenchmarkError
from benchmarks.race import http_poller
from benchmarks.race.inuse import inuse_bytes
from benchmarks.race.model import Saved
from benchmarks.race.program import App
from localpod.pod import LocalContainer, LocalPod

_READY_WITHIN_S = 30.0
_END_WITHIN_S = 30.0


@dataclass(frozen=True, slots=True, kw_only=True)
class _Run:
    container: LocalContainer
    output: IO[bytes]
    folder: tempfile.TemporaryDirectory[str]


class PollerTool:
    """A poller that looks each ``interval_s``."""

    def __init__(self, pod: LocalPod, interval_s: float) -> None:
        self.pod = pod
        self.interval_s = interval_s
        self._run: _Run | None = None

    def settle(self, app: App) -> None:
        """Start a poller for a program, and wait until it polls."""
        self.close()
        folder = tempfile.TemporaryDirectory(prefix="oom-heap-dumper-race-")
        cgroup = app.container.cgroup
        usage = cgroup.memory / ("memory.current" if cgroup.version == 2 else "memory.usage_in_bytes")
        arguments = [str(usage), str(app.cell.limit_bytes), app.heap_url, folder.name, str(self.interval_s)]
        reading, writing = os.pipe()
        output = os.fdopen(reading, "rb", buffering=0)
        try:
            container = self.pod.start(
                "poller",
                [sys.executable, "-I", "-S", http_poller.__file__, *arguments],
                env={},
                private_cgroups=False,
                stdout=writing,
                stderr=subprocess.DEVNULL,
            )
        except BaseException:
            output.close()
            folder.cleanup()
            raise
        finally:
            os.close(writing)
        self._run = _Run(container=container, output=output, folder=folder)
        if not select.select([output], [], [], _READY_WITHIN_S)[0]:
            raise BenchmarkError(f"the poller isn't ready within {_READY_WITHIN_S:g} s")

    def finish(self, app: App) -> Saved | None:
        """Wait until the poller has noticed the end, then read what it left."""
        run = self._run
        if run is None:
            raise BenchmarkError(f"no poller was started for {app.container.name}")
        try:
            run.container.wait(_END_WITHIN_S)
        except TimeoutError as error:
            raise BenchmarkError(str(error)) from None
        told = [json.loads(line) for line in run.output.read().splitlines()]
        found = {path.name: inuse_bytes(path.read_bytes()) for path in Path(run.folder.name).iterdir()}
        self.close()
        whole = {name: size for name, size in found.items() if size is not None}
        moments = [float(fields["at_s"]) for fields in told if fields["event"] == "saved"]
        if not whole or not moments:
            return None
        best = max(whole, key=whole.__getitem__)
        return Saved(inuse_bytes=whole[best], safe_at_s=min(moments), best=best)

    def close(self) -> None:
        """End the poller, if one runs, and remove its files."""
        if self._run is not None:
            self._run.container.remove()
            self._run.output.close()
            self._run.folder.cleanup()
            self._run = None
