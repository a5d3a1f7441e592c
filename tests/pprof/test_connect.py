"""How a port is spoken to: address, TLS, path, headers."""

from __future__ import annotations

import socket
import ssl
from collections.abc import Iterator
from pathlib import Path

import pytest

from sidecar.pprof import PprofClient, Refusal, connect
from sidecar.settings import PprofSettings
from tests.hostile_server import HostileServer, http
from tests.pprof.asking import COMMAND_LINE, SETTINGS, answer_with, ask, fetch
from tests.s3_servers.certificates import CertificateFiles, write_certificates


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
