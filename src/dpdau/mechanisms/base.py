"""Two protocols: `Mechanism` for single counts, `HorizonMechanism` for every day of a horizon.

A mechanism states its guarantee, carries the sensitivity that the guarantee rests on, and gives its
95 % interval exactly. What is common to all mechanisms that add independent noise stands below it.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction
from typing import ClassVar, Final, Protocol, Self, TypeVar

import numpy as np
from numpy.typing import NDArray

from dpdau.domain import BoundedCount, Metric, Unit
from dpdau.errors import InvalidPlanError
from dpdau.mechanisms.sampling import NoiseSource

COUNT_LIMIT: Final = 2**62
"""Counts at or beyond ±2⁶² are refused, so that a release fits 64 bits with room for noise."""
SENSITIVITY_MAX: Final = 1_000_000
COVERAGE_MAX: Final = 1 - 1e-9
"""Beyond it the tail is too thin for a double to tell neighboring quantiles apart."""

StateT = TypeVar("StateT")


class Mechanism(Protocol[StateT]):
    """Adds calibrated noise to the counts of one plan, step by step."""

    @property
    def name(self) -> str:
        """The stable name that is published with each release."""

    @property
    def sensitivity(self) -> int:
        """The largest L2 change (L1 for pure ε) that one unit can cause over the horizon."""

    @property
    def epsilon(self) -> Fraction:
        """Upper bound on ε of the whole horizon at `delta`, exact."""

    @property
    def delta(self) -> Fraction:
        """δ of the whole horizon, exact; 0 for pure differential privacy."""

    @property
    def rho(self) -> Fraction:
        """zCDP cost of the whole horizon, exact."""

    @property
    def noise_stddev(self) -> float:
        """Standard deviation of one release, in users."""

    def init(self, horizon: int) -> StateT:
        """The state before step 0.

        Raises:
            InvalidPlanError: The guarantee does not cover that many steps.
        """

    def step(self, count: BoundedCount, state: StateT, noise: NoiseSource) -> tuple[int, StateT]:
        """One release and the state after it.

        Raises:
            InvalidPlanError: The count's bounds are not the ones the sensitivity rests on, the
                horizon is used up, or the count is beyond ±2⁶².
        """

    def half_width(self, coverage: float = 0.95) -> int:
        """The least integer h with P(|noise| ≤ h) ≥ coverage."""


class HorizonMechanism(Protocol[StateT]):
    """Adds correlated noise, drawn ahead, to the counts of every day of a horizon."""

    name: ClassVar[str]
    """The stable name that is published with each release."""

    @property
    def scale(self) -> float:
        """The scale of the noise, in units of the values that it is added to."""

    @property
    def rho(self) -> Fraction:
        """zCDP cost of the whole horizon, exact."""

    def init(self, noise: NoiseSource) -> StateT:
        """Draws the noise of the whole horizon. The result is secret, and lasts to its end."""

    def step(
        self, counts: Sequence[BoundedCount], state: StateT
    ) -> tuple[tuple[float, ...], StateT]:
        """The estimates of the next day, in the order of the metrics, and the state after it.

        Raises:
            InvalidPlanError: The bounds are not the ones the sensitivity rests on, the horizon is
                used up, or a count is beyond ±2⁶².
        """

    def noise_stddevs(self) -> NDArray[np.float64]:
        """(horizon, metrics) standard deviations, in users."""

    def half_width(self, day: int, metric: Metric, coverage: float = 0.95) -> int:
        """The least integer h with P(|noise, rounded to an integer| ≤ h) ≥ coverage."""


@dataclass(frozen=True, slots=True)
class OneStep:
    """The state of a mechanism whose horizon is 1: whether its one step was taken."""

    taken: bool = False

    @classmethod
    def init(cls, horizon: int) -> Self:
        """The state before step 0.

        Raises:
            InvalidPlanError: The horizon is not 1.
        """
        if horizon != 1:
            raise InvalidPlanError(f"Expected a horizon of 1, found {horizon}.")
        return cls()

    def next(self) -> Self:
        """The state after the step.

        Raises:
            InvalidPlanError: The step was taken before; a second one was never paid for.
        """
        if self.taken:
            raise InvalidPlanError("Expected a step within the horizon of 1, found step 1.")
        return type(self)(taken=True)


def check_count(count: BoundedCount, sensitivity: int) -> None:
    """Refuses a count that a single release of this sensitivity does not protect.

    One unit moves a count of `max_per_count` by at most that much; a horizon of 1 releases one
    count, so nothing but `max_active_steps` = 1 and `max_per_count` = `sensitivity` matches.

    Raises:
        InvalidPlanError: The bounds differ, or the count is beyond ±2⁶². The message never holds
            the count.
    """
    bounds = count.bounds
    if count.unit is not Unit.USER:
        raise InvalidPlanError(f"Expected counts of unit {Unit.USER}, found {count.unit}.")
    if bounds.max_per_count != sensitivity or bounds.max_active_steps != 1:
        raise InvalidPlanError(
            f"Expected max_per_count={sensitivity} and max_active_steps=1, found {bounds}."
        )
    if not -COUNT_LIMIT < count.value < COUNT_LIMIT:
        raise InvalidPlanError("Expected a count within ±2^62, found one beyond it.")


def check_sensitivity(sensitivity: int) -> None:
    """Refuses a sensitivity outside 1..`SENSITIVITY_MAX`.

    Raises:
        InvalidPlanError: It is outside, or not an integer.
    """
    if not isinstance(sensitivity, int) or not 1 <= sensitivity <= SENSITIVITY_MAX:
        raise InvalidPlanError(
            f"Expected an integer sensitivity in 1..{SENSITIVITY_MAX}, found {sensitivity}."
        )


def check_coverage(coverage: float) -> None:
    """Refuses a coverage outside (0, `COVERAGE_MAX`].

    Raises:
        InvalidPlanError: It is outside.
    """
    if not 0 < coverage <= COVERAGE_MAX:
        raise InvalidPlanError(f"Expected a coverage in (0, {COVERAGE_MAX}], found {coverage}.")


def interval(
    mechanism: Mechanism[StateT], estimate: int, coverage: float = 0.95
) -> tuple[int, int]:
    """The interval (lower, upper) around a release, both ends included.

    Guarantee: it holds the exact count with probability ≥ coverage over the noise, because the
    noise is symmetric and its quantile is exact.
    """
    half = mechanism.half_width(coverage)
    return estimate - half, estimate + half
