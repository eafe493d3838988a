"""Budgets and their filters: does one more charge fit?

Only filters that stay valid when the next charge is chosen after seeing earlier answers may enforce
a cap: basic composition, and zCDP (a scalar sum of ρ). Everything else is for the report
(`accounting.report`).

Source: Rogers, Roth, Ullman, Vadhan 2016 (filters); Whitehouse, Ramdas, Rogers, Wu 2023, fully
adaptive composition (zCDP without loss). Costs are exact fractions: nothing rounds in anyone's
favour.
"""

from collections.abc import Iterable
from dataclasses import dataclass, replace
from enum import StrEnum
from fractions import Fraction
from typing import Final

from dpdau.accounting.calibration import (
    DELTA_MIN,
    EPSILON_MAX,
    EPSILON_MIN,
    rho_cap,
    round_epsilon_down,
    round_epsilon_up,
    zcdp_epsilon,
)
from dpdau.accounting.events import (
    DiscreteGaussianEvent,
    DiscreteLaplaceEvent,
    DpEvent,
    LatticeGaussianEvent,
)
from dpdau.errors import InvalidPlanError, UnsupportedMechanismError

ALLOWANCES_MAX: Final = 1_000


class FilterName(StrEnum):
    """The ways of adding up that may enforce a cap under adaptive choices."""

    BASIC = "basic"
    ZCDP = "zcdp"


@dataclass(frozen=True, slots=True)
class Cost:
    """An amount in the units of both filters, each exact."""

    epsilon: Fraction = Fraction(0)
    delta: Fraction = Fraction(0)
    rho: Fraction = Fraction(0)

    def __add__(self, other: "Cost") -> "Cost":
        return Cost(self.epsilon + other.epsilon, self.delta + other.delta, self.rho + other.rho)

    def __mul__(self, times: int) -> "Cost":
        return Cost(self.epsilon * times, self.delta * times, self.rho * times)


@dataclass(frozen=True, slots=True)
class Budget:
    """An allowance for one metric (or plan) and one calendar month; fixed when it opens.

    `epsilon` and `delta` are the cap of one allowance. A grant adds one more allowance of the same
    size, and the true total is what `allowances` of them compose to.

    Args:
        epsilon: `EPSILON_MIN` ≤ ε ≤ `EPSILON_MAX`.
        delta: 0 ≤ δ < 1 for `basic`, where 0 means that only pure ε fits; at least `DELTA_MIN`
            for `zcdp`.
        allowances: 1..`ALLOWANCES_MAX`.

    Raises:
        InvalidPlanError: A field is out of range.
    """

    budget_id: str
    metric: str
    period: str
    filter_name: FilterName
    epsilon: Fraction
    delta: Fraction
    allowances: int = 1

    def __post_init__(self) -> None:
        if not EPSILON_MIN <= self.epsilon <= EPSILON_MAX:
            raise InvalidPlanError(
                f"Expected a cap {float(EPSILON_MIN)} <= epsilon <= {float(EPSILON_MAX)},"
                f" found {self.epsilon}."
            )
        delta_min = DELTA_MIN if self.filter_name is FilterName.ZCDP else Fraction(0)
        if not delta_min <= self.delta < 1:
            raise InvalidPlanError(
                f"Expected a cap {float(delta_min)} <= delta < 1, found {self.delta}."
            )
        if not 1 <= self.allowances <= ALLOWANCES_MAX:
            raise InvalidPlanError(
                f"Expected 1..{ALLOWANCES_MAX} allowances, found {self.allowances}."
            )

    def cap(self) -> Cost:
        """The most that may be spent in the filter's own unit, over all allowances."""
        if self.filter_name is FilterName.BASIC:
            return Cost(self.epsilon, self.delta, Fraction(0)) * self.allowances
        return Cost(Fraction(0), Fraction(0), rho_cap(self.epsilon, self.delta)) * self.allowances

    def granted(self) -> "Budget":
        """The same budget with one more allowance.

        Raises:
            InvalidPlanError: It has `ALLOWANCES_MAX` already.
        """
        return replace(self, allowances=self.allowances + 1)

    def guarantee(self) -> tuple[float, float]:
        """The (ε, δ) that holds for everything the filter lets through, over all allowances.

        One allowance gives the cap itself. More of them add up under `basic`, ε and δ alike; under
        `zcdp` their ρ adds up and converts at the cap's δ. ε is rounded up to nine decimals.
        """
        cap = self.cap()
        if self.filter_name is FilterName.BASIC:
            return round_epsilon_up(cap.epsilon), float(cap.delta)
        if self.allowances == 1:
            return round_epsilon_up(self.epsilon), float(self.delta)
        return zcdp_epsilon(cap.rho, self.delta), float(self.delta)


def cost_of(event: DpEvent) -> Cost:
    """The cost of one event in every unit; a pure ε event costs ρ = ε²/2.

    Raises:
        UnsupportedMechanismError: The event is of an unknown kind.

    Source: Bun, Steinke 2016, Proposition 1.4 (pure ε to zCDP).
    """
    match event:
        case DiscreteLaplaceEvent():
            return Cost(event.epsilon, Fraction(0), event.epsilon**2 / 2) * event.count
        case DiscreteGaussianEvent() | LatticeGaussianEvent():
            return Cost(event.epsilon, event.delta, event.rho) * event.count
    raise UnsupportedMechanismError(f"Expected a known event, found {type(event).__name__}.")


def total_cost(events: Iterable[DpEvent]) -> Cost:
    """The cost of all events together; their order does not matter."""
    return sum((cost_of(event) for event in events), start=Cost())


def check_claim(event: DpEvent) -> None:
    """Refuses an event that claims a smaller (ε, δ) than its noise keeps.

    Raises:
        UnsupportedMechanismError: ρ of one Gaussian event is above the tight cap of its (ε, δ).
    """
    if isinstance(event, DiscreteGaussianEvent | LatticeGaussianEvent):
        cap = rho_cap(event.epsilon, event.delta)
        if event.rho > cap:
            raise UnsupportedMechanismError(
                f"Expected rho <= {float(cap):.9g} for epsilon={float(event.epsilon):g} at"
                f" delta={float(event.delta):g}, found {float(event.rho):.9g}."
            )


def fits(budget: Budget, spent: Cost, charge: DpEvent) -> bool:
    """Whether a charge fits what is left; depends on the ledger's numbers alone.

    Guarantee: while every charge for which this is False is refused, all releases of the budget
    together keep `budget.guarantee()`, the cap for one allowance, even when each is chosen after
    seeing all earlier ones.

    Raises:
        UnsupportedMechanismError: The event is of an unknown kind or claims too little.
    """
    check_claim(charge)
    return _within(spent + cost_of(charge), budget)


def charges_left(budget: Budget, spent: Cost, charge: DpEvent) -> int:
    """How many more of this charge fit, one after the other.

    Raises:
        UnsupportedMechanismError: The event is of an unknown kind or claims too little.
    """
    check_claim(charge)
    cost, cap = cost_of(charge), budget.cap()
    if budget.filter_name is FilterName.ZCDP:
        return max(0, (cap.rho - spent.rho) // cost.rho)
    fit = (cap.epsilon - spent.epsilon) // cost.epsilon
    if spent.delta > cap.delta:
        return 0
    if cost.delta > 0:
        fit = min(fit, (cap.delta - spent.delta) // cost.delta)
    return max(0, fit)


def epsilon_spent(budget: Budget, spent: Cost) -> float:
    """What was spent, as the ε of the budget's own filter, rounded up to nine decimals.

    For the reader: a statement about the past at a time chosen by the data is not a guarantee; the
    cap is.
    """
    if budget.filter_name is FilterName.BASIC:
        return round_epsilon_up(spent.epsilon)
    return zcdp_epsilon(spent.rho, budget.delta)


def epsilon_remaining(budget: Budget, spent: Cost) -> float:
    """The ε of `guarantee()` less what was spent, rounded down to nine decimals; at least 0.

    Under `zcdp` ε is not additive: this is the distance to the cap, not the ε of a next charge.
    """
    if budget.filter_name is FilterName.BASIC:
        return round_epsilon_down(max(Fraction(0), budget.cap().epsilon - spent.epsilon))
    left = Fraction(str(budget.guarantee()[0])) - Fraction(str(epsilon_spent(budget, spent)))
    return round_epsilon_down(max(Fraction(0), left))


def _within(spent: Cost, budget: Budget) -> bool:
    """Whether an amount is within the cap, in the unit of the budget's filter."""
    cap = budget.cap()
    match budget.filter_name:
        case FilterName.BASIC:
            return spent.epsilon <= cap.epsilon and spent.delta <= cap.delta
        case FilterName.ZCDP:
            return spent.rho <= cap.rho
