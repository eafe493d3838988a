"""Named checks of mechanisms of whole horizons: each says what is wrong, or nothing.

The same functions are tests of the product, where they find nothing, and the alarms that planted
bugs must set off. In three layers: what a user can move, exactly, with the noise off; the law of
the noise; and what a black box gives away about its worst user.
"""

import math
from collections.abc import Callable
from fractions import Fraction
from functools import lru_cache
from typing import Any

import numpy as np
from scipy import stats

import dpdau.mechanisms.matrix.lattice as lattice
from dpdau.accounting.calibration import rho_cap
from dpdau.domain import BoundedCount, Metric, Unit
from dpdau.mechanisms.matrix.classes import ContributionClass, ToggleClass
from dpdau.mechanisms.matrix.lattice import GRID_BITS, LatticeMechanism, LatticeStrategy
from dpdau.mechanisms.matrix.strategies import shipped
from dpdau.mechanisms.matrix.toeplitz import sqrt_toeplitz
from dpdau.mechanisms.sampling import NoiseSource, OpenDPNoise
from noise_sources import ZeroNoise

DAYS, WAU_DAYS, MAU_DAYS = 31, 7, 30
BEFORE = MAU_DAYS - 1
CLASS = ContributionClass(DAYS, (WAU_DAYS, MAU_DAYS), daily=True)
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


def counted(mechanism: Any, values: np.ndarray) -> list[BoundedCount]:
    """Counts with the bounds that the strategy protects."""
    bounds = mechanism.strategy.bounds
    return [BoundedCount(value=int(value), bounds=bounds, unit=Unit.USER) for value in values]


def released(mechanism: Any, noise: NoiseSource, values: np.ndarray) -> np.ndarray:
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


def noise_of(mechanism: Any, months: int) -> np.ndarray:
    """(months, n) estimates minus counts."""
    source = OpenDPNoise()
    counts = np.arange(mechanism.strategy.matrix.shape[1]) * 11 + 50_000
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
        if abs(share - np.mean(law)) > 6 * error or not 0.94 < np.mean(law) < 0.965:
            return f"{metric} intervals hold {share:.4f}, by law {np.mean(law):.4f}"
    return None


def capped(wanted: np.ndarray, toggles: int) -> np.ndarray:
    """(n, days) series that follow the wanted ones, day by day, for at most so many changes."""
    current, used = np.zeros(len(wanted), dtype=np.int64), np.zeros(len(wanted), dtype=np.int64)
    found = np.empty(wanted.shape, dtype=np.int64)
    for day in range(wanted.shape[1]):
        changes = (wanted[:, day] != current) & (used < toggles)
        current, used = np.where(changes, wanted[:, day], current), used + changes
        found[:, day] = current
    return found


def edited_series(toggles: int, cap: Callable[[np.ndarray, int], np.ndarray]) -> np.ndarray:
    """(n, 31) what users contribute to one series whose past is edited at will, under a cap.

    Random series of every pace, and every series of the toggle class itself, which a user can
    cause and no cap may touch.
    """
    generator = np.random.default_rng(17)
    pace = generator.choice([0.05, 0.15, 0.4, 0.8], (3_000, 1))
    wanted = (generator.random((3_000, DAYS)) < pace).cumsum(axis=1) % 2
    return cap(np.vstack([wanted, ToggleClass(DAYS, toggles).series()]).astype(np.int64), toggles)


def edits_problem(strategy: LatticeStrategy, users: np.ndarray) -> str | None:
    """Noise off: does a user whose past is edited move the lattice by more than Δ?"""
    worst = int(np.square(users @ strategy.matrix.T).sum(axis=1).max())
    if worst > strategy.sensitivity_squared:
        return f"|Av|^2 is {worst / strategy.sensitivity_squared:.4f} of what was paid for"
    return None


def shape_problem(mechanism: LatticeMechanism, noise: np.ndarray) -> str | None:
    """Are the lattice values integers, of the shape of the law?

    Integers, exactly: estimates are integers of 2⁻³² users, so that Ā times them is known without
    rounding, and lies within the rounding of the estimates of a whole number of lattice units.
    The shape by Kolmogorov's distance, whose p-value is below 1e-8 in one of 10⁸ runs.
    """
    matrix = mechanism.strategy.matrix
    for month_noise in noise[:3]:
        exact = [int(part) for part in np.rint(month_noise * 2.0**GRID_BITS)]
        for row in matrix.tolist():
            value = sum(a * e for a, e in zip(row, exact, strict=True))
            off = abs(value - round(Fraction(value, 2**GRID_BITS)) * 2**GRID_BITS)
            if off > sum(map(abs, row)):
                return "a lattice value is no integer"
    paid = math.sqrt(mechanism.strategy.sensitivity_squared / (2 * RHO))
    white = (noise @ matrix.T.astype(np.float64) / paid).ravel()
    if stats.kstest(white, "norm").pvalue < 1e-8:
        return "the noise is of another shape"
    return None


def restart_problem(mechanism: LatticeMechanism, restarts: int = 120) -> str | None:
    """Is the noise after a restart independent of the noise before it?

    The last value, one of some 10¹¹ multiples of 2⁻³² users, never comes again, but by a chance of
    1e-7; and the lattice values of consecutive starts correlate by less than 6 standard errors.
    """
    starts = np.array([mechanism.init(OpenDPNoise()).noise for _ in range(restarts)])
    last = starts[:, -1]
    if len(np.unique(last)) < restarts:
        return "noise came again after a restart"
    white = starts @ mechanism.strategy.matrix.T.astype(np.float64)
    before, after = white[:-1].ravel(), white[1:].ravel()
    if abs(np.corrcoef(before, after)[0, 1]) > 6 / math.sqrt(before.size):
        return "noise depends on that before the restart"
    return None


def black_box_problem(mechanism: LatticeMechanism, runs: int = 4_000) -> str | None:
    """Can an analyst tell the worst user's presence better than was paid for?

    The statistic is the likelihood ratio (Āv)'C⁻¹y of the lattice values y, with C estimated on one
    half of the runs without the user; the other half and the runs with the user measure its power
    μ̂. An alarm is μ̂ - 5 standard errors > √(2ρ): 3e-7 false ones. It sees factors of √2, not 5 %:
    with 4,000 runs it misses √2 once in 10⁸ times.
    """
    matrix = mechanism.strategy.matrix
    series = ToggleClass(mechanism.strategy.horizon, 3).series().astype(np.int64)
    moves = series @ matrix.T
    user = series[np.square(moves).sum(axis=1).argmax()]
    source, base = OpenDPNoise(), np.arange(len(user)) * 5 + 900
    arms = []
    for counts, times in ((base, 2 * runs), (base + user, runs)):
        seen = np.array([released(mechanism, source, counts) for _ in range(times)])
        arms.append((seen - base) @ matrix.T.astype(np.float64))
    known, without, present = arms[0][:runs], arms[0][runs:], arms[1]
    covariance = np.cov(known.T)
    covariance += np.eye(len(covariance)) * (1e-9 * np.trace(covariance) + 1e-9)
    direction = np.linalg.solve(covariance, matrix @ user)
    lower, upper = without @ direction, present @ direction
    power = (upper.mean() - lower.mean()) / lower.std()
    error = math.sqrt(2 / runs + power**2 / (2 * runs))
    if power - 5 * error > math.sqrt(2 * RHO):
        return f"μ is at least {power - 5 * error:.3f}, paid for {math.sqrt(2 * RHO):.3f}"
    return None


@lru_cache(maxsize=2)
def single_series(days: int) -> LatticeStrategy:
    """For one series that changes at most three times."""
    return sqrt_toeplitz(days, Metric.MAU, 3)
