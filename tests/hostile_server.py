"""A TCP server that answers each connection with bytes of the test's choosing, well-behaved or not."""

from __future__ import annotations

import contextlib
import socket
import ssl
from collections.abc import Callable, Iterator

from tests.listener import Listener

Answer = Callable[[bytes], Iterator[bytes]]


class HostileServer(Listener):
    """Listens on loopback; ``answer`` gets the request's head and yields what is sent, then the connection closes.

    With ``keep_alive`` it waits for more requests instead. ``connections`` counts the clients that came,
    ``answered`` the answers that were sent to their end.
    """

    def __init__(
        self,
        answer: Answer,
        *,
        address: str = "127.0.0.1",
        tls: ssl.SSLContext | None = None,
        keep_alive: bool = False,
    ) -> None:
        self.requests: list[bytes] = []
        self.connections = 0
        self.answered = 0
        self._answer = answer
        self._tls = tls
        self._keep_alive = keep_alive
        family = socket.AF_INET6 if ":" in address else socket.AF_INET
        super().__init__(socket.create_server((address, 0), family=family))
        self.port = self.address[1]

    def wait_stopped(self, seconds: float) -> bool:
        """For answers that want to hang: returns true as soon as the test is over."""
        return self.stopped.wait(seconds)

    def take(self, connection: socket.socket) -> None:
        self.connections += 1
        super().take(connection)

    def serve(self, connection: socket.socket) -> None:
        with contextlib.ExitStack() as stack:
            stack.enter_context(contextlib.suppress(OSError))
            stack.enter_context(connection)
            if self._tls is not None:
                connection = stack.enter_context(self._tls.wrap_socket(connection, server_side=True))
            while self._answer_one(connection) and self._keep_alive:
                pass

    def _answer_one(self, connection: socket.socket) -> bool:
        head = b""
        while b"\r\n\r\n" not in head:
            piece = connection.recv(4096)
            if not piece:
                return False
            head += piece
        self.requests.append(head)
        for piece in self._answer(head):
            connection.sendall(piece)
        self.answered += 1
        return True


def http(body: bytes, status: str = "200 OK", headers: str = "", *, keep_alive: bool = False) -> bytes:
    """A whole HTTP/1.1 response, which closes its connection unless told otherwise."""
    connection = "" if keep_alive else "Connection: close\r\n"
    return f"HTTP/1.1 {status}\r\nContent-Length: {len(body)}\r\n{connection}{headers}\r\n".encode() + body
