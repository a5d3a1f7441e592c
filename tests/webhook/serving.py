"""A webhook process of its own, and clients that trust nobody but its authority."""

from __future__ import annotations

import contextlib
import http.client
import json
import os
import signal
import socket
import ssl
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from tests.webhook.reviews import Json, response_of

ROOT = Path(__file__).parents[2]
DEADLINE_S = 60.0
JSON = {"Content-Type": "application/json"}


def command(certificate: Path, key: Path, *arguments: str) -> list[str]:
    """The command line of a webhook on a free port of loopback."""
    files = ["--tls-cert", str(certificate), "--tls-key", str(key)]
    return [sys.executable, "-m", "sidecar", "webhook", *files, "--address", "127.0.0.1", "--port", "0", *arguments]


class Webhook:
    """A running process; ``lines`` is its log so far, each line parsed, which holds it to its format."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self.process = process
        self.lines: list[Json] = []
        self._connections: list[http.client.HTTPSConnection] = []
        self._more = threading.Condition()
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()
        self.port: int = self.wait_for("started")["port"]

    def _read(self) -> None:
        assert self.process.stderr is not None
        for line in self.process.stderr:
            with self._more:
                self.lines.append(json.loads(line))
                self._more.notify_all()

    def events(self, name: str, **fields: object) -> list[Json]:
        """The events of a name and with these fields so far."""
        wanted = {"event": name, **fields}
        with self._more:
            return [line for line in self.lines if all(line.get(key) == value for key, value in wanted.items())]

    def wait_for(self, name: str, count: int = 1, **fields: object) -> Json:
        """The count-th event of a name and with these fields."""
        ends_s = time.monotonic() + DEADLINE_S
        while len(found := self.events(name, **fields)) < count:
            with self._more:
                assert time.monotonic() < ends_s, f"no event {name}: {self.lines}"
                assert self.process.poll() is None or self._reader.is_alive(), f"no event {name}: {self.lines}"
                self._more.wait(0.2)
        return found[count - 1]

    def stop(self, number: int = signal.SIGTERM) -> int:
        """Send a signal and wait; the exit code."""
        self.process.send_signal(number)
        code = self.process.wait(DEADLINE_S)
        self._reader.join(DEADLINE_S)
        return code

    def connect(self, authority: Path) -> http.client.HTTPSConnection:
        """A connection that is made with its first request, and closed with the webhook at the latest."""
        trust = ssl.create_default_context(cafile=authority)
        connection = http.client.HTTPSConnection("127.0.0.1", self.port, context=trust, timeout=DEADLINE_S)
        self._connections.append(connection)
        return connection

    def dial(self) -> socket.socket:
        """A bare TCP connection."""
        return socket.create_connection(("127.0.0.1", self.port), timeout=DEADLINE_S)

    def close(self) -> None:
        """Close what was opened, once the process has ended."""
        self._reader.join(DEADLINE_S)
        for connection in self._connections:
            connection.close()


@contextlib.contextmanager
def serving(certificate: Path, key: Path, *arguments: str) -> Iterator[Webhook]:
    """Run a webhook for as long as the block; it is stopped without a drain unless the arguments say otherwise."""
    environment = {"PATH": os.environ["PATH"]}
    with subprocess.Popen(
        command(certificate, key, "--drain", "0s", *arguments),
        cwd=ROOT,
        env=environment,
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        webhook = None
        try:
            webhook = Webhook(process)
            yield webhook
        finally:
            process.kill()
            if webhook is not None:
                webhook.close()


def ask(
    connection: http.client.HTTPConnection, method: str, path: str, body: bytes | None = None, **headers: str
) -> tuple[int, Any, bytes]:
    """Status, headers and body of an answer."""
    connection.request(method, path, body, headers)
    answer = connection.getresponse()
    return answer.status, answer.headers, answer.read()


def post(connection: http.client.HTTPConnection, review: Json) -> Json:
    """Have a review answered, as the API server posts it."""
    connection.request("POST", "/mutate?timeout=3s", json.dumps(review).encode(), JSON)
    answer = connection.getresponse()
    body = answer.read()
    assert answer.status == 200, body
    return response_of(review, body)
