"""The monthly plan's mechanism: its sensitivity, the law of its noise, its errors, planted bugs.

The named checks of `lattice_checks` are silent on the product and set off by each mutant. Exact,
with the noise off: `sensitivity_problem`, `edits_problem`. The law of the noise, at false-alarm
rates below 1e-6: `law_problem`, `shape_problem`, `restart_problem`, `coverage_problem`. And the
releases as a black box, likewise: `black_box_problem`.
"""

import math
from collections.abc import Callable
from dataclasses import replace
from fractions import Fraction
from typing import Any

import numpy as np
import pytest

import dpdau.mechanisms.matrix.lattice as lattice
from dpdau.accounting.calibration import rho_cap
from dpdau.domain import Metric
from dpdau.mechanisms.matrix.classes import ContributionClass
from dpdau.mechanisms.matrix.covariance import solve
from dpdau.mechanisms.matrix.lattice import (
    GRID_BITS,
    LatticeMechanism,
    LatticeState,
    LatticeStrategy,
    lattice_strategy,
    sensitivity_squared,
    shared_noise,
)
from dpdau.mechanisms.sampling import OpenDPNoise
from lattice_checks import (
    CLASS,
    DAYS,
    RHO,
    black_box_problem,
    capped,
    coverage_problem,
    edited_series,
    edits_problem,
    law_problem,
    month,
    noise_of,
    restart_problem,
    sensitivity_problem,
    shape_problem,
    single_series,
    users,
)

pytestmark = pytest.mark.statistical

Patch = pytest.MonkeyPatch
MONTHS = 400


@pytest.fixture(scope="module")
def drawn() -> np.ndarray:
    """The noise of many months of the product."""
    return noise_of(LatticeMechanism(month(), RHO), MONTHS)


def test_the_sensitivity_is_never_passed_and_is_attained() -> None:
    """No hostile user moves the lattice by more than Δ², and the worst one by 0.9999 of it."""
    mechanism = LatticeMechanism(month(), RHO)
    assert sensitivity_problem(mechanism) is None
    climbed, worst = (int(np.square(rows @ month().matrix.T).sum(axis=1).max()) for rows in users())
    assert 0.9999 < worst / month().sensitivity_squared <= 1
    assert 0.98 < climbed / month().sensitivity_squared <= 1


def test_the_noise_is_what_was_paid_for(drawn: np.ndarray) -> None:
    """The lattice noise is white and of the scale that the charge rests on."""
    assert law_problem(LatticeMechanism(month(), RHO), drawn) is None


def test_intervals_hold_what_they_state(drawn: np.ndarray) -> None:
    """The 95 % intervals of 12,400 simulated days hold as often as they should."""
    assert coverage_problem(LatticeMechanism(month(), RHO), drawn) is None


def test_the_noise_is_of_integers_and_of_the_normal_shape(drawn: np.ndarray) -> None:
    """The lattice values are integers, exactly, and follow the law in shape."""
    assert shape_problem(LatticeMechanism(month(), RHO), drawn) is None


def test_noise_after_a_restart_is_new() -> None:
    """Fresh sources never repeat noise, and what they draw does not depend on what was drawn."""
    assert restart_problem(LatticeMechanism(month(), RHO)) is None


def test_a_black_box_gives_away_no_more_than_was_paid_for() -> None:
    """The likelihood ratio for the worst user is no more powerful than μ = √(2ρ) allows."""
    assert black_box_problem(LatticeMechanism(single_series(14), RHO)) is None


def test_edited_series_under_a_cap_stay_in_their_class() -> None:
    """Users whose past is edited at will, capped at w changes, move no more than C_w allows."""
    users_of_three = edited_series(3, capped)
    assert edits_problem(single_series(DAYS), users_of_three) is None
    worst = int(np.square(users_of_three @ single_series(DAYS).matrix.T).sum(axis=1).max())
    assert worst == single_series(DAYS).sensitivity_squared


def test_errors_of_a_month(drawn: np.ndarray) -> None:
    """At (3, 1e-6): DAU ≤ 7.5, WAU ≤ 6.8 and MAU ≤ 6.1 users, as computed, without bias."""
    mechanism = LatticeMechanism(month(), RHO)
    by_metric = drawn.reshape(MONTHS, DAYS, 3)
    limits = {Metric.WAU: 6.8, Metric.MAU: 6.1, Metric.DAU: 7.5}
    stated = np.sqrt(np.square(mechanism.noise_stddevs()).mean(axis=0))
    for place, metric in enumerate(mechanism.strategy.metrics):
        found = by_metric[:, :, place]
        error = math.sqrt(float(np.square(found).mean()))
        monthly = np.square(found).mean(axis=1)
        assert abs(error**2 - stated[place] ** 2) < 6 * monthly.std() / math.sqrt(MONTHS)
        assert stated[place] < limits[metric]
        means = found.mean(axis=1)
        assert abs(means.mean()) < 6 * means.std() / math.sqrt(MONTHS)


def test_errors_of_a_month_at_a_third_of_the_budget() -> None:
    """At (1, 1e-6): DAU ≤ 20.6, WAU ≤ 18.7 and MAU ≤ 16.8 users."""
    mechanism = LatticeMechanism(month(), rho_cap(Fraction(1), Fraction(1, 10**6)))
    stated = np.sqrt(np.square(mechanism.noise_stddevs()).mean(axis=0))
    assert (stated < np.array([18.7, 16.8, 20.6])).all()


def test_sixty_numbers_without_any_assumption() -> None:
    """30 DAU and 30 MAU of any stream at (3, 1e-6): at most 7.2 users each."""
    mechanism = LatticeMechanism(shared_noise(30, (Metric.DAU, Metric.MAU)), RHO)
    assert mechanism.noise_stddevs().max() < 7.2


def test_sixty_numbers_of_a_natural_stream() -> None:
    """30 DAU and 30 MAU with erasure at (3, 1e-6): at most 6.7 users each."""
    part = ContributionClass(30, (30,), daily=True)
    form = solve(part, (1.0, 1.0), tolerance=0.02).form
    mechanism = LatticeMechanism(lattice_strategy(form, part, (Metric.MAU, Metric.DAU)), RHO)
    assert (np.sqrt(np.square(mechanism.noise_stddevs()).mean(axis=0)) < 6.7).all()


def test_shared_noise_follows_its_law() -> None:
    """Noise for any 0/1 series: white on the lattice, (√R + 1)/(2μ) on each release."""
    mechanism = LatticeMechanism(shared_noise(DAYS, (Metric.DAU,)), RHO)
    noise = noise_of(mechanism, 3_000)
    assert law_problem(mechanism, noise) is None
    expected = (math.sqrt(DAYS) + 1) / (2 * math.sqrt(2 * RHO))
    assert math.sqrt(float(np.square(noise).mean())) == pytest.approx(expected, rel=0.06)


def _with_sensitivity(squared: int) -> LatticeStrategy:
    return replace(month(), sensitivity_squared=squared)


def _matrix_recomputed_after_calibration(patch: Patch) -> LatticeStrategy:
    other = np.tril(np.rint(month().matrix * 1.003)).astype(np.int64)
    return replace(month(), matrix=other)


def _sensitivity_of_one_coordinate(patch: Patch) -> LatticeStrategy:
    return _with_sensitivity(int(np.square(month().matrix).sum(axis=0).max()))


def _sensitivity_of_busy_users_alone(patch: Patch) -> LatticeStrategy:
    exact = ContributionClass.activity_range

    def busy(self: ContributionClass, series: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        idle, active = exact(self, series)
        return idle & ~active, active

    with patch.context() as only:
        only.setattr(ContributionClass, "activity_range", busy)
        return _with_sensitivity(sensitivity_squared(month().matrix, CLASS))


def _sensitivity_without_erasure(patch: Patch) -> LatticeStrategy:
    return _with_sensitivity(sensitivity_squared(month().matrix, replace(CLASS, erasure=False)))


def _scale_five_percent_small(patch: Patch) -> LatticeStrategy:
    exact = lattice.scale_for
    patch.setattr(lattice, "scale_for", lambda d2, rho: exact(d2, rho) * 0.95)
    return month()


def _variance_used_as_scale(patch: Patch) -> LatticeStrategy:
    exact = lattice.scale_for
    patch.setattr(lattice, "scale_for", lambda d2, rho: exact(d2, rho) / math.sqrt(2))
    return month()


def _epsilon_used_as_rho(patch: Patch) -> LatticeStrategy:
    exact = lattice.scale_for
    patch.setattr(lattice, "scale_for", lambda d2, rho: exact(d2, Fraction(3)))
    return month()


def _draws(change: Callable[[Any, float, int], Any]) -> Callable[[Patch], LatticeStrategy]:
    def mutate(patch: Patch) -> LatticeStrategy:
        exact = OpenDPNoise.discrete_gaussian
        patch.setattr(
            OpenDPNoise,
            "discrete_gaussian",
            lambda self, scale, size: change(lambda s, n: exact(self, s, n), scale, size),
        )
        return month()

    return mutate


_one_draw_shared = _draws(lambda draw, scale, size: np.full(size, draw(scale, 1)[0]))
_noise_five_percent_small = _draws(lambda draw, scale, size: draw(scale * 0.95, size))
_noise_never_negative = _draws(lambda draw, scale, size: abs(draw(scale, size)))
_every_second_draw_repeated = _draws(
    lambda draw, scale, size: np.repeat(draw(scale, size // 2 + 1), 2)[:size]
)


def _first_day_noise_every_day(patch: Patch) -> LatticeStrategy:
    step = LatticeMechanism.step

    def stuck(self: LatticeMechanism, counts: Any, state: LatticeState) -> Any:
        estimates, _ = step(self, counts, replace(state, days=0))
        return estimates, replace(state, days=state.days + 1)

    patch.setattr(LatticeMechanism, "step", stuck)
    return month()


def _correlation_forgotten(patch: Patch) -> LatticeStrategy:
    def alone(matrix: np.ndarray, drawn: list[int]) -> list[int]:
        pivots = np.diag(matrix).tolist()
        return [(part << GRID_BITS) // pivot for part, pivot in zip(drawn, pivots, strict=True)]

    patch.setattr(lattice, "spread_noise", alone)
    return month()


def _float_noise(patch: Patch) -> LatticeStrategy:
    def spread(matrix: np.ndarray, drawn: list[int]) -> list[int]:
        scale = math.sqrt(month().sensitivity_squared / (2 * RHO))
        white = np.random.default_rng(abs(drawn[0])).normal(0, scale, len(drawn))
        noise = np.linalg.solve(matrix.astype(np.float64), white)
        return [round(part * 2**GRID_BITS) for part in noise.tolist()]

    patch.setattr(lattice, "spread_noise", spread)
    return month()


def _uniform_noise(patch: Patch) -> LatticeStrategy:
    def draw(self: OpenDPNoise, scale: float, size: int) -> np.ndarray:
        signs = np.sign(exact(self, scale, size)).astype(np.float64)
        return np.rint(signs * np.sqrt(3) * scale * (exact(self, scale, size) % 1e4 / 1e4)).astype(
            np.int64
        )

    exact = OpenDPNoise.discrete_gaussian
    patch.setattr(OpenDPNoise, "discrete_gaussian", draw)
    return month()


def _seeded_at_start(patch: Patch) -> LatticeStrategy:
    patch.setattr(
        OpenDPNoise,
        "discrete_gaussian",
        lambda self, scale, size: np.rint(
            np.random.default_rng(2026).normal(0, scale, size)
        ).astype(np.int64),
    )
    return month()


def _noise_of_the_last_start_kept_in_part(patch: Patch) -> LatticeStrategy:
    exact, kept = OpenDPNoise.discrete_gaussian, [0.0]

    def draw(self: OpenDPNoise, scale: float, size: int) -> np.ndarray:
        kept[0] = 0.8 * exact(self, scale, size) + 0.6 * kept[0]
        return np.rint(kept[0]).astype(np.int64)

    patch.setattr(OpenDPNoise, "discrete_gaussian", draw)
    return month()


def _interval_halved(patch: Patch) -> LatticeStrategy:
    exact = LatticeMechanism.half_width
    patch.setattr(LatticeMechanism, "half_width", lambda self, day, m: exact(self, day, m) // 2)
    return month()


def _interval_of_another_metric(patch: Patch) -> LatticeStrategy:
    exact = LatticeMechanism.half_width
    patch.setattr(LatticeMechanism, "half_width", lambda self, day, m: exact(self, day, Metric.MAU))
    return month()


@pytest.mark.parametrize(
    "mutant",
    [
        _matrix_recomputed_after_calibration,
        _sensitivity_of_one_coordinate,
        _sensitivity_of_busy_users_alone,
        _sensitivity_without_erasure,
        _scale_five_percent_small,
        _variance_used_as_scale,
        _epsilon_used_as_rho,
    ],
)
def test_sensitivity_check_catches(
    mutant: Callable[[Patch], LatticeStrategy], monkeypatch: Patch
) -> None:
    """The exact check with the noise off catches errors of calibration."""
    mechanism = LatticeMechanism(mutant(monkeypatch), RHO)
    assert sensitivity_problem(mechanism) is not None


@pytest.mark.parametrize(
    "mutant",
    [
        _scale_five_percent_small,
        _variance_used_as_scale,
        pytest.param(_one_draw_shared, id="_one_draw_shared"),
        pytest.param(_noise_five_percent_small, id="_noise_five_percent_small"),
        pytest.param(_noise_never_negative, id="_noise_never_negative"),
        pytest.param(_every_second_draw_repeated, id="_every_second_draw_repeated"),
        _first_day_noise_every_day,
        _correlation_forgotten,
    ],
)
def test_law_check_catches(mutant: Callable[[Patch], LatticeStrategy], monkeypatch: Patch) -> None:
    """The law of 400 months shows noise that is too small, biased, shared or not correlated."""
    mechanism = LatticeMechanism(mutant(monkeypatch), RHO)
    assert law_problem(mechanism, noise_of(mechanism, 400)) is not None


@pytest.mark.parametrize("mutant", [_interval_halved, _interval_of_another_metric])
def test_coverage_check_catches(
    mutant: Callable[[Patch], LatticeStrategy], monkeypatch: Patch, drawn: np.ndarray
) -> None:
    """Intervals that are too narrow, or of another metric, hold too rarely."""
    mechanism = LatticeMechanism(mutant(monkeypatch), RHO)
    assert coverage_problem(mechanism, drawn) is not None


@pytest.mark.parametrize("mutant", [_float_noise, _uniform_noise])
def test_shape_check_catches(
    mutant: Callable[[Patch], LatticeStrategy], monkeypatch: Patch
) -> None:
    """Noise that is not on the lattice, or of the right variance and another law."""
    mechanism = LatticeMechanism(mutant(monkeypatch), RHO)
    assert shape_problem(mechanism, noise_of(mechanism, 100)) is not None


@pytest.mark.parametrize("mutant", [_seeded_at_start, _noise_of_the_last_start_kept_in_part])
def test_restart_check_catches(
    mutant: Callable[[Patch], LatticeStrategy], monkeypatch: Patch
) -> None:
    """Noise that a restart repeats, or that carries over."""
    assert restart_problem(LatticeMechanism(mutant(monkeypatch), RHO)) is not None


@pytest.mark.parametrize(
    ("mutant", "runs"),
    [
        (_variance_used_as_scale, 4_000),
        pytest.param(_one_draw_shared, 1_000, id="_one_draw_shared"),
    ],
)
def test_black_box_check_catches(
    mutant: Callable[[Patch], LatticeStrategy], runs: int, monkeypatch: Patch
) -> None:
    """Noise too small by √2, or one draw shared by all releases, gives the worst user away."""
    mutant(monkeypatch)
    assert black_box_problem(LatticeMechanism(single_series(14), RHO), runs) is not None


def test_black_box_check_catches_the_sensitivity_of_one_coordinate() -> None:
    """Noise for one day's change of a series that changes three times gives the user away."""
    squared = int(np.square(single_series(14).matrix).sum(axis=0).max())
    mechanism = LatticeMechanism(replace(single_series(14), sensitivity_squared=squared), RHO)
    assert black_box_problem(mechanism, 1_500) is not None


def test_edits_check_catches_a_missing_cap() -> None:
    """Without the cap, edits move more than C_3 allows."""
    assert (
        edits_problem(single_series(DAYS), edited_series(3, lambda wanted, _: wanted)) is not None
    )


def test_edits_check_catches_a_cap_that_is_one_too_large() -> None:
    """Four changes are more than C_3 allows."""
    loose = edited_series(3, lambda wanted, toggles: capped(wanted, toggles + 1))
    assert edits_problem(single_series(DAYS), loose) is not None


def test_edits_check_catches_a_cap_calibrated_on_the_natural_class() -> None:
    """Noise for natural MAU, which has no short runs, does not protect edited series."""
    natural = ContributionClass(DAYS, (30,), erasure=False)
    form = solve(natural, (1.0,), tolerance=0.02).form
    mutant = lattice_strategy(form, natural, (Metric.MAU,))
    assert edits_problem(mutant, edited_series(3, capped)) is not None
