"""The uploader as the process it is: what it uploads, in what order, and what it leaves when it is stopped."""

from __future__ import annotations

import fcntl
import json
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from sidecar.drain import BUSY, REFUSED, decode_request, encode_request
from sidecar.errors import ConfigError
from tests.s3_servers import S3Endpoint
from tests.s3_servers.scripted import Answer, Received, error, in_turn, scripted_server
from tests.s3_servers.swift import SwiftServer
from tests.stores.conftest import MakeSettings

OLD = "prod/api-0/20261120T225012.123Z_app_pid42_k3x9-1"
NEW = "prod/api-0/20261120T225014.001Z_app_pid42_k3x9-2"
DEADLINE_S = 60.0


@pytest.fixture
def spool(tmp_path: Path) -> Path:
    """An empty spool."""
    path = tmp_path / "spool"
    (path / "queue").mkdir(parents=True)
    return path


def queue(spool: Path, *names: str) -> dict[str, bytes]:
    """Put files into the queue; what each of them holds."""
    contents = {}
    for name in names:
        path = spool / "queue" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        contents[name] = f"content of {name}".encode() * 50
        path.write_bytes(contents[name])
    return contents


def left(spool: Path) -> list[str]:
    """Everything below the queue, folders too."""
    return sorted(path.relative_to(spool / "queue").as_posix() for path in (spool / "queue").rglob("*"))


@contextmanager
def running(request: str, endpoint: S3Endpoint | None = None) -> Iterator[subprocess.Popen[str]]:
    """The uploader at work; killed at the end of the block if it still is."""
    aws = {name: value for name, value in os.environ.items() if not name.startswith("AWS_")}
    with subprocess.Popen(
        [sys.executable, "-m", "sidecar.drain"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=aws | (endpoint.environment if endpoint else {}),
    ) as process:
        try:
            assert process.stdin is not None
            process.stdin.write(request)
            process.stdin.close()
            process.stdin = None
            yield process
        finally:
            process.kill()


def run(request: str, endpoint: S3Endpoint | None = None) -> tuple[int, list[dict[str, Any]]]:
    """Run the uploader to its end; its exit code and its events. Nothing may come out on stderr."""
    with running(request, endpoint) as process:
        output, complaints = process.communicate(timeout=DEADLINE_S)
        assert complaints == ""
        return process.returncode, [json.loads(line) for line in output.splitlines()]


def keys(events: list[dict[str, Any]], kind: str = "uploaded") -> list[str]:
    """Keys of the events of a kind, in order."""
    return [event["key"] for event in events if event["event"] == kind]


def test_everything_is_uploaded_in_order_of_worth(spool: Path, make_settings: MakeSettings) -> None:
    """Oldest dump first; in each the plain heap profile, the others, the manifest, then the outcome."""
    names = ("outcome-oom-killed.json", "manifest.json", "goroutine-80.pb.gz", "heap-gc-80.pb.gz", "heap-80.pb.gz")
    contents = queue(spool, *(f"{folder}/{name}" for folder in (NEW, OLD) for name in names))
    with scripted_server(in_turn(Answer())) as server:
        settings = make_settings(bucket="dumps", prefix="team/eu")
        code, events = run(encode_request(spool, settings), server.endpoint)
        assert server.objects == {f"team/eu/{name}": content for name, content in contents.items()}
    assert code == 0
    assert keys(events) == [
        f"team/eu/{folder}/{name}"
        for folder in (OLD, NEW)
        for name in (names[4], names[2], names[3], names[1], names[0])
    ]
    assert all(event["size_bytes"] == len(contents[event["key"][8:]]) for event in events)
    assert all(event["duration_s"] >= 0 for event in events)
    assert left(spool) == []


@pytest.mark.parametrize("door", ["http", "https"])
def test_dumps_reach_a_real_store(swift: SwiftServer, spool: Path, make_settings: MakeSettings, door: str) -> None:
    """A process of its own, with nothing but the environment, uploads to a store that verifies signatures."""
    queue(spool, f"{OLD}/heap-80.pb.gz", f"{OLD}/manifest.json")
    settings = make_settings(bucket="dumps", prefix=f"drain-{door}")
    code, events = run(encode_request(spool, settings), getattr(swift, door))
    assert (code, len(keys(events)), left(spool)) == (0, 2, [])


def test_drafts_stay_and_keep_their_folder(spool: Path, make_settings: MakeSettings) -> None:
    """Files that begin with a dot aren't for upload, whether beside finished ones or alone."""
    queue(spool, f"{OLD}/heap-80.pb.gz", f"{OLD}/.manifest.json", f"{NEW}/.part-heap-80.pb.gz")
    code, events = run(encode_request(spool, make_settings()))
    assert (code, keys(events)) == (0, [f"{OLD}/heap-80.pb.gz"])
    assert [name for name in left(spool) if "/." in name] == [f"{OLD}/.manifest.json", f"{NEW}/.part-heap-80.pb.gz"]


def test_links_are_not_followed(spool: Path, make_settings: MakeSettings, tmp_path: Path) -> None:
    """A link is no file of the spool's: neither what it points at is uploaded, nor is it tried for ever."""
    queue(spool, f"{OLD}/heap-80.pb.gz")
    (tmp_path / "secret").write_bytes(b"secret")
    (spool / "queue" / OLD / "heap-81.pb.gz").symlink_to(tmp_path / "secret")
    (spool / "queue" / OLD / "heap-82.pb.gz").symlink_to("nowhere")
    code, events = run(encode_request(spool, make_settings()))
    assert (code, keys(events)) == (0, [f"{OLD}/heap-80.pb.gz"])


def test_an_empty_queue_needs_no_store(spool: Path, make_settings: MakeSettings) -> None:
    """With nothing to upload nothing is asked of the network, and empty folders of killed runs go."""
    (spool / "queue" / OLD).mkdir(parents=True)
    assert run(encode_request(spool, make_settings(bucket="dumps"))) == (0, [])
    assert left(spool) == []
    assert (spool / "queue").is_dir()


def test_what_is_added_meanwhile_is_uploaded_too(spool: Path, make_settings: MakeSettings) -> None:
    """The queue is scanned again until a scan finds nothing new."""
    queue(spool, f"{OLD}/heap-80.pb.gz")

    def script(request: Received) -> Answer:
        if request.number == 1:
            queue(spool, f"{OLD}/manifest.json", f"{NEW}/heap-80.pb.gz")
        return Answer()

    with scripted_server(script) as server:
        code, events = run(encode_request(spool, make_settings(bucket="dumps")), server.endpoint)
    assert (code, left(spool)) == (0, [])
    assert keys(events) == [f"{OLD}/heap-80.pb.gz", f"{OLD}/manifest.json", f"{NEW}/heap-80.pb.gz"]


def test_what_the_spool_drops_meanwhile_is_no_failure(spool: Path, make_settings: MakeSettings) -> None:
    """The parent may drop a dump to make room between the scan and the upload."""
    queue(spool, f"{OLD}/heap-80.pb.gz", f"{NEW}/heap-80.pb.gz")

    def script(_: Received) -> Answer:
        (spool / "queue" / NEW / "heap-80.pb.gz").unlink(missing_ok=True)
        return Answer()

    with scripted_server(script) as server:
        code, events = run(encode_request(spool, make_settings(bucket="dumps")), server.endpoint)
    assert (code, len(events), keys(events)) == (0, 1, [f"{OLD}/heap-80.pb.gz"])


def test_what_is_dropped_while_the_store_refuses_it_is_no_failure(spool: Path, make_settings: MakeSettings) -> None:
    """A file that is gone by the time its upload fails needs no second try."""
    queue(spool, f"{OLD}/heap-80.pb.gz")

    def script(_: Received) -> Answer:
        (spool / "queue" / OLD / "heap-80.pb.gz").unlink()
        return error(400, "EntityTooLarge")

    with scripted_server(script) as server:
        assert run(encode_request(spool, make_settings(bucket="dumps")), server.endpoint) == (0, [])


def test_one_refused_object_does_not_hold_up_the_others(spool: Path, make_settings: MakeSettings) -> None:
    """An object that the store won't take stays in the spool; the rest goes, and exit code and event tell."""
    queue(spool, f"{OLD}/heap-80.pb.gz", f"{NEW}/heap-80.pb.gz")
    with scripted_server(
        lambda request: error(400, "EntityTooLarge") if request.key.startswith(OLD) else Answer()
    ) as server:
        code, events = run(encode_request(spool, make_settings(bucket="dumps")), server.endpoint)
    assert code == REFUSED
    assert keys(events, "upload-failed") == [f"{OLD}/heap-80.pb.gz"]
    assert events[0]["refused"]
    assert keys(events) == [f"{NEW}/heap-80.pb.gz"]
    assert left(spool)[-1] == f"{OLD}/heap-80.pb.gz"


@pytest.mark.parametrize("answer", [error(403, "AccessDenied"), error(504, ""), error(500, "InternalError")], ids=str)
def test_an_object_that_fails_alone_does_not_hold_up_the_others(
    spool: Path, make_settings: MakeSettings, answer: Answer
) -> None:
    """It looks like a failing store: a proxy that gives up on it, a firewall. That another is taken shows the truth."""
    newest = NEW.replace("-2", "-3")
    queue(spool, *(f"{folder}/{name}" for folder in (OLD, NEW, newest) for name in ("heap-80.pb.gz", "manifest.json")))
    with scripted_server(lambda request: answer if request.key == f"{OLD}/heap-80.pb.gz" else Answer()) as server:
        code, events = run(encode_request(spool, make_settings(bucket="dumps")), server.endpoint)
    assert code == REFUSED
    [failed] = [event for event in events if event["event"] == "upload-failed"]
    assert (failed["key"], failed["refused"]) == (f"{OLD}/heap-80.pb.gz", True)
    assert keys(events)[0] == f"{newest}/heap-80.pb.gz"
    assert len(keys(events)) == 5
    assert left(spool)[-1] == f"{OLD}/heap-80.pb.gz"


def test_a_fault_that_passes_leaves_nothing_behind(spool: Path, make_settings: MakeSettings) -> None:
    """What failed while the store took another is tried once more, as the end may be near."""
    queue(spool, f"{OLD}/heap-80.pb.gz", f"{NEW}/heap-80.pb.gz")
    taken: list[str] = []

    def script(request: Received) -> Answer:
        if request.key.startswith(OLD) and not taken:
            return error(500, "InternalError")
        taken.append(request.key)
        return Answer()

    with scripted_server(script) as server:
        code, events = run(encode_request(spool, make_settings(bucket="dumps")), server.endpoint)
    assert (code, left(spool), keys(events, "upload-failed")) == (0, [], [])


def test_the_papers_of_a_dump_do_not_wait_for_its_profile(spool: Path, make_settings: MakeSettings) -> None:
    """Where nothing else is there to try the store with: what a proxy cuts off is large, and they are small."""
    queue(spool, f"{OLD}/heap-80.pb.gz", f"{OLD}/manifest.json")
    with scripted_server(lambda request: error(504, "") if "heap" in request.key else Answer()) as server:
        code, events = run(encode_request(spool, make_settings(bucket="dumps")), server.endpoint)
    assert code == REFUSED
    assert keys(events) == [f"{OLD}/manifest.json"]
    assert left(spool)[-1] == f"{OLD}/heap-80.pb.gz"


def test_a_store_that_refuses_all_is_not_asked_for_each(spool: Path, make_settings: MakeSettings) -> None:
    """A quota answered as if each object were at fault: after a few in a row and the newest the run has failed."""
    queue(spool, *(f"{NEW.replace('-2', f'-{number}')}/heap-80.pb.gz" for number in range(10, 60)))
    with scripted_server(lambda _: error(400, "QuotaExceeded")) as server:
        code, events = run(encode_request(spool, make_settings(bucket="dumps")), server.endpoint)
        assert len(server.requests) == 4
    assert code == 1
    assert [event["refused"] for event in events] == [True, True, False]
    assert len([name for name in left(spool) if name.endswith(".gz")]) == 50


def test_a_failing_store_ends_the_run_at_once(moto: S3Endpoint, spool: Path, make_settings: MakeSettings) -> None:
    """What concerns every object isn't tried with every object; the event says what is wrong and what to do."""
    names = [f"{OLD}/heap-80.pb.gz", f"{OLD}/manifest.json", f"{NEW}/heap-80.pb.gz"]
    queue(spool, *names)
    code, [event] = run(encode_request(spool, make_settings(bucket="absent")), moto)
    assert code == 1
    assert event["event"] == "upload-failed"
    assert event["key"] == names[0]
    assert not event["refused"]
    assert "NoSuchBucket" in event["error"]
    assert "absent" in event["remedy"]
    assert set(names) <= set(left(spool))


def test_a_full_directory_reports_what_it_dropped(spool: Path, make_settings: MakeSettings) -> None:
    """What the directory store drops to make room reaches the parent as an event."""
    older = OLD.replace("k3x9-1", "aaaa-1")
    settings = make_settings(directory_size_bytes=10_000)
    size = sum(map(len, queue(spool, f"{older}/heap-80.pb.gz").values()))
    assert run(encode_request(spool, settings))[0] == 0
    queue(spool, f"{NEW}/heap-80.pb.gz")
    code, events = run(encode_request(spool, replace(settings, directory_size_bytes=size)))
    assert code == 0
    assert events[0] == {"event": "dump-dropped", "key": older, "size_bytes": size}
    assert keys(events) == [f"{NEW}/heap-80.pb.gz"]


def test_only_one_uploader_works_on_a_spool(spool: Path, make_settings: MakeSettings) -> None:
    """A second one says so and leaves everything as it is."""
    queue(spool, f"{OLD}/heap-80.pb.gz")
    with (spool / ".drain.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        assert run(encode_request(spool, make_settings())) == (BUSY, [{"event": "busy"}])
    assert left(spool)[-1] == f"{OLD}/heap-80.pb.gz"
    assert run(encode_request(spool, make_settings()))[0] == 0


@contextmanager
def stalled(at: int) -> Iterator[tuple[Any, threading.Event, threading.Event]]:
    """A store that doesn't answer its ``at``-th request before it is released."""
    reached, released = threading.Event(), threading.Event()

    def script(request: Received) -> Answer:
        if request.number == at:
            reached.set()
            released.wait(DEADLINE_S)
            return Answer(cut_after=0)
        return Answer()

    with scripted_server(script) as server:
        try:
            yield server, reached, released
        finally:
            released.set()


@pytest.mark.parametrize(("number", "code"), [(signal.SIGTERM, 143), (signal.SIGINT, 130), (signal.SIGKILL, -9)])
def test_stopped_in_the_middle_nothing_is_lost(
    spool: Path, make_settings: MakeSettings, number: signal.Signals, code: int
) -> None:
    """It ends at once; what wasn't confirmed stays, and the next run stores it, each object exactly once."""
    contents = queue(
        spool, *(f"{folder}/{name}" for folder in (OLD, NEW) for name in ("heap-80.pb.gz", "manifest.json"))
    )
    request = encode_request(spool, make_settings(bucket="dumps"))
    with stalled(at=2) as (server, reached, released):
        with running(request, server.endpoint) as process:
            assert reached.wait(DEADLINE_S)
            process.send_signal(number)
            assert process.wait(DEADLINE_S) == code
            assert process.stdout is not None
            first = [json.loads(line) for line in process.stdout.read().splitlines()]
        assert keys(first) == [f"{OLD}/heap-80.pb.gz"]
        assert f"{OLD}/manifest.json" in left(spool)
        released.set()
        exit_code, second = run(request, server.endpoint)
        assert (exit_code, left(spool)) == (0, [])
        assert sorted(keys(first) + keys(second)) == sorted(contents)
        assert server.objects == contents


def test_an_uploader_whose_parent_is_gone_finishes_its_work(spool: Path, make_settings: MakeSettings) -> None:
    """Nobody reads the events any more: the dumps are uploaded all the same."""
    queue(spool, f"{OLD}/heap-80.pb.gz", f"{NEW}/heap-80.pb.gz")
    with running(encode_request(spool, make_settings())) as process:
        assert process.stdout is not None
        process.stdout.close()
        assert process.wait(DEADLINE_S) == 0
    assert left(spool) == []


@pytest.mark.parametrize("request_text", ["", "{}", "[]", '{"spool": "/x"}', '{"spool": "/x", "store": {"bucket": 1}}'])
def test_a_malformed_request_is_refused(request_text: str) -> None:
    """It can't guess what to do: exit code 2 and an event that says so."""
    code, [event] = run(request_text)
    assert code == 2
    assert "stdin" in event["error"]


def test_a_spool_that_is_not_there_is_told(tmp_path: Path, make_settings: MakeSettings) -> None:
    """A wrong path is a failure, not an empty queue."""
    code, [event] = run(encode_request(tmp_path / "absent", make_settings()))
    assert code == 1
    assert "absent" in event["error"]


def test_a_request_survives_the_pipe(make_settings: MakeSettings) -> None:
    """Every field of the settings arrives as it was."""
    settings = make_settings(
        bucket="dumps", prefix="a/ü", sse="aws:kms", kms_key="k", storage_class="STANDARD_IA", path_style=True
    )
    assert decode_request(encode_request(Path("/spool"), settings)) == (Path("/spool"), settings)


def test_unknown_fields_are_refused_politely() -> None:
    """A request without the fields it needs raises ConfigError, whatever is missing."""
    with pytest.raises(ConfigError):
        decode_request(json.dumps({"spool": "/x", "store": {"directory": "/d"}}))


def test_encoding_a_request_does_not_load_boto3() -> None:
    """The resident process imports this module: it must not pay for the S3 client."""
    heavy = "{'boto3', 'botocore', 'tenacity', 'urllib3', 'click'}"
    program = f"import sys, sidecar.drain; sys.exit(bool({heavy} & set(sys.modules)))"
    assert subprocess.run([sys.executable, "-c", program], check=False).returncode == 0
