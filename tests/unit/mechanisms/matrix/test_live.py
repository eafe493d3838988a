"""The live mechanism: Δ² over every pattern of a day, in integers, and its noise."""

import itertools
import math
from fractions import Fraction

import numpy as np
import pytest
from scipy import stats

from dpdau.accounting.calibration import rho_cap
from dpdau.errors import InvalidPlanError
from dpdau.mechanisms.matrix.covariance import solve
from dpdau.mechanisms.matrix.lattice import GRID_BITS
from dpdau.mechanisms.matrix.live import TICKS_MAX, LiveMechanism, live_class, live_strategy
from dpdau.mechanisms.sampling import OpenDPNoise
from noise_sources import RecordedNoise

RHO = rho_cap(Fraction(1), Fraction(1, 10**6))


def patterns(ticks: int) -> np.ndarray:
    """(n, ticks) all series 0…0 1…1 0…0, listed without the class."""
    runs = itertools.combinations(range(ticks + 1), 2)
    rows = [[int(start <= tick < stop) for tick in range(ticks)] for start, stop in runs]
    return np.array([[0] * ticks, *rows])


@pytest.mark.parametrize("ticks", [1, 2, 3, 7, 24])
def test_the_sensitivity_is_the_maximum_over_every_pattern(ticks: int) -> None:
    """|Av|² over all 0…0 1…1 0…0, in Python integers, is at most Δ², and attains it."""
    strategy = live_strategy(ticks)
    image = strategy.matrix.astype(object) @ patterns(ticks).T.astype(object)

    assert strategy.sensitivity_squared == int((image * image).sum(axis=0).max())
    assert {row.tobytes() for row in patterns(ticks).astype(np.uint8)} == {
        row.tobytes() for row in live_class(ticks).series()
    }


def test_a_second_return_would_break_the_bound() -> None:
    """A user who comes back on the same day moves the ticks by more than Δ²."""
    strategy = live_strategy(24)
    back = strategy.matrix.astype(object) @ np.array([1, 0] * 12, dtype=object)

    assert int((back * back).sum()) > strategy.sensitivity_squared


def test_days_add_up_to_the_worst_day_each_day() -> None:
    """Over every pair of patterns on two days, the sum of squares is at most the mechanism's."""
    mechanism = LiveMechanism(live_strategy(3), 2, RHO)
    rows = patterns(3)
    image = mechanism.strategy.matrix.astype(object) @ rows.T.astype(object)
    each = (image * image).sum(axis=0)
    sums = [int(one + other) for one in each for other in each]

    assert mechanism.sensitivity_squared == max(sums)
    assert Fraction(mechanism.sensitivity_squared, 2) / Fraction(mechanism.scale) ** 2 <= RHO
    assert mechanism.rho <= RHO < mechanism.rho * Fraction(1000001, 1000000)


def test_the_noise_of_a_day_is_of_its_own_draws() -> None:
    """Each day's estimates carry A⁻¹z of that day's draws, to the grid, and nothing else."""
    strategy = live_strategy(4)
    mechanism = LiveMechanism(strategy, 3, RHO)
    drawn = [int(one) for one in np.random.default_rng(5).integers(-(10**6), 10**6, 12)]
    source = RecordedNoise(drawn)
    noise = np.array(mechanism.draw(source), dtype=np.float64).reshape(3, 4) / 2**GRID_BITS
    expected = np.linalg.solve(strategy.matrix, np.array(drawn, dtype=np.float64).reshape(3, 4).T).T

    assert [("gaussian", mechanism.scale, 12)] == source.asked
    assert np.abs(noise - expected).max() < 1e-6


def test_the_error_is_what_is_stated() -> None:
    """The sample of 200 months of 4-tick days has the stated deviations; false alarms < 1e-6."""
    mechanism = LiveMechanism(live_strategy(4), 31, RHO)
    source = OpenDPNoise()
    found = [mechanism.draw(source) for _ in range(200)]
    sample = np.array(found, dtype=np.float64).reshape(-1, 4) / 2**GRID_BITS
    ratio = np.square(sample).sum(axis=0) / np.square(mechanism.noise_stddevs())
    law = stats.chi2(len(sample))

    assert (ratio > law.ppf(1e-7)).all() and (ratio < law.isf(1e-7)).all()


def test_twenty_four_ticks_of_a_month_cost_this_much() -> None:
    """Within half a percent of the best covariance for the class; the figures of the guide."""
    mechanism = LiveMechanism(live_strategy(24), 31, RHO)
    normalized = mechanism.noise_stddevs() * math.sqrt(2 * mechanism.rho)
    mean = math.sqrt(np.square(normalized).mean())
    bound = solve(live_class(24), (1.0,)).family_bound * math.sqrt(31)

    assert 11.54 == round(mean, 2)
    assert mean <= 1.005 * bound
    assert normalized[-1] < mean < normalized.max()


def test_what_is_out_of_range_is_refused() -> None:
    """Ticks, days and costs have limits."""
    for ticks in (0, TICKS_MAX + 1):
        with pytest.raises(InvalidPlanError):
            live_strategy(ticks)
    for days, rho in ((0, RHO), (32, RHO), (1, Fraction(0)), (1, Fraction(10**6))):
        with pytest.raises(InvalidPlanError):
            LiveMechanism(live_strategy(1), days, rho)
