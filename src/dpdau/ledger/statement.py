"""The budget block: what the charges of one budget add up to, enforced and reported."""

from collections.abc import Iterable
from dataclasses import dataclass, field
from fractions import Fraction
from typing import Final

from dpdau.accounting.budget import Budget, epsilon_remaining, epsilon_spent
from dpdau.accounting.events import DpEvent
from dpdau.accounting.report import Report, report
from dpdau.domain import BudgetBlock
from dpdau.ledger.budgets import BudgetState
from dpdau.ledger.ledger import Ledger

TOLD_MAX: Final = 256


@dataclass(frozen=True, slots=True)
class ReportTerms:
    """What the reported figures are computed at; none of it changes what is enforced.

    `delta` is for budgets that have none of their own; the others are reported at theirs.
    """

    delta: Fraction
    rdp_orders: tuple[int, ...]
    advanced_delta: Fraction
    policy: str


@dataclass(frozen=True, slots=True)
class Statements:
    """Reads budgets out of the ledger in the words of the contract.

    Args:
        ledger: The ledger.
        terms: What the report is computed at.
        reported: Whether the reported figures are computed; performance only.
        told: The newest blocks that were told, by the budget and the number of its charges.
    """

    ledger: Ledger
    terms: ReportTerms
    reported: bool = True
    told: dict[tuple[str, int], BudgetBlock] = field(default_factory=dict, repr=False)

    def block(self, budget: Budget) -> BudgetBlock:
        """The budget as it opened, or as it would open, with what was spent.

        Shapes and units: `epsilon_cap` is what the allowances compose to, at `delta`.
        """
        state = self.ledger.budget_state(budget)
        block = self._worded(state)
        self.told[_content(state)] = block
        while len(self.told) > TOLD_MAX:
            self.told.pop(next(iter(self.told)))
        return block

    def block_told(self, budget: Budget) -> BudgetBlock | None:
        """The same where it was told before, so that it takes milliseconds, or None."""
        state = self.ledger.budget_state(budget)
        return self.told.get(_content(state))

    def _worded(self, state: BudgetState) -> BudgetBlock:
        """A state with what it amounts to."""
        held = state.budget
        delta = held.delta or self.terms.delta
        told = self.report(state.events, delta) if self.reported else None
        cap_epsilon, cap_delta = held.guarantee()
        return BudgetBlock(
            metric=held.metric,
            period=held.period,
            filter=held.filter_name.value,
            epsilon_cap=cap_epsilon,
            epsilon_spent=epsilon_spent(held, state.spent),
            epsilon_remaining=epsilon_remaining(held, state.spent),
            delta=cap_delta,
            rdp_orders=self.terms.rdp_orders,
            rdp_curve=tuple((int(order), cost) for order, cost in told.rdp_curve) if told else (),
            best_rdp_epsilon=told.best_rdp_epsilon if told else None,
            best_rdp_order=int(told.best_rdp_order) if told and state.events else None,
            advanced_epsilon=told.advanced_epsilon if told else None,
            advanced_delta=told.advanced_delta if told else float(self.terms.advanced_delta),
            pld_epsilon=told.pld_epsilon if told else None,
            reported_delta=float(delta),
            rho_spent=str(state.spent.rho),
            release_count=state.release_count,
            policy=self.terms.policy,
        )

    def report(self, events: Iterable[DpEvent], delta: Fraction) -> Report:
        """What several accountants say of some charges; the first call takes seconds."""
        return report(
            events,
            delta=delta,
            rdp_orders=self.terms.rdp_orders,
            advanced_delta=self.terms.advanced_delta,
        )


def _content(state: BudgetState) -> tuple[str, int]:
    """What a state holds: charges are only ever added to a budget."""
    return state.budget.budget_id, len(state.events)
