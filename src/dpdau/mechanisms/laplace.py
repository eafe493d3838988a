"""Discrete Laplace noise: pure ε-differential privacy for one integer count."""

import math
from dataclasses import dataclass
from fractions import Fraction
from functools import lru_cache
from typing import ClassVar

from dpdau.domain import BoundedCount
from dpdau.errors import InvalidPlanError
from dpdau.mechanisms.base import OneStep, check_count, check_coverage, check_sensitivity
from dpdau.mechanisms.sampling import NoiseSource, check_scale


@dataclass(frozen=True, slots=True, kw_only=True)
class DiscreteLaplace:
    """One count plus noise with P(x) ∝ exp(-|x| / scale), scale ≥ sensitivity / ε.

    Args:
        epsilon: ε of the one release, exact; the scale must come out in the sampler's range.
        sensitivity: The most that one user can move the count, 1 for distinct users.

    Guarantee: for counts whose bounds match `sensitivity`, the release is (ε, 0)-differentially
    private under add-or-remove-one user, and ε²/2-zCDP. The scale is rounded up, so that
    sensitivity / scale ≤ ε holds exactly, between the rational values of the two numbers.

    Shapes and units: scale, `noise_stddev` and `half_width` are in users.

    Edge cases:
        | input | outcome |
        |---|---|
        | ε ≤ 0, or so large or small that the scale leaves the sampler's range | refused |
        | horizon other than 1, or a second step | refused |
        | bounds other than (sensitivity, 1) | refused before anything is drawn |

    Source: Ghosh, Roughgarden, Sundararajan 2012 (geometric mechanism); Bun, Steinke 2016,
    Proposition 1.4 (pure ε to zCDP).

    Raises:
        InvalidPlanError: The parameters are out of range.

    Example:
        >>> round(DiscreteLaplace(epsilon=Fraction(3, 10)).noise_stddev, 3)
        4.696
    """

    epsilon: Fraction
    sensitivity: int = 1

    name: ClassVar[str] = "discrete_laplace"

    def __post_init__(self) -> None:
        check_sensitivity(self.sensitivity)
        if self.epsilon <= 0:
            raise InvalidPlanError(f"Expected epsilon > 0, found {self.epsilon}.")
        check_scale(self.scale)

    @property
    def scale(self) -> float:
        """The least float that is at least sensitivity / ε."""
        return _scale(self.epsilon, self.sensitivity)

    @property
    def delta(self) -> Fraction:
        """Zero: the guarantee is pure."""
        return Fraction(0)

    @property
    def rho(self) -> Fraction:
        """zCDP cost ε²/2, exact."""
        return self.epsilon**2 / 2

    @property
    def noise_stddev(self) -> float:
        """Standard deviation 1 / (√2 sinh(1 / (2 scale))), in users."""
        return 1 / (math.sqrt(2) * math.sinh(1 / (2 * self.scale)))

    def init(self, horizon: int) -> OneStep:
        """The state before the one step; refuses any horizon but 1."""
        return OneStep.init(horizon)

    def step(self, count: BoundedCount, state: OneStep, noise: NoiseSource) -> tuple[int, OneStep]:
        """The release, count + noise, and the state after it."""
        check_count(count, self.sensitivity)
        after = state.next()
        return count.value + int(noise.discrete_laplace(self.scale, 1)[0]), after

    def half_width(self, coverage: float = 0.95) -> int:
        """The least integer h with P(|noise| ≤ h) ≥ coverage.

        P(|noise| > h) = 2 q^(h+1) / (1 + q) with q = exp(-1 / scale).

        Raises:
            InvalidPlanError: coverage is not in (0, 1 - 1e-9].

        Example:
            >>> DiscreteLaplace(epsilon=Fraction(1)).half_width()
            3
        """
        check_coverage(coverage)
        return _half_width(self.scale, coverage)


@lru_cache(maxsize=256)
def _scale(epsilon: Fraction, sensitivity: int) -> float:
    """The least float that is at least sensitivity / ε."""
    exact = sensitivity / epsilon
    try:
        nearest = float(exact)
    except OverflowError:
        return math.inf
    return nearest if Fraction(nearest) >= exact else math.nextafter(nearest, math.inf)


@lru_cache(maxsize=256)
def _half_width(scale: float, coverage: float) -> int:
    """The quantile in closed form, then one step either way where the logarithm rounded."""
    tail = 1 - coverage
    guess = -scale * math.log(tail * (1 + math.exp(-1 / scale)) / 2) - 1
    h = max(0, math.ceil(guess) - 1)
    while _tail(scale, h) > tail:
        h += 1
    return h


def _tail(scale: float, h: int) -> float:
    """P(|noise| > h)."""
    return 2 * math.exp(-(h + 1) / scale) / (1 + math.exp(-1 / scale))
