from __future__ import annotations

import json
from pathlib import Path
from urllib.parse import parse_qs, quote

import boto3
import pytest

from sidecar.commands.list_dumps import _table
from sidecar.core.listing import find_dumps
from sidecar.stores import StoreSettings, open_store
from tests.commands.conftest import Run, write_dump
from tests.s3_servers import S3Endpoint
from tests.s3_servers.scripted import Answer, Received, error, scripted_server

OLD = "prod/api-0/20261119T080000.000Z_app_pid7_aaaa-1"
NEW = "prod/api-1/20261120T225012.123Z_worker_pid42_bbbb-2"
QUIET = "test/job/20261120T230000.000Z_app_pid9_cccc-0"


@pytest.fixture
def three(dump_dir: Path) -> Path:
    """A directory with an old dump, a newer one that ended in an OOM kill, and a container that just exited."""
    write_dump(dump_dir, OLD, {"heap-8080.pb.gz": b"x" * 1000})
    outcome = {"outcome-oom-killed.json": b"{}"}
    write_dump(dump_dir, NEW, {"heap-8080.pb.gz": b"y" * 2000, "goroutine-8080.pb.gz": b"z"} | outcome)
    write_dump(dump_dir, QUIET, {"outcome-exited.json": b"{}"}, manifest=False)
    return dump_dir


def test_the_table_shows_what_one_chooses_by(run: Run, three: Path) -> None:
    """Newest first, with where it is from, how it ended, what is in it, and the key to fetch it."""
    ran = run("list", "--dump-dir", three)
    header, first, second = ran.out.splitlines()
    assert ran.code == 0
    assert header.split() == [
        *("TIME", "(UTC)", "NAMESPACE", "POD", "CONTAINER", "PID", "INCIDENT", "OUTCOME", "PROFILES", "SIZE", "KEY")
    ]
    assert first.split()[:9] == [
        *("2026-11-20", "22:50:12", "prod", "api-1", "worker", "42", "bbbb-2", "oom-killed", "goroutine,heap")
    ]
    assert first.split()[-1] == NEW
    assert second.split()[7:9] == ["-", "heap"]
    assert second.split()[-1] == OLD


def test_columns_line_up(run: Run, three: Path) -> None:
    """Each column begins below its heading."""
    header, *rows = run("list", "--dump-dir", three).out.splitlines()
    for row in rows:
        assert row.index("prod/api") == header.index("KEY")
        assert row.index("prod ") == header.index("NAMESPACE")


def test_ordinary_endings_are_shown_on_request(run: Run, three: Path) -> None:
    """A container that exited without a dump appears only with --all."""
    assert QUIET not in run("list", "--dump-dir", three).out
    first = run("list", "--dump-dir", three, "--all").out.splitlines()[1]
    assert first.split()[6:9] == ["cccc-0", "exited", "-"]


@pytest.mark.parametrize(
    ("options", "found"),
    [
        (["-n", "prod"], [NEW, OLD]),
        (["-n", "test"], []),
        (["-p", "api-1"], [NEW]),
        (["-n", "prod", "-p", "api-0"], [OLD]),
        (["-c", "worker"], [NEW]),
        (["--since", "2026-11-20T00:00"], [NEW]),
        (["--since", "2026-11-20T22:50:12.124Z"], []),
        (["--all", "--since", "2026-11-20T22:55"], [QUIET]),
    ],
)
def test_options_narrow_the_list(run: Run, three: Path, options: list[str], found: list[str]) -> None:
    """Each option leaves out what doesn't match; together they all must hold."""
    ran = run("list", "--dump-dir", three, "-o", "json", *options)
    assert (ran.code, [dump["key"] for dump in json.loads(ran.out)]) == (0, found)


def test_json_has_every_field_for_a_script(run: Run, three: Path) -> None:
    """A script gets what the table shows and each profile by itself."""
    first = json.loads(run("list", "--dump-dir", three, "--output", "json").out)[0]
    assert first["time"] == "2026-11-20T22:50:12.123Z"
    assert first["incident"] == {"id": "bbbb", "number": 2}
    assert (first["container"], first["pid"], first["outcome"]) == ("worker", 42, "oom-killed")
    assert {"name": "heap-8080.pb.gz", "kind": "heap", "port": 8080, "size_bytes": 2000} in first["profiles"]


@pytest.mark.parametrize(("output", "printed"), [("table", ""), ("json", "[]\n")])
def test_an_empty_list_is_no_error(run: Run, dump_dir: Path, output: str, printed: str) -> None:
    """It says so on stderr and stays silent, or valid JSON, on stdout."""
    ran = run("list", "--dump-dir", dump_dir, "-o", output)
    assert (ran.code, ran.out) == (0, printed)
    assert str(dump_dir) in ran.err
    assert len(ran.err.splitlines()) == 1


def test_an_empty_list_tells_of_what_it_hid(run: Run, three: Path) -> None:
    """Nothing but ordinary endings: the hint names the option."""
    assert "--all" in run("list", "--dump-dir", three, "-n", "test").err


def test_a_wrong_time_is_a_usage_error(run: Run, dump_dir: Path) -> None:
    """Exit code 2, one line, with an example."""
    ran = run("list", "--dump-dir", dump_dir, "--since", "yesterday")
    assert ran.code == 2
    assert "yesterday" in ran.err
    assert len(ran.err.splitlines()) == 1


def test_hostile_names_in_the_store_reach_no_terminal(run: Run, three: Path) -> None:
    """Names with escape codes and line breaks aren't dumps of ours and aren't printed."""
    for hostile in ("prod/\x1b[2J", "prod/api-0\nforged"):
        write_dump(three, f"{hostile}/20261120T225012.123Z_app_pid42_zzzz-1", {"heap-8080.pb.gz": b"x"})
    write_dump(three, "prod/x/20261120T225012.123Z_app_pid42_yyyy-1", {"heap-\x1b[31m.pb.gz": b"x"}, manifest=False)
    for output in ("table", "json"):
        ran = run("list", "--all", "--dump-dir", three, "-o", output)
        assert ran.out.replace("\n", "").isprintable()
        assert not {"zzzz", "yyyy", "forged"} & set(ran.out.replace("-", " ").split())


def test_a_narrow_terminal_gets_keys_on_lines_of_their_own(three: Path) -> None:
    """A key stays in one piece to be copied, whatever the width; a wide terminal has one line a dump."""
    settings = StoreSettings(bucket=None, prefix="", directory=three, directory_size_bytes=1)
    dumps = find_dumps(open_store(settings).list(""), "")
    wide, narrow = _table(dumps, 400), _table(dumps, 110)
    assert len(wide) == 1 + len(dumps)
    assert narrow[3].strip() in {dump.key for dump in dumps}
    assert all(len(line) <= 110 for line in narrow)
    assert _table(dumps, None) == wide


def test_a_bucket_is_listed_below_its_prefix(run: Run, moto: S3Endpoint, monkeypatch: pytest.MonkeyPatch) -> None:
    """Keys are shown whole, prefix included, and what lies beside the prefix isn't shown."""
    moto.point_here(monkeypatch)
    for key in (f"team/eu/{NEW}/heap-8080.pb.gz", f"team/europe/{OLD}/heap-8080.pb.gz"):
        boto3.client("s3").put_object(Bucket=moto.bucket, Key=key, Body=b"x")
    ran = run("list", "--bucket", moto.bucket, "--prefix", "team/eu/", "-o", "json")
    assert [dump["key"] for dump in json.loads(ran.out)] == [f"team/eu/{NEW}"]


def test_a_store_that_fails_is_one_line_with_its_remedy(
    run: Run, moto: S3Endpoint, monkeypatch: pytest.MonkeyPatch
) -> None:
    """No trace: what is wrong and what to do, exit code 1."""
    moto.point_here(monkeypatch)
    ran = run("list", "--bucket", "absent")
    assert ran.code == 1
    assert len(ran.err.splitlines()) == 1
    assert "NoSuchBucket" in ran.err
    assert "create the bucket" in ran.err


def test_neither_a_bucket_nor_a_directory_is_a_usage_error(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where BUCKET was forgotten, an empty list would be a lie."""
    monkeypatch.delenv("BUCKET", raising=False)
    for output in ("table", "json"):
        ran = run("list", "--dump-dir", tmp_path / "absent", "-o", output)
        assert (ran.code, ran.out) == (2, "")
        assert len(ran.err.splitlines()) == 1
        assert f"no directory {tmp_path / 'absent'}" in ran.err
        assert "BUCKET" in ran.err
        assert "--bucket" in ran.err


def test_a_bucket_needs_no_directory(
    run: Run, tmp_path: Path, moto: S3Endpoint, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An empty bucket is an empty list."""
    moto.point_here(monkeypatch)
    ran = run("list", "--bucket", moto.bucket, "--dump-dir", tmp_path / "absent", "-o", "json")
    assert (ran.code, ran.out) == (0, "[]\n")
    assert ran.err == f"No dumps in s3://{moto.bucket} match.\n"


@pytest.mark.parametrize(
    ("stored", "options", "flags"),
    [
        (["heap-dumps"], [], ["heap-dumps"]),
        (["heap-dumps"], ["-n", "prod"], ["heap-dumps"]),
        (["heap-dumps"], ["--prefix", "heap-dump"], ["heap-dumps"]),
        (["heap-dumps"], ["--prefix", "heap-dumps/prod"], ["heap-dumps"]),
        (["e", "d", "a", "c"], ["--prefix", "team"], ["a", "c", "d"]),
        ([""], ["--prefix", "team"], ["''"]),
        (["my dumps"], [], ["'my dumps'"]),
        (["x\x1b[2J"], [], ["'x\\x1b[2J'"]),
        (["team", "other"], ["--prefix", "team", "-n", "absent"], []),
        (["team", "other"], ["--prefix", "team", "--since", "2026-11-21"], []),
        (["", "other"], ["-c", "absent"], []),
    ],
)
def test_a_forgotten_prefix_is_named(
    run: Run,
    moto: S3Endpoint,
    monkeypatch: pytest.MonkeyPatch,
    *,
    stored: list[str],
    options: list[str],
    flags: list[str],
) -> None:
    """Up to three prefixes below which dumps lie, ready to be copied, if none lies below the one asked for."""
    moto.point_here(monkeypatch)
    for prefix in stored:
        key = f"{prefix}/{NEW}".lstrip("/")
        for name in ("heap-8080.pb.gz", "manifest.json"):
            boto3.client("s3").put_object(Bucket=moto.bucket, Key=f"{key}/{name}", Body=b"x")
    boto3.client("s3").put_object(Bucket=moto.bucket, Key="logs/manifest.json", Body=b"x")
    ran = run("list", "--bucket", moto.bucket, "-o", "json", *options)
    assert (ran.code, ran.out) == (0, "[]\n")
    assert len(ran.err.splitlines()) == 1
    assert ran.err.endswith(" or ".join(f"--prefix {flag}" for flag in flags) + "\n" if flags else "match.\n")
    assert ran.err.count("--prefix") == len(flags)


def test_a_forgotten_prefix_in_a_directory_is_named(run: Run, dump_dir: Path) -> None:
    """A prefix counts there, too."""
    write_dump(dump_dir, f"team/{NEW}", {"heap-8080.pb.gz": b"x"})
    assert run("list", "--dump-dir", dump_dir).err.endswith("--prefix team\n")
    assert run("list", "--dump-dir", dump_dir, "--prefix", "team").err == ""


def _prefix_asked_for(request: Received) -> str:
    return parse_qs(request.query, keep_blank_values=True)["prefix"][0]


def _endless_bucket(request: Received) -> Answer:
    """Nothing below a prefix, and page after page of what is no dump elsewhere."""
    if _prefix_asked_for(request):
        return Answer(body=b"<ListBucketResult></ListBucketResult>")
    items = "".join(
        f"<Contents><Key>{quote(f'logs/{request.number}/{number}/manifest.json')}</Key><Size>4</Size>"
        "<LastModified>2026-11-20T22:50:12.000Z</LastModified></Contents>"
        for number in range(1000)
    )
    more = f"<IsTruncated>true</IsTruncated><NextContinuationToken>{request.number}</NextContinuationToken>"
    return Answer(body=f"<ListBucketResult><EncodingType>url</EncodingType>{more}{items}</ListBucketResult>".encode())


def test_the_search_for_a_prefix_is_bounded(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    """A bucket of millions of other objects is not read to its end for a hint."""
    with scripted_server(_endless_bucket) as server:
        server.endpoint.point_here(monkeypatch)
        ran = run("list", "--bucket", "dumps", "--prefix", "team")
    assert (ran.code, ran.err) == (0, "No dumps in s3://dumps/team match.\n")
    assert sum(_prefix_asked_for(request) == "" for request in server.requests) == 3


def test_a_store_that_shows_only_the_prefix_is_no_error(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its policy is limited to it: what is said is that there is nothing below this prefix in this bucket."""

    def limited(request: Received) -> Answer:
        if _prefix_asked_for(request).startswith("team/"):
            return Answer(body=b"<ListBucketResult></ListBucketResult>")
        return error(403, "AccessDenied")

    with scripted_server(limited) as server:
        server.endpoint.point_here(monkeypatch)
        ran = run("list", "--bucket", "dumps", "--prefix", "team", "-o", "json")
    assert (ran.code, ran.out) == (0, "[]\n")
    assert ran.err == "No dumps in s3://dumps/team match.\n"
    assert "" in map(_prefix_asked_for, server.requests)
