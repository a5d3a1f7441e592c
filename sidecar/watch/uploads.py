"""Starts the uploader when the spool has something, and again after a growing pause when the store failed.

The uploader (`sidecar.drain`) is a process of its own that ends when the spool is empty: boto3 takes about as much
memory as everything else here together, and only in those seconds.
"""

from __future__ import annotations

import logging
import random
import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from typing import Protocol

from sidecar import logs
from sidecar.core.backoff import upload_delay_s
from sidecar.core.keys import MANIFEST_NAME, join_key
from sidecar.core.quantities import format_bytes, format_duration
from sidecar.spool import Spool
from sidecar.stores import StoreSettings
from sidecar.uploader_process import BUSY, REFUSED, Report, UploaderProcess, encode_request

_RECHECK_S = 60.0
_GRACE_PAUSE_S = 0.5
_TERMINATE_S = 2.0
_TERMINATED = 128 + signal.SIGTERM


class Uploader(Protocol):
    """One run of the uploader."""

    def reports(self) -> Iterator[Report]:
        """What it did, as it does it, until it ends."""
        ...

    @property
    def exit_code(self) -> int:
        """Waits for the end; as `sidecar.drain` tells."""
        ...

    def terminate(self) -> None:
        """End it soon."""
        ...


Start = Callable[[str], AbstractContextManager[Uploader]]


def _jittered_delay_s(failures: int) -> float:
    return upload_delay_s(failures, random.random())  # noqa: S311 -- jitter, no secret


class Uploads:
    """Supervises the uploader from a thread of its own; `run` is the thread's body."""

    def __init__(
        self,
        spool: Spool,
        store: StoreSettings,
        *,
        start: Start = UploaderProcess,
        delay_s: Callable[[int], float] = _jittered_delay_s,
    ) -> None:
        """``start`` runs the uploader with a request; ``delay_s`` is the pause after so many failures in a row."""
        self.uploaded = 0
        self.consecutive_errors = 0
        self._spool = spool
        self._prefix = store.prefix
        self._request = encode_request(spool.directory, store)
        self._start = start
        self._delay_s = delay_s
        self._wake = threading.Event()
        self._grace_ends_s: float | None = None
        self._uploader: Uploader | None = None
        self._refused: set[str] = set()
        self._unfinished: set[str] = set()
        self._refusing_runs = 0
        self._is_failure_told = False
        self._limit = logs.RateLimit(interval_s=60.0)

    def wake(self) -> None:
        """There may be something to upload."""
        self._wake.set()

    def run(self) -> None:
        """Upload until `stop`, then what is left of the spool while the grace lasts. Survives whatever goes wrong."""
        while not self._is_over():
            try:
                if self._turn():
                    return
            except Exception:  # noqa: BLE001 -- dumps must get out, whatever is wrong
                self.consecutive_errors += 1
                if self._limit.admit("crash", time.monotonic()) is not None:
                    logs.fault("uploads-crashed", "the uploads failed in an unforeseen way, trying again")
                self._pause(self.consecutive_errors)

    def stop(self, thread: threading.Thread, grace_s: float) -> int:
        """Let ``thread``, which runs `run`, finish for at most ``grace_s``; the files that stay for the next start."""
        self._grace_ends_s = time.monotonic() + grace_s
        self._wake.set()
        thread.join(grace_s)
        uploader = self._uploader
        if uploader is not None:
            uploader.terminate()
            thread.join(_TERMINATE_S)
        return self._spool.left_files()

    def _is_over(self) -> bool:
        return self._grace_ends_s is not None and time.monotonic() >= self._grace_ends_s

    def _turn(self) -> bool:
        """Wait for something to upload and try to, once; true if nothing more is to be done before the end."""
        self._wake.clear()
        if not self._spool.pending():
            if self._grace_ends_s is not None:
                return True
            self._wake.wait(_RECHECK_S)
            return False
        code = self._drain()
        if code == REFUSED:
            return self._pause_for_refused()
        if code != 0:
            self._pause(max(1, self.consecutive_errors))
        return False

    def _pause(self, failures: int) -> None:
        """Wait after an outage: new dumps don't cut it short, the end does, and in the grace it is kept short."""
        ends_s = time.monotonic() + self._delay_s(failures)
        while self._grace_ends_s is None and (rest_s := ends_s - time.monotonic()) > 0:
            self._wake.wait(rest_s)
            self._wake.clear()
        if self._grace_ends_s is not None:
            time.sleep(_GRACE_PAUSE_S)

    def _pause_for_refused(self) -> bool:
        """Wait before what the store refused is tried again; new dumps don't wait for it, nor does the end: true."""
        ends_s = time.monotonic() + self._delay_s(self._refusing_runs)
        while not self._has_others():
            rest_s = ends_s - time.monotonic()
            if self._grace_ends_s is not None:
                return True
            if rest_s <= 0:
                return False
            self._wake.wait(rest_s)
            self._wake.clear()
        return False

    def _pending_folders(self) -> set[str]:
        """The keys of the dumps that something is left of."""
        return {join_key(self._prefix, name).rpartition("/")[0] for name in self._spool.pending()}

    def _has_others(self) -> bool:
        """Whether more than what was refused is pending."""
        return any(join_key(self._prefix, name) not in self._refused for name in self._spool.pending())

    def _drain(self) -> int:
        """Run the uploader once; its exit code, 0 if the spool is empty."""
        self._refused.clear()
        if self._unfinished:
            self._unfinished &= self._pending_folders()
        self._is_failure_told = False
        try:
            with self._start(self._request) as uploader:
                self._uploader = uploader
                for report in uploader.reports():
                    self._relay(report)
                code = uploader.exit_code
        except (OSError, RuntimeError) as error:  # no memory, no further process or thread can be had
            code, self._is_failure_told = 1, True
            if self._limit.admit("start", time.monotonic()) is not None:
                logs.event(logging.ERROR, "uploader-failed", f"the uploader can't be run: {error}")
        finally:
            self._uploader = None
        self._report_death(code)
        if code not in (BUSY, REFUSED):
            self.consecutive_errors = 0 if code == 0 else self.consecutive_errors + 1
        self._refusing_runs = self._refusing_runs + 1 if code == REFUSED else 0
        return code

    def _report_death(self, code: int) -> None:
        """It ended without a word: most often the kernel's OOM killer took it, in the sidecar's own cgroup."""
        if code in (0, BUSY, REFUSED, _TERMINATED) or self._is_failure_told:
            return
        left_out = self._limit.admit("death", time.monotonic())
        if left_out is not None:
            how = f"was ended by signal {-code}" if code < 0 else f"ended with {code}"
            remedy = ": raise the sidecar's memory limit, 128Mi is enough" if code == -signal.SIGKILL else ""
            logs.event(
                logging.ERROR,
                "uploader-failed",
                f"the uploader {how} before it could say why{remedy}; what it had to store is kept and tried again",
                exit_code=code,
                failures_not_logged=left_out,
            )

    def _relay(self, report: Report) -> None:
        """Turn the uploader's report into an event of ours."""
        if report.get("event") == "uploaded":
            self.uploaded += 1
            if self.consecutive_errors:
                logs.event(logging.INFO, "store-recovered", "the store takes dumps again")
                self.consecutive_errors = 0
                self._limit.forget("outage")
            self._report_stored(report)
        elif report.get("event") == "upload-failed":
            self._is_failure_told = True
            if report.get("refused"):
                self._refused.add(str(report.get("key")))
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
        """A line for each dump when its manifest, the last of it, is stored; the single files are for debugging.

        Where another file of it was refused, it isn't stored before that is.
        """
        folder, _, name = str(report["key"]).rpartition("/")
        if name == MANIFEST_NAME and any(key.startswith(f"{folder}/") for key in self._refused):
            self._unfinished.add(folder)
        elif name == MANIFEST_NAME or (folder in self._unfinished and folder not in self._pending_folders()):
            self._unfinished.discard(folder)
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
        refused = bool(report.get("refused"))
        left_out = self._limit.admit("refused" if refused else "outage", time.monotonic())
        if left_out is None:
            return
        remedy = f": {report['remedy']}" if report.get("remedy") else ""
        failures = (self._refusing_runs if refused else self.consecutive_errors) + 1
        pause = format_duration(round(upload_delay_s(failures, 1.0)))
        logs.event(
            logging.ERROR,
            "upload-failed",
            f"{report['error']}{remedy}; kept in the spool, next try within {pause}",
            key=report.get("key") or None,
            refused=refused,
            consecutive_errors=self.consecutive_errors + (not refused),
            pending_files=self._spool.pending_files(),
            failures_not_logged=left_out,
        )
