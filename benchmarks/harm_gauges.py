"""What `harm` measures with: load from a Go client, the app's own clock, and captures at a set pace."""

from __future__ import annotations

import contextlib
import http.client
import json
import os
import select
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import IO

from benchmarks.errors import BenchmarkError
from benchmarks.service import Service
from localpod.pod import LocalContainer, LocalPod
from localpod.toolchain import Toolchain

_SOURCE = Path(__file__).with_name("go-service")
_WITHIN_S = 60.0
_CLIENTS = 4


@dataclass(frozen=True, slots=True, kw_only=True)
class Load:
    """Answers within a window; latencies by nearest rank."""

    requests: int
    per_s: float
    p50_s: float
    p99_s: float
    most_s: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Stall:
    """Of a goroutine that does nothing but read the clock: the longest time that it missed, and what it lost.

    ``lost_ratio`` is of the window, in pieces above 0.1 ms.
    """

    longest_s: float
    lost_ratio: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Client:
    """The program that asks; it runs outside of the pod, unseen by the sidecar."""

    program: Path
    warm_up_s: float = 0.2

    def ask_evenly(self, service: Service, rate: float, window_s: float) -> Load:
        """Requests at an even pace, whether or not the ones before were answered. Raises `BenchmarkError`."""
        return self._ask(service, ["-rate", str(rate)], window_s)

    def ask_closely(self, service: Service, window_s: float) -> Load:
        """A few clients, each asking as soon as it was answered. Raises `BenchmarkError`."""
        return self._ask(service, ["-clients", str(_CLIENTS)], window_s)

    def _ask(self, service: Service, pace: list[str], window_s: float) -> Load:
        url = f"http://{service.host}:{service.port}/work"
        command = [str(self.program), "-url", url, "-seconds", str(window_s), "-warm-up", str(self.warm_up_s), *pace]
        try:
            done = subprocess.run(command, capture_output=True, check=False, text=True, timeout=_WITHIN_S + window_s)
        except subprocess.TimeoutExpired:
            raise BenchmarkError(f"the load on {url} didn't end within {_WITHIN_S + window_s:g} s") from None
        if done.returncode != 0:
            raise BenchmarkError(f"the load on {url} failed: {done.stderr.strip()}")
        return read_load(done.stdout)


def build(go: Toolchain) -> Client:
    """Compile the client. Raises `LocalPodError`."""
    return Client(program=go.build(_SOURCE, "./load"))


def read_load(text: str) -> Load:
    """What the client said. Raises `BenchmarkError` if any request failed or there was none.

    >>> read_load('{"requests": 2, "failures": 0, "per_s": 1, "p50_s": 0.1, "p99_s": 0.2, "most_s": 0.2}').requests
    2
    """
    said = json.loads(text)
    if said["failures"] or not said["requests"]:
        raise BenchmarkError(f"{said['failures']} requests to the app failed, {said['requests']} were answered")
    return Load(**{name: said[name] for name in Load.__slots__})


def stall(service: Service, window_s: float) -> Stall:
    """Have the app read its clock for that long. Raises `BenchmarkError`."""
    connection = http.client.HTTPConnection(service.host, service.port, timeout=_WITHIN_S + window_s)
    try:
        connection.request("GET", f"/stall?ms={window_s * 1000:.0f}")
        said = json.loads(connection.getresponse().read())
    except (OSError, ValueError) as error:
        raise BenchmarkError(f"container {service.container.name} doesn't answer /stall: {error}") from None
    finally:
        connection.close()
    return Stall(longest_s=said["longest_s"], lost_ratio=said["lost_s"] / said["window_s"])


class Capturing:
    """A reader at work; made by `capturing`."""

    def __init__(self, container: LocalContainer, output: IO[bytes]) -> None:
        self._container = container
        self._output = output

    @property
    def pid(self) -> int:
        """Its process as this machine knows it."""
        return self._container.pid

    def end(self) -> list[float]:
        """End it, and tell the seconds of each capture. Raises `BenchmarkError` if it failed."""
        self._container.terminate()
        line = _line(self._output, "what it did")
        took_s: list[float] = json.loads(line)
        return took_s


@contextlib.contextmanager
def capturing(pod: LocalPod, python: Path, service: Service, *, way: str, interval_s: float) -> Iterator[Capturing]:
    """Capture the app's heap all the time while a ``with`` block lasts. Raises `BenchmarkError` if it can't begin."""
    reading, writing = os.pipe()
    with os.fdopen(reading, "rb") as output:
        command: list[str | Path] = [python, "-m", "benchmarks.capturing", way, "--pid", str(service.pod_pid)]
        command += ["--address", f"{service.host}:{service.port}", "--interval-s", str(interval_s)]
        try:
            container = pod.start(
                "reader",
                command,
                env={"PATH": os.defpath, "LANG": "C.UTF-8"},
                directory=Path("/"),
                stdout=writing,
            )
        finally:
            os.close(writing)
        try:
            _line(output, "that it is ready")
            yield Capturing(container, output)
        finally:
            container.remove()


def _line(output: IO[bytes], what: str) -> bytes:
    if not select.select([output], [], [], _WITHIN_S)[0]:
        raise BenchmarkError(f"the reader doesn't say {what} within {_WITHIN_S:g} s")
    line = output.readline()
    if not line:
        raise BenchmarkError(f"the reader ended before it said {what}: see its words above")
    return line
