"""The sidecar's ``watch`` in a container of a local pod, and the events of its log."""

from __future__ import annotations

import contextlib
import json
import os
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import IO

from benchmarks.errors import BenchmarkError
from localpod.pod import LocalContainer, LocalPod

Fields = Mapping[str, object]
Matches = Callable[[Fields], bool]


@dataclass(frozen=True, slots=True, kw_only=True)
class Event:
    """A line of the log; ``at_s`` is the wall clock, cut to whole milliseconds by the log."""

    name: str
    at_s: float
    fields: Fields


class SidecarRun:
    """One run of ``watch``; made by `running`."""

    def __init__(self, container: LocalContainer, folder: Path, executed_s: float) -> None:
        """``folder`` holds ``spool`` and ``dumps``; ``executed_s`` is when the interpreter was executed, wall clock."""
        self.container = container
        self.folder = folder
        self.executed_s = executed_s
        self._events: list[Event] = []
        self._changed = threading.Condition()

    @property
    def pid(self) -> int:
        """The watch's process as this machine knows it."""
        return self.container.pid

    def follow(self, log: IO[bytes]) -> None:
        """Take in the log until it ends; the body of a thread."""
        for line in log:
            event = _event(line)
            with self._changed:
                self._events.append(event)
                self._changed.notify_all()

    def mark(self) -> int:
        """How many events there have been, for ``after`` below."""
        return len(self._events)

    def events(self, name: str, *, after: int = 0) -> list[Event]:
        """The events of this name so far, without the first ``after`` events of any name."""
        return [event for event in self._events[after:] if event.name == name]

    def story(self, after: int) -> str:
        """What the log said for people since then."""
        return "; ".join(str(event.fields.get("message")) for event in self._events[after:])

    def wait_for(
        self, name: str, matches: Matches = lambda _: True, *, after: int = 0, count: int = 1, within_s: float = 60.0
    ) -> Event:
        """The ``count``-th event that matches. Raises `BenchmarkError` if it doesn't come or the sidecar ends."""
        deadline_s = time.monotonic() + within_s
        with self._changed:
            while True:
                found = [event for event in self.events(name, after=after) if matches(event.fields)]
                if len(found) >= count:
                    return found[count - 1]
                if not self.container.is_running:
                    raise BenchmarkError(f"the sidecar ended before {name!r}; its last event: {self._last()}")
                if time.monotonic() >= deadline_s:
                    raise BenchmarkError(f"no {name!r} within {within_s:g} s; the last event: {self._last()}")
                self._changed.wait(0.1)

    def _last(self) -> str:
        fields = self._events[-1].fields if self._events else {}
        cause = str(fields.get("exception", "")).rpartition("\n")[2]
        return f"{fields.get('message', 'none')}{cause and f' ({cause})'}"


def _event(line: bytes) -> Event:
    """Read a line of the log; one that isn't the log's, such as Python's own last words, is an event without name."""
    try:
        fields = json.loads(line)
        return Event(name=fields["event"], at_s=datetime.fromisoformat(fields["time"]).timestamp(), fields=fields)
    except (ValueError, KeyError, TypeError):
        return Event(name="", at_s=time.time(), fields={"message": line.decode(errors="replace").strip()})


@contextlib.contextmanager
def running(
    pod: LocalPod,
    python: Path,
    settings: Mapping[str, str],
    *,
    cpu_millicores: int | None = None,
    private_cgroups: bool = True,
) -> Iterator[SidecarRun]:
    """Run ``watch`` with directories of its own while a ``with`` block lasts; ``settings`` are its environment.

    ``private_cgroups=False`` shows it the machine's cgroups, writable.
    """
    reading, writing = os.pipe()
    with tempfile.TemporaryDirectory(prefix="oom-heap-dumper-bench-") as folder, os.fdopen(reading, "rb") as log:
        environment = {
            "PATH": os.defpath,
            "LANG": "C.UTF-8",
            "SPOOL_DIR": f"{folder}/spool",
            "DUMP_DIR": f"{folder}/dumps",
            "POD_NAME": "api-0",
            "POD_NAMESPACE": "bench",
            "LOG_FORMAT": "json",
            **settings,
        }
        try:
            container = pod.start(
                "sidecar",
                [python, "-m", "sidecar", "watch"],
                env=environment,
                directory=Path("/"),
                cpu_millicores=cpu_millicores,
                private_cgroups=private_cgroups,
                stderr=writing,
            )
            run = SidecarRun(container, Path(folder), executed_s=time.time())
        finally:
            os.close(writing)
        reader = threading.Thread(target=run.follow, args=(log,), name="log", daemon=True)
        reader.start()
        try:
            yield run
        finally:
            container.kill()
            container.remove()
            reader.join()
