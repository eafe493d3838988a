"""Planted bugs: each mutant of the product must set off its named check.

The same functions are the tests of the product, where they must stay silent.
"""

import math
from collections.abc import Callable, Iterator
from fractions import Fraction
from typing import Any

import numpy as np
import pytest

import dpdau.accounting.budget as budgets
import dpdau.accounting.calibration as calibration
import dpdau.accounting.report as reports
import dpdau.mechanisms.gaussian as gaussian_module
import dpdau.mechanisms.laplace as laplace_module
import noise_checks as checks
from dpdau.accounting.budget import Budget, Cost, FilterName
from dpdau.accounting.events import DiscreteGaussianEvent, DiscreteLaplaceEvent, DpEvent
from dpdau.domain import BoundedCount
from dpdau.mechanisms.base import OneStep
from dpdau.mechanisms.gaussian import DiscreteGaussian
from dpdau.mechanisms.laplace import DiscreteLaplace
from dpdau.mechanisms.sampling import NoiseSource, OpenDPNoise

pytestmark = pytest.mark.statistical

Patch = pytest.MonkeyPatch
_draw = OpenDPNoise._draw


@pytest.fixture(autouse=True)
def forget_cached_results() -> Iterator[None]:
    """No mutant sees, or leaves behind, a result that another product computed."""
    cached = (
        calibration.rho_cap, calibration.zcdp_epsilon, calibration.gaussian_sigma,
        reports._report, reports._loss_distribution,
        laplace_module._half_width, laplace_module._scale,
        gaussian_module._half_width, gaussian_module._stddev,
    )  # fmt: skip
    for function in cached:
        function.cache_clear()
    yield
    for function in cached:
        function.cache_clear()


def _laplace_scale_halved(patch: Patch) -> None:
    scale = laplace_module._scale
    patch.setattr(laplace_module, "_scale", lambda e, s: scale(e, s) / 2)


def _sampler_scale_halved(patch: Patch) -> None:
    patch.setattr(
        OpenDPNoise, "_draw", lambda self, law, scale, size: _draw(self, law, scale / 2, size)
    )


def _sampler_scale_five_percent_small(patch: Patch) -> None:
    patch.setattr(
        OpenDPNoise, "_draw", lambda self, law, scale, size: _draw(self, law, scale * 0.95, size)
    )


def _variance_passed_as_sigma(patch: Patch) -> None:
    def draw(self: OpenDPNoise, law: str, scale: float, size: int) -> Any:
        return _draw(self, law, scale**2 if law == "gaussian" else scale, size)

    patch.setattr(OpenDPNoise, "_draw", draw)


def _laplace_sensitivity_halved(patch: Patch) -> None:
    scale = laplace_module._scale
    patch.setattr(laplace_module, "_scale", lambda e, s: scale(e, max(1, s // 2)))


def _gaussian_sensitivity_halved(patch: Patch) -> None:
    sigma = calibration.gaussian_sigma
    patch.setattr(calibration, "gaussian_sigma", lambda e, d, s=1: sigma(e, d, max(1, s // 2)))


def _noise_reused(patch: Patch) -> None:
    first: dict[tuple[str, float], int] = {}

    def draw(self: OpenDPNoise, law: str, scale: float, size: int) -> Any:
        if (law, scale) not in first:
            first[law, scale] = int(_draw(self, law, scale, 1)[0])
        return np.full(size, first[law, scale])

    patch.setattr(OpenDPNoise, "_draw", draw)


def _every_second_draw_is_the_one_before(patch: Patch) -> None:
    def draw(self: OpenDPNoise, law: str, scale: float, size: int) -> Any:
        return np.repeat(_draw(self, law, scale, (size + 1) // 2), 2)[:size]

    patch.setattr(OpenDPNoise, "_draw", draw)


def _noise_kept_by_the_mechanism(patch: Patch) -> None:
    kept: dict[float, int] = {}

    def step(
        self: DiscreteGaussian, count: BoundedCount, state: OneStep, noise: NoiseSource
    ) -> tuple[int, OneStep]:
        if self.sigma not in kept:
            kept[self.sigma] = int(noise.discrete_gaussian(self.sigma, 1)[0])
        return count.value + kept[self.sigma], state.next()

    patch.setattr(DiscreteGaussian, "step", step)


def _float_noise(patch: Patch) -> None:
    def step(
        self: DiscreteLaplace, count: BoundedCount, state: OneStep, noise: NoiseSource
    ) -> tuple[float, OneStep]:
        return float(count.value + noise.discrete_laplace(self.scale, 1)[0]), state.next()

    patch.setattr(DiscreteLaplace, "step", step)


def _noise_clamped_at_zero(patch: Patch) -> None:
    patch.setattr(
        OpenDPNoise, "_draw", lambda self, law, scale, size: abs(_draw(self, law, scale, size))
    )


def _normal_quantile_floored(patch: Patch) -> None:
    for mechanism in (DiscreteLaplace, DiscreteGaussian):
        patch.setattr(
            mechanism,
            "half_width",
            lambda self, coverage=0.95: math.floor(1.96 * self.noise_stddev),
        )


def _quantile_one_short(patch: Patch) -> None:
    exact = DiscreteLaplace.half_width
    patch.setattr(DiscreteLaplace, "half_width", lambda self, c=0.95: max(0, exact(self, c) - 1))


def _interval_halved(patch: Patch) -> None:
    exact = DiscreteGaussian.half_width
    patch.setattr(DiscreteGaussian, "half_width", lambda self, c=0.95: exact(self, c) // 2)


def _stddev_of_continuous_laplace(patch: Patch) -> None:
    patch.setattr(DiscreteLaplace, "noise_stddev", property(lambda self: math.sqrt(2) * self.scale))


def _stddev_is_sigma(patch: Patch) -> None:
    patch.setattr(DiscreteGaussian, "noise_stddev", property(lambda self: self.sigma))


def _bounds_not_checked(patch: Patch) -> None:
    for module in (laplace_module, gaussian_module):
        patch.setattr(module, "check_count", lambda count, sensitivity: None)


def _active_steps_not_checked(patch: Patch) -> None:
    check = laplace_module.check_count

    def lenient(count: BoundedCount, sensitivity: int) -> None:
        check(checks.bounded(count.value, count.bounds.max_per_count), sensitivity)

    for module in (laplace_module, gaussian_module):
        patch.setattr(module, "check_count", lenient)


def _state_not_advanced(patch: Patch) -> None:
    patch.setattr(OneStep, "next", lambda self: self)


def _any_horizon_taken(patch: Patch) -> None:
    patch.setattr(OneStep, "init", classmethod(lambda cls, horizon: cls()))


def _count_counted_twice(patch: Patch) -> None:
    def step(
        self: DiscreteLaplace, count: BoundedCount, state: OneStep, noise: NoiseSource
    ) -> tuple[int, OneStep]:
        return 2 * count.value + int(noise.discrete_laplace(self.scale, 1)[0]), state.next()

    patch.setattr(DiscreteLaplace, "step", step)


def _charge_with_sigma_doubled(patch: Patch) -> None:
    patch.setattr(
        DiscreteGaussianEvent,
        "rho",
        property(lambda self: Fraction(self.sensitivity**2) / (8 * self.sigma**2)),
    )


def _charge_with_sensitivity_one(patch: Patch) -> None:
    patch.setattr(DiscreteGaussianEvent, "rho", property(lambda self: 1 / (2 * self.sigma**2)))


def _charge_forgets_repetitions(patch: Patch) -> None:
    cost_of = budgets.cost_of

    def once(event: DpEvent) -> Cost:
        cost = cost_of(event)
        share = Fraction(1, event.count)
        return Cost(cost.epsilon * share, cost.delta * share, cost.rho * share)

    patch.setattr(budgets, "cost_of", once)


def _conversion(change: Callable[[Fraction, Fraction], Fraction]) -> Callable[[Patch], None]:
    def mutate(patch: Patch) -> None:
        patch.setattr(calibration, "rho_cap", change)
        patch.setattr(budgets, "rho_cap", change)

    return mutate


def _standard_rho(epsilon: Fraction, delta: Fraction) -> Fraction:
    log = -math.log(delta)
    return Fraction((math.sqrt(log + float(epsilon)) - math.sqrt(log)) ** 2)


_rho_cap = calibration.rho_cap
_conversion_one_percent_high = _conversion(lambda e, d: _rho_cap(e, d) * Fraction(101, 100))
_conversion_without_delta = _conversion(lambda e, d: e)
_conversion_not_tight = _conversion(_standard_rho)


def _spending_forgotten(patch: Patch) -> None:
    fits = budgets.fits
    patch.setattr(budgets, "fits", lambda budget, spent, charge: fits(budget, Cost(), charge))


def _one_charge_too_many(patch: Patch) -> None:
    patch.setattr(budgets, "fits", lambda budget, spent, _: budgets._within(spent, budget))


def _delta_not_filtered(patch: Patch) -> None:
    within = budgets._within

    def lenient(spent: Cost, budget: Budget) -> bool:
        return within(Cost(spent.epsilon, Fraction(0), spent.rho), budget)

    patch.setattr(budgets, "_within", lenient)


def _cap_multiplied(patch: Patch) -> None:
    cap = Budget.cap
    patch.setattr(Budget, "cap", lambda self: cap(self) * 3)


def _zcdp_filter_sums_epsilon(patch: Patch) -> None:
    patch.setattr(
        budgets,
        "_within",
        lambda spent, budget: (
            spent.epsilon <= budget.epsilon * budget.allowances
            and (budget.filter_name is FilterName.ZCDP or spent.delta <= budget.delta)
        ),
    )


def _reported_as_continuous_laplace(patch: Patch) -> None:
    import dp_accounting

    rdp_event = reports._rdp_event

    def continuous(event: DpEvent) -> Any:
        if isinstance(event, DiscreteLaplaceEvent):
            return dp_accounting.LaplaceDpEvent(1 / float(event.epsilon))
        return rdp_event(event)

    patch.setattr(reports, "_rdp_event", continuous)


def _loss_distribution_of_continuous_laplace(patch: Patch) -> None:
    from dp_accounting.pld import privacy_loss_distribution

    patch.setattr(
        reports,
        "_loss_distribution",
        lambda event: privacy_loss_distribution.from_laplace_mechanism(1 / float(event.epsilon)),
    )


def _classical_advanced_composition(patch: Patch) -> None:
    def classical(kinds: Any, slack: Fraction) -> float:
        pairs = [(float(event.epsilon), times) for event, times in kinds]
        squares = sum(e**2 * times for e, times in pairs)
        drift = sum(e * math.expm1(e) * times for e, times in pairs)
        return drift + math.sqrt(-2 * math.log(slack) * squares)

    patch.setattr(reports, "advanced_epsilon", classical)


MUTANTS: dict[str, tuple[Callable[[Patch], None], Callable[[], None]]] = {
    "laplace scale halved / law": (_laplace_scale_halved, checks.laplace_law),
    "laplace scale halved / sensitivity": (_laplace_scale_halved, checks.sensitivity_is_exact),
    "laplace scale halved / neighbors": (_laplace_scale_halved, checks.neighbors_are_hidden),
    "laplace scale halved / opendp": (_laplace_scale_halved, checks.costs_match_opendp),
    "sampler scale halved / laplace law": (_sampler_scale_halved, checks.laplace_law),
    "sampler scale halved / gaussian law": (_sampler_scale_halved, checks.gaussian_law),
    "sampler scale halved / single draws": (_sampler_scale_halved, checks.single_draw_law),
    "sampler scale halved / neighbors": (_sampler_scale_halved, checks.neighbors_are_hidden),
    "sampler scale 5 % small": (_sampler_scale_five_percent_small, checks.gaussian_law),
    "variance passed as sigma": (_variance_passed_as_sigma, checks.gaussian_law),
    "laplace sensitivity halved / law": (_laplace_sensitivity_halved, checks.laplace_law),
    "laplace sensitivity halved / sensitivity": (
        _laplace_sensitivity_halved,
        checks.sensitivity_is_exact,
    ),
    "laplace sensitivity halved / neighbors": (
        _laplace_sensitivity_halved,
        checks.neighbors_are_hidden,
    ),
    "gaussian sensitivity halved / law": (_gaussian_sensitivity_halved, checks.gaussian_law),
    "gaussian sensitivity halved / sensitivity": (
        _gaussian_sensitivity_halved,
        checks.sensitivity_is_exact,
    ),
    "gaussian sensitivity halved / neighbors": (
        _gaussian_sensitivity_halved,
        checks.neighbors_are_hidden,
    ),
    "noise reused / law": (_noise_reused, checks.laplace_law),
    "noise reused / fresh": (_noise_reused, checks.releases_are_fresh),
    "every second draw repeated": (_every_second_draw_is_the_one_before, checks.gaussian_law),
    "noise kept by the mechanism": (_noise_kept_by_the_mechanism, checks.releases_are_fresh),
    "float noise": (_float_noise, checks.releases_are_integers),
    "noise never negative": (_noise_clamped_at_zero, checks.laplace_law),
    "normal quantile floored": (_normal_quantile_floored, checks.intervals_are_exact),
    "quantile one short": (_quantile_one_short, checks.intervals_are_exact),
    "interval halved": (_interval_halved, checks.intervals_cover),
    "stddev of continuous laplace": (_stddev_of_continuous_laplace, checks.stddev_is_exact),
    "stddev is sigma": (_stddev_is_sigma, checks.stddev_is_exact),
    "bounds not checked": (_bounds_not_checked, checks.wrong_bounds_are_refused),
    "active steps not checked": (_active_steps_not_checked, checks.wrong_bounds_are_refused),
    "state not advanced": (_state_not_advanced, checks.second_step_is_refused),
    "any horizon taken": (_any_horizon_taken, checks.second_step_is_refused),
    "count counted twice": (_count_counted_twice, checks.sensitivity_is_exact),
    "charge with sigma doubled": (_charge_with_sigma_doubled, checks.costs_match_opendp),
    "charge with sensitivity one": (_charge_with_sensitivity_one, checks.costs_match_opendp),
    "charge forgets repetitions / opendp": (
        _charge_forgets_repetitions,
        checks.costs_match_opendp,
    ),
    "charge forgets repetitions / filter": (
        _charge_forgets_repetitions,
        checks.filters_hold_the_cap,
    ),
    "conversion 1 % high": (_conversion_one_percent_high, checks.conversion_matches_opendp),
    "conversion without delta": (_conversion_without_delta, checks.conversion_matches_opendp),
    "conversion not tight": (_conversion_not_tight, checks.conversion_matches_opendp),
    "spending forgotten": (_spending_forgotten, checks.filters_hold_the_cap),
    "one charge too many": (_one_charge_too_many, checks.filters_hold_the_cap),
    "delta not filtered": (_delta_not_filtered, checks.filters_hold_the_cap),
    "cap multiplied": (_cap_multiplied, checks.filters_hold_the_cap),
    "zcdp filter sums epsilon": (_zcdp_filter_sums_epsilon, checks.filters_hold_the_cap),
    "reported as continuous laplace": (
        _reported_as_continuous_laplace,
        checks.report_bounds_exact_losses,
    ),
    "loss distribution of continuous laplace": (
        _loss_distribution_of_continuous_laplace,
        checks.report_bounds_exact_losses,
    ),
    "classical advanced composition": (
        _classical_advanced_composition,
        checks.report_bounds_exact_losses,
    ),
}


@pytest.mark.parametrize("name", MUTANTS)
def test_a_planted_bug_sets_off_its_named_check(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """With the bug planted the check fails; without it the same check is a passing test."""
    plant, check = MUTANTS[name]
    plant(monkeypatch)
    with pytest.raises((AssertionError, pytest.fail.Exception)):
        check()


def test_every_check_is_set_off_by_some_planted_bug() -> None:
    """No check is without a bug that it is known to catch."""
    known = {
        value
        for value in vars(checks).values()
        if callable(value)
        and getattr(value, "__module__", "") == checks.__name__
        and getattr(value, "__annotations__", None) == {"return": None}
    }
    assert known == {check for _, check in MUTANTS.values()}
