"""One endpoint of ``net/http/pprof`` of a Go program over HTTP, on a connection that is kept warm."""

from __future__ import annotations

import contextlib
import ssl
import time
from collections.abc import Callable, Iterable, Iterator
from http import HTTPStatus

import httpcore

from sidecar.errors import PprofError
from sidecar.pprof.answers import Refusal, SmallAnswer, judge
from sidecar.pprof.owned_tcp import OwnedBackend, Owner
from sidecar.settings import PprofSettings

# Sixteen times the largest heap profile seen (50,000 stacks: 4 MB); beyond it, it isn't one.
MAX_BODY_BYTES = 64 << 20

_PROBE_BODY_BYTES = 1 << 20
_PROBE_DEADLINE_S = 2.0
UNSENDABLE = "HTTP can't carry this request: check PPROF_PATH and PPROF_HEADERS"
_GZIP_MAGIC = b"\x1f\x8b"


class PprofClient:
    """One pprof endpoint of one process, with its own connection. Safe to use from several threads.

    Nothing is sent to a port that isn't its ``owner``'s any more: that is looked at before each request, and again
    where a connection was made for it, before its first byte.
    """

    def __init__(
        self,
        *,
        host: str,
        port: int,
        settings: PprofSettings,
        tls: ssl.SSLContext | None,
        owner: Owner | None = None,
        original: PprofClient | None = None,
    ) -> None:
        """``host`` as it stands in a URL. With ``tls`` it speaks TLS. No proxy, nothing from our environment.

        Without an ``owner`` whoever has the port is asked. ``original`` is the client that this one is a clone of.

        Raises ValueError if the headers or the path of the settings don't fit into an HTTP request.
        """
        self.port = port
        self.url = f"{'https' if tls else 'http'}://{host}:{port}{settings.path}"
        self.url.encode("ascii")
        self._headers = _headers(f"{host}:{port}", settings.headers)
        self._host, self._settings, self._tls = host, settings, tls
        self._owner = owner
        self._original = original
        self._closed = False
        self._network = OwnedBackend(owner)
        self._pool = httpcore.ConnectionPool(
            ssl_context=tls,
            max_connections=4,
            max_keepalive_connections=1,
            network_backend=self._network,
        )

    @property
    def is_closed(self) -> bool:
        """True after `close`, its own or that of what it is a clone of: look for the endpoint anew."""
        return self._closed or (self._original is not None and self._original.is_closed)

    def clone(self) -> PprofClient:
        """The same endpoint on a connection of its own, closed on its own, or with the original."""
        return PprofClient(
            host=self._host, port=self.port, settings=self._settings, tls=self._tls, owner=self._owner, original=self
        )

    def close(self) -> None:
        """Close what is idle and ask nothing more; a request in flight still has its deadline to end by.

        The last bytes of a program that has ended may lie in our own socket: they are worth reading.
        """
        self._closed = True
        for connection in self._pool.connections:
            if connection.is_idle():
                connection.close()

    def probe(self, command_line: bytes, *, owner_proven: bool = False) -> Refusal | None:
        """Ask whether this is pprof of the program whose /proc/PID/cmdline is ``command_line``; None if it is.

        The arguments are asked for, compared and forgotten, which costs the program next to nothing; a 404 of the index
        says as much as an answer. With ``owner_proven`` the socket is known to be the program's: then it may answer
        with altered arguments, or serve the heap alone, whose first bytes are looked at.
        """
        try:
            answer = self._get_small("/cmdline")
            refusal = judge(answer, command_line, owner_proven=owner_proven)
            may_have_heap = owner_proven and answer.status in (HTTPStatus.OK, HTTPStatus.NOT_FOUND)
            if refusal is not None and may_have_heap and self._begins_like_a_profile("/heap"):
                return None
        except PprofError as error:
            return Refusal(reason=str(error))
        return refusal

    def fetch(self, query: str, consume: Callable[[bytes], None], *, deadline_s: float) -> None:
        """GET ``query`` (such as ``/heap?gc=1``) and hand the body to ``consume`` piece by piece.

        Raises `PprofError`, also if the body is longer than `MAX_BODY_BYTES` or isn't there and consumed after
        ``deadline_s``, and if it may be another process's. What ``consume`` raises comes through.
        """
        what = f"GET {self.url}{query}"
        received, connections = 0, self._network.connections
        with self._get(query, what, deadline_s) as answer:
            if answer.status != HTTPStatus.OK:
                raise PprofError(f"{what}: HTTP {answer.status}")
            for piece in answer.pieces():
                received += len(piece)
                if received > MAX_BODY_BYTES:
                    raise PprofError(f"{what}: the body is longer than {MAX_BODY_BYTES} bytes")
                consume(piece)
        is_proven = self._owner is None or self._owner.is_proven
        if not is_proven and self._network.connections != connections and (why := self.why_lost()) is not None:
            raise PprofError(f"{what}: {why}, and whether the answer was its own isn't known")

    def why_lost(self) -> str | None:
        """Why the port may be somebody else's by now; None while it isn't, or nobody is to own it. Cheap."""
        return self._owner.why_lost() if self._owner is not None else None

    def _get_small(self, query: str) -> SmallAnswer:
        body = bytearray()
        with self._get(query, "probe", _PROBE_DEADLINE_S) as answer:
            for piece in answer.pieces():
                body += piece
                if len(body) > _PROBE_BODY_BYTES:
                    raise PprofError("probe: answers without end")
            return SmallAnswer(status=answer.status, headers=answer.headers, body=bytes(body))

    def _begins_like_a_profile(self, query: str) -> bool:
        """Whether the answer is a packed profile by its first bytes; the rest is dropped with the connection."""
        first = b""
        with self._get(query, "probe", _PROBE_DEADLINE_S) as answer:
            if answer.status != HTTPStatus.OK or answer.headers.get(b"content-type") != b"application/octet-stream":
                return False
            for piece in answer.pieces():
                first += piece
                if len(first) >= len(_GZIP_MAGIC):
                    break
        return first.startswith(_GZIP_MAGIC)

    @contextlib.contextmanager
    def _get(self, query: str, what: str, deadline_s: float) -> Iterator[_Answer]:
        """Send a request and wait for the head of its answer. Errors begin with ``what``."""
        if self.is_closed:
            raise PprofError(f"{what}: the endpoint was closed, its process or its port has gone")
        if (why := self.why_lost()) is not None:
            raise PprofError(f"{what}: {why}")
        end_s = time.monotonic() + deadline_s
        connect_end_s = min(end_s, time.monotonic() + _PROBE_DEADLINE_S)
        request = httpcore.Request(
            method="GET",
            url=self.url + query,
            headers=self._headers,
            extensions={"timeout": {"pool": deadline_s, "connect": connect_end_s, "read": end_s, "write": end_s}},
        )
        with _translated(what, deadline_s):
            response = self._pool.handle_request(request)
        try:
            yield _Answer(response=response, what=what, deadline_s=deadline_s, end_s=end_s)
        finally:
            response.close()
            if self._closed:
                self.close()


def _headers(authority: str, configured: Iterable[tuple[str, str]]) -> list[tuple[bytes, bytes]]:
    """The headers of each request. A profile is gzip already: nobody should pack it twice."""
    own = {"Host": authority, "User-Agent": "oom-heap-dumper", "Accept-Encoding": "identity"}
    given = [(name.encode("ascii"), value.encode("ascii")) for name, value in configured]
    replaced = {name.lower() for name, _ in given}
    kept = [(name.encode(), value.encode()) for name, value in own.items() if name.lower().encode() not in replaced]
    return kept + given


class _Answer:
    """An answer whose head is there, and whose body must be there and looked at by ``end_s``."""

    def __init__(self, *, response: httpcore.Response, what: str, deadline_s: float, end_s: float) -> None:
        self.status = response.status
        self.headers = {name.lower(): value for name, value in response.headers}
        self._response = response
        self._what = what
        self._deadline_s = deadline_s
        self._end_s = end_s

    def pieces(self) -> Iterator[bytes]:
        """The body as it comes. Raises `PprofError`."""
        stream = iter(self._response.iter_stream())
        while True:
            with _translated(self._what, self._deadline_s):
                if time.monotonic() > self._end_s:  # whoever looks at the pieces takes too long
                    raise httpcore.ReadTimeout
                piece = next(stream, None)
            if piece is None:
                return
            yield piece


@contextlib.contextmanager
def _translated(what: str, deadline_s: float) -> Iterator[None]:
    """Turn what the transport raises into a `PprofError` that begins with ``what``."""
    try:
        yield
    except httpcore.ConnectTimeout as error:
        raise PprofError(f"{what}: no connection within {min(deadline_s, _PROBE_DEADLINE_S):g} s") from error
    except httpcore.TimeoutException as error:
        raise PprofError(f"{what}: no whole answer within {deadline_s:g} s") from error
    except httpcore.LocalProtocolError:
        raise PprofError(f"{what}: {UNSENDABLE}") from None  # its words quote the header, which may be a secret
    except (httpcore.NetworkError, httpcore.ProtocolError, OSError, ValueError) as error:
        raise PprofError(f"{what}: {str(error) or type(error).__name__}") from error
