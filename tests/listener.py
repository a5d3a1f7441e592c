"""What every TCP server of the tests is: a socket whose connections are taken by a thread until the test is over."""

from __future__ import annotations

import contextlib
import socket
import threading
from types import TracebackType
from typing import Self


class Listener:
    """Serves each connection of a listening socket in a thread of its own, inside of a ``with`` block.

    A class of the tests says how, in `serve`, and may say in `take` that some are to wait.
    """

    def __init__(self, server: socket.socket) -> None:
        self._server = server
        self.address: tuple[str, int] = server.getsockname()[:2]
        self.stopped = threading.Event()

    def __enter__(self) -> Self:
        threading.Thread(target=self._accept, daemon=True).start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.stopped.set()
        with contextlib.suppress(OSError):
            self._server.shutdown(socket.SHUT_RDWR)
        self._server.close()

    def take(self, connection: socket.socket) -> None:
        """What is done with a new connection, by the one thread that takes them all."""
        threading.Thread(target=self.serve, args=(connection,), daemon=True).start()

    def serve(self, connection: socket.socket) -> None:
        """Serve a connection to its end, and close it."""
        raise NotImplementedError

    def _accept(self) -> None:
        while not self.stopped.is_set():
            try:
                connection, _ = self._server.accept()
            except OSError:
                return
            self.take(connection)
