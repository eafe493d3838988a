"""Optimal covariances: the known optima are reached, and the bounds bound."""

from itertools import product

import numpy as np
import pytest

from dpdau.errors import InvalidPlanError
from dpdau.mechanisms.matrix.classes import ContributionClass, ToggleClass
from dpdau.mechanisms.matrix.covariance import (
    Form,
    ListedClass,
    Measure,
    SearchedToggles,
    general_bound,
    sharpen,
    solve,
)


@pytest.mark.parametrize(
    ("contribution", "optimum", "tolerance"),
    [
        (ContributionClass(31, (30,), erasure=False), 2.389, 0.002),
        (ContributionClass(31, (30,), erasure=True), 2.556, 0.01),
        (ContributionClass(31, (7,), erasure=False), 2.935, 0.01),
        (ToggleClass(31, 1), 1.8827, 0.001),
        (ToggleClass(31, 2), 2.1745, 0.01),
        (ToggleClass(31, 3), 2.557, 0.01),
        (ToggleClass(31, 4), 2.684, 0.01),
        (ToggleClass(90, 1), 3.40 * 0.6477, 0.01),
        (ToggleClass(90, 2), 4.06 * 0.6477, 0.01),
        (ToggleClass(90, 3), 4.83 * 0.6477, 0.01),
        (ToggleClass(365, 1), 4.07 * 0.6477, 0.01),
    ],
)
def test_single_series_reach_their_optimum(
    contribution: ContributionClass | ToggleClass, optimum: float, tolerance: float
) -> None:
    """The error is within the tolerance of the best of all covariances, and above the bound."""
    found = solve(contribution, (1.0,), tolerance=tolerance)
    bound = general_bound(found.measure, (1.0,))
    assert bound <= found.error <= bound * (1 + 2 * tolerance)
    assert optimum * (1 - tolerance) <= found.error <= optimum * (1 + tolerance) * 1.001


def test_one_release_needs_noise_of_one_user() -> None:
    """A single count of sensitivity 1 has a standard deviation of 1 at μ = 1."""
    assert pytest.approx(1.0, rel=1e-6) == solve(ContributionClass(1, (7,)), (1.0,)).error


def _brute(part: ContributionClass) -> tuple[np.ndarray, np.ndarray]:
    """Every (series, activity) of a small class with daily counts."""
    bits = np.array(list(product((0, 1), repeat=part.horizon)), dtype=np.uint8)
    series = np.repeat(part.series(), len(bits), axis=0)
    activity = np.tile(bits, (len(series) // len(bits), 1))
    kept = part.possible(series, activity)
    return series[kept].astype(np.float64), activity[kept].astype(np.float64)


@pytest.mark.parametrize("weights", [(1.0, 1.0, 1.0), (0.25, 0.5, 1.0), (4.0, 2.0, 1.0)])
@pytest.mark.parametrize("erasure", [False, True])
def test_joint_form_protects_every_contribution(weights: tuple[float, ...], erasure: bool) -> None:
    """Over all activity of a small class the form stays at 1, and the error above the bound."""
    part = ContributionClass(6, (2, 4), daily=True, erasure=erasure)
    found = solve(part, weights, tolerance=2e-3)
    series, activity = _brute(part)
    worst = float(found.form.values(series, activity).max())
    assert 0.99 < worst < 1 + 1e-5
    rows = np.hstack([series, activity])
    inverse = np.linalg.inv(found.form.covariance())
    assert worst == pytest.approx(float(((rows @ inverse) * rows).sum(axis=1).max()), rel=1e-6)
    bound = general_bound(sharpen(found.measure, part, weights, iterations=75), weights)
    assert bound <= found.error <= found.family_bound * 1.0021
    assert found.error / bound < 1.06


def test_weights_move_the_error() -> None:
    """The weighted error is that of the covariance, and a heavier metric gets less noise."""
    part = ContributionClass(6, (2, 4), daily=True)
    stddev = {}
    for weights in [(1.0, 1.0, 1.0), (1.0, 1.0, 3.0)]:
        found = solve(part, weights, tolerance=2e-3)
        variance = np.diag(found.form.covariance())
        windows = variance[:12].reshape(6, 2).mean(axis=0)
        total = windows @ np.square(weights[:2]) + weights[2] ** 2 * variance[12:].mean()
        assert found.error == pytest.approx(np.sqrt(total), rel=1e-6)
        stddev[weights] = float(np.sqrt(variance[12:].mean()))
    assert stddev[(1.0, 1.0, 3.0)] < stddev[(1.0, 1.0, 1.0)]


def test_sharpening_raises_the_bound_with_possible_contributions() -> None:
    """The sharpened measure holds only what users can do, and bounds no less than before."""
    part = ContributionClass(8, (3, 6), daily=True)
    weights = (1.0, 1.0, 1.0)
    found = solve(part, weights, tolerance=5e-3)
    sharp = sharpen(found.measure, part, weights, iterations=50)
    members, activity = sharp.series.astype(np.uint8), sharp.activity.astype(np.uint8)
    assert part.possible(members, activity).all()
    assert pytest.approx(1.0) == sharp.mass.sum()
    start = sharpen(found.measure, part, weights, iterations=1)
    assert general_bound(start, weights) < general_bound(sharp, weights) <= found.error


def test_any_measure_bounds_any_form() -> None:
    """Random measures and random forms never cross."""
    generator = np.random.default_rng(7)
    part = ContributionClass(5, (2, 4), daily=True)
    series, activity = _brute(part)
    series, activity = series[1:], activity[1:]
    for _ in range(50):
        mass = generator.dirichlet(np.full(len(series), 0.05))
        root = generator.normal(size=(10, 10))
        form = Form(
            root @ root.T + np.eye(10), generator.normal(size=(5, 10)), generator.random(5) + 0.1
        )
        worst = float(form.values(series, activity).max())
        error = np.sqrt(worst * np.trace(form.covariance()) / 5)
        assert general_bound(Measure(series, activity, mass), (1.0, 1.0, 1.0)) <= error


def test_search_and_list_agree() -> None:
    """The searched toggle class has the supremum of the listed one, with and without new rows."""
    part = ToggleClass(12, 3)
    none = np.zeros((part.size(), 0), dtype=bool)
    generator = np.random.default_rng(3)
    root = generator.normal(size=(12, 12))
    form = Form(root @ root.T + np.eye(12), np.zeros((0, 12)), np.zeros(0))
    listed = ListedClass(part.series(), none, none).worst(form, 0.0)
    searched = SearchedToggles(part).worst(form, 0.0)
    assert listed[0] == pytest.approx(searched[0], rel=1e-5)
    for supremum, series, activity in (listed, searched):
        assert supremum == pytest.approx(form.values(series, activity).max(), rel=1e-5)
    assert 0 == len(SearchedToggles(part).worst(form, listed[0] * 1.01)[1])


def test_progress_hears_of_every_check() -> None:
    """The callback gets the iteration, the error so far and the estimate, and errors only fall."""
    heard: list[tuple[int, float, float]] = []
    found = solve(
        ContributionClass(12, (5,)),
        (1.0,),
        tolerance=1e-4,
        iterations_max=200,
        progress=lambda *seen: heard.append(seen),
    )
    assert [seen[0] for seen in heard] == list(range(25, found.iterations + 1, 25))
    assert sorted((seen[1] for seen in heard), reverse=True) == [seen[1] for seen in heard]
    assert found.error == heard[-1][1]


def test_solving_twice_gives_the_same() -> None:
    """There is no randomness in the solver."""
    one, two = (solve(ContributionClass(6, (2, 4), daily=True), (1.0,) * 3) for _ in range(2))
    assert np.array_equal(one.form.covariance(), two.form.covariance())


@pytest.mark.parametrize("weights", [(), (1.0,), (1.0, 1.0), (1.0, 1.0, 0.0), (1.0, 1.0, np.inf)])
def test_weights_that_do_not_fit_are_refused(weights: tuple[float, ...]) -> None:
    """One positive, finite weight for each metric is expected."""
    with pytest.raises(InvalidPlanError, match="positive weights"):
        solve(ContributionClass(6, (2, 4), daily=True), weights)


def test_too_few_iterations_are_refused() -> None:
    """Without one look at the whole class there is no supremum."""
    with pytest.raises(InvalidPlanError, match="updates"):
        solve(ContributionClass(6, (2,)), (1.0,), iterations_max=24)
