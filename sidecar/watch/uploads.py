"""Starts the uploader when the spool has something, and again after a growing pause when the store failed.

The uploader (`sidecar.drain`) is a process of its own that ends when the spool is empty: boto3 takes about as much
memory as everything else here together, and only in those seconds.
"""

from __future__ import annotations

import logging
import random
import threading
import time

from sidecar import logs
from sidecar.core.backoff import upload_delay_s
from sidecar.core.keys import MANIFEST_NAME
from sidecar.core.quantities import format_bytes, format_duration
from sidecar.spool import Spool
from sidecar.stores import StoreSettings
from sidecar.uploader_process import BUSY, Report, UploaderProcess, encode_request

_RECHECK_S = 60.0
_GRACE_PAUSE_S = 0.5
_TERMINATE_S = 2.0


class Uploads:
    """Supervises the uploader from a thread of its own; `run` is the thread's body."""

    def __init__(self, spool: Spool, store: StoreSettings) -> None:
        self.uploaded = 0
        self.consecutive_errors = 0
        self._spool = spool
        self._request = encode_request(spool.directory, store)
        self._wake = threading.Event()
        self._grace_ends_s: float | None = None
        self._process: UploaderProcess | None = None
        self._limit = logs.RateLimit(interval_s=60.0)

    def wake(self) -> None:
        """There may be something to upload."""
        self._wake.set()

    def run(self) -> None:
        """Upload until `stop`, then what is left of the spool while the grace lasts."""
        while not self._is_over():
            self._wake.clear()
            if not self._spool.pending_files():
                if self._grace_ends_s is not None:
                    return
                self._wake.wait(_RECHECK_S)
            elif self._drain() != 0:
                self._pause()

    def stop(self, thread: threading.Thread, grace_s: float) -> int:
        """Let ``thread``, which runs `run`, finish for at most ``grace_s``; the files that stay for the next start."""
        self._grace_ends_s = time.monotonic() + grace_s
        self._wake.set()
        thread.join(grace_s)
        process = self._process
        if process is not None:
            process.terminate()
            thread.join(_TERMINATE_S)
        return self._spool.pending_files()

    def _is_over(self) -> bool:
        return self._grace_ends_s is not None and time.monotonic() >= self._grace_ends_s

    def _pause(self) -> None:
        """Wait after a failure: new dumps don't cut it short, the end does, and in the grace it is kept short."""
        delay_s = upload_delay_s(max(1, self.consecutive_errors), random.random())  # noqa: S311 -- jitter, no secret
        ends_s = time.monotonic() + delay_s
        while time.monotonic() < ends_s and not self._is_over():
            self._wake.wait(min(1.0, ends_s - time.monotonic()))
            self._wake.clear()
            if self._grace_ends_s is not None:
                time.sleep(_GRACE_PAUSE_S)
                return

    def _drain(self) -> int:
        """Run the uploader once; its exit code, 0 if the spool is empty."""
        try:
            with UploaderProcess(self._request) as process:
                self._process = process
                for report in process.reports():
                    self._relay(report)
            code = process.exit_code
        except OSError as error:
            logs.event(logging.ERROR, "uploader-failed", f"the uploader can't be started: {error.strerror}")
            code = 1
        finally:
            self._process = None
        if code == 0:
            self.consecutive_errors = 0
        elif code != BUSY:
            self.consecutive_errors += 1
        return code

    def _relay(self, report: Report) -> None:
        """Turn the uploader's report into an event of ours."""
        if report.get("event") == "uploaded":
            self.uploaded += 1
            if self.consecutive_errors:
                logs.event(logging.INFO, "store-recovered", "the store takes dumps again")
                self.consecutive_errors = 0
                self._limit.forget("upload")
            self._report_stored(report)
        elif report.get("event") == "upload-failed":
            self._report_failure(report)
        elif report.get("event") == "dump-dropped":
            logs.event(
                logging.WARNING,
                "dump-dropped",
                f"the directory is full: dropped {report.get('key')}; raise DUMP_DIR_SIZE",
                key=report.get("key"),
                size_bytes=report.get("size_bytes"),
            )

    def _report_stored(self, report: Report) -> None:
        """A line for each dump when its manifest, the last of it, is stored; the single files are for debugging."""
        folder, _, name = str(report["key"]).rpartition("/")
        if name == MANIFEST_NAME:
            logs.event(logging.INFO, "stored", f"stored {folder}", key=folder)
        else:
            logs.event(
                logging.DEBUG,
                "uploaded",
                f"uploaded {report['key']} ({format_bytes(int(report['size_bytes']))})",
                key=report["key"],
                size_bytes=report["size_bytes"],
                duration_s=report.get("duration_s"),
            )

    def _report_failure(self, report: Report) -> None:
        left_out = self._limit.admit("upload", time.monotonic())
        if left_out is None:
            return
        remedy = f": {report['remedy']}" if report.get("remedy") else ""
        pause = format_duration(round(upload_delay_s(self.consecutive_errors + 1, 1.0)))
        logs.event(
            logging.ERROR,
            "upload-failed",
            f"{report['error']}{remedy}; kept in the spool, next try within {pause}",
            key=report.get("key") or None,
            consecutive_errors=self.consecutive_errors + 1,
            pending_files=self._spool.pending_files(),
            failures_not_logged=left_out,
        )
