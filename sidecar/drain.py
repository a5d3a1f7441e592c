"""The uploader: a process of its own that empties the spool into the store and ends, ``python -m sidecar.drain``.

boto3 takes more memory than all of the resident sidecar, so it lives only here and only while there is something to
upload. The process reads one JSON object on stdin, made by `encode_request`, and reports each event as a line of JSON
on stdout: ``uploaded``, ``upload-failed`` (with ``refused`` if it is the fault of this object alone), ``dump-dropped``
(by a full directory), ``busy``.

A file is removed from the spool only after the store has confirmed it, so that killing this process at any moment loses
nothing and at worst stores a file a second time under the same key. It asks for no signal at its parent's death: an
orphan only finishes a finite queue (and the lock keeps a successor waiting), whereas that signal is sent when the
parent's *thread* ends that started the process.

Exit codes: 0 the queue is empty, 1 the store or the spool failed, 2 the request is malformed, `REFUSED` the store took
everything but single objects, `BUSY` another uploader is at it, 128 + n ended by signal n.
"""

from __future__ import annotations

import contextlib
import fcntl
import functools
import json
import logging
import os
import signal
import sys
import threading
import time
from collections.abc import Callable
from dataclasses import asdict, fields
from pathlib import Path
from typing import Any

from sidecar.core.keys import MANIFEST_NAME, OUTCOME_PREFIX, QUEUE_FOLDER, is_for_upload, join_key
from sidecar.core.listing import parse_profile_name
from sidecar.errors import ConfigError, OomHeapDumperError, SpoolError, StoreError
from sidecar.stores import Store, StoreSettings, open_store
from sidecar.stores.errors import ObjectRefusedError

BUSY = os.EX_TEMPFAIL
REFUSED = os.EX_DATAERR

_LOCK = ".drain.lock"
# So many failures in a row make us ask whether it is the store that refuses all objects.
_MOST_IN_A_ROW = 3

Report = Callable[[dict[str, Any]], None]


def encode_request(spool: Path, store: StoreSettings) -> str:
    """What the uploader is to be given on stdin."""
    settings = asdict(store) | {"directory": str(store.directory)}
    return json.dumps({"spool": str(spool), "store": settings}) + "\n"


def decode_request(text: str) -> tuple[Path, StoreSettings]:
    """The spool and the store of a request. Raises ConfigError if it isn't one."""
    try:
        request = json.loads(text)
        known = {field.name for field in fields(StoreSettings)}
        settings = {name: value for name, value in request["store"].items() if name in known}
        settings["directory"] = Path(settings["directory"])
        return Path(request["spool"]), StoreSettings(**settings)
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise ConfigError(f"stdin must carry one JSON object with spool and store ({error!r})") from error


def drain(spool: Path, open_store: Callable[[], Store], prefix: str, report: Report) -> bool:
    """Upload until a scan of the queue finds nothing new; False if single objects were refused.

    ``open_store`` is called only if there is something to upload. Raises StoreError when the store as a whole fails,
    SpoolError when the spool does; the rest stays where it is.
    """
    queue = spool / QUEUE_FOLDER
    run: _Run | None = None
    try:
        while pending := [file for file in _scan(queue) if run is None or not run.has_failed(file)]:
            run = run or _Run(queue, open_store(), prefix, report)
            run.upload(pending)
        return run is None or run.retry()
    finally:
        _remove_empty_folders(queue)


class _Run:
    """Tells the fault of an object from the fault of the store: by what the store says, and by another object."""

    def __init__(self, queue: Path, store: Store, prefix: str, report: Report) -> None:
        self._refused: set[Path] = set()
        self._doubtful: list[Path] = []
        self._queue = queue
        self._store = store
        self._prefix = prefix
        self._report = report
        self._failed_in_a_row = 0

    def has_failed(self, file: Path) -> bool:
        """Whether it was tried in vain."""
        return file in self._refused or file in self._doubtful

    def retry(self) -> bool:
        """Try once more what failed though the store took another; False if anything is refused in the end.

        Raises StoreError when the store as a whole fails meanwhile.
        """
        for file in self._doubtful:
            try:
                self._upload(file)
            except StoreError as error:
                is_refused = error.may_be_object or isinstance(error, ObjectRefusedError)
                self._report_failure(file, error, is_refused=is_refused)
                if not is_refused:
                    raise
                self._refused.add(file)
        return not self._refused

    def upload(self, pending: list[Path]) -> None:
        """Upload what can be. Raises StoreError when the store as a whole fails."""
        for file in pending:
            try:
                self._upload(file)
                self._failed_in_a_row = 0
                continue
            except StoreError as error:
                failure = error
            is_refused = isinstance(failure, ObjectRefusedError)
            self._failed_in_a_row += 1
            is_in_doubt = not is_refused or self._failed_in_a_row >= _MOST_IN_A_ROW
            if is_in_doubt and (is_refused or failure.may_be_object) and self._takes_another(file, pending):
                is_in_doubt, self._failed_in_a_row = False, 0
                if not is_refused:
                    self._doubtful.append(file)
                    continue
            self._report_failure(file, failure, is_refused=not is_in_doubt)
            if is_in_doubt:
                raise failure
            self._refused.add(file)

    def _takes_another(self, file: Path, pending: list[Path]) -> bool:
        """Whether the store takes the first file of the newest other dump, else the last, a small one, of the same."""
        rest = [each for each in pending if each != file and not self.has_failed(each) and each.exists()]
        if not rest:
            return False
        newest = next((each for each in rest if each.parent == rest[-1].parent != file.parent), rest[-1])
        try:
            self._upload(newest)
        except StoreError:
            return False
        return True

    def _key(self, file: Path) -> str:
        return join_key(self._prefix, file.relative_to(self._queue).as_posix())

    def _upload(self, file: Path) -> None:
        """Store one file and remove it. Raises StoreError."""
        key = self._key(file)
        try:
            size_bytes = file.stat().st_size
            began_s = time.monotonic()
            self._store.put(key, file)
            duration_s = time.monotonic() - began_s
        except FileNotFoundError:
            return  # the spool dropped it to make room
        except StoreError:
            if not file.exists():
                return  # likewise
            raise
        try:
            file.unlink(missing_ok=True)
        except OSError as error:
            raise SpoolError(f"can't remove {file} from the spool: {error.strerror}") from error
        self._report({"event": "uploaded", "key": key, "size_bytes": size_bytes, "duration_s": round(duration_s, 3)})

    def _report_failure(self, file: Path, error: StoreError, *, is_refused: bool) -> None:
        self._report(
            {
                "event": "upload-failed",
                "key": self._key(file),
                "error": str(error),
                "remedy": error.remedy,
                "refused": is_refused,
            }
        )


def _scan(queue: Path) -> list[Path]:
    """What is to be uploaded, the most urgent first: dumps by age, and in each the profile before the papers."""
    found: list[Path] = []
    for folder, _, names in os.walk(queue):
        files = [Path(folder, name) for name in names]
        found += [file for file in files if is_for_upload(file.relative_to(queue).parts) and not file.is_symlink()]
    return sorted(found, key=lambda file: (file.parent.name, _rank(file.name), file))


def _rank(name: str) -> int:
    """Order within a dump: if there is time for one file only, it should be the heap as it was, else the plain one."""
    profile = parse_profile_name(name)
    if profile is not None:
        return {"heap-newest": 0, "heap": 1}.get(profile.kind, 2)
    if name == MANIFEST_NAME:
        return 3
    return 4 if name.startswith(OUTCOME_PREFIX) else 2


def _remove_empty_folders(queue: Path) -> None:
    """Remove folders without files, deepest first. The spool makes a folder anew when it vanishes under its hands."""
    for folder, _, _ in os.walk(queue, topdown=False):
        if folder != str(queue):
            with contextlib.suppress(OSError):
                Path(folder).rmdir()


def main() -> int:
    """Serve one request from stdin."""
    _end_at_signals()
    try:
        spool, settings = decode_request(sys.stdin.read())
        if not _lock(spool):
            _report({"event": "busy"})
            return BUSY
        logging.getLogger("sidecar.stores").addHandler(_Relay())
        stored = drain(spool, functools.cache(lambda: open_store(settings)), settings.prefix, _report)
    except StoreError:
        return 1  # reported where it happened
    except OomHeapDumperError as error:
        _report({"event": "upload-failed", "key": "", "error": str(error), "remedy": ""})
        return error.exit_code
    return 0 if stored else REFUSED


def _lock(spool: Path) -> bool:
    """Become the only uploader of the spool until this process ends; False if there is one already."""
    try:
        descriptor = os.open(spool / _LOCK, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError as error:
        raise SpoolError(f"can't lock the spool {spool}: {error.strerror}") from error
    return True


def _end_at_signals() -> None:
    """End at once on SIGTERM and SIGINT, from a thread: a handler would wait for a name look-up to time out."""
    signals = {signal.SIGTERM, signal.SIGINT}
    signal.pthread_sigmask(signal.SIG_BLOCK, signals)
    threading.Thread(target=lambda: os._exit(128 + signal.sigwait(signals)), daemon=True).start()


def _report(event: dict[str, Any]) -> None:
    """Write an event; that nobody listens any more is no reason to leave dumps behind."""
    line = json.dumps(event) + "\n"
    with contextlib.suppress(OSError):
        os.write(sys.stdout.fileno(), line.encode())


class _Relay(logging.Handler):
    """Passes the events of the stores on to the parent."""

    def emit(self, record: logging.LogRecord) -> None:
        _report(dict(getattr(record, "event_fields", {})))


if __name__ == "__main__":
    sys.exit(main())
