"""Captures one program's heap again and again: ``python -m benchmarks.capturing``, a container of the benchmark's pod.

It stands for the sidecar at its busiest, at a pace that the benchmark sets. It says ``ready``, and after SIGTERM how
many seconds each capture took, as a line of JSON.
"""

from __future__ import annotations

import argparse
import contextlib
import http.client
import json
import signal
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import BinaryIO

Capture = Callable[[BinaryIO], object]

_HTTP_WITHIN_S = 30.0


@contextlib.contextmanager
def _memory(pid: int) -> Iterator[Capture]:
    """Read the buckets from outside, as the sidecar does above the threshold."""
    from sidecar.goheap import prepare

    with prepare(Path("/proc"), pid) as reader:
        yield reader.write_snapshot


@contextlib.contextmanager
def _http(address: str, path: str) -> Iterator[Capture]:
    """Ask the program for the profile, on a connection that stays open."""
    host, _, port = address.rpartition(":")
    connection = http.client.HTTPConnection(host, int(port), timeout=_HTTP_WITHIN_S)

    def capture(file: BinaryIO) -> None:
        connection.request("GET", path)
        answer = connection.getresponse()
        file.write(answer.read())
        if answer.status != http.HTTPStatus.OK:
            raise OSError(f"{path} answers HTTP {answer.status}")

    with contextlib.closing(connection):
        yield capture


def _repeat(capture: Capture, interval_s: float, over: threading.Event) -> list[float]:
    """Seconds that each capture took; a late one pushes the next ones back."""
    took_s: list[float] = []
    due_s = time.monotonic()
    with tempfile.TemporaryFile() as file:
        while not over.wait(max(0.0, due_s - time.monotonic())):
            began_s = time.monotonic()
            file.seek(0)
            file.truncate()
            capture(file)
            file.flush()
            now_s = time.monotonic()
            took_s.append(now_s - began_s)
            due_s = max(due_s + interval_s, now_s)
    return took_s


def main(arguments: list[str] | None = None) -> int:
    """Capture until SIGTERM."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.capturing")
    parser.add_argument("way", choices=("memory", "http", "gc"))
    parser.add_argument("--pid", type=int, required=True, help="the program, as this PID namespace knows it")
    parser.add_argument("--address", required=True, help="where it answers pprof, as HOST:PORT")
    parser.add_argument("--interval-s", type=float, required=True, help="seconds from one capture to the next")
    given = parser.parse_args(arguments)
    over = threading.Event()
    signal.signal(signal.SIGTERM, lambda *_: over.set())
    ways = {
        "memory": lambda: _memory(given.pid),
        "http": lambda: _http(given.address, "/debug/pprof/heap"),
        "gc": lambda: _http(given.address, "/debug/pprof/heap?gc=1"),
    }
    with ways[given.way]() as capture:
        print("ready", flush=True)
        took_s = _repeat(capture, given.interval_s, over)
    print(json.dumps(took_s), flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
