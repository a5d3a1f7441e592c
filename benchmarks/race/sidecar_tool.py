"""The sidecar as a tool of the race: one run of ``watch`` for all programs, its dumps in a directory."""

from __future__ import annotations

import contextlib
import os
import shutil
import time
from collections.abc import Iterator, Mapping
from pathlib import Path

from benchmarks import sidecar_run
from benchmarks.errors import BenchmarkError
from benchmarks.ground import say
from benchmarks.race.inuse import inuse_bytes
from benchmarks.race.model import Saved
from benchmarks.race.program import App
from benchmarks.sidecar_run import Fields, SidecarRun
from localpod.pod import LocalPod
from sidecar.core.keys import OUTCOME_PREFIX, QUEUE_FOLDER, parse_dump_id
from sidecar.core.outcome import Ending

_DONE_WITHIN_S = 60.0
_POLL_S = 0.02
_OF_THE_LIVING = f"{OUTCOME_PREFIX}{Ending.PROCESS_OOM_KILLED}.json"
_BASELINE = "heap-baseline"


class SidecarTool:
    """A sidecar that watches the pod."""

    interval_s = 0.1

    def __init__(self, pod: LocalPod, run: SidecarRun) -> None:
        self.pod = pod
        self._run = run
        self._spool = run.folder / "spool"
        self._dumps = run.folder / "dumps"
        self._mark = 0

    def settle(self, app: App) -> None:
        """Wait until the sidecar has said that it watches the program, and with which threshold."""

        def is_guarded(fields: Fields) -> bool:
            return fields.get("pid") == app.pod_pid and fields["threshold_bytes"] is not None

        self._mark = self._run.mark()
        self._run.wait_for("watching", is_guarded)

    def finish(self, app: App) -> Saved | None:
        """Wait until the outcome is in the directory and nothing is left in the spool; the dumps are then removed."""

        def is_this(fields: Fields) -> bool:
            return fields.get("pid") == app.pod_pid

        self._run.wait_for("container-ended", is_this, after=self._mark)
        folders = self._wait_for_outcome(app)
        captured = [event.at_s for event in self._run.events("captured", after=self._mark) if is_this(event.fields)]
        files = [
            path for folder in folders for path in folder.glob("heap*.pb.gz") if not path.name.startswith(_BASELINE)
        ]
        sizes = {path: inuse_bytes(path.read_bytes()) for path in files}
        whole = {path: size for path, size in sizes.items() if size is not None}
        # A dump that was made of what was in hand at the kill has no moment in the log; its files have.
        moments = captured or [path.stat().st_mtime for path in whole]
        for folder in folders:
            shutil.rmtree(folder)
        if not whole:
            say(f"race: no dump; {self._run.story(self._mark)}")
            return None
        best = max(whole, key=whole.__getitem__)
        return Saved(inuse_bytes=whole[best], safe_at_s=min(moments), best=best.name)

    def _wait_for_outcome(self, app: App) -> list[Path]:
        deadline_s = time.monotonic() + _DONE_WITHIN_S
        while True:
            outcomes = [path for path in self._dumps.rglob(f"{OUTCOME_PREFIX}*") if _pid(path.parent) == app.pod_pid]
            if any(path.name != _OF_THE_LIVING for path in outcomes) and not self._has_work():
                return [path for path in self._dumps.rglob("*") if path.is_dir() and _pid(path) == app.pod_pid]
            if time.monotonic() > deadline_s:
                raise BenchmarkError(
                    f"the sidecar isn't done within {_DONE_WITHIN_S:g} s of the end; {self._run.story(self._mark)}"
                )
            time.sleep(_POLL_S)

    def _has_work(self) -> bool:
        return any(files for _, _, files in os.walk(self._spool / QUEUE_FOLDER))


def _pid(folder: Path) -> int | None:
    dump_id = parse_dump_id(folder.name)
    return dump_id.pid if dump_id else None


@contextlib.contextmanager
def running_sidecar(
    pod: LocalPod, python: Path, settings: Mapping[str, str], *, private_cgroups: bool
) -> Iterator[SidecarTool]:
    """Run ``watch`` in a container of the pod while a ``with`` block lasts; ready when it has said that it watches."""
    with sidecar_run.running(pod, python, settings, private_cgroups=private_cgroups) as run:
        run.wait_for("started")
        yield SidecarTool(pod, run)
