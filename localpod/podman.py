"""Podman with a state of its own: images, containers and networks of the machine's podman are neither seen nor changed.

Pods run on a network of theirs that ends at this machine: `Podman.gateway` is where they reach it, and nothing further.
On a kernel without bridges each pod has its own loopback and nothing else.
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
import socket
import struct
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil

from localpod import cgroups, packages
from localpod.commands import run_to_end
from localpod.errors import LocalPodError

NETWORK = "pods"

# What base images are made of: Debian's own packages, as its apt is set up.
_DEBIANS_OWN = ("apt-get", "apt-config")
_RUN_WITHIN_S = 180.0
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
graphroot = "{layers}"
runroot = "{run}/storage"
"""
_FURTHER_IMAGES = """\
[storage.options]
additionalimagestores = ["{home}/storage"]
"""

_SIOCGIFBR = 0x8940  # linux/sockios.h: asks what bridges there are, and has the kernel load its module for them
_CGROUPS = Path("/sys/fs/cgroup")


@functools.cache
def unavailable() -> str | None:
    """Why podman can't be used here, in one line with the remedy; None if it can."""
    reason = cgroups.unavailable()
    if reason is not None:
        return reason
    absent = [command for command in _DEBIANS_OWN if shutil.which(command) is None]
    if absent:
        return f"{', '.join(absent)} missing, and images are made from Debian's packages: use Debian or Ubuntu"
    missing = packages.missing(packages.FOR_PODMAN)
    if missing:
        return f"{', '.join(missing)} missing: apt-get install --no-install-recommends {' '.join(missing)}"
    return None


class Podman:
    """A podman whose state is below ``home``, and, while anything runs, below a directory in /run named after it.

    Where ``home`` is on an overlay file system, which can't carry another one, new layers and containers are in
    /dev/shm instead; images that are in ``home`` all the same, put there by a machine below this one, can be used.
    """

    def __init__(self, home: Path) -> None:
        self.home = home.resolve()
        name = f"localpod-{hashlib.sha256(str(self.home).encode()).hexdigest()[:8]}"
        self._run = Path("/run", name)
        for directory in (self.home / "networks", self._run):
            directory.mkdir(parents=True, exist_ok=True)
        overlaid = _file_system_of(self.home) == "overlay"
        self.has_foreign_images = overlaid and (self.home / "storage").exists()
        files = {
            "containers.conf": _CONTAINERS_CONF,
            "storage.conf": _STORAGE_CONF + (_FURTHER_IMAGES if self.has_foreign_images else ""),
            "registries.conf": "unqualified-search-registries = []\n",
        }
        layers = Path("/dev/shm", name) if overlaid else self.home / "storage"
        for file, text in files.items():
            content = text.format(home=self.home, run=self._run, layers=layers)
            path = self.home / file
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
        return run_to_end(command, self.home, self.environment, text=text, timeout_s=timeout_s)

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

    @functools.cached_property
    def has_bridges(self) -> bool:
        """Whether this kernel can give pods a network: without one they have loopback alone."""
        with socket.socket() as any_socket:
            try:
                fcntl.ioctl(any_socket, _SIOCGIFBR, struct.pack("3L", 0, 0, 0))
            except OSError:
                return False
        return True

    def create_pod(self, manifest: Path, pod: str) -> int:
        """Make the pod of a manifest, whose name is ``pod``, by ``podman kube play``; ``podman pod start`` runs it.

        Returns the PID of the one process that it has by then, which holds its namespaces. Raises `LocalPodError` with
        podman's last words.
        """
        network = NETWORK if self.has_bridges else "none"
        self.run("kube", "play", "--start=false", "--network", network, manifest)
        words = self.run("pod", "inspect", "--format", "{{.InfraContainerID}} {{.CgroupPath}}", pod).split()
        holder, cgroup = words[0], Path(words[1])
        if (_CGROUPS / "cgroup.controllers").exists():
            # With cgroupfs on v2 podman 4.3 lets a pod's own cgroup use no device, /dev/null included, and runc gives
            # up. A cgroup that runc makes itself has no such filter.
            (_CGROUPS / cgroup.relative_to("/")).rmdir()
        self.run("start", holder)
        pid = self.inspect("container", holder)["State"]["Pid"]
        assert isinstance(pid, int)
        return pid

    def gateway(self) -> str:
        """This machine's IPv4 address on the pods' network, which is made by the first call.

        The address exists only while a pod runs. The network is internal: podman changes no firewall rule for it.
        Raises `LocalPodError` where the kernel has no bridges.
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


def _file_system_of(path: Path) -> str:
    """The type of the file system that a directory is on."""
    mounts = {Path(mount.mountpoint): mount.fstype for mount in psutil.disk_partitions(all=True)}  # later ones win
    return next((mounts[place] for place in (path, *path.parents) if place in mounts), "")
