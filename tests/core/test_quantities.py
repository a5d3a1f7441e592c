"""Durations, sizes and percentages as people write them."""

from __future__ import annotations

import contextlib
import decimal
import math
from fractions import Fraction

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
    ("text", "count"),
    [
        ("512Mi", 512 << 20),
        ("1G", 10**9),
        ("1.5Ki", 1536),
        ("123", 123),
        (" 2Ti ", 2 << 40),
        ("1e9", 10**9),
        ("129e6", 129_000_000),
        ("12E6", 12_000_000),
        ("1E", 10**18),
        ("1Ei", 1 << 60),
        (".5Gi", 1 << 29),
        ("5.", 5),
        ("+1k", 1000),
        ("1500m", 2),
        ("1m", 1),
        ("0.1", 1),
        ("1n", 1),
        ("0m", 0),
        ("25e-1", 3),
        ("8Ei", 2**63 - 1),
        ("1e99", 2**63 - 1),
        ("9223372036854775807", 2**63 - 1),
        ("9007199254740993", 9007199254740993),
    ],
)
def test_sizes(text: str, count: int) -> None:
    """Kubernetes quantities are read as bytes, exactly: parts of one are rounded up, the most is an int64's."""
    assert quantities.parse_bytes(text) == count


@pytest.mark.parametrize(
    "text",
    [
        *("", " ", "1MB", "-1", "-1Gi", "Mi", ".", ".Gi", "1 Mi", "0x10", "1gi", "1K", "1mi", "1e", "1e+", "1e2Mi"),
        *("1.2.3", "1e1.5", "1e100", "inf", "nan", "\u0661Gi", "1_000", "9" * 5000, "512Mi\x1b"),
    ],
)
def test_wrong_sizes_are_refused(text: str) -> None:
    """Other notations are refused with the value and an example, never guessed."""
    with pytest.raises(ValueError, match="512Mi") as caught:
        quantities.parse_bytes(text)
    assert repr(text.strip())[:50] in str(caught.value)


@pytest.mark.parametrize("value", [True, None, -1, -1.5, float("nan"), float("inf"), [512], {}])
def test_values_of_a_manifest_that_are_no_quantity_are_refused(value: object) -> None:
    """YAML has other types than numbers and text."""
    with pytest.raises(ValueError, match="512Mi"):
        quantities.quantity_bytes(value)


@pytest.mark.parametrize(("value", "count"), [(134217728, 134217728), (1.5e9, 1_500_000_000), (1e22, 2**63 - 1)])
def test_numbers_of_a_manifest_are_quantities(value: object, count: int) -> None:
    """However Python writes them."""
    assert quantities.quantity_bytes(value) == count


_POWERS = {"n": -9, "u": -6, "m": -3, "": 0, "k": 3, "M": 6, "G": 9, "T": 12, "P": 15, "E": 18}
_BINARY_POWERS = {"Ki": 10, "Mi": 20, "Gi": 30, "Ti": 40, "Pi": 50, "Ei": 60}


@given(st.decimals(0, 10**12, places=3), st.sampled_from([*_POWERS, *_BINARY_POWERS]))
def test_a_size_is_its_number_times_its_unit(number: decimal.Decimal, unit: str) -> None:
    """Never less than what was written, less than a byte above it, and the same when written with an exponent."""
    exact = Fraction(number) * (Fraction(10) ** _POWERS[unit] if unit in _POWERS else 2 ** _BINARY_POWERS[unit])
    count = quantities.parse_bytes(f"{number:f}{unit}")
    assert count == min(math.ceil(exact), 2**63 - 1)
    if unit in _POWERS:
        assert quantities.parse_bytes(f"{number:f}e{_POWERS[unit]}") == count


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
