"""The brake on real v2 cgroups: set in advance, felt by a fast program, let go, and never a trap."""

from __future__ import annotations

import errno
import os
import time
from pathlib import Path

import pytest

from localpod import cgroups
from sidecar.guard import Guarded, GuardUnavailableError
from tests.guard.conftest import LIMIT_MIB, Box
from tests.guard.eater import MIB, big_files, eater

LIMIT = LIMIT_MIB * MIB
WITHIN_S = 120.0


def arm(box: Box, guarded: Guarded, now_s: float) -> int | None:
    """Arm with a real reading; what memory.high says then."""
    memory = box.memory()
    guarded.arm(memory.read(), now_s)
    return high_of(box)


def high_of(box: Box) -> int | None:
    """None for "max"."""
    text = box.file("high").read_text().strip()
    return None if text == "max" else int(text)


def test_the_brake_is_set_below_its_share_of_the_limit(v2_box: Box) -> None:
    """At 90 % of 100 MiB, less a page; the journal knew before, and closing takes both away."""
    guarded = v2_box.adopt("auto")
    assert guarded.mode == "brake"
    assert high_of(v2_box) is None
    level = arm(v2_box, guarded, 1.0)
    assert level is not None
    assert 0.89 * LIMIT < level < 0.9 * LIMIT
    assert v2_box.entries()[0]["changes"][0]["spans"][0]["base_bytes"] == level
    assert guarded.nominal_limit_bytes(LIMIT) == LIMIT
    guarded.close()
    assert high_of(v2_box) is None
    assert v2_box.entries() == []


def test_a_fast_leak_waits_at_the_brake_and_dies_once_let_go(v2_box: Box) -> None:
    """A program that takes memory as fast as it can is alive while it is held, and killed only after the release."""
    guarded = v2_box.adopt("brake", hold_s=1000.0)
    with eater(v2_box.app) as program:
        level = arm(v2_box, guarded, 1.0)
        assert level is not None
        program.begin("take 200")
        deadline_s = time.monotonic() + WITHIN_S
        memory = v2_box.memory()
        while not guarded.is_held:
            assert time.monotonic() < deadline_s
            guarded.arm(memory.read(), 2.0)
        assert v2_box.app.usage_bytes > 0.95 * level
        assert (v2_box.app.oom_kills, program.process.poll()) == (0, None)
        guarded.keep(3.0)
        assert high_of(v2_box) == level
        guarded.release(4.5)
        assert high_of(v2_box) is None
        assert program.process.wait(WITHIN_S) == -9
    record = guarded.record()
    assert (record["held_s"], record["times"], record["restored"]) == (2.5, 1, True)


def test_a_brake_that_bites_is_let_go_in_time_without_being_asked(v2_box: Box) -> None:
    """Nobody calls hold or release: arming alone sees that it bites and ends it by the bound of time."""
    guarded = v2_box.adopt("brake", hold_s=2.0)
    with eater(v2_box.app) as program:
        assert arm(v2_box, guarded, 1.0) is not None
        program.begin("take 91")
        deadline_s = time.monotonic() + WITHIN_S
        while not guarded.is_held:
            assert time.monotonic() < deadline_s
            arm(v2_box, guarded, 2.0)
        assert arm(v2_box, guarded, 3.9) is not None
        assert arm(v2_box, guarded, 4.0) is None


def test_a_brake_that_was_not_reached_stays(v2_box: Box) -> None:
    """Held and released far below the level, as for a threshold of 70 %, it is still there for what follows."""
    guarded = v2_box.adopt("brake")
    level = arm(v2_box, guarded, 1.0)
    guarded.hold(2.0)
    guarded.release(2.1)
    assert high_of(v2_box) == level
    guarded.hold(3.0)
    guarded.keep(5.0)
    assert not guarded.is_held
    assert high_of(v2_box) == level


def test_it_is_not_set_onto_a_program_that_is_there_already(v2_box: Box) -> None:
    """With 89 of 100 MiB in use the brake at 90 stays off, and the record says why."""
    guarded = v2_box.adopt("brake")
    with eater(v2_box.app) as program:
        assert program.take(89 - v2_box.app.usage_bytes // MIB)
        assert arm(v2_box, guarded, 1.0) is None
        assert "near" in str(guarded.record()["why_not"])
        guarded.hold(1.1)
        assert not guarded.is_held
        program.give(40)
        assert arm(v2_box, guarded, 2.0) is not None


def test_it_comes_back_after_a_pause_and_below_a_margin(v2_box: Box) -> None:
    """Let go at the level, it rests 30 s; then it waits until the program is 5 % below."""
    guarded = v2_box.adopt("brake", hold_s=1000.0)
    with eater(v2_box.app) as program:
        level = arm(v2_box, guarded, 1.0)
        assert level is not None
        assert program.take((level - v2_box.app.usage_bytes) // MIB + 1)
        guarded.hold(2.0)
        guarded.release(3.0)
        assert high_of(v2_box) is None
        program.give(3)
        assert arm(v2_box, guarded, 32.9) is None
        assert "rests" in str(guarded.record()["why_not"])
        assert arm(v2_box, guarded, 33.1) is None
        assert "near" in str(guarded.record()["why_not"])
        program.give(20)
        assert arm(v2_box, guarded, 34.0) == level
        assert guarded.record()["why_not"] is None


def test_somebody_elses_brake_is_left_alone(v2_box: Box) -> None:
    """Set before ours, after ours, or taken away: theirs stays, and closing doesn't touch it."""
    v2_box.file("high").write_text(str(50 * MIB))
    guarded = v2_box.adopt("brake")
    assert arm(v2_box, guarded, 1.0) == 50 * MIB
    assert "somebody else" in str(guarded.record()["why_not"])
    v2_box.file("high").write_text("max")
    level = arm(v2_box, guarded, 2.0)
    assert level not in {None, 50 * MIB}
    guarded.hold(3.0)
    v2_box.file("high").write_text(str(60 * MIB))
    guarded.keep(3.1)
    assert not guarded.is_held
    assert arm(v2_box, guarded, 100.0) == 60 * MIB
    v2_box.file("high").write_text("max")
    assert arm(v2_box, guarded, 200.0) == level
    v2_box.file("high").write_text("max")
    assert arm(v2_box, guarded, 201.0) is None, "a reset makes it rest"
    assert arm(v2_box, guarded, 232.0) == level
    v2_box.file("high").write_text(str(70 * MIB))
    guarded.close()
    assert high_of(v2_box) == 70 * MIB


def test_the_level_follows_the_limit(v2_box: Box) -> None:
    """Resized up and down in calm, the level moves; without a limit there is none."""
    guarded = v2_box.adopt("brake")
    levels = [arm(v2_box, guarded, 1.0)]
    for at_s, limit in ((2.0, 200 * MIB), (3.0, 80 * MIB)):
        v2_box.file("limit").write_text(str(limit))
        levels.append(arm(v2_box, guarded, at_s))
    assert [round(level / MIB) if level else None for level in levels] == [90, 180, 72]
    v2_box.file("limit").write_text("max")
    assert arm(v2_box, guarded, 4.0) is None
    assert "no limit" in str(guarded.record()["why_not"])


def test_a_lower_level_is_not_set_onto_the_program(v2_box: Box) -> None:
    """The limit comes down to where the new level would bite at once: the old level stays."""
    guarded = v2_box.adopt("brake")
    with eater(v2_box.app) as program:
        level = arm(v2_box, guarded, 1.0)
        assert program.take(75 - v2_box.app.usage_bytes // MIB)
        v2_box.file("limit").write_text(str(80 * MIB))
        assert arm(v2_box, guarded, 2.0) == level


def test_what_a_parent_leaves_counts(v2_box: Box) -> None:
    """A pod with 60 MiB for a container of 100: the brake is set for 60. Not before a neighbour's use is known."""
    v2_box.file("limit", of=v2_box.pod).write_text(str(60 * MIB))
    guarded = v2_box.adopt("brake")
    level = arm(v2_box, guarded, 1.0)
    assert level is not None
    assert 50 * MIB < level < 54 * MIB
    neighbour = cgroups.add_child(v2_box.pod, "neighbour")
    with eater(neighbour) as program:
        assert program.take(20)
        lower = arm(v2_box, guarded, 2.0)
        assert lower is not None
        assert lower < 36 * MIB


def test_page_cache_up_to_the_limit_does_not_keep_the_brake_away(v2_box: Box) -> None:
    """The brake comes down in steps that make nobody wait, until it is at its level."""
    guarded = v2_box.adopt("brake")
    memory = v2_box.memory()
    with eater(v2_box.app) as program:
        files = iter(big_files(6 * LIMIT))
        while v2_box.app.usage_bytes < 0.95 * LIMIT and (path := next(files, None)):
            program.read(path)
        if memory.read().inactive_file_bytes < 50 * MIB:
            pytest.skip("no file here whose page cache can be dropped")
        first = arm(v2_box, guarded, 1.0)
        assert first is not None
        assert first > 0.93 * LIMIT
        for second in range(2, 40):
            program.read(next(files, Path(__file__)))
            guarded.arm(memory.read(), float(second))
        level = high_of(v2_box)
        assert level is not None
        assert level < 0.9 * LIMIT
        assert program.process.poll() is None
        assert guarded.record()["times"] == 0
        assert len(list(v2_box.journal.iterdir())) == 1


def test_without_a_journal_there_is_no_brake(v2_box: Box) -> None:
    """What can't be written down first isn't set; once it can, it is."""
    guarded = v2_box.adopt("brake")
    v2_box.journal.write_text("in the way")
    assert arm(v2_box, guarded, 1.0) is None
    assert "can't be written" in str(guarded.record()["why_not"])
    v2_box.journal.unlink()
    assert arm(v2_box, guarded, 2.0) is not None


def test_a_vanished_container_is_no_error(v2_box: Box) -> None:
    """Whatever is called after its cgroup is gone does nothing, and closing leaves no entry."""
    guarded = v2_box.adopt("brake")
    memory = v2_box.memory()
    reading = memory.read()
    guarded.arm(reading, 1.0)
    cgroups.remove(v2_box.app)
    with pytest.raises(OSError, match=os.strerror(errno.ENOENT)):
        high_of(v2_box)
    guarded.hold(1.1)
    guarded.keep(1.2)
    guarded.release(1.3)
    guarded.arm(reading, 40.0)
    guarded.close()
    assert v2_box.entries() == []


def test_v1_has_no_brake(v1_box: Box) -> None:
    """Asked for where it can't be had, the error says what can; "auto" takes that by itself."""
    with pytest.raises(GuardUnavailableError, match=r"needs cgroup v2.*auto or raise"):
        v1_box.adopt("brake")
    assert v1_box.adopt("auto").mode == "raise"
