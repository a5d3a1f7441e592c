from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from sidecar.core.backoff import FIRST_DELAY_S, MAX_DELAY_S, Retry, upload_delay_s

jitters = st.floats(min_value=0, max_value=1, exclude_max=True)


def test_a_success_ends_the_waiting() -> None:
    """No errors, no delay, whatever the jitter."""
    assert upload_delay_s(0, 0.9) == 0


def test_delays_double_up_to_five_minutes() -> None:
    """Without jitter the delays are powers of two, then half of the cap; with nearly full jitter twice that."""
    assert [upload_delay_s(errors, 0) for errors in range(1, 11)] == [1, 2, 4, 8, 16, 32, 64, 128, 150, 150]
    assert upload_delay_s(20, 0.999999) > 0.99 * MAX_DELAY_S


@given(st.integers(min_value=1, max_value=10**6), jitters)
def test_a_delay_stays_within_its_bounds(errors: int, jitter: float) -> None:
    """Never below a second, never above five minutes, after however many errors."""
    assert FIRST_DELAY_S <= upload_delay_s(errors, jitter) <= MAX_DELAY_S


@given(st.integers(min_value=1, max_value=100), jitters)
def test_more_errors_never_wait_less(errors: int, jitter: float) -> None:
    """For the same jitter a further error never shortens the delay."""
    assert upload_delay_s(errors, jitter) <= upload_delay_s(errors + 1, jitter)


def test_each_failure_makes_the_next_try_later() -> None:
    """Up to a bound, counted from the failure; hastened, it is due at once and what comes next is as late as before."""
    retry, now_s, delays_s = Retry(first_s=2.0, last_s=600.0), 100.0, []
    assert retry.is_due(now_s)
    for _ in range(12):
        retry.note_failure(now_s)
        assert not retry.is_due(retry.next_s - 0.001)
        assert retry.is_due(retry.next_s)
        delays_s.append(retry.next_s - now_s)
        now_s = retry.next_s
    assert delays_s == [2.0, 4.0, 8.0, 16.0, 32.0, 64.0, 128.0, 256.0, 512.0, 600.0, 600.0, 600.0]
    retry.hasten()
    assert retry.is_due(now_s)
    retry.note_failure(now_s)
    assert retry.next_s == now_s + 600.0
