"""A pod of real processes: one PID namespace with a pause process, and a memory cgroup for each container.

The processes see what they would see in Kubernetes with ``shareProcessNamespace: true``: each other, ``pause`` as
PID 1, their own cgroup mounted read-only at its usual place, and the mount of a termination log that tells the
container's name. The network and the files are the machine's.
"""

from __future__ import annotations

import contextlib
import functools
import json
import os
import shutil
import subprocess
import sys
import tempfile
import uuid
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import TracebackType
from typing import IO, Self

import psutil

from localpod import cgroups, enter
from localpod.errors import LocalPodError

Output = int | IO[bytes] | None

_END_WITHIN_S = 60.0

_NEW_NAMESPACES = ("--pid", "--fork", "--mount-proc", "--kill-child")

# Ignoring SIGCHLD lets the kernel reap orphans; reading ends, and the whole namespace with it, when we do.
_PAUSE = "import signal, sys; signal.signal(signal.SIGCHLD, signal.SIG_IGN); print(flush=True); sys.stdin.read()"


@functools.cache
def unavailable() -> str | None:
    """Why this process can't make pods here, in one line; None if it can. Asks the kernel once."""
    reason = cgroups.unavailable()
    if reason is not None:
        return reason
    unshare = shutil.which("unshare")
    if unshare is None:
        return "unshare isn't installed: it comes with util-linux"
    trial = subprocess.run([unshare, *_NEW_NAMESPACES, "--", "/bin/true"], capture_output=True, check=False, text=True)
    return None if trial.returncode == 0 else f"no PID namespaces: {trial.stderr.strip()}"


class LocalContainer:
    """One run of a program in its own cgroup. After a restart, under the same name, it is another one."""

    def __init__(self, name: str, cgroup: cgroups.Cgroup, process: subprocess.Popen[bytes]) -> None:
        self.name = name
        self.cgroup = cgroup
        self.process = process
        self._last_oom_kills: int | None = None

    @property
    def pid(self) -> int:
        """The main process as the machine knows it."""
        return self.process.pid

    @property
    def pod_pid(self) -> int:
        """The main process as the pod knows it. Raises `LocalPodError` when it has ended and was waited for."""
        try:
            status = Path(f"/proc/{self.pid}/status").read_text()
        except OSError:
            raise LocalPodError(f"container {self.name} has ended") from None
        return next(int(line.split()[-1]) for line in status.splitlines() if line.startswith("NSpid:"))

    @property
    def is_running(self) -> bool:
        """Whether the main process still runs."""
        return self.process.poll() is None

    @property
    def oom_kills(self) -> int:
        """Processes of this container that the OOM killer took; readable after its removal too."""
        return self.cgroup.oom_kills if self._last_oom_kills is None else self._last_oom_kills

    def terminate(self) -> None:
        """Send SIGTERM to the main process; none if it has ended."""
        self.process.terminate()

    def kill(self) -> None:
        """Send SIGKILL to the main process; none if it has ended."""
        self.process.kill()

    def wait(self, timeout_s: float) -> int:
        """Wait for the main process, then end the container as a runtime does: kill the rest, remove the cgroup.

        Returns the exit status, negative for the number of the signal that ended it: -9 after an OOM kill, which
        Kubernetes shows as 137. Raises `TimeoutError`.
        """
        try:
            status = self.process.wait(timeout_s)
        except subprocess.TimeoutExpired:
            raise TimeoutError(f"container {self.name} still runs after {timeout_s:g} s") from None
        self.remove()
        return status

    def remove(self) -> None:
        """Kill what is left of the container and remove its cgroup; nothing if that was done."""
        if self._last_oom_kills is None:
            cgroups.kill(self.cgroup)
            self.process.wait(_END_WITHIN_S)
            self._last_oom_kills = self.cgroup.oom_kills
            cgroups.remove(self.cgroup)


class LocalPod:
    """A pod, from ``with`` to its end, when every process, cgroup and file of it is gone.

    Entering raises `LocalPodError` where `unavailable` tells a reason. When this process is killed its pods' processes
    die with it; only their empty cgroups stay.
    """

    def __init__(self) -> None:
        self._runs: list[LocalContainer] = []
        self._cleanup = contextlib.ExitStack()

    def __enter__(self) -> Self:
        reason = unavailable()
        if reason is not None:
            raise LocalPodError(f"no pod can be made here: {reason}")
        with contextlib.ExitStack() as stack:
            self.directory = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="oom-heap-dumper-pod-")))
            self.directory.chmod(0o755)
            self.cgroup = stack.enter_context(cgroups.new_cgroup())
            self._pause_pid = self._start_pause(stack)
            self._cleanup = stack.pop_all()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._cleanup.close()

    def start(
        self,
        name: str,
        argv: Sequence[str | Path],
        *,
        memory_limit_bytes: int | None = None,
        cpu_millicores: int | None = None,
        env: Mapping[str, str] | None = None,
        uid: int | None = None,
        gid: int | None = None,
        directory: Path | None = None,
        private_cgroups: bool = True,
        stdout: Output = None,
        stderr: Output = None,
    ) -> LocalContainer:
        """Start a program as container ``name``; one of that name from before is killed and removed first.

        ``env`` is the whole environment (our own without it). With ``uid`` or ``gid`` supplementary groups are dropped.
        ``private_cgroups=False`` shows it the machine's cgroups, writable to root, as a hostPath mount would.
        Returns when the program itself runs. Raises `LocalPodError` if it can't.
        """
        for earlier in self._runs:
            if earlier.name == name:
                earlier.remove()
        command = [str(part) for part in argv]
        _read_ahead(command[0])
        number = len(self._runs)
        cgroup = cgroups.add_child(
            self.cgroup, f"{name}-{number}", memory_limit_bytes=memory_limit_bytes, cpu_millicores=cpu_millicores
        )
        log = self._termination_log(name, number)
        binds = [(str(log), str(log), False)]
        if private_cgroups:
            binds.append((str(cgroup.memory), str(self.cgroup.memory.parent), True))
        reading, writing = os.pipe()
        plan = enter.Plan(
            mount_namespace=f"/proc/{self._pause_pid}/ns/mnt",
            join_files=[str(path) for path in cgroup.join_files],
            binds=binds,
            private_cgroups=private_cgroups,
            directory=str(directory or Path.cwd()),
            uid=uid,
            gid=gid,
            argv=command,
            env=dict(os.environ if env is None else env),
            status_fd=writing,
        )
        with os.fdopen(reading, "rb") as status:
            try:
                container = self._spawn(name, cgroup, plan, stdout, stderr)
            except OSError as error:
                cgroups.remove(cgroup)
                raise LocalPodError(f"container {name} can't start: {error}") from error
            finally:
                os.close(writing)
            problem = status.read().decode(errors="replace")
        if problem:
            container.remove()
            raise LocalPodError(f"container {name} can't start: {problem}")
        return container

    def _spawn(
        self, name: str, cgroup: cgroups.Cgroup, plan: enter.Plan, stdout: Output, stderr: Output
    ) -> LocalContainer:
        """Start `localpod.enter` as a child of ours in the pod's PID namespace.

        Only the thread that enters a PID namespace has its children there, so one is spent on each start.
        """

        def spawn() -> LocalContainer:
            enter.setns(f"/proc/{self._pause_pid}/ns/pid", enter.CLONE_NEWPID)
            process = subprocess.Popen(
                [sys.executable, "-I", "-S", enter.__file__, json.dumps(plan)],
                stdin=subprocess.DEVNULL,
                stdout=stdout,
                stderr=stderr,
                pass_fds=[plan["status_fd"]],
                start_new_session=True,
            )
            self._runs.append(LocalContainer(name, cgroup, process))
            return self._runs[-1]

        with ThreadPoolExecutor(max_workers=1, thread_name_prefix="localpod") as executor:
            return executor.submit(spawn).result()

    def _termination_log(self, name: str, number: int) -> Path:
        """The file that the kubelet would mount into the container, in folders as the kubelet names them."""
        pod_uid = str(uuid.uuid5(uuid.NAMESPACE_OID, self.cgroup.memory.name))
        log = self.directory / "pods" / pod_uid / "containers" / name / f"{number:08x}"
        log.parent.mkdir(parents=True, exist_ok=True)
        log.touch()
        log.chmod(0o666)
        return log

    def _start_pause(self, stack: contextlib.ExitStack) -> int:
        link = self.directory / "pause"  # the name that the process will have
        link.symlink_to(Path(sys.executable).resolve())
        process = subprocess.Popen(
            [shutil.which("unshare") or "unshare", *_NEW_NAMESPACES, "--", str(link), "-I", "-S", "-c", _PAUSE],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            start_new_session=True,  # a Ctrl-C is for us alone
        )
        stack.callback(self._end, process)
        if process.stdout is None or not process.stdout.readline():
            raise LocalPodError("the pod's first process doesn't start: see what unshare says above")
        pid = psutil.Process(process.pid).children()[0].pid
        cgroup = cgroups.add_child(self.cgroup, "pause")
        for path in cgroup.join_files:
            path.write_text(str(pid))
        return pid

    def _end(self, pause: subprocess.Popen[bytes]) -> None:
        """Let PID 1 end, whereupon the kernel kills the rest; it ends only when we have taken every exit status."""
        if pause.stdin is not None:
            pause.stdin.close()
        for run in self._runs:
            run.kill()
            run.process.wait(_END_WITHIN_S)
            _close(run.process.stdout, run.process.stderr)
        with contextlib.suppress(subprocess.TimeoutExpired):
            pause.wait(_END_WITHIN_S)
        pause.kill()
        pause.wait(_END_WITHIN_S)
        _close(pause.stdout)


def _close(*streams: IO[bytes] | None) -> None:
    for stream in streams:
        if stream is not None:
            stream.close()


def _read_ahead(program: str) -> None:
    """Read a program once from here: page cache is charged to the cgroup that touches a page first."""
    path = shutil.which(program)
    if path is None:
        raise LocalPodError(f"{program} is not a program: build or install it first")
    with Path(path).open("rb") as file:
        while file.read(1 << 20):
            pass
