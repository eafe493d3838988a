"""The live plan: the counts of each day of a month while it lasts, promised and charged at once.

The plan holds the integers of its strategy: who has the ledger can compute the sensitivity, the
scale and the error of every tick again, and a later version goes on as it was promised.
"""

import datetime as dt
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction
from typing import Any, ClassVar, Self

import numpy as np
from numpy.typing import NDArray

from dpdau.accounting.budget import Budget, check_claim
from dpdau.accounting.calibration import rho_cap
from dpdau.accounting.events import Charge, LatticeGaussianEvent, from_json, to_json
from dpdau.domain import BoundedCount, Metric, NeighboringRelation, Unit, month_days, month_of
from dpdau.errors import DpdauError, InvalidPlanError, LedgerCorruptError
from dpdau.mechanisms.matrix.lattice import (
    GRID_BITS,
    LatticeMechanism,
    LatticeStrategy,
    check_bounds,
    rounded_half_width,
)
from dpdau.mechanisms.matrix.live import LiveMechanism
from dpdau.mechanisms.sampling import NoiseSource
from dpdau.plan.terms import LIVE, PrivacyTerms, live_budget


@dataclass(frozen=True, slots=True, kw_only=True)
class LivePlan:
    """One frozen promise for the rest of a month; `live` makes it, `from_json` reads it back.

    Shapes and units:
        first: the first day that is counted; the last one is that of its month.
        strategy: of the ticks of one day.
        noise_stddevs: (ticks,) of the published numbers, in users; the same on every day.

    Guarantee: all ticks of all its days together are ρ-zCDP for adding or removing one user's
    entire history, ρ = `event.rho` ≤ `rho_cap(epsilon, delta)` exactly, hence (ε, δ)-DP, against an
    analyst and a stream that react to the ticks. The series of every user are in the class of the
    strategy, because the store keeps out of a day whoever left it (`activity.store.LiveStore`).

    Raises:
        InvalidPlanError: The parts do not fit each other.
    """

    timezone: str
    first: dt.date
    strategy: LatticeStrategy
    event: LatticeGaussianEvent
    noise_stddevs: tuple[float, ...]

    mechanism: ClassVar[str] = LatticeMechanism.name

    def __post_init__(self) -> None:
        fits = self.event.sensitivity_squared == self.days * self.strategy.sensitivity_squared
        if not fits or len(self.event.scales) != 1 or len(self.noise_stddevs) != self.ticks:
            raise InvalidPlanError("Expected a live plan whose parts fit each other.")

    @property
    def month(self) -> str:
        """The month, YYYY-MM."""
        return month_of(self.first)

    @property
    def plan_id(self) -> str:
        """The one id of a month's live plan."""
        return live_plan_id(self.month)

    @property
    def days(self) -> int:
        """Days that are counted."""
        return (month_days(self.month)[1] - self.first).days + 1

    @property
    def ticks(self) -> int:
        """Ticks of a day."""
        return self.strategy.horizon

    @property
    def epsilon(self) -> Fraction:
        """ε of the whole plan at `delta`."""
        return self.event.epsilon

    @property
    def delta(self) -> Fraction:
        """δ of the whole plan."""
        return self.event.delta

    @property
    def budget(self) -> Budget:
        """The budget of the month's live plan, as it would open."""
        return live_budget(self.month, self.epsilon, self.delta)

    @property
    def charge(self) -> Charge:
        """The one charge for everything."""
        return Charge(self.budget.budget_id, self.event, NeighboringRelation.ADD_OR_REMOVE_ONE)

    def step(self, day: dt.date, tick: int) -> int:
        """The place of a tick, 1 to `ticks`, of a day among all of them.

        Raises:
            InvalidPlanError: The plan has no such tick.
        """
        index = (day - self.first).days
        if not (0 <= index < self.days and 1 <= tick <= self.ticks):
            raise InvalidPlanError(f"Expected a tick of plan {self.plan_id}, found another.")
        return index * self.ticks + tick - 1

    def draw(self, noise: NoiseSource) -> tuple[int, ...]:
        """Draws the noise of every tick, in 2⁻³² users: secret, kept, and never drawn anew."""
        mechanism = self._mechanism()
        assert Fraction(mechanism.scale) == self.event.scales[0], "a float is its own root"
        return mechanism.draw(noise)

    def estimate(self, step: int, count: BoundedCount, noise: Sequence[int]) -> float:
        """The published number of a tick, before it is rounded to users.

        Args:
            step: Its place.
            count: The exact count.
            noise: What `draw` gave.

        Raises:
            InvalidPlanError: The noise is of another plan, or the bounds of the count are not the
                ones the sensitivity rests on.
        """
        if len(noise) != self.days * self.ticks or not 0 <= step < len(noise):
            raise InvalidPlanError("Expected the noise of every tick, found other noise.")
        check_bounds(count, self._mechanism().bounds)
        return float(Fraction((count.value << GRID_BITS) + noise[step], 1 << GRID_BITS))

    def stddev(self, step: int) -> float:
        """Standard deviation of one published number, in users."""
        return self.noise_stddevs[step % self.ticks]

    def half_width(self, step: int, coverage: float = 0.95) -> int:
        """The least integer h with P(|noise, rounded to an integer| ≤ h) ≥ coverage."""
        return rounded_half_width(self.stddev(step), coverage)

    def to_json(self) -> dict[str, Any]:
        """What the ledger keeps beside the charge: enough to go on, and to redo the arithmetic."""
        size = len(self.strategy.matrix)
        return {
            "policy": LIVE,
            "month": self.month,
            "timezone": self.timezone,
            "first": self.first.isoformat(),
            "horizon": self.days,
            "ticks": self.ticks,
            "releases": self.days * self.ticks,
            "unit": Unit.USER.value,
            "neighboring_relation": self.charge.neighboring_relation.value,
            "mechanism": self.mechanism,
            "strategy": self.strategy.matrix[np.tril_indices(size)].tolist(),
            "strategy_sensitivity_squared": self.strategy.sensitivity_squared,
            "event": to_json(self.event),
            "noise_stddevs": list(self.noise_stddevs),
        }

    @classmethod
    def from_json(cls, body: Mapping[str, Any]) -> Self:
        """The inverse of `to_json`.

        Raises:
            LedgerCorruptError: The body is not one of a live plan.
        """
        try:
            event = from_json(body["event"])
            assert isinstance(event, LatticeGaussianEvent), "a live plan has lattice noise"
            size = int(body["ticks"])
            matrix = np.zeros((size, size), dtype=np.int64)
            matrix[np.tril_indices(size)] = body["strategy"]
            return cls(
                timezone=str(body["timezone"]),
                first=dt.date.fromisoformat(body["first"]),
                strategy=_of_a_day(matrix, int(body["strategy_sensitivity_squared"])),
                event=event,
                noise_stddevs=tuple(float(one) for one in body["noise_stddevs"]),
            )
        except (KeyError, TypeError, ValueError, AssertionError, DpdauError) as error:
            raise LedgerCorruptError(
                f"Expected a stored live plan, found a body that is none: {error!r}."
            ) from error

    def _mechanism(self) -> LiveMechanism:
        """The mechanism, at its own cost."""
        return LiveMechanism(self.strategy, self.days, self.event.rho)


def live_plan_id(month: str) -> str:
    """The id of the live plan of a month.

    Example:
        >>> live_plan_id("2026-02")
        'live-2026-02'
    """
    return f"live-{month}"


def live(
    first: dt.date, *, timezone: str, terms: PrivacyTerms, strategy: LatticeStrategy
) -> LivePlan:
    """The live plan from a day to the end of its month, for one charge.

    Args:
        first: The first day that is counted.
        timezone: The zone whose days are counted.
        terms: The deployment's privacy parameters.
        strategy: For the ticks of a day, as `mechanisms.matrix.live` makes it.

    Guarantee: ρ of the charge is at most `rho_cap(live_epsilon, plan_delta)` exactly.

    Raises:
        InvalidPlanError: There is no ε for it, or it leaves the range of the noise.
    """
    if terms.live_epsilon is None:
        raise InvalidPlanError("Expected LIVE_EPSILON for a live counter, found none.")
    days = (month_days(month_of(first))[1] - first).days + 1
    cap = rho_cap(terms.live_epsilon, terms.plan_delta)
    mechanism = LiveMechanism(strategy, days, cap)
    event = LatticeGaussianEvent(
        sensitivity_squared=mechanism.sensitivity_squared,
        scales=(Fraction(mechanism.scale),),
        epsilon=terms.live_epsilon,
        delta=terms.plan_delta,
    )
    check_claim(event)
    return LivePlan(
        timezone=timezone,
        first=first,
        strategy=strategy,
        event=event,
        noise_stddevs=tuple(mechanism.noise_stddevs().tolist()),
    )


def _of_a_day(matrix: NDArray[np.int64], sensitivity_squared: int) -> LatticeStrategy:
    """The strategy of the ticks of a day, from its integers."""
    return LatticeStrategy(len(matrix), (Metric.DAU,), matrix, sensitivity_squared)
