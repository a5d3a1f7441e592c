"""Runs `sidecar.drain` as a process of its own and reads its reports."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from types import TracebackType
from typing import Any, Self

from sidecar.drain import BUSY, REFUSED, encode_request

__all__ = ["BUSY", "REFUSED", "Report", "UploaderProcess", "encode_request"]

Report = dict[str, Any]


class UploaderProcess:
    """One run of the uploader; a context manager. Raises OSError if it can't be started."""

    def __init__(self, request: str) -> None:
        """``request`` is what `encode_request` made."""
        self._process = subprocess.Popen(
            [sys.executable, "-m", "sidecar.drain"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            start_new_session=True,  # a Ctrl-C is the watch's to handle: the uploader gets the grace
        )
        self._request = request

    def __enter__(self) -> Self:
        return self

    def reports(self) -> Iterator[Report]:
        """What it did, as it does it, until it ends."""
        stdin, stdout = self._process.stdin, self._process.stdout
        if stdin is None or stdout is None:
            raise OSError(0, os.strerror(0))
        try:
            with stdin:
                stdin.write(self._request)
        except BrokenPipeError:
            return  # it died at once; its exit code tells
        for line in stdout:
            try:
                report = json.loads(line)
            except ValueError:
                continue
            if isinstance(report, dict):
                yield report

    @property
    def exit_code(self) -> int:
        """Waits for the end; 0 if the spool is empty, `REFUSED` or `BUSY` as `sidecar.drain` tells."""
        return self._process.wait()

    def terminate(self) -> None:
        """End it soon; what wasn't confirmed stays in the spool."""
        self._process.terminate()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._process.__exit__(kind, error, traceback)
