"""Discrete Gaussian noise: zero-concentrated differential privacy for one integer count."""

import functools
import math
from dataclasses import dataclass
from fractions import Fraction
from functools import lru_cache
from statistics import NormalDist
from typing import ClassVar, Final

import numpy as np

from dpdau.domain import BoundedCount
from dpdau.errors import InvalidPlanError
from dpdau.mechanisms.base import OneStep, check_count, check_coverage, check_sensitivity
from dpdau.mechanisms.sampling import NoiseSource, check_scale

_SUM_SIGMA_MAX: Final = 8.0
"""Below it moments are summed; above it 4π²σ² exp(-2π²σ²), what the sums differ by, is < 1e-500."""
_SUM_REACH: Final = 12
"""Sums run to 12 σ: what is left out is below exp(-72) of the whole."""
_SUM_TAIL_SIGMA_MAX: Final = 1_000.0


@dataclass(frozen=True, slots=True, kw_only=True)
class DiscreteGaussian:
    """One count plus noise with P(x) ∝ exp(-x² / (2 σ²)) on the integers.

    Args:
        sigma: Scale of the noise, a float that stands for its exact rational value.
        epsilon: ε of the pair that σ was calibrated to (`accounting.calibration.gaussian_sigma`).
        delta: δ of that pair, 0 < δ < 1.
        sensitivity: The most that one user can move the count, 1 for distinct users.

    Guarantee: for counts whose bounds match `sensitivity`, the release is ρ-zCDP under
    add-or-remove-one user with ρ = sensitivity² / (2 σ²), exactly. It is (ε, δ)-differentially
    private whenever ρ is at most the tight cap of (ε, δ); `accounting.budget` checks that before
    it takes the charge.

    Shapes and units: σ, `noise_stddev` and `half_width` are in users. σ is not the standard
    deviation: at small σ the discrete law is narrower.

    Edge cases:
        | input | outcome |
        |---|---|
        | σ not finite or outside the sampler's range, ε ≤ 0, δ outside (0, 1) | refused |
        | horizon other than 1, or a second step | refused |
        | bounds other than (sensitivity, 1) | refused before anything is drawn |

    Source: Canonne, Kamath, Steinke 2020, Theorem 4 (zCDP) and Algorithm 3 (sampler).

    Raises:
        InvalidPlanError: The parameters are out of range.

    Example:
        >>> noise = DiscreteGaussian(sigma=4.0, epsilon=Fraction(1), delta=Fraction(1, 10**6))
        >>> noise.rho, noise.half_width()
        (Fraction(1, 32), 8)
    """

    sigma: float
    epsilon: Fraction
    delta: Fraction
    sensitivity: int = 1

    name: ClassVar[str] = "discrete_gaussian"

    def __post_init__(self) -> None:
        check_sensitivity(self.sensitivity)
        check_scale(self.sigma)
        if self.epsilon <= 0:
            raise InvalidPlanError(f"Expected epsilon > 0, found {self.epsilon}.")
        if not 0 < self.delta < 1:
            raise InvalidPlanError(f"Expected 0 < delta < 1, found {self.delta}.")

    @property
    def sigma_exact(self) -> Fraction:
        """The rational number that the float σ stands for; what accounting charges."""
        return Fraction(self.sigma)

    @property
    def rho(self) -> Fraction:
        """zCDP cost sensitivity² / (2 σ²), exact."""
        return Fraction(self.sensitivity**2) / (2 * self.sigma_exact**2)

    @property
    def noise_stddev(self) -> float:
        """True standard deviation of the discrete law, in users."""
        return _stddev(self.sigma)

    def init(self, horizon: int) -> OneStep:
        """The state before the one step; refuses any horizon but 1."""
        return OneStep.init(horizon)

    def step(self, count: BoundedCount, state: OneStep, noise: NoiseSource) -> tuple[int, OneStep]:
        """The release, count + noise, and the state after it."""
        check_count(count, self.sensitivity)
        after = state.next()
        return count.value + int(noise.discrete_gaussian(self.sigma, 1)[0]), after

    def half_width(self, coverage: float = 0.95) -> int:
        """The least integer h with P(|noise| ≤ h) ≥ coverage.

        Raises:
            InvalidPlanError: coverage is not in (0, 1 - 1e-9].
        """
        check_coverage(coverage)
        return _half_width(self.sigma, coverage)


def sum_half_width(sigma: float, terms: int, coverage: float = 0.95) -> int:
    """The least integer h with P(|sum of independent draws| ≤ h) ≥ coverage.

    Args:
        sigma: Scale of each draw.
        terms: How many are added, at least 1.
        coverage: 0 < coverage ≤ 1 - 1e-9.

    A sum of discrete Gaussians is no discrete Gaussian. Its law is folded up exactly while that
    shows; from σ = `_SUM_SIGMA_MAX` on it differs from that of scale σ √terms by less than any
    double can hold (the next theta term is of order exp(-π²σ²)).

    Raises:
        InvalidPlanError: The coverage is out of range.

    Example:
        >>> [sum_half_width(8.7, terms) for terms in (1, 2, 3)]
        [17, 24, 29]
    """
    check_coverage(coverage)
    assert terms >= 1
    if sigma > _SUM_SIGMA_MAX:
        return _half_width(sigma * math.sqrt(terms), coverage)
    reach = math.ceil(_SUM_REACH * sigma) + 1
    one = np.exp(-((np.arange(-reach, reach + 1) / sigma) ** 2) / 2)
    law = functools.reduce(np.convolve, [one / one.sum()] * terms)
    middle = terms * reach
    folded = np.concatenate((law[middle : middle + 1], 2 * law[middle + 1 :]))
    tails = 1 - np.cumsum(folded)
    return int(np.argmax(tails <= 1 - coverage))


@lru_cache(maxsize=256)
def _stddev(sigma: float) -> float:
    """Square root of Σ x² exp(-x²/2σ²) / Σ exp(-x²/2σ²).

    By Poisson summation the variance is σ² (1 - 4π²σ² θ(σ)) with θ of order exp(-2π²σ²), which
    no double can hold once σ > `_SUM_SIGMA_MAX`.
    """
    if sigma > _SUM_SIGMA_MAX:
        return sigma
    reach = math.ceil(_SUM_REACH * sigma) + 1
    weights = [math.exp(-((x / sigma) ** 2) / 2) for x in range(1, reach + 1)]
    second = math.fsum(2 * x * x * weight for x, weight in enumerate(weights, start=1))
    return math.sqrt(second / _total(sigma))


def _total(sigma: float) -> float:
    """Σ exp(-x²/2σ²) over all integers; above `_SUM_SIGMA_MAX` it is σ √(2π) to the last bit."""
    if sigma > _SUM_SIGMA_MAX:
        return sigma * math.sqrt(2 * math.pi)
    reach = math.ceil(_SUM_REACH * sigma) + 1
    return 1 + 2 * math.fsum(math.exp(-((x / sigma) ** 2) / 2) for x in range(1, reach + 1))


@lru_cache(maxsize=256)
def _half_width(sigma: float, coverage: float) -> int:
    """Starts at the normal quantile and walks to the least h whose tail is small enough."""
    tail = 1 - coverage
    h = math.ceil(NormalDist().inv_cdf(0.5 + coverage / 2) * sigma)
    while _tail(sigma, h) > tail:
        h += 1
    while h > 0 and _tail(sigma, h - 1) <= tail:
        h -= 1
    return h


def _tail(sigma: float, h: int) -> float:
    """P(|noise| > h): a sum, or for large σ the integral from h + 1/2 with its first correction.

    Source: the Euler-Maclaurin formula at midpoints; the next term is below 0.01 / σ⁴.
    """
    if sigma <= _SUM_TAIL_SIGMA_MAX:
        reach = max(h, math.ceil(_SUM_REACH * sigma)) + 1
        weights = (math.exp(-((x / sigma) ** 2) / 2) for x in range(h + 1, reach + 1))
        return 2 * math.fsum(weights) / _total(sigma)
    u = (h + 0.5) / sigma
    density = math.exp(-u * u / 2) / math.sqrt(2 * math.pi)
    return math.erfc(u / math.sqrt(2)) - u * density / (12 * sigma * sigma)
