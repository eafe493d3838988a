"""The monthly plan's mechanism: its sensitivity, the law of its noise, its errors, planted bugs.

Three named checks are silent on the product and set off by each mutant: `sensitivity_problem`
(exact, noise off), `law_problem` (false-alarm rate below 1e-6) and `coverage_problem` (likewise).
"""

import math
from collections.abc import Callable
from dataclasses import replace
from fractions import Fraction
from functools import lru_cache
from typing import Any

import numpy as np
import pytest

import dpdau.mechanisms.matrix.lattice as lattice
from dpdau.accounting.calibration import rho_cap
from dpdau.domain import BoundedCount, Metric, Unit
from dpdau.mechanisms.matrix.classes import ContributionClass
from dpdau.mechanisms.matrix.lattice import (
    GRID_BITS,
    LatticeMechanism,
    LatticeState,
    LatticeStrategy,
    sensitivity_squared,
    shared_noise,
)
from dpdau.mechanisms.matrix.strategies import shipped
from dpdau.mechanisms.sampling import NoiseSource, OpenDPNoise
from noise_sources import ZeroNoise

pytestmark = pytest.mark.statistical

Patch = pytest.MonkeyPatch
DAYS, WAU_DAYS, MAU_DAYS = 31, 7, 30
BEFORE = MAU_DAYS - 1
CLASS = ContributionClass(DAYS, (WAU_DAYS, MAU_DAYS), daily=True)
MONTHS = 400
RHO = rho_cap(Fraction(3), Fraction(1, 10**6))


@lru_cache(maxsize=1)
def month() -> LatticeStrategy:
    """The shipped strategy for 31 days."""
    return shipped(DAYS, MAU_DAYS).strategy


def contributions(active: np.ndarray, cut: np.ndarray) -> np.ndarray:
    """(n, 93) what users add to WAU, MAU and DAU of each day, from their bare activity.

    `active` is (n, 29 + 31), the days before the month first; from day `cut` on they are erased.
    """
    found = np.zeros((len(active), DAYS, 3), dtype=np.int64)
    for day in range(DAYS):
        today = BEFORE + day + 1
        kept = day < cut
        found[:, day, 0] = active[:, today - WAU_DAYS : today].any(axis=1) & kept
        found[:, day, 1] = active[:, today - MAU_DAYS : today].any(axis=1) & kept
        found[:, day, 2] = active[:, today - 1] & kept
    return found.reshape(len(active), -1)


def hostile_users(matrix: np.ndarray) -> np.ndarray:
    """(n, 93) contributions of random users, driven uphill one day of activity at a time."""
    generator = np.random.default_rng(31)
    size, width = 40, BEFORE + DAYS
    active = generator.random((size, width)) < generator.choice([0.1, 0.3, 0.6, 0.9], (size, 1))
    quiet = generator.integers(0, width, (size, 2))
    for row, (start, stop) in zip(active, np.sort(quiet, axis=1), strict=True):
        row[start:stop] = False
    cut = generator.integers(1, DAYS + 1, size)
    seen = [contributions(active, cut)]
    for _ in range(20):
        flips = np.repeat(active, width, axis=0)
        place = np.arange(len(flips))
        flips[place, place % width] ^= True
        cuts = np.repeat(cut, width)
        moved = np.repeat(active, DAYS, axis=0)
        moves = np.tile(np.arange(1, DAYS + 1), size)
        rows = contributions(np.vstack([flips, moved]), np.concatenate([cuts, moves]))
        value = np.square(rows @ matrix.T).sum(axis=1)
        owner = np.concatenate(
            [np.repeat(np.arange(size), width), np.repeat(np.arange(size), DAYS)]
        )
        tried, ends = np.vstack([flips, moved]), np.concatenate([cuts, moves])
        for user in range(size):
            best = np.flatnonzero(owner == user)[np.argmax(value[owner == user])]
            active[user], cut[user] = tried[best], ends[best]
        seen.append(contributions(active, cut))
    return np.vstack(seen)


def worst_members(strategy: LatticeStrategy) -> np.ndarray:
    """(n, 93) the class members of largest |Āv|², each with possible activity."""
    series = CLASS.series()
    idle, active = CLASS.activity_range(series)
    order = np.argsort(lattice.release_order(CLASS))
    ordered = strategy.matrix[:, order].astype(np.float64)
    gram = ordered.T @ ordered
    width = DAYS * 2
    gain = 2 * (series @ gram[:width, width:]) + np.diag(gram)[width:]
    activity = np.where(idle & active, gain > 0, active).astype(np.uint8)
    rows = np.hstack([series, activity])
    rows = rows[CLASS.possible(series, activity)][:, lattice.release_order(CLASS)]
    value = np.square(rows @ strategy.matrix.T.astype(np.float64)).sum(axis=1)
    return rows[np.argsort(-value)[:50]].astype(np.int64)


def counted(mechanism: LatticeMechanism, values: np.ndarray) -> list[BoundedCount]:
    """Counts with the bounds that the strategy protects."""
    bounds = mechanism.strategy.bounds
    return [BoundedCount(value=int(value), bounds=bounds, unit=Unit.USER) for value in values]


def released(mechanism: LatticeMechanism, noise: NoiseSource, values: np.ndarray) -> np.ndarray:
    """(n,) the estimates of one horizon, day by day."""
    width = len(mechanism.strategy.metrics)
    state, found = mechanism.init(noise), []
    for day in range(mechanism.strategy.horizon):
        today = counted(mechanism, values[day * width : (day + 1) * width])
        estimates, state = mechanism.step(today, state)
        found += estimates
    return np.array(found)


def sensitivity_problem(mechanism: LatticeMechanism) -> str | None:
    """Noise off: does adding one user move the lattice values by more than was paid for?"""
    paid = 2 * RHO * Fraction(mechanism.scale) ** 2
    tried = np.vstack(users())
    base = np.arange(tried.shape[1]) * 7 + 1_000
    values = np.square(tried @ mechanism.strategy.matrix.T).sum(axis=1)
    for user in tried[np.argsort(-values)[:3]]:
        moved = released(mechanism, ZeroNoise(), base + user)
        difference = (moved - released(mechanism, ZeroNoise(), base)).astype(np.int64)
        lattice_move = mechanism.strategy.matrix.astype(object) @ difference
        found = int((lattice_move**2).sum())
        if found > paid:
            return f"|Av|^2 is {found / float(paid):.4f} of what was paid for"
    return None


@lru_cache(maxsize=1)
def users() -> tuple[np.ndarray, np.ndarray]:
    """Hostile users, and the worst members of the class, for the product's strategy."""
    return hostile_users(month().matrix), worst_members(month())


def noise_of(mechanism: LatticeMechanism, months: int) -> np.ndarray:
    """(months, n) estimates minus counts."""
    source = OpenDPNoise()
    counts = np.arange(len(mechanism.strategy.matrix)) * 11 + 50_000
    return np.array([released(mechanism, source, counts) - counts for _ in range(months)])


def law_problem(mechanism: LatticeMechanism, noise: np.ndarray) -> str | None:
    """Are the lattice values of the noise white, of the variance that was paid for?

    False alarms: 4e-8 for the variance at 5.5 standard errors, 2e-7 for 93 means at 6, and 4e-7 for
    4,278 correlations at 6.5.
    """
    paid = math.sqrt(mechanism.strategy.sensitivity_squared / (2 * RHO))
    white = noise @ mechanism.strategy.matrix.T.astype(np.float64) / paid
    months, size = white.shape
    if abs(white.var() - 1) > 5.5 * math.sqrt(2 / white.size):
        return f"the variance is {white.var():.4f} of what was paid for"
    if np.abs(white.mean(axis=0)).max() > 6 / math.sqrt(months):
        return f"the mean of a release is {np.abs(white.mean(axis=0)).max():.3f} from 0"
    off = np.abs(np.corrcoef(white.T) - np.eye(size)).max()
    if off > 6.5 / math.sqrt(months):
        return f"two lattice values correlate by {off:.3f}"
    return None


def coverage_problem(mechanism: LatticeMechanism, noise: np.ndarray) -> str | None:
    """Do the stated intervals hold the rounded noise as often as the normal law says?

    The share of a month is the mean of 31 correlated days; its standard error is taken between
    months, and 6 of them are allowed for each of the three metrics.
    """
    rounded = np.abs(np.rint(noise)).reshape(len(noise), DAYS, 3)
    stddevs = mechanism.noise_stddevs()
    for place, metric in enumerate(mechanism.strategy.metrics):
        width = np.array([mechanism.half_width(day, metric) for day in range(DAYS)])
        inside = (rounded[:, :, place] <= width).mean(axis=1)
        law = [
            math.erf((h + 0.5) / (sd * math.sqrt(2)))
            for h, sd in zip(width, stddevs[:, place], strict=True)
        ]
        share, error = inside.mean(), inside.std() / math.sqrt(len(inside))
        if abs(share - np.mean(law)) > 6 * error or not 0.94 < share < 0.965:
            return f"{metric} intervals hold {share:.4f}, by law {np.mean(law):.4f}"
    return None


@pytest.fixture(scope="module")
def drawn() -> np.ndarray:
    """The noise of many months of the product."""
    return noise_of(LatticeMechanism(month(), RHO), MONTHS)


def test_the_sensitivity_is_never_passed_and_is_attained() -> None:
    """No hostile user moves the lattice by more than Δ², and the worst one by 0.9999 of it."""
    mechanism = LatticeMechanism(month(), RHO)
    assert sensitivity_problem(mechanism) is None
    climbed, worst = (int(np.square(rows @ month().matrix.T).sum(axis=1).max()) for rows in users())
    assert 0.9999 < worst / month().sensitivity_squared <= 1
    assert 0.98 < climbed / month().sensitivity_squared <= 1


def test_the_noise_is_what_was_paid_for(drawn: np.ndarray) -> None:
    """The lattice noise is white and of the scale that the charge rests on."""
    assert law_problem(LatticeMechanism(month(), RHO), drawn) is None


def test_intervals_hold_what_they_state(drawn: np.ndarray) -> None:
    """The 95 % intervals of 46,500 simulated days hold as often as they should."""
    assert coverage_problem(LatticeMechanism(month(), RHO), drawn) is None


def test_errors_of_a_month(drawn: np.ndarray) -> None:
    """At (3, 1e-6): DAU ≤ 7.5, WAU ≤ 6.8 and MAU ≤ 6.1 users, as computed, without bias."""
    mechanism = LatticeMechanism(month(), RHO)
    by_metric = drawn.reshape(MONTHS, DAYS, 3)
    limits = {Metric.WAU: 6.8, Metric.MAU: 6.1, Metric.DAU: 7.5}
    stated = np.sqrt(np.square(mechanism.noise_stddevs()).mean(axis=0))
    for place, metric in enumerate(mechanism.strategy.metrics):
        found = by_metric[:, :, place]
        error = math.sqrt(float(np.square(found).mean()))
        monthly = np.square(found).mean(axis=1)
        assert abs(error**2 - stated[place] ** 2) < 6 * monthly.std() / math.sqrt(MONTHS)
        assert stated[place] < limits[metric] and error < limits[metric]
        means = found.mean(axis=1)
        assert abs(means.mean()) < 6 * means.std() / math.sqrt(MONTHS)


def test_errors_of_a_month_at_a_third_of_the_budget() -> None:
    """At (1, 1e-6): DAU ≤ 20.6, WAU ≤ 18.7 and MAU ≤ 16.8 users."""
    mechanism = LatticeMechanism(month(), rho_cap(Fraction(1), Fraction(1, 10**6)))
    stated = np.sqrt(np.square(mechanism.noise_stddevs()).mean(axis=0))
    assert (stated < np.array([18.7, 16.8, 20.6])).all()


def test_shared_noise_follows_its_law() -> None:
    """Noise for any 0/1 series: white on the lattice, (√R + 1)/(2μ) on each release."""
    mechanism = LatticeMechanism(shared_noise(DAYS, (Metric.DAU,)), RHO)
    noise = noise_of(mechanism, 3_000)
    assert law_problem(mechanism, noise) is None
    expected = (math.sqrt(DAYS) + 1) / (2 * math.sqrt(2 * RHO))
    assert math.sqrt(float(np.square(noise).mean())) == pytest.approx(expected, rel=0.06)


def _with_sensitivity(squared: int) -> LatticeStrategy:
    return replace(month(), sensitivity_squared=squared)


def _matrix_recomputed_after_calibration(patch: Patch) -> LatticeStrategy:
    other = np.tril(np.rint(month().matrix * 1.003)).astype(np.int64)
    return replace(month(), matrix=other)


def _sensitivity_of_one_coordinate(patch: Patch) -> LatticeStrategy:
    return _with_sensitivity(int(np.square(month().matrix).sum(axis=0).max()))


def _sensitivity_of_busy_users_alone(patch: Patch) -> LatticeStrategy:
    exact = ContributionClass.activity_range

    def busy(self: ContributionClass, series: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        idle, active = exact(self, series)
        return idle & ~active, active

    with patch.context() as only:
        only.setattr(ContributionClass, "activity_range", busy)
        return _with_sensitivity(sensitivity_squared(month().matrix, CLASS))


def _sensitivity_without_erasure(patch: Patch) -> LatticeStrategy:
    return _with_sensitivity(sensitivity_squared(month().matrix, replace(CLASS, erasure=False)))


def _variance_used_as_scale(patch: Patch) -> LatticeStrategy:
    exact = lattice.scale_for
    patch.setattr(lattice, "scale_for", lambda d2, rho: exact(d2, rho) / math.sqrt(2))
    return month()


def _epsilon_used_as_rho(patch: Patch) -> LatticeStrategy:
    exact = lattice.scale_for
    patch.setattr(lattice, "scale_for", lambda d2, rho: exact(d2, Fraction(3)))
    return month()


def _draws(change: Callable[[Any, float, int], Any]) -> Callable[[Patch], LatticeStrategy]:
    def mutate(patch: Patch) -> LatticeStrategy:
        exact = OpenDPNoise.discrete_gaussian
        patch.setattr(
            OpenDPNoise,
            "discrete_gaussian",
            lambda self, scale, size: change(lambda s, n: exact(self, s, n), scale, size),
        )
        return month()

    return mutate


_one_draw_shared = _draws(lambda draw, scale, size: np.full(size, draw(scale, 1)[0]))
_noise_five_percent_small = _draws(lambda draw, scale, size: draw(scale * 0.95, size))
_noise_never_negative = _draws(lambda draw, scale, size: abs(draw(scale, size)))
_every_second_draw_repeated = _draws(
    lambda draw, scale, size: np.repeat(draw(scale, size // 2 + 1), 2)[:size]
)


def _first_day_noise_every_day(patch: Patch) -> LatticeStrategy:
    step = LatticeMechanism.step

    def stuck(self: LatticeMechanism, counts: Any, state: LatticeState) -> Any:
        estimates, _ = step(self, counts, replace(state, days=0))
        return estimates, replace(state, days=state.days + 1)

    patch.setattr(LatticeMechanism, "step", stuck)
    return month()


def _correlation_forgotten(patch: Patch) -> LatticeStrategy:
    def alone(matrix: np.ndarray, drawn: list[int]) -> list[int]:
        pivots = np.diag(matrix).tolist()
        return [(part << GRID_BITS) // pivot for part, pivot in zip(drawn, pivots, strict=True)]

    patch.setattr(lattice, "spread_noise", alone)
    return month()


def _interval_halved(patch: Patch) -> LatticeStrategy:
    exact = LatticeMechanism.half_width
    patch.setattr(LatticeMechanism, "half_width", lambda self, day, m: exact(self, day, m) // 2)
    return month()


def _interval_of_another_metric(patch: Patch) -> LatticeStrategy:
    exact = LatticeMechanism.half_width
    patch.setattr(LatticeMechanism, "half_width", lambda self, day, m: exact(self, day, Metric.MAU))
    return month()


@pytest.mark.parametrize(
    "mutant",
    [
        _matrix_recomputed_after_calibration,
        _sensitivity_of_one_coordinate,
        _sensitivity_of_busy_users_alone,
        _sensitivity_without_erasure,
        _variance_used_as_scale,
        _epsilon_used_as_rho,
    ],
)
def test_sensitivity_check_catches(
    mutant: Callable[[Patch], LatticeStrategy], monkeypatch: Patch
) -> None:
    """The exact check with the noise off catches errors of calibration."""
    mechanism = LatticeMechanism(mutant(monkeypatch), RHO)
    assert sensitivity_problem(mechanism) is not None


@pytest.mark.parametrize(
    "mutant",
    [
        _variance_used_as_scale,
        pytest.param(_one_draw_shared, id="_one_draw_shared"),
        pytest.param(_noise_five_percent_small, id="_noise_five_percent_small"),
        pytest.param(_noise_never_negative, id="_noise_never_negative"),
        pytest.param(_every_second_draw_repeated, id="_every_second_draw_repeated"),
        _first_day_noise_every_day,
        _correlation_forgotten,
    ],
)
def test_law_check_catches(mutant: Callable[[Patch], LatticeStrategy], monkeypatch: Patch) -> None:
    """The law of 400 months shows noise that is too small, biased, shared or not correlated."""
    mechanism = LatticeMechanism(mutant(monkeypatch), RHO)
    assert law_problem(mechanism, noise_of(mechanism, 400)) is not None


@pytest.mark.parametrize("mutant", [_interval_halved, _interval_of_another_metric])
def test_coverage_check_catches(
    mutant: Callable[[Patch], LatticeStrategy], monkeypatch: Patch, drawn: np.ndarray
) -> None:
    """Intervals that are too narrow, or of another metric, hold too rarely."""
    mechanism = LatticeMechanism(mutant(monkeypatch), RHO)
    assert coverage_problem(mechanism, drawn) is not None
