"""The count of a day while it lasts: one lattice strategy for the ticks of a day, day after day.

A user's series over the K ticks of a day is 0…0 1…1 0…0: up once, with the first event of the day,
and down at most once. That is `ToggleClass(K, 2)`, and one strategy of K rows is optimized for it.
Each day has fresh noise of the same strategy. A user can be at the worst on every day, so over D
days |Āv|² is at most D · Δ² of a day.
"""

import math
from dataclasses import dataclass
from fractions import Fraction
from typing import Final

import numpy as np
from numpy.typing import NDArray

from dpdau.domain import ContributionBounds, Metric
from dpdau.errors import InvalidPlanError
from dpdau.mechanisms.matrix.classes import ToggleClass
from dpdau.mechanisms.matrix.covariance import solve
from dpdau.mechanisms.matrix.lattice import (
    LatticeMechanism,
    LatticeStrategy,
    check_lattice_scale,
    lattice_strategy,
    scale_for,
)
from dpdau.mechanisms.sampling import NoiseSource

TICKS_MAX: Final = 96
"""A tick each quarter of an hour; its strategy takes a few seconds to solve, that of 24 none."""
TOLERANCE: Final = 3e-3
"""Within 0.3 % of the best noise; the last tenths would take four times as long."""
DAYS_MAX: Final = 31


def live_class(ticks: int) -> ToggleClass:
    """What one user can do to the ticks of a day."""
    return ToggleClass(ticks, min(2, ticks))


def live_strategy(ticks: int) -> LatticeStrategy:
    """The integer strategy of the ticks of a day; its horizon are the ticks.

    Raises:
        InvalidPlanError: More ticks than `TICKS_MAX`, or none.
    """
    if not 1 <= ticks <= TICKS_MAX:
        raise InvalidPlanError(f"Expected 1..{TICKS_MAX} ticks a day, found {ticks}.")
    found = live_class(ticks)
    return lattice_strategy(solve(found, (1.0,), tolerance=TOLERANCE).form, found, (Metric.DAU,))


@dataclass(frozen=True, slots=True, eq=False)
class LiveMechanism:
    """The live counts of some days, with the noise of all of them drawn ahead.

    Args:
        strategy: The strategy of the ticks of one day.
        days: How many days.
        rho_cap: The most that all of them may cost, in zCDP.

    Guarantee: all ticks of all days together are ρ-zCDP under add-or-remove-one user, ρ = D Δ² /
    (2s²) ≤ `rho_cap` exactly, for users whose series is, on each day by itself, in the class that
    Δ² was computed for. Estimates are unbiased, and those of a tick rest on no later one.

    Raises:
        InvalidPlanError: The days are out of range, or the cap leaves the range of the noise.
    """

    strategy: LatticeStrategy
    days: int
    rho_cap: Fraction

    def __post_init__(self) -> None:
        if not 1 <= self.days <= DAYS_MAX or self.rho_cap <= 0:
            raise InvalidPlanError(
                f"Expected 1..{DAYS_MAX} days and a rho cap above 0, found {self.days} days."
            )
        check_lattice_scale(self.scale)

    @property
    def name(self) -> str:
        """What a release says of its noise."""
        return LatticeMechanism.name

    @property
    def sensitivity_squared(self) -> int:
        """The most that one user adds to the sum of squares, over all days."""
        return self.days * self.strategy.sensitivity_squared

    @property
    def bounds(self) -> ContributionBounds:
        """What one user may do to the counts."""
        return ContributionBounds(
            max_per_count=1, max_active_steps=self.days * self.strategy.horizon
        )

    @property
    def scale(self) -> float:
        """The s of the lattice noise."""
        return scale_for(self.sensitivity_squared, self.rho_cap)

    @property
    def rho(self) -> Fraction:
        """zCDP cost of all days, exact."""
        return Fraction(self.sensitivity_squared) / (2 * Fraction(self.scale) ** 2)

    def draw(self, noise: NoiseSource) -> tuple[int, ...]:
        """The noise of every tick, day by day, in 2⁻³² users: secret, and never drawn anew."""
        ticks = self.strategy.horizon
        drawn = noise.discrete_gaussian(self.scale, self.days * ticks).tolist()
        days = (drawn[start : start + ticks] for start in range(0, len(drawn), ticks))
        return tuple(part for day in days for part in self.strategy.spread(day))

    def noise_stddevs(self) -> NDArray[np.float64]:
        """(ticks,) standard deviations, in users; the same on every day."""
        one_day: NDArray[np.float64] = self.strategy.normalized_stddev()[:, 0]
        return one_day * math.sqrt(self.days) / math.sqrt(2 * self.rho)
