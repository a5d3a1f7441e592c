"""A pod that podman runs, its log, and what of it arrived in the store."""

from __future__ import annotations

import contextlib
import json
import os
import signal
from collections.abc import Callable
from dataclasses import dataclass
from fnmatch import fnmatch
from pathlib import Path
from typing import Any, TypeVar

import psutil
import yaml

from localpod.podman import Podman
from tests.e2e.sidecar_run import wait_until
from tests.k8s.manifests import SIDECAR, Manifest
from tests.s3_servers import S3Endpoint

T = TypeVar("T")

DEADLINE_S = 180.0
_TIDY_WITHIN_S = 5.0


@dataclass(frozen=True, slots=True, kw_only=True)
class RunningPod:
    """One pod; its dumps are in ``store`` below a prefix of its own name."""

    name: str
    podman: Podman
    store: S3Endpoint

    def create(self, manifest: Manifest, folder: Path) -> int:
        """Make it, without a container that runs; return the PID of the process that holds its namespaces."""
        path = folder / f"{self.name}.yaml"
        path.write_text(yaml.safe_dump(manifest))
        return self.podman.create_pod(path, self.name)

    def start(self) -> None:
        """Run its containers."""
        self.podman.run("pod", "start", self.name)

    def start_container(self, container: str) -> None:
        """Run one of them."""
        self.podman.run("start", self.in_podman(container))

    def stop_container(self, container: str) -> None:
        """SIGTERM to one of them and the wait for its end, with no restart, as when the pod ends."""
        self.podman.run("stop", "--time", f"{DEADLINE_S:.0f}", self.in_podman(container), timeout_s=DEADLINE_S + 30)

    def remove(self) -> None:
        """Kill what runs of it and remove its volumes."""
        ids = self.podman.run("ps", "--no-trunc", "--quiet", "--filter", f"pod={self.name}").split()
        self.podman.attempt("pod", "kill", self.name)
        # What tidies up after each container needs a lock that removal holds while it waits for it, for seconds.
        with contextlib.suppress(AssertionError):
            wait_until("the containers are tidied up", lambda: not _mentioned(ids), _TIDY_WITHIN_S)
        self.podman.attempt("pod", "rm", "--force", "--time", "0", "--ignore", self.name)
        volumes = self.podman.run("volume", "ls", "--quiet", "--filter", f"name={self.name}").split()
        if volumes:
            self.podman.attempt("volume", "rm", *volumes)

    def in_podman(self, container: str) -> str:
        """A container's name as podman knows it."""
        return f"{self.name}-{container}"

    def log(self, container: str = SIDECAR) -> str:
        """All that a container printed, over its restarts."""
        finished = self.podman.attempt("logs", self.in_podman(container))
        return finished.stdout + finished.stderr

    def events(self, name: str | None = None, **fields: object) -> list[dict[str, Any]]:
        """The sidecar's events so far, of that name and whose fields are as given."""
        wanted = fields if name is None else {"event": name, **fields}
        found = [json.loads(line) for line in self.log().splitlines() if line.startswith("{")]
        return [event for event in found if wanted.items() <= event.items()]

    def wait_for(self, name: str, count: int = 1, **fields: object) -> dict[str, Any]:
        """The ``count``-th such event."""
        what = f"event {name} {fields or ''}"
        return self._await(what, lambda: self.events(name, **fields)[count - 1 : count])[0]

    def exits(self, container: str) -> list[int]:
        """The exit codes of a container's runs that have ended, in order."""
        which = f"container={self.in_podman(container)}"
        lines = self.podman.run(
            "events", "--stream=false", "--filter", "event=died", "--filter", which, "--format", "json"
        )
        return [json.loads(line).get("ContainerExitCode", 0) for line in lines.splitlines()]

    def wait_for_exit(self, container: str, count: int = 1) -> int:
        """The exit code of a container's ``count``-th run, once it has ended."""
        return self._await(f"end {count} of {container}", lambda: self.exits(container)[count - 1 : count])[0]

    def execute(self, *command: str, container: str = SIDECAR) -> str:
        """Run a command in a container, as ``kubectl exec`` would, and return what it prints."""
        finished = self.podman.attempt("exec", self.in_podman(container), *command)
        assert finished.returncode == 0, finished.stdout + finished.stderr
        return finished.stdout

    def pid(self, container: str) -> int:
        """A container's first process, as this machine numbers it."""
        return int(self.podman.inspect("container", self.in_podman(container))["State"]["Pid"])

    def signal(self, number: signal.Signals, container: str = SIDECAR) -> None:
        """Send a signal to a container's first process past podman, which would not restart what it has killed."""
        os.kill(self.pid(container), number)

    def stored(self, pattern: str = "*") -> dict[str, bytes]:
        """What the store has of this pod, by key, where the key's last part matches."""
        client = self.store.client()
        try:
            pages = client.get_paginator("list_objects_v2").paginate(Bucket=self.store.bucket, Prefix=f"{self.name}/")
            keys = [item["Key"] for page in pages for item in page.get("Contents", [])]
            return {
                key: client.get_object(Bucket=self.store.bucket, Key=key)["Body"].read()
                for key in keys
                if fnmatch(key.rpartition("/")[2], pattern)
            }
        finally:
            client.close()

    def dumps(self) -> set[str]:
        """The keys of the dumps in the store that are whole: the manifest is stored last."""
        return {key.rpartition("/")[0] for key in self.stored("manifest.json")}

    def wait_for_dumps(self, keys: set[str]) -> None:
        """Until all of these are in the store."""
        self._await(f"{keys} stored", lambda: [True] if keys <= self.dumps() else [])

    def documents(self, pattern: str) -> list[dict[str, Any]]:
        """Manifests or outcomes in the store as JSON, oldest first."""
        return [json.loads(body) for _, body in sorted(self.stored(pattern).items())]

    def wait_for_document(self, pattern: str, count: int = 1) -> dict[str, Any]:
        """The ``count``-th of them."""
        return self._await(pattern, lambda: self.documents(pattern)[count - 1 : count])[0]

    def _await(self, what: str, probe: Callable[[], list[T]]) -> list[T]:
        try:
            return wait_until(what, probe, DEADLINE_S)
        except AssertionError as error:
            raise AssertionError(f"{error}\n{self.log()}") from None


def _mentioned(words: list[str]) -> bool:
    """Whether any process of the machine has one of the words in its arguments."""
    arguments = (" ".join(process.info["cmdline"] or ()) for process in psutil.process_iter(["cmdline"]))
    return any(word in text for text in arguments for word in words)
