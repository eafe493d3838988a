"""What every mechanism owes: one suite, each implementation."""

import dataclasses
import json
from fractions import Fraction
from functools import lru_cache
from itertools import product
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import noise_checks as checks
from dpdau.domain import BoundedCount, ContributionBounds, Metric, Unit
from dpdau.errors import InvalidPlanError
from dpdau.mechanisms.base import COUNT_LIMIT, SENSITIVITY_MAX, HorizonMechanism, interval
from dpdau.mechanisms.gaussian import DiscreteGaussian
from dpdau.mechanisms.laplace import DiscreteLaplace
from dpdau.mechanisms.matrix.classes import ContributionClass, ToggleClass
from dpdau.mechanisms.matrix.covariance import solve
from dpdau.mechanisms.matrix.lattice import (
    LatticeMechanism,
    LatticeState,
    lattice_strategy,
    release_order,
    shared_noise,
)
from dpdau.mechanisms.matrix.strategies import shipped
from dpdau.mechanisms.matrix.toeplitz import sqrt_toeplitz
from dpdau.mechanisms.tree import TreeMechanism, TreeStrategy
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


RHO = Fraction(18507, 100_000)
HORIZONS = [
    "joint optimum", "toggle optimum", "month", "sqrt toeplitz", "sqrt toeplitz, many toggles",
    "tree", "tree of one day", "shared noise",
]  # fmt: skip


@lru_cache(maxsize=len(HORIZONS))
def _horizon(name: str) -> tuple[Any, np.ndarray]:
    """A mechanism, and contributions of its class: all of them where they can be listed."""
    joint, toggles = ContributionClass(6, (2, 4), daily=True), ToggleClass(14, 3)
    month = shipped(28, 28)
    if name == "joint optimum":
        strategy = lattice_strategy(solve(joint, (1.0,) * 3).form, joint, month.key.metrics)
        return LatticeMechanism(strategy, RHO), _everything(joint)
    if name == "toggle optimum":
        strategy = lattice_strategy(
            solve(toggles, (1.0,), tolerance=0.01).form, toggles, (Metric.MAU,)
        )
        return LatticeMechanism(strategy, RHO), toggles.series()
    if name == "month":
        order = release_order(month.key.contribution)
        return LatticeMechanism(month.strategy, RHO), month.witness.rows()[:, order]
    if name == "sqrt toeplitz":
        return LatticeMechanism(sqrt_toeplitz(14, Metric.WAU, 3), RHO), toggles.series()
    if name == "sqrt toeplitz, many toggles":
        many = ToggleClass(12, 7).series()
        return LatticeMechanism(sqrt_toeplitz(12, Metric.WAU, 7), RHO), many
    if name == "tree":
        return TreeMechanism(TreeStrategy(14, Metric.WAU, 3), RHO), toggles.series()
    if name == "tree of one day":
        return TreeMechanism(TreeStrategy(1, Metric.DAU, 1), RHO), np.array([[0], [1]])
    every = np.array(list(product((0, 1), repeat=8)))
    return LatticeMechanism(shared_noise(4, (Metric.DAU, Metric.MAU)), RHO), every


def _everything(part: ContributionClass) -> np.ndarray:
    """(n, releases) all series with all activity that can cause them."""
    bits = np.array(list(product((0, 1), repeat=part.horizon)), dtype=np.uint8)
    series = np.repeat(part.series(), len(bits), axis=0)
    activity = np.tile(bits, (len(part.series()), 1))
    possible = part.possible(series, activity)
    return np.hstack([series, activity])[possible][:, release_order(part)]


@pytest.fixture(params=HORIZONS, name="horizon")
def _of_a_horizon(request: pytest.FixtureRequest) -> tuple[Any, np.ndarray]:
    return _horizon(request.param)


def _days(mechanism: Any, values: list[int]) -> list[list[BoundedCount]]:
    """The counts of each day, with the bounds that the mechanism protects."""
    width, bounds = len(mechanism.strategy.metrics), mechanism.strategy.bounds
    counts = [BoundedCount(value, bounds, Unit.USER) for value in values]
    return [counts[start : start + width] for start in range(0, len(counts), width)]


def _released(mechanism: HorizonMechanism[Any], state: Any, values: list[int]) -> list[float]:
    """All estimates of the horizon, day by day."""
    found: list[float] = []
    for today in _days(mechanism, values):
        estimates, state = mechanism.step(today, state)
        found += estimates
    return found


def test_horizons_without_noise_give_the_counts(horizon: Any) -> None:
    """Zero noise gives the exact counts on every day, of any size that a double holds."""
    mechanism, members = horizon
    values = [(-1) ** place * (place * 2**44 + 5) for place in range(members.shape[1])]
    assert values == _released(mechanism, mechanism.init(ZeroNoise()), values)


def test_horizons_draw_once_for_each_value_they_protect(horizon: Any) -> None:
    """One vector is drawn, at the scale that the charge rests on, and steps draw nothing."""
    mechanism, members = horizon
    noise = RecordedNoise(range(len(mechanism.strategy.matrix)))
    _released(mechanism, mechanism.init(noise), [7] * members.shape[1])
    assert [("gaussian", mechanism.scale, len(mechanism.strategy.matrix))] == noise.asked


def test_horizons_cost_no_more_than_their_cap(horizon: Any) -> None:
    """ρ = Δ²/(2s²) in exact fractions, at most the cap and hardly below it."""
    mechanism, _ = horizon
    squared = mechanism.strategy.sensitivity_squared
    assert type(mechanism.rho) is Fraction
    assert squared == 2 * mechanism.rho * Fraction(mechanism.scale) ** 2
    assert RHO * (1 - Fraction(1, 10**12)) <= mechanism.rho <= RHO
    assert "Guarantee:" in type(mechanism).__doc__


def test_neighbors_of_a_horizon_differ_by_what_was_paid_for(horizon: Any) -> None:
    """Over the class |Āv|² ≤ Δ² in integers, and the worst user comes within 3 in 100 of it."""
    mechanism, members = horizon
    moves = members.astype(np.int64) @ mechanism.strategy.matrix.T
    worst = int(np.square(moves).sum(axis=1).max())
    assert worst <= mechanism.strategy.sensitivity_squared
    if mechanism is not _horizon("sqrt toeplitz, many toggles")[0]:
        assert worst > 0.97 * mechanism.strategy.sensitivity_squared
    base = [1_000 + place for place in range(members.shape[1])]
    user = members[np.square(moves).sum(axis=1).argmax()].astype(int).tolist()
    joined = [count + part for count, part in zip(base, user, strict=True)]
    with_user = _released(mechanism, mechanism.init(ZeroNoise()), joined)
    without = _released(mechanism, mechanism.init(ZeroNoise()), base)
    assert user == [more - less for more, less in zip(with_user, without, strict=True)]


def test_estimates_follow_the_noisy_values_alone(horizon: Any) -> None:
    """Counts and noise that give the same sums give the same estimates, to the last bit."""
    mechanism, members = horizon
    matrix = mechanism.strategy.matrix
    drawn = np.random.default_rng(3).integers(-(2**22), 2**22, len(matrix))
    values = np.arange(members.shape[1]) * 3 + 40
    shift = members[-1].astype(np.int64)
    one = _released(mechanism, mechanism.init(RecordedNoise(drawn)), values.tolist())
    other_noise = RecordedNoise(drawn - matrix @ shift)
    other = _released(mechanism, mechanism.init(other_noise), (values + shift).tolist())
    assert one == other


def test_estimates_of_a_horizon_rest_on_no_later_noise(horizon: Any) -> None:
    """Values that only later counts enter do not move an estimate."""
    mechanism, _ = horizon
    matrix = mechanism.strategy.matrix
    width = len(mechanism.strategy.metrics)
    drawn = np.random.default_rng(4).integers(-(2**22), 2**22, len(matrix))
    whole = mechanism.init(RecordedNoise(drawn)).noise
    for days in range(1, mechanism.strategy.horizon):
        later = matrix[:, days * width :].any(axis=1)
        changed = mechanism.init(RecordedNoise(np.where(later, -drawn, drawn))).noise
        assert whole[: days * width] == changed[: days * width]


def test_stated_deviations_are_those_of_the_weights(horizon: Any) -> None:
    """noise_stddevs is the root of the sum of squares of how each draw moves each estimate."""
    mechanism, members = horizon
    strategy = mechanism.strategy
    unit, moved = 2**20, np.zeros(members.shape[1])
    for place in range(len(strategy.matrix)):
        drawn = [unit * (place == other) for other in range(len(strategy.matrix))]
        moved += np.square(np.array(strategy.spread(drawn), dtype=float) / 2**32)
    stated = mechanism.noise_stddevs()
    assert (strategy.horizon, len(strategy.metrics)) == stated.shape
    expected = np.sqrt(moved) * mechanism.scale / unit
    assert np.allclose(stated.ravel(), expected, rtol=1e-6)


def test_states_of_a_horizon_survive_the_store(horizon: Any) -> None:
    """A state comes back from JSON as it was in the middle of the horizon, and prints no noise."""
    mechanism, members = horizon
    state = mechanism.init(RecordedNoise([123_456] * len(mechanism.strategy.matrix)))
    values = list(range(members.shape[1]))
    whole = _released(mechanism, state, values)
    found: list[float] = []
    for today in _days(mechanism, values):
        estimates, state = mechanism.step(today, LatticeState.from_json(_stored(state)))
        found += estimates
    assert whole == found
    assert str(state.noise[0]) not in repr(state)


def _stored(state: LatticeState) -> dict[str, Any]:
    body: dict[str, Any] = json.loads(json.dumps(state.to_json()))
    return body


def test_steps_beyond_a_horizon_are_refused(horizon: Any) -> None:
    """After the last day there is no other; a replay of a day gives what it gave."""
    mechanism, members = horizon
    days = _days(mechanism, [9] * members.shape[1])
    state = mechanism.init(RecordedNoise(range(len(mechanism.strategy.matrix))))
    for today in days:
        before, (estimates, state) = state, mechanism.step(today, state)
        assert (estimates, state) == mechanism.step(today, before)
    with pytest.raises(InvalidPlanError, match="horizon"):
        mechanism.step(days[0], state)


def test_counts_that_a_horizon_does_not_protect_are_refused(horizon: Any) -> None:
    """Other bounds, units, widths and sizes are refused, and no refusal shows the count."""
    mechanism, _ = horizon
    state, bounds = mechanism.init(ZeroNoise()), mechanism.strategy.bounds
    width = len(mechanism.strategy.metrics)
    wider = dataclasses.replace(bounds, max_per_count=2)
    longer = dataclasses.replace(bounds, max_active_steps=bounds.max_active_steps + 1)
    for count in (
        BoundedCount(987_654_321, wider, Unit.USER),
        BoundedCount(987_654_321, longer, Unit.USER),
        BoundedCount(987_654_321, bounds, "device"),  # type: ignore[arg-type]
        BoundedCount(COUNT_LIMIT, bounds, Unit.USER),
    ):
        with pytest.raises(InvalidPlanError) as refused:
            mechanism.step([count] * width, state)
        assert str(count.value) not in str(refused.value)
    for counts in ([], [BoundedCount(1, bounds, Unit.USER)] * (width + 1)):
        with pytest.raises(InvalidPlanError, match="counts"):
            mechanism.step(counts, state)


def test_half_widths_of_a_horizon_grow_with_coverage(horizon: Any) -> None:
    """More coverage never gives a narrower interval, and an impossible one is refused."""
    mechanism, _ = horizon
    metric, last = mechanism.strategy.metrics[0], mechanism.strategy.horizon - 1
    widths = [mechanism.half_width(last, metric, c) for c in (0.01, 0.5, 0.95, 0.999, 1 - 1e-9)]
    assert sorted(widths) == widths
    assert mechanism.half_width(last, metric) == widths[2]
    for coverage in (0.0, 1.0, float("nan")):
        with pytest.raises(InvalidPlanError, match="coverage"):
            mechanism.half_width(last, metric, coverage)


def test_a_horizon_mechanism_cannot_be_changed(horizon: Any) -> None:
    """It is a frozen value, of a cap above 0 that the sampler can serve."""
    mechanism, _ = horizon
    with pytest.raises((dataclasses.FrozenInstanceError, AttributeError)):
        mechanism.rho_cap = Fraction(9)
    for cap in (Fraction(0), Fraction(-1), Fraction(10**9), Fraction(1, 10**16)):
        with pytest.raises(InvalidPlanError):
            dataclasses.replace(mechanism, rho_cap=cap)
