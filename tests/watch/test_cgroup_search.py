"""A cgroup that isn't shown to us costs little, and is found soon when it is."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import psutil
import pytest

from sidecar.core.model import Container, Process
from sidecar.kernel import cgroup
from sidecar.watch import scout
from sidecar.watch.cgroup_search import CgroupSearch
from sidecar.watch.scout import Scout
from tests.kernel.fake_proc import V2, FakeProc, v2_cgroup
from tests.watch.settings import settings_in

MAIN = Process(pid=42, created_at_s=1.0, name="app", uid=0, gid=0)
CONTAINER = Container(key="/c", name="app", processes=(MAIN,))


def asked_at(search: CgroupSearch, container: Container, until_s: int) -> list[int]:
    """The seconds at which it is asked for in vain."""
    asked = []
    for now_s in range(until_s):
        if search.is_due(container, float(now_s)):
            asked.append(now_s)
            search.note_refusal(container, float(now_s))
    return asked


def test_it_is_asked_for_less_and_less_often() -> None:
    """The first seconds, in which a runtime sets a container up, are well covered."""
    assert asked_at(CgroupSearch(), CONTAINER, 250) == [0, 1, 3, 7, 15, 31, 63, 123, 183, 243]


@pytest.mark.parametrize(
    "processes",
    [
        (replace(MAIN, created_at_s=2.0),),
        (replace(MAIN, name="server"),),
        (replace(MAIN, uid=1000),),
        (MAIN, replace(MAIN, pid=43, uid=1000)),
    ],
)
def test_another_refusal_is_expected_of_others(processes: tuple[Process, ...]) -> None:
    """Another main process or program, or another user: it is asked for at once, and soon again."""
    search = CgroupSearch()
    asked_at(search, CONTAINER, 100)
    changed = replace(CONTAINER, processes=processes)
    assert search.is_due(changed, 100.0)
    search.note_refusal(changed, 100.0)
    assert not search.is_due(changed, 100.5)
    assert search.is_due(changed, 101.0)


def test_one_more_process_of_a_user_changes_nothing() -> None:
    """A server that forks for each request isn't asked for each of them."""
    search = CgroupSearch()
    asked_at(search, CONTAINER, 100)
    assert not search.is_due(replace(CONTAINER, processes=(MAIN, replace(MAIN, pid=99, name="worker"))), 100.0)


def test_what_has_gone_is_forgotten() -> None:
    """Only containers that are there are remembered."""
    search = CgroupSearch()
    search.note_refusal(CONTAINER, 0.0)
    search.keep({"/c"})
    assert not search.is_due(CONTAINER, 0.0)
    search.keep({"/d"})
    assert search.is_due(CONTAINER, 0.0)


class Pod:
    """A scout over a fake /proc, with a clock of the test's own; ``asked`` has each look through a process's eyes."""

    def __init__(self, directory: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.proc = FakeProc(directory / "proc")
        self.proc.own()
        (self.proc.root / "self").mkdir()
        (self.proc.root / "self/mountinfo").write_text("")
        self.now_s = 1000.0
        self.asked: list[str] = []
        look = cgroup._open_seen_by

        def count(proc: Path, pid: int, viewer: str, limit_bytes: int | None) -> cgroup.MemoryCgroup:
            self.asked.append(viewer)
            return look(proc, pid, viewer, limit_bytes)

        monkeypatch.setattr(psutil, "PROCFS_PATH", "/proc")  # which the scout's table changes
        monkeypatch.setattr(cgroup, "_open_seen_by", count)
        monkeypatch.setattr(scout, "time", SimpleNamespace(monotonic=lambda: self.now_s))
        self.scout = Scout(self.proc.root, settings_in(directory), wake_loop=lambda: None)

    def look(self, times: int) -> None:
        """One look a second."""
        for _ in range(times):
            self.scout.look()
            self.now_s += 1.0

    def show(self, pid: int) -> None:
        """Let a process show its container's cgroup."""
        mounts = V2.format(root="/../a", point="/cgroup")
        directory = self.proc.process(pid, "0::/../a\n", start_ticks=pid, mountinfo=mounts)
        v2_cgroup(directory / "root/cgroup", current=1)

    @property
    def source(self) -> str:
        """Where the only container's memory is read."""
        (surveyed,) = self.scout.survey
        return surveyed.source.description


def test_a_crowd_without_rights_costs_little(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Not all of its processes each second: few of them, and ever more seldom. What is shown later is found."""
    pod = Pod(tmp_path, monkeypatch)
    for pid in range(100, 150):
        pod.proc.process(pid, "0::/../a\n", start_ticks=pid)
    pod.look(100)
    assert pod.source == "RssAnon of its processes"
    assert len(pod.asked) <= 8 * 2 * 4
    pod.show(100)
    pod.look(60)
    assert pod.source == "cgroup v2"


def test_the_oldest_of_each_user_is_asked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A supervisor and its helpers run as root, the app that we may look at as another user."""
    pod = Pod(tmp_path, monkeypatch)
    for pid in range(100, 110):
        pod.proc.process(pid, "0::/../a\n", start_ticks=pid, uid=0)
    pod.show(120)
    pod.look(1)
    assert pod.source == "cgroup v2"


def test_those_that_have_ended_do_not_count(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A container of many short-lived processes isn't gone with the first few of them."""
    fake = Pod(tmp_path, monkeypatch).proc
    shown = fake.process(120, "0::/../a\n", mountinfo=V2.format(root="/../a", point="/cgroup"))
    v2_cgroup(shown / "root/cgroup", current=7)
    gone = tuple(replace(MAIN, pid=pid) for pid in range(100, 110))
    container = Container(key="/../a", name="app", processes=(*gone, replace(MAIN, pid=120)))
    assert cgroup.open_cgroup(fake.root, container).read().usage_bytes == 7
