"""What the HTTP client makes of ports that answer well, badly, too much, too slowly, or not at all."""

from __future__ import annotations

import gzip
import socket
from collections.abc import Iterator

import pytest

from sidecar.errors import PprofError
from sidecar.pprof_http import PprofClient, Refusal, connect
from sidecar.settings import PprofSettings
from tests.hostile_server import HostileServer, http

COMMAND_LINE = b"/app\0--flag\0"
SETTINGS = PprofSettings()


def answer_with(*pieces: bytes) -> HostileServer:
    """A server that sends the same to everyone."""
    return HostileServer(lambda _: iter(pieces))


def ask(server: HostileServer, settings: PprofSettings = SETTINGS) -> PprofClient | Refusal:
    """Connect as the scout does."""
    return connect(("127.0.0.1",), server.port, COMMAND_LINE, settings)


def fetch(server: HostileServer, deadline_s: float = 20.0) -> bytes:
    """Get a heap profile as a capture does."""
    client = PprofClient(scheme="http", host="127.0.0.1", port=server.port, settings=SETTINGS)
    body = b""

    def consume(piece: bytes) -> None:
        nonlocal body
        body += piece

    try:
        client.fetch("/heap", consume, deadline_s=deadline_s)
    finally:
        client.close()
    return body


@pytest.mark.parametrize(
    "response",
    [http(b"/app\0--flag"), http(b"Unknown profile\n", "404 Not Found", "X-Go-Pprof: 1\r\n")],
)
def test_pprof_is_recognised(response: bytes) -> None:
    """By the program's own arguments, or by the index's 404."""
    with answer_with(response) as server:
        client = ask(server)
        assert isinstance(client, PprofClient)
        client.close()
    assert server.requests[0].startswith(b"GET /debug/pprof/cmdline HTTP/1.1\r\n")


@pytest.mark.parametrize(
    ("response", "reason"),
    [
        (http(b"<html>my app</html>"), "not with this program's arguments"),
        (http(b"/other\0--flag"), "not with this program's arguments"),
        (http(b"", "404 Not Found"), "HTTP 404"),
        (http(b"", "302 Found", "Location: http://192.0.2.1/debug/pprof/cmdline\r\n"), "redirects are not followed"),
        (http(b"", "401 Unauthorized"), "PPROF_HEADERS"),
        (b"+PONG\r\n", "probe"),
        (b"", "probe"),
    ],
)
def test_other_ports_are_refused_with_the_reason(response: bytes, reason: str) -> None:
    """HTML, other programs, redirects, credentials, other protocols, nothing at all."""
    with answer_with(response) as server:
        answer = ask(server)
    assert isinstance(answer, Refusal)
    assert reason in answer.reason
    assert str(server.port) in answer.reason


def test_a_closed_port_is_refused() -> None:
    """Nobody listens: no exception, a reason."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
    assert isinstance(connect(("127.0.0.1",), port, COMMAND_LINE, SETTINGS), Refusal)


def test_configured_path_and_headers_are_sent() -> None:
    """A prefix and a bearer token reach the app; nothing of our environment does."""
    settings = PprofSettings(path="/internal/pprof", headers=(("Authorization", "Bearer x"),))
    with answer_with(http(b"/app\0--flag")) as server:
        client = ask(server, settings)
        assert isinstance(client, PprofClient)
        client.close()
    assert server.requests[0].startswith(b"GET /internal/pprof/cmdline ")
    assert b"authorization: bearer x\r\n" in server.requests[0].lower()


def test_proxies_of_the_environment_are_ignored(monkeypatch: pytest.MonkeyPatch) -> None:
    """HTTP_PROXY is for others: a profile is fetched from the pod itself."""
    monkeypatch.setenv("HTTP_PROXY", "http://192.0.2.1:1")
    monkeypatch.setenv("ALL_PROXY", "http://192.0.2.1:1")
    with answer_with(http(b"profile")) as server:
        assert fetch(server) == b"profile"


def test_a_body_comes_as_it_is() -> None:
    """A packed profile isn't unpacked on the way, and nobody is asked to pack it again."""
    body = gzip.compress(b"profile")
    with answer_with(http(body)) as server:
        assert fetch(server) == body
    assert b"accept-encoding: identity\r\n" in server.requests[0].lower()


def test_endless_bytes_are_cut_off(monkeypatch: pytest.MonkeyPatch) -> None:
    """The size cap ends a body that never does."""
    monkeypatch.setattr("sidecar.pprof_http.MAX_BODY_BYTES", 1 << 20)

    def endless(_: bytes) -> Iterator[bytes]:
        yield b"HTTP/1.1 200 OK\r\n\r\n"
        while True:
            yield b"x" * 65536

    with HostileServer(endless) as server, pytest.raises(PprofError, match="longer than 1048576 bytes"):
        fetch(server)


def test_a_body_that_trickles_breaks_the_deadline() -> None:
    """A byte now and then keeps the connection alive, but not the capture: the endpoint is closed and said so."""

    def trickle(_: bytes) -> Iterator[bytes]:
        yield b"HTTP/1.1 200 OK\r\nContent-Length: 100000\r\n\r\n"
        while not server.wait_stopped(0.05):
            yield b"x"

    with HostileServer(trickle) as server, pytest.raises(PprofError, match="no whole answer within"):
        fetch(server, deadline_s=0.5)


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
