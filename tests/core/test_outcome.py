"""How a container's end is judged from what was seen of it."""

from __future__ import annotations

import pytest

from sidecar.core.outcome import Ending, LastSeen, Outcome, is_worth_a_dump, judge_end, process_killed


def end(
    ratio: float | None,
    *,
    oom_kills: int | None = 0,
    first: int | None = 0,
    was_killed: bool = False,
    ratio_per_s: float = 0.0,
) -> Outcome:
    """Judge a container whose last sample is a tenth of a second old."""
    last = LastSeen(ratio=ratio, ratio_per_s=ratio_per_s, age_s=0.1, oom_kills=oom_kills)
    return judge_end(oom_kills_first=first, last=last, was_killed=was_killed)


def test_a_counted_kill_is_an_oom_kill() -> None:
    """The kernel's counter rose and the container went with it."""
    outcome = end(0.6, first=2, oom_kills=3, was_killed=True)
    assert outcome.ending is Ending.OOM_KILLED
    assert outcome.counted
    assert "from 2 to 3" in outcome.seen
    assert outcome.file_name == "outcome-oom-killed.json"


def test_gone_near_the_limit_is_inferred() -> None:
    """The cgroup vanished before its counter could be read: 97 % of the limit tells enough, and says it is inferred."""
    outcome = end(0.97)
    assert outcome.ending is Ending.OOM_KILLED
    assert not outcome.counted
    assert "97%" in outcome.seen


def test_gone_while_running_into_the_limit_is_inferred() -> None:
    """At 76 % and rising by three times the limit a second, it was past it before it was found gone."""
    assert end(0.76, ratio_per_s=3.0).ending is Ending.OOM_KILLED
    assert end(0.76, ratio_per_s=1.0).ending is Ending.UNKNOWN


def test_what_may_have_been_a_kill_is_not_called_an_exit() -> None:
    """High memory and no counter left: unknown, not exited."""
    assert end(0.7).ending is Ending.UNKNOWN
    assert end(None).ending is Ending.UNKNOWN
    assert judge_end(oom_kills_first=None, last=None, was_killed=False).ending is Ending.UNKNOWN


def test_an_exit_in_calm_is_an_exit() -> None:
    """Nothing counted, far from the limit."""
    assert end(0.4).ending is Ending.EXITED


def test_an_old_kill_does_not_count_for_a_later_exit() -> None:
    """A child was killed long ago and reported; the container's own end is another matter."""
    assert end(0.4, oom_kills=1).ending is Ending.EXITED


def test_the_counter_is_compared_only_where_it_exists() -> None:
    """It may rise by more than one, and may be missing."""
    assert not process_killed(None, 1)
    assert not process_killed(1, None)
    assert process_killed(1, 4)
    assert not process_killed(1, 1)


@pytest.mark.parametrize(
    ("ending", "ratio", "ratio_per_s", "expected"),
    [
        (Ending.OOM_KILLED, 0.1, 0.0, True),
        (Ending.PROCESS_OOM_KILLED, 0.1, 0.0, True),
        (Ending.EXITED, 0.99, 1.0, False),
        (Ending.UNKNOWN, 0.6, 0.0, False),
        (Ending.UNKNOWN, 0.6, 0.2, True),
        (Ending.UNKNOWN, 0.75, 0.0, True),
        (Ending.UNKNOWN, None, 0.0, False),
    ],
)
def test_what_was_in_hand_is_stored_where_a_kill_cant_be_excluded(
    ending: Ending, ratio: float | None, ratio_per_s: float, *, expected: bool
) -> None:
    """After each kill; where nobody can tell, unless memory was at rest far below the threshold."""
    outcome = Outcome(ending=ending, counted=False, seen="")
    last = LastSeen(ratio=ratio, ratio_per_s=ratio_per_s, age_s=0.1, oom_kills=0)
    assert is_worth_a_dump(outcome, last, rearm_ratio=0.72) is expected


def test_who_was_not_looked_at_for_long_is_not_said_to_have_exited() -> None:
    """Without CPU time for us, a leak may have come and gone between two samples."""
    last = LastSeen(ratio=0.2, ratio_per_s=0.0, age_s=3.0, oom_kills=0)
    assert judge_end(oom_kills_first=0, last=last, was_killed=False).ending is Ending.UNKNOWN
