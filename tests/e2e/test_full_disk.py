"""A spool on a full disk, for real: it ends in one clear line, and what there is to tell waits for room."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from localpod.pod import LocalPod
from tests.e2e.disk import fill, small_disk
from tests.e2e.leaks import HOVER
from tests.e2e.sidecar_run import DEADLINE_S, SidecarRun, wait_until

MIB = 1 << 20
MakeSidecar = Callable[..., SidecarRun]


@pytest.fixture
def tiny_disk(tmp_path: Path) -> Iterator[Path]:
    """The spool as a file system of its own, of one mebibyte."""
    with small_disk(tmp_path / "spool", MIB) as directory:
        yield directory


def test_a_full_disk(tiny_disk: Path, pod: LocalPod, sidecar: MakeSidecar, leak: Path) -> None:
    """One line says that the disk is full; when there is room again the retry succeeds."""
    run = sidecar()
    filler = tiny_disk / "filler"
    run.start()
    fill(filler)
    pod.start("api", [leak], memory_limit_bytes=64 * MIB, env=HOVER)
    assert "No space left" in run.wait_for("capture-failed")["message"]
    filler.unlink()
    run.wait_for("captured")
    assert run.stop() == 0


def test_a_kill_on_a_full_disk_is_told_when_there_is_room(
    tiny_disk: Path, pod: LocalPod, sidecar: MakeSidecar, leak: Path
) -> None:
    """Nothing can be written from the threshold to the end: the outcome waits for room instead of being lost."""
    run = sidecar()
    filler = tiny_disk / "filler"
    run.start()
    fill(filler)
    app = pod.start("api", [leak], memory_limit_bytes=64 * MIB, env={**HOVER, "LEAK_MAX": "100MiB"})
    assert app.process.wait(DEADLINE_S) == -9
    run.wait_for("container-ended", container="api")
    assert not run.stored("outcome-oom-killed.json")
    filler.unlink()
    wait_until("the outcome is stored", lambda: run.stored("outcome-oom-killed.json"))
    assert run.stop() == 0
    assert run.events("stopped")[0]["files_left"] == 0
