"""What a release looks like to whoever asked: with the state of the budget that paid for it."""

from dataclasses import dataclass

from dpdau import plan as promises
from dpdau.accounting.budget import Budget
from dpdau.domain import Answer, BudgetBlock, Metric, Release, month_of
from dpdau.errors import InvalidPlanError
from dpdau.ledger.statement import Statements
from dpdau.telemetry import Metrics


@dataclass(frozen=True, slots=True)
class Answers:
    """Words releases.

    Attributes:
        statements: The budgets.
        terms: What budgets are made of.
        metrics: Counts what was answered, or None.
    """

    statements: Statements
    terms: promises.PrivacyTerms
    metrics: Metrics | None

    def of(self, release: Release, *, replayed: bool, exact: int | None = None) -> Answer:
        """One release, counted as given."""
        block = self.statements.block(self.budget_of(release))
        return self._given(release, block, replayed=replayed, exact=exact)

    def at_once(self, release: Release) -> Answer | None:
        """The same for a stored release where it takes milliseconds, or None."""
        block = self.statements.block_told(self.budget_of(release))
        return None if block is None else self._given(release, block, replayed=True, exact=None)

    def _given(
        self, release: Release, block: BudgetBlock, *, replayed: bool, exact: int | None
    ) -> Answer:
        if self.metrics is not None:
            self.metrics.released(release.metric, replayed=replayed)
        return Answer(release, replayed=replayed, budget=block, exact_value=exact)

    def budget_of(self, release: Release) -> Budget:
        """The budget that a release was charged to."""
        period = month_of(release.window.end)
        planned = release.plan_id == promises.month_plan_id(period)
        return promises.budget(promises.PLAN if planned else release.metric, period, self.terms)


def budget_name(name: str) -> str:
    """The name of a budget, as it was asked for.

    Raises:
        InvalidPlanError: There is none with this name.
    """
    known = (*(metric.value for metric in Metric), promises.PLAN, promises.LIVE)
    if name not in known:
        raise InvalidPlanError(f"Expected a budget of {', '.join(known)}, found another word.")
    return name


def grantable(name: str) -> str:
    """The name of a budget that may get another allowance.

    Raises:
        InvalidPlanError: There is none with this name, or a grant would buy nothing.
    """
    if name in (promises.PLAN, promises.LIVE):
        raise InvalidPlanError(
            "Expected a metric: a month has one plan, and a grant would buy nothing more."
        )
    return budget_name(name)
