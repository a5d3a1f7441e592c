"""What the HTTP client makes of ports that answer well, badly, too much, too slowly, or not at all."""

from __future__ import annotations

import gzip
import socket
import ssl
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from sidecar.errors import PprofError
from sidecar.pprof_http import PprofClient, Refusal, connect
from sidecar.settings import PprofSettings
from tests.hostile_server import Answer, HostileServer, http
from tests.s3_servers.certificates import CertificateFiles, write_certificates
from tests.watch.test_uploads import wait_until

COMMAND_LINE = b"/app\0--flag\0"
SETTINGS = PprofSettings()
GO_TEXT = "X-Content-Type-Options: nosniff\r\nContent-Type: text/plain; charset=utf-8\r\n"
GO_PROFILE = "X-Content-Type-Options: nosniff\r\nContent-Type: application/octet-stream\r\n"
# An answer that is whole only long after the deadline: a client without one would take it.
DEADLINE_S = 1.0
TOO_LATE_S = 20.0


def answer_with(*pieces: bytes) -> HostileServer:
    """A server that sends the same to everyone."""
    return HostileServer(lambda _: iter(pieces))


def answer_by_path(answers: dict[bytes, bytes]) -> HostileServer:
    """A server that answers some paths below /debug/pprof, and a bare 404 elsewhere."""
    missing = http(b"404 page not found\n", "404 Not Found", GO_TEXT)
    return HostileServer(lambda head: iter([answers.get(head.split()[1].removeprefix(b"/debug/pprof"), missing)]))


def ask(
    server: HostileServer, settings: PprofSettings = SETTINGS, *, owner_proven: bool = False
) -> PprofClient | Refusal:
    """Connect as the scout does."""
    return connect(("127.0.0.1",), server.port, COMMAND_LINE, settings, owner_proven=owner_proven)


def client_of(server: HostileServer, tls: ssl.SSLContext | None = None) -> PprofClient:
    """A client that wasn't probed."""
    return PprofClient(host="127.0.0.1", port=server.port, settings=SETTINGS, tls=tls)


def fetch(server: HostileServer, deadline_s: float = 20.0, tls: ssl.SSLContext | None = None) -> bytes:
    """Get a heap profile as a capture does."""
    client = client_of(server, tls)
    pieces: list[bytes] = []
    try:
        client.fetch("/heap", pieces.append, deadline_s=deadline_s)
    finally:
        client.close()
    return b"".join(pieces)


@pytest.fixture(scope="module")
def certificates(tmp_path_factory: pytest.TempPathFactory) -> CertificateFiles:
    """A server's certificate and its authority."""
    return write_certificates(tmp_path_factory.mktemp("certificates"))


@pytest.fixture(scope="module")
def server_tls(certificates: CertificateFiles) -> ssl.SSLContext:
    """The server's side of TLS."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificates.certificate, certificates.key)
    return context


@pytest.fixture
def client_tls(certificates: CertificateFiles) -> ssl.SSLContext:
    """The client's side of TLS."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.load_verify_locations(certificates.authority)
    return context


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


def test_a_closed_port_is_refused() -> None:
    """Nobody listens: no exception, a reason."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
    assert isinstance(connect(("127.0.0.1",), port, COMMAND_LINE, SETTINGS), Refusal)


def test_tls_is_tried_where_plain_http_is_refused(server_tls: ssl.SSLContext, certificates: CertificateFiles) -> None:
    """Checked against the given authority; the connection stays open for the crisis."""
    with HostileServer(lambda _: iter([http(b"/app\0--flag")]), tls=server_tls) as server:
        client = ask(server, PprofSettings(scheme="https", ca_file=certificates.authority))
        assert isinstance(client, PprofClient)
        assert client.url == f"https://127.0.0.1:{server.port}/debug/pprof"
        client.close()


def test_a_certificate_of_another_authority_is_refused(server_tls: ssl.SSLContext, tmp_path: Path) -> None:
    """With an authority given, nobody else's certificate passes."""
    other = write_certificates(tmp_path).authority
    with HostileServer(lambda _: iter([http(b"/app\0--flag")]), tls=server_tls) as server:
        answer = ask(server, PprofSettings(scheme="https", ca_file=other))
    assert isinstance(answer, Refusal)
    assert "CERTIFICATE_VERIFY_FAILED" in answer.reason


@pytest.mark.parametrize(
    "settings",
    [
        PprofSettings(scheme="https", ca_file=Path(__file__)),
        PprofSettings(scheme="https", ca_file=Path("/nowhere/ca.pem")),
        PprofSettings(headers=(("Authorization", "Bearer \u20ac"),)),
        PprofSettings(headers=(("Authorization", "Bearer \udcff"),)),
        PprofSettings(headers=(("Authorization", "Bearer \n"),)),
        PprofSettings(path="/\u20ac"),
        PprofSettings(path="/a b"),
    ],
)
def test_what_cannot_be_sent_is_a_refusal(settings: PprofSettings) -> None:
    """An authority's file that has gone bad since the start, a header or a path that HTTP can't carry."""
    with answer_with(http(b"/app\0--flag")) as server:
        answer = ask(server, settings, owner_proven=True)
    assert isinstance(answer, Refusal)
    assert "Bearer" not in answer.reason


def test_configured_path_and_headers_are_sent() -> None:
    """A prefix and a bearer token reach the app; nothing of our environment does."""
    settings = PprofSettings(path="/internal/pprof", headers=(("Authorization", "Bearer x"),))
    with answer_with(http(b"/app\0--flag")) as server:
        client = ask(server, settings, owner_proven=True)
        assert isinstance(client, PprofClient)
        client.close()
    head = server.requests[0].lower()
    assert head.startswith(b"get /internal/pprof/cmdline ")
    assert b"authorization: bearer x\r\n" in head
    assert f"host: 127.0.0.1:{server.port}\r\n".encode() in head


def needs_a_token(head: bytes) -> Iterator[bytes]:
    """An app that shows its profiles to those who have its token."""
    yield http(b"/app\0--flag") if b"bearer x" in head.lower() else http(b"", "401 Unauthorized")


def test_a_token_goes_to_no_stranger() -> None:
    """A port that may be anybody's gets no configured header, whatever it answers, and the refusal says why."""
    settings = PprofSettings(headers=(("Authorization", "Bearer x"),))
    with HostileServer(needs_a_token) as server:
        answer = ask(server, settings)
    assert isinstance(answer, Refusal)
    assert "name it in PPROF_PORTS" in answer.reason
    with answer_with(http(b"/app\0--flag")) as liar:
        client = ask(liar, settings)
        assert isinstance(client, PprofClient)
        client.fetch("/heap", lambda _: None, deadline_s=20.0)
        client.close()
    assert len(liar.requests) == 2
    assert b"bearer" not in b"".join(server.requests + liar.requests).lower()


def test_a_token_goes_to_a_port_that_the_settings_name() -> None:
    """Whoever names a port says whose it is."""
    with HostileServer(needs_a_token) as server:
        client = ask(server, PprofSettings(headers=(("Authorization", "Bearer x"),), ports=(server.port,)))
        assert isinstance(client, PprofClient)
        client.close()


def test_a_token_that_is_refused_is_no_matter_of_ports() -> None:
    """Where the headers were sent, their being kept back isn't the reason."""
    with answer_with(http(b"", "403 Forbidden")) as server:
        answer = ask(server, PprofSettings(headers=(("Authorization", "Bearer x"),)), owner_proven=True)
    assert isinstance(answer, Refusal)
    assert "PPROF_HEADERS" in answer.reason
    assert "PPROF_PORTS" not in answer.reason


def test_a_configured_host_replaces_ours() -> None:
    """An app that serves pprof on a virtual host gets its name, once."""
    with answer_with(http(b"/app\0--flag")) as server:
        client = ask(server, PprofSettings(headers=(("Host", "pprof.internal"),)), owner_proven=True)
        assert isinstance(client, PprofClient)
        client.close()
    assert b"\r\nhost: pprof.internal\r\n" in server.requests[0].lower()
    assert server.requests[0].lower().count(b"\r\nhost:") == 1


def test_an_ipv6_address_is_dialled() -> None:
    """Written in brackets, as in a URL."""
    with HostileServer(lambda _: iter([http(b"/app\0--flag")]), address="::1") as server:
        client = connect(("[::1]",), server.port, COMMAND_LINE, SETTINGS)
        assert isinstance(client, PprofClient)
        client.close()
    assert f"host: [::1]:{server.port}\r\n".encode() in server.requests[0].lower()


def test_proxies_of_the_environment_are_ignored(monkeypatch: pytest.MonkeyPatch) -> None:
    """HTTP_PROXY is for others: a profile is fetched from the pod itself."""
    monkeypatch.setenv("HTTP_PROXY", "http://192.0.2.1:1")
    monkeypatch.setenv("ALL_PROXY", "http://192.0.2.1:1")
    with answer_with(http(b"profile")) as server:
        assert fetch(server) == b"profile"


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
    monkeypatch.setattr("sidecar.pprof_http.MAX_BODY_BYTES", 1 << 20)

    def endless(_: bytes) -> Iterator[bytes]:
        yield b"HTTP/1.1 200 OK\r\n\r\n"
        while True:
            yield b"x" * 65536

    with HostileServer(endless) as server, pytest.raises(PprofError, match="longer than 1048576 bytes"):
        fetch(server)


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
    monkeypatch.setattr("sidecar.pprof_http._PROBE_DEADLINE_S", DEADLINE_S)
    with slow_server(how) as server:
        answer = ask(server)
        assert server.answered == 0
    assert isinstance(answer, Refusal)
    assert "no whole answer within 1 s" in answer.reason


def test_a_silent_handshake_ends_at_the_deadline(monkeypatch: pytest.MonkeyPatch) -> None:
    """A port that accepts and never speaks TLS."""
    monkeypatch.setattr("sidecar.pprof_http._PROBE_DEADLINE_S", DEADLINE_S)
    with socket.create_server(("127.0.0.1", 0)) as server:
        answer = connect(("127.0.0.1",), server.getsockname()[1], COMMAND_LINE, PprofSettings(scheme="https"))
    assert isinstance(answer, Refusal)
    assert "within 1 s" in answer.reason


def test_silence_before_the_deadline_is_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    """A whole collection may pass before the first byte: a request has its deadline and no shorter step."""
    monkeypatch.setattr("sidecar.pprof_http._PROBE_DEADLINE_S", 0.2)

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


class Owner:
    """Whose port it is; ``lost_after`` says how often it may be asked until it has lost it."""

    def __init__(self, lost_after: int, *, is_proven: bool) -> None:
        self.is_proven = is_proven
        self.left = lost_after

    def why_lost(self) -> str | None:
        """As `PortOwner.why_lost`."""
        self.left -= 1
        return "process 7 has ended" if self.left < 0 else None


def owned(server: HostileServer, owner: Owner) -> PprofClient:
    """A client of a port that is this owner's."""
    settings = PprofSettings(headers=(("Authorization", "Bearer secret"),))
    return PprofClient(host="127.0.0.1", port=server.port, settings=settings, tls=None, owner=owner)


@pytest.mark.parametrize("is_proven", [False, True])
@pytest.mark.parametrize(("lost_after", "connections"), [(0, 0), (1, 1)])
def test_nothing_is_sent_to_who_has_the_port_now(lost_after: int, connections: int, is_proven: bool) -> None:  # noqa: FBT001 -- pytest passes by name
    """Not even a connection is made if the owner is gone already; one that came too late is closed unused."""
    with answer_with(http(b"heap")) as server:
        client = owned(server, Owner(lost_after, is_proven=is_proven))
        with pytest.raises(PprofError, match=r"GET http.*/heap: process 7 has ended"):
            client.fetch("/heap", lambda _: None, deadline_s=20.0)
        client.close()
        if connections:
            wait_until("the connection was seen", lambda: server.connections == connections)
    assert server.connections == connections
    assert server.requests == []


def test_a_probe_tells_that_the_port_was_lost() -> None:
    """It is a refusal as any, and the headers stay here."""
    with answer_with(http(b"/app\0--flag")) as server:
        settings = PprofSettings(headers=(("Authorization", "Bearer secret"),), ports=(server.port,))
        owner = Owner(1, is_proven=True)
        answer = connect(("127.0.0.1",), server.port, COMMAND_LINE, settings, owner_proven=True, owner=owner)
    assert isinstance(answer, Refusal)
    assert "process 7 has ended" in answer.reason
    assert server.requests == []


@pytest.mark.parametrize(("is_proven", "is_kept"), [(False, False), (True, True)])
def test_an_answer_of_an_owner_that_ended_meanwhile(is_proven: bool, is_kept: bool) -> None:  # noqa: FBT001 -- as above
    """Where the socket was seen to be its own after connecting, its last bytes count; else they may be another's."""
    with answer_with(http(b"heap")) as server:
        client = owned(server, Owner(2, is_proven=is_proven))
        pieces: list[bytes] = []
        if is_kept:
            client.fetch("/heap", pieces.append, deadline_s=20.0)
            assert pieces == [b"heap"]
        else:
            with pytest.raises(PprofError, match="whether the answer was its own isn't known"):
                client.fetch("/heap", pieces.append, deadline_s=20.0)
        client.close()


def test_a_kept_connection_leads_to_whom_it_was_made_with() -> None:
    """The owner is looked at once before the request on it, and not after."""
    with HostileServer(lambda _: iter([http(b"heap", keep_alive=True)]), keep_alive=True) as server:
        owner = Owner(100, is_proven=False)
        client = owned(server, owner)
        client.fetch("/heap", lambda _: None, deadline_s=20.0)
        owner.left = 1
        client.fetch("/heap", lambda _: None, deadline_s=20.0)
        assert (owner.left, server.connections) == (0, 1)
        client.close()


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
