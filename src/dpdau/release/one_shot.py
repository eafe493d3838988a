"""A whole month at once, from counts that were made outside of a store: all of it, or nothing.

The plan, its charge, the commitment to its noise and every release are one transaction of the
ledger. So there is no moment at which a charge is made and its noise could be lost, and the noise
is not kept: when the transaction ends, nothing needs it any more.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from dpdau import aggregates
from dpdau import plan as plans
from dpdau.domain import Release, Segment, Window, month_days
from dpdau.errors import InvalidPlanError
from dpdau.ledger.ledger import Ledger
from dpdau.ledger.steps import OpenRequest, StoredPlan
from dpdau.plan import MonthPlan, PrivacyTerms
from dpdau.release.calendar import Calendar
from dpdau.release.months import Strategies, numbers, promised
from dpdau.release.noise import NoiseDesk, commitment_of, secret_of

Counting = Callable[[MonthPlan], NDArray[np.int64]]
"""Exact counts, (days, 1 + segments, metrics), of the months, windows and segments of a plan."""


@dataclass(frozen=True, slots=True, kw_only=True)
class OneShotReleaser:
    """Releases the numbers of a month in one transaction, from a table of exact counts."""

    ledger: Ledger
    desk: NoiseDesk
    terms: PrivacyTerms
    calendar: Calendar
    strategies: Strategies
    segments: tuple[Segment, ...]
    sketch_impl: str

    def find(self, month: str) -> StoredPlan | None:
        """The plan of a month as the ledger has it, if it was opened."""
        return self.ledger.find_plan(plans.month_plan_id(month))

    def promise(self, month: str) -> MonthPlan:
        """The plan that releasing a month now would make, or that made it.

        Raises:
            InvalidPlanError: The text is no month, no strategy fits the terms, or the plan was
                opened with other terms.
            ReleaseNotReadyError: The strategy is not there yet.
        """
        stored = self.find(month)
        if stored is not None:
            plan = MonthPlan.from_json(stored.body)
            self._require_same_terms(plan)
            return plan
        return promised(
            month,
            calendar=self.calendar,
            terms=self.terms,
            strategies=self.strategies,
            segments=self.segments,
        )

    def replay(self, month: str) -> tuple[Release, ...] | None:
        """The releases of a month whose plan was taken to its end; None if it was never opened.

        Raises:
            ReleaseNotReadyError: A day of the month has not closed.
            InvalidPlanError: The plan is open and not at its end, was opened with other terms, or
                its windows reach into what `RETENTION_DAYS` refuses.
        """
        first, last = month_days(month)
        self.calendar.require_closed(last)
        stored = self.find(month)
        if stored is None:
            self.calendar.require_kept(Window(first, max(self._windows())))
            return None
        plan = self.promise(month)
        if plan.days_taken(stored.steps_taken) < plan.days:
            how = "has days to come: `dpdau dau`, `wau` and `mau` take them"
            raise InvalidPlanError(
                f"Expected no plan for {month}, or one whose days are all taken, found one that "
                f"was opened over a store and {'was given up' if stored.abandoned else how}."
            )
        made, replayed = self._record(plan, "", _never)
        assert replayed, "a month that is complete is not made again"
        return made

    def release(self, month: str, counting: Counting) -> tuple[tuple[Release, ...], bool]:
        """The releases of a month: the stored ones, or those that one charge pays for now.

        Args:
            month: A month all of whose days have closed.
            counting: Counts what the plan promises. It is asked before the transaction, so a
                source that is damaged ends it with nothing charged.

        Returns:
            The releases, day by day, and whether they were stored before (then nothing was
            charged).

        Raises:
            What `replay` raises; BudgetExhaustedError: The charge does not fit.

        Guarantee: all releases of the month together are ρ-zCDP for adding or removing one user's
        entire history, ρ ≤ `rho_cap(plan_epsilon, plan_delta)` exactly, hence (ε, δ)-DP, where
        what one user adds to the table is a member of `ContributionClass(days, (7, W),
        daily=True)` in everyone and in at most one segment; for that class the shipped strategies
        are certified, and it is within that with erasure. Whether the charge is refused depends on
        the ledger alone: the counts are used once it has fitted. The plan, its charge and all its
        releases are committed together or not at all, and the noise exists in this process alone.

        Source: `plan.months.MonthPlan`, of which this is one use.
        """
        known = self.replay(month)
        if known is not None:
            return known, True
        plan = self.promise(month)
        strategy = self.strategies(plan.days, max(plan.windows.values()))
        table = counting(plan)
        noise = self.desk.draw(lambda source: plan.draw(source, strategy))
        assert table.shape == (plan.days, len(plan.series), len(plan.metrics))
        made, replayed = self._record(
            plan, commitment_of(secret_of(noise)), lambda: self._make(plan, table, noise)
        )
        if replayed:
            # Another process was first: what it promised is what was asked for here, or refused.
            self.promise(month)
        return made, replayed

    def _record(
        self, plan: MonthPlan, digest: str, make: Callable[[], Sequence[Release]]
    ) -> tuple[tuple[Release, ...], bool]:
        """One transaction for all of it."""
        request = OpenRequest(plan.plan_id, plan.to_json(), plan.budget, plan.charge)
        return self.ledger.take_month(request, digest, make)

    def _make(
        self, plan: MonthPlan, table: NDArray[np.int64], noise: Sequence[int]
    ) -> list[Release]:
        """Adds the noise of every day and words the numbers, in the charge's transaction."""
        at = self.calendar.clock()
        return [
            one
            for index in range(plan.days)
            for one in numbers(
                plan,
                index,
                aggregates.bounded_row(table[index], days=plan.days),
                noise,
                sketch_impl=self.sketch_impl,
                released_at=at,
            )
        ]

    def _windows(self) -> tuple[int, ...]:
        return tuple(plans.own_windows(self.terms.mau_window_days).values())

    def _require_same_terms(self, plan: MonthPlan) -> None:
        """Refuses a plan that promises something else than these terms do."""
        pairs = {
            "epsilon": (plan.epsilon, self.terms.plan_epsilon),
            "delta": (plan.delta, self.terms.plan_delta),
            "TIMEZONE": (plan.timezone, self.calendar.zone.key),
            "MAU_WINDOW_DAYS": (max(plan.windows.values()), self.terms.mau_window_days),
            "PLAN_SEGMENTS": (plan.segments, self.segments),
        }
        for name, (opened, asked) in pairs.items():
            if opened != asked:
                raise InvalidPlanError(
                    f"Expected {name} {_shown(opened)}, with which {plan.plan_id} was opened, "
                    f"found {_shown(asked)}: a month has one plan."
                )


def _never() -> list[Release]:
    raise AssertionError("a month that is complete is not made again")


def _shown(value: object) -> str:
    """A term of a plan in an error."""
    if isinstance(value, tuple):
        return ",".join(map(str, value)) or "none"
    return str(value) if isinstance(value, (str, int)) else f"{float(value):g}"  # type: ignore[arg-type]
