"""Finds the containers of the pod: processes of the shared PID namespace, grouped by memory cgroup."""

from __future__ import annotations

import os
import re
import time
from dataclasses import dataclass, field, replace
from pathlib import Path

import psutil

from sidecar.core.model import Container, Process
from sidecar.core.roll_call import Resident
from sidecar.kernel import membership, proc_files, residents

# PID 1 of a pod's shared PID namespace: the infra containers of Kubernetes, podman and OpenShift.
_PAUSE_NAMES = {"pause", "catatonit", "pod"}

# A container's first process while the runtime still sets it up: it will become the app by execve. crun runs a copy of
# itself from a descriptor (cloned_binary.c), by whose number or name the kernel calls it.
_RUNTIME_STAGE = re.compile(r"runc:\[|crun$|youki:\[")
_PERHAPS_CRUN = re.compile(r"\d+$|memfd:crun")

# The kubelet bind-mounts the termination log from PODS/UID/containers/NAME/ID; the mount's root tells the name. Where a
# pod has it elsewhere (terminationMessagePath), UID and ID must look like the kubelet's: a volume may be laid out so.
_TERMINATION_LOG = "/termination-log"
_LOG_ROOT = re.compile(r"(?:/pods/[^/ ]+|^)/containers/([^/ ]+)/[^/ ]+$", re.ASCII)
_STRICT_LOG_ROOT = re.compile(r"/pods/[0-9a-f-]{32,36}/containers/([^/ ]+)/[0-9a-f]{8}$", re.ASCII)

# The kernel cuts names to this (TASK_COMM_LEN); the whole one is mostly the last part of the first argument.
_CUT_AT_BYTES = 15
_FIRST_ARGUMENT_BYTES = 4096

_YOUNG_S = 10.0
_EXPLICIT_KEY = "explicit"


@dataclass(slots=True)
class _Known:
    handle: psutil.Process
    process: Process
    key: str
    since_s: float = field(default_factory=time.monotonic)


class ProcessTable:
    """What is known of the processes in ``proc``, refreshed by `scan`."""

    def __init__(self, proc: Path, *, pids: tuple[int, ...] = (), container_name: str | None = None) -> None:
        """With ``pids`` only these are looked at, as one container. ``container_name`` names an only container."""
        self._proc = proc
        self._explicit = pids
        self._container_name = container_name
        self._known: dict[int, _Known] = {}
        self._names: dict[str, str] = {}
        self._unsure: set[str] = set()
        psutil.PROCFS_PATH = str(proc)

    def scan(self, *, verify: bool = False) -> tuple[Container, ...]:
        """The containers of now, each with at least one process.

        New and vanished processes are seen by each scan. That a PID was reused between two scans, or that a process
        executed another program or changed its cgroup, is seen only with ``verify``, which costs some reads for each
        known process, or while it is young: a runtime sets a container up in several steps.
        """
        present = set(self._explicit or psutil.pids())
        for pid in self._known.keys() - present:
            del self._known[pid]
        for pid in present:
            known = self._known.get(pid)
            if known is not None and (not (verify or self._is_young(pid)) or self._refresh(known)):
                continue
            self._known.pop(pid, None)
            added = self._look(pid)
            if added is not None:
                self._known[pid] = added
        return self._group()

    def is_alive(self, process: Process) -> bool:
        """Whether this very process still runs, under whatever name; false for another one that got its PID."""
        known = self._known.get(process.pid)
        try:
            return known is not None and known.process == process and _runs(known.handle)
        except psutil.Error:
            return False

    def _refresh(self, known: _Known) -> bool:
        """Read anew what a process may change about itself; false if it has ended."""
        handle, process = known.handle, known.process
        try:
            if not _runs(handle):
                return False
            with handle.oneshot():
                uid, gid = handle.uids().effective, handle.gids().effective
        except (psutil.Error, OSError, ValueError):
            return False
        key, seen = self._cgroup_of(process.pid), residents.look_at(self._proc, process.pid)
        if key is None or seen is None:
            return False
        known.process, known.key = replace(process, name=self._whole_name(seen), uid=uid, gid=gid), key
        return True

    def _look(self, pid: int) -> _Known | None:
        seen = residents.look_at(self._proc, pid)  # psutil's name would be out of all that it says its arguments are
        if seen is None or _RUNTIME_STAGE.match(seen.name):
            return None
        if _PERHAPS_CRUN.match(seen.name) and self._called(pid) == "crun":
            return None
        try:
            handle = psutil.Process(pid)
            with handle.oneshot():
                process = Process(
                    pid=pid,
                    created_at_s=handle.create_time(),
                    name=self._whole_name(seen),
                    uid=handle.uids().effective,
                    gid=handle.gids().effective,
                )
        except (psutil.Error, OSError, ValueError):
            return None  # it ended while we looked
        key = self._cgroup_of(pid)
        return None if key is None else _Known(handle, process, key)

    def _whole_name(self, seen: Resident) -> str:
        if len(seen.name.encode(errors="replace")) < _CUT_AT_BYTES:
            return seen.name
        whole = self._called(seen.pid)
        return whole if whole.startswith(seen.name) else seen.name

    def _called(self, pid: int) -> str:
        """The last part of a process's first argument; empty if it has none or has ended."""
        try:
            arguments = proc_files.read_start(self._proc / str(pid) / "cmdline", _FIRST_ARGUMENT_BYTES)
        except OSError:
            return ""
        return arguments.partition(b"\0")[0].rpartition(b"/")[2].decode(errors="replace")

    def _cgroup_of(self, pid: int) -> str | None:
        if self._explicit:
            return _EXPLICIT_KEY
        try:
            found = membership.read_cgroup(self._proc, pid)
        except OSError:
            return None
        return found[1] if found else None

    def _group(self) -> tuple[Container, ...]:
        excluded = self._excluded_keys()
        groups: dict[str, list[Process]] = {}
        for known in self._known.values():
            if known.key not in excluded:
                groups.setdefault(known.key, []).append(known.process)
        self._names = {key: name for key, name in self._names.items() if key in groups}
        self._unsure &= groups.keys()
        containers = []
        for key, processes in groups.items():
            processes.sort(key=lambda process: (process.created_at_s, process.pid))
            name = self._name(key, processes, only=len(groups) == 1)
            containers.append(Container(key=key, name=name, processes=tuple(processes)))
        return tuple(sorted(containers, key=lambda container: container.key))

    def _excluded_keys(self) -> set[str | None]:
        """Ourselves, the pause container, and the root cgroup, which is never a container's."""
        if self._explicit:
            return set()
        excluded = {self._cgroup_of(os.getpid()), "/"}
        first = self._known.get(1)
        if first is not None and first.process.name in _PAUSE_NAMES:
            excluded.add(first.key)
        return excluded

    def _name(self, key: str, processes: list[Process], *, only: bool) -> str:
        """The name a container got when first seen: it stays while its processes come and go.

        A container that is being set up may get its mounts later, and its name from them.
        """
        name = self._names.get(key)
        if name is None or (key in self._unsure and self._is_young(processes[0].pid)):
            mounted = next(filter(None, (self._mounted_name(process.pid) for process in processes)), None)
            name = mounted or name or (self._container_name if only else None) or processes[0].name
            self._names[key] = name
            if mounted:
                self._unsure.discard(key)
            else:
                self._unsure.add(key)
        return name

    def _is_young(self, pid: int) -> bool:
        known = self._known.get(pid)
        return known is not None and time.monotonic() - known.since_s < _YOUNG_S

    def _mounted_name(self, pid: int) -> str | None:
        try:
            text = proc_files.read_lines(self._proc / str(pid) / "mountinfo")
        except OSError:
            return None
        return container_name(text)


def _runs(handle: psutil.Process) -> bool:
    return handle.is_running() and handle.status() != psutil.STATUS_ZOMBIE


def container_name(mountinfo: str) -> str | None:
    """The container's name in the pod spec, from the mount of its termination log; None outside of Kubernetes.

    >>> container_name("9 8 0:5 /var/lib/kubelet/pods/0a-1b/containers/api/77aa /dev/termination-log rw - ext4 /d rw")
    'api'
    """
    elsewhere = None
    for line in mountinfo.splitlines():
        fields = line.split()
        if len(fields) <= 4:
            continue
        if fields[4].endswith(_TERMINATION_LOG) and (match := _LOG_ROOT.search(fields[3])):
            return match[1]
        if match := _STRICT_LOG_ROOT.search(fields[3]):
            elsewhere = elsewhere or match[1]
    return elsewhere
