"""Growth plans: four counts of disjoint sets of users, for one charge."""

import hashlib
import json
from dataclasses import dataclass
from typing import Any, Final

from dpdau.accounting.budget import Budget
from dpdau.accounting.events import Charge
from dpdau.domain import GROWTH, Metric, NeighboringRelation, Unit, Window, month_of
from dpdau.mechanisms.gaussian import DiscreteGaussian
from dpdau.plan.single import gaussian
from dpdau.plan.terms import PrivacyTerms, budget

_POLICY: Final = "growth"


@dataclass(frozen=True, slots=True)
class GrowthPlan:
    """One frozen promise; `plan_id` is derived from the window and the edition.

    `mechanism` is that of each of the four steps, with noise of its own.
    """

    plan_id: str
    window: Window
    edition: int
    timezone: str
    unit: Unit
    mechanism: DiscreteGaussian
    budget: Budget
    charge: Charge

    def to_json(self) -> dict[str, Any]:
        """What the ledger keeps beside the charge, so that a reader can redo the arithmetic."""
        return {
            "policy": _POLICY,
            **_identity(self.window, self.edition),
            "timezone": self.timezone,
            "cells": [figure.value for figure in GROWTH],
            "releases": len(GROWTH),
            "unit": self.unit.value,
            "neighboring_relation": self.charge.neighboring_relation.value,
            "sensitivity": self.mechanism.sensitivity,
            "mechanism": self.mechanism.name,
        }


def growth(window: Window, *, edition: int, timezone: str, terms: PrivacyTerms) -> GrowthPlan:
    """A plan for the four cells between a window and the one before it: one charge.

    It is charged to the budget of MAU, at the price of one MAU release. No number of a month plan
    tells who was seen before, so growth does not follow from them and has its own price.

    Args:
        window: The later window.
        edition: 0 for the first answer; a fresh answer to the same question has the next number.
        timezone: The zone in which days begin and end.
        terms: The deployment's privacy parameters.

    Guarantee: the four releases together are (ε, δ)-DP for adding or removing one user's entire
    history. All four are counted in one step, from one state of the store, in which a user is in
    one cell at most. So the vectors of two neighbors differ in one place at most, by 1. Each place
    has its own discrete Gaussian noise of scale σ: three of the four releases have the same law for
    both neighbors, and the divergence of the fourth is that of one count of sensitivity 1. Together
    this is ρ-zCDP with ρ = 1 / (2σ²), which is what is charged.

    Source: Canonne, Kamath, Steinke 2020, Theorem 4.
    """
    mechanism, event = gaussian(terms.epsilon[Metric.MAU], terms.delta)
    held = budget(Metric.MAU, month_of(window.end), terms)
    return GrowthPlan(
        plan_id=_plan_id(window, edition),
        window=window,
        edition=edition,
        timezone=timezone,
        unit=Unit.USER,
        mechanism=mechanism,
        budget=held,
        charge=Charge(held.budget_id, event, NeighboringRelation.ADD_OR_REMOVE_ONE),
    )


def _identity(window: Window, edition: int) -> dict[str, Any]:
    return {
        "window_end": window.end.isoformat(),
        "window_days": window.days,
        "edition": edition,
    }


def _plan_id(window: Window, edition: int) -> str:
    text = json.dumps([_POLICY, _identity(window, edition)], sort_keys=True)
    return f"growth-{hashlib.sha256(text.encode()).hexdigest()[:32]}"
