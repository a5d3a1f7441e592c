"""A way from the pods' network to a server on this machine's loopback, which a test may hold shut."""

from __future__ import annotations

import contextlib
import selectors
import socket
import threading
from types import TracebackType
from typing import Self

_FREEBIND = 15  # IP_FREEBIND of linux/in.h: the address exists only while a pod runs
_CHUNK = 1 << 16


class Door:
    """Listens at ``address`` and passes each connection on to a port of 127.0.0.1.

    While it is held shut, connections are taken and then nothing moves, as with a store that hangs; ``held`` tells
    when the first one has come. Opening it lets new connections through; those that were held are closed.
    """

    def __init__(self, address: str, port: int) -> None:
        self._target = ("127.0.0.1", port)
        self._server = socket.socket()
        self._server.setsockopt(socket.IPPROTO_IP, _FREEBIND, 1)
        self._server.bind((address, 0))
        self._server.listen(64)
        self.url = "http://{}:{}".format(*self._server.getsockname())
        self.held = threading.Event()
        self._shut = threading.Event()
        self._waiting: list[socket.socket] = []

    def __enter__(self) -> Self:
        threading.Thread(target=self._accept, daemon=True).start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.open()
        with contextlib.suppress(OSError):
            self._server.shutdown(socket.SHUT_RDWR)
        self._server.close()

    def shut(self) -> None:
        """From now on nothing gets through."""
        self.held.clear()
        self._shut.set()

    def open(self) -> None:
        """From now on new connections get through."""
        self._shut.clear()
        while self._waiting:
            self._waiting.pop().close()

    def _accept(self) -> None:
        while True:
            try:
                client, _ = self._server.accept()
            except OSError:
                return
            if self._shut.is_set():
                self._waiting.append(client)
                self.held.set()
            else:
                threading.Thread(target=self._pass_on, args=(client,), daemon=True).start()

    def _pass_on(self, client: socket.socket) -> None:
        with contextlib.suppress(OSError), client, socket.create_connection(self._target) as server:
            selector = selectors.DefaultSelector()
            with selector:
                selector.register(client, selectors.EVENT_READ, server)
                selector.register(server, selectors.EVENT_READ, client)
                while True:
                    for key, _ in selector.select():
                        data = key.fileobj.recv(_CHUNK)  # type: ignore[union-attr]  # sockets, as registered
                        if not data:
                            return
                        key.data.sendall(data)
