"""An accountant of its own: says which charges a ledger must take, in plain fractions.

It shares no arithmetic with the product: costs are taken from the numbers of the test, and the cap
of a zCDP budget is given to it.
"""

from dataclasses import dataclass, field
from fractions import Fraction


@dataclass
class Auditor:
    """The expected state of one budget: the cap of an allowance, and what was taken."""

    cap: Fraction
    allowances: int = 1
    taken: dict[str, Fraction] = field(default_factory=dict)

    def grant(self) -> None:
        """One more allowance."""
        self.allowances += 1

    def must_take(self, plan_id: str, cost: Fraction) -> bool:
        """Whether a request must be answered; remembers it if so."""
        if plan_id in self.taken:
            return True
        left = self.cap * self.allowances
        for one in self.taken.values():
            left -= one
        if cost > left:
            return False
        self.taken[plan_id] = cost
        return True
