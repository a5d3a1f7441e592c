"""How a container's end is judged from what was seen of it."""

from __future__ import annotations

from sidecar.core.outcome import Ending, judge_end, process_killed


def test_a_counted_kill_is_an_oom_kill() -> None:
    """The kernel's counter rose and the container went with it."""
    outcome = judge_end(oom_kills_first=2, oom_kills_last=3, last_ratio=0.6, was_killed=True)
    assert outcome.ending is Ending.OOM_KILLED
    assert outcome.counted
    assert "from 2 to 3" in outcome.seen
    assert outcome.file_name == "outcome-oom-killed.json"


def test_gone_near_the_limit_is_inferred() -> None:
    """The cgroup vanished before its counter could be read: 97 % of the limit tells enough, and says it is inferred."""
    outcome = judge_end(oom_kills_first=0, oom_kills_last=0, last_ratio=0.97, was_killed=False)
    assert outcome.ending is Ending.OOM_KILLED
    assert not outcome.counted
    assert "97%" in outcome.seen


def test_an_exit_in_calm_is_an_exit() -> None:
    """Nothing counted, far from the limit."""
    outcome = judge_end(oom_kills_first=0, oom_kills_last=0, last_ratio=0.4, was_killed=False)
    assert outcome.ending is Ending.EXITED


def test_an_old_kill_does_not_count_for_a_later_exit() -> None:
    """A child was killed long ago and reported; the container's own end is another matter."""
    outcome = judge_end(oom_kills_first=0, oom_kills_last=1, last_ratio=0.4, was_killed=False)
    assert outcome.ending is Ending.EXITED


def test_nothing_known_is_no_kill() -> None:
    """Without a sample or a counter nothing is claimed."""
    assert (
        judge_end(oom_kills_first=None, oom_kills_last=None, last_ratio=None, was_killed=False).ending is Ending.EXITED
    )
    assert not process_killed(None, 1)
    assert not process_killed(1, None)
    assert process_killed(1, 4)
