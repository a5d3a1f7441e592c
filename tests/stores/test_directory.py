"""What is special about a directory: its bound, its file system, and what must not be touched in it."""

from __future__ import annotations

import datetime as dt
import logging
import os
from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sidecar.core.keys import DumpId
from sidecar.core.listing import find_dumps
from sidecar.errors import StoreError
from sidecar.stores import StoreSettings
from sidecar.stores.directory import DirectoryStore
from sidecar.stores.errors import ObjectRefusedError
from tests.stores.conftest import MakeSettings

NOON = dt.datetime(2026, 11, 20, 12, tzinfo=dt.UTC)


def key_of(minute: int, incident: str = "abc", number: int = 1, file: str = "heap-8080.pb.gz") -> str:
    """Key of a file of a dump."""
    at = NOON + dt.timedelta(minutes=minute)
    return f"prod/api-0/{DumpId(at=at, container='app', pid=1, incident=incident, number=number)}/{file}"


@pytest.fixture
def store(make_settings: MakeSettings) -> DirectoryStore:
    """A directory of a thousand bytes."""
    return DirectoryStore(make_settings(directory_size_bytes=1000))


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """Where the store keeps its files."""
    return tmp_path / "dumps"


@pytest.fixture
def source(tmp_path: Path) -> Path:
    """A file of 300 bytes in the spool."""
    path = tmp_path / "heap"
    path.write_bytes(b"p" * 300)
    return path


@pytest.fixture
def elsewhere() -> Iterator[Path]:
    """A directory on another file system."""
    if not Path("/dev/shm").is_dir():
        pytest.skip("no /dev/shm to have a second file system in")
    with TemporaryDirectory(dir="/dev/shm") as path:
        yield Path(path)


def kept(store: DirectoryStore) -> list[str]:
    """Incident and number of the dumps in the store, oldest first."""
    return [f"{dump.id.incident}{dump.id.number}" for dump in reversed(find_dumps(store.list(""), ""))]


def test_on_one_file_system_a_dump_takes_no_room_twice(store: DirectoryStore, root: Path, source: Path) -> None:
    """The stored file is another name of the spool's, and outlives it."""
    store.put(key_of(0), source)
    assert (root / key_of(0)).stat().st_ino == source.stat().st_ino
    source.unlink()
    assert b"".join(store.read(key_of(0))) == b"p" * 300


def test_across_file_systems_it_is_copied(store: DirectoryStore, root: Path, elsewhere: Path) -> None:
    """A link can't cross file systems; a copy can, whole."""
    source = elsewhere / "heap"
    source.write_bytes(b"q" * 300)
    if elsewhere.stat().st_dev == root.parent.stat().st_dev:
        pytest.skip("/dev/shm is on the file system of the test's directory")
    store.put(key_of(0), source)
    assert (root / key_of(0)).read_bytes() == b"q" * 300


def test_what_a_killed_run_left_half_written_is_replaced(store: DirectoryStore, root: Path, source: Path) -> None:
    """A temporary file of an earlier run neither blocks the next nor shows up as an object."""
    target = root / key_of(0)
    target.parent.mkdir(parents=True)
    target.with_name(f".{target.name}.part").write_bytes(b"half")
    assert list(store.list("")) == []
    store.put(key_of(0), source)
    assert list(target.parent.iterdir()) == [target]


def test_nothing_is_overwritten(store: DirectoryStore, root: Path, source: Path) -> None:
    """Another file under the key stays as it is, and only that object is refused."""
    (root / key_of(0)).parent.mkdir(parents=True)
    (root / key_of(0)).write_bytes(b"x" * 300)
    with pytest.raises(ObjectRefusedError, match="holds something else"):
        store.put(key_of(0), source)
    assert (root / key_of(0)).read_bytes() == b"x" * 300


@pytest.mark.parametrize("key", ["../out", "a/../../out", "/etc/out", "a//b", "a/./b", "", "a/\0b"])
def test_keys_can_not_lead_out(store: DirectoryStore, root: Path, source: Path, key: str) -> None:
    """No key reaches a place outside the directory, to write or to read."""
    root.mkdir()
    with pytest.raises(StoreError):
        store.put(key, source)
    with pytest.raises(StoreError):
        list(store.read(key))
    assert list(root.iterdir()) == []
    assert not (root.parent / "out").exists()


def test_links_can_not_lead_out(store: DirectoryStore, root: Path, source: Path) -> None:
    """Neither does a link that someone left in the directory."""
    root.mkdir()
    (root / "prod").symlink_to(root.parent, target_is_directory=True)
    with pytest.raises(StoreError, match="leads out"):
        store.put("prod/out", source)
    assert not (root.parent / "out").exists()


def test_the_bound_is_kept_by_dropping_the_middle(
    store: DirectoryStore, source: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """The first and the newest dump survive, and what had to go is reported with its key and size."""
    caplog.set_level(logging.INFO, logger="sidecar.stores")
    for number in range(1, 6):
        store.put(key_of(number, number=number), source)
    assert kept(store) == ["abc1", "abc4", "abc5"]
    dropped = [getattr(record, "event_fields", None) for record in caplog.records]
    assert dropped == [
        {"event": "dump-dropped", "key": key_of(number, number=number).rpartition("/")[0], "size_bytes": 300}
        for number in (2, 3)
    ]


def test_older_incidents_make_room_for_newer(store: DirectoryStore, source: Path) -> None:
    """With nothing in the middle, the oldest incident goes as a whole."""
    for minute, incident in enumerate(["old", "mid", "new", "now"]):
        store.put(key_of(minute, incident), source)
    assert kept(store) == ["mid1", "new1", "now1"]


def test_the_dump_being_written_never_goes(store: DirectoryStore, source: Path) -> None:
    """A late file of an old dump pushes out others, never the files of its own dump."""
    store.put(key_of(0, "old"), source)
    store.put(key_of(5, "mid"), source)
    store.put(key_of(9, "new"), source)
    store.put(key_of(0, "old", file="goroutine-8080.pb.gz"), source)
    assert kept(store) == ["old1", "new1"]


def test_a_file_that_can_not_fit_is_refused_and_nothing_is_lost(
    store: DirectoryStore, source: Path, tmp_path: Path
) -> None:
    """Where even dropping all that may go isn't enough, nothing is dropped; other objects may still fit."""
    store.put(key_of(0, "old"), source)
    store.put(key_of(5, "new"), source)
    (tmp_path / "huge").write_bytes(bytes(1001))
    with pytest.raises(ObjectRefusedError) as caught:
        store.put(key_of(6, "new", 2), tmp_path / "huge")
    assert "DUMP_DIR_SIZE" in caught.value.remedy
    assert kept(store) == ["old1", "new1"]


def test_foreign_files_are_neither_counted_nor_touched(store: DirectoryStore, root: Path, source: Path) -> None:
    """The directory may be shared: only dumps of ours are held to the bound."""
    (root / "prod/api-0/notes").mkdir(parents=True)
    (root / "prod/api-0/notes/big").write_bytes(bytes(5000))
    for number in range(1, 6):
        store.put(key_of(number, number=number), source)
    assert (root / "prod/api-0/notes/big").stat().st_size == 5000
    assert len(kept(store)) == 3


def test_a_file_in_the_way_is_told(store: DirectoryStore, root: Path, source: Path) -> None:
    """An error of the operating system becomes a StoreError with the path and a remedy."""
    root.write_bytes(b"not a directory")
    with pytest.raises(StoreError) as caught:
        store.put(key_of(0), source)
    assert str(root) in str(caught.value)
    assert "DUMP_DIR" in caught.value.remedy
    with pytest.raises(StoreError):
        store.probe("prod/api-0/.write-probe")


def test_a_name_that_is_too_long_is_told(store: DirectoryStore, source: Path) -> None:
    """The file system's limit on names is the prefix's to keep."""
    with pytest.raises(StoreError) as caught:
        store.put("x" * 300 + "/y", source)
    assert "PREFIX" in caught.value.remedy


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root, to give rights up")
def test_missing_rights_are_told_with_the_user() -> None:
    """The remedy names the user that must be let in, for listing as for writing."""
    with TemporaryDirectory() as name:
        place = Path(name)
        place.chmod(0o755)  # all may pass, but not into what is below
        (place / "dumps").mkdir(mode=0o700)
        (place / "heap").write_bytes(b"p")
        (place / "heap").chmod(0o644)
        settings = StoreSettings(bucket=None, prefix="", directory=place / "dumps", directory_size_bytes=1000)
        try:
            os.seteuid(65534)
            with pytest.raises(StoreError) as caught:
                DirectoryStore(settings).put(key_of(0), place / "heap")
            with pytest.raises(StoreError, match="denied"):
                list(DirectoryStore(settings).list(""))
        finally:
            os.seteuid(0)
    assert "user 65534" in caught.value.remedy


@settings(max_examples=30, deadline=None)
@given(
    st.lists(st.tuples(st.integers(0, 9), st.sampled_from("abc"), st.integers(1, 4), st.integers(0, 700)), max_size=12)
)
def test_no_sequence_of_dumps_breaks_the_bound(puts: list[tuple[int, str, int, int]]) -> None:
    """After each file, stored or refused, the directory holds no more than it may."""
    with TemporaryDirectory() as name:
        root, source = Path(name, "dumps"), Path(name, "source")
        store = DirectoryStore(StoreSettings(bucket=None, prefix="", directory=root, directory_size_bytes=1000))
        for minute, incident, number, size_bytes in puts:
            source.unlink(missing_ok=True)
            source.write_bytes(bytes(size_bytes))
            try:
                store.put(key_of(minute, incident, number), source)
            except ObjectRefusedError:
                continue
            finally:
                assert sum(item.size_bytes for item in store.list("")) <= 1000
            assert key_of(minute, incident, number) in [item.key for item in store.list("")]
