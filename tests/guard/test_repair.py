"""Whatever happens to the sidecar, the next start undoes what it left, and only that."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from localpod import cgroups
from sidecar.core.guard import GuardPolicy
from sidecar.guard import Guard
from tests.guard.conftest import LIMIT_MIB, VIEW, Box
from tests.guard.eater import MIB, eater

ROOT = Path(__file__).resolve().parents[2]
LIMIT = LIMIT_MIB * MIB

_SIDECAR = """
import sys, time
from pathlib import Path
from sidecar.core.guard import GuardPolicy
from sidecar.guard import Guard
from sidecar.kernel.cgroup import MemoryCgroup
mode, cgroup, version, journal, act = sys.argv[1:]
memory = MemoryCgroup(Path(cgroup), int(version))
guarded = Guard(GuardPolicy(mode=mode), Path("/sys/fs/cgroup"), Path(journal)).adopt(memory)
if act == "act":
    guarded.arm(memory.read(), 1.0)
    guarded.hold(2.0)
print("held", flush=True)
time.sleep(600)
"""


def killed_sidecar(box: Box, mode: str, *, acts: bool = True) -> None:
    """A process of its own adopts the container and holds; then SIGKILL takes it."""
    arguments = [mode, str(box.app.memory), str(box.version), str(box.journal), "act" if acts else "wait"]
    with subprocess.Popen([sys.executable, "-c", _SIDECAR, *arguments], cwd=ROOT, stdout=subprocess.PIPE) as process:
        try:
            assert process.stdout is not None
            assert process.stdout.readline() == b"held\n"
        finally:
            process.kill()
    assert process.returncode == -signal.SIGKILL


def all_limits(box: Box) -> list[str]:
    """What the files that the guard may write say."""
    names = ("limit", "swap limit") if box.version == 1 else ("limit", "high")
    return [box.file(name).read_text() for name in names if box.file(name).exists()]


def test_a_raised_limit_is_restored_at_the_next_start(box: Box) -> None:
    """SIGKILL leaves it raised; repair() restores every file, says that it did, and has nothing to do afterwards."""
    before = all_limits(box)
    killed_sidecar(box, "raise")
    assert box.limit_bytes() > LIMIT
    assert box.guard().repair() == 1
    assert all_limits(box) == before
    assert box.entries() == []
    assert box.guard().repair() == 0


def test_a_brake_is_taken_off_at_the_next_start(v2_box: Box) -> None:
    """SIGKILL leaves memory.high; repair() writes "max", whatever the mode is by now."""
    killed_sidecar(v2_box, "brake")
    assert v2_box.file("high").read_text() != "max\n"
    assert v2_box.guard("off").repair() == 1
    assert v2_box.file("high").read_text() == "max\n"
    assert v2_box.entries() == []


def test_a_brake_of_an_earlier_run_is_no_obstacle_to_a_raise(v2_box: Box) -> None:
    """The mode was changed and nobody repaired: adopting does it."""
    killed_sidecar(v2_box, "brake")
    v2_box.adopt("raise").hold(1.0)
    assert v2_box.file("high").read_text() == "max\n"
    assert v2_box.limit_bytes() > LIMIT


def test_nothing_was_done_nothing_is_undone(box: Box) -> None:
    """Killed before it raised anything, there is only an entry to drop."""
    before = all_limits(box)
    killed_sidecar(box, "raise", acts=False)
    assert len(box.entries()) == 1
    assert box.guard().repair() == 0
    assert all_limits(box) == before
    assert box.entries() == []


def test_what_somebody_else_set_meanwhile_stays(box: Box) -> None:
    """Resized between the kill and the next start, within the range of the raise, it isn't taken for ours."""
    killed_sidecar(box, "raise")
    box.file("limit").write_text(str(LIMIT + 32 * MIB))
    if box.version == 1:
        box.file("swap limit").write_text(str(LIMIT + 32 * MIB))
    assert box.guard().repair() == 0
    assert box.limit_bytes() == LIMIT + 32 * MIB
    assert box.entries() == []


def test_a_cgroup_that_vanished_is_forgotten(box: Box) -> None:
    """The container ended with the sidecar: nothing is undone, the entry goes; one of the same path isn't touched."""
    killed_sidecar(box, "raise")
    cgroups.remove(box.app)
    again = cgroups.add_child(box.pod, "app", memory_limit_bytes=LIMIT)
    assert box.guard().repair() == 0
    assert Box(pod=box.pod, app=again, journal=box.journal).limit_bytes() == LIMIT
    assert box.entries() == []


@pytest.mark.parametrize("view", ["empty", "missing"])
def test_a_view_that_does_not_show_it_forgets_nothing(box: Box, tmp_path: Path, view: str) -> None:
    """Started without the machine's cgroups the entry is kept; started with them the limit is restored."""
    killed_sidecar(box, "raise")
    if view == "empty":
        (tmp_path / view).mkdir()
    assert box.guard(view=tmp_path / view).repair() == 0
    assert len(box.entries()) == 1
    assert box.guard().repair() == 1
    assert box.limit_bytes() == LIMIT


def test_a_limit_below_what_is_in_use_waits(box: Box) -> None:
    """At the next start the program uses more than its limit: it is lowered to that, then to the original."""
    with eater(box.app) as program:
        killed_sidecar(box, "raise")
        assert program.take(LIMIT_MIB + 10)
        assert box.guard().repair() == 0
        assert LIMIT < box.limit_bytes() < LIMIT + 30 * MIB
        guarded = box.adopt()
        assert guarded.is_held
        guarded.keep(1.0)
        assert program.process.poll() is None
        assert guarded.nominal_limit_bytes(box.limit_bytes()) == LIMIT
        program.give(40)
        guarded.keep(2.0)
        assert box.limit_bytes() == LIMIT
        guarded.hold(3.0)
        assert box.limit_bytes() == LIMIT, "not before the journal knows"
        guarded.arm(box.memory().read(), 4.0)
        guarded.hold(5.0)
        assert box.limit_bytes() > LIMIT


def test_a_stop_while_more_is_in_use_is_made_good_later(box: Box) -> None:
    """close() kills nobody: it leaves the limit just above the usage, and the entry for the next start."""
    with eater(box.app) as program:
        guarded = box.adopt()
        guarded.hold(1.0)
        assert program.take(LIMIT_MIB + 10)
        guarded.close()
        assert LIMIT < box.limit_bytes() < LIMIT + 30 * MIB
        assert program.process.poll() is None
        program.give(40)
        assert box.guard().repair() == 1
        assert box.limit_bytes() == LIMIT


def test_an_earlier_boot_is_over(box: Box) -> None:
    """An entry of another boot is dropped unread: the same numbers mean another cgroup there."""
    killed_sidecar(box, "raise")
    raised = box.limit_bytes()
    (entry,) = box.journal.glob("*.json")
    entry.write_text(json.dumps({**json.loads(entry.read_text()), "boot": "another"}))
    assert box.guard().repair() == 0
    assert box.limit_bytes() == raised
    assert box.entries() == []


def test_a_damaged_entry_is_set_aside_and_the_others_repaired(box: Box) -> None:
    """Cut off, of another format, or pointing elsewhere: kept for people, and no obstacle."""
    killed_sidecar(box, "raise")
    (entry,) = box.journal.glob("*.json")
    sound = json.loads(entry.read_text())
    elsewhere = [{**sound["changes"][0], "file": "../../etc/passwd"}]
    (box.journal / "0-0.json").write_text(entry.read_text()[:-20])
    (box.journal / "0-1.json").write_text(json.dumps({**sound, "format": 99}))
    (box.journal / "0-2.json").write_text(json.dumps({**sound, "changes": elsewhere}))
    (box.journal / "0-3.part").write_text("half")
    assert box.guard().repair() == 1
    assert box.limit_bytes() == LIMIT
    assert sorted(path.name for path in box.journal.iterdir()) == ["0-0.damaged", "0-1.damaged", "0-2.damaged"]


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
)
ENTRIES = st.fixed_dictionaries(
    {},
    optional={
        **dict.fromkeys(("boot", "path"), st.text(max_size=5)),
        **dict.fromkeys(("id", "view"), st.fixed_dictionaries({"device": JSON, "inode": JSON}) | JSON),
        "format": st.just(1),
        "version": st.just(2),
        "mode": st.just("raise"),
        "changes": st.lists(
            st.fixed_dictionaries({"file": st.just("memory.max") | JSON, "original_bytes": JSON, "spans": JSON})
        ),
    },
)


@given(content=st.binary() | (JSON | ENTRIES).map(lambda value: json.dumps(value).encode()))
def test_no_content_of_the_journal_stops_the_start(tmp_path_factory: pytest.TempPathFactory, content: bytes) -> None:
    """Whatever lies there, repair() comes back with nothing undone."""
    journal = tmp_path_factory.mktemp("journal")
    (journal / "0-0.json").write_bytes(content)
    assert Guard(GuardPolicy(), VIEW, journal).repair() == 0


def test_a_journal_that_was_never_made_is_empty(tmp_path: Path) -> None:
    """The first start finds no directory, and makes none."""
    assert Guard(GuardPolicy(), VIEW, tmp_path / "none").repair() == 0
    assert not (tmp_path / "none").exists()
    assert os.listdir(tmp_path) == []  # noqa: PTH208 - the names alone
