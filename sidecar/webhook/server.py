"""Runs the webhook: uvicorn around the application, TLS, and a stop that turns nobody away."""

from __future__ import annotations

import asyncio
import contextlib
import functools
import logging
import signal
import socket
from collections.abc import Callable, Iterator

import uvicorn
from uvicorn.protocols.http.h11_impl import H11Protocol

from sidecar import logs
from sidecar.errors import StartupError
from sidecar.webhook.app import App
from sidecar.webhook.certificate import Certificate

_CERTIFICATE_INTERVAL_S = 2.0
_REQUEST_DEADLINE_S = 10.0  # from connecting, or from a request's first byte, to the end of its header
# The API server closes its idle connections after 90 s (client-go's transport): longer than that, so that it never
# posts to one that is closing.
_KEEP_ALIVE_S = 120
_HANDSHAKE_S = 15.0
_GOODBYE_S = 1.0  # for a client to close its side of a connection that we have closed
_IN_FLIGHT_S = 10  # longer than the timeoutSeconds that our configuration gives the API server
# asyncio holds some 0.3 MiB for each TLS connection; the API server has one for each review in flight.
_MOST_CONNECTIONS = 128


def listen(address: str, port: int) -> socket.socket:
    """A listening TCP socket; an empty address means all, of IPv6 too where the machine has it. Raises StartupError."""
    both = not address and socket.has_dualstack_ipv6()
    family = socket.AF_INET6 if both or ":" in address else socket.AF_INET
    try:
        listener = socket.create_server((address, port), family=family, dualstack_ipv6=both, backlog=_MOST_CONNECTIONS)
        # Connections inherit it. asyncio sets it only where the protocol's number was given, and without it an answer
        # waits 40 ms for the client to acknowledge its header.
        listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    except (OSError, OverflowError) as error:
        reason = str(getattr(error, "strerror", None) or error).partition(" (while")[0]
        raise StartupError(
            f"can't listen on port {port} of {address or 'all addresses'} ({reason}): give --port or --address another"
        ) from error
    return listener


def serve(
    app: App, certificate: Certificate, listener: socket.socket, *, drain_s: float, announce: Callable[[], None]
) -> None:
    """Call ``announce`` once it serves, and serve until SIGTERM or SIGINT.

    Then for ``drain_s`` it goes on serving without being ready, as it takes a moment until nobody is sent here any
    more; at last it finishes what is in flight. A second signal cuts the drain short.
    """
    for name in ("uvicorn", "asyncio"):
        logger = logging.getLogger(name)
        logger.addHandler(_Forward(logging.WARNING))
        logger.propagate = False
    asyncio.run(_serve(app, certificate, listener, drain_s, announce))


async def _serve(
    app: App, certificate: Certificate, listener: socket.socket, drain_s: float, announce: Callable[[], None]
) -> None:
    config = uvicorn.Config(
        app,
        http="h11",
        ws="none",
        lifespan="off",
        loop="none",
        interface="asgi3",
        log_config=None,
        access_log=False,
        proxy_headers=False,
        server_header=False,
        backlog=_MOST_CONNECTIONS,
        limit_concurrency=_MOST_CONNECTIONS,
        timeout_keep_alive=_KEEP_ALIVE_S,
        timeout_graceful_shutdown=_IN_FLIGHT_S,
    )
    config.load()
    config.ssl = certificate.context
    server = _Server(config, announce)
    signals: asyncio.Queue[str] = asyncio.Queue()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, signals.put_nowait, number.name)
    beside = [
        asyncio.create_task(_renew(certificate)),
        asyncio.create_task(_stop_on_signal(server, app, signals, drain_s)),
    ]
    try:
        await server.serve(sockets=[listener])
    finally:
        for task in beside:
            task.cancel()
    logs.event(logging.INFO, "stopped", "stopped", reviews=dict(app.counts))


async def _renew(certificate: Certificate) -> None:
    while True:
        await asyncio.sleep(_CERTIFICATE_INTERVAL_S)
        try:
            certificate.reload_if_changed()
        except Exception:  # noqa: BLE001 -- the old certificate serves on, and the next look may succeed
            logs.fault("certificate-fault", "the certificate couldn't be looked at; the old one stays in use")


async def _stop_on_signal(server: uvicorn.Server, app: App, signals: asyncio.Queue[str], drain_s: float) -> None:
    name = await signals.get()
    app.draining = True
    logs.event(logging.INFO, "stopping", f"{name}: stopping in {drain_s:g} s, until then still serving")
    with contextlib.suppress(TimeoutError):
        await asyncio.wait_for(signals.get(), drain_s)
    server.should_exit = True


class _Server(uvicorn.Server):
    """uvicorn's server with deadlines for TLS, and without its signals: it would die of SIGTERM, not exit with 0."""

    def __init__(self, config: uvicorn.Config, announce: Callable[[], None]) -> None:
        super().__init__(config)
        self._announce = announce

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        loop = asyncio.get_running_loop()
        connection = functools.partial(
            _Connection, config=self.config, server_state=self.server_state, app_state=self.lifespan.state
        )
        self.servers = [
            await loop.create_server(
                connection,
                sock=each,
                ssl=self.config.ssl,
                backlog=self.config.backlog,
                ssl_handshake_timeout=_HANDSHAKE_S,
                ssl_shutdown_timeout=_GOODBYE_S,
            )
            for each in sockets or []
        ]
        self.started = True
        self._announce()


class _Connection(H11Protocol):
    """A connection with a deadline for the header of each request, which uvicorn doesn't have."""

    _deadline: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]  # as uvicorn has it
        super().connection_made(transport)
        self._deadline = self.loop.call_later(_REQUEST_DEADLINE_S, transport.abort)

    def data_received(self, data: bytes) -> None:
        super().data_received(data)
        if self.cycle is not None and not self.cycle.response_complete:
            self._cancel()  # the application has the request now, and deadlines of its own
        elif self._deadline is None:
            self._deadline = self.loop.call_later(_REQUEST_DEADLINE_S, self.transport.abort)

    def connection_lost(self, exc: Exception | None) -> None:
        self._cancel()
        super().connection_lost(exc)

    def _cancel(self) -> None:
        if self._deadline is not None:
            self._deadline.cancel()
            self._deadline = None


class _Forward(logging.Handler):
    """Puts what libraries log into our log, in its format."""

    def emit(self, record: logging.LogRecord) -> None:
        if record.exc_info:
            trace = logging.Formatter().formatException(record.exc_info)
            logs.event(record.levelno, "http-server", record.getMessage().strip(), exception=trace)
        else:
            logs.event(record.levelno, "http-server", record.getMessage().strip())
