"""When the uploader is started, and when it isn't: outages, refused objects, new dumps, and the end."""

from __future__ import annotations

import contextlib
import logging
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import pytest

from sidecar.core.keys import DumpId
from sidecar.spool import Spool
from sidecar.stores import StoreSettings
from sidecar.uploader_process import REFUSED, Report, UploaderProcess
from sidecar.watch.uploads import Start, Uploads

DEADLINE_S = 30.0
LONG_S = 3600.0
POD = "prod/api-0"


def wait_until(what: str, condition: Callable[[], object]) -> None:
    """Wait for a condition that is bound to come."""
    deadline_s = time.monotonic() + DEADLINE_S
    while not condition():
        assert time.monotonic() < deadline_s, f"never came: {what}"
        time.sleep(0.005)


def dump_id(number: int) -> DumpId:
    """The n-th dump of an incident."""
    at = datetime(2026, 11, 20, 12, 0, number, tzinfo=UTC)
    return DumpId(at=at, container="app", pid=42, incident="aaaaaaaa", number=number)


@pytest.fixture
def spool(tmp_path: Path) -> Iterator[Spool]:
    """An open spool."""
    spool = Spool(tmp_path / "spool", 64 << 20, POD, on_drop=lambda *_: None)
    spool.open()
    yield spool
    spool.close()


@pytest.fixture
def store(tmp_path: Path) -> StoreSettings:
    """A directory for the dumps, with a prefix."""
    return StoreSettings(bucket=None, prefix="team", directory=tmp_path / "dumps", directory_size_bytes=64 << 20)


@contextlib.contextmanager
def logged() -> Iterator[list[str]]:
    """Names of the events that are logged from INFO on."""
    names: list[str] = []

    class Collect(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            names.append(getattr(record, "event_fields", {})["event"])

    logger, handler = logging.getLogger("sidecar"), Collect()
    level = logger.level
    logger.addHandler(handler)
    logger.setLevel(logging.INFO)
    try:
        yield names
    finally:
        logger.removeHandler(handler)
        logger.setLevel(level)


@pytest.fixture
def events() -> Iterator[list[str]]:
    """What is logged during the test."""
    with logged() as names:
        yield names


@dataclass
class Pauses:
    """The pause after each number of failures; all that were asked for."""

    delay_s: float
    asked: list[int] = field(default_factory=list)

    def __call__(self, failures: int) -> float:
        self.asked.append(failures)
        return self.delay_s


@dataclass
class Turn:
    """What one run of a scripted uploader does."""

    code: int = 0
    reports: list[Report] = field(default_factory=list)
    does: Callable[[], object] = lambda: None
    raises: Exception | None = None
    hangs: bool = False


class Scripted:
    """Starts uploaders that act as scripted, one turn each, the last one for ever."""

    def __init__(self, *turns: Turn) -> None:
        self.runs: list[ScriptedUploader] = []
        self._turns = turns

    def __call__(self, _: str) -> ScriptedUploader:
        turn = self._turns[min(len(self.runs), len(self._turns) - 1)]
        self.runs.append(ScriptedUploader(turn))
        if turn.raises is not None:
            raise turn.raises
        return self.runs[-1]


class ScriptedUploader:
    """One run."""

    def __init__(self, turn: Turn) -> None:
        self._turn = turn
        self.terminated = threading.Event()

    def __enter__(self) -> Self:
        return self

    def reports(self) -> Iterator[Report]:
        if self._turn.hangs:
            assert self.terminated.wait(DEADLINE_S)
        self._turn.does()
        yield from self._turn.reports

    @property
    def exit_code(self) -> int:
        return 143 if self.terminated.is_set() else self._turn.code

    def terminate(self) -> None:
        self.terminated.set()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        pass


class Counted:
    """The real uploader; counts its runs."""

    def __init__(self) -> None:
        self.runs = 0

    def __call__(self, request: str) -> UploaderProcess:
        self.runs += 1
        return UploaderProcess(request)


@contextlib.contextmanager
def running(uploads: Uploads) -> Iterator[threading.Thread]:
    """The thread of `Uploads` at work, ended with the block."""
    thread = threading.Thread(target=uploads.run, daemon=True)
    thread.start()
    try:
        yield thread
    finally:
        uploads.stop(thread, 0.0)
        thread.join(DEADLINE_S)
        assert not thread.is_alive()


def make(spool: Spool, store: StoreSettings, start: Start, delay_s: float = LONG_S) -> tuple[Uploads, Pauses]:
    """Uploads with pauses of the test's own."""
    pauses = Pauses(delay_s)
    return Uploads(spool, store, start=start, delay_s=pauses), pauses


def stored(store: StoreSettings) -> set[str]:
    """Dump and name of every file in the directory."""
    found = (store.directory / "team" / POD).glob("*/*")
    return {f"{path.parent.name}/{path.name}" for path in found if not path.name.startswith(".")}


def empty(spool: Spool) -> Callable[[], object]:
    """What an uploader does that stores everything."""

    def remove() -> None:
        for name in spool.pending():
            (spool.directory / "queue" / name).unlink()

    return remove


def test_dumps_are_stored_as_they_come_and_nothing_is_left(
    spool: Spool, store: StoreSettings, events: list[str]
) -> None:
    """What is there at the start, what is told by ``wake``, and what comes with the end."""
    spool.put(dump_id(1), "heap-80.pb.gz", b"first")
    uploads, pauses = make(spool, store, UploaderProcess)
    with running(uploads) as thread:
        wait_until("the first is stored", lambda: not spool.pending())
        spool.put(dump_id(2), "heap-80.pb.gz", b"second")
        uploads.wake()
        wait_until("the second is stored", lambda: not spool.pending())
        spool.put(dump_id(2), "manifest.json", b"{}")
        assert uploads.stop(thread, DEADLINE_S) == 0
        assert not thread.is_alive()
    assert stored(store) == {
        f"{dump_id(1)}/heap-80.pb.gz",
        f"{dump_id(2)}/heap-80.pb.gz",
        f"{dump_id(2)}/manifest.json",
    }
    assert (uploads.uploaded, uploads.consecutive_errors, pauses.asked) == (3, 0, [])
    assert events == ["stored"]


def test_an_outage_is_waited_out(spool: Spool, store: StoreSettings, events: list[str]) -> None:
    """The pause grows with each failure; the first dump that is stored ends it, and both are told once."""
    store.directory.write_text("in the way")
    spool.put(dump_id(1), "heap-80.pb.gz", b"profile")
    uploads, pauses = make(spool, store, UploaderProcess, delay_s=0.01)
    with running(uploads):
        wait_until("a third failure", lambda: pauses.asked[:3] == [1, 2, 3])
        assert uploads.consecutive_errors >= 3
        store.directory.unlink()
        wait_until("it is stored", lambda: stored(store) and not uploads.consecutive_errors)
        wait_until("it is told", lambda: "store-recovered" in events)
    assert events == ["upload-failed", "store-recovered"]


def test_new_dumps_do_not_hurry_a_store_that_is_down(spool: Spool, store: StoreSettings) -> None:
    """In an outage the pause is kept whatever comes."""
    start = Scripted(Turn(code=1))
    uploads, pauses = make(spool, store, start)
    spool.put(dump_id(1), "heap-80.pb.gz", b"profile")
    with running(uploads):
        wait_until("the first failure", lambda: pauses.asked == [1])
        spool.put(dump_id(2), "heap-80.pb.gz", b"profile")
        uploads.wake()
        wait_until("it was heard", lambda: not uploads._wake.is_set())
        assert len(start.runs) == 1


def test_a_refused_object_is_no_outage(spool: Spool, store: StoreSettings, events: list[str]) -> None:
    """It waits alone: it isn't tried again when nothing else came, later dumps go at once, nothing "recovers"."""
    taken = store.directory / "team" / POD / str(dump_id(1)) / "heap-80.pb.gz"
    taken.parent.mkdir(parents=True)
    taken.write_bytes(b"something else")
    spool.put(dump_id(1), "heap-80.pb.gz", b"refused")
    spool.put(dump_id(2), "heap-80.pb.gz", b"fine")
    start = Counted()
    uploads, pauses = make(spool, store, start)
    with running(uploads) as thread:
        wait_until("the pause", lambda: pauses.asked == [1])
        assert (uploads.uploaded, uploads.consecutive_errors) == (1, 0)
        uploads.wake()
        wait_until("it was heard", lambda: not uploads._wake.is_set())
        spool.put(dump_id(3), "heap-80.pb.gz", b"fine too")
        uploads.wake()
        wait_until("the pause after the third dump", lambda: pauses.asked == [1, 2])
        assert start.runs == 2
        assert uploads.uploaded == 2
        assert uploads.stop(thread, DEADLINE_S) == 1
        assert not thread.is_alive(), "the end must not wait for what is refused"
    assert start.runs == 2
    assert events == ["upload-failed"]


def test_a_refused_object_is_tried_again_in_its_time(spool: Spool, store: StoreSettings) -> None:
    """Whoever mends the cause gets it stored without a restart; its pause grows meanwhile."""
    name = f"team/{POD}/{dump_id(1)}/heap-80.pb.gz"
    refused = Turn(REFUSED, [{"event": "upload-failed", "key": name, "error": "no", "remedy": "", "refused": True}])
    start = Scripted(refused, refused, Turn(does=empty(spool)))
    uploads, pauses = make(spool, store, start, delay_s=0.01)
    spool.put(dump_id(1), "heap-80.pb.gz", b"refused")
    with running(uploads) as thread:
        wait_until("it is stored", lambda: not spool.pending())
        assert uploads.stop(thread, DEADLINE_S) == 0
    assert pauses.asked == [1, 2]
    assert uploads.consecutive_errors == 0


def test_a_dump_with_a_refused_file_is_not_called_stored(spool: Spool, store: StoreSettings, events: list[str]) -> None:
    """Its manifest is, and tells of what is still to come; when that is stored, it is."""
    heap, papers = (f"team/{POD}/{dump_id(1)}/{name}" for name in ("heap-80.pb.gz", "manifest.json"))
    failed = {"event": "upload-failed", "key": heap, "error": "no", "remedy": "", "refused": True}
    stored = [{"event": "uploaded", "key": key, "size_bytes": 1, "duration_s": 0.1} for key in (papers, heap)]
    start = Scripted(Turn(REFUSED, [failed, stored[0]]), Turn(0, [stored[1]], does=empty(spool)))
    uploads, _ = make(spool, store, start, delay_s=0.01)
    spool.put(dump_id(1), "heap-80.pb.gz", b"refused")
    with running(uploads):
        wait_until("all is stored", lambda: not spool.pending() and events.count("stored"))
    assert events == ["upload-failed", "stored"]


@pytest.mark.parametrize(
    ("code", "told"), [(-9, "raise the sidecar's memory limit"), (-11, "signal 11"), (1, "with 1")]
)
def test_an_uploader_that_dies_without_a_word_is_told_of(
    spool: Spool, store: StoreSettings, code: int, told: str, caplog: pytest.LogCaptureFixture
) -> None:
    """Most often the OOM killer has taken it, in the sidecar's own cgroup; not each time, and not where it said why."""
    report = {"event": "upload-failed", "key": "x", "error": "it said why", "remedy": "", "refused": False}
    start = Scripted(Turn(code), Turn(code), Turn(code, [report]))
    uploads, pauses = make(spool, store, start, delay_s=0.01)
    spool.put(dump_id(1), "heap-80.pb.gz", b"profile")
    with caplog.at_level(logging.INFO, "sidecar"), running(uploads):
        wait_until("further failures", lambda: len(pauses.asked) > 3)
    messages = [record.getMessage() for record in caplog.records]
    assert [told in message for message in messages] == [True, False], messages


def test_the_end_cuts_a_pause_short(spool: Spool, store: StoreSettings) -> None:
    """The grace is for trying, not for waiting."""
    start = Scripted(Turn(code=1), Turn(code=1), Turn(does=empty(spool)))
    uploads, pauses = make(spool, store, start)
    spool.put(dump_id(1), "heap-80.pb.gz", b"profile")
    with running(uploads) as thread:
        wait_until("the first failure", lambda: pauses.asked == [1])
        assert uploads.stop(thread, DEADLINE_S) == 0
        assert not thread.is_alive()
    assert len(start.runs) == 3


def test_an_uploader_that_outlasts_the_grace_is_ended(spool: Spool, store: StoreSettings) -> None:
    """What it hasn't stored is counted, and an unsealed draft with it."""
    start = Scripted(Turn(hangs=True))
    uploads, _ = make(spool, store, start)
    spool.put(dump_id(1), "heap-80.pb.gz", b"profile")
    spool.draft_manifest(dump_id(1), b"{}")
    with running(uploads) as thread:
        wait_until("it hangs", lambda: start.runs)
        assert uploads.stop(thread, 0.1) == 2
        assert start.runs[0].terminated.is_set()
        assert not thread.is_alive()
    assert len(start.runs) == 1


@pytest.mark.parametrize(
    ("turn", "event"),
    [
        (Turn(raises=BlockingIOError(11, "Resource temporarily unavailable")), "uploader-failed"),
        (Turn(raises=RuntimeError("can't start new thread")), "uploader-failed"),
        (Turn(raises=MemoryError()), "uploads-crashed"),
        (Turn(reports=[{"event": "uploaded"}]), "uploads-crashed"),
    ],
)
def test_no_fault_of_ours_stops_the_uploads(
    spool: Spool, store: StoreSettings, events: list[str], turn: Turn, event: str
) -> None:
    """It is told once, tried again after a growing pause, and the dump gets out."""
    start = Scripted(turn, turn, turn, Turn(does=empty(spool)))
    uploads, pauses = make(spool, store, start, delay_s=0.01)
    spool.put(dump_id(1), "heap-80.pb.gz", b"profile")
    with running(uploads) as thread:
        wait_until("it is stored", lambda: not spool.pending())
        assert uploads.stop(thread, DEADLINE_S) == 0
    assert uploads.consecutive_errors == 0
    assert events.count(event) == 1
    assert len(pauses.asked) == 3
    if event == "uploader-failed":
        assert pauses.asked == [1, 2, 3]


def test_a_spool_that_fails_is_survived(
    spool: Spool, store: StoreSettings, events: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Even looking into the spool may fail for a while."""
    real = spool.pending
    failed: list[int] = []

    def pending() -> Any:  # noqa: ANN401 -- stands in for a method
        if len(failed) < 3:
            failed.append(1)
            raise OSError(5, "Input/output error")
        return real()

    spool.put(dump_id(1), "heap-80.pb.gz", b"profile")
    monkeypatch.setattr(spool, "pending", pending)
    uploads, pauses = make(spool, store, Scripted(Turn(does=empty(spool))), delay_s=0.01)
    with running(uploads) as thread:
        wait_until("it is stored", lambda: not real())
        assert uploads.stop(thread, DEADLINE_S) == 0
    assert (events, pauses.asked) == (["uploads-crashed"], [1, 2, 3])
