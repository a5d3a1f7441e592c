"""Where the story takes place: in a pod of real cgroups, or, without the rights for one, as two plain processes."""

from __future__ import annotations

import contextlib
import signal
import subprocess
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Protocol

import psutil

from localpod.pod import LocalContainer, LocalPod

REPOSITORY = Path(__file__).resolve().parent.parent

_END_WITHIN_S = 60.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Command:
    """A program to run and its whole environment."""

    argv: tuple[str, ...]
    env: Mapping[str, str]


class Stage(Protocol):
    """The app under its limit and the sidecar beside it, both running."""

    @property
    def app_log(self) -> IO[bytes]:
        """What the app prints on stderr."""
        ...

    @property
    def sidecar_log(self) -> IO[bytes]:
        """What the sidecar prints on stderr."""
        ...

    def usage_bytes(self) -> int | None:
        """The app's memory now; None once it has ended. To be asked often: without cgroups this is the OOM killer."""
        ...

    def how_the_app_ended(self) -> str:
        """Exit code and cause, once it has ended."""
        ...

    def stop_sidecar(self, timeout_s: float) -> int:
        """End the sidecar by SIGTERM, as the kubelet does, and return its exit status. Raises `TimeoutError`."""
        ...


class PodStage:
    """Two containers of a local pod; the kernel's OOM killer is behind the app's limit."""

    def __init__(self, app: LocalContainer, sidecar: LocalContainer) -> None:
        self._app = app
        self._sidecar = sidecar
        self.app_log = _stderr_of(app.process)
        self.sidecar_log = _stderr_of(sidecar.process)

    def usage_bytes(self) -> int | None:
        """What the app's cgroup says."""
        return self._app.cgroup.usage_bytes if self._app.is_running else None

    def how_the_app_ended(self) -> str:
        """The exit code as Kubernetes shows it, and the kernel's own count."""
        code = _exit_code(self._app.wait(_END_WITHIN_S))
        return f"exit code {code}; its memory cgroup counts {self._app.oom_kills} OOM kill"

    def stop_sidecar(self, timeout_s: float) -> int:
        """SIGTERM to the sidecar's container."""
        self._sidecar.terminate()
        return self._sidecar.wait(timeout_s)


class PlainStage:
    """Two ordinary processes: the sidecar is told the app's PID and limit, and we are the OOM killer."""

    def __init__(self, app: subprocess.Popen[bytes], sidecar: subprocess.Popen[bytes], limit_bytes: int) -> None:
        self._app = app
        self._sidecar = sidecar
        self._limit_bytes = limit_bytes
        self.app_log = _stderr_of(app)
        self.sidecar_log = _stderr_of(sidecar)

    def usage_bytes(self) -> int | None:
        """The app's anonymous memory; when it is past the limit the app is killed."""
        usage_bytes = _anonymous_bytes(self._app.pid)
        if usage_bytes is not None and usage_bytes < self._limit_bytes:
            return usage_bytes
        self._app.kill()
        self._app.wait(_END_WITHIN_S)
        return None

    def how_the_app_ended(self) -> str:
        """The exit code, and whose doing it was."""
        status = self._app.wait(_END_WITHIN_S)
        whose = "SIGKILL from the demo, in the OOM killer's place" if status == -signal.SIGKILL else "its own doing"
        return f"exit code {_exit_code(status)}; {whose}"

    def stop_sidecar(self, timeout_s: float) -> int:
        """SIGTERM to the sidecar."""
        self._sidecar.terminate()
        try:
            return self._sidecar.wait(timeout_s)
        except subprocess.TimeoutExpired:
            raise TimeoutError(f"the sidecar still runs after {timeout_s:g} s") from None


@contextlib.contextmanager
def pod_stage(app: Command, sidecar: Command, limit_bytes: int) -> Iterator[Stage]:
    """A pod that is gone afterwards with all in it. Raises `LocalPodError` where there can be none."""
    with LocalPod() as pod:
        running = pod.start("app", app.argv, env=app.env, memory_limit_bytes=limit_bytes, stderr=subprocess.PIPE)
        beside = pod.start("sidecar", sidecar.argv, env=sidecar.env, directory=REPOSITORY, stderr=subprocess.PIPE)
        yield PodStage(running, beside)


@contextlib.contextmanager
def plain_stage(app: Command, sidecar: Command, limit_bytes: int) -> Iterator[Stage]:
    """Two processes that are gone afterwards with all that they started."""
    with contextlib.ExitStack() as stack:
        running = _start(stack, app.argv, app.env)
        told = {**sidecar.env, "MEMORY_LIMIT": str(limit_bytes)}
        beside = _start(stack, (*sidecar.argv, "--pid", str(running.pid)), told)
        yield PlainStage(running, beside, limit_bytes)


def _start(stack: contextlib.ExitStack, argv: tuple[str, ...], env: Mapping[str, str]) -> subprocess.Popen[bytes]:
    process = subprocess.Popen(
        argv,
        env=env,
        cwd=REPOSITORY,
        stdin=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        start_new_session=True,  # a Ctrl-C is for us alone
    )
    stack.callback(_end, process)
    return process


def _end(process: subprocess.Popen[bytes]) -> None:
    """Kill a process and what it started, in whatever session that is."""
    started: list[psutil.Process] = []
    with contextlib.suppress(psutil.Error):
        started = psutil.Process(process.pid).children(recursive=True)
    process.kill()
    for child in started:
        with contextlib.suppress(psutil.Error):
            child.kill()
    process.wait(_END_WITHIN_S)


def _anonymous_bytes(pid: int) -> int | None:
    """RssAnon of a process; None once it has ended (proc_pid_status(5))."""
    with contextlib.suppress(OSError):
        for line in Path(f"/proc/{pid}/status").read_text().splitlines():
            if line.startswith("RssAnon:"):
                return int(line.split()[1]) * 1024
    return None


def _exit_code(status: int) -> int:
    """The exit code as Kubernetes and shells show it: 137 for SIGKILL."""
    return 128 - status if status < 0 else status


def _stderr_of(process: subprocess.Popen[bytes]) -> IO[bytes]:
    assert process.stderr is not None  # it was started with a pipe
    return process.stderr
