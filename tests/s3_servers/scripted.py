"""An S3 endpoint that misbehaves on request: it answers as a script says, and keeps what it is given."""

from __future__ import annotations

import socket
import struct
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import unquote, urlsplit

from tests.s3_servers import S3Endpoint


@dataclass(frozen=True, slots=True, kw_only=True)
class Received:
    """A request as it came; ``key`` is the object's, without the bucket. ``number`` counts from 1."""

    number: int
    method: str
    key: str
    query: str
    headers: Mapping[str, str]
    body: bytes


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """What to answer. With ``cut_after`` the connection ends after so many bytes of the body; 0 resets it at once."""

    status: int = 200
    body: bytes = b""
    headers: Mapping[str, str] = field(default_factory=dict)
    cut_after: int | None = None


Script = Callable[[Received], Answer]


def error(status: int, code: str, message: str = "scripted", **headers: str) -> Answer:
    """An error as S3 tells it."""
    text = f"<?xml version='1.0'?><Error><Code>{code}</Code><Message>{message}</Message></Error>"
    names = {name.replace("_", "-"): value for name, value in headers.items()}
    return Answer(status=status, body=text.encode(), headers={"Content-Type": "application/xml", **names})


def reset() -> Answer:
    """No answer at all: the connection is reset."""
    return Answer(cut_after=0)


def in_turn(*answers: Answer) -> Script:
    """A script that gives these answers one after the other, the last one for ever."""
    return lambda request: answers[min(request.number, len(answers)) - 1]


@dataclass(frozen=True, slots=True, kw_only=True)
class ScriptedServer:
    """A running endpoint, with every request it got and every object it confirmed."""

    endpoint: S3Endpoint
    requests: list[Received]
    objects: dict[str, bytes]


@contextmanager
def scripted_server(script: Script) -> Iterator[ScriptedServer]:
    """Answer each request on a free loopback port as ``script`` says."""
    requests: list[Received] = []
    objects: dict[str, bytes] = {}
    lock = threading.Lock()

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def handle_any(self) -> None:
            body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
            address = urlsplit(self.path)
            with lock:
                request = Received(
                    number=len(requests) + 1,
                    method=self.command,
                    key=unquote(address.path).lstrip("/").partition("/")[2],
                    query=address.query,
                    headers={name.lower(): value for name, value in self.headers.items()},
                    body=body,
                )
                requests.append(request)
            answer = script(request)
            if answer.cut_after == 0:
                self._reset()
                return
            if request.method == "PUT" and answer.status == 200:
                objects[request.key] = body
            self.send_response(answer.status)
            for name, value in {"Content-Length": str(len(answer.body)), **answer.headers}.items():
                self.send_header(name, value)
            self.end_headers()
            if self.command != "HEAD":
                self.wfile.write(answer.body[: answer.cut_after])
            self.close_connection = answer.cut_after is not None

        do_PUT = do_GET = do_HEAD = do_DELETE = handle_any  # noqa: N815 -- the names that http.server looks for

        def _reset(self) -> None:
            self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            self.close_connection = True
            self.connection.close()

        def log_message(self, *_: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
    thread.start()
    try:
        endpoint = S3Endpoint(
            url=f"http://127.0.0.1:{server.server_port}", access_key="any", secret_key="any", bucket="dumps"
        )
        yield ScriptedServer(endpoint=endpoint, requests=requests, objects=objects)
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
