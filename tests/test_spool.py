"""The spool loses nothing, shows nothing half-written, stays in its bounds, and survives a crash."""

from __future__ import annotations

import errno
import os
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from sidecar.core.keys import DumpId
from sidecar.errors import SpoolError, StartupError
from sidecar.spool import Spool

BASE = datetime(2026, 11, 20, 12, 0, tzinfo=UTC)


def dump_id(number: int, incident: str = "aaaaaaaa") -> DumpId:
    """The n-th dump of an incident, a second after the one before."""
    return DumpId(at=BASE + timedelta(seconds=number), container="app", pid=42, incident=incident, number=number)


class Drops(list[str]):
    """Remembers what was dropped."""

    def __call__(self, dropped: DumpId, _: int) -> None:
        self.append(str(dropped))


def make_spool(directory: Path, size_bytes: int = 64 << 20) -> tuple[Spool, Drops]:
    """An open spool of pod prod/api-0."""
    drops = Drops()
    spool = Spool(directory, size_bytes, "prod/api-0", on_drop=drops)
    spool.open()
    return spool, drops


def files(directory: Path) -> list[str]:
    """Everything that waits for the uploader."""
    queue = directory / "queue"
    return sorted(str(p.relative_to(queue)) for p in queue.rglob("*") if p.is_file() and not p.name.startswith("."))


def test_a_file_appears_whole_or_not_at_all(tmp_path: Path) -> None:
    """Until the block ends well there is nothing to upload; when it fails nothing is left."""
    spool, _ = make_spool(tmp_path)
    with spool.write(dump_id(1), "heap-8080.pb.gz") as writer:
        writer.write(b"half")
        assert files(tmp_path) == []
        writer.write(b"whole")
    assert files(tmp_path) == [f"prod/api-0/{dump_id(1)}/heap-8080.pb.gz"]
    assert writer.result is not None
    assert writer.result.path.read_bytes() == b"halfwhole"
    with pytest.raises(ZeroDivisionError), spool.write(dump_id(1), "broken") as writer:
        writer.write(b"x" * (1 // 0))
    assert len(files(tmp_path)) == 1
    assert not list(tmp_path.rglob(".part-*"))


def test_a_crash_in_mid_dump_is_taken_over(tmp_path: Path) -> None:
    """What was complete is uploaded by the next start, the draft of its manifest with it, half files are removed."""
    spool, _ = make_spool(tmp_path)
    spool.put(dump_id(1), "heap-8080.pb.gz", b"profile")
    spool.draft_manifest(dump_id(1), b'{"complete": false}')
    writer = spool.write(dump_id(1), "goroutine-8080.pb.gz")
    writer.__enter__()  # never left: the process was killed here
    spool.close()
    again, _ = make_spool(tmp_path)
    folder = f"prod/api-0/{dump_id(1)}"
    assert files(tmp_path) == [f"{folder}/heap-8080.pb.gz", f"{folder}/manifest.json"]
    assert again.pending_files() == 2
    assert not list(tmp_path.rglob(".part-*"))


def test_a_full_spool_keeps_the_first_and_the_newest(tmp_path: Path) -> None:
    """The middle of an incident makes room, and each dump that had to is told."""
    spool, drops = make_spool(tmp_path, size_bytes=2 << 20)
    for number in range(1, 8):
        spool.put(dump_id(number), "heap-8080.pb.gz", os.urandom(500_000))
    kept = {name.split("/")[2] for name in files(tmp_path)}
    assert {str(dump_id(1)), str(dump_id(7))} <= kept
    assert set(drops) == {str(dump_id(n)) for n in range(1, 8)} - kept
    assert sum(p.stat().st_size for p in tmp_path.rglob("*") if p.is_file()) <= 2 << 20


def test_what_can_never_fit_is_refused(tmp_path: Path) -> None:
    """A file larger than the spool is an error that names the setting, and leaves nothing behind."""
    spool, _ = make_spool(tmp_path, size_bytes=1 << 20)
    with pytest.raises(SpoolError, match="SPOOL_SIZE"):
        spool.put(dump_id(1), "heap-8080.pb.gz", b"x" * (2 << 20))
    assert files(tmp_path) == []


def test_a_full_disk_drops_older_dumps_and_goes_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """ENOSPC below our own bound: the newest dump is worth more than the middle of the incident."""
    spool, drops = make_spool(tmp_path)
    for number in range(1, 4):
        spool.put(dump_id(number), "heap-8080.pb.gz", b"x" * 1000)
    real_write = os.write

    def write(descriptor: int, data: bytes) -> int:
        if not drops:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        return real_write(descriptor, data)

    monkeypatch.setattr(os, "write", write)
    spool.put(dump_id(4), "heap-8080.pb.gz", b"newest")
    assert drops == [str(dump_id(2))]
    assert f"prod/api-0/{dump_id(4)}/heap-8080.pb.gz" in files(tmp_path)


def test_a_full_disk_with_nothing_to_drop_is_an_error_not_a_crash(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The capture fails with the reason and is tried again by the trigger."""
    spool, _ = make_spool(tmp_path)

    def write(*_: object) -> int:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "write", write)
    with pytest.raises(SpoolError, match="No space left"):
        spool.put(dump_id(1), "heap-8080.pb.gz", b"x")


def test_a_folder_that_the_uploader_took_away_is_made_anew(tmp_path: Path) -> None:
    """The uploader removes emptied folders at any moment; the next file of the dump is kept all the same."""
    spool, _ = make_spool(tmp_path)
    spool.put(dump_id(1), "heap-8080.pb.gz", b"x")
    folder = tmp_path / "queue/prod/api-0" / str(dump_id(1))
    (folder / "heap-8080.pb.gz").unlink()
    folder.rmdir()
    folder.parent.rmdir()
    spool.put(dump_id(1), "manifest.json", b"{}")
    assert files(tmp_path) == [f"prod/api-0/{dump_id(1)}/manifest.json"]


def test_baselines_are_linked_not_uploaded(tmp_path: Path) -> None:
    """A baseline waits beside the queue; each dump gets its own name for the same bytes."""
    spool, _ = make_spool(tmp_path)
    with spool.write_baseline("app-42.pb.gz") as writer:
        writer.write(b"calm")
    assert files(tmp_path) == []
    assert writer.result is not None
    spool.link(dump_id(1), "heap-baseline-8080.pb.gz", writer.result.path)
    spool.drop_baseline("app-42.pb.gz")
    assert (tmp_path / "queue" / files(tmp_path)[0]).read_bytes() == b"calm"


def test_two_watches_do_not_share_a_spool(tmp_path: Path) -> None:
    """The second start is refused with the remedy; after the first has ended it may."""
    spool, _ = make_spool(tmp_path)
    with pytest.raises(StartupError, match="SPOOL_DIR"):
        make_spool(tmp_path)
    spool.close()
    make_spool(tmp_path)[0].close()


def test_an_unusable_directory_names_the_remedy(tmp_path: Path) -> None:
    """A spool that can't be made stops the start with what to do."""
    (tmp_path / "file").write_text("")
    with pytest.raises(StartupError, match="emptyDir"):
        make_spool(tmp_path / "file/spool")
