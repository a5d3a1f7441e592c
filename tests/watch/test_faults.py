"""A process that none of our parsers is ready for stops nothing for the others."""

from __future__ import annotations

import os
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import cast

import pytest

from sidecar.core.model import Container, GoProgram, Process
from sidecar.errors import NotPermittedError
from sidecar.goheap import HeapReader
from sidecar.kernel import go_executable, held_sockets
from sidecar.settings import PprofSettings
from sidecar.watch import heaps
from sidecar.watch.endpoints import Endpoints
from sidecar.watch.heaps import Heaps
from sidecar.watch.port_probe import PortProbe
from tests.hostile_server import HostileServer, http
from tests.watch.test_heaps import Reader
from tests.watch.test_uploads import logged

PROC = Path("/proc")
FAULTS = (IndexError, UnicodeDecodeError("ascii", b"\xff", 0, 1, "odd"), MemoryError, RecursionError)


def container_of(pid: int) -> Container:
    """A container of one process."""
    process = Process(pid=pid, created_at_s=1.0, name="app", uid=0, gid=0)
    return Container(key=str(pid), name=str(pid), processes=(process,))


@pytest.fixture
def odd() -> Iterator[Container]:
    """A process that causes faults; it comes before the others."""
    with subprocess.Popen(["sleep", "600"]) as process:
        try:
            yield container_of(process.pid)
        finally:
            process.kill()


@pytest.fixture
def sound() -> Container:
    """Ourselves, whose server of the test answers as pprof does."""
    return container_of(os.getpid())


@pytest.mark.parametrize("fault", FAULTS)
@pytest.mark.parametrize("place", ["executable", "sockets", "guess"])
def test_the_ports_of_the_others_are_probed(
    odd: Container, sound: Container, place: str, fault: Exception, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also in the same round, and the odd one is tried again, later and later."""
    tried: list[int] = []
    victim = odd.main.pid

    def read_program(_: Path, pid: int) -> GoProgram | None:
        if pid == victim and place == "executable":
            tried.append(pid)
            raise fault
        return None

    def find(proc: Path, pid: int, inodes: set[int]) -> dict[int, int]:
        if place == "guess":
            raise NotPermittedError("no")
        if pid == victim and place == "sockets":
            tried.append(pid)
            raise fault
        return real_find(proc, pid, inodes)

    def ask(probe: PortProbe, *arguments: object) -> object:
        if probe.command_line().startswith(b"sleep") and place == "guess":
            tried.append(victim)
            raise fault
        return real_ask(probe, *arguments)  # type: ignore[arg-type]  # as they came

    real_find, real_ask = held_sockets.find_descriptors, PortProbe.ask
    monkeypatch.setattr(go_executable, "read_go_program", read_program)
    monkeypatch.setattr(held_sockets, "find_descriptors", find)
    monkeypatch.setattr(PortProbe, "ask", ask)
    arguments = Path("/proc/self/cmdline").read_bytes()
    with HostileServer(lambda _: iter([http(arguments)])) as server, logged() as events:
        endpoints = Endpoints(PROC, PprofSettings(ports=(server.port,)))
        endpoints.refresh((odd, sound), time.monotonic())
        assert endpoints.was_looked_at(sound)
        assert [answer.process for answer in endpoints.of(sound)] == [sound.main]
        endpoints.forget_refusals()
        endpoints.refresh((odd, sound), time.monotonic() + 1000.0)
        endpoints.close()
    assert len(tried) == endpoints.faults == 2
    assert events.count("process-failed") == 1, "not each time"


@pytest.mark.parametrize("fault", FAULTS)
def test_the_heaps_of_the_others_are_prepared(
    odd: Container, sound: Container, fault: Exception, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Why the odd one's can't be read is told; it is left alone for a while and then tried again."""
    tried: list[int] = []

    def prepare(_: Path, pid: int) -> HeapReader:
        tried.append(pid)
        if pid == odd.main.pid:
            raise fault
        reader = Reader()
        reader.known_buckets = 1  # type: ignore[attr-defined]  # all that is asked of it here
        reader.close = lambda: None  # type: ignore[attr-defined]  # as above
        return cast("HeapReader", reader)

    monkeypatch.setattr(heaps, "prepare", prepare)
    watched = Heaps(PROC)
    with logged() as events:
        watched.refresh((odd, sound), time.monotonic())
    assert [heap.process for heap in watched.of(sound)] == [sound.main]
    assert "unforeseen" in str(watched.why_none(odd))
    assert (events, watched.faults) == (["process-failed"], 1)
    watched.refresh((odd,), time.monotonic() - 100.0)
    assert tried.count(odd.main.pid) == 1, "it is left alone"
    watched.refresh((odd,), time.monotonic() + 1000.0)
    assert tried.count(odd.main.pid) == 2
    watched.close()
