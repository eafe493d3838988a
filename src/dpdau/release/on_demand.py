"""A release on demand: one charge, one count, one number.

The order inside the ledger's transaction is fixed: look for a stored answer, check the budget,
charge, count, add noise, record. A refusal therefore depends on the ledger alone, and there is no
moment at which a number exists and its cost does not.
"""

import secrets
from dataclasses import dataclass

from dpdau import __version__, aggregates
from dpdau import plan as plans
from dpdau.activity.store import ActivityStore
from dpdau.domain import Release
from dpdau.ledger.ledger import Ledger
from dpdau.ledger.steps import StepRequest
from dpdau.mechanisms.base import interval
from dpdau.mechanisms.sampling import NoiseSource
from dpdau.release.calendar import Calendar


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
        # Read first: who releases meanwhile is found, or took the same number of the edition.
        edition = self.ledger.editions(asked.metric, asked.window, asked.segment)
        known = self.ledger.find_release(asked.metric, asked.window, asked.segment)
        if known is not None and not fresh:
            return known, True
        self.calendar.require_closed(asked.window.end)
        self.calendar.require_kept(asked.window)
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
