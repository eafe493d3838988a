"""The matrix mechanism on an integer lattice: many correlated releases, one exact charge.

A strategy is a lower-triangular integer matrix Ā over the releases in the order in which they are
made. The mechanism is y = Āx + z with z discrete Gaussian; what is published is Ā⁻¹y, computed from
y alone. Everything that the guarantee rests on is an integer: Ā, its sensitivity over the class,
the counts and the noise.

Guarantee, for a user whose contributions stay in the class on every path: let u = Āv. Step j is a
discrete Gaussian mechanism of cost u_j²/(2s²), which may depend on what was published before. On
every path the costs add up to |u|²/(2s²) ≤ Δ²/(2s²) = ρ, so by the fully adaptive composition of
zCDP the whole is ρ-zCDP against an analyst, and a stream, that react to the releases.

Source: Denisov, McMahan, Rush, Smith, Thakurta 2022 (lower-triangular factors are adaptive);
Whitehouse, Ramdas, Rogers, Wu 2023 (fully adaptive zCDP); Canonne, Kamath, Steinke 2020, Theorem 4.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from fractions import Fraction
from statistics import NormalDist
from typing import Any, ClassVar, Final, Generic, Protocol, Self, TypeVar

import numpy as np
from numpy.typing import NDArray

from dpdau.domain import BoundedCount, ContributionBounds, Metric, Unit
from dpdau.errors import InvalidPlanError
from dpdau.mechanisms.base import COUNT_LIMIT, check_coverage
from dpdau.mechanisms.matrix.classes import ContributionClass, Series, ToggleClass
from dpdau.mechanisms.matrix.covariance import Form
from dpdau.mechanisms.sampling import NoiseSource, check_scale

LATTICE_BITS: Final = 20
"""A strategy is rounded to multiples of 2⁻²⁰: 4e-5 more noise than the real optimum, or less."""
LONG_LATTICE_BITS: Final = 14
"""For toggle classes that are searched and not listed, so that their sums fit 64 bits."""
GRID_BITS: Final = 32
"""Estimates are multiples of 2⁻³² users, so that they are the same on every machine."""
SCALE_MIN: Final = 1_024.0
"""Below it, quantiles of the normal law would not be those of the lattice."""
RELEASES_MAX: Final = 4_096
_EXACT_MAX: Final = 2**52
_SEARCH_MAX: Final = 2**57
_CHUNK_ROWS: Final = 50_000

Integers = NDArray[np.int64]
StrategyT = TypeVar("StrategyT", bound="Strategy")


class Strategy(Protocol):
    """Integer values of the counts, to which noise is added, and estimates made from the sums."""

    @property
    def horizon(self) -> int:
        """Days."""

    @property
    def metrics(self) -> tuple[Metric, ...]:
        """What is released on each day, in order."""

    @property
    def sensitivity_squared(self) -> int:
        """The most that one user adds to the sum of squares of the values."""

    @property
    def matrix(self) -> Integers:
        """(values, releases) int64: the values, as sums of multiples of the counts."""

    @property
    def bounds(self) -> ContributionBounds:
        """What one user may do to the counts."""

    def spread(self, drawn: Sequence[int]) -> list[int]:
        """The noise of each estimate, in 2⁻³² users, from the noise of each value."""

    def normalized_stddev(self) -> NDArray[np.float64]:
        """(horizon, metrics) standard deviation of the estimates at ρ = ½, in users."""


@dataclass(frozen=True, slots=True, eq=False)
class LatticeStrategy:
    """An integer strategy and its sensitivity over a class.

    Args:
        horizon: Days.
        metrics: What is released on each day, in order.
        matrix: (n, n) int64, n = horizon · metrics, lower triangular, positive on the diagonal.
        sensitivity_squared: An upper bound on |`matrix` v|² over the class.

    Raises:
        InvalidPlanError: The parts do not fit each other.
    """

    horizon: int
    metrics: tuple[Metric, ...]
    matrix: Integers
    sensitivity_squared: int

    def __post_init__(self) -> None:
        size = self.horizon * len(self.metrics)
        if not 1 <= size <= RELEASES_MAX or len(set(self.metrics)) != len(self.metrics):
            raise InvalidPlanError(
                f"Expected 1..{RELEASES_MAX} releases of distinct metrics,"
                f" found {self.horizon} days of {self.metrics}."
            )
        if self.matrix.shape != (size, size) or self.matrix.dtype != np.int64:
            raise InvalidPlanError(f"Expected an int64 matrix of {size} rows and columns.")
        if np.triu(self.matrix, 1).any() or (np.diag(self.matrix) <= 0).any():
            raise InvalidPlanError("Expected a lower-triangular matrix with a positive diagonal.")
        if self.sensitivity_squared < 1:
            raise InvalidPlanError("Expected a positive sensitivity.")

    @property
    def bounds(self) -> ContributionBounds:
        """What one user may do to the counts that this strategy protects."""
        return ContributionBounds(max_per_count=1, max_active_steps=len(self.matrix))

    def spread(self, drawn: Sequence[int]) -> list[int]:
        """The noise of each estimate, in 2⁻³² users, from the noise of each row."""
        return spread_noise(self.matrix, drawn)

    def normalized_stddev(self) -> NDArray[np.float64]:
        """(horizon, metrics) standard deviation at ρ = ½, in users."""
        stddev: NDArray[np.float64] = np.sqrt(np.diag(self.covariance(Fraction(1, 2))))
        return stddev.reshape(self.horizon, len(self.metrics))

    def covariance(self, rho: Fraction) -> NDArray[np.float64]:
        """(n, n) covariance Ā⁻¹Ā⁻ᵀ Δ² / 2ρ of the estimates in order, in users²."""
        inverse = np.linalg.inv(self.matrix.astype(np.float64))
        product: NDArray[np.float64] = inverse @ inverse.T
        return product * (self.sensitivity_squared / float(2 * rho))


@dataclass(frozen=True, slots=True)
class LatticeState:
    """Private: the noise of the whole horizon, and how many days have been released.

    Shapes and units:
        noise: one integer for each release, in 2⁻³² users.
    """

    noise: tuple[int, ...]
    days: int = 0

    def __repr__(self) -> str:
        return f"LatticeState(noise=<private>, days={self.days})"

    def to_json(self) -> dict[str, Any]:
        """For the private store alone: whoever has it can take the noise off the releases."""
        return {"noise": list(self.noise), "days": self.days}

    @classmethod
    def from_json(cls, body: Mapping[str, Any]) -> Self:
        """The inverse of `to_json`."""
        return cls(tuple(int(part) for part in body["noise"]), int(body["days"]))


@dataclass(frozen=True, slots=True, eq=False)
class StrategyMechanism(Generic[StrategyT]):
    """The counts of every day of a horizon, with the noise of a whole strategy drawn ahead.

    Args:
        strategy: Integer values of the counts, and how estimates are made from them.
        rho_cap: The most that the whole horizon may cost, in zCDP; `accounting` gives it for
            an (ε, δ).

    Raises:
        InvalidPlanError: The cap is out of range.
    """

    strategy: StrategyT
    rho_cap: Fraction

    def __post_init__(self) -> None:
        if self.rho_cap <= 0:
            raise InvalidPlanError(f"Expected a rho cap above 0, found {self.rho_cap}.")
        check_lattice_scale(self.scale)

    @property
    def scale(self) -> float:
        """The s of the lattice noise: the least float, or next to it, with Δ²/(2s²) ≤ the cap."""
        return scale_for(self.strategy.sensitivity_squared, self.rho_cap)

    @property
    def rho(self) -> Fraction:
        """zCDP cost Δ²/(2s²) of the whole horizon, exact."""
        return Fraction(self.strategy.sensitivity_squared) / (2 * Fraction(self.scale) ** 2)

    def init(self, noise: NoiseSource) -> LatticeState:
        """Draws the noise of every release. The result is secret; it must be kept and never drawn
        anew for the same counts.
        """
        drawn = noise.discrete_gaussian(self.scale, len(self.strategy.matrix))
        return LatticeState(tuple(self.strategy.spread(drawn.tolist())))

    def step(
        self, counts: Sequence[BoundedCount], state: LatticeState
    ) -> tuple[tuple[float, ...], LatticeState]:
        """The estimates of the next day, in the order of the metrics, and the state after it.

        Raises:
            InvalidPlanError: The bounds are not the ones the sensitivity rests on, or the horizon
                is used up.
        """
        width = len(self.strategy.metrics)
        if state.days >= self.strategy.horizon:
            raise InvalidPlanError(
                f"Expected a day within the horizon of {self.strategy.horizon}, found another."
            )
        if len(counts) != width or len(state.noise) != width * self.strategy.horizon:
            raise InvalidPlanError(f"Expected {width} counts and their noise, found others.")
        for count in counts:
            check_bounds(count, self.strategy.bounds)
        noise = state.noise[state.days * width : (state.days + 1) * width]
        estimates = tuple(
            ((count.value << GRID_BITS) + part) / (1 << GRID_BITS)
            for count, part in zip(counts, noise, strict=True)
        )
        return estimates, replace(state, days=state.days + 1)

    def noise_stddev(self, day: int, metric: Metric) -> float:
        """Standard deviation of one estimate, in users; `day` counts from 0."""
        return float(self.noise_stddevs()[day, self.strategy.metrics.index(metric)])

    def noise_stddevs(self) -> NDArray[np.float64]:
        """(horizon, metrics) standard deviations, in users."""
        return self.strategy.normalized_stddev() / math.sqrt(2 * self.rho)

    def half_width(self, day: int, metric: Metric, coverage: float = 0.95) -> int:
        """The least integer h with P(|noise, rounded to an integer| ≤ h) ≥ coverage.

        Raises:
            InvalidPlanError: coverage is not in (0, 1 - 1e-9].
        """
        return rounded_half_width(self.noise_stddev(day, metric), coverage)


class LatticeMechanism(StrategyMechanism[LatticeStrategy]):
    """The counts of every day of a horizon, with correlated noise drawn ahead.

    Args:
        strategy: The integer strategy.
        rho_cap: The most that the whole horizon may cost, in zCDP; `accounting` gives it for
            an (ε, δ).

    Guarantee: all releases of the horizon together are ρ-zCDP under add-or-remove-one user,
    ρ = Δ² / (2s²) ≤ `rho_cap` exactly, for users whose contributions stay in the class that Δ² was
    computed for. Estimates are unbiased, and those of a day rest on no later day.

    Edge cases:
        | input | outcome |
        |---|---|
        | ρ so large or small that the noise leaves the sampler's range | refused |
        | counts of other bounds, another number of counts, or a day past the horizon | refused |

    Raises:
        InvalidPlanError: The cap is out of range.
    """

    __slots__ = ()

    name: ClassVar[str] = "matrix_discrete_gaussian"


def check_bounds(count: BoundedCount, bounds: ContributionBounds) -> None:
    """Refuses a count that the strategy does not protect; the message never holds the count."""
    if count.unit is not Unit.USER or count.bounds != bounds:
        raise InvalidPlanError(
            f"Expected counts of unit {Unit.USER} and {bounds},"
            f" found {count.unit} and {count.bounds}."
        )
    if not -COUNT_LIMIT < count.value < COUNT_LIMIT:
        raise InvalidPlanError("Expected a count within ±2^62, found one beyond it.")


def rounded_half_width(stddev: float, coverage: float) -> int:
    """The least integer h with P(|noise, rounded to an integer| ≤ h) ≥ coverage.

    The noise is a sum of discrete Gaussians of scale ≥ `SCALE_MIN` on a lattice much finer than a
    user; its quantiles are those of the normal law to far more digits than a float holds.

    Raises:
        InvalidPlanError: coverage is not in (0, 1 - 1e-9].
    """
    check_coverage(coverage)
    quantile = NormalDist().inv_cdf((1 + coverage) / 2)
    return max(0, math.ceil(quantile * stddev - 0.5))


def check_lattice_scale(scale: float) -> None:
    """Refuses noise that the sampler does not draw, or that is too coarse for the lattice.

    Raises:
        InvalidPlanError: The scale is out of range.
    """
    check_scale(scale)
    if scale < SCALE_MIN:
        raise InvalidPlanError(
            f"Expected a noise scale of at least {SCALE_MIN:g} lattice units, found {scale:g}."
        )


def scale_for(sensitivity_squared: int, rho_cap: Fraction) -> float:
    """A float s with `sensitivity_squared` / (2s²) ≤ `rho_cap` in exact arithmetic, hardly larger
    than the least one.
    """
    scale = math.sqrt(sensitivity_squared / (2 * rho_cap))
    while Fraction(sensitivity_squared) > 2 * rho_cap * Fraction(scale) ** 2:
        scale = math.nextafter(scale, math.inf)
    return scale


def spread_noise(matrix: Integers, drawn: Sequence[int]) -> list[int]:
    """The noise ν of the estimates, in 2⁻³² users, from the lattice noise z.

    Guarantee: x + ν is a function of y = Āx + z alone. For solving Ā e = y from the first row to
    the last, each e_j rounded to the grid, gives e_j = x_j + ν_j exactly: the counts are multiples
    of the grid, so they pass through each rounding unchanged.
    """
    noise: list[int] = []
    for row, part in zip(matrix.tolist(), drawn, strict=True):
        pivot = row[len(noise)]
        left = (part << GRID_BITS) - sum(map(int.__mul__, row, noise))
        noise.append((2 * left + pivot) // (2 * pivot))
    return noise


def quantize(covariance: NDArray[np.float64], bits: int = LATTICE_BITS) -> Integers:
    """The strategy L⁻¹, for the covariance LL' of the releases in order, times 2^`bits`, rounded.

    Rounding moves the covariance a little, and the sensitivity is computed from what comes out.
    """
    inverse = np.linalg.inv(np.linalg.cholesky(covariance))
    return np.tril(np.rint(inverse * 2.0**bits)).astype(np.int64)


def release_order(contribution: ContributionClass) -> NDArray[np.int64]:
    """(n,) for each release in order, its place among the window counts and then the daily ones."""
    windows, days = len(contribution.windows), contribution.horizon
    order = np.arange(windows * days).reshape(days, windows)
    if contribution.daily:
        daily = windows * days + np.arange(days)
        order = np.hstack([order, daily[:, None]])
    return order.ravel()


def lattice_strategy(
    form: Form, contribution: ContributionClass | ToggleClass, metrics: tuple[Metric, ...]
) -> LatticeStrategy:
    """The integer strategy of a form over its class.

    `metrics` names the windows from the shortest to the longest, and then the daily count.

    Raises:
        InvalidPlanError: The parts do not fit each other.
    """
    covariance = form.covariance()
    if isinstance(contribution, ToggleClass):
        matrix = quantize(covariance, LONG_LATTICE_BITS)
    else:
        order = release_order(contribution)
        matrix = quantize(covariance[np.ix_(order, order)])
    return LatticeStrategy(
        horizon=contribution.horizon,
        metrics=metrics,
        matrix=matrix,
        sensitivity_squared=sensitivity_squared(matrix, contribution),
    )


def sensitivity_squared(
    matrix: Integers,
    contribution: ContributionClass | ToggleClass,
    *,
    series: Series | None = None,
) -> int:
    """An upper bound on |Āv|² over the class, by enumeration in integers.

    Without daily counts it is the maximum. With them, let m be the window part of v, a its daily
    part, u = Ā(m, 0), and G = Ā'Ā on the daily columns:

        |Āv|² = |u|² + Σ_t a_t (2 (Ā'u)_t + G_tt) + 2 Σ_{s<t} G_st a_s a_t

    The first sum is maximized day by day within `activity_range`; the last is at most the sum of
    the positive G_st, which are nothing but rounding (below 1e-4 of the whole). A caller that has
    listed the class already passes its `series`.

    Raises:
        InvalidPlanError: The matrix does not fit the class, or its entries are too large for
            exact arithmetic.
    """
    if isinstance(contribution, ToggleClass):
        return _searched(matrix, contribution)
    if len(matrix) != contribution.releases:
        raise InvalidPlanError(f"Expected {contribution.releases} rows, found {len(matrix)}.")
    order = np.argsort(release_order(contribution))
    ordered = matrix[:, order]
    gram = gram_matrix(ordered)
    width = contribution.horizon * len(contribution.windows)
    daily = gram[width:, width:]
    slack = 2 * int(np.maximum(np.triu(daily, 1), 0).sum())
    # Sums of integers below 2⁵³ are exact in doubles, where they are much faster; the squares only
    # grow, so a total that is below is proof that every part of it was.
    rows = ordered[:, :width].T.astype(np.float64)
    cross = gram[:width, width:].astype(np.float64)
    if np.abs(cross).sum(axis=0).max(initial=0.0) >= _EXACT_MAX / 4:
        raise InvalidPlanError("Expected a strategy with smaller entries.")
    series = contribution.series() if series is None else series
    best = 0
    for start in range(0, len(series), _CHUNK_ROWS):
        part = series[start : start + _CHUNK_ROWS]
        held = part.astype(np.float64)
        total = np.square(held @ rows).sum(axis=1)
        if total.max() >= _EXACT_MAX:
            raise InvalidPlanError("Expected a strategy with smaller entries.")
        if contribution.daily:
            idle, active = contribution.activity_range(part)
            gain = 2 * (held @ cross) + np.diag(daily)
            total += np.where(active, np.where(idle, np.maximum(gain, 0), gain), 0).sum(axis=1)
        best = max(best, int(total.max()))
    return best + slack


def gram_matrix(matrix: Integers) -> Integers:
    """Ā'Ā, exact.

    Raises:
        InvalidPlanError: A sum of products could pass 64 bits.
    """
    if float(np.square(matrix.astype(np.float64)).sum(axis=0).max()) >= _SEARCH_MAX:
        raise InvalidPlanError("Expected a strategy with smaller entries.")
    return matrix.T @ matrix


def shared_noise(horizon: int, metrics: tuple[Metric, ...]) -> LatticeStrategy:
    """For 0/1 contributions of any kind: independent noise plus noise common to all releases.

    With R releases, variances (R + √R)/4 and (√R + 1)/4 at ρ = ½ give a standard deviation of
    (√R + 1)/2 instead of √R.

    Guarantee: covers every series in {0, 1}^R, with no assumption on the stream. With a the largest
    diagonal entry of Ā'Ā and -b its largest other one, a series of k ones has |Āv|² ≤ ak - bk(k-1),
    and the sensitivity is the maximum of that over k.

    Source: Lebeda 2024, "Better Gaussian Mechanism using Correlated Noise".
    """
    count = horizon * len(metrics)
    if not 1 <= count <= RELEASES_MAX:
        raise InvalidPlanError(f"Expected 1..{RELEASES_MAX} releases, found {count}.")
    root = math.sqrt(count)
    covariance = (count + root) / 4 * np.eye(count) + (root + 1) / 4
    matrix = quantize(covariance)
    gram = gram_matrix(matrix)
    apart = ~np.eye(count, dtype=bool)
    diagonal, other = int(np.diag(gram).max()), int(gram[apart].max()) if count > 1 else 0
    worst = max(k * diagonal + k * (k - 1) * other for k in range(count + 1))
    return LatticeStrategy(horizon, metrics, matrix, worst)


def _searched(matrix: Integers, contribution: ToggleClass) -> int:
    """The maximum over a toggle class, by exhaustive search in 64-bit integers."""
    if len(matrix) != contribution.horizon:
        raise InvalidPlanError(f"Expected {contribution.horizon} rows, found {len(matrix)}.")
    gram = gram_matrix(matrix)
    if float(np.abs(gram).astype(np.float64).sum()) >= _SEARCH_MAX:
        raise InvalidPlanError("Expected a strategy with smaller entries.")
    values, _ = contribution.worst(gram)
    return int(values.max())
