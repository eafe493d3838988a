"""The methods on exact counts: what each publishes, for what total, and how it states its error."""

from fractions import Fraction

import numpy as np
import pytest

from dpdau.accounting.calibration import rho_cap
from dpdau.domain import Metric
from dpdau.eval.methods import (
    TITLES,
    Estimates,
    Method,
    from_counts,
    ignoring_removals,
    mau_toggles,
)
from dpdau.mechanisms.matrix.lattice import LatticeMechanism
from dpdau.mechanisms.matrix.strategies import shipped
from dpdau.mechanisms.tree import TreeMechanism, TreeStrategy
from products import ZeroNoise

DAYS = 30
DELTA = Fraction(1, 10**6)
COUNTS = {metric: np.arange(DAYS) + 10 * place for place, metric in enumerate(Metric)}


def made(epsilon: Fraction = Fraction(1)) -> dict[tuple[Method, Metric], Estimates]:
    """Every estimate, without noise."""
    noise = ZeroNoise()
    found = [
        *from_counts(COUNTS, epsilon, DELTA, noise),
        *ignoring_removals(COUNTS, epsilon, DELTA, noise),
    ]
    return {(one.method, one.metric): one for one in found}


def test_without_noise_every_method_publishes_the_counts() -> None:
    """What a method adds is noise and nothing else."""
    for (_, metric), one in made().items():
        assert COUNTS[metric].tolist() == one.values.tolist()


def test_each_method_covers_its_metrics_once() -> None:
    """Joint methods publish three metrics under one promise, the others one."""
    numbers = {key: one.numbers for key, one in made().items()}
    joint = {Method.SHARED_ALL, Method.IGNORES}
    single = {Method.SHARED, Method.TREE, Method.TOEPLITZ, Method.GAUSSIAN}

    assert {
        **{(method, metric): 3 * DAYS for method in joint for metric in Metric},
        **{(method, metric): DAYS for method in single for metric in (Metric.DAU, Metric.MAU)},
        (Method.LAPLACE, Metric.DAU): DAYS,
    } == numbers


def test_every_total_is_the_one_that_was_asked_for() -> None:
    """ε is that of the month for all; δ is 0 for Laplace alone."""
    for (method, _), one in made(Fraction(1, 2)).items():
        assert (0.5, 0.0 if method is Method.LAPLACE else 1e-6) == (one.epsilon, one.delta)


@pytest.mark.parametrize("day", [0, 14, 29])
def test_half_widths_are_those_of_the_mechanisms(day: int) -> None:
    """The intervals are the ones that the mechanisms state."""
    found, cap = made(), rho_cap(Fraction(1), DELTA)
    plan = LatticeMechanism(shipped(DAYS, 30).strategy, cap)
    tree = TreeMechanism(TreeStrategy(DAYS, Metric.DAU, DAYS), cap)

    for metric in Metric:
        stated = found[Method.IGNORES, metric].half_widths[day]
        assert plan.half_width(day, metric) == stated
    assert tree.half_width(day, Metric.DAU) == found[Method.TREE, Metric.DAU].half_widths[day]


def test_half_the_budget_about_doubles_the_noise() -> None:
    """Laplace intervals grow in proportion to 1/ε, those of zCDP by a little less."""
    once, twice = made(Fraction(1, 2)), made(Fraction(1))

    for key, one in once.items():
        ratio = one.half_widths.sum() / twice[key].half_widths.sum()
        assert 1.85 < ratio < 2.05


def test_a_month_of_mau_changes_at_most_four_times() -> None:
    """In, out, in again, and erased; a month shorter than the window has no room for more."""
    assert [4, 4] == [mau_toggles(days) for days in (30, 31)]


def test_every_method_has_a_title() -> None:
    """Tables and figures name each method in words."""
    assert set(Method) == set(TITLES)
