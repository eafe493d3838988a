"""What budgets guarantee, and what follows from that for other relations and longer times.

Source: `docs/guarantee.md`, Implied figures.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction
from typing import Final

from dpdau.accounting.budget import Budget, FilterName
from dpdau.accounting.calibration import zcdp_epsilon
from dpdau.domain import Metric
from dpdau.ledger.budgets import BudgetState
from dpdau.plan import LIVE, PLAN

ALL: Final = "all"
REPLACED_TIMES: Final = {PLAN: 4, LIVE: 4, Metric.MAU.value: 2}
"""How many times ρ counts for a user who is replaced: noise that is correlated over days promises
less then, and so does growth, which is charged to `mau` and has two cells move. Else once."""
YEAR_MONTHS: Final = 12

Pair = tuple[float, float]
"""(ε, δ); ε rounded up to two decimals."""
Exact = tuple[Fraction, Fraction]


@dataclass(frozen=True, slots=True)
class Implied:
    """What one budget of a month guarantees, and what follows from it.

    Attributes:
        budget: A metric, `plan`, `live`, or `all` for all of them spent to the end.
        is_open: Whether something was charged to it: then later settings do not change it.
        allowances: 1 and one more for each grant; 0 for `all`.
        month: (ε, δ) for adding or removing one user, one month: the contract.
        replace_one: For replacing one user by another.
        year: Twelve such months, added up.
        year_together: Twelve such months, added up before they are converted.
    """

    budget: str
    is_open: bool
    allowances: int
    month: Pair
    replace_one: Pair
    year: Pair
    year_together: Pair


def implied(states: Sequence[BudgetState]) -> list[Implied]:
    """What each budget guarantees with every allowance that it has, then all of them at once.

    All at once are composed in one way for every figure: pure ε is added to the converted sum of
    the others' ρ, which is sharper than adding the rows.
    """
    found = [
        _row(
            state.budget.metric,
            [state.budget],
            is_open=state.opened_at is not None,
            month=guaranteed(state.budget),
        )
        for state in states
    ]
    budgets = [state.budget for state in states]
    is_open = all(one.is_open for one in found)
    return [*found, _row(ALL, budgets, is_open=is_open, month=composed(budgets))]


def _row(name: str, budgets: Sequence[Budget], *, is_open: bool, month: Exact) -> Implied:
    epsilon, delta = month
    return Implied(
        budget=name,
        is_open=is_open,
        allowances=0 if name == ALL else budgets[0].allowances,
        month=_shown(month),
        replace_one=_shown(composed(budgets, replaced=True)),
        year=_shown((YEAR_MONTHS * epsilon, YEAR_MONTHS * delta)),
        year_together=_shown(composed(budgets, months=YEAR_MONTHS)),
    )


def guaranteed(budget: Budget) -> Exact:
    """(ε, δ) of everything that a budget lets through."""
    epsilon, _ = budget.guarantee()
    basic = budget.filter_name is FilterName.BASIC
    return Fraction(str(epsilon)), budget.cap().delta if basic else budget.delta


def composed(budgets: Sequence[Budget], *, months: int = 1, replaced: bool = False) -> Exact:
    """(ε, δ) of budgets whose pure ε is added, and whose ρ is added and converted once.

    Args:
        budgets: Those of one month.
        months: So many such months.
        replaced: For one user replaced by another, instead of added or removed.
    """
    pure = [one for one in budgets if one.filter_name is FilterName.BASIC]
    shared = [one for one in budgets if one.filter_name is FilterName.ZCDP]
    epsilon = months * sum((one.cap().epsilon for one in pure), start=Fraction(0))
    delta = months * sum((one.cap().delta for one in pure), start=Fraction(0))
    if shared:
        rho = sum(
            (
                one.cap().rho * (REPLACED_TIMES.get(one.metric, 1) if replaced else 1)
                for one in shared
            ),
            start=Fraction(0),
        )
        joint = max(one.delta for one in shared)
        epsilon += Fraction(str(zcdp_epsilon(months * rho, joint)))
        delta += joint
    return epsilon, delta


def _shown(figure: Exact) -> Pair:
    return _up(figure[0]), float(figure[1])


def _up(epsilon: Fraction) -> float:
    return math.ceil(epsilon * 100) / 100
