"""Talks to ``net/http/pprof`` of a Go program over HTTP, on a connection that is kept warm.

The handlers are those of Go's ``net/http/pprof``: every answer of its index for an unknown profile is a 404 with
``X-Go-Pprof: 1``; ``cmdline`` answers the program's arguments joined by NUL bytes.
"""

from __future__ import annotations

import contextlib
import functools
import ssl
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from http import HTTPStatus
from typing import Literal

import httpx

from sidecar.errors import PprofError
from sidecar.settings import PprofSettings

# Sixteen times the largest heap profile seen (50,000 stacks: 4 MB); beyond it, it isn't one.
MAX_BODY_BYTES = 64 << 20

_PROBE_BODY_BYTES = 1 << 20
_STEP_TIMEOUT_S = 10.0
_PROBE_DEADLINE_S = 2.0
_TLS_HINT = b"HTTP request to an HTTPS server"

Scheme = Literal["http", "https"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Refusal:
    """Why a port isn't a pprof endpoint, in words for people."""

    reason: str


class PprofClient:
    """One pprof endpoint of one process, with its own connection. Safe to use from several threads."""

    def __init__(self, *, scheme: Scheme, host: str, port: int, settings: PprofSettings) -> None:
        """``host`` as it stands in a URL. No proxy, no redirect, nothing from our environment."""
        self.port = port
        self._clone = functools.partial(PprofClient, scheme=scheme, host=host, port=port, settings=settings)
        self.url = f"{scheme}://{host}:{port}{settings.path}"
        self._client = httpx.Client(
            verify=_tls_context(settings) if scheme == "https" else False,
            trust_env=False,
            follow_redirects=False,
            timeout=httpx.Timeout(_STEP_TIMEOUT_S, connect=_PROBE_DEADLINE_S),
            limits=httpx.Limits(max_connections=4, max_keepalive_connections=1, keepalive_expiry=None),
            headers=[
                ("User-Agent", "oom-heap-dumper"),
                ("Accept-Encoding", "identity"),  # a profile is gzip already; nobody should pack it twice
                *settings.headers,
            ],
        )

    @property
    def is_closed(self) -> bool:
        """True after `close`, also after a deadline was broken: look for the endpoint anew."""
        return self._client.is_closed

    def clone(self) -> PprofClient:
        """The same endpoint on a connection of its own, with a deadline of its own to break."""
        return self._clone()

    def close(self) -> None:
        """Close the connection; a request in flight fails."""
        self._client.close()

    def probe(self, command_line: bytes) -> Refusal | None:
        """Ask for the program's arguments; None if it is pprof. ``command_line`` is /proc/PID/cmdline.

        The arguments are compared and forgotten. The request costs the program next to nothing, and a 404 of the
        index says as much as an answer.
        """
        try:
            status, headers, body = self._get_small("/cmdline")
        except PprofError as error:
            return Refusal(reason=str(error))
        if "x-go-pprof" in headers:
            return None
        if status == HTTPStatus.OK:
            if body.rstrip(b"\0\n") == command_line.rstrip(b"\0"):
                return None
            return Refusal(reason="answers, but not with this program's arguments")
        if _TLS_HINT in body:
            return Refusal(reason="speaks TLS")
        if status in (HTTPStatus.UNAUTHORIZED, HTTPStatus.FORBIDDEN):
            return Refusal(reason=f"HTTP {status}: it wants credentials, see PPROF_HEADERS")
        if 300 <= status < 400:
            return Refusal(reason=f"HTTP {status}: redirects are not followed")
        return Refusal(reason=f"HTTP {status}")

    def fetch(self, query: str, consume: Callable[[bytes], None], *, deadline_s: float) -> None:
        """GET ``query`` (such as ``/heap?gc=1``) and hand the body to ``consume`` piece by piece.

        Raises `PprofError`, also if the body is longer than `MAX_BODY_BYTES` or isn't there after ``deadline_s``; the
        endpoint is closed then. What ``consume`` raises comes through.
        """
        with self._deadline(f"GET {self.url}{query}", deadline_s):
            self._stream(query, consume)

    def _stream(self, query: str, consume: Callable[[bytes], None]) -> None:
        received = 0
        with self._client.stream("GET", self.url + query) as response:
            if response.status_code != HTTPStatus.OK:
                raise PprofError(f"GET {self.url}{query}: HTTP {response.status_code}")
            for piece in response.iter_raw():
                received += len(piece)
                if received > MAX_BODY_BYTES:
                    raise PprofError(f"GET {self.url}{query}: the body is longer than {MAX_BODY_BYTES} bytes")
                consume(piece)

    def _get_small(self, query: str) -> tuple[int, httpx.Headers, bytes]:
        body = b""
        with (
            self._deadline("probe", _PROBE_DEADLINE_S),
            self._client.stream("GET", self.url + query) as response,
        ):
            for piece in response.iter_raw():
                body += piece
                if len(body) > _PROBE_BODY_BYTES:
                    raise PprofError("probe: answers without end")
            return response.status_code, response.headers, body

    @contextlib.contextmanager
    def _deadline(self, what: str, deadline_s: float) -> Iterator[None]:
        """Close the endpoint when time is up, and translate what the transport raises then or before."""
        watchdog = threading.Timer(deadline_s, self.close)
        watchdog.daemon = True
        watchdog.start()
        try:
            yield
        except _TRANSPORT_ERRORS as error:
            cause = f"no whole answer within {deadline_s:g} s" if self.is_closed else str(error) or type(error).__name__
            raise PprofError(f"{what}: {cause}") from error
        finally:
            watchdog.cancel()


def connect(hosts: tuple[str, ...], port: int, command_line: bytes, settings: PprofSettings) -> PprofClient | Refusal:
    """Find out whether a port serves pprof of the program with this command line, in plain HTTP or with TLS.

    ``hosts`` are tried in order. Returns the endpoint with a warm connection, or the most telling refusal.
    """
    refusal = Refusal(reason="no host to dial")
    schemes: tuple[Scheme, ...] = ("http", "https") if settings.scheme == "auto" else (settings.scheme,)
    for host in hosts:
        for scheme in schemes:
            client = PprofClient(scheme=scheme, host=host, port=port, settings=settings)
            answer = client.probe(command_line)
            if answer is None:
                return client
            client.close()
            if scheme == "http" or refusal.reason == "speaks TLS":
                refusal = answer
            if answer.reason != "speaks TLS":
                break
    return replace(refusal, reason=f"port {port}: {refusal.reason}")


_TRANSPORT_ERRORS = (httpx.HTTPError, httpx.StreamError, httpx.InvalidURL, OSError, RuntimeError, ValueError)


def _tls_context(settings: PprofSettings) -> ssl.SSLContext:
    """Check the chain against the given CA only. Names aren't checked: an address inside the pod is dialled."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    if settings.ca_file is None:
        context.verify_mode = ssl.CERT_NONE
    else:
        context.load_verify_locations(settings.ca_file)
    return context
