"""The square-root Toeplitz strategy: a closed form for a series that changes seldom.

The counts are the prefix sums of their differences, and with T×T all-ones lower triangle S the
factorization S = C·C by C = (1 - x)^(-1/2) adds noise to C on the differences. It needs no solver,
and is 5 to 15 % above the optimum; it stands here to be compared with it.

Source: Fichtenberger, Henzinger, Upadhyay 2023, "Constant Matters: Fine-grained Error Bound on
Differentially Private Continual Observation" (the factor); the sensitivity over toggles is exact,
where the paper's is for one change.
"""

import numpy as np

from dpdau.domain import Metric
from dpdau.mechanisms.matrix.classes import TOGGLES_MAX, ToggleClass
from dpdau.mechanisms.matrix.lattice import (
    LATTICE_BITS,
    Integers,
    LatticeStrategy,
    gram_matrix,
    sensitivity_squared,
)


def sqrt_toeplitz(horizon: int, metric: Metric, toggles: int) -> LatticeStrategy:
    """The square-root Toeplitz strategy for series of at most `toggles` changes.

    The first value counts as a change from 0. Up to `TOGGLES_MAX` toggles the sensitivity is the
    exact maximum, found by search in integers; beyond, it is `alternating_bound`.

    Raises:
        InvalidPlanError: The class is out of range.

    Example:
        >>> strategy = sqrt_toeplitz(31, Metric.MAU, 2)
        >>> round(strategy.sensitivity_squared**0.5 / 2**20, 3)
        1.786
    """
    contribution = ToggleClass(horizon, toggles)
    factor = _factor(horizon)
    matrix = factor.copy()
    matrix[:, :-1] -= factor[:, 1:]
    if toggles <= TOGGLES_MAX:
        squared = sensitivity_squared(matrix, contribution)
    else:
        squared = alternating_bound(factor, toggles)
    return LatticeStrategy(horizon, (metric,), matrix, squared)


def alternating_bound(factor: Integers, toggles: int) -> int:
    """An upper bound on |C d|² for differences d of `toggles` entries 1, -1, 1, -1, …

    Guarantee: with G = C'C, |C d|² = Σ G_ii + 2 Σ_{i<j} (-1)^(j-i) G_ij over the toggles. Where
    each row of G falls away from the diagonal and stays positive, the alternating sum after
    each toggle is at most 0, so the diagonal entries alone bound it.
    """
    gram = gram_matrix(factor)
    assert gram.min() >= 0, "the factor has no negative entry"
    assert all((np.diff(row[place:]) <= 0).all() for place, row in enumerate(gram)), "rows fall"
    return int(np.sort(np.diag(gram))[-toggles:].sum())


def _factor(horizon: int) -> Integers:
    """(horizon, horizon) C in integers: the coefficients of (1 - x)^(-1/2), times 2^20."""
    days = np.arange(1, horizon)
    coefficients = np.cumprod(np.append(1.0, (2 * days - 1) / (2 * days)))
    rounded = np.rint(coefficients * 2.0**LATTICE_BITS).astype(np.int64)
    place = np.subtract.outer(np.arange(horizon), np.arange(horizon))
    return np.where(place >= 0, rounded[place], 0)
