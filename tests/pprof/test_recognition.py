"""Which answers make a port the pprof endpoint of a program."""

from __future__ import annotations

import gzip
from collections.abc import Iterator

import pytest

from sidecar.pprof import PprofClient, Refusal, connect
from tests.hostile_server import HostileServer, http
from tests.pprof.asking import GO_TEXT, SETTINGS, TOO_LATE_S, answer_by_path, answer_with, ask

GO_PROFILE = "X-Content-Type-Options: nosniff\r\nContent-Type: application/octet-stream\r\n"
INDEX_ALONE = http(b"Unknown profile\n", "404 Not Found", "X-Go-Pprof: 1\r\n")


@pytest.mark.parametrize(
    ("response", "owner_proven"), [(http(b"/app\0--flag"), False), (http(b"/app\0--flag"), True), (INDEX_ALONE, True)]
)
def test_pprof_is_recognised(response: bytes, owner_proven: bool) -> None:  # noqa: FBT001 -- pytest passes by name
    """By the program's own arguments, or by the 404 of an index that is known to be the program's."""
    with answer_with(response) as server:
        client = ask(server, owner_proven=owner_proven)
        assert isinstance(client, PprofClient)
        client.close()
    assert server.requests[0].startswith(b"GET /debug/pprof/cmdline HTTP/1.1\r\n")
    assert len(server.requests) == 1


@pytest.mark.parametrize(
    ("response", "reason"),
    [
        (http(b"<html>my app</html>"), "not with this program's arguments"),
        (http(b"/other\0--flag"), "not with this program's arguments"),
        (http(b"/other\0--flag", headers="X-Go-Pprof: 1\r\n"), "not with this program's arguments"),
        (INDEX_ALONE, "doesn't tell whose it is"),
        (http(b"/altered\0--flag", headers=GO_TEXT), "not with this program's arguments"),
        (http(b"", "404 Not Found"), "HTTP 404"),
        (http(b"", "302 Found", "Location: http://192.0.2.1/debug/pprof/cmdline\r\n"), "redirects are not followed"),
        (http(b"", "401 Unauthorized"), "PPROF_HEADERS"),
        (http(b"x" * (2 << 20)), "answers without end"),
        (b"+PONG\r\n", "probe"),
        (b"", "probe"),
    ],
)
def test_other_ports_are_refused_with_the_reason(response: bytes, reason: str) -> None:
    """HTML, other programs, a neighbour's index, redirects, credentials, other protocols, nothing at all."""
    with answer_with(response) as server:
        answer = ask(server)
    assert isinstance(answer, Refusal)
    assert reason in answer.reason
    assert str(server.port) in answer.reason


def test_an_unreadable_command_line_proves_nothing() -> None:
    """A process that ended has no arguments; an empty answer isn't them."""
    with answer_with(http(b"", headers=GO_TEXT)) as server:
        answer = connect(("127.0.0.1",), server.port, b"", SETTINGS)
    assert isinstance(answer, Refusal)


def test_a_proven_owner_may_have_altered_its_arguments() -> None:
    """Whose socket it is is known already: an answer in the form of Go's handler is enough."""
    with answer_with(http(b"/renamed", headers=GO_TEXT)) as server:
        client = ask(server, owner_proven=True)
        assert isinstance(client, PprofClient)
        client.close()


@pytest.mark.parametrize(
    "cmdline",
    [
        http(b"404 page not found\n", "404 Not Found", GO_TEXT),
        http(b"<html>my app</html>", headers="Content-Type: text/html\r\n"),
    ],
)
def test_a_proven_owner_may_serve_the_heap_alone(cmdline: bytes) -> None:
    """A mux of its own with nothing but the heap: the beginning of a profile is enough, the rest is left unread."""

    def answer(head: bytes) -> Iterator[bytes]:
        if b"/cmdline " in head:
            yield cmdline
            return
        yield f"HTTP/1.1 200 OK\r\nContent-Length: 100000\r\n{GO_PROFILE}\r\n".encode() + gzip.compress(b"x")
        server.wait_stopped(TOO_LATE_S)

    with HostileServer(answer) as server:
        client = ask(server, owner_proven=True)
        assert isinstance(client, PprofClient)
        assert server.answered == 1
        client.close()
    assert [request.split()[1] for request in server.requests] == [b"/debug/pprof/cmdline", b"/debug/pprof/heap"]


@pytest.mark.parametrize(
    "heap",
    [
        http(b"404 page not found\n", "404 Not Found", GO_TEXT),
        http(b"<html>my app</html>", headers="Content-Type: text/html\r\n"),
        http(b"<html>my app</html>", headers=GO_PROFILE),
        http(gzip.compress(b"x"), headers="Content-Type: text/html\r\nContent-Encoding: gzip\r\n"),
        http(gzip.compress(b"x"), "500 Internal Server Error", GO_PROFILE),
        http(b"\x1f", headers=GO_PROFILE),
    ],
)
def test_a_proven_owner_without_pprof_is_refused(heap: bytes) -> None:
    """Status, type and the first bytes of the heap must be those of a profile."""
    with answer_by_path({b"/heap": heap}) as server:
        answer = ask(server, owner_proven=True)
    assert isinstance(answer, Refusal)
    assert "HTTP 404" in answer.reason


def test_without_proof_the_heap_is_not_asked() -> None:
    """Anybody's bare 404 is no reason to cost a stranger a profile."""
    with answer_by_path({b"/heap": http(gzip.compress(b"x"), headers=GO_PROFILE)}) as server:
        assert isinstance(ask(server), Refusal)
    assert len(server.requests) == 1
