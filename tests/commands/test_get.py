from __future__ import annotations

import json
import os
import pty
import subprocess
import sys
from collections.abc import Iterator
from hashlib import sha256
from pathlib import Path
from urllib.parse import parse_qsl, quote

import boto3
import pytest

from sidecar.stores.directory import DirectoryStore
from tests.commands.conftest import Files, Run, manifest_of, write_dump
from tests.s3_servers import S3Endpoint
from tests.s3_servers.scripted import Answer, Received, error, scripted_server

NAME = "20261120T225012.123Z_app_pid42_k3x9-1"
KEY = f"prod/api-0/{NAME}"
HEAP = os.urandom(300_000)
FILES: Files = {
    "heap-8080.pb.gz": HEAP,
    "heap-baseline-8080.pb.gz": b"baseline",
    "goroutine-8080.pb.gz": b"goroutines",
}


@pytest.fixture
def stored(dump_dir: Path) -> Path:
    """A directory with one dump."""
    write_dump(dump_dir, KEY, FILES)
    return dump_dir


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The current directory, empty."""
    path = tmp_path / "here"
    path.mkdir()
    monkeypatch.chdir(path)
    return path


def contents(folder: Path) -> Files:
    """The files of a folder."""
    return {path.name: path.read_bytes() for path in folder.iterdir()}


@pytest.mark.parametrize("key", [KEY, f"{KEY}/", f"{KEY}/manifest.json", NAME])
def test_a_dump_is_fetched_whole_by_any_of_its_names(run: Run, stored: Path, here: Path, key: str) -> None:
    """The key as listed, the key of a file in it, or the bare id; the manifest comes along."""
    ran = run("get", "--dump-dir", stored, key)
    assert ran.code == 0
    assert contents(here / NAME) == FILES | {"manifest.json": manifest_of(FILES)}


def test_a_key_without_the_prefix_needs_no_more_rights_than_the_prefix(
    run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A reader may list below the prefix only; also where there is no such dump, that is what is said."""

    def guarded(request: Received) -> Answer:
        listed = dict(parse_qsl(request.query)).get("prefix", "")
        if not listed.startswith("team/"):
            return error(403, "AccessDenied")
        return Answer(body=b"<ListBucketResult><IsTruncated>false</IsTruncated></ListBucketResult>")

    with scripted_server(guarded) as server:
        server.endpoint.point_here(monkeypatch)
        ran = run("get", KEY, "--bucket", "dumps", "--prefix", "team")
    assert ran.code == 1
    assert f"no dump {KEY}" in ran.err
    assert "AccessDenied" not in ran.err


def test_it_ends_with_the_lines_that_open_it(run: Run, stored: Path, here: Path) -> None:
    """On stdout there is nothing but commands to copy, with paths that exist."""
    out = run("get", "--dump-dir", stored, KEY).out
    assert out.splitlines() == [
        f"go tool pprof -top {NAME}/heap-8080.pb.gz",
        f"go tool pprof -http=: {NAME}/heap-8080.pb.gz",
        f"go tool pprof -diff_base={NAME}/heap-baseline-8080.pb.gz -top {NAME}/heap-8080.pb.gz",
    ]
    assert (here / NAME / "heap-8080.pb.gz").exists()


def test_another_directory_may_be_named(run: Run, stored: Path, here: Path) -> None:
    """It is made if need be, and a name with a blank is quoted for the shell."""
    ran = run("get", "--dump-dir", stored, KEY, "--dir", "my dumps")
    assert f"-top 'my dumps/{NAME}/heap-8080.pb.gz'" in ran.out
    assert (here / "my dumps" / NAME / "heap-8080.pb.gz").read_bytes() == HEAP


@pytest.fixture
def reads(monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, int]]:
    """What is read from the store: file and offset."""
    seen: list[tuple[str, int]] = []
    original = DirectoryStore.read

    def read(self: DirectoryStore, key: str, offset: int = 0) -> Iterator[bytes]:
        seen.append((key.rpartition("/")[2], offset))
        return original(self, key, offset)

    monkeypatch.setattr(DirectoryStore, "read", read)
    return seen


def test_what_is_there_already_is_not_fetched_again(
    run: Run, stored: Path, here: Path, reads: list[tuple[str, int]]
) -> None:
    """Profiles with the right checksum stay; a damaged one is fetched anew."""
    run("get", "--dump-dir", stored, KEY)
    (here / NAME / "goroutine-8080.pb.gz").write_bytes(b"damaged")
    reads.clear()
    assert run("get", "--dump-dir", stored, KEY).code == 0
    assert reads == [("manifest.json", 0), ("goroutine-8080.pb.gz", 0)]
    assert (here / NAME / "goroutine-8080.pb.gz").read_bytes() == b"goroutines"


def test_a_broken_download_is_resumed(run: Run, stored: Path, here: Path, reads: list[tuple[str, int]]) -> None:
    """What an earlier run left in NAME.part isn't fetched again, and the whole is checked."""
    (here / NAME).mkdir()
    (here / NAME / "heap-8080.pb.gz.part").write_bytes(HEAP[:123_456])
    assert run("get", "--dump-dir", stored, KEY).code == 0
    assert ("heap-8080.pb.gz", 123_456) in reads
    assert contents(here / NAME) == FILES | {"manifest.json": manifest_of(FILES)}


@pytest.mark.parametrize("part", [HEAP, HEAP + b"surplus"])
def test_a_part_that_is_whole_or_too_long_is_no_trap(run: Run, stored: Path, here: Path, part: bytes) -> None:
    """Killed just before the rename, or left from something else: the result is right either way."""
    (here / NAME).mkdir()
    (here / NAME / "heap-8080.pb.gz.part").write_bytes(part)
    assert run("get", "--dump-dir", stored, KEY).code == 0
    assert (here / NAME / "heap-8080.pb.gz").read_bytes() == HEAP


def test_a_wrong_checksum_is_refused_and_the_file_removed(run: Run, stored: Path, here: Path) -> None:
    """A file that isn't what was captured is never left under its name; the next run begins anew."""
    (here / NAME).mkdir()
    (here / NAME / "heap-8080.pb.gz.part").write_bytes(b"stale" * 100)
    ran = run("get", "--dump-dir", stored, KEY)
    assert ran.code == 1
    assert "sha256" in ran.err
    assert len(ran.err.splitlines()) == 1
    assert not list((here / NAME).glob("heap-8080*"))
    assert run("get", "--dump-dir", stored, KEY).code == 0


def test_a_dump_without_its_manifest_comes_with_a_warning(run: Run, dump_dir: Path, here: Path) -> None:
    """The sidecar died before it could write one: the profile is still worth having."""
    write_dump(dump_dir, KEY, FILES, manifest=False)
    (here / NAME).mkdir()
    (here / NAME / "heap-8080.pb.gz.part").write_bytes(b"can't be trusted")
    ran = run("get", "--dump-dir", dump_dir, KEY)
    assert ran.code == 0
    assert "not checked" in ran.err
    assert contents(here / NAME) == FILES


@pytest.mark.parametrize("manifest", [b"", b"not json", b"[]", b'{"profiles": 3}', b'{"profiles": [{}]}', b"[" * 5000])
def test_a_manifest_that_makes_no_sense_is_a_warning(run: Run, stored: Path, here: Path, manifest: bytes) -> None:
    """Whatever it holds, the profiles are fetched and their state is told."""
    (stored / KEY / "manifest.json").write_bytes(manifest)
    ran = run("get", "--dump-dir", stored, KEY)
    assert ran.code == 0
    assert "not checked" in ran.err
    assert (here / NAME / "heap-8080.pb.gz").read_bytes() == HEAP


@pytest.mark.usefixtures("here")
def test_the_verdict_comes_first(run: Run, stored: Path) -> None:
    """Why memory was at the limit is the first that one reads; what anybody may have written there is escaped."""
    manifest = json.loads((stored / KEY / "manifest.json").read_bytes())
    verdict = {"name": "gc-headroom", "why": "garbage\x1b[31m", "remedy": "set GOMEMLIMIT\n" + "x" * 10_000}
    (stored / KEY / "manifest.json").write_text(json.dumps(manifest | {"verdict": verdict}))
    ran = run("get", "--dump-dir", stored, KEY)
    assert ran.code == 0
    first, second = ran.err.splitlines()
    assert first.startswith("gc-headroom: garbage\\x1b[31m; set GOMEMLIMIT\\nxxx")
    assert len(first) < 3000
    assert second.startswith(NAME)


@pytest.mark.parametrize("verdict", [None, "x", 3, [], {}, {"name": "x"}, {"name": 1, "why": [], "remedy": None}])
@pytest.mark.usefixtures("here")
def test_a_verdict_that_is_none_is_left_out(run: Run, stored: Path, verdict: object) -> None:
    """The manifest of another version, or one that somebody made up."""
    manifest = json.loads((stored / KEY / "manifest.json").read_bytes())
    (stored / KEY / "manifest.json").write_text(json.dumps(manifest | {"verdict": verdict}))
    ran = run("get", "--dump-dir", stored, KEY)
    assert (ran.code, len(ran.err.splitlines())) == (0, 1)


def test_a_profile_that_is_not_there_yet_is_told(run: Run, stored: Path, here: Path) -> None:
    """The manifest may be ahead of the uploader, or the upload of one profile failed."""
    (stored / KEY / "goroutine-8080.pb.gz").unlink()
    ran = run("get", "--dump-dir", stored, KEY)
    assert ran.code == 0
    assert "goroutine-8080.pb.gz" in ran.err
    assert sorted(contents(here / NAME)) == ["heap-8080.pb.gz", "heap-baseline-8080.pb.gz", "manifest.json"]


@pytest.mark.parametrize(
    ("options", "name"),
    [
        (["--pod", "api-0"], "20261120T225012.123Z_app_pid42_k3x9-1"),
        (["--pod", "api-1"], "20261120T233000.000Z_worker_pid1_bbbb-1"),
        (["--pod", "api-1", "--container", "app"], "20261120T231000.000Z_app_pid1_aaaa-1"),
        (["--namespace", "prod"], "20261120T233000.000Z_worker_pid1_bbbb-1"),
        ([], "20261120T233000.000Z_worker_pid1_bbbb-1"),
    ],
)
def test_the_latest_of_a_pod_is_chosen(run: Run, stored: Path, here: Path, options: list[str], name: str) -> None:
    """The newest that matches and has a profile; a mere note of an ending is no dump."""
    write_dump(stored, "prod/api-1/20261120T231000.000Z_app_pid1_aaaa-1", FILES)
    write_dump(stored, "prod/api-1/20261120T233000.000Z_worker_pid1_bbbb-1", FILES)
    note = {"outcome-oom-killed.json": b"{}"}
    write_dump(stored, "prod/api-1/20261120T235900.000Z_app_pid2_cccc-0", note, manifest=False)
    assert run("get", "--dump-dir", stored, "--latest", *options).code == 0
    assert [path.name for path in here.iterdir()] == [name]


@pytest.mark.parametrize(
    "arguments", [[f"prod/api-0/{NAME[:-1]}9"], [f"{NAME[:-1]}9"], ["--latest", "--pod", "absent"]]
)
def test_no_such_dump_is_one_line(run: Run, stored: Path, here: Path, arguments: list[str]) -> None:
    """Exit code 1, the place that was searched, nothing made."""
    ran = run("get", "--dump-dir", stored, *arguments)
    assert (ran.code, ran.out) == (1, "")
    assert str(stored) in ran.err
    assert len(ran.err.splitlines()) == 1
    assert list(here.iterdir()) == []


@pytest.mark.parametrize(
    "arguments", [[], [KEY, "--latest"], [KEY, "--pod", "api-0"], ["nonsense"], ["../../etc"], ["x\x1b[2J"], ["s3://b"]]
)
def test_a_wrong_call_is_a_usage_error(run: Run, stored: Path, here: Path, arguments: list[str]) -> None:
    """Exit code 2 with one printable line."""
    ran = run("get", "--dump-dir", stored, *arguments)
    assert ran.code == 2
    assert ran.err.rstrip("\n").isprintable()
    assert list(here.iterdir()) == []


def test_an_ambiguous_id_asks_for_the_whole_key(run: Run, stored: Path, here: Path) -> None:
    """A copy elsewhere in the store isn't chosen by chance."""
    write_dump(stored, f"test/api-0/{NAME}", FILES)
    ran = run("get", "--dump-dir", stored, NAME)
    assert ran.code == 1
    assert "2 times" in ran.err
    assert list(here.iterdir()) == []


def _hostile_bucket(request: Received) -> Answer:
    """A bucket whose keys climb, break lines and carry escape codes; each object is as evil as its name."""
    if "list-type" in request.query:
        tails = (
            "heap-8080.pb.gz",
            "manifest.json",
            "../../../evil",
            "..",
            "\x1b[31m.pb.gz",
            "a\nb",
            ".x",
            "sub/heap.pb.gz",
        )
        items = "".join(
            f"<Contents><Key>{quote(f'{KEY}/{tail}')}</Key><Size>4</Size>"
            "<LastModified>2026-11-20T22:50:12.000Z</LastModified></Contents>"
            for tail in tails
        )
        page = f"<ListBucketResult><EncodingType>url</EncodingType>{items}</ListBucketResult>"
        return Answer(body=page.encode())
    if request.key.endswith("manifest.json"):
        profiles = [{"name": "../../evil\x1b[2J", "sha256": "\x1b[2J"}]
        return Answer(body=json.dumps({"profiles": profiles}).encode())
    return Answer(body=b"evil")


def test_hostile_names_write_nothing_elsewhere(run: Run, here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Only names of ours are fetched; keys that climb or carry escape codes are passed over, unprinted."""
    with scripted_server(_hostile_bucket) as server:
        server.endpoint.point_here(monkeypatch)
        ran = run("get", "--bucket", "dumps", KEY)
    assert ran.code == 0
    assert (ran.out + ran.err).replace("\n", "").isprintable()
    assert sorted(contents(here / NAME)) == ["heap-8080.pb.gz", "manifest.json"]
    assert [path.name for path in here.iterdir()] == [NAME]
    assert not list(here.parent.glob("evil*"))


def test_a_directory_that_can_not_be_written_is_told(run: Run, stored: Path, here: Path) -> None:
    """One line with the path and the reason, exit code 1."""
    (here / NAME).write_bytes(b"in the way")
    ran = run("get", "--dump-dir", stored, KEY)
    assert ran.code == 1
    assert NAME in ran.err
    assert len(ran.err.splitlines()) == 1


@pytest.mark.parametrize("key", ["s3://dumps/team/eu/{key}", "team/eu/{key}", "{key}", "{name}"])
def test_a_dump_in_a_bucket_is_fetched_by_any_of_its_names(
    run: Run, here: Path, moto: S3Endpoint, monkeypatch: pytest.MonkeyPatch, key: str
) -> None:
    """As an s3:// address without further options; otherwise with or without the prefix, or by its id."""
    moto.point_here(monkeypatch)
    for name, content in (FILES | {"manifest.json": manifest_of(FILES)}).items():
        boto3.client("s3").put_object(Bucket=moto.bucket, Key=f"team/eu/{KEY}/{name}", Body=content)
    (here / NAME).mkdir()
    (here / NAME / "heap-8080.pb.gz.part").write_bytes(HEAP[:1000])
    options = [] if key.startswith("s3:") else ["--bucket", moto.bucket, "--prefix", "team/eu"]
    ran = run("get", *options, key.format(key=KEY, name=NAME))
    assert ran.code == 0
    assert sha256((here / NAME / "heap-8080.pb.gz").read_bytes()).digest() == sha256(HEAP).digest()


@pytest.mark.parametrize("arguments", [["--latest"], [KEY], [NAME]])
def test_neither_a_bucket_nor_a_directory_is_a_usage_error(
    run: Run, here: Path, monkeypatch: pytest.MonkeyPatch, arguments: list[str]
) -> None:
    """Where BUCKET was forgotten, it isn't the dump that is missing."""
    monkeypatch.delenv("BUCKET", raising=False)
    ran = run("get", "--dump-dir", here / "absent", *arguments)
    assert (ran.code, len(ran.err.splitlines())) == (2, 1)
    assert f"no directory {here / 'absent'}" in ran.err
    assert "BUCKET" in ran.err


@pytest.mark.parametrize(
    ("arguments", "hint"),
    [
        (["--latest"], True),
        (["--latest", "-n", "prod", "-p", "api-0"], True),
        ([KEY], True),
        ([NAME], True),
        ([f"s3://dumps/{KEY}"], True),
        ([f"team/uk/{KEY}"], False),
        (["--latest", "--prefix", "team/eu", "-p", "absent"], False),
    ],
)
@pytest.mark.usefixtures("here")
def test_a_forgotten_prefix_is_named(
    run: Run, moto: S3Endpoint, monkeypatch: pytest.MonkeyPatch, arguments: list[str], *, hint: bool
) -> None:
    """One line, exit code 1, and the option that mends it, where it does."""
    moto.point_here(monkeypatch)
    for name, content in (FILES | {"manifest.json": manifest_of(FILES)}).items():
        boto3.client("s3").put_object(Bucket=moto.bucket, Key=f"team/eu/{KEY}/{name}", Body=content)
    ran = run("get", "--bucket", moto.bucket, *arguments)
    assert (ran.code, ran.out, len(ran.err.splitlines())) == (1, "", 1)
    assert ran.err.endswith("add --prefix team/eu\n") is hint
    if hint:
        assert run("get", "--bucket", moto.bucket, *arguments, "--prefix", "team/eu").code == 0


def test_a_terminal_sees_progress(stored: Path, here: Path) -> None:
    """On a terminal a bar reaches 100 %; stdout stays clean for the commands."""
    master, slave = pty.openpty()
    command = [sys.executable, "-m", "sidecar", "get", "--dump-dir", str(stored), KEY]
    finished = subprocess.run(command, stdout=subprocess.PIPE, stderr=slave, text=True, check=True, cwd=here)
    os.close(slave)
    seen = os.read(master, 65536).decode()
    os.close(master)
    assert "100%" in seen
    assert finished.stdout.startswith("go tool pprof")
