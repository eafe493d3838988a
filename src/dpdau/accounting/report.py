"""What several accountants would say was spent: reported, never enforced.

RDP over a grid of orders, advanced composition and privacy-loss distributions are tighter in places
but hold for parameters that were fixed beforehand; choosing charges after seeing answers voids
them. `accounting.budget` enforces.

A discrete Laplace release of sensitivity 1 has a privacy loss of exactly +ε or -ε, as randomized
response on one bit has, and not the loss of continuous Laplace noise. It is accounted as what it
is; for larger sensitivities randomized response still dominates every ε-DP mechanism (Kairouz, Oh,
Viswanath 2015, Theorem 2.1).

A lattice event has no loss distribution here. Its steps have sensitivities that may depend on what
was published before; what bounds them on every path is the sum of their ρ (Whitehouse, Ramdas,
Rogers, Wu 2023), which is a statement about Rényi orders and not about one pair of distributions.
"""

import math
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from fractions import Fraction
from functools import lru_cache
from typing import Any, Final

from dpdau.accounting.budget import Cost, total_cost
from dpdau.accounting.calibration import DELTA_MIN, round_epsilon_up, zcdp_epsilon
from dpdau.accounting.events import (
    DiscreteLaplaceEvent,
    DpEvent,
    LatticeGaussianEvent,
    to_json,
)
from dpdau.errors import InvalidPlanError

RDP_ORDERS_MAX: Final = 64
_PLD_SCALE_RANGE: Final = (0.5, 10_000.0)
"""σ / Δ between which a loss distribution on a grid of 1e-4 is both small and tight."""
_PLD_SIGMA_MAX: Final = 200_000.0
_PLD_TIMES_MAX: Final = 2_000
_PLD_DELTA_MIN: Final = Fraction(1, 10**12)
"""Below it the mass that the distribution's rounding moves to infinity would decide."""


@dataclass(frozen=True, slots=True)
class Report:
    """ε of the same releases under several accountants; every ε is rounded up to nine decimals.

    Attributes:
        basic_epsilon: Σ ε, at `basic_delta` = Σ δ.
        rho_spent: Σ ρ, exact.
        zcdp_epsilon: The tight conversion of `rho_spent` at δ.
        rdp_curve: (order, ε that the order gives at δ) for each order asked for.
        best_rdp_epsilon: The least of the curve, at `best_rdp_order`.
        advanced_epsilon: The lesser of basic and advanced composition, at `advanced_delta`, which
            is the slack that was asked for plus Σ δ.
        pld_epsilon: From the composed privacy-loss distribution at δ, pessimistic.
    """

    basic_epsilon: float = 0.0
    basic_delta: float = 0.0
    rho_spent: Fraction = Fraction(0)
    zcdp_epsilon: float = 0.0
    rdp_curve: tuple[tuple[float, float], ...] = ()
    best_rdp_epsilon: float = 0.0
    best_rdp_order: float = 0.0
    advanced_epsilon: float = 0.0
    advanced_delta: float = 0.0
    pld_epsilon: float = 0.0


def report(
    events: Iterable[DpEvent],
    *,
    delta: Fraction,
    rdp_orders: Sequence[float],
    advanced_delta: Fraction,
) -> Report:
    """What was spent by `events`, under every accountant; remembered by content.

    The first call for anything but no events imports dp-accounting, which takes seconds; a new
    multiset of events takes tens of milliseconds, a known one microseconds.

    Args:
        events: The charges of one budget, in any order.
        delta: `DELTA_MIN` ≤ δ < 1, for the zCDP, RDP and PLD figures.
        rdp_orders: 1..`RDP_ORDERS_MAX` Rényi orders above 1.
        advanced_delta: The slack of advanced composition, `DELTA_MIN` ≤ δ < 1.

    Guarantee: each ε is a valid bound, at its δ, for releases whose parameters did not depend on
    earlier answers.

    Edge cases:
        | events | report |
        |---|---|
        | none | all zeros |
        | a loss distribution that is too fine, too coarse or needs δ < 1e-12, or a lattice event |
          `pld_epsilon` is the least of the other valid bounds at δ |

    Raises:
        InvalidPlanError: δ, the slack or an order is out of range.

    Source: Mironov 2017 and Canonne, Kamath, Steinke 2020, Proposition 12 (RDP); Kairouz, Oh,
    Viswanath 2015, Theorem 3.5, the form with ln(1/δ) (advanced); Doroshenko et al. 2022 (PLD).
    """
    orders = tuple(rdp_orders)
    if not (1 <= len(orders) <= RDP_ORDERS_MAX and all(1.01 < o < math.inf for o in orders)):
        raise InvalidPlanError(
            f"Expected 1..{RDP_ORDERS_MAX} Rényi orders above 1.01, found {orders}."
        )
    for name, value in (("delta", delta), ("advanced_delta", advanced_delta)):
        if not DELTA_MIN <= value < 1:
            raise InvalidPlanError(f"Expected {float(DELTA_MIN)} <= {name} < 1, found {value}.")
    kinds: Counter[DpEvent] = Counter()
    for event in events:
        kinds[replace(event, count=1)] += event.count
    if not kinds:
        return Report(rdp_curve=tuple((order, 0.0) for order in orders))
    in_order = tuple(sorted(kinds.items(), key=lambda item: str(to_json(item[0]))))
    return _report(in_order, delta, orders, advanced_delta)


Kinds = tuple[tuple[DpEvent, int], ...]
"""Events of count 1, each with how often it happened, in one fixed order."""


@lru_cache(maxsize=512)
def _report(
    kinds: Kinds, delta: Fraction, orders: tuple[float, ...], advanced_delta: Fraction
) -> Report:
    """The report of a multiset of events that is not empty."""
    spent = sum((total_cost([event]) * times for event, times in kinds), start=Cost())
    curve = _rdp_curve(kinds, float(delta), orders)
    best_order, best_epsilon = min(curve, key=lambda point: point[1])
    zcdp = zcdp_epsilon(spent.rho, delta)
    pld = _pld_epsilon(kinds, delta)
    if pld is None:
        basic = [round_epsilon_up(spent.epsilon)] if spent.delta <= delta else []
        pld = min([zcdp, best_epsilon, *basic])
    return Report(
        basic_epsilon=round_epsilon_up(spent.epsilon),
        basic_delta=float(spent.delta),
        rho_spent=spent.rho,
        zcdp_epsilon=zcdp,
        rdp_curve=curve,
        best_rdp_epsilon=best_epsilon,
        best_rdp_order=best_order,
        advanced_epsilon=advanced_epsilon(kinds, advanced_delta),
        advanced_delta=float(advanced_delta + spent.delta),
        pld_epsilon=pld,
    )


def advanced_epsilon(kinds: Iterable[tuple[DpEvent, int]], slack: Fraction) -> float:
    """ε of (ε_i, δ_i) events at Σ δ_i + slack: min(Σ ε, Σ ε tanh(ε/2) + √(2 ln(1/slack) Σ ε²)).

    The classical drift Σ ε (e^ε - 1) is larger, and without the minimum it can exceed Σ ε: 31
    releases of 0.3 at 1e-6 would read 12.0 instead of 9.3.

    Source: Kairouz, Oh, Viswanath 2015, Theorem 3.5.
    """
    pairs = [(event.epsilon, times) for event, times in kinds]
    basic = sum((epsilon * times for epsilon, times in pairs), start=Fraction(0))
    drift = math.fsum(float(e) * math.tanh(float(e) / 2) * times for e, times in pairs)
    squares = math.fsum(float(e) ** 2 * times for e, times in pairs)
    spread = math.sqrt(-2 * math.log(slack) * squares)
    return min(round_epsilon_up(basic), round_epsilon_up(drift + spread))


def _rdp_curve(
    kinds: Kinds, delta: float, orders: tuple[float, ...]
) -> tuple[tuple[float, float], ...]:
    """(order, ε at δ) for each order, by dp-accounting's conversion."""
    import dp_accounting
    from dp_accounting.rdp import RdpAccountant

    # The relation is that of randomized response's own input bit: one user present or absent.
    relation = dp_accounting.NeighboringRelation.REPLACE_ONE
    curve = []
    for order in orders:
        accountant = RdpAccountant([order], relation)
        for event, times in kinds:
            accountant.compose(_rdp_event(event), times)
        curve.append((order, round_epsilon_up(float(accountant.get_epsilon(delta)))))
    return tuple(curve)


def _rdp_event(event: DpEvent) -> Any:
    """dp-accounting's event of the same Rényi divergence."""
    import dp_accounting

    if isinstance(event, DiscreteLaplaceEvent):
        flip = 2 / (1 + math.exp(float(event.epsilon)))
        return dp_accounting.RandomizedResponseDpEvent(noise_parameter=flip, num_buckets=2)
    return dp_accounting.ZCDpEvent(rho=float(event.rho))


def _pld_epsilon(kinds: Kinds, delta: Fraction) -> float | None:
    """ε from the composed privacy-loss distribution, or None where its grid is out of its depth."""
    if delta < _PLD_DELTA_MIN:
        return None
    composed = None
    for event, times in kinds:
        one = _loss_distribution(event)
        if one is None or times > _PLD_TIMES_MAX:
            return None
        many = one.self_compose(times)
        composed = many if composed is None else composed.compose(many)
    assert composed is not None, "there is at least one event"
    epsilon = float(composed.get_epsilon_for_delta(float(delta)))
    return round_epsilon_up(epsilon) if math.isfinite(epsilon) else None


@lru_cache(maxsize=64)
def _loss_distribution(event: DpEvent) -> Any:
    """dp-accounting's pessimistic loss distribution of one event, or None if there is none."""
    if isinstance(event, LatticeGaussianEvent):
        return None
    from dp_accounting.pld import privacy_loss_distribution

    if isinstance(event, DiscreteLaplaceEvent):
        return privacy_loss_distribution.from_discrete_laplace_mechanism(
            float(event.epsilon), sensitivity=1, use_connect_dots=True
        )
    low, high = _PLD_SCALE_RANGE
    if not low <= event.sigma / event.sensitivity <= high or event.sigma > _PLD_SIGMA_MAX:
        return None
    return privacy_loss_distribution.from_discrete_gaussian_mechanism(
        float(event.sigma), sensitivity=event.sensitivity, use_connect_dots=True
    )
