"""Opens month plans and takes their days: one charge, then a number a day for each metric.

A day is one transaction of the ledger: the day's contributions are fixed in the store, counted,
noise that was drawn when the plan opened is added, and all numbers of the day are recorded. The
noise is kept in the private store and destroyed with the last day.
"""

import datetime as dt
import secrets
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from dpdau import __version__, aggregates
from dpdau import plan as plans
from dpdau.activity.store import ActivityStore
from dpdau.domain import BoundedCount, Metric, Release, Segment, Window, actor, month_days
from dpdau.errors import InvalidPlanError, NotFoundError, StoreCorruptError
from dpdau.ledger.ledger import Ledger
from dpdau.ledger.steps import OpenRequest, StoredPlan
from dpdau.mechanisms.matrix.lattice import LatticeStrategy
from dpdau.mechanisms.matrix.strategies import CertifiedStrategy
from dpdau.plan import MonthPlan, PrivacyTerms
from dpdau.plan.months import strategy_digest
from dpdau.release.calendar import Calendar
from dpdau.release.noise import NoiseDesk, commitment_of, noise_of, secret_of

Strategies = Callable[[int, int], CertifiedStrategy]
"""The strategy for a month of so many days and a MAU window of so many."""


@dataclass(frozen=True, slots=True, kw_only=True)
class MonthReleaser:
    """Everything that a month plan needs to be opened and to be taken to its end."""

    store: ActivityStore
    ledger: Ledger
    desk: NoiseDesk
    terms: PrivacyTerms
    calendar: Calendar
    strategies: Strategies
    segments: tuple[Segment, ...]
    sketch_impl: str
    _opening: threading.Lock = field(default_factory=threading.Lock)

    def promise(self, month: str) -> MonthPlan:
        """The plan of a month: the open one, or the one that opening it now would make.

        Raises:
            InvalidPlanError: The text is no month, or no strategy fits the settings.
            ReleaseNotReadyError: The strategy is not there yet.
        """
        stored = self.find(month)
        if stored is not None:
            return MonthPlan.from_json(stored.body)
        return promised(
            month,
            calendar=self.calendar,
            terms=self.terms,
            strategies=self.strategies,
            segments=self.segments,
        )

    def find(self, month: str) -> StoredPlan | None:
        """The plan of a month as the ledger has it, if it was opened."""
        return self.ledger.find_plan(plans.month_plan_id(month))

    def open(self, month: str) -> bool:
        """Charges the plan of a month, and draws all its noise; does nothing if both is done.

        Returns:
            Whether this call made the charge.

        Raises:
            BudgetExhaustedError: The charge does not fit.
            InvalidPlanError: The month is far ahead, or its activity is purged in part.
            StoreUnavailableError: Another process writes the store. The charge may be made; the
                next call draws the noise.

        Guarantee: one charge pays for every number of the month. The noise is drawn once: what was
        drawn is committed to in the ledger before it is used, and it is never drawn anew.
        """
        stored = self.find(month)
        if stored is not None and stored.commitment is not None:
            return False
        # Where no schedule runs, a new month is when what a crash left of the last one goes.
        self.end_what_is_over()
        with self._opening:
            plan = self.promise(month)
            charged = False
            if self.find(month) is None:
                self.require_in_reach(plan)
                # The store is asked first: where it is busy, nothing is charged.
                self._protect(plan)
                charged = self.ledger.open_plan(
                    OpenRequest(plan.plan_id, plan.to_json(), plan.budget, plan.charge)
                )
            # Another process may have charged other terms meanwhile: those are the promise; and
            # it may have committed to noise too, of this store or of a month released at once.
            stored = self.find(month)
            assert stored is not None, "a plan that was charged is open"
            if stored.commitment is None:
                self._prepare(MonthPlan.from_json(stored.body))
            return charged

    def take(self, month: str, through: dt.date) -> list[Release]:
        """Takes the days of an open plan up to one, in order.

        Raises:
            NotFoundError: The plan is not open.
            ReleaseNotReadyError: A day has not closed; those before it are taken.
            StoreCorruptError: The store does not hold what the ledger says that it held.

        Guarantee: each day is one transaction; a day that was taken is never counted or made
        noisy again.
        """
        stored = self.find(month)
        if stored is None:
            raise NotFoundError(f"Expected an open plan for {month}, found none.")
        if stored.commitment is None:
            self.open(month)
            stored = self.find(month)
            assert stored is not None, "an open plan stays open"
        plan = MonthPlan.from_json(stored.body)
        self.calendar.require_zone(plan.timezone, plan.plan_id)
        taken: list[Release] = []
        for index in range(plan.days_taken(stored.steps_taken), plan.days):
            day = plan.first + dt.timedelta(days=index)
            if day > through:
                return taken
            self.calendar.require_closed(day)
            taken += self._take_day(plan, index, stored.commitment)
        self.store.end_month(month)
        return taken

    def end_what_is_over(self) -> None:
        """Destroys what the store keeps of plans that were taken to their end.

        That comes after the last day, so a crash between the two leaves it behind. A month that
        the store opened and the ledger never charged is given up as well.
        """
        with self._opening:
            for month in self.store.open_months():
                stored = self.find(month)
                if stored is None or self.next_day(stored) is None:
                    self.store.end_month(month)

    def next_day(self, stored: StoredPlan) -> dt.date | None:
        """The day that an open plan takes next; None at its end, or where it was given up."""
        plan = MonthPlan.from_json(stored.body)
        index = plan.days_taken(stored.steps_taken)
        over = stored.abandoned or index >= plan.days
        return None if over else plan.first + dt.timedelta(days=index)

    def abandon(self, month: str, *, reason: str) -> None:
        """Gives up the rest of a plan that cannot go on, and destroys what the store keeps of it.

        Raises:
            NotFoundError: The plan is not open.
            InvalidPlanError: It is at its end, or no reason is given.
        """
        plan_id = plans.month_plan_id(month)
        self.ledger.abandon(plan_id, actor=actor(), reason=reason)
        self.store.end_month(month)

    def strategy_of(self, plan_id: str) -> LatticeStrategy | None:
        """The noise strategy of an open plan, if this version still has it."""
        stored = self.ledger.find_plan(plan_id)
        assert stored is not None, "a release has a plan"
        plan = MonthPlan.from_json(stored.body)
        strategy = self.strategies(plan.days, plan.windows[Metric.MAU]).strategy
        return strategy if strategy_digest(strategy) == plan.strategy_sha256 else None

    def require_in_reach(self, plan: MonthPlan) -> None:
        """Refuses months that are not near, and those whose first window is not kept.

        Raises:
            InvalidPlanError: The plan cannot be opened now.
        """
        first, lookback = plan.first, max(plan.windows.values())
        today = self.calendar.today()
        if first > today + dt.timedelta(days=lookback):
            raise InvalidPlanError(
                f"Expected a month that begins within {lookback} days, found {plan.month}."
            )
        self.calendar.require_kept(Window(first, lookback))
        self._require_one_name(plan)

    def _require_one_name(self, plan: MonthPlan) -> None:
        """Refuses a plan in which one user may count under two names."""
        start = Window(plan.first, max(plan.windows.values())).start
        self.calendar.require_one_name(start, plan.first + dt.timedelta(days=plan.days - 1))

    def _protect(self, plan: MonthPlan) -> None:
        """Tells the store that a month is open: from now on erased users stay out of it."""
        self.store.open_month(
            plan.month,
            lookback_days=max(plan.windows.values()),
            dimensions=sorted({one.dimension for one in plan.segments}),
        )

    def _prepare(self, plan: MonthPlan) -> None:
        """Draws the noise, keeps it in the private store, and commits to it in the ledger."""
        self._protect(plan)
        secret = self.store.secret(plan.month)
        if secret is None:
            strategy = self.strategies(plan.days, plan.windows[Metric.MAU])
            drawn = self.desk.draw(lambda source: plan.draw(source, strategy))
            secret = self.store.put_secret(plan.month, secret_of(drawn))
        self.ledger.commit_noise(plan.plan_id, commitment_of(secret))

    def _take_day(self, plan: MonthPlan, index: int, commitment: str | None) -> Sequence[Release]:
        """One day, in one transaction of the ledger."""
        releases, _replayed = self.ledger.take_day(
            plan.plan_id,
            index * plan.releases_per_day,
            lambda: self._make(plan, index, commitment),
        )
        return releases

    def _make(self, plan: MonthPlan, index: int, commitment: str | None) -> list[Release]:
        """Fixes the day, counts, adds its noise and words the numbers."""
        noise = noise_of(self.store.secret(plan.month), commitment=commitment, plan_id=plan.plan_id)
        day = plan.first + dt.timedelta(days=index)
        through = self.store.frozen_through(plan.month)
        before = None if index == 0 else day - dt.timedelta(days=1)
        if through not in (before, day):
            raise StoreCorruptError(
                f"Expected an activity store that knows the days of plan {plan.plan_id} that were "
                f"released, found one that ends at {through}: it is an older copy. Put the newer "
                "one back; or give the plan up with `dpdau plan abandon` and buy its other days.",
                plan_id=plan.plan_id,
            )
        self.store.freeze(plan.month, day)
        counts = aggregates.month_counts(
            self.store,
            plan.month,
            day,
            window_days=[plan.windows[metric] for metric in plan.metrics],
            segments=plan.segments,
            days=plan.days,
        )
        self._require_one_name(plan)
        return numbers(
            plan,
            index,
            counts,
            noise,
            sketch_impl=self.sketch_impl,
            released_at=self.calendar.clock(),
        )


def promised(
    month: str,
    *,
    calendar: Calendar,
    terms: PrivacyTerms,
    strategies: Strategies,
    segments: tuple[Segment, ...],
) -> MonthPlan:
    """The plan that opening a month now makes. Raises what `MonthReleaser.promise` does."""
    first, last = month_days(month)
    return plans.month(
        month,
        timezone=calendar.zone.key,
        terms=terms,
        strategy=strategies((last - first).days + 1, terms.mau_window_days),
        segments=segments,
    )


def numbers(
    plan: MonthPlan,
    index: int,
    counts: Sequence[Sequence[BoundedCount]],
    noise: Sequence[int],
    *,
    sketch_impl: str,
    released_at: dt.datetime,
) -> list[Release]:
    """The releases of one day of a plan, from its counts and the noise of the whole month.

    Args:
        plan: The plan.
        index: The day, from 0.
        counts: What `aggregates.month_counts` gave for the day.
        noise: What `MonthPlan.draw` gave.
        sketch_impl: How the counts were made.
        released_at: When they are released.
    """
    day = plan.first + dt.timedelta(days=index)
    estimates = plan.estimates(index, counts, plan.noise_of_day(noise, index))
    made: list[Release] = []
    for place, segment in enumerate(plan.series):
        for number, metric in enumerate(plan.metrics):
            value = round(float(estimates[place][number]))
            half = plan.half_width(index, place, metric)
            made.append(
                Release(
                    release_id=f"rel-{secrets.token_hex(12)}",
                    plan_id=plan.plan_id,
                    step=index * plan.releases_per_day + len(made),
                    metric=metric,
                    window=Window(day, plan.windows[metric]),
                    segment=segment,
                    timezone=plan.timezone,
                    estimate=value,
                    lower_95=value - half,
                    upper_95=value + half,
                    noise_stddev=plan.stddev(index, place, metric),
                    mechanism=plan.mechanism,
                    sketch_impl=sketch_impl,
                    epsilon=float(plan.epsilon),
                    delta=float(plan.delta),
                    status="final",
                    version=__version__,
                    released_at=released_at,
                )
            )
    return made
