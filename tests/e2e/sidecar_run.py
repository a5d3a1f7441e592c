"""Runs the real sidecar in a local pod and follows its JSON log."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from localpod.pod import LocalContainer, LocalPod

T = TypeVar("T")

DEADLINE_S = 120.0
PROJECT = Path(__file__).resolve().parents[2]


def wait_until(what: str, probe: Callable[[], T], deadline_s: float = DEADLINE_S) -> T:
    """Poll until ``probe`` is true; an AssertionError that says what didn't come about."""
    ends_s = time.monotonic() + deadline_s
    while True:
        found = probe()
        if found:
            return found
        assert time.monotonic() < ends_s, f"not within {deadline_s:g} s: {what}"
        time.sleep(0.02)


def free_port() -> int:
    """A port that was free a moment ago."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
    assert isinstance(port, int)
    return port


@dataclass
class SidecarRun:
    """A sidecar with its own spool and directory below ``folder``; may be started again in the same ones."""

    pod: LocalPod
    folder: Path
    settings: Mapping[str, str]
    wrapper: tuple[str, ...] = ()
    memory_limit_bytes: int | None = None
    private_cgroups: bool = True

    @property
    def environment(self) -> dict[str, str]:
        """What any of its commands is run with."""
        return {
            "PATH": os.environ["PATH"],
            "PYTHONDONTWRITEBYTECODE": "1",
            "SPOOL_DIR": str(self.folder / "spool"),
            "DUMP_DIR": str(self.folder / "dumps"),
            "POD_NAME": "api-0",
            "POD_NAMESPACE": "prod",
            "LOG_FORMAT": "json",
            "LOG_LEVEL": "debug",
            **self.settings,
        }

    @property
    def log_path(self) -> Path:
        """Its stderr, of all starts."""
        return self.folder / "sidecar.log"

    def start(self) -> LocalContainer:
        """Start ``watch``; returns when it says that it has started, so that no app's time runs before it looks."""
        before = len(self.events("started")) if self.log_path.exists() else 0
        with self.log_path.open("ab") as log:
            self.container = self.pod.start(
                "sidecar",
                [*self.wrapper, sys.executable, "-m", "sidecar", "watch"],
                env=self.environment,
                memory_limit_bytes=self.memory_limit_bytes,
                directory=PROJECT,
                private_cgroups=self.private_cgroups,
                stderr=log,
            )
        if self.environment["LOG_FORMAT"] == "json":
            self.wait_for("started", before + 1)
        return self.container

    def events(self, name: str) -> list[dict[str, Any]]:
        """The events of that name so far."""
        lines = [json.loads(line) for line in self.log_path.read_text().splitlines() if line.startswith("{")]
        return [line for line in lines if line["event"] == name]

    def wait_for(self, name: str, count: int = 1, **fields: object) -> dict[str, Any]:
        """The ``count``-th event of that name whose fields are as given."""

        def probe() -> list[dict[str, Any]]:
            was_running = self.container.is_running  # what it says before it ends is in the log then
            found = [event for event in self.events(name) if fields.items() <= event.items()]
            assert was_running or found[count - 1 : count], f"the sidecar has ended without event {name} {fields or ''}"
            return found[count - 1 : count]

        try:
            return wait_until(f"event {name} {fields or ''}", probe)[0]
        except AssertionError as error:
            raise AssertionError(f"{error}\n{self.log_path.read_text()}") from None

    def status(self) -> dict[str, Any]:
        """What the watch last wrote of itself; nothing before it did."""
        try:
            found = json.loads((self.folder / "spool/.status.json").read_text())
        except FileNotFoundError:
            return {}
        assert isinstance(found, dict)
        return found

    def samples(self) -> int:
        """How many samples it has taken, as of its last status."""
        return int(self.status().get("samples", 0))

    def stop(self) -> int:
        """SIGTERM, then its exit status."""
        self.container.terminate()
        return self.container.wait(DEADLINE_S)

    def command(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        """Run another subcommand outside of the pod, as an engineer would at their desk."""
        return subprocess.run(
            [sys.executable, "-m", "sidecar", *arguments],
            env=self.environment,
            cwd=PROJECT,
            capture_output=True,
            text=True,
            timeout=DEADLINE_S,
            check=False,
        )

    def exec(self, *arguments: str) -> tuple[int, str]:
        """Run another subcommand in the pod, as ``kubectl exec`` would, in a container of its own."""
        path = self.folder / "exec.out"
        with path.open("wb") as output:
            container = self.pod.start(
                "exec",
                [*self.wrapper, sys.executable, "-m", "sidecar", *arguments],
                env=self.environment,
                directory=PROJECT,
                private_cgroups=self.private_cgroups,
                stdout=output,
                stderr=output,
            )
            status = container.wait(DEADLINE_S)
        return status, path.read_text()

    def stored(self, pattern: str) -> list[Path]:
        """Files in the directory store."""
        return sorted((self.folder / "dumps").rglob(pattern))


def manifest_of(path: Path) -> dict[str, Any]:
    """A manifest or outcome as JSON."""
    document = json.loads(path.read_text())
    assert isinstance(document, dict)
    return document
