"""Releases on demand as the verbs see them: what one would cost, and the number."""

from dataclasses import dataclass

from dpdau import plan as promises
from dpdau.accounting.budget import fits
from dpdau.domain import Quote, Release
from dpdau.errors import BudgetExhaustedError
from dpdau.ledger.ledger import Ledger
from dpdau.ledger.statement import Statements
from dpdau.plan import GrowthPlan, Plan, Question
from dpdau.release import Releaser
from dpdau.telemetry import span


@dataclass(frozen=True, slots=True)
class Singles:
    """The verbs on plans with one step."""

    releaser: Releaser
    ledger: Ledger
    statements: Statements

    def quote(self, asked: Question) -> Quote:
        """What a number would cost and how precise it would be."""
        plan = promises.on_demand(asked, edition=0, terms=self.releaser.terms)
        state = self.ledger.budget_state(plan.budget)
        return Quote(
            metric=asked.metric,
            window=asked.window,
            segment=asked.segment,
            mechanism=plan.mechanism.name,
            epsilon=float(plan.mechanism.epsilon),
            delta=float(plan.mechanism.delta),
            noise_stddev=plan.mechanism.noise_stddev,
            half_width_95=plan.mechanism.half_width(),
            affordable=fits(state.budget, state.spent, plan.charge.dp_event),
            budget=self.statements.block(plan.budget),
        )

    def answer(self, asked: Question, *, fresh: bool) -> tuple[Release, bool]:
        """The stored number, or a new one with its charge; and whether it was stored before.

        Raises:
            BudgetExhaustedError: What it would cost, what is left, and what can be done.
        """
        try:
            with span("release", metric=asked.metric.value):
                return self.releaser.release(asked, fresh=fresh)
        except BudgetExhaustedError:
            plan = promises.on_demand(asked, edition=0, terms=self.releaser.terms)
            raise self.exhausted(plan) from None

    def warm_up(self) -> None:
        """Loads what a first release would wait for; charges nothing, publishes nothing."""
        self.releaser.noise.discrete_laplace(1.0, 1)
        self.releaser.noise.discrete_gaussian(1.0, 1)

    def exhausted(self, plan: Plan | GrowthPlan) -> BudgetExhaustedError:
        """The refusal of a plan in words."""
        block = self.statements.block(plan.budget)
        return BudgetExhaustedError(
            f"Expected room for ε {float(plan.mechanism.epsilon):g} in the {block.metric} budget "
            f"of {block.period}, found {block.release_count} numbers that leave "
            f"{block.epsilon_remaining:.4g} of ε {block.epsilon_cap:g}. What is released stays "
            "free to read; another month has its own budget; `dpdau reset-budget` grants more and "
            "weakens the guarantee.",
            budget=block.to_json(),
        )
