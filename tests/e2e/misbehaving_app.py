"""An app that grows to a given size and answers pprof requests in a way of the test's choosing.

usage: misbehaving_app.py PORT MIB BEHAVIOUR [REQUEST_LOG]

It grows when it was asked who it is, so that the sidecar has found it by then. Run by a bare Python in a container.
"""

from __future__ import annotations

import gzip
import os
import socket
import sys
import threading
import time
import zlib

PPROF_404 = b"HTTP/1.1 404 Not Found\r\nX-Go-Pprof: 1\r\nContent-Length: 0\r\n\r\n"
OK = b"HTTP/1.1 200 OK\r\nConnection: close\r\n"
HOLD: list[bytearray] = []
DELAY_S = 1.5


def grow(mib: int) -> None:
    """Hold that much memory, each page of it touched, without ever holding it twice."""
    HOLD.append(bytearray(mib << 20))
    for page in range(0, mib << 20, 4096):
        HOLD[0][page] = 1


def answer(connection: socket.socket, behaviour: str, head: bytes) -> None:  # noqa: C901 -- a list of behaviours
    """Answer the request for a heap profile."""
    if behaviour == "slow-extras" and b"gc=1" not in head:
        connection.sendall(OK + b"\r\n" + gzip.compress(b"\x0a\x04\x08\x01\x10\x02\x12\x02\x08\x01"))
    elif behaviour == "html":
        connection.sendall(OK + b"Content-Length: 22\r\n\r\n<!doctype html><p>Hi</p>"[:24])
    elif behaviour == "garbage":
        connection.sendall(OK + b"\r\n" + os.urandom(5000))
    elif behaviour == "endless":
        connection.sendall(OK + b"\r\n\x1f\x8b\x08\x00\x00\x00\x00\x00\x00\x03")
        while True:
            connection.sendall(b"\0" * 65536)
    elif behaviour == "bomb":
        pack = zlib.compressobj(wbits=31)
        connection.sendall(OK + b"\r\n" + pack.compress(b"\x12\x80\x80\x80\x80\x04"))
        for _ in range(1 << 10):
            connection.sendall(pack.compress(bytes(1 << 20)))
    elif behaviour == "redirect":
        connection.sendall(b"HTTP/1.1 302 Found\r\nLocation: http://192.0.2.1/heap\r\nContent-Length: 0\r\n\r\n")
    elif behaviour == "missing":
        connection.sendall(b"HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n")
    elif behaviour == "die":
        connection.sendall(OK + b"Content-Length: 100000\r\n\r\n\x1f\x8b")
        os._exit(7)
    else:
        time.sleep(600)


def serve(connection: socket.socket, behaviour: str, mib: int, log: str | None) -> None:
    """One connection, any number of requests."""
    with connection:
        while True:
            head = b""
            while b"\r\n\r\n" not in head:
                piece = connection.recv(4096)
                if not piece:
                    return
                head += piece
            if log:
                with open(log, "ab") as file:  # noqa: PTH123 -- a script that starts fast
                    file.write(head.split(b"\r\n")[0] + b"\n")
            if behaviour == "silent":
                time.sleep(600)
            if b"/cmdline" in head:
                connection.sendall(PPROF_404)
                if not HOLD:
                    threading.Timer(DELAY_S, lambda: grow(mib)).start()
            else:
                answer(connection, behaviour, head)
                return


def main() -> None:
    """Listen and serve until killed."""
    port, mib, behaviour, *log = sys.argv[1:]
    server = socket.create_server(("127.0.0.1", int(port)))
    while True:
        connection, _ = server.accept()
        arguments = (connection, behaviour, int(mib), log[0] if log else None)
        threading.Thread(target=serve, args=arguments, daemon=True).start()


if __name__ == "__main__":
    main()
