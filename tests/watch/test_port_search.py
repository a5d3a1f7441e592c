"""At a port that several processes share nobody is asked, as any of them may answer."""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from sidecar.core.model import Container, Process
from sidecar.kernel.sockets import ListeningSocket
from sidecar.settings import PprofSettings
from sidecar.watch.endpoints import Endpoints
from sidecar.watch.port_search import find_shared

PROC = Path("/proc")
ANY = "0.0.0.0"

# Answers its arguments, as pprof does, at the port of its first argument. What else it does is said by lines on its
# standard input, each of which it answers with one.
SERVER = """
import http.server, os, socket, subprocess, sys, threading
arguments = open("/proc/self/cmdline", "rb").read()
class Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        self.send_response(200)
        self.send_header("Content-Length", str(len(arguments)))
        self.end_headers()
        self.wfile.write(arguments)
    def log_message(self, *_):
        pass
class Server(http.server.ThreadingHTTPServer):
    allow_reuse_port = True
server = Server(("127.0.0.1", int(sys.argv[1])), Handler)
threading.Thread(target=server.serve_forever, daemon=True).start()
print(server.server_port, flush=True)
for line in sys.stdin:
    if line == "again\\n":
        Server(("127.0.0.1", server.server_port), Handler)
    elif line == "lend\\n":
        child = subprocess.Popen(["sleep", "600"], pass_fds=[server.fileno()])
    elif line == "take back\\n":
        child.kill()
        child.wait()
    elif line == "duplicate\\n":
        duplicate = os.dup(server.fileno())
    elif line == "close\\n":
        os.close(duplicate)
    print(child.pid if line == "lend\\n" else "", flush=True)
"""


class Server:
    """A process that listens."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self.process = process
        self.port = int(self.tell(""))
        self.container = container_of(process.pid)

    def tell(self, line: str) -> str:
        """Have it do something; its answer."""
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        if line:
            self.process.stdin.write(f"{line}\n")
            self.process.stdin.flush()
        return self.process.stdout.readline().strip()


def container_of(pid: int) -> Container:
    """A container of one process."""
    return Container(
        key=str(pid), name=str(pid), processes=(Process(pid=pid, created_at_s=1.0, name="app", uid=0, gid=0),)
    )


@contextmanager
def serve(port: int = 0) -> Iterator[Server]:
    """A server at the port, or at a free one."""
    with subprocess.Popen(
        [sys.executable, "-c", SERVER, str(port)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as process:
        try:
            yield Server(process)
        finally:
            process.kill()


class Search:
    """Looks as the scout does, each time as much later as makes everything due."""

    def __init__(self, port: int) -> None:
        self.endpoints = Endpoints(PROC, PprofSettings(ports=(port,)))
        self._now_s = time.monotonic()

    def look(self, *containers: Container) -> list[bool]:
        """Whether each of them answers after one more look."""
        self._now_s += 1000.0
        self.endpoints.refresh(containers, self._now_s)
        return [bool(self.endpoints.of(container)) for container in containers]


def test_a_port_that_two_processes_listen_on_is_nobody_s() -> None:
    """Also where one was found before the other came; when one has gone, the rest is asked again."""
    with serve() as one:
        search = Search(one.port)
        assert search.look(one.container) == [True]
        with serve(one.port) as other:
            assert search.look(one.container, other.container) == [False, False]
            for each in (one, other):
                assert f"port {one.port} " in search.endpoints.why_none(each.container)
                assert "isn't known" in search.endpoints.why_none(each.container)
        assert search.look(one.container) == [True]
        search.endpoints.close()


def test_a_socket_that_two_processes_have_is_nobody_s() -> None:
    """Whoever accepts first answers. It may be lent for a while, as in a restart without a gap."""
    with serve() as server:
        search = Search(server.port)
        assert search.look(server.container) == [True]
        child = container_of(int(server.tell("lend")))
        assert search.look(server.container, child) == [False, False]
        assert "is another process's too" in search.endpoints.why_none(child)
        server.tell("take back")
        assert search.look(server.container) == [True]
        search.endpoints.close()


def test_a_process_may_listen_twice() -> None:
    """All that listens there is its own, so it is it that answers."""
    with serve() as server:
        server.tell("again")
        search = Search(server.port)
        assert search.look(server.container) == [True]
        search.endpoints.close()


def test_a_socket_that_lost_a_descriptor_is_found_again() -> None:
    """The process still has it by another one, listens and answers."""
    with serve() as server:
        server.tell("duplicate")
        search = Search(server.port)
        assert search.look(server.container) == [True]
        server.tell("close")
        assert search.look(server.container) == [True]
        (answering,) = search.endpoints.of(server.container)
        assert answering.client.why_lost() is None
        search.endpoints.close()


def listening(*addresses: str) -> tuple[ListeningSocket, ...]:
    """Sockets of one port at these addresses; their inodes count from 1."""
    return tuple(ListeningSocket(address=each, port=80, inode=inode) for inode, each in enumerate(addresses, 1))


@pytest.mark.parametrize(
    ("addresses", "held", "shared"),
    [
        (["127.0.0.1"], [{1}], set()),
        (["127.0.0.1"], [{1}, {1}], {1}),
        (["127.0.0.1", "127.0.0.1"], [{1, 2}], set()),
        (["127.0.0.1", "127.0.0.1"], [{1}, {2}], {1, 2}),
        (["127.0.0.1", "127.0.0.1"], [{1}, set()], {1, 2}),
        (["127.0.0.1", "10.0.0.5"], [{1}, {2}], set()),
        ([ANY, "127.0.0.1", "10.0.0.5"], [{1}, {2}, {3}], {1, 2}),
        ([ANY, "::"], [{1, 2}], set()),
        ([ANY, "::"], [{1}, {2}], {1, 2}),
        (["::1", "127.0.0.1"], [{1}, {2}], set()),
        # Whose they are isn't visible: there the arguments in the answers tell.
        ([ANY, "::"], [set(), set()], set()),
    ],
)
def test_what_is_shared(addresses: list[str], held: list[set[int]], shared: set[int]) -> None:
    """One socket of several processes, or several sockets that one connection may lead to, unless all are one's own."""
    holders = {container_of(pid).main: inodes for pid, inodes in enumerate(held, 1)}
    assert find_shared(listening(*addresses), holders) == shared
