"""Optimal strategies of long horizons, as far as they take minutes to solve: stored, and certified.

Each `t<days>-c<toggles>.npz` holds the lower triangle of what `solve` found for the toggle class,
at a tolerance of 0.006 or less, rounded to multiples of 2⁻¹². Nothing in it is taken on trust: its
sensitivity is searched for in integers over the whole class.
"""

import math
from pathlib import Path

import numpy as np
import pytest

from dpdau.domain import Metric
from dpdau.mechanisms.matrix.classes import ToggleClass
from dpdau.mechanisms.matrix.lattice import LatticeStrategy, sensitivity_squared

MU = 0.6477
"""GDP μ of (3, 1e-6)."""


@pytest.mark.parametrize(
    ("horizon", "toggles", "error"), [(90, 4, 5.16), (365, 2, 5.01), (365, 3, 6.02), (365, 4, 6.54)]
)
def test_mau_alone_is_within_one_percent_of_the_optimum(
    horizon: int, toggles: int, error: float
) -> None:
    """The root of the mean variance, in users at (3, 1e-6), with the exact worst series."""
    with np.load(Path(__file__).parent / "data" / f"t{horizon}-c{toggles}.npz") as stored:
        matrix = np.zeros((horizon, horizon), dtype=np.int64)
        matrix[np.tril_indices(horizon)] = stored["lower"]
    squared = sensitivity_squared(matrix, ToggleClass(horizon, toggles))
    strategy = LatticeStrategy(horizon, (Metric.MAU,), matrix, squared)
    found = math.sqrt(float(np.square(strategy.normalized_stddev()).mean())) / MU
    assert 0.99 * error < found < 1.01 * error
