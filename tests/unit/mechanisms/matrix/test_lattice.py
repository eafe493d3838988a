"""The integer lattice: exact sensitivity, causal estimates, exact charges."""

import json
import math
from fractions import Fraction
from itertools import product

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from dpdau.domain import BoundedCount, ContributionBounds, Metric, Unit
from dpdau.errors import InvalidPlanError
from dpdau.mechanisms.matrix.classes import ContributionClass, ToggleClass
from dpdau.mechanisms.matrix.covariance import Form, solve
from dpdau.mechanisms.matrix.lattice import (
    GRID_BITS,
    LatticeMechanism,
    LatticeState,
    LatticeStrategy,
    gram_matrix,
    lattice_strategy,
    quantize,
    release_order,
    scale_for,
    sensitivity_squared,
    shared_noise,
    spread_noise,
)
from dpdau.mechanisms.matrix.strategies import shipped
from noise_sources import RecordedNoise, ZeroNoise

JOINT = (Metric.WAU, Metric.MAU, Metric.DAU)
RHO = Fraction(18507, 100_000)
MONTH = shipped(31, 30).strategy


def counted(mechanism: LatticeMechanism, values: list[int]) -> list[BoundedCount]:
    """Counts with the bounds that the strategy protects."""
    bounds = mechanism.strategy.bounds
    return [BoundedCount(value=value, bounds=bounds, unit=Unit.USER) for value in values]


def released(mechanism: LatticeMechanism, state: LatticeState, values: list[int]) -> list[float]:
    """All estimates of a horizon, day by day."""
    width, found = len(mechanism.strategy.metrics), []
    for day in range(mechanism.strategy.horizon):
        today = counted(mechanism, values[day * width : (day + 1) * width])
        estimates, state = mechanism.step(today, state)
        found += estimates
    return found


def solved(matrix: np.ndarray, observed: list[int]) -> list[int]:
    """Ā⁻¹y by forward substitution on the grid, from y alone."""
    found: list[int] = []
    for row, part in zip(matrix.tolist(), observed, strict=True):
        pivot = row[len(found)]
        left = (part << GRID_BITS) - sum(a * b for a, b in zip(row, found, strict=False))
        found.append((2 * left + pivot) // (2 * pivot))
    return found


@given(seed=st.integers(0, 2**32 - 1), size=st.sampled_from([1, 2, 7, 93]))
def test_estimates_are_a_function_of_the_noisy_lattice_values(seed: int, size: int) -> None:
    """Count plus spread noise is exactly what solving Ā e = Āx + z gives."""
    generator = np.random.default_rng(seed)
    matrix = MONTH.matrix[:size, :size]
    counts = [int(count) for count in generator.integers(-(2**40), 2**40, size)]
    drawn = [int(part) for part in generator.integers(-(2**24), 2**24, size)]
    observed = [
        sum(a * x for a, x in zip(row, counts, strict=True)) + z
        for row, z in zip(matrix.tolist(), drawn, strict=True)
    ]
    noise = spread_noise(matrix, drawn)
    expected = [(count << GRID_BITS) + part for count, part in zip(counts, noise, strict=True)]
    assert expected == solved(matrix, observed)


def test_estimates_of_a_day_rest_on_no_later_day() -> None:
    """Other noise in later rows leaves the estimates of earlier days as they were."""
    drawn = [1_000_003 * (place % 7 - 3) for place in range(93)]
    whole = spread_noise(MONTH.matrix, drawn)
    for rows in (1, 3, 45, 90):
        changed = drawn[:rows] + [-part for part in drawn[rows:]]
        assert whole[:rows] == spread_noise(MONTH.matrix, changed)[:rows]
        assert whole[:rows] == spread_noise(MONTH.matrix[:rows, :rows], drawn[:rows])


def test_step_by_step_equals_the_whole_vector() -> None:
    """Daily steps give x + Ā⁻¹z, as one solve of the whole does."""
    drawn = [int(part) for part in np.random.default_rng(5).normal(0, 1.7e6, 93).round()]
    mechanism = LatticeMechanism(MONTH, RHO)
    noise = RecordedNoise(drawn)
    state = mechanism.init(noise)
    values = [1_000 + 37 * place for place in range(93)]
    whole = np.array(values) + np.linalg.solve(MONTH.matrix.astype(float), np.array(drawn, float))
    assert np.allclose(whole, released(mechanism, state, values), atol=1e-6)
    assert [("gaussian", mechanism.scale, 93)] == noise.asked


def test_without_noise_the_counts_come_back() -> None:
    """Zero noise gives the exact counts on every day."""
    mechanism = LatticeMechanism(MONTH, RHO)
    values = list(range(93))
    assert values == released(mechanism, mechanism.init(ZeroNoise()), values)


@given(squared=st.integers(1, 2**62), rho=st.fractions(Fraction(1, 10**6), 10))
def test_scale_never_costs_more_than_the_cap(squared: int, rho: Fraction) -> None:
    """Δ²/(2s²) is at most ρ exactly, and within a part in 10¹² of it."""
    cost = Fraction(squared) / (2 * Fraction(scale_for(squared, rho)) ** 2)
    assert rho * (1 - Fraction(1, 10**12)) <= cost <= rho


def test_charge_is_exact() -> None:
    """ρ · 2s² = Δ² between the rational values of the numbers, and ρ is within the cap."""
    mechanism = LatticeMechanism(MONTH, RHO)
    assert mechanism.rho * 2 * Fraction(mechanism.scale) ** 2 == MONTH.sensitivity_squared
    assert mechanism.rho <= RHO


@pytest.mark.parametrize(
    ("horizon", "windows"), [(6, (2,)), (7, (4,)), (5, (2, 4)), (6, (3, 5)), (12, (3, 9))]
)
@pytest.mark.parametrize("erasure", [False, True])
def test_sensitivity_without_daily_counts_is_the_maximum(
    horizon: int, windows: tuple[int, ...], erasure: bool
) -> None:
    """Δ² is the largest |Āv|² over the class, attained."""
    part = ContributionClass(horizon, windows, erasure=erasure)
    metrics = (Metric.WAU, Metric.MAU)[: len(windows)]
    strategy = lattice_strategy(solve(part, (1.0,) * len(windows)).form, part, metrics)
    rows = [row.tolist() for row in strategy.matrix]
    largest = max(
        sum(sum(a * b for a, b in zip(row, v, strict=True)) ** 2 for row in rows)
        for v in part.series()[:: 1 if horizon < 12 else 3].tolist()
    )
    exact = int(np.square(part.series().astype(np.int64) @ strategy.matrix.T).sum(axis=1).max())
    assert largest <= exact == strategy.sensitivity_squared


@pytest.mark.parametrize(("horizon", "windows"), [(7, (4,)), (6, (5,)), (5, (2, 4)), (7, (3, 5))])
@pytest.mark.parametrize("erasure", [False, True])
def test_sensitivity_with_daily_counts_bounds_all_activity(
    horizon: int, windows: tuple[int, ...], erasure: bool
) -> None:
    """Δ² is no less than |Āv|² for any activity, and one in 10⁴ above the worst at most."""
    part = ContributionClass(horizon, windows, daily=True, erasure=erasure)
    metrics = (*(Metric.WAU, Metric.MAU)[: len(windows)], Metric.DAU)
    strategy = lattice_strategy(solve(part, (1.0,) * len(metrics)).form, part, metrics)
    bits = np.array(list(product((0, 1), repeat=horizon)), dtype=np.uint8)
    series = np.repeat(part.series(), len(bits), axis=0)
    activity = np.tile(bits, (len(series) // len(bits), 1))
    possible = part.possible(series, activity)
    contributions = np.hstack([series, activity])[possible][:, release_order(part)]
    squares = np.square(contributions.astype(np.int64) @ strategy.matrix.T).sum(axis=1)
    assert int(squares.max()) <= strategy.sensitivity_squared <= int(squares.max()) * 1.0001


def test_toggle_sensitivity_is_the_maximum() -> None:
    """A searched class has the Δ² of the list."""
    part = ToggleClass(14, 3)
    strategy = lattice_strategy(solve(part, (1.0,), tolerance=0.01).form, part, (Metric.MAU,))
    listed = np.square(part.series().astype(np.int64) @ strategy.matrix.T).sum(axis=1)
    assert int(listed.max()) == strategy.sensitivity_squared


@pytest.mark.parametrize("count", [1, 2, 5, 10])
def test_shared_noise_covers_every_series(count: int) -> None:
    """Over all 0/1 vectors |Āv|² is at most Δ², which is hardly above the maximum."""
    strategy = shared_noise(count, (Metric.DAU,))
    every = np.array(list(product((0, 1), repeat=count)), dtype=np.int64)
    worst = int(np.square(every @ strategy.matrix.T).sum(axis=1).max())
    assert worst <= strategy.sensitivity_squared <= worst * (1 + 1e-4)


@pytest.mark.parametrize(
    ("horizon", "metrics"), [(1, (Metric.DAU,)), (31, (Metric.DAU,)), (31, JOINT), (365, JOINT[:1])]
)
def test_shared_noise_has_its_closed_form(horizon: int, metrics: tuple[Metric, ...]) -> None:
    """Each release has a standard deviation of (√R + 1)/(2μ)."""
    mechanism = LatticeMechanism(shared_noise(horizon, metrics), RHO)
    expected = (math.sqrt(horizon * len(metrics)) + 1) / (2 * math.sqrt(2 * RHO))
    assert np.allclose(mechanism.noise_stddevs(), expected, rtol=2e-3)


def test_rounding_costs_next_to_nothing() -> None:
    """The integer strategy is within 1e-4 of the real one."""
    part = ContributionClass(31, (30,), erasure=False)
    found = solve(part, (1.0,), tolerance=0.01)
    strategy = lattice_strategy(found.form, part, (Metric.MAU,))
    error = math.sqrt(float(np.square(strategy.normalized_stddev()).mean()))
    assert error == pytest.approx(found.error, rel=1e-4)


def test_half_widths_follow_the_normal_law() -> None:
    """The rounded noise lies within h with the coverage, and not within h - 1."""
    mechanism = LatticeMechanism(MONTH, RHO)
    stddevs = mechanism.noise_stddevs()
    assert (31, 3) == stddevs.shape
    for day, (place, metric) in product((0, 15, 30), enumerate(JOINT)):
        stddev = mechanism.noise_stddev(day, metric)
        assert stddev == stddevs[day, place]
        for coverage in (0.5, 0.95, 0.999):
            h = mechanism.half_width(day, metric, coverage)
            assert math.erf((h + 0.5) / (stddev * math.sqrt(2))) >= coverage
            assert h == 0 or math.erf((h - 0.5) / (stddev * math.sqrt(2))) < coverage
    assert mechanism.half_width(15, Metric.DAU) == mechanism.half_width(15, Metric.DAU, 0.95)


def test_state_survives_the_store_and_hides_its_noise() -> None:
    """The state comes back from JSON as it was; printing it shows no noise."""
    mechanism = LatticeMechanism(MONTH, RHO)
    state = mechanism.init(RecordedNoise([123_456_789] * 93))
    _, later = mechanism.step(counted(mechanism, [1, 2, 3]), state)
    assert 1 == later.days
    assert later == LatticeState.from_json(json.loads(json.dumps(later.to_json())))
    assert "LatticeState(noise=<private>, days=1)" == repr(later)


def test_steps_that_were_not_paid_for_are_refused() -> None:
    """Past the horizon, of another width, of other bounds or too large: refused, and no leak."""
    mechanism = LatticeMechanism(shared_noise(1, (Metric.DAU,)), RHO)
    state = mechanism.init(ZeroNoise())
    good = counted(mechanism, [5])
    other = BoundedCount(value=777, bounds=ContributionBounds(2, 1), unit=Unit.USER)
    huge = counted(mechanism, [2**62])
    for counts in ([], good * 2, [other], huge):
        with pytest.raises(InvalidPlanError) as refused:
            mechanism.step(counts, state)
        assert "777" not in str(refused.value) and str(2**62) not in str(refused.value)
    _, after = mechanism.step(good, state)
    with pytest.raises(InvalidPlanError, match="horizon"):
        mechanism.step(good, after)


@pytest.mark.parametrize("rho", [Fraction(0), Fraction(-1), Fraction(10**9), Fraction(1, 10**16)])
def test_charges_out_of_range_are_refused(rho: Fraction) -> None:
    """No cap, or one that takes the noise out of the sampler's range, is refused."""
    with pytest.raises(InvalidPlanError):
        LatticeMechanism(MONTH, rho)


def test_strategies_that_do_not_fit_are_refused() -> None:
    """Wrong shapes, types, triangles, signs and sensitivities are refused."""
    good = np.array([[2, 0], [1, 2]], dtype=np.int64)
    for matrix, squared in [
        (good[:1], 1), (good.astype(np.float64), 1), (good.T.copy(), 1), (-good, 1), (good, 0),
    ]:  # fmt: skip
        with pytest.raises(InvalidPlanError):
            LatticeStrategy(2, (Metric.DAU,), matrix, squared)
    with pytest.raises(InvalidPlanError):
        LatticeStrategy(1, (Metric.DAU, Metric.DAU), good, 5)
    with pytest.raises(InvalidPlanError):
        shared_noise(0, (Metric.DAU,))


def test_arithmetic_that_could_be_inexact_is_refused() -> None:
    """Entries whose sums pass what is exact are refused, for each kind of class."""
    part = ContributionClass(4, (2,), daily=True)
    form = Form(np.eye(4), np.zeros((4, 4)), np.ones(4))
    covariance = form.covariance()[np.ix_(release_order(part), release_order(part))]
    for bits in (26, 29):
        with pytest.raises(InvalidPlanError, match="smaller"):
            sensitivity_squared(quantize(covariance, bits), part)
    with pytest.raises(InvalidPlanError, match="smaller"):
        sensitivity_squared(quantize(np.eye(4), 28), ToggleClass(4, 2))
    with pytest.raises(InvalidPlanError, match="rows"):
        sensitivity_squared(quantize(np.eye(5)), part)
    with pytest.raises(InvalidPlanError, match="rows"):
        sensitivity_squared(quantize(np.eye(5)), ToggleClass(4, 2))


def test_gram_matrix_is_exact() -> None:
    """Ā'Ā agrees with arithmetic on unbounded integers."""
    matrix = MONTH.matrix[:20, :20]
    exact = matrix.astype(object).T @ matrix.astype(object)
    assert exact.tolist() == gram_matrix(matrix).tolist()
