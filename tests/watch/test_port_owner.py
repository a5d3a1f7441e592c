"""A port is asked only while it is the program's: whoever has it afterwards isn't in the dump and gets no token."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import cast

import pytest

from sidecar.core.model import Container, Process
from sidecar.core.output import Output
from sidecar.kernel import residents
from sidecar.settings import PprofSettings
from sidecar.watch.endpoints import Endpoints
from sidecar.watch.heaps import ReadableHeap
from sidecar.watch.port_owner import PortOwner
from sidecar.watch.sources import Source
from tests.watch.test_captures import Ground

PROC = Path("/proc")
TOKEN = "Bearer of-the-program"

# Answers as pprof does where it must, and notes what it was asked with in the file that it is given.
SERVER = """
import http.server, sys
arguments = open("/proc/self/cmdline", "rb").read()
class Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        with open(sys.argv[2], "a") as log:
            log.write(f"{self.path} {self.headers.get('Authorization')}\\n")
        self.send_response(200)
        self.send_header("Content-Length", str(len(arguments)))
        self.end_headers()
        self.wfile.write(arguments)
    def log_message(self, *_):
        pass
server = http.server.ThreadingHTTPServer(("127.0.0.1", int(sys.argv[1])), Handler)
print(server.server_port, flush=True)
server.serve_forever()
"""


def serve(port: int, log: Path) -> tuple[subprocess.Popen[str], int]:
    """A process that listens on the port, or on a free one for 0."""
    arguments = (sys.executable, "-c", SERVER, str(port), str(log))
    process = subprocess.Popen(arguments, stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    return process, int(process.stdout.readline())


def end(process: subprocess.Popen[str]) -> None:
    """Kill it, and wait until its port is free."""
    process.kill()
    process.wait()
    if process.stdout is not None:
        process.stdout.close()


class Heap:
    """The heap of a program that ends right after it was read."""

    program = go_environment = None
    known_buckets = known_bytes = 1

    def __init__(self, process: Process, then: Callable[[], None]) -> None:
        self.process = process
        self._then = then

    def open_executable(self) -> int:
        """As `ReadableHeap.open_executable`."""
        return os.open(os.devnull, os.O_RDONLY)

    def write_snapshot(self, file: Output) -> int:
        """As `ReadableHeap.write_snapshot`."""
        file.write(b"heap")
        self._then()
        return 4


def test_who_has_the_port_after_the_program_is_not_asked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A worker that its supervisor has restarted, or a neighbour that waited for it: neither is in the dead one's dump.

    The manifest says why the profiles are missing.
    """
    before, after = tmp_path / "before", tmp_path / "after"
    program, port = serve(0, before)
    running = [program]
    process = Process(pid=program.pid, created_at_s=1.0, name="api", uid=0, gid=0)
    container = Container(key="/c", name="app", processes=(process,))
    endpoints = Endpoints(PROC, PprofSettings(ports=(port,), headers=(("Authorization", TOKEN),)))

    def replaced() -> None:
        end(program)
        running.append(serve(port, after)[0])

    try:
        endpoints.refresh((container,), time.monotonic())
        (answering,) = endpoints.of(container)
        heap = cast("ReadableHeap", Heap(process, replaced))
        ground = Ground(tmp_path, 1)
        source = Source(process=process, heap=heap, answering=answering)
        monkeypatch.setattr(ground, "sources", lambda _: [source])
        assert ground.capture() == [True]
    finally:
        endpoints.close()
        for one in running:
            end(one)
    assert TOKEN in before.read_text(), "the program itself was asked with it"
    assert not after.exists()
    (manifest,) = ground.manifests()
    assert {profile["source"] for profile in manifest["profiles"]} == {"memory"}
    told = [problem for problem in manifest["problems"] if f"process {process.pid} has ended" in problem]
    assert len(told) == 4, "the plain profile and three extras"


def owner_of(server: socket.socket, *, is_proven: bool) -> PortOwner:
    """Ourselves, who listen."""
    start = residents.look_at(PROC, os.getpid())
    assert start is not None
    return PortOwner(
        proc=PROC,
        pid=os.getpid(),
        start_ticks=start.start_ticks,
        inode=os.fstat(server.fileno()).st_ino,
        descriptor=server.fileno() if is_proven else None,
    )


def test_a_port_is_lost_with_its_socket() -> None:
    """Also while the process lives on, and if another socket has the descriptor; unseen, it can't be told."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        proven, guessed = owner_of(server, is_proven=True), owner_of(server, is_proven=False)
        assert (proven.is_proven, guessed.is_proven) == (True, False)
        assert (proven.why_lost(), guessed.why_lost()) == (None, None)
    with socket.create_server(("127.0.0.1", 0)):
        assert proven.why_lost() == f"process {os.getpid()} has closed the port's socket"
        assert guessed.why_lost() is None


def test_a_process_of_the_same_number_is_another() -> None:
    """It is told by its start; one that was dead when it was first looked at never comes to life."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        ours = owner_of(server, is_proven=True)
        for other in (replace(ours, start_ticks=1), replace(ours, start_ticks=None), replace(ours, pid=4_194_304)):
            assert other.why_lost() == f"process {other.pid} has ended"
