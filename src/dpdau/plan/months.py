"""Month plans: the counts of every day of a month, promised at once and charged once.

Everyone is one series. With segments, the users of each listed value and those of none are parts,
and each user is in one part for the whole month: so a user reaches two lattice mechanisms, the one
of everyone and the one of its part, and ρ is the sum of the two. What is published is the
least-squares combination of the noisy total with the noisy parts, which costs nothing: it is
computed from them alone.
"""

import datetime as dt
import hashlib
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction
from typing import Any, ClassVar, Final, Self

import numpy as np
from numpy.typing import NDArray

from dpdau.accounting.budget import Budget, check_claim
from dpdau.accounting.calibration import rho_cap
from dpdau.accounting.events import Charge, LatticeGaussianEvent, from_json, to_json
from dpdau.domain import (
    WAU_WINDOW_DAYS,
    BoundedCount,
    ContributionBounds,
    Metric,
    NeighboringRelation,
    Segment,
    Unit,
    month_days,
)
from dpdau.errors import DpdauError, InvalidPlanError, LedgerCorruptError
from dpdau.mechanisms.matrix.classes import ContributionClass
from dpdau.mechanisms.matrix.lattice import (
    GRID_BITS,
    LatticeMechanism,
    LatticeStrategy,
    check_bounds,
    rounded_half_width,
)
from dpdau.mechanisms.matrix.strategies import CertifiedStrategy
from dpdau.mechanisms.sampling import NoiseSource
from dpdau.plan.terms import PLAN, PrivacyTerms, own_windows, plan_budget

TOTAL_SHARE: Final = Fraction(1, 2)
"""The share of ρ that everyone takes where there are segments. At one half every published series,
the total as well as each of n parts, has the same noise: √(2n/(n+1)) of that of a plan without.
"""
SEGMENTS_MAX: Final = 100

Table = tuple[tuple[float, ...], ...]
"""(days, metrics) numbers."""


@dataclass(frozen=True, slots=True, kw_only=True)
class MonthPlan:
    """One frozen promise for a month; `month` makes it, `from_json` reads it back.

    Shapes and units:
        segments: the listed values of one dimension; empty for everyone alone.
        metrics: in the order of the releases of a day.
        noise_stddevs: of the published numbers, in users: a (days, metrics) table for everyone
            and, with segments, one for each of them.

    Guarantee: all releases together are ρ-zCDP for adding or removing one user's entire history,
    ρ = `event.rho` ≤ `rho_cap(epsilon, delta)` exactly, hence (ε, δ)-DP, against an analyst and a
    stream that react to the releases; for users whose contributions stay in the class of the
    strategy, in everyone and in one part.

    Raises:
        InvalidPlanError: The parts do not fit each other.
    """

    month: str
    timezone: str
    segments: tuple[Segment, ...]
    metrics: tuple[Metric, ...]
    windows: Mapping[Metric, int]
    strategy: str
    strategy_sha256: str
    event: LatticeGaussianEvent
    noise_stddevs: tuple[Table, ...]

    mechanism: ClassVar[str] = LatticeMechanism.name

    def __post_init__(self) -> None:
        _check_segments(self.segments)
        kinds = 2 if self.segments else 1
        tables = [len(table) == self.days for table in self.noise_stddevs]
        widths = {len(row) for table in self.noise_stddevs for row in table}
        if not (
            len(self.event.scales) == kinds
            and tables == [True] * kinds
            and widths == {len(self.metrics)}
            and set(self.metrics) == set(self.windows)
        ):
            raise InvalidPlanError("Expected a month plan whose parts fit each other.")

    @property
    def plan_id(self) -> str:
        """The one id of a month's plan."""
        return month_plan_id(self.month)

    @property
    def first(self) -> dt.date:
        """The first day of the month."""
        return month_days(self.month)[0]

    @property
    def days(self) -> int:
        """Days of the month."""
        first, last = month_days(self.month)
        return (last - first).days + 1

    @property
    def series(self) -> tuple[Segment | None, ...]:
        """What is published: None for everyone, then each segment."""
        return (None, *self.segments)

    @property
    def releases_per_day(self) -> int:
        """How many numbers a day has: series by series, each in the order of the metrics."""
        return len(self.series) * len(self.metrics)

    def days_taken(self, steps: int) -> int:
        """How many days were taken when so many numbers were released."""
        return steps // self.releases_per_day

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
        """The budget of the month's plan, as it would open."""
        return plan_budget(self.month, self.epsilon, self.delta)

    @property
    def charge(self) -> Charge:
        """The one charge for everything."""
        return Charge(self.budget.budget_id, self.event, NeighboringRelation.ADD_OR_REMOVE_ONE)

    def draw(self, noise: NoiseSource, strategy: CertifiedStrategy) -> tuple[int, ...]:
        """Draws the noise of the whole month: secret, to be kept, and never to be drawn anew.

        Returns:
            For each mechanism (everyone, each segment, the users of no segment) the noise of its
            estimates in 2⁻³² users: day by day, in the order of the metrics.

        Raises:
            InvalidPlanError: The strategy is not the one that was promised.
        """
        if strategy_digest(strategy.strategy) != self.strategy_sha256:
            raise InvalidPlanError(
                f"Expected the strategy {self.strategy} that plan {self.plan_id} was opened with, "
                "found another."
            )
        drawn: list[int] = []
        for kind in self._kinds():
            mechanism = LatticeMechanism(strategy.strategy, self.event.rhos[kind])
            assert Fraction(mechanism.scale) == self.event.scales[kind], "a float is its own root"
            drawn += mechanism.init(noise).noise
        return tuple(drawn)

    def noise_of_day(self, noise: Sequence[int], day_index: int) -> tuple[int, ...]:
        """The noise of one day: mechanism by mechanism, each in the order of the metrics.

        Args:
            noise: What `draw` gave.
            day_index: The day, from 0.

        Raises:
            InvalidPlanError: The day is not in the month, or the noise is not of this plan.
        """
        self._check_day(day_index)
        width = len(self.metrics)
        if len(noise) != len(self._kinds()) * self.days * width:
            raise InvalidPlanError("Expected the noise of a whole month, found other noise.")
        starts = range(day_index * width, len(noise), self.days * width)
        return tuple(part for start in starts for part in noise[start : start + width])

    def estimates(
        self, day_index: int, counts: Sequence[Sequence[BoundedCount]], noise: Sequence[int]
    ) -> tuple[tuple[float, ...], ...]:
        """The published numbers of one day, before they are rounded to users.

        Args:
            day_index: The day, from 0.
            counts: One row for everyone and, with segments, one for each of them and one for the
                users of none; one count for each metric.
            noise: What `noise_of_day` gave for this day.

        Returns:
            (series, metrics) users.

        Guarantee: a function of count + noise alone, unbiased, and the same on every machine. The
        published segments and the unpublished rest add up to the published total.

        Raises:
            InvalidPlanError: The day is not in the month, there are more or fewer counts, or their
                bounds are not the ones the sensitivity rests on.
        """
        self._check_day(day_index)
        width = len(self.metrics)
        rows = len(self._kinds())
        if [len(row) for row in counts] != [width] * rows or len(noise) != rows * width:
            raise InvalidPlanError(
                f"Expected {rows} rows of {width} counts and their noise, found others."
            )
        bounds = ContributionBounds(max_per_count=1, max_active_steps=self.days * width)
        flat = [count for row in counts for count in row]
        for count in flat:
            check_bounds(count, bounds)
        noisy = [
            Fraction((count.value << GRID_BITS) + part, 1 << GRID_BITS)
            for count, part in zip(flat, noise, strict=True)
        ]
        columns = [self._combine(noisy[place::width]) for place in range(width)]
        return tuple(zip(*columns, strict=True))

    def stddev(self, day_index: int, series_index: int, metric: Metric) -> float:
        """Standard deviation of one published number, in users."""
        self._check_day(day_index)
        table = self.noise_stddevs[0 if self.series[series_index] is None else 1]
        return table[day_index][self.metrics.index(metric)]

    def half_width(
        self, day_index: int, series_index: int, metric: Metric, coverage: float = 0.95
    ) -> int:
        """The least integer h with P(|noise, rounded to an integer| ≤ h) ≥ coverage.

        Raises:
            InvalidPlanError: The day is not in the month, or coverage not in (0, 1 - 1e-9].
        """
        return rounded_half_width(self.stddev(day_index, series_index, metric), coverage)

    def to_json(self) -> dict[str, Any]:
        """What the ledger keeps beside the charge: enough to go on, and to redo the arithmetic."""
        return {
            "policy": PLAN,
            "month": self.month,
            "timezone": self.timezone,
            "horizon": self.days,
            "releases": self.days * self.releases_per_day,
            "segments": [str(segment) for segment in self.segments],
            "metrics": [metric.value for metric in self.metrics],
            "windows": {metric.value: days for metric, days in self.windows.items()},
            "unit": Unit.USER.value,
            "neighboring_relation": self.charge.neighboring_relation.value,
            "mechanism": self.mechanism,
            "strategy": self.strategy,
            "strategy_sha256": self.strategy_sha256,
            "event": to_json(self.event),
            "noise_stddevs": [[list(row) for row in table] for table in self.noise_stddevs],
        }

    @classmethod
    def from_json(cls, body: Mapping[str, Any]) -> Self:
        """The inverse of `to_json`.

        Raises:
            LedgerCorruptError: The body is not one of a month plan.
        """
        try:
            event = from_json(body["event"])
            assert isinstance(event, LatticeGaussianEvent), "a month plan has lattice noise"
            return cls(
                month=str(body["month"]),
                timezone=str(body["timezone"]),
                segments=tuple(Segment.parse(text) for text in body["segments"]),
                metrics=tuple(Metric(name) for name in body["metrics"]),
                windows={Metric(name): int(days) for name, days in dict(body["windows"]).items()},
                strategy=str(body["strategy"]),
                strategy_sha256=str(body["strategy_sha256"]),
                event=event,
                noise_stddevs=tuple(
                    tuple(tuple(float(one) for one in row) for row in table)
                    for table in body["noise_stddevs"]
                ),
            )
        except (KeyError, TypeError, ValueError, AssertionError, DpdauError) as error:
            raise LedgerCorruptError(
                f"Expected a stored month plan, found a body that is none: {error!r}."
            ) from error

    def _kinds(self) -> tuple[int, ...]:
        """For each mechanism, the place of its scale: 0 for everyone, 1 for a part."""
        return (0, *[1] * (len(self.segments) + 1)) if self.segments else (0,)

    def _combine(self, noisy: Sequence[Fraction]) -> tuple[float, ...]:
        """The least-squares total and listed parts, from a noisy total T and noisy parts p.

        With n parts of variance v₁ beside a total of variance v₀, the best total is
        τT + (1 - τ) Σp for τ = n v₁ / (n v₁ + v₀), and each part takes 1/n of what the parts lack.
        The noise of all mechanisms has one shape, so v₀ : v₁ = s₀² : s₁² in each coordinate, and
        no other coordinate helps.
        """
        total, *parts = noisy
        if not parts:
            return (float(total),)
        weight = _total_weight(self.event.scales, len(parts))
        found = sum(parts, start=Fraction(0))
        missing = weight * (total - found)
        listed = [float(part + missing / len(parts)) for part in parts[:-1]]
        return (float(found + missing), *listed)

    def _check_day(self, day_index: int) -> None:
        """Refuses a day that is not in the month."""
        if not 0 <= day_index < self.days:
            raise InvalidPlanError(f"Expected a day index in 0..{self.days - 1}, found another.")


def month_plan_id(month: str) -> str:
    """The id of the plan of a month.

    Example:
        >>> month_plan_id("2026-02")
        'plan-2026-02'
    """
    return f"plan-{month}"


def month(
    month: str,
    *,
    timezone: str,
    terms: PrivacyTerms,
    strategy: CertifiedStrategy,
    segments: Sequence[Segment] = (),
    total_share: Fraction = TOTAL_SHARE,
) -> MonthPlan:
    """The plan of a calendar month: DAU, WAU and MAU of each day, for one charge.

    Args:
        month: YYYY-MM.
        timezone: The zone whose days are counted.
        terms: The deployment's privacy parameters.
        strategy: For the days of this month, the windows of the terms, daily counts and erasure.
        segments: Listed values of one dimension, at most `SEGMENTS_MAX`.
        total_share: The share of ρ that everyone takes beside segments; all of it without.

    Guarantee: ρ of the charge is at most `rho_cap(plan_epsilon, plan_delta)` exactly, and is the
    sum over the mechanisms that one user reaches.

    Raises:
        InvalidPlanError: The month is none, the strategy is for another promise, the segments are
            not distinct values of one dimension, or a share leaves the range of the noise.
    """
    first, last = month_days(month)
    windows = own_windows(terms.mau_window_days)
    expected = ContributionClass(
        (last - first).days + 1, (WAU_WINDOW_DAYS, terms.mau_window_days), daily=True, erasure=True
    )
    if strategy.key.contribution != expected:
        raise InvalidPlanError(
            f"Expected a strategy for {expected}, found one for {strategy.key.contribution}."
        )
    if not 0 < total_share < 1:
        raise InvalidPlanError(f"Expected a share 0 < total_share < 1, found {total_share}.")
    shares = [total_share, 1 - total_share] if segments else [Fraction(1)]
    cap = rho_cap(terms.plan_epsilon, terms.plan_delta)
    mechanisms = [LatticeMechanism(strategy.strategy, share * cap) for share in shares]
    event = LatticeGaussianEvent(
        sensitivity_squared=strategy.strategy.sensitivity_squared,
        scales=tuple(Fraction(one.scale) for one in mechanisms),
        epsilon=terms.plan_epsilon,
        delta=terms.plan_delta,
    )
    check_claim(event)
    raw = [np.square(one.noise_stddevs()) for one in mechanisms]
    return MonthPlan(
        month=month,
        timezone=timezone,
        segments=tuple(segments),
        metrics=strategy.strategy.metrics,
        windows=windows,
        strategy=strategy.key.name,
        strategy_sha256=strategy_digest(strategy.strategy),
        event=event,
        noise_stddevs=_published(raw, parts=len(segments) + 1),
    )


def strategy_digest(strategy: LatticeStrategy) -> str:
    """SHA-256, as hex, of the integers of a strategy: row by row, 64 bits, little-endian."""
    return hashlib.sha256(strategy.matrix.astype("<i8").tobytes()).hexdigest()


def _published(variances: Sequence[NDArray[np.float64]], *, parts: int) -> tuple[Table, ...]:
    """The standard deviations after the combination, from the variances before it.

    Var(total) = 1 / (1/v₀ + 1/(n v₁)) and Var(part) = v₁ (1 - 1/n) + Var(total) / n².
    """
    if len(variances) == 1:
        return (_table(variances[0]),)
    everyone, part = variances
    total = everyone * part * parts / (everyone + part * parts)
    return _table(total), _table(part * (1 - 1 / parts) + total / parts**2)


def _table(variances: NDArray[np.float64]) -> Table:
    """Their roots, as plain numbers."""
    return tuple(tuple(math.sqrt(one) for one in row) for row in variances.tolist())


def _total_weight(scales: Sequence[Fraction], parts: int) -> Fraction:
    """The weight τ of the noisy total in the published one."""
    everyone, part = scales
    return parts * part**2 / (parts * part**2 + everyone**2)


def _check_segments(segments: Sequence[Segment]) -> None:
    """Refuses segments that are not distinct values of one dimension: a user is in one part."""
    if len({one.dimension for one in segments}) > 1 or len(set(segments)) != len(segments):
        raise InvalidPlanError("Expected distinct values of one dimension, found others.")
    if len(segments) > SEGMENTS_MAX:
        raise InvalidPlanError(f"Expected at most {SEGMENTS_MAX} segments, found {len(segments)}.")
