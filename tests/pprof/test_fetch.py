"""A profile comes as it is, or it is said why not."""

from __future__ import annotations

import gzip
import threading
from collections.abc import Iterator

import pytest

from sidecar.errors import PprofError
from sidecar.pprof import PprofClient
from tests.hostile_server import HostileServer, http
from tests.pprof.asking import answer_with, ask, client_of, fetch


def test_a_body_comes_as_it_is() -> None:
    """A packed profile isn't unpacked on the way, and nobody is asked to pack it again."""
    body = gzip.compress(b"profile")
    with answer_with(http(body, headers="Content-Encoding: gzip\r\n")) as server:
        assert fetch(server) == body
    assert b"accept-encoding: identity\r\n" in server.requests[0].lower()


def test_the_connection_is_kept_warm() -> None:
    """The probe's connection carries the captures that follow."""
    with HostileServer(lambda _: iter([http(b"/app\0--flag", keep_alive=True)]), keep_alive=True) as server:
        client = ask(server)
        assert isinstance(client, PprofClient)
        client.fetch("/heap", lambda _: None, deadline_s=20.0)
        client.fetch("/heap?gc=1", lambda _: None, deadline_s=20.0)
        client.close()
    assert len(server.requests) == 3
    assert server.connections == 1


def test_endless_bytes_are_cut_off(monkeypatch: pytest.MonkeyPatch) -> None:
    """The size cap ends a body that never does."""
    monkeypatch.setattr("sidecar.pprof.client.MAX_BODY_BYTES", 1 << 20)

    def endless(_: bytes) -> Iterator[bytes]:
        yield b"HTTP/1.1 200 OK\r\n\r\n"
        while True:
            yield b"x" * 65536

    with HostileServer(endless) as server, pytest.raises(PprofError, match="longer than 1048576 bytes"):
        fetch(server)


def test_what_the_consumer_raises_comes_through() -> None:
    """A full disk isn't the endpoint's fault."""

    def consume(_: bytes) -> None:
        raise OSError("disk full")

    with answer_with(http(b"profile")) as server:
        client = client_of(server)
        with pytest.raises(OSError, match="disk full"):
            client.fetch("/heap", consume, deadline_s=20.0)
        client.close()


def test_no_thread_is_needed(monkeypatch: pytest.MonkeyPatch) -> None:
    """At the pod's limit of processes no thread can be started; a capture doesn't try."""
    start = threading.Thread.start

    def limited(thread: threading.Thread) -> None:
        if threading.current_thread() is threading.main_thread():
            raise RuntimeError("can't start new thread")
        start(thread)

    with answer_with(http(b"/app\0--flag")) as server:
        monkeypatch.setattr(threading.Thread, "start", limited)
        client = ask(server)
        assert isinstance(client, PprofClient)
        client.fetch("/heap", lambda _: None, deadline_s=20.0)
        client.close()


def test_closing_lets_a_request_in_flight_end() -> None:
    """The bytes of a program that has just ended may still arrive; after them nothing more is asked."""

    def halves(_: bytes) -> Iterator[bytes]:
        yield b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nx"
        closed.wait(20)
        yield b"y"

    closed = threading.Event()
    pieces: list[bytes] = []

    def consume(piece: bytes) -> None:
        pieces.append(piece)
        client.close()
        closed.set()

    with HostileServer(halves) as server:
        client = client_of(server)
        client.fetch("/heap", consume, deadline_s=20.0)
        assert b"".join(pieces) == b"xy"
        assert client.is_closed
        with pytest.raises(PprofError, match="closed"):
            client.fetch("/heap", consume, deadline_s=20.0)
        assert client.clone().is_closed


@pytest.mark.parametrize(
    ("response", "reason"),
    [
        (http(b"Unknown profile", "404 Not Found"), "HTTP 404"),
        (http(b"", "302 Found", "Location: http://192.0.2.1/\r\n"), "HTTP 302"),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\nhalf", "heap"),
        (b"garbage\r\n\r\n", "heap"),
        (b"", "heap"),
    ],
)
def test_a_failed_fetch_says_which_and_why(response: bytes, reason: str) -> None:
    """Wrong status, a process that ends in mid-answer, another protocol."""
    with answer_with(response) as server, pytest.raises(PprofError, match=reason):
        fetch(server)


def test_a_clone_is_closed_with_its_original() -> None:
    """Also one that still waited for its turn; closed on its own, it leaves the original alone."""
    with answer_with(http(b"heap")) as server:
        client = client_of(server)
        first, second = client.clone(), client.clone()
        first.close()
        assert (client.is_closed, second.is_closed) == (False, False)
        client.close()
        assert second.is_closed
        assert second.clone().is_closed
        with pytest.raises(PprofError, match="was closed"):
            second.fetch("/heap", lambda _: None, deadline_s=20.0)
    assert server.requests == []
