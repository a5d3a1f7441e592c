"""Half an hour of a bad cluster in minutes: what is left of the sidecar, of the incidents and of the dumps."""

from __future__ import annotations

import json
import os
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

import psutil
import pytest

from localpod.pod import LocalPod
from localpod.toolchain import Toolchain
from tests.e2e.churn import MIB, Churn, FlakyStore, Life, Log, now_and_then
from tests.e2e.disk import fill, small_disk
from tests.e2e.sidecar_run import SidecarRun, wait_until
from tests.s3_servers.scripted import scripted_server

PROGRAM = Path(__file__).with_name("restless")
SLOTS = 8
# Lives before and after the first footprint, at least and at most, by the version of cgroups: a kernel with version 2
# may be one process, whose system calls are slow. Time bounds only what comes beyond the least.
WARM_UP_LIVES = {1: range(30, 60), 2: range(20, 60)}
LIVES = {1: range(90, 260), 2: range(50, 260)}
WARM_UP_WITHIN_S, WITHIN_S = 30.0, 80.0
SETTLED_WITHIN_S = 180.0
DISK_BYTES, SPOOL_SIZE = 8 * MIB, "6Mi"
SIDECAR_LIMIT_BYTES = 128 * MIB  # as in the README and in k8s/
DISK_FULL_EVERY_S, DISK_FULL_S = 25.0, 1.5
FAILING = 0.04
OUTAGE_EVERY_S, OUTAGE_S = 40.0, 12.0
GROWTH = 0.15


@pytest.fixture
def spool(tmp_path: Path) -> Iterator[Path]:
    """The spool as a file system of its own, of eight mebibytes."""
    with small_disk(tmp_path / "spool", DISK_BYTES) as directory:
        yield directory


@dataclass(frozen=True, slots=True, kw_only=True)
class Footprint:
    """What the resident process holds when nothing is going on."""

    descriptors: int
    threads: int
    children: int
    rss_bytes: int


def footprint(process: psutil.Process) -> Footprint:
    """As of now."""
    return Footprint(
        descriptors=process.num_fds(),
        threads=process.num_threads(),
        children=len(process.children()),
        rss_bytes=process.memory_info().rss,
    )


def settled(process: psutil.Process, run: SidecarRun) -> Footprint:
    """The footprint once all containers are forgotten, everything is uploaded and nothing changes any more."""

    def is_idle() -> bool:
        queued = any(names for _, _, names in os.walk(run.folder / "spool/queue"))  # folders vanish meanwhile
        return not queued and run.status().get("containers") == 0

    wait_until("the spool is empty and nobody is watched", is_idle, SETTLED_WITHIN_S)
    seen = [footprint(process)]

    def is_steady() -> bool:
        time.sleep(0.2)
        seen.append(footprint(process))
        return len(seen) > 5 and len(set(seen[-5:])) == 1

    wait_until("its footprint is steady", is_steady, SETTLED_WITHIN_S)
    return seen[-1]


def fill_disk(directory: Path, ends: threading.Event) -> None:
    """Leave no page of the disk for a moment."""
    filler = directory / "filler"
    fill(filler)
    ends.wait(DISK_FULL_S)
    filler.unlink()


@dataclass(frozen=True, slots=True, kw_only=True)
class Remains:
    """What the store and the log have in the end."""

    keys: frozenset[str]
    dropped: frozenset[str]
    announced: tuple[str, ...]

    def outcomes_of(self, life: Life) -> set[str]:
        """How that life is said to have ended."""
        names = {key.rpartition("/")[2] for key in self.keys if life.mark in key}
        return {name for name in names if name.startswith("outcome-")}

    def is_missed(self, life: Life) -> bool:
        """An OOM kill of which nothing tells: no outcome, and no word of a dump that had to make room."""
        told = self.outcomes_of(life) - {"outcome-exited.json"}
        return bool(life.oom_kills) and not told and not any(life.mark in dump for dump in self.dropped)

    def is_slandered(self, life: Life) -> bool:
        """Said to be OOM-killed, and wasn't."""
        return not life.oom_kills and "outcome-oom-killed.json" in self.outcomes_of(life)

    @property
    def lost(self) -> list[str]:
        """Dumps that were announced, but aren't in the store, and of which nobody said that they were dropped."""
        stored = {key.rpartition("/")[0] for key in self.keys}
        return [key for key in self.announced if key not in stored and key.rpartition("/")[2] not in self.dropped]


@pytest.mark.timeout(1000)
def test_half_an_hour_of_churn(
    spool: Path,
    pod: LocalPod,
    sidecar: Callable[..., SidecarRun],
    go: Toolchain,
    record_property: Callable[[str, object], None],
) -> None:
    """Containers, processes and ports come and go, the store and the disk fail: nothing leaks, nothing is lost.

    Every OOM kill has its outcome, and every dump that was announced is in the store, or its drop was announced too.
    Nobody is said to be OOM-killed who wasn't. The sidecar keeps within the memory that its manifests give it.
    """
    program = go.build(PROGRAM)
    store = FlakyStore(1, failing=FAILING, outage_every_s=OUTAGE_EVERY_S, outage_s=OUTAGE_S)
    began_s = time.monotonic()
    with scripted_server(store) as server:
        run = sidecar(
            BUCKET=server.endpoint.bucket,
            SPOOL_SIZE=SPOOL_SIZE,
            MAX_DUMPS_PER_HOUR="100000",
            LOG_LEVEL="info",
            **server.endpoint.environment,
        )
        run.memory_limit_bytes = SIDECAR_LIMIT_BYTES
        run.start()
        process, log = psutil.Process(run.container.pid), Log(run.log_path)
        churn = Churn(pod=pod, program=program, log=log, slots=SLOTS)

        def live(lives: range, within_s: float) -> Footprint:
            store.well = False
            with now_and_then(lambda ends: fill_disk(spool, ends), DISK_FULL_EVERY_S):
                churn.live(lives, within_s)
            store.well = True
            return settled(process, run)

        before = live(WARM_UP_LIVES[pod.cgroup.version], WARM_UP_WITHIN_S)
        after = live(LIVES[pod.cgroup.version], WITHIN_S)
        cpu_s, peak_bytes = sum(process.cpu_times()[:4]), run.container.cgroup.peak_bytes
        assert run.stop() == 0
    remains = Remains(
        keys=frozenset(server.objects),
        dropped=frozenset(event["dump_id"] for event in log.events("dump-dropped")),
        announced=tuple(event["key"] for event in log.events("captured", "last-moment")),
    )
    figures = {
        "duration_s": round(time.monotonic() - began_s),
        "lives": Counter(life.ending for life in churn.lives),
        "oom_killed": sum(bool(life.oom_kills) for life in churn.lives),
        "dumps": len(remains.announced),
        "dropped": len(remains.dropped),
        "objects": len(remains.keys),
        "store_failures": store.failures,
        "troubles": Counter(event["event"] for event in log.events("capture-failed", "capture-error", "upload-failed")),
        "before": asdict(before),
        "after": asdict(after),
        "peak_mib": round(peak_bytes / MIB, 1),
        "cpu_s": round(cpu_s, 1),
    }
    record_property("churn", figures)
    print(json.dumps(figures))  # noqa: T201 -- to be read by pytest -rP

    assert figures["oom_killed"]
    assert [life for life in churn.lives if remains.is_missed(life)] == []
    assert [life for life in churn.lives if remains.is_slandered(life)] == []
    assert remains.lost == []
    assert log.events("stopped")[0]["files_left"] == 0
    assert not log.events("capture-crashed", "capture-error", "scout-failed", "uploads-crashed", "keeping-failed")
    assert after.descriptors <= before.descriptors
    assert after.threads <= before.threads
    assert after.children == 0
    assert after.rss_bytes <= before.rss_bytes * (1 + GROWTH)
    for folder in ("scratch", "baseline"):
        assert list((run.folder / "spool" / folder).glob("*")) == []
