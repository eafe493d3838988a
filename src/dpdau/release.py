"""Opens a plan (charge) and takes its step (count, noise, record): the one road out.

The order inside the ledger's transaction is fixed: look for a stored answer, check the budget,
charge, count, add noise, record. A refusal therefore depends on the ledger alone, and there is no
moment at which a number exists and its cost does not.
"""

import datetime as dt
import secrets
from dataclasses import dataclass
from zoneinfo import ZoneInfo

from dpdau import __version__, aggregates
from dpdau import plan as plans
from dpdau.activity.store import ActivityStore
from dpdau.domain import Clock, Release, Window
from dpdau.errors import InvalidPlanError, ReleaseNotReadyError
from dpdau.ledger.ledger import Ledger
from dpdau.ledger.steps import StepRequest
from dpdau.mechanisms.base import interval
from dpdau.mechanisms.sampling import NoiseSource


@dataclass(frozen=True, slots=True, kw_only=True)
class Calendar:
    """When a day closes: at its end in `zone`, plus `grace_hours`; and how long it is kept."""

    zone: ZoneInfo
    grace_hours: int
    clock: Clock
    retention_days: int | None = None

    def today(self) -> dt.date:
        """The current day in the zone."""
        return self.clock().astimezone(self.zone).date()

    def closes_at(self, day: dt.date) -> dt.datetime:
        """The moment (UTC) from which the day may be released."""
        midnight = dt.datetime.combine(day + dt.timedelta(days=1), dt.time(), tzinfo=self.zone)
        return midnight.astimezone(dt.UTC) + dt.timedelta(hours=self.grace_hours)

    def require_closed(self, day: dt.date) -> None:
        """Refuses a day that events may still reach.

        Raises:
            ReleaseNotReadyError: The day closes later than now.
        """
        closes_at = self.closes_at(day)
        if self.clock() < closes_at:
            raise ReleaseNotReadyError(
                f"{day.isoformat()} closes at {closes_at.isoformat()}; ask again then.",
                day=day.isoformat(),
                closes_at=closes_at.isoformat(),
            )

    def require_kept(self, window: Window) -> None:
        """Refuses a window that reaches into what is purged: its count would be too low.

        Raises:
            InvalidPlanError: The window starts before the first day that is kept.
        """
        if self.retention_days is None:
            return
        first = self.today() - dt.timedelta(days=self.retention_days)
        if window.start < first:
            raise InvalidPlanError(
                f"Expected a window within RETENTION_DAYS, from {first.isoformat()} on, found one "
                f"that starts on {window.start.isoformat()}."
            )


@dataclass(frozen=True, slots=True, kw_only=True)
class Releaser:
    """Everything that a published number needs, and nothing else that could publish one."""

    store: ActivityStore
    ledger: Ledger
    noise: NoiseSource
    terms: plans.PrivacyTerms
    calendar: Calendar
    sketch_impl: str

    def release(self, asked: plans.Question, *, fresh: bool = False) -> tuple[Release, bool]:
        """The answer to a question: the stored one, or a new one if there is none or `fresh`.

        Returns:
            The release, and whether it was stored before (then nothing was charged).

        Raises:
            ReleaseNotReadyError: The day has not closed.
            InvalidPlanError: The window reaches into what is purged.
            BudgetExhaustedError: The charge does not fit; nothing was charged, no count was read.
            StoreUnavailableError: Another process writes the store; nothing was charged.

        Guarantee: each new release is charged in the transaction that stores it. Asking again gives
        the same bytes at no cost, however many ask at once.
        """
        editions = self.ledger.editions(asked.metric, asked.window, asked.segment)
        if fresh or not editions:
            self.calendar.require_closed(asked.window.end)
            self.calendar.require_kept(asked.window)
        edition = editions if fresh or not editions else editions - 1
        plan = plans.on_demand(asked, edition=edition, terms=self.terms)
        return self.ledger.step(
            StepRequest(
                plan_id=plan.plan_id,
                step=0,
                plan_body=plan.to_json(),
                budget=plan.budget,
                charge=plan.charge,
            ),
            lambda: self._make(plan),
        )

    def _make(self, plan: plans.Plan) -> Release:
        """Closes the day, counts, adds noise and words the result, in the charge's transaction.

        The day is closed first: should the store be busy, nothing is charged, and should the
        ledger fail afterwards, events for that day count as late, which changes no number.
        """
        asked, mechanism = plan.question, plan.mechanism
        self.store.close_day(asked.window.end)
        count = aggregates.distinct_users(self.store, asked.window, asked.segment)
        value, _ = mechanism.step(count, mechanism.init(horizon=1), self.noise)
        lower, upper = interval(mechanism, value)
        return Release(
            release_id=f"rel-{secrets.token_hex(12)}",
            plan_id=plan.plan_id,
            step=0,
            metric=asked.metric,
            window=asked.window,
            segment=asked.segment,
            timezone=asked.timezone,
            estimate=value,
            lower_95=lower,
            upper_95=upper,
            noise_stddev=mechanism.noise_stddev,
            mechanism=mechanism.name,
            sketch_impl=self.sketch_impl,
            epsilon=float(mechanism.epsilon),
            delta=float(mechanism.delta),
            status="final",
            version=__version__,
            released_at=self.calendar.clock(),
        )
