"""The ring of samples."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from sidecar.core.history import SampleHistory
from sidecar.core.model import Reading, Sample


def sample(at_s: float, used: int = 10, limit: int | None = 100) -> Sample:
    """A sample with 3 bytes of idle page cache."""
    return Sample(at_s=at_s, reading=Reading(usage_bytes=used, inactive_file_bytes=3, limit_bytes=limit, oom_kills=0))


def test_rows_tell_the_window_before_now() -> None:
    """Oldest first, as seconds before now, without what is older than the window; no limit stays None."""
    history = SampleHistory()
    for at_s, limit in ((0.0, 100), (50.0, None), (61.0, 100)):
        history.add(sample(at_s, limit=limit))
    assert history.rows(61.0) == [(-11.0, 10, 7, None), (0.0, 10, 7, 100)]


@given(st.integers(1, 50), st.integers(0, 200))
def test_the_newest_samples_are_kept(capacity: int, count: int) -> None:
    """However many come, the last ``capacity`` of them are there, in order."""
    history = SampleHistory(capacity=capacity)
    for number in range(count):
        history.add(sample(number * 0.1, used=number + 3))
    used = [row[1] - 3 for row in history.rows(count * 0.1)]
    assert used == list(range(count))[-capacity:]


def test_samples_closer_than_the_spacing_are_left_out() -> None:
    """Quick sampling doesn't push the minute out of the ring."""
    history = SampleHistory(spacing_s=0.09)
    for number in range(100):
        history.add(sample(number * 0.01))
    assert 10 <= len(history.rows(1.0)) <= 12
