from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from benchmarks.distribution import Distribution, slope

FIGURES = st.lists(st.floats(min_value=-1e9, max_value=1e9), min_size=1, max_size=50)


def test_figures_are_summed_up_whatever_their_order() -> None:
    """The median of an even number lies between the middle two, the 90th percentile is one of the figures."""
    found = Distribution.of([9.0, 1.0, 3.0, 5.0])
    assert found == Distribution(count=4, least=1.0, median=4.0, p90=9.0, most=9.0)
    assert Distribution.of(float(number) for number in range(1, 21)) == Distribution(
        count=20, least=1.0, median=10.5, p90=18.0, most=20.0
    )


def test_no_figures_have_no_distribution() -> None:
    """Nothing measured isn't zero."""
    assert Distribution.of([]) is None


@given(FIGURES)
def test_order_statistics_are_ordered(figures: list[float]) -> None:
    """Least, median, 90th percentile and most never change places, and nine of ten figures lie at or below p90."""
    found = Distribution.of(figures)
    assert found is not None
    assert found.least <= found.median <= found.p90 <= found.most
    assert sum(figure <= found.p90 for figure in figures) >= 0.9 * len(figures)


def test_slope_needs_two_different_points() -> None:
    """One point, or two at the same place, tell of no growth."""
    assert slope([(1, 5)]) is None
    assert slope([(1, 5), (1, 7)]) is None


@given(st.lists(st.integers(-1000, 1000), min_size=2, max_size=20, unique=True), st.integers(-50, 50))
def test_slope_of_a_line_is_its_gradient(places: list[int], gradient: int) -> None:
    """Points on a line give back the line."""
    found = slope((x, 7.0 + gradient * x) for x in places)
    assert found == pytest.approx(gradient)
