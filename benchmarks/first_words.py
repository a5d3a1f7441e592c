"""Starts the Go programs of the benchmarks, each of which says its address once it is ready."""

from __future__ import annotations

import contextlib
import os
import select
import subprocess
from collections.abc import Mapping
from pathlib import Path

from benchmarks.errors import BenchmarkError
from localpod.pod import LocalContainer, LocalPod

_WITHIN_S = 60.0


def start(
    pod: LocalPod,
    program: Path,
    name: str,
    *,
    memory_limit_bytes: int,
    cpu_millicores: int | None,
    env: Mapping[str, str],
) -> tuple[LocalContainer, str]:
    """Start a program as container ``name``, and wait for the first line that it prints.

    Raises `LocalPodError` if it can't be started, `BenchmarkError` if it says nothing; it is removed then.
    """
    reading, writing = os.pipe()
    with os.fdopen(reading, "rb") as output:
        try:
            container = pod.start(
                name,
                [program],
                memory_limit_bytes=memory_limit_bytes,
                cpu_millicores=cpu_millicores,
                env=env,
                stdout=writing,
                stderr=subprocess.DEVNULL,  # it is often killed in the middle of an answer
            )
        finally:
            os.close(writing)
        with contextlib.ExitStack() as unless_ready:
            unless_ready.callback(container.remove)
            if not select.select([output], [], [], _WITHIN_S)[0]:
                raise BenchmarkError(f"container {name} isn't ready within {_WITHIN_S:g} s")
            words = output.readline().decode().strip()
            if not words:
                raise BenchmarkError(f"container {name} ended before it was ready")
            unless_ready.pop_all()
    return container, words
