"""The binary tree: its nodes, its exact sensitivity, its least-squares estimates."""

import math
from fractions import Fraction

import numpy as np
import pytest

from dpdau.domain import Metric
from dpdau.errors import InvalidPlanError
from dpdau.mechanisms.matrix.classes import ToggleClass
from dpdau.mechanisms.tree import TreeMechanism, TreeStrategy

MU = 0.6477
"""GDP μ of (3, 1e-6)."""


@pytest.mark.parametrize(
    ("horizon", "squares", "errors"),
    [
        (31, [5, 9, 12, 15], [4.5, 6.0, 7.0, 7.8]),
        (90, [7, 12, 17, 22], [5.7, 7.5, 8.9, 10.1]),
        (365, [9, 16, 23, 30], [7.2, 9.7, 11.6, 13.2]),
    ],
)
def test_sensitivities_and_errors_are_the_published_ones(
    horizon: int, squares: list[int], errors: list[float]
) -> None:
    """Both agree with the reference table, the errors in users at (3, 1e-6) to one digit."""
    for toggles, (square, error) in enumerate(zip(squares, errors, strict=True), start=1):
        strategy = TreeStrategy(horizon, Metric.MAU, toggles)
        assert square << 40 == strategy.sensitivity_squared
        found = math.sqrt(float(np.square(strategy.normalized_stddev()).mean())) / MU
        assert found == pytest.approx(error, abs=0.051)


@pytest.mark.parametrize("horizon", [1, 2, 3, 7, 8, 13])
@pytest.mark.parametrize("toggles", [1, 2, 3, 5, 13])
def test_sensitivity_is_the_maximum_over_the_class(horizon: int, toggles: int) -> None:
    """Δ² is the largest sum of squares of the node values over every series of the class."""
    toggles = min(toggles, horizon)
    strategy = TreeStrategy(horizon, Metric.DAU, toggles)
    series = ToggleClass(horizon, toggles).series().astype(np.int64)
    assert strategy.sensitivity_squared == int(np.square(series @ strategy.matrix.T).sum(1).max())


@pytest.mark.parametrize("horizon", [1, 2, 7, 13, 31])
def test_estimates_are_least_squares_from_the_nodes_so_far(horizon: int) -> None:
    """Each day's estimate is the best linear unbiased one from all nodes that end by that day."""
    strategy = TreeStrategy(horizon, Metric.DAU, 1)
    matrix = strategy.matrix / 2.0**20
    variance = []
    for day in range(1, horizon + 1):
        seen = matrix[~matrix[:, day:].any(axis=1), :day]
        variance.append(np.linalg.inv(seen.T @ seen)[-1, -1])
    found = np.square(strategy.normalized_stddev()[:, 0])
    assert np.allclose(np.array(variance) * (strategy.sensitivity_squared >> 40), found)


def test_nodes_are_sums_of_dyadic_stretches() -> None:
    """Over five days: each day, the first two, the next two, and the first four."""
    expected = [
        [1, 0, 0, 0, 0], [-1, 1, 0, 0, 0], [0, 1, 0, 0, 0], [0, -1, 1, 0, 0],
        [0, 0, -1, 1, 0], [0, -1, 0, 1, 0], [0, 0, 0, 1, 0], [0, 0, 0, -1, 1],
    ]  # fmt: skip
    assert expected == (TreeStrategy(5, Metric.DAU, 1).matrix >> 20).tolist()


def test_a_stretch_weighs_its_own_value_and_its_parts() -> None:
    """Two days: two thirds of the noise of their own node, one third of that of the two days."""
    third = Fraction(2**20, 3)
    drawn = [3 * 2**20, 0, 0]
    strategy = TreeStrategy(2, Metric.DAU, 1)
    assert [3 * 2**32, 2**32] == strategy.spread(drawn)
    assert [0, 2 * 2**32] == strategy.spread([0, 0, int(9 * third)])


def test_it_is_a_mechanism_with_a_name() -> None:
    """It is named apart from the matrix mechanism, and covers one count each day."""
    mechanism = TreeMechanism(TreeStrategy(3, Metric.WAU, 2), Fraction(1, 5))
    assert "tree_discrete_gaussian" == mechanism.name
    assert (Metric.WAU,) == mechanism.strategy.metrics
    assert 3 == mechanism.strategy.bounds.max_active_steps


@pytest.mark.parametrize(("horizon", "toggles"), [(0, 1), (5, 0), (5, 6), (2_000, 1)])
def test_classes_out_of_range_are_refused(horizon: int, toggles: int) -> None:
    """The class says what it expects."""
    with pytest.raises(InvalidPlanError):
        TreeStrategy(horizon, Metric.MAU, toggles)
