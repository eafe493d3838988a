"""What every mechanism owes: one suite, each implementation."""

import dataclasses
from fractions import Fraction
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

import noise_checks as checks
from dpdau.domain import BoundedCount, ContributionBounds, Unit
from dpdau.errors import InvalidPlanError
from dpdau.mechanisms.base import COUNT_LIMIT, SENSITIVITY_MAX, interval
from dpdau.mechanisms.gaussian import DiscreteGaussian
from dpdau.mechanisms.laplace import DiscreteLaplace
from noise_sources import RecordedNoise, ZeroNoise

DELTA = Fraction(1, 10**6)
MECHANISMS: dict[str, Any] = {
    "discrete_laplace 0.3": DiscreteLaplace(epsilon=Fraction(3, 10)),
    "discrete_laplace 2/5": DiscreteLaplace(epsilon=Fraction(2), sensitivity=5),
    "discrete_gaussian 0.3": DiscreteGaussian(sigma=0.3, epsilon=Fraction(9), delta=DELTA),
    "discrete_gaussian 8.7": DiscreteGaussian(sigma=8.7, epsilon=Fraction(1, 2), delta=DELTA),
    "discrete_gaussian 1e6": DiscreteGaussian(
        sigma=1e6, epsilon=Fraction(1), delta=DELTA, sensitivity=1000
    ),
}


@pytest.fixture(params=list(MECHANISMS), name="mechanism")
def _mechanism(request: pytest.FixtureRequest) -> Any:
    return MECHANISMS[request.param]


def _count(mechanism: Any, value: int) -> BoundedCount:
    return checks.bounded(value, mechanism.sensitivity)


def test_the_guarantee_is_stated_in_exact_numbers(mechanism: Any) -> None:
    """ε, δ and ρ are fractions, the sensitivity an integer, and the doc string has a Guarantee."""
    assert all(type(x) is Fraction for x in (mechanism.epsilon, mechanism.delta, mechanism.rho))
    assert mechanism.epsilon > 0
    assert 0 <= mechanism.delta < 1
    assert mechanism.rho > 0
    assert type(mechanism.sensitivity) is int
    assert mechanism.name in {"discrete_laplace", "discrete_gaussian"}
    assert "Guarantee:" in type(mechanism).__doc__
    assert "Source:" in type(mechanism).__doc__


@given(value=st.integers(1 - COUNT_LIMIT, COUNT_LIMIT - 1), name=st.sampled_from(list(MECHANISMS)))
def test_without_noise_the_release_is_the_count(value: int, name: str) -> None:
    """Nothing but noise stands between the count and the release, at any size of count."""
    mechanism = MECHANISMS[name]
    released, _ = mechanism.step(_count(mechanism, value), mechanism.init(1), ZeroNoise())
    assert value == released
    assert type(released) is int


@given(
    value=st.integers(1 - COUNT_LIMIT, COUNT_LIMIT - 1),
    draw=st.integers(-(2**63), 2**63 - 1),
    name=st.sampled_from(list(MECHANISMS)),
)
def test_the_release_is_the_count_plus_one_draw(value: int, draw: int, name: str) -> None:
    """One draw of the mechanism's law and scale is added, in integers that cannot overflow."""
    mechanism = MECHANISMS[name]
    noise = RecordedNoise([draw])
    released, _ = mechanism.step(_count(mechanism, value), mechanism.init(1), noise)
    assert value + draw == released
    if isinstance(mechanism, DiscreteLaplace):
        assert [("laplace", mechanism.scale, 1)] == noise.asked
    else:
        assert [("gaussian", mechanism.sigma, 1)] == noise.asked


def test_a_step_changes_nothing_but_what_it_returns(mechanism: Any) -> None:
    """The mechanism and the state that went in are unchanged, so a step can be replayed."""
    before = mechanism.init(1)
    count = _count(mechanism, 7)
    first = mechanism.step(count, before, RecordedNoise([3]))
    assert mechanism.init(1) == before
    assert first == mechanism.step(count, before, RecordedNoise([3]))
    assert first[1] != before


def test_the_horizon_is_one(mechanism: Any) -> None:
    """A horizon of 0 or 2 is refused, and so is a second step; neither draws noise."""
    for horizon in (-1, 0, 2, 31):
        with pytest.raises(InvalidPlanError, match="horizon of 1"):
            mechanism.init(horizon)
    _, after = mechanism.step(_count(mechanism, 7), mechanism.init(1), ZeroNoise())
    noise = RecordedNoise([1])
    with pytest.raises(InvalidPlanError, match="horizon of 1"):
        mechanism.step(_count(mechanism, 7), after, noise)
    assert [] == noise.asked


def test_bounds_that_do_not_match_are_refused_before_a_draw(mechanism: Any) -> None:
    """Larger and smaller contributions, and more active steps, are all refused."""
    wrong = [
        ContributionBounds(mechanism.sensitivity + 1, 1),
        ContributionBounds(mechanism.sensitivity - 1, 1),
        ContributionBounds(mechanism.sensitivity, 2),
        ContributionBounds(mechanism.sensitivity, 0),
    ]
    for bounds in wrong:
        noise = RecordedNoise([1])
        with pytest.raises(InvalidPlanError, match="max_per_count"):
            mechanism.step(BoundedCount(987654321, bounds, Unit.USER), mechanism.init(1), noise)
        assert [] == noise.asked


def test_another_unit_is_refused(mechanism: Any) -> None:
    """A count of anything but users is refused."""
    count = BoundedCount(1, ContributionBounds(mechanism.sensitivity, 1), "device")  # type: ignore[arg-type]
    with pytest.raises(InvalidPlanError, match="unit"):
        mechanism.step(count, mechanism.init(1), ZeroNoise())


@pytest.mark.parametrize("value", [COUNT_LIMIT, -COUNT_LIMIT, 2**70])
def test_counts_beyond_the_limit_are_refused_without_being_named(
    mechanism: Any, value: int
) -> None:
    """The refusal does not show the count, and no noise is drawn."""
    noise = RecordedNoise([1])
    with pytest.raises(InvalidPlanError) as refused:
        mechanism.step(_count(mechanism, value), mechanism.init(1), noise)
    assert str(abs(value)) not in str(refused.value)
    assert {} == refused.value.facts
    assert [] == noise.asked


def test_half_width_grows_with_coverage(mechanism: Any) -> None:
    """More coverage never gives a narrower interval."""
    widths = [mechanism.half_width(c) for c in (0.01, 0.5, 0.9, 0.95, 0.99, 0.999, 1 - 1e-9)]
    assert sorted(widths) == widths
    assert mechanism.half_width() == mechanism.half_width(0.95)


@pytest.mark.parametrize("coverage", [0.0, 1.0, -0.5, 1.5, float("nan"), 1 - 1e-12])
def test_an_impossible_coverage_is_refused(mechanism: Any, coverage: float) -> None:
    """Coverage stays in (0, 1 - 1e-9]."""
    with pytest.raises(InvalidPlanError, match="coverage"):
        mechanism.half_width(coverage)


def test_the_interval_is_centered_on_the_release(mechanism: Any) -> None:
    """Both ends are half_width away, also for a negative release."""
    half = mechanism.half_width()
    assert (-5 - half, -5 + half) == interval(mechanism, -5)
    wide = mechanism.half_width(0.99)
    assert (100 - wide, 100 + wide) == interval(mechanism, 100, 0.99)


def test_a_mechanism_cannot_be_changed(mechanism: Any) -> None:
    """It is a frozen value: the claim cannot drift from the noise after it was made."""
    with pytest.raises(dataclasses.FrozenInstanceError):
        mechanism.sensitivity = 0
    with pytest.raises((AttributeError, TypeError)):
        mechanism.rho = Fraction(0)


@pytest.mark.parametrize("sensitivity", [0, -1, SENSITIVITY_MAX + 1, 1.5])
def test_a_sensitivity_out_of_range_is_refused(mechanism: Any, sensitivity: Any) -> None:
    """Sensitivities are integers from 1 to the limit."""
    with pytest.raises(InvalidPlanError, match="sensitivity"):
        dataclasses.replace(mechanism, sensitivity=sensitivity)


def test_the_interval_is_the_exact_discrete_quantile() -> None:
    """half_width equals the least covering integer of the summed law."""
    checks.intervals_are_exact()


def test_the_published_stddev_is_that_of_the_law() -> None:
    """noise_stddev equals the standard deviation of the summed law."""
    checks.stddev_is_exact()


def test_neighbors_differ_by_no_more_than_was_claimed() -> None:
    """With noise off, Δ/scale ≤ ε and Δ²/2σ² ≤ ρ hold exactly over neighboring counts."""
    checks.sensitivity_is_exact()


def test_counts_with_wider_bounds_are_refused() -> None:
    """Bounds beyond the sensitivity are refused."""
    checks.wrong_bounds_are_refused()


def test_one_charge_pays_for_one_step() -> None:
    """Longer horizons and second steps are refused."""
    checks.second_step_is_refused()


def test_a_release_is_a_python_integer() -> None:
    """Real noise gives ints, not floats or numpy scalars."""
    checks.releases_are_integers()


def test_the_claimed_cost_is_what_opendp_states() -> None:
    """ε and ρ agree with the privacy maps of the samplers that draw the noise."""
    checks.costs_match_opendp()
