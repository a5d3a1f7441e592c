"""Takes connections in: a bounded number of them, counted from accepting on, so before TLS has cost any memory."""

from __future__ import annotations

import asyncio
import contextlib
import functools
import logging
import socket
import ssl
import traceback
from collections.abc import Callable

from sidecar import logs

_HANDSHAKE_S = 15.0
_GOODBYE_S = 1.0  # for a client to close its side of a connection that we have closed
_PATIENCE_S = 1.0  # with which a client that sends nothing is treated while others wait for its place
_PAUSE_S = 1.0  # after accepting failed, as it does without free file descriptors


class Place:
    """One of the places: what sits on it, and since when (loop time) we wait for its client."""

    def __init__(self, door: Door, since_s: float) -> None:
        self._door = door
        self.since_s = since_s
        self.handshake: asyncio.Task[None] | None = None
        self.transport: asyncio.Transport | None = None

    def seated(self, transport: asyncio.Transport) -> None:
        """TLS is done; from now on it is for the connection to call ``left`` at its end."""
        self.transport = transport

    def renew(self) -> None:
        """A request begins, or has been answered."""
        self.since_s = self._door.now_s()

    def left(self) -> None:
        """The connection has ended."""
        self._door.free(self)

    def clear(self) -> None:
        """Cut the connection off; ``left`` follows."""
        if self.transport is not None:
            self.transport.abort()
        elif self.handshake is not None:
            self.handshake.cancel()


class Door:
    """Lets in connections of a listening socket while fewer than ``most`` stand, handshakes included.

    Others wait, the first at the door and the rest in the kernel's queue. If nobody leaves within a second, whoever
    has kept one the longest without completing a request is cut off: silent clients, idle connections and half requests
    keep nobody out. ``make`` is called for the protocol of each connection, which tells its place what happens.
    """

    def __init__(
        self, listener: socket.socket, make: Callable[[Place], asyncio.Protocol], *, most: int, context: ssl.SSLContext
    ) -> None:
        self._listener = listener
        self._make = make
        self._most = most
        self._context = context
        self._places: set[Place] = set()
        self._freed = asyncio.Event()
        self._told = logs.RateLimit()
        self._loop = asyncio.get_running_loop()

    async def run(self) -> None:
        """Accept until cancelled; connections that stand go on after that."""
        self._listener.setblocking(False)
        while True:
            try:
                accepted, _ = await self._loop.sock_accept(self._listener)
            except ConnectionError:
                continue  # the client has gone again
            except OSError as error:
                self._tell("accept-failed", f"can't accept connections ({error.strerror}): trying again")
                await asyncio.sleep(_PAUSE_S)
                continue
            try:
                await self._room()
            except asyncio.CancelledError:
                accepted.close()
                raise
            place = Place(self, self.now_s())
            self._places.add(place)
            place.handshake = self._loop.create_task(self._shake_hands(accepted, place))
            place.handshake.add_done_callback(functools.partial(self._shaken, place))

    def now_s(self) -> float:
        """The loop's time."""
        return self._loop.time()

    def free(self, place: Place) -> None:
        """Nobody sits on a place any more."""
        self._places.discard(place)
        self._freed.set()

    async def _room(self) -> None:
        while len(self._places) >= self._most:
            longest = min(self._places, key=lambda place: place.since_s)
            left_s = longest.since_s + _PATIENCE_S - self.now_s()
            if left_s <= 0:
                self._tell("crowded", f"{self._most} connections stand: cutting off the longest idle for a new one")
                longest.clear()
                left_s = _PATIENCE_S
            self._freed.clear()
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._freed.wait(), left_s)

    async def _shake_hands(self, accepted: socket.socket, place: Place) -> None:
        try:
            await self._loop.connect_accepted_socket(
                lambda: self._make(place),
                accepted,
                ssl=self._context,
                ssl_handshake_timeout=_HANDSHAKE_S,
                ssl_shutdown_timeout=_GOODBYE_S,
            )
        except BaseException as error:
            # asyncio's frames and TLS hold each other by the traceback: 0.3 MiB until garbage is collected.
            traceback.clear_frames(error.__traceback__)
            # No TLS, none in time, or a client that doesn't trust us, of which the certificate tells.
            if not isinstance(error, OSError):
                raise

    def _shaken(self, place: Place, _task: asyncio.Task[None]) -> None:
        if place.transport is None:
            self.free(place)

    def _tell(self, name: str, message: str) -> None:
        left_out = self._told.admit(name, self.now_s())
        if left_out is not None:
            logs.event(logging.WARNING, name, message, left_out=left_out)
