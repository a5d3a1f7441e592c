"""Durations, sizes and percentages as people write them."""

from __future__ import annotations

import contextlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sidecar.core import quantities


@pytest.mark.parametrize(
    ("text", "seconds"),
    [("100ms", 0.1), ("1s", 1), ("1m30s", 90), ("1.5h", 5400), ("250us", 0.00025), (" 30s ", 30), ("0s", 0)],
)
def test_durations(text: str, seconds: float) -> None:
    """Go's notation is read as seconds."""
    assert quantities.parse_duration_s(text) == pytest.approx(seconds)


@pytest.mark.parametrize("text", ["", "10x", "-1s", "1s2", "abc", "1 s", "٣s", "1e3s", "s"])
def test_wrong_durations_are_refused_with_an_example(text: str) -> None:
    """Anything else is refused, and the message shows how to write one."""
    with pytest.raises(ValueError, match="100ms"):
        quantities.parse_duration_s(text)


def test_a_bare_number_is_refused_with_the_unit_to_add() -> None:
    """``10`` could be seconds or milliseconds: the message offers both."""
    with pytest.raises(ValueError, match="write 10s or 10ms"):
        quantities.parse_duration_s("10")


@pytest.mark.parametrize(
    ("text", "count"), [("512Mi", 512 << 20), ("1G", 10**9), ("1.5Ki", 1536), ("123", 123), ("2Ti", 2 << 40)]
)
def test_sizes(text: str, count: int) -> None:
    """Kubernetes quantities are read as bytes."""
    assert quantities.parse_bytes(text) == count


@pytest.mark.parametrize("text", ["", "1MB", "-1", "Mi", "1 Mi", "1m", "0x10"])
def test_wrong_sizes_are_refused(text: str) -> None:
    """Other notations are refused with an example, never guessed."""
    with pytest.raises(ValueError, match="256Mi"):
        quantities.parse_bytes(text)


@pytest.mark.parametrize("text", ["0", "120", "abc", "", "-5", "100.1", "80%%", "nan", "1e1"])
def test_wrong_percentages_are_refused(text: str) -> None:
    """Only 1 to 100 is a threshold."""
    with pytest.raises(ValueError, match="1 to 100"):
        quantities.parse_percent(text)


@given(st.integers(1, 10**7))
def test_a_printed_duration_reads_back(milliseconds: int) -> None:
    """What is printed for people is what the parser reads."""
    seconds = milliseconds / 1000
    assert quantities.parse_duration_s(quantities.format_duration(seconds)) == pytest.approx(seconds, rel=1e-4)


@given(st.text())
def test_no_text_crashes_a_parser(text: str) -> None:
    """Any text is read or refused with ValueError."""
    for parse in (quantities.parse_duration_s, quantities.parse_bytes, quantities.parse_percent):
        with contextlib.suppress(ValueError):
            assert parse(text) >= 0
