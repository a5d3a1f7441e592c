"""Profiles of calm times: what a dump links is what its manifest says, and they cost nothing that matters."""

from __future__ import annotations

import contextlib
import gzip
import hashlib
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from sidecar.core.keys import DumpId
from sidecar.core.model import Process
from sidecar.core.trigger import TriggerPolicy
from sidecar.pprof import PprofClient
from sidecar.settings import PprofSettings
from sidecar.spool import Spool
from sidecar.watch.baselines import Baselines
from sidecar.watch.candidates import Answering
from sidecar.watch.port_owner import PortOwner
from sidecar.watch.workers import Workers
from tests.core.test_profile_check import PROFILE
from tests.hostile_server import HostileServer, http
from tests.watch.test_uploads import dump_id, logged, wait_until

PROCESS = Process(pid=42, created_at_s=1.0, name="api", uid=0, gid=0)
OTHER = Process(pid=43, created_at_s=1.0, name="api", uid=0, gid=0)
POLICY = TriggerPolicy(critical_ratio=0.8, cooldown_s=60.0, max_per_hour=10)
SETTLED_S = 1000.0


class Bench:
    """Baselines over a real spool, real threads and a program that answers each request differently."""

    def __init__(self, directory: Path, size_bytes: int) -> None:
        self.drops: list[DumpId] = []
        self.spool = Spool(directory, size_bytes, "prod/api-0", on_drop=lambda dropped, _: self.drops.append(dropped))
        self.spool.open()
        self.workers = Workers()
        self.baselines = Baselines(POLICY, self.spool, self.workers)
        self.server = HostileServer(lambda _: iter([http(self._profile())]))
        self.client = PprofClient(host="127.0.0.1", port=self.server.port, settings=PprofSettings(), tls=None)

    def _profile(self) -> bytes:
        return gzip.compress(PROFILE, mtime=len(self.server.requests))

    def keep(self, now_s: float, process: Process = PROCESS) -> None:
        """One look of the loop; returns when what it started has ended."""
        answering = Answering(process=process, client=self.client, program=None, go_environment=None, inode=1)
        self.baselines.keep([answering], 0.1, now_s)
        self.settle()

    def forget(self, *alive: Process) -> None:
        """Let go of the others."""
        self.baselines.forget(set(alive), 0.0)
        self.settle()

    def settle(self) -> None:
        """Wait for the workers."""
        wait_until("the workers are idle", lambda: self.workers.is_idle)

    def files(self) -> list[Path]:
        """Baselines on the disk."""
        return sorted((self.spool.directory / "baseline").glob("*"))


@contextlib.contextmanager
def bench(directory: Path, size_bytes: int = 64 << 20) -> Iterator[Bench]:
    """A bench, taken down at the end."""
    made = Bench(directory, size_bytes)
    with made.server:
        try:
            yield made
        finally:
            made.client.close()
            made.spool.close()


def test_the_first_is_taken_at_once_and_replaced_when_settled(tmp_path: Path) -> None:
    """Only the current one stays on the disk."""
    with bench(tmp_path) as at:
        at.keep(0.0)
        first = at.baselines.of(PROCESS)
        at.keep(10.0)
        assert at.baselines.of(PROCESS) is first, "one will do until the program has settled"
        at.keep(SETTLED_S)
        second = at.baselines.of(PROCESS)
        at.forget(PROCESS)
        assert first is not None
        assert second is not None
        assert first.profile.sha256 != second.profile.sha256
        assert at.files() == [second.path]


def test_a_dump_that_links_while_the_baseline_is_replaced_gets_what_it_names(tmp_path: Path) -> None:
    """The baseline that a dump has read about keeps its bytes until no dump is being taken."""
    with bench(tmp_path) as at:
        at.keep(0.0)
        named = at.baselines.of(PROCESS)
        assert named is not None
        done = threading.Event()
        at.workers.run(lambda: wait_until("the dump is done", done.is_set))  # a dump is being taken
        answering = Answering(process=PROCESS, client=at.client, program=None, go_environment=None, inode=1)
        at.baselines.keep([answering], 0.1, SETTLED_S)
        wait_until("it is replaced", lambda: at.baselines.of(PROCESS) is not named)
        at.baselines.forget(set(), 0.0)
        at.spool.link(dump_id(1), named.profile.name, named.path)
        linked = at.spool.directory / "queue/prod/api-0" / str(dump_id(1)) / named.profile.name
        assert hashlib.sha256(linked.read_bytes()).hexdigest() == named.profile.sha256
        done.set()
        at.settle()
        at.forget()
        assert at.files() == []
        assert linked.exists()


def test_the_loop_never_touches_the_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Files of processes that ended are removed by a worker; the others' stay."""
    with bench(tmp_path) as at:
        at.keep(0.0)
        at.keep(0.0, OTHER)
        removing: list[str] = []
        real = at.spool.drop_baseline

        def drop(name: str) -> None:
            removing.append(threading.current_thread().name)
            real(name)

        monkeypatch.setattr(at.spool, "drop_baseline", drop)
        at.forget(OTHER)
        assert removing == ["worker"]
        kept = at.baselines.of(OTHER)
        assert kept is not None
        assert at.files() == [kept.path]
        assert at.baselines.of(PROCESS) is None


def test_a_full_spool_refuses_baselines_quietly(tmp_path: Path) -> None:
    """No dump goes for one, nobody is alarmed, and the program isn't asked again and again."""
    with bench(tmp_path, size_bytes=1000) as at, logged() as events:
        for number in (1, 2, 3):
            at.spool.put(dump_id(number), "heap-80.pb.gz", b"x" * 320)
        at.keep(0.0)
        at.keep(30.0)
        assert len(at.server.requests) == 1
        assert at.baselines.of(PROCESS) is None
        assert at.spool.pending_files() == 3
        (at.spool.directory / "queue/prod/api-0" / str(dump_id(1)) / "heap-80.pb.gz").unlink()
        at.keep(90.0)
        assert at.baselines.of(PROCESS) is not None
        assert at.drops == []
    assert events == []


def test_none_is_taken_of_who_has_the_port_after_the_program(tmp_path: Path) -> None:
    """It would be put beside the dead program's dumps."""
    with bench(tmp_path) as at:
        at.client.close()
        owner = PortOwner(proc=Path("/proc"), pid=4_194_304, start_ticks=1, inode=1, descriptor=None)
        settings = PprofSettings()
        at.client = PprofClient(host="127.0.0.1", port=at.server.port, settings=settings, tls=None, owner=owner)
        at.keep(0.0)
        assert at.baselines.of(PROCESS) is None
        assert at.server.requests == []
