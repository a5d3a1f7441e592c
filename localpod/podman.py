"""Podman with a state of its own: images, containers and networks of the machine's podman are neither seen nor changed.

Pods run on a network of theirs that ends at this machine: `Podman.gateway` is where they reach it, and nothing further.
Written for podman 4.3, the one of Debian 12; what it makes of a manifest differs between versions.
"""

from __future__ import annotations

import contextlib
import fcntl
import functools
import hashlib
import json
import os
import shutil
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from localpod import cgroups
from localpod.errors import LocalPodError

PACKAGES = ("podman", "runc", "netavark", "iptables", "catatonit", "mmdebstrap")
"""The Debian packages that podman pods and their images need; nothing that these recommend."""

NETWORK = "pods"

_COMMANDS = ("podman", "runc", "iptables", "mmdebstrap", "apt-get", "apt-config")
_RUN_WITHIN_S = 60.0
_INSTALL_WITHIN_S = 900.0

# runc: crun 1.8 refuses hosts with v1 and v2 hierarchies. file locks: the default is one piece of shared memory for
# all of the machine's podmans. The ulimits: podman asks for more than a root without CAP_SYS_RESOURCE may give.
_CONTAINERS_CONF = """\
[containers]
default_ulimits = ["nofile=20000:20000", "nproc=32768:32768"]
log_driver = "k8s-file"
[engine]
runtime = "runc"
cgroup_manager = "cgroupfs"
events_logger = "file"
lock_type = "file"
tmp_dir = "{run}/libpod"
[network]
network_backend = "netavark"
network_config_dir = "{home}/networks"
"""
_STORAGE_CONF = """\
[storage]
driver = "overlay"
graphroot = "{home}/storage"
runroot = "{run}/storage"
"""


@functools.cache
def unavailable() -> str | None:
    """Why podman can't be used here, in one line with the remedy; None if it can."""
    reason = cgroups.unavailable()
    if reason is not None:
        return reason
    missing = [command for command in _COMMANDS if shutil.which(command) is None]
    if missing:
        return f"{', '.join(missing)} missing: apt-get install --no-install-recommends {' '.join(PACKAGES)}"
    return None


class Podman:
    """A podman whose state is below ``home``, and, while anything runs, below a directory in /run named after it."""

    def __init__(self, home: Path) -> None:
        self.home = home.resolve()
        self._run = Path("/run", f"localpod-{hashlib.sha256(str(self.home).encode()).hexdigest()[:8]}")
        for directory in (self.home / "networks", self._run):
            directory.mkdir(parents=True, exist_ok=True)
        files = {
            "containers.conf": _CONTAINERS_CONF,
            "storage.conf": _STORAGE_CONF,
            "registries.conf": "unqualified-search-registries = []\n",
        }
        for name, text in files.items():
            content = text.format(home=self.home, run=self._run)
            path = self.home / name
            if not path.exists() or path.read_text() != content:
                path.write_text(content)

    @property
    def environment(self) -> dict[str, str]:
        """What podman is run with: our configuration, and no timers of systemd for the health checks."""
        kept = {name: os.environ[name] for name in ("PATH", "TMPDIR") if name in os.environ}
        return kept | {
            "CONTAINERS_CONF": str(self.home / "containers.conf"),
            "CONTAINERS_STORAGE_CONF": str(self.home / "storage.conf"),
            "CONTAINERS_REGISTRIES_CONF": str(self.home / "registries.conf"),
            "DISABLE_HC_SYSTEMD": "true",
            "HOME": str(self.home),
        }

    def run(self, *arguments: str | Path, text: str | None = None, timeout_s: float = _RUN_WITHIN_S) -> str:
        """Run a podman command, with ``text`` on its stdin, and return what it prints on stdout.

        Raises `LocalPodError` with its last words.
        """
        finished = self.attempt(*arguments, text=text, timeout_s=timeout_s)
        if finished.returncode != 0:
            words = " ".join(finished.stderr.strip().splitlines()[-5:])
            raise LocalPodError(f"podman {arguments[0]} failed with {finished.returncode}: {words}")
        return finished.stdout

    def attempt(
        self, *arguments: str | Path, text: str | None = None, timeout_s: float = _RUN_WITHIN_S
    ) -> subprocess.CompletedProcess[str]:
        """Run a podman command that may fail. Raises `LocalPodError` if it can't be run or doesn't end."""
        command = ["podman", *map(str, arguments)]
        try:
            process = subprocess.Popen(
                command,
                env=self.environment,
                cwd=self.home,
                stdin=subprocess.DEVNULL if text is None else subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                text=True,
                start_new_session=True,
            )
        except OSError as error:
            raise LocalPodError(f"podman can't be run: {error.strerror}") from None
        with process:
            try:
                output, words = process.communicate(text, timeout=timeout_s)
            except BaseException as error:
                with contextlib.suppress(ProcessLookupError):
                    os.killpg(process.pid, signal.SIGKILL)
                if isinstance(error, subprocess.TimeoutExpired):
                    raise LocalPodError(f"podman {arguments[0]} didn't end within {timeout_s:g} s") from None
                raise
        return subprocess.CompletedProcess(command, process.returncode, output, words)

    def inspect(self, kind: str, name: str) -> dict[str, Any]:
        """What podman knows of an image, a container or a network. Raises `LocalPodError` if there is no such thing."""
        (found,) = json.loads(self.run(kind, "inspect", name))
        assert isinstance(found, dict)
        return found

    def has_image(self, name: str) -> bool:
        """Whether there is an image of that name."""
        return self.attempt("image", "exists", name).returncode == 0

    @contextlib.contextmanager
    def exclusively(self) -> Iterator[None]:
        """Keep other processes that use the same ``home`` out of such blocks meanwhile."""
        with (self.home / "lock").open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            yield

    def gateway(self) -> str:
        """This machine's IPv4 address on the pods' network, which is made by the first call.

        The address exists only while a pod runs. The network is internal: podman changes no firewall rule for it.
        """
        with self.exclusively():
            if self.attempt("network", "exists", NETWORK).returncode != 0:
                self._make_network()
        (subnet,) = self.inspect("network", NETWORK)["subnets"]
        return str(subnet["gateway"])

    def _make_network(self) -> None:
        """Podman finds a free subnet by itself, but gives an internal network a gateway only when told which."""
        create = ("network", "create", "--internal", "--disable-dns")
        self.run(*create, NETWORK)
        (subnet,) = self.inspect("network", NETWORK)["subnets"]
        self.run("network", "rm", NETWORK)
        first = subnet["subnet"].rpartition(".")[0] + ".1"
        self.run(*create, "--subnet", subnet["subnet"], "--gateway", first, NETWORK)


def output_of(command: list[str], text: str = "", *, timeout_s: float = _INSTALL_WITHIN_S) -> str:
    """Run one of the machine's own programs and return what it prints. Raises `LocalPodError` with its last words."""
    try:
        finished = subprocess.run(command, input=text, capture_output=True, text=True, check=False, timeout=timeout_s)
    except subprocess.TimeoutExpired:
        raise LocalPodError(f"{command[0]} didn't end within {timeout_s:g} s") from None
    if finished.returncode != 0:
        words = " ".join(finished.stderr.strip().splitlines()[-5:])
        raise LocalPodError(f"{Path(command[0]).name} {command[1]} failed: {words}")
    return finished.stdout
