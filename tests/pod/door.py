"""A way from the pods' network to a server on this machine's loopback, which a test may hold shut."""

from __future__ import annotations

import contextlib
import selectors
import socket
import threading
from types import TracebackType

from tests.listener import Listener

_FREEBIND = 15  # IP_FREEBIND of linux/in.h: the address exists only while a pod runs
_CHUNK = 1 << 16


class Door(Listener):
    """Listens at ``address`` and passes each connection on to a port of 127.0.0.1.

    While it is held shut, connections are taken and then nothing moves, as with a store that hangs; ``held`` tells
    when the first one has come. Opening it lets new connections through; those that were held are closed.
    """

    def __init__(self, address: str, port: int) -> None:
        server = socket.socket()
        server.setsockopt(socket.IPPROTO_IP, _FREEBIND, 1)
        server.bind((address, 0))
        server.listen(64)
        super().__init__(server)
        self.url = "http://{}:{}".format(*self.address)
        self.held = threading.Event()
        self._target = ("127.0.0.1", port)
        self._shut = threading.Event()
        self._waiting: list[socket.socket] = []

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        super().__exit__(kind, error, traceback)
        self.open()

    def shut(self) -> None:
        """From now on nothing gets through."""
        self.held.clear()
        self._shut.set()

    def open(self) -> None:
        """From now on new connections get through."""
        self._shut.clear()
        while self._waiting:
            self._waiting.pop().close()

    def take(self, connection: socket.socket) -> None:
        if self._shut.is_set():
            self._waiting.append(connection)
            self.held.set()
        else:
            super().take(connection)

    def serve(self, connection: socket.socket) -> None:
        with contextlib.suppress(OSError), connection, socket.create_connection(self._target) as server:
            selector = selectors.DefaultSelector()
            with selector:
                selector.register(connection, selectors.EVENT_READ, server)
                selector.register(server, selectors.EVENT_READ, connection)
                while True:
                    for key, _ in selector.select():
                        data = key.fileobj.recv(_CHUNK)  # type: ignore[union-attr]  # sockets, as registered
                        if not data:
                            return
                        key.data.sendall(data)
