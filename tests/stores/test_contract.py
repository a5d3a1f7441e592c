"""What every store must do, tried on each of them: a directory, moto, and Swift over HTTP and over TLS."""

from __future__ import annotations

import datetime as dt
import os
import uuid
from pathlib import Path

import pytest

from sidecar.core.keys import join_key
from sidecar.errors import NotFoundError, StoreError
from sidecar.stores import Store, open_store
from tests.s3_servers import S3Endpoint
from tests.s3_servers.swift import SwiftServer
from tests.stores.conftest import MakeSettings

FOLDER = "prod/api-0/20261120T225012.123Z_app_pid42_k3x9q2mw-1"


@pytest.fixture(params=["directory", "moto", "swift-http", "swift-https"])
def store(request: pytest.FixtureRequest, make_settings: MakeSettings, monkeypatch: pytest.MonkeyPatch) -> Store:
    """One of each kind in turn."""
    if request.param == "directory":
        return open_store(make_settings())
    server: S3Endpoint | SwiftServer = request.getfixturevalue(request.param.partition("-")[0])
    endpoint = server if isinstance(server, S3Endpoint) else getattr(server, request.param.partition("-")[2])
    endpoint.point_here(monkeypatch)
    return open_store(make_settings(bucket=endpoint.bucket))


@pytest.fixture
def base() -> str:
    """A prefix of the test's own: the servers outlive it."""
    return f"test-{uuid.uuid4().hex}"


@pytest.fixture
def source(tmp_path: Path) -> Path:
    """A file of ten bytes."""
    path = tmp_path / "source"
    path.write_bytes(b"0123456789")
    return path


def test_what_was_put_is_listed_and_read_back(store: Store, base: str, source: Path) -> None:
    """An object has the key, the size, the time and the bytes it was put with."""
    key = join_key(base, FOLDER, "heap-8080.pb.gz")
    store.put(key, source)
    [found] = store.list(f"{base}/")
    assert (found.key, found.size_bytes) == (key, 10)
    assert abs(found.modified - dt.datetime.now(dt.UTC)) < dt.timedelta(hours=1)
    assert b"".join(store.read(key)) == b"0123456789"


@pytest.mark.parametrize("size_bytes", [0, 1, 5_000_001])
def test_any_size_comes_back_whole(store: Store, base: str, tmp_path: Path, size_bytes: int) -> None:
    """Empty files, single bytes and some megabytes survive, whatever encoding the way there uses."""
    content = os.urandom(size_bytes)
    (tmp_path / "random").write_bytes(content)
    store.put(join_key(base, "random"), tmp_path / "random")
    assert b"".join(store.read(join_key(base, "random"))) == content


def test_putting_again_after_a_lost_answer_is_success(store: Store, base: str, source: Path) -> None:
    """A retry of what had arrived already doesn't fail and changes nothing."""
    key = join_key(base, "same")
    store.put(key, source)
    store.put(key, source)
    assert [found.size_bytes for found in store.list(base)] == [10]
    assert b"".join(store.read(key)) == b"0123456789"


@pytest.mark.parametrize(("offset", "rest"), [(0, b"0123456789"), (4, b"456789"), (9, b"9"), (10, b""), (11, b"")])
def test_reading_begins_at_the_offset(store: Store, base: str, source: Path, offset: int, rest: bytes) -> None:
    """A download resumes anywhere; at and beyond the end there is nothing more, which is no error."""
    key = join_key(base, "resumed")
    store.put(key, source)
    assert b"".join(store.read(key, offset)) == rest


def test_listing_takes_the_prefix_to_the_letter_and_sorts(store: Store, base: str, source: Path) -> None:
    """Only keys that begin with the prefix are listed, in the order of their bytes."""
    for name in ("team/b", "team/a/deep", "team-x", "team/é", "team/a.z", "other"):
        store.put(join_key(base, name), source)
    assert [found.key for found in store.list(f"{base}/team/")] == [
        join_key(base, name) for name in ("team/a.z", "team/a/deep", "team/b", "team/é")
    ]
    assert [found.key for found in store.list(f"{base}/team-")] == [join_key(base, "team-x")]


def test_an_empty_place_lists_nothing(store: Store, base: str) -> None:
    """No dumps yet is an empty list, not an error."""
    assert list(store.list(f"{base}/nothing/")) == []


@pytest.mark.parametrize("name", ["a b+c", "100%41", "~!*'()&=@:,;$", "größe-😀"])
def test_keys_of_any_characters_arrive_as_they_are(store: Store, base: str, source: Path, name: str) -> None:
    """Escaping and signing of unusual keys round-trips; a store that verifies signatures is the judge."""
    key = join_key(base, name, name)
    store.put(key, source)
    assert [found.key for found in store.list(f"{base}/")] == [key]
    assert b"".join(store.read(key, 5)) == b"56789"


def test_reading_what_is_not_there_says_so(store: Store, base: str) -> None:
    """A missing object is told apart from a store that fails."""
    with pytest.raises(NotFoundError, match="missing"):
        next(store.read(join_key(base, "missing")))


def test_a_source_that_vanished_is_a_store_error(store: Store, base: str, tmp_path: Path) -> None:
    """The spool may drop a file at any time: the store reports it and stores nothing."""
    with pytest.raises(StoreError, match="can't read"):
        store.put(join_key(base, "vanished"), tmp_path / "vanished")
    assert list(store.list(base)) == []


def test_a_probe_proves_the_right_to_write_and_leaves_nothing(store: Store, base: str) -> None:
    """Probing works again and again, and cleans up where deleting is allowed."""
    store.probe(join_key(base, "prod/api-0/.write-probe"))
    store.probe(join_key(base, "prod/api-0/.write-probe"))
    assert list(store.list(base)) == []


def test_the_location_is_what_a_person_calls_it(store: Store) -> None:
    """A bucket is an s3:// address, a directory a path."""
    assert store.location.startswith(("s3://dumps", "/"))
