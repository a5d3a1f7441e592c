"""Runs the webhook: uvicorn around the application, TLS, and a stop that turns nobody away."""

from __future__ import annotations

import asyncio
import contextlib
import functools
import logging
import signal
import socket
import time
from collections.abc import Callable, Iterator
from typing import Any

import uvicorn
from uvicorn.protocols.http.h11_impl import H11Protocol
from uvicorn.server import ServerState

from sidecar import logs
from sidecar.errors import StartupError
from sidecar.webhook.app import App
from sidecar.webhook.certificate import Certificate
from sidecar.webhook.connections import Door, Place

_CERTIFICATE_INTERVAL_S = 2.0
_REQUEST_DEADLINE_S = 10.0  # from connecting, or from a request's first byte, to the end of its header
# The API server closes its idle connections after 90 s (client-go's transport): longer than that, so that it never
# posts to one that is closing.
_KEEP_ALIVE_S = 120
_IN_FLIGHT_S = 10  # longer than the timeoutSeconds that our configuration gives the API server
# asyncio holds some 0.3 MiB for each TLS connection, from before its handshake; the API server has one for each review
# in flight.
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
    """uvicorn's server with a door of its own, and without its signals: it would die of SIGTERM, not exit with 0."""

    def __init__(self, config: uvicorn.Config, announce: Callable[[], None]) -> None:
        super().__init__(config)
        self._announce = announce
        self._accepting: list[asyncio.Task[None]] = []

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        assert self.config.ssl is not None  # noqa: S101 -- it is set above
        connection = functools.partial(
            _Connection, config=self.config, server_state=self.server_state, app_state=self.lifespan.state
        )
        doors = [Door(each, connection, most=_MOST_CONNECTIONS, context=self.config.ssl) for each in sockets or []]
        self._accepting = [asyncio.create_task(door.run()) for door in doors]
        self.servers = []  # those of asyncio, which accept any number
        self.started = True
        self._announce()

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        for task in self._accepting:
            task.cancel()
        await asyncio.gather(*self._accepting, return_exceptions=True)
        await super().shutdown(sockets)


class _Connection(H11Protocol):
    """A connection with a deadline for the header of each request, which uvicorn doesn't have, and a place."""

    _deadline: asyncio.TimerHandle | None = None

    def __init__(
        self, place: Place, *, config: uvicorn.Config, server_state: ServerState, app_state: dict[str, Any]
    ) -> None:
        super().__init__(config, server_state, app_state)
        self._place = place

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]  # as uvicorn has it
        super().connection_made(transport)
        self._place.seated(transport)
        self._deadline = self.loop.call_later(_REQUEST_DEADLINE_S, transport.abort)

    def data_received(self, data: bytes) -> None:
        if self._is_idle():
            self._place.renew()
        super().data_received(data)
        if self.cycle is not None and not self.cycle.response_complete:
            self._cancel()  # the application has the request now, and deadlines of its own
        elif self._deadline is None:
            self._deadline = self.loop.call_later(_REQUEST_DEADLINE_S, self.transport.abort)

    def on_response_complete(self) -> None:
        self._place.renew()
        super().on_response_complete()

    def connection_lost(self, exc: Exception | None) -> None:
        self._cancel()
        self._place.left()
        super().connection_lost(exc)

    def _is_idle(self) -> bool:
        """Whether a request has been answered, and the next one hasn't begun."""
        return self._deadline is None and self.cycle is not None and self.cycle.response_complete

    def _cancel(self) -> None:
        if self._deadline is not None:
            self._deadline.cancel()
            self._deadline = None


class _Forward(logging.Handler):
    """Puts what libraries log into our log, in its format; what is repeated only every now and then."""

    def __init__(self, level: int) -> None:
        super().__init__(level)
        self._repeated = logs.RateLimit()

    def emit(self, record: logging.LogRecord) -> None:
        # The first line of what is filled in: asyncio puts addresses into those below.
        kind = (record.name, str(record.msg).partition("\n")[0])
        left_out = self._repeated.admit(kind, time.monotonic())
        if left_out is None:
            return
        trace = {"exception": logging.Formatter().formatException(record.exc_info)} if record.exc_info else {}
        logs.event(record.levelno, "http-server", record.getMessage().strip(), left_out=left_out, **trace)
