"""What is too slow ends in time."""

from __future__ import annotations

import socket
import ssl
import time
from collections.abc import Iterator

import pytest

from sidecar.errors import PprofError
from sidecar.pprof import Refusal, connect
from sidecar.settings import PprofSettings
from tests.hostile_server import Answer, HostileServer, http
from tests.pprof.asking import COMMAND_LINE, TOO_LATE_S, ask, client_of, fetch

DEADLINE_S = 1.0


def slow_server(how: str, tls: ssl.SSLContext | None = None) -> HostileServer:
    """A server that keeps a connection alive without answering, and ends with the right answer, too late."""
    whole = http(b"/app\0--flag")
    head, body = whole.split(b"\r\n\r\n")

    def held_back(first: bytes, last: bytes) -> Iterator[bytes]:
        yield first
        server.wait_stopped(TOO_LATE_S)
        yield last

    def trickled(first: bytes, endless: bytes, last: bytes) -> Iterator[bytes]:
        yield first
        for _ in range(int(TOO_LATE_S / 0.05)):
            yield endless
            if server.wait_stopped(0.05):
                break
        yield last

    long_body = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"
    ways: dict[str, Answer] = {
        "silent": lambda _: held_back(b"", whole),
        "trickled headers": lambda _: trickled(b"HTTP/1.1 200 OK\r\n", b"X: y\r\n", head[17:] + b"\r\n\r\n" + body),
        "endless interim answers": lambda _: trickled(b"", b"HTTP/1.1 100 Continue\r\n\r\n", whole),
        "silent after headers": lambda _: held_back(head + b"\r\n\r\n", body),
        "trickled body": lambda _: trickled(long_body, b"1\r\n/\r\n", b"0\r\n\r\n"),
    }
    server = HostileServer(ways[how], tls=tls)
    return server


SLOW = ["silent", "trickled headers", "endless interim answers", "silent after headers", "trickled body"]


@pytest.mark.parametrize("how", SLOW)
@pytest.mark.parametrize("scheme", ["http", "https"])
def test_a_fetch_ends_at_its_deadline(
    how: str, scheme: str, server_tls: ssl.SSLContext, client_tls: ssl.SSLContext
) -> None:
    """Neither silence nor a byte now and then extends it; the endpoint itself may be asked again."""
    tls = scheme == "https"
    with slow_server(how, server_tls if tls else None) as server:
        client = client_of(server, client_tls if tls else None)
        with pytest.raises(PprofError, match=r"heap: no whole answer within 1 s"):
            client.fetch("/heap", lambda _: None, deadline_s=DEADLINE_S)
        assert server.answered == 0
        assert not client.is_closed
        client.close()
    assert len(server.requests) == 1


@pytest.mark.parametrize("how", SLOW)
def test_a_probe_ends_at_its_deadline(how: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """A port that hangs costs a probe's time, not more."""
    monkeypatch.setattr("sidecar.pprof.client._PROBE_DEADLINE_S", DEADLINE_S)
    with slow_server(how) as server:
        answer = ask(server)
        assert server.answered == 0
    assert isinstance(answer, Refusal)
    assert "no whole answer within 1 s" in answer.reason


def test_a_silent_handshake_ends_at_the_deadline(monkeypatch: pytest.MonkeyPatch) -> None:
    """A port that accepts and never speaks TLS."""
    monkeypatch.setattr("sidecar.pprof.client._PROBE_DEADLINE_S", DEADLINE_S)
    with socket.create_server(("127.0.0.1", 0)) as server:
        answer = connect(("127.0.0.1",), server.getsockname()[1], COMMAND_LINE, PprofSettings(scheme="https"))
    assert isinstance(answer, Refusal)
    assert "within 1 s" in answer.reason


def test_silence_before_the_deadline_is_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    """A whole collection may pass before the first byte: a request has its deadline and no shorter step."""
    monkeypatch.setattr("sidecar.pprof.client._PROBE_DEADLINE_S", 0.2)

    def late(_: bytes) -> Iterator[bytes]:
        server.wait_stopped(0.8)
        yield http(b"profile")

    with HostileServer(late) as server:
        assert fetch(server, deadline_s=30.0) == b"profile"


def test_a_slow_consumer_breaks_the_deadline() -> None:
    """Bytes that are there don't extend the time for looking at them."""

    def three(_: bytes) -> Iterator[bytes]:
        yield b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n" + b"1\r\nx\r\n" * 3 + b"0\r\n\r\n"

    taken: list[bytes] = []

    def consume(piece: bytes) -> None:
        taken.append(piece)
        time.sleep(DEADLINE_S + 0.1)

    with HostileServer(three) as server:
        client = client_of(server)
        with pytest.raises(PprofError, match="no whole answer within"):
            client.fetch("/heap", consume, deadline_s=DEADLINE_S)
        client.close()
    assert taken == [b"x"]
