"""Errors, shares and steps against cases that were worked out by hand."""

import math

import pytest

from dpdau.errors import InvalidPlanError
from dpdau.eval.measures import Share, Spread, measure, step_change


def test_a_spread_is_linear_between_values() -> None:
    """The quantiles of 0..10 are 5, 9, 9.5 and 10."""
    assert Spread(5.0, 9.0, 9.5, 10.0) == Spread.of(range(11))


def test_a_spread_of_nothing_is_refused() -> None:
    """There is no median of no value."""
    with pytest.raises(InvalidPlanError):
        Spread.of([])


def test_errors_are_signed_in_the_bias_alone() -> None:
    """Errors of -2, 0, 1 and 5 users: bias 1, median 1.5, root mean square √7.5."""
    found = measure([10, 10, 10, 10], [8, 10, 11, 15], [2, 2, 2, 2])

    assert 1.0 == found.bias
    assert 1.5 == found.absolute.median
    assert 5.0 == found.absolute.max
    assert math.isclose(math.sqrt(7.5), found.root_mean_square)


def test_relative_errors_divide_by_the_exact_count() -> None:
    """10 users off 100 and off 200 are 10 % and 5 %; a count of 0 divides by 1."""
    found = measure([100, 200, 0], [110, 190, 3], [0, 0, 0])

    assert (0.1, 3.0) == (found.relative.median, found.relative.max)


def test_an_interval_holds_its_ends() -> None:
    """An error of exactly the half width is inside, one more is outside."""
    found = measure([10, 10, 10, 10], [13, 14, 7, 10], [3, 3, 3, 3]).inside

    assert Share(3, 4) == found
    assert 0.75 == found.value
    assert math.isclose(math.sqrt(0.75 * 0.25 / 4), found.standard_error)


def test_figures_have_flat_names() -> None:
    """`to_json` names every figure once, for a row of a table."""
    assert {
        "absolute_median": 1.0,
        "absolute_p90": 1.0,
        "absolute_p95": 1.0,
        "absolute_max": 1.0,
        "relative_median": 0.25,
        "relative_p90": 0.25,
        "relative_p95": 0.25,
        "relative_max": 0.25,
        "bias": -1.0,
        "root_mean_square": 1.0,
        "inside_share": 0.0,
        "inside_standard_error": 0.0,
        "days": 1,
    } == measure([4], [3], [0]).to_json()


@pytest.mark.parametrize("columns", [([1], [1, 2], [1]), ([[1]], [[1]], [[1]])])
def test_columns_of_other_lengths_are_refused(columns: tuple[list[int], ...]) -> None:
    """Each day has one exact count, one estimate and one half width."""
    with pytest.raises(InvalidPlanError):
        measure(*columns)


def test_a_step_is_the_day_before_and_the_day() -> None:
    """The change on day 2 of 5, 6, 1 is from 6 to 1."""
    assert (6.0, 1.0) == step_change([5, 6, 1], 2)


@pytest.mark.parametrize("day", [0, 3])
def test_a_step_needs_a_day_before_it(day: int) -> None:
    """The first day has none, and a day past the end is none."""
    with pytest.raises(InvalidPlanError):
        step_change([5, 6, 1], day)
