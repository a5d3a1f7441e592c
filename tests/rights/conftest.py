"""A pod whose app and sidecar run with the rights of a case."""

from __future__ import annotations

import json
import os
import shutil
import socket
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from localpod.pod import LocalContainer, LocalPod
from tests.e2e.sidecar_run import DEADLINE_S, PROJECT, SidecarRun
from tests.rights import interpreter
from tests.rights.security import SecurityContext

MIB = 1 << 20
LIMIT_BYTES = 64 * MIB
# Not the cgroup's own, so that it shows which of them is held against.
ASSUMED_LIMIT_BYTES = 63 * MIB


@dataclass
class Ground:
    """A pod, the program of its app, and a folder that every user may write to."""

    pod: LocalPod
    program: Path
    folder: Path
    port: int

    def start_app(self, context: SecurityContext, env: Mapping[str, str], name: str = "api") -> LocalContainer:
        """Start the Go example as a container with a memory limit."""
        return self.pod.start(
            name,
            [*context.wrapper(), self.program],
            memory_limit_bytes=LIMIT_BYTES,
            env={"ADDR": f"127.0.0.1:{self.port}", "GOGC": "10", **env},
        )

    def sidecar(self, context: SecurityContext, *, assume_limit: bool = True) -> SidecarRun:
        """A sidecar in the pod; it may ask the app's port alone, as the network is the machine's."""
        folder = self.folder / str(len(list(self.folder.iterdir())))
        folder.mkdir()
        os.chown(folder, context.uid, context.gid)
        settings = {**interpreter.ENVIRONMENT, "PPROF_PORTS": str(self.port)}
        if assume_limit:
            settings["MEMORY_LIMIT"] = str(ASSUMED_LIMIT_BYTES)
        run = SidecarRun(pod=self.pod, folder=folder, settings=settings)
        run.wrapper = (*context.wrapper(), *interpreter.wrapper())
        return run

    def check(self, context: SecurityContext) -> dict[str, dict[str, Any]]:
        """What ``check`` says from inside of the pod, by container."""
        _, output = self.sidecar(context).exec("check", "--skip-store", "--output", "json")
        return {container["name"]: container for container in json.loads(output)["containers"]}

    def try_guard(self, context: SecurityContext) -> dict[str, Any]:
        """What `tests.rights.guard_probe` says, the machine's cgroups being mounted where it runs.

        The runtime gives it a cgroup namespace of its own unless it is privileged.
        """
        run = self.sidecar(context)
        path = run.folder / "guard.json"
        namespace = () if context.privileged else (shutil.which("unshare") or "unshare", "--cgroup")
        with path.open("wb") as output:
            container = self.pod.start(
                "guard",
                [*namespace, *run.wrapper, sys.executable, "-m", "tests.rights.guard_probe", run.folder],
                env=run.environment,
                directory=PROJECT,
                private_cgroups=False,
                stdout=output,
            )
            assert container.wait(DEADLINE_S) == 0
        found = json.loads(path.read_text())
        assert isinstance(found, dict)
        return found


@pytest.fixture
def ground(pod: LocalPod, leak: Path) -> Ground:
    """The pod of a test."""
    folder = pod.directory / "sidecars"
    folder.mkdir()
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
    return Ground(pod=pod, program=leak, folder=folder, port=port)
