"""A limit that is raised: at once, bounded in amount and time, and let down again, on v1 and v2 alike."""

from __future__ import annotations

import os
import threading
import time
from pathlib import Path

import pytest

from localpod import cgroups
from sidecar.core import guard as core
from sidecar.core.model import Reading
from sidecar.guard import Guarded
from tests.guard.conftest import LIMIT_MIB, Box
from tests.guard.eater import MIB, big_files, eater

LIMIT = LIMIT_MIB * MIB
STEP = core.step_bytes(os.sysconf("SC_PAGESIZE"))
RAISED = LIMIT + (64 * MIB) // STEP * STEP
CALM = Reading(usage_bytes=0, inactive_file_bytes=0, limit_bytes=LIMIT, oom_kills=0)
WITHIN_S = 120.0


def open_descriptors() -> int:
    """How many this process has."""
    return len(list(Path("/proc/self/fd").iterdir()))


def keep_until_calm(guarded: Guarded, now_s: float) -> None:
    """Call `keep` as the loop does, until it has nothing more to do."""
    deadline_s = time.monotonic() + WITHIN_S
    while guarded.is_held:
        assert time.monotonic() < deadline_s, guarded.record()
        now_s += 0.1
        guarded.keep(now_s)


def test_the_limit_is_raised_and_restored(box: Box) -> None:
    """A program that takes more than its limit lives while it is held; then the limit is as before."""
    guarded = box.adopt()
    with eater(box.app) as program:
        guarded.hold(1.0)
        assert LIMIT < box.limit_bytes() == RAISED
        assert program.take(LIMIT_MIB + 20)
        program.give(60)
        guarded.release(1.5)
        keep_until_calm(guarded, 1.5)
        assert box.limit_bytes() == LIMIT
        assert not program.take(80)
        assert program.process.wait(WITHIN_S) == -9
    record = guarded.record()
    assert (record["limit_bytes"], record["raised_to_bytes"], record["times"]) == (LIMIT, RAISED, 1)
    assert (record["held_s"], record["restored"], record["why_not"]) == (0.5, True, None)


def test_memory_and_swap_are_raised_together(v1_box: Box) -> None:
    """On v1 the limit with swap can't be below the other: it is raised first, restored last."""
    if not v1_box.file("swap limit").exists():
        pytest.skip("this kernel doesn't account for swap")
    assert v1_box.limit_bytes("swap limit") == LIMIT
    guarded = v1_box.adopt()
    guarded.hold(1.0)
    assert (v1_box.limit_bytes(), v1_box.limit_bytes("swap limit")) == (RAISED, RAISED)
    guarded.release(1.1)
    assert (v1_box.limit_bytes(), v1_box.limit_bytes("swap limit")) == (LIMIT, LIMIT)


def test_it_is_held_no_longer_than_was_asked(box: Box) -> None:
    """Nobody releases: the limit is restored by the bound of time, and not before."""
    guarded = box.adopt(hold_s=2.0)
    guarded.hold(10.0)
    guarded.hold(11.9)
    guarded.keep(11.9)
    assert box.limit_bytes() == RAISED
    guarded.keep(12.0)
    assert box.limit_bytes() == LIMIT
    assert not guarded.is_held
    guarded.hold(13.0)
    guarded.arm(CALM, 15.5)
    assert box.limit_bytes() == LIMIT, "arming minds the bound as well"
    assert guarded.record()["times"] == 2


def test_what_is_in_use_is_not_killed_but_growth_is(box: Box) -> None:
    """Let go while the program uses more than the original limit, it lives but can't grow."""
    guarded = box.adopt()
    with eater(box.app) as program:
        guarded.hold(1.0)
        assert program.take(LIMIT_MIB + 20)
        guarded.release(1.1)
        for tenth in range(20):
            guarded.keep(1.2 + tenth / 10)
        usage = box.app.usage_bytes
        assert usage < box.limit_bytes() <= usage + 3 * STEP
        assert guarded.is_held
        program.give(15)
        guarded.keep(4.0)
        assert LIMIT < box.limit_bytes() <= box.app.usage_bytes + 3 * STEP
        assert program.process.poll() is None
        assert not program.take(15)
        assert program.process.wait(WITHIN_S) == -9
    keep_until_calm(guarded, 5.0)
    assert box.limit_bytes() == LIMIT


def test_page_cache_does_not_keep_the_limit_up(box: Box) -> None:
    """Cache that filled the raise is dropped a little at a time, and the limit comes down to the original."""
    guarded = box.adopt()
    memory = box.memory()
    with eater(box.app) as program:
        guarded.hold(1.0)
        for path in big_files(3 * LIMIT):
            program.read(path)
        if box.app.usage_bytes < LIMIT + 20 * MIB or memory.read().inactive_file_bytes < 50 * MIB:
            pytest.skip("no file here whose page cache can be dropped")
        guarded.release(1.1)
        assert box.limit_bytes() > LIMIT
        keep_until_calm(guarded, 1.1)
        assert box.limit_bytes() == LIMIT
        assert program.process.poll() is None


@pytest.mark.parametrize("when", ["held", "let go"])
def test_somebody_elses_limit_stays(box: Box, when: str) -> None:
    """A limit that was changed while it is raised, or on its way down, stays; the next hold starts there."""
    guarded = box.adopt()
    theirs = LIMIT + 32 * MIB
    with eater(box.app) as program:
        guarded.hold(1.0)
        assert program.take(LIMIT_MIB + 10)
        if when == "let go":
            guarded.release(1.1)
        if box.version == 1:
            box.file("swap limit").write_text(str(LIMIT + 64 * MIB))
        box.file("limit").write_text(str(theirs))
        guarded.release(1.2)
        keep_until_calm(guarded, 1.2)
        assert box.limit_bytes() == theirs
        assert "somebody else" in str(guarded.record()["why_not"])
    guarded.hold(2.0)
    assert box.limit_bytes() == theirs, "not before the journal knows"
    guarded.arm(CALM, 3.0)
    guarded.hold(4.0)
    assert theirs < box.limit_bytes() <= theirs + 64 * MIB
    guarded.close()
    assert box.limit_bytes() == theirs


def test_a_limit_changed_live_is_followed(box: Box) -> None:
    """Resized in calm, the journal and the raise start from the new limit."""
    guarded = box.adopt()
    new = LIMIT - 20 * MIB
    box.file("limit").write_text(str(new))
    guarded.arm(CALM, 1.0)
    assert box.entries()[0]["changes"][0]["original_bytes"] == new
    guarded.hold(2.0)
    assert new < box.limit_bytes() <= new + 64 * MIB
    guarded.release(2.1)
    assert box.limit_bytes() == new


def test_a_parent_bounds_the_raise(box: Box) -> None:
    """The pod's limit leaves 30 MiB beyond the container's: the raise stays below that, and the pod is never full."""
    box.file("limit", of=box.pod).write_text(str(LIMIT + 30 * MIB))
    guarded = box.adopt()
    guarded.hold(1.0)
    assert LIMIT + 20 * MIB <= box.limit_bytes() < LIMIT + 30 * MIB


def test_a_parent_that_leaves_too_little_forbids_the_raise(box: Box) -> None:
    """With a neighbour using the pod's room nothing is raised, and the record says why."""
    box.file("limit", of=box.pod).write_text(str(LIMIT + 30 * MIB))
    neighbour = cgroups.add_child(box.pod, "neighbour")
    guarded = box.adopt()
    with eater(neighbour) as program:
        assert program.take(25)
        guarded.hold(1.0)
    assert box.limit_bytes() == LIMIT
    assert "parent" in str(guarded.record()["why_not"])


def test_no_limit_can_not_be_raised(box: Box) -> None:
    """A container without a limit of its own is left alone, and the record says so."""
    without = cgroups.add_child(box.pod, "without")
    free = Box(pod=box.pod, app=without, journal=box.journal)
    guarded = free.adopt()
    before = free.file("limit").read_text()
    guarded.arm(CALM, 0.5)
    guarded.hold(1.0)
    assert free.file("limit").read_text() == before
    assert "no limit" in str(guarded.record()["why_not"])
    guarded.close()
    free.memories[0].close()


def test_a_raised_limit_reads_as_the_original(box: Box) -> None:
    """What was read while it was raised stands for the limit of before; any other number for itself."""
    guarded = box.adopt()
    assert guarded.nominal_limit_bytes(LIMIT) == LIMIT
    guarded.hold(1.0)
    assert guarded.nominal_limit_bytes(box.memory().read().limit_bytes) == LIMIT
    assert guarded.nominal_limit_bytes(LIMIT + 32 * MIB) == LIMIT + 32 * MIB
    assert guarded.nominal_limit_bytes(None) is None


def test_a_vanished_container_is_no_error(box: Box) -> None:
    """Whatever is called after its cgroup is gone does nothing, and closing leaves no entry."""
    guarded = box.adopt()
    guarded.hold(1.0)
    cgroups.remove(box.app)
    guarded.keep(1.1)
    guarded.arm(CALM, 1.2)
    guarded.hold(1.3)
    guarded.release(1.4)
    assert not guarded.is_held
    guarded.close()
    guarded.close()
    assert box.entries() == []


def test_closing_restores_and_gives_back_what_was_opened(box: Box) -> None:
    """After close() the limit is the original, no entry and no descriptor is left, nothing is done."""
    memory = box.memory()
    guard = box.guard()
    before = open_descriptors()
    guarded = guard.adopt(memory)
    guarded.hold(1.0)
    guard.close()
    assert box.limit_bytes() == LIMIT
    assert box.entries() == []
    assert open_descriptors() == before
    guarded.hold(2.0)
    assert box.limit_bytes() == LIMIT


def test_a_second_guard_of_the_same_container_takes_over(box: Box) -> None:
    """The first lets go and does nothing any more, also when it is closed later."""
    guard = box.guard()
    first = guard.adopt(box.memory())
    first.hold(1.0)
    second = guard.adopt(box.memory())
    assert box.limit_bytes() == LIMIT
    first.hold(2.0)
    assert box.limit_bytes() == LIMIT
    second.hold(2.0)
    first.close()
    assert box.limit_bytes() == RAISED
    assert len(box.entries()) == 1


def test_any_thread_may_call_anything(box: Box) -> None:
    """Threads that hold, keep, arm and release at once leave the original limit, and never one above the bound."""
    guarded = box.adopt(hold_s=0.01)
    stop = threading.Event()
    highest: list[int] = []
    failures: list[BaseException] = []

    def hammer(which: int) -> None:
        try:
            while not stop.is_set():
                now_s = time.monotonic()
                (guarded.hold, guarded.keep, guarded.release, lambda at: guarded.arm(CALM, at))[which](now_s)
        except BaseException as error:  # noqa: BLE001 - reported below, whatever it is
            failures.append(error)

    threads = [threading.Thread(target=hammer, args=(which,)) for which in range(4)]
    for thread in threads:
        thread.start()
    while len(highest) < 300:
        highest.append(box.limit_bytes())
    stop.set()
    for thread in threads:
        thread.join()
    assert failures == []
    assert max(highest) <= RAISED
    guarded.close()
    assert box.limit_bytes() == LIMIT


def test_without_a_journal_nothing_is_raised(box: Box) -> None:
    """A new original that can't be written down isn't raised from; once it can, it is."""
    guarded = box.adopt()
    box.file("limit").write_text(str(LIMIT - 10 * MIB))
    aside = box.journal.rename(box.journal.with_name("aside"))
    box.journal.write_text("in the way")
    guarded.arm(CALM, 1.0)
    guarded.hold(2.0)
    assert box.limit_bytes() == LIMIT - 10 * MIB
    box.journal.unlink()
    aside.rename(box.journal)
    guarded.arm(CALM, 3.0)
    guarded.hold(4.0)
    assert box.limit_bytes() > LIMIT - 10 * MIB
