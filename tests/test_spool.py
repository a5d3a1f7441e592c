"""The spool loses nothing, shows nothing half-written, stays in its bounds, and survives a crash."""

from __future__ import annotations

import errno
import os
import shutil
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, BinaryIO

import pytest

from sidecar.core import keys
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


def failing(number: int, real: Callable[..., Any], over: Callable[[], object], part: str = "") -> Callable[..., Any]:
    """A system call that fails for the paths with ``part`` in them until ``over`` holds."""

    def call(*arguments: Any, **options: Any) -> Any:  # noqa: ANN401 -- stands in for any call
        if part in str(arguments[0]) and not over():
            raise OSError(number, os.strerror(number))
        return real(*arguments, **options)

    return call


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EDQUOT])
@pytest.mark.parametrize(("call", "part"), [("mkdir", ""), ("open", ".part-"), ("rename", ".part-"), ("link", "")])
def test_a_full_disk_makes_room_whichever_call_it_fails(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int, call: str, part: str
) -> None:
    """Folders and names need room as bytes do: an older dump goes, the newest is kept with its baseline."""
    spool, drops = make_spool(tmp_path)
    with spool.write_baseline("app-42.pb.gz") as writer:
        writer.write(b"calm")
    assert writer.result is not None
    for n in range(1, 4):
        spool.put(dump_id(n), "heap-8080.pb.gz", b"x" * 1000)
    monkeypatch.setattr(os, call, failing(number, getattr(os, call), lambda: drops, part))
    spool.put(dump_id(4), "heap-8080.pb.gz", b"newest")
    spool.link(dump_id(4), "heap-baseline-8080.pb.gz", writer.result.path)
    assert drops == [str(dump_id(2))]
    kept = {name.rpartition("/")[2] for name in files(tmp_path) if str(dump_id(4)) in name}
    assert kept == {"heap-8080.pb.gz", "heap-baseline-8080.pb.gz"}


def test_a_full_disk_makes_room_for_the_last_moment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The snapshot is on the disk already; what lacks is the room for the folder of its dump."""
    spool, drops = make_spool(tmp_path)
    for n in range(1, 4):
        spool.put(dump_id(n), "heap-8080.pb.gz", b"x" * 1000)
    path = spool.keep_in_hand("42.raw", lambda file: file.write(b"last"), 100)
    monkeypatch.setattr(os, "mkdir", failing(errno.ENOSPC, os.mkdir, lambda: drops, ""))
    spool.adopt_raw_draft(dump_id(4), path)
    assert spool.raw_draft(dump_id(4)).read_bytes() == b"last"
    assert drops == [str(dump_id(2))]


def test_a_dump_that_is_being_taken_is_not_dropped(tmp_path: Path) -> None:
    """Its papers would be all that is left of it. A sibling that finds no room is refused."""
    spool, drops = make_spool(tmp_path, size_bytes=1000)
    siblings = [dump_id(1), replace(dump_id(1), pid=43), replace(dump_id(1), pid=44)]
    for each in siblings[:2]:
        spool.put(each, keys.RAW_DRAFT_NAME, b"x" * 400)
    with pytest.raises(SpoolError, match="SPOOL_SIZE"):
        spool.put(siblings[2], keys.RAW_DRAFT_NAME, b"x" * 400)
    assert drops == []
    for each in siblings[:2]:
        spool.seal(each)
    spool.put(dump_id(2), "heap.pb.gz", b"x" * 100)
    spool.put(dump_id(3), "heap.pb.gz", b"x" * 150)
    assert drops == [str(dump_id(2))], "it is in between now; the first dumps of both processes stay"


def test_the_dump_to_come_is_the_newest(tmp_path: Path) -> None:
    """What goes for it: of its own incident the one that was the newest before, or a whole incident before its own."""
    spool, drops = make_spool(tmp_path, size_bytes=1000)
    for number in (1, 2, 3):
        spool.put(dump_id(number), "heap.pb.gz", b"x" * 450)
    assert drops == [str(dump_id(2))]
    spool.put(dump_id(4, "bbbbbbbb"), "heap.pb.gz", b"x" * 450)
    assert drops[1:] == [str(dump_id(1)), str(dump_id(3))]


def test_a_full_disk_at_the_fsync_makes_room_for_the_next_try(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A file whose fsync failed may have holes: it isn't kept, but its next try has the room."""
    spool, drops = make_spool(tmp_path)
    for n in range(1, 4):
        spool.put(dump_id(n), "heap-8080.pb.gz", b"x" * 1000)
    monkeypatch.setattr(os, "fsync", failing(errno.ENOSPC, os.fsync, lambda: drops))
    with pytest.raises(SpoolError, match="No space left"):
        spool.put(dump_id(4), "heap-8080.pb.gz", b"newest")
    assert drops == [str(dump_id(2))]
    assert not [name for name in files(tmp_path) if str(dump_id(4)) in name]
    spool.put(dump_id(4), "heap-8080.pb.gz", b"newest")
    assert f"prod/api-0/{dump_id(4)}/heap-8080.pb.gz" in files(tmp_path)


def test_dumps_that_cannot_be_removed_make_no_room(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """On a disk that is full and refuses to delete, the file fails: nobody is told of drops, and nothing loops."""
    spool, drops = make_spool(tmp_path)
    for n in range(1, 4):
        spool.put(dump_id(n), "heap-8080.pb.gz", b"x" * 1000)
    monkeypatch.setattr(shutil, "rmtree", lambda *_, **__: None)
    monkeypatch.setattr(os, "write", failing(errno.ENOSPC, os.write, lambda: False))
    with pytest.raises(SpoolError, match="No space left"):
        spool.put(dump_id(4), "heap-8080.pb.gz", b"x")
    assert drops == []


def test_a_baseline_never_costs_a_dump(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Neither our own bound nor a full disk makes a dump go for a profile of calm times."""
    spool, drops = make_spool(tmp_path, size_bytes=1 << 20)
    for n in range(1, 5):
        spool.put(dump_id(n), "heap-8080.pb.gz", os.urandom(250_000))
    with pytest.raises(SpoolError, match="SPOOL_SIZE"), spool.write_baseline("app-42.pb.gz") as writer:
        writer.write(b"x" * 100_000)
    monkeypatch.setattr(os, "write", failing(errno.ENOSPC, os.write, lambda: drops))
    with pytest.raises(SpoolError, match="No space left"), spool.write_baseline("app-42.pb.gz") as writer:
        writer.write(b"x")
    assert drops == []
    assert spool.pending_files() == 4


def test_what_fits_costs_no_dump(tmp_path: Path) -> None:
    """A small file isn't refused, nor a dump dropped for it, because a larger one would not fit."""
    spool, drops = make_spool(tmp_path, size_bytes=1 << 20)
    for n in range(1, 5):
        spool.put(dump_id(n), "heap-8080.pb.gz", os.urandom(210_000))  # about 200 kB are left
    spool.put(dump_id(4), "manifest.json", b"x" * 6000)
    with spool.write_baseline("app-42.pb.gz") as writer:
        writer.write(b"x" * 6000)
    assert writer.result is not None
    assert drops == []


def test_what_can_never_fit_costs_no_dump(tmp_path: Path) -> None:
    """Nothing is dropped where dropping wouldn't be enough."""
    spool, drops = make_spool(tmp_path, size_bytes=1 << 20)
    for n in range(1, 4):
        spool.put(dump_id(n), "heap-8080.pb.gz", os.urandom(200_000))
    with pytest.raises(SpoolError, match="SPOOL_SIZE"):
        spool.put(dump_id(4), "heap-8080.pb.gz", b"x" * (2 << 20))
    assert drops == []


def test_what_was_uploaded_at_once_was_stored(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The uploader may take a file and its folder the moment it has its name: that is no failure."""
    spool, _ = make_spool(tmp_path)
    real = os.rename

    def rename_and_take(source: str, target: str) -> None:
        real(source, target)
        Path(target).unlink()
        Path(target).parent.rmdir()

    monkeypatch.setattr(os, "rename", rename_and_take)
    with spool.write(dump_id(1), "heap-8080.pb.gz") as writer:
        writer.write(b"profile")
    assert writer.result is not None
    assert writer.result.size_bytes == 7


def test_drafts_are_sealed_at_the_end(tmp_path: Path) -> None:
    """What was begun and not finished is uploaded with what is known of it; until then it counts as left."""
    spool, _ = make_spool(tmp_path)
    spool.put(dump_id(1), "heap-8080.pb.gz", b"profile")
    spool.draft_manifest(dump_id(1), b"draft")
    assert (spool.pending_files(), spool.left_files()) == (1, 2)
    spool.seal_all()
    assert (spool.pending_files(), spool.left_files()) == (2, 2)
    assert f"prod/api-0/{dump_id(1)}/manifest.json" in files(tmp_path)


def test_a_dump_sealed_at_the_end_gets_no_second_manifest(tmp_path: Path) -> None:
    """Its manifest may be in the store already, where nothing is ever replaced; other dumps are finished as usual."""
    spool, _ = make_spool(tmp_path)
    spool.draft_manifest(dump_id(1), b"draft")
    spool.seal_all()
    for number in (1, 2):
        spool.draft_manifest(dump_id(number), b"finished")
        spool.seal(dump_id(number))
    queue = tmp_path / "queue/prod/api-0"
    manifests = [(queue / str(dump_id(number)) / "manifest.json").read_bytes() for number in (1, 2)]
    assert manifests == [b"draft", b"finished"]
    assert spool.left_files() == 2


def test_a_draft_that_cannot_be_sealed_counts_as_left(tmp_path: Path) -> None:
    """One such draft keeps no other from being sealed, and nobody is told that all is stored."""
    spool, _ = make_spool(tmp_path)
    for number in (1, 2, 3):
        spool.draft_manifest(dump_id(number), b"{}")
    (tmp_path / "queue/prod/api-0" / str(dump_id(2)) / "manifest.json").mkdir()
    spool.seal_all()
    assert (spool.pending_files(), spool.left_files()) == (2, 3)


def test_only_what_the_uploader_takes_is_pending(tmp_path: Path) -> None:
    """Links and strays wait for nobody: they must not keep an uploader starting for ever."""
    spool, _ = make_spool(tmp_path)
    spool.put(dump_id(1), "heap-8080.pb.gz", b"profile")
    pod = tmp_path / "queue/prod/api-0"
    (pod / "stray").write_bytes(b"x")
    (pod / str(dump_id(1)) / "link.pb.gz").symlink_to(tmp_path / "nowhere")
    (pod / str(dump_id(2))).symlink_to(pod / str(dump_id(1)))
    assert spool.pending() == {f"prod/api-0/{dump_id(1)}/heap-8080.pb.gz"}
    assert spool.pending_files() == spool.left_files() == 1


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


def test_a_raw_snapshot_is_uploaded_if_nobody_lived_to_make_a_profile_of_it(tmp_path: Path) -> None:
    """Until then it is nobody's to upload; the next start hands it out as it is."""
    spool, _ = make_spool(tmp_path)
    spool.put(dump_id(1), keys.RAW_DRAFT_NAME, b"raw")
    assert files(tmp_path) == []
    assert spool.left_files() == 1
    spool.close()
    make_spool(tmp_path)
    assert files(tmp_path) == [f"prod/api-0/{dump_id(1)}/heap-newest.raw"]


def test_a_snapshot_in_hand_is_replaced_whole_and_becomes_a_dumps(tmp_path: Path) -> None:
    """What fails half-way leaves the one before; what is adopted is the dump's; none survives a new start."""
    spool, _ = make_spool(tmp_path)
    path = spool.keep_in_hand("42.raw", lambda file: file.write(b"first"), 100)

    def fail(file: BinaryIO) -> int:
        file.write(b"half")
        raise OSError(errno.EIO, "broken")

    with pytest.raises(SpoolError, match=r"42\.raw"):
        spool.keep_in_hand("42.raw", fail, 100)
    assert path.read_bytes() == b"first"
    assert [file.name for file in path.parent.iterdir()] == ["42.raw"]
    spool.adopt_raw_draft(dump_id(1), path)
    assert spool.raw_draft(dump_id(1)).read_bytes() == b"first"
    left = spool.keep_in_hand("43.raw", lambda file: file.write(b"x"), 100)
    spool.close()
    make_spool(tmp_path)
    assert not left.exists()


def test_no_dump_goes_for_a_snapshot_in_hand(tmp_path: Path) -> None:
    """Where the spool is full it isn't kept, and what was captured stays."""
    spool, drops = make_spool(tmp_path, size_bytes=1000)
    spool.put(dump_id(1), "heap.pb.gz", b"x" * 400)
    spool.put(dump_id(2, "bbbbbbbb"), "heap.pb.gz", b"x" * 400)
    with pytest.raises(SpoolError, match="SPOOL_SIZE"):
        spool.keep_in_hand("42.raw", lambda file: file.write(b"x"), 500)
    assert drops == []


def test_an_older_dump_goes_for_a_snapshot_in_hand_that_is_urgent(tmp_path: Path) -> None:
    """In an incident the middle of it makes room, where that is enough; else nothing goes."""
    spool, drops = make_spool(tmp_path, size_bytes=1000)
    for number in (1, 2, 3):
        spool.put(dump_id(number), "heap.pb.gz", b"x" * 300)
    with pytest.raises(SpoolError, match="SPOOL_SIZE"):
        spool.keep_in_hand("42.raw", lambda file: file.write(b"x" * 800), 800, older_dumps_may_go=True)
    assert drops == []
    path = spool.keep_in_hand("42.raw", lambda file: file.write(b"x" * 350), 350, older_dumps_may_go=True)
    assert path.read_bytes() == b"x" * 350
    assert drops == [str(dump_id(2))]
