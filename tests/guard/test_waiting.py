"""The watch's loop never waits for a guard whose write the kernel keeps back while it reclaims memory."""

from __future__ import annotations

import threading
from pathlib import Path

import pytest

from sidecar.core.guard import GuardPolicy
from sidecar.core.model import Reading
from sidecar.guard.cgroup_view import CgroupId
from sidecar.guard.guarded import Guarded, Plan, Subject
from sidecar.guard.journal import Journal

DEADLINE_S = 60.0


class Stuck(Guarded):
    """A guard whose `keep` takes until it is ``freed``; `hold` is counted."""

    mode = "raise"

    def __init__(self, directory: Path) -> None:
        here = CgroupId.of(directory)
        subject = Subject(id=here, view=here, version=1, path="app", name="app", page_bytes=4096)
        super().__init__(subject, GuardPolicy(mode="raise"), Journal(directory))
        self.entered, self.freed = threading.Event(), threading.Event()
        self.holds = 0

    def record(self) -> dict[str, object]:
        """Why nothing was done, if so."""
        return {"why_not": self._why_not}

    def _is_busy(self) -> bool:
        return True

    def _plan(self, reading: Reading, now_s: float) -> list[Plan]:
        del reading, now_s
        return []

    def _hold(self, now_s: float) -> None:
        del now_s
        self.holds += 1

    def _keep(self, now_s: float) -> None:
        del now_s
        self.entered.set()
        assert self.freed.wait(DEADLINE_S)

    def _release(self, now_s: float) -> None:
        del now_s

    def _restore(self) -> bool:
        return True

    def _close_files(self) -> None:
        pass


@pytest.fixture
def stuck(tmp_path: Path) -> Stuck:
    """A guard that will be in the middle of a slow write."""
    return Stuck(tmp_path)


def test_the_loop_does_not_wait_for_a_slow_write(stuck: Stuck) -> None:
    """It can ask whether anything is held, and give up holding, while the write goes on; afterwards it may hold."""
    keeping = threading.Thread(target=stuck.keep, args=(1.0,))
    keeping.start()
    try:
        assert stuck.entered.wait(DEADLINE_S)
        asked: list[bool] = []
        asking = threading.Thread(target=lambda: asked.append(stuck.is_held), daemon=True)
        holding = threading.Thread(target=stuck.hold, args=(1.1,), daemon=True)
        for thread in (asking, holding):
            thread.start()
            thread.join(DEADLINE_S / 3)
            assert not thread.is_alive()
        assert keeping.is_alive()
        assert asked == [True]
        assert stuck.holds == 0
        assert "under way" in str(stuck.record()["why_not"])
    finally:
        stuck.freed.set()
        keeping.join()
    stuck.hold(1.2)
    assert stuck.holds == 1
