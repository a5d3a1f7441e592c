"""Servers that answer as the test says, and clients that ask them."""

from __future__ import annotations

import ssl

from sidecar.pprof import PprofClient, Refusal, connect
from sidecar.settings import PprofSettings
from tests.hostile_server import HostileServer, http

# An answer that is whole only long after any deadline of the tests: a client without one would take it.
TOO_LATE_S = 20.0
COMMAND_LINE = b"/app\0--flag\0"
SETTINGS = PprofSettings()
GO_TEXT = "X-Content-Type-Options: nosniff\r\nContent-Type: text/plain; charset=utf-8\r\n"


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
