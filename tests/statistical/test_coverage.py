"""Stated intervals of every mechanism, over ten thousand simulated days each.

At (1, 1e-6) for a month, and for a single count ε = 0.3 or (0.3, 1e-6), a whole user is a small
part of the interval, so 95 % means 94 to 96. Half-widths are whole users and round up: with less
noise the share is larger, never smaller.
"""

import math
from fractions import Fraction
from typing import Any

import numpy as np
import pytest

import noise_laws as laws
from dpdau.accounting.calibration import gaussian_sigma, rho_cap
from dpdau.domain import Metric
from dpdau.mechanisms.gaussian import DiscreteGaussian
from dpdau.mechanisms.laplace import DiscreteLaplace
from dpdau.mechanisms.matrix.lattice import LatticeMechanism, shared_noise
from dpdau.mechanisms.matrix.strategies import shipped
from dpdau.mechanisms.matrix.toeplitz import sqrt_toeplitz
from dpdau.mechanisms.sampling import OpenDPNoise
from dpdau.mechanisms.tree import TreeMechanism, TreeStrategy
from lattice_checks import noise_of
from noise_checks import bounded
from noise_sources import BulkNoise

pytestmark = pytest.mark.statistical

DELTA = Fraction(1, 10**6)
DAYS = 10_000
RHO = rho_cap(Fraction(1), DELTA)
MONTHS = {
    "lattice": lambda: LatticeMechanism(shipped(31, 30).strategy, RHO),
    "tree": lambda: TreeMechanism(TreeStrategy(31, Metric.WAU, 4), RHO),
    "sqrt toeplitz": lambda: LatticeMechanism(sqrt_toeplitz(31, Metric.MAU, 3), RHO),
    "shared noise": lambda: LatticeMechanism(shared_noise(31, (Metric.DAU,)), RHO),
}
SINGLES = {
    "laplace": lambda: DiscreteLaplace(epsilon=Fraction(3, 10)),
    "gaussian": lambda: DiscreteGaussian(
        sigma=gaussian_sigma(Fraction(3, 10), DELTA), epsilon=Fraction(3, 10), delta=DELTA
    ),
}


@pytest.mark.parametrize("name", MONTHS)
def test_intervals_of_a_month_hold_what_they_state(name: str) -> None:
    """By law 94 to 96 % of all days, and the simulated share agrees within 6 standard errors.

    The noise of a month is correlated, so the standard error is taken between months.
    """
    mechanism: Any = MONTHS[name]()
    strategy = mechanism.strategy
    widths = np.array(
        [
            [mechanism.half_width(day, metric) for metric in strategy.metrics]
            for day in range(strategy.horizon)
        ]
    )
    exact = np.vectorize(math.erf)((widths + 0.5) / (mechanism.noise_stddevs() * math.sqrt(2)))
    assert 0.94 < exact.mean() < 0.96
    assert (exact >= 0.95).all()
    noise = noise_of(mechanism, DAYS // strategy.horizon + 1)
    inside = (np.abs(np.rint(noise)) <= widths.ravel()).mean(axis=1)
    assert abs(inside.mean() - exact.mean()) < 6 * inside.std() / math.sqrt(len(inside))


@pytest.mark.parametrize("name", SINGLES)
def test_intervals_of_single_counts_hold_what_they_state(name: str) -> None:
    """By law 94 to 96 %, and the share of 10,000 independent days agrees within 5 errors (6e-7)."""
    mechanism: Any = SINGLES[name]()
    law = (
        laws.laplace_law(mechanism.scale)
        if name == "laplace"
        else laws.gaussian_law(mechanism.sigma)
    )
    exact = float(law[: mechanism.half_width() + 1].sum())
    assert 0.95 <= exact < 0.96
    source = BulkNoise(OpenDPNoise(), DAYS)
    releases = [mechanism.step(bounded(70), mechanism.init(1), source)[0] for _ in range(DAYS)]
    inside = np.mean(np.abs(np.array(releases) - 70) <= mechanism.half_width())
    assert abs(inside - exact) < 5 * math.sqrt(exact * (1 - exact) / DAYS)
