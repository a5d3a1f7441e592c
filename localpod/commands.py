"""Runs a command to its end, and leaves nothing of it behind when that doesn't come."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path

from localpod.errors import LocalPodError


def run_to_end(
    command: Sequence[str],
    directory: Path,
    environment: Mapping[str, str],
    *,
    text: str | None = None,
    timeout_s: float,
) -> subprocess.CompletedProcess[str]:
    """Run a command that may fail, with ``text`` on its stdin; it is killed with its group when we are interrupted.

    Raises `LocalPodError` if it can't be run or doesn't end in time.
    """
    name = Path(command[0]).name
    try:
        process = subprocess.Popen(
            command,
            cwd=directory,
            env=environment,
            stdin=subprocess.DEVNULL if text is None else subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )
    except OSError as error:
        raise LocalPodError(f"{name} can't be run: {error.strerror}") from None
    with process:
        try:
            output, words = process.communicate(text, timeout=timeout_s)
        except BaseException as error:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            if isinstance(error, subprocess.TimeoutExpired):
                raise LocalPodError(f"{' '.join([name, *command[1:2]])} didn't end within {timeout_s:g} s") from None
            raise
    return subprocess.CompletedProcess(list(command), process.returncode, output, words)
