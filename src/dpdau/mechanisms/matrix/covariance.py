"""Optimal Gaussian noise for a contribution class, with bounds on both sides.

Noise of covariance Σ on a vector of counts is μ-GDP for μ² = sup v'Σ⁻¹v over the class. At μ = 1:

    primal:  min tr(ΩΣ)  subject to  v'Σ⁻¹v ≤ 1 for every v of the class
    dual:    max (tr (Ω^½ E[vv'] Ω^½)^½)²  over probability measures on the class

Any measure bounds the error of every unbiased Gaussian mechanism from below, and any Σ, divided by
its own supremum, bounds it from above. A multiplicative update of the measure closes the gap.

With the daily counts the class is too large to list, and the supremum of a general form over it
too hard. So noise is sought whose inverse is diagonal on the daily counts:

    D_t = c_t·m + x_t,  m the window counts with noise Σ_m,  x_t with independent noise of s_t²

with a row of weights c_t on the window counts of *all* days, and a share x_t of a_t - c_t·m in it.
Then v'Σ⁻¹v = m'Σ_m⁻¹m + Σ_t (a_t - c_t·m)²/s_t², the activity bits a_t part, and the supremum over
them is taken day by day within `activity_range`.

Source: Nikolov, Tang 2024, "General Gaussian Noise Mechanisms and Their Optimality for Unbiased
Mean Estimation"; the multiplicative update is that of optimal experiment design (Silvey,
Titterington, Torsney 1978). The centered form with weights on all days is ours.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final, Protocol

import numpy as np
from numpy.typing import NDArray

from dpdau.errors import InvalidPlanError
from dpdau.mechanisms.matrix.classes import ContributionClass, Series, ToggleClass, toggled

Floats = NDArray[np.float64]
Progress = Callable[[int, float, float], None]
"""Called with (iteration, error reached, lower estimate), errors as root of the mean square sum."""

TOLERANCE: Final = 1e-3
ITERATIONS_MAX: Final = 20_000
_POWER: Final = 1.3
_CHECK_EVERY: Final = 25
_SEED_ROWS: Final = 3_000
_NEW_ROWS_MAX: Final = 400
_NEW_MASS: Final = 0.004
_PRUNE_BELOW: Final = 1e-7
_EIGENVALUE_MIN: Final = 1e-13
_CHUNK_ROWS: Final = 50_000
_SWEEPS: Final = 3
_LISTED_TOGGLES_MAX: Final = 150_000


@dataclass(frozen=True, slots=True, eq=False)
class Measure:
    """Contributions with their probabilities: a witness of the lower bound.

    Shapes and units:
        series: (n, d) 0/1 window memberships, day-major.
        activity: (n, e) 0/1 activity on each day, e = 0 without daily counts.
        mass: (n,) positive, sum 1.
    """

    series: Floats
    activity: Floats
    mass: Floats

    def rows(self) -> Floats:
        """(n, d + e) whole contributions, the windows first."""
        return np.hstack([self.series, self.activity])

    def moments(self) -> tuple[Floats, Floats, Floats]:
        """E[mm'], E[am'] and E[a²]."""
        weighted = self.series * self.mass[:, None]
        squares: Floats = self.mass @ (self.activity**2)
        return self.series.T @ weighted, self.activity.T @ weighted, squares


@dataclass(frozen=True, slots=True, eq=False)
class Form:
    """One covariance of the family.

    Shapes and units:
        window_covariance: (d, d) covariance Σ_m of the window counts, users².
        centering: (e, d) weights c_t.
        spread: (e,) variances s_t², users².
    """

    window_covariance: Floats
    centering: Floats
    spread: Floats

    def values(self, series: Floats, activity: Floats) -> Floats:
        """(n,) v'Σ⁻¹v of given contributions."""
        root = np.linalg.cholesky(_symmetric(np.linalg.inv(self.window_covariance)))
        window_part = np.square(series @ root).sum(axis=1)
        offset = activity - series @ self.centering.T
        total: Floats = window_part + (np.square(offset) / self.spread).sum(axis=1)
        return total

    def scaled(self, factor: float) -> "Form":
        """The same noise with every variance times `factor`."""
        return Form(self.window_covariance * factor, self.centering, self.spread * factor)

    def covariance(self) -> Floats:
        """(d + e, d + e) covariance of the window counts and then the daily counts."""
        cross = self.centering @ self.window_covariance
        corner = cross @ self.centering.T + np.diag(self.spread)
        return np.block([[self.window_covariance, cross.T], [cross, corner]])


@dataclass(frozen=True, slots=True, eq=False)
class Solution:
    """The noise found, normalized to a supremum of 1, and the measure that it is best for.

    Shapes and units: `error` is the root of the weighted sum, over the metrics, of the mean
    variance per day, at μ = 1. `family_bound` estimates the least error within the family; without
    daily counts, where the family is all of them, it equals `general_bound` of the measure.
    """

    form: Form
    measure: Measure
    error: float
    family_bound: float
    iterations: int


class Worst(Protocol):
    """Finds the contributions of a class that a form protects least."""

    def seed(self) -> tuple[Floats, Floats]:
        """(series, activity) rows to start from."""

    def worst(self, form: Form, above: float) -> tuple[float, Floats, Floats]:
        """The exact supremum, and some (series, activity) rows whose value exceeds `above`."""


class ListedClass:
    """The search over every series of a listed class.

    Args:
        series: (n, d) the class; the empty series may be left in.
        idle: (n, e) whether the user may have been idle on each day, e = 0 without daily counts.
        active: (n, e) whether the user may have been active.
    """

    def __init__(self, series: Series, idle: NDArray[np.bool_], active: NDArray[np.bool_]) -> None:
        self._series = series.astype(np.float32)
        self._idle, self._active = idle, active

    @classmethod
    def of(cls, contribution: ContributionClass | ToggleClass) -> "ListedClass":
        """Lists the class."""
        series = contribution.series()
        if isinstance(contribution, ToggleClass) or not contribution.daily:
            none = np.zeros((len(series), 0), dtype=bool)
            return cls(series, none, none)
        return cls(series, *contribution.activity_range(series))

    def seed(self) -> tuple[Floats, Floats]:
        """Rows spread evenly over the class, as active as can be and as idle as can be."""
        rows = np.unique(np.linspace(1, len(self._series) - 1, _SEED_ROWS).astype(np.int64))
        series = self._series[rows].astype(np.float64)
        if not self._active.shape[1]:
            return series, np.zeros((len(rows), 0))
        busy, quiet = self._active[rows], ~self._idle[rows]
        return np.vstack([series, series]), np.vstack([busy, quiet]).astype(np.float64)

    def worst(self, form: Form, above: float) -> tuple[float, Floats, Floats]:
        """The supremum over the class, and the rows that exceed `above` most."""
        values = np.concatenate(
            [
                self._values(form, slice(start, start + _CHUNK_ROWS))[0]
                for start in range(0, len(self._series), _CHUNK_ROWS)
            ]
        )
        rows = np.argsort(-values)[:_NEW_ROWS_MAX]
        rows = rows[values[rows] > above]
        _, activity = self._values(form, rows)
        return float(values.max()), self._series[rows].astype(np.float64), activity

    def _values(self, form: Form, rows: slice | NDArray[np.int64]) -> tuple[Floats, Floats]:
        """The largest v'Σ⁻¹v of each row, and the activity that attains it."""
        series = self._series[rows]
        inverse = _symmetric(np.linalg.inv(form.window_covariance))
        root = np.linalg.cholesky(inverse).astype(np.float32)
        values = np.square(series @ root).sum(axis=1)
        center = series @ form.centering.T.astype(np.float32)
        # The bit that lies farther from the center, where both are possible.
        activity = ~self._idle[rows] | (self._active[rows] & (center < 0.5))
        offset = np.square(activity - center) @ (1 / form.spread).astype(np.float32)
        return (values + offset).astype(np.float64), activity.astype(np.float64)


class SearchedToggles:
    """The search over a toggle class that is too large to list."""

    def __init__(self, contribution: ToggleClass) -> None:
        self._class = contribution

    def seed(self) -> tuple[Floats, Floats]:
        """All series of one toggle, and a spread of series with all of them."""
        horizon, toggles = self._class.horizon, self._class.toggles
        steps = np.full((horizon, toggles), horizon)
        steps[:, 0] = np.arange(horizon)
        gaps = np.arange(1, 1 + horizon // toggles)
        combs = np.minimum(gaps[:, None] * np.arange(toggles) + gaps[:, None] // 2, horizon)
        series = toggled(np.vstack([steps, combs]), horizon)
        return series.astype(np.float64), np.zeros((len(series), 0))

    def worst(self, form: Form, above: float) -> tuple[float, Floats, Floats]:
        """The supremum, and the worst series for each first toggle."""
        gram = _symmetric(np.linalg.inv(form.window_covariance))
        values, places = self._class.worst(gram)
        rows = toggled(places[values > above], self._class.horizon).astype(np.float64)
        return float(values.max()), rows, np.zeros((len(rows), 0))


def solve(
    contribution: ContributionClass | ToggleClass,
    weights: tuple[float, ...],
    *,
    tolerance: float = TOLERANCE,
    iterations_max: int = ITERATIONS_MAX,
    progress: Progress | None = None,
) -> Solution:
    """The noise of least weighted error for a class, close to the best of its family.

    Args:
        contribution: What one user can do.
        weights: Positive weight of the error of each window from the shortest to the longest, then
            of the daily count.
        tolerance: Stop when error / `family_bound` is at most 1 + tolerance.
        iterations_max: Stop after that many updates in any case, at least 25.
        progress: Called after each check.

    Guarantee: the supremum of v'Σ⁻¹v over the class is 1, to single precision; what a mechanism
    charges is computed anew from integers and does not rest on it. The same input gives the same
    result on the same machine.

    Raises:
        InvalidPlanError: The weights do not fit the class, or it is too large to list or search.
    """
    daily = isinstance(contribution, ContributionClass) and contribution.daily
    windows = contribution.windows if isinstance(contribution, ContributionClass) else (0,)
    if len(weights) != len(windows) + daily or not all(0 < w < np.inf for w in weights):
        raise InvalidPlanError(
            f"Expected {len(windows) + daily} positive weights, found {weights}."
        )
    if iterations_max < _CHECK_EVERY:
        raise InvalidPlanError(f"Expected at least {_CHECK_EVERY} updates, found {iterations_max}.")
    worst: Worst
    if isinstance(contribution, ToggleClass) and contribution.size() > _LISTED_TOGGLES_MAX:
        worst = SearchedToggles(contribution)
    else:
        worst = ListedClass.of(contribution)
    days = contribution.horizon
    squares = np.tile(np.square(np.array(weights[: len(windows)])), days)
    ascent = _Ascent(worst, days, squares, weights[-1] ** 2 if daily else 0.0)
    for iteration in range(iterations_max):
        if iteration % _CHECK_EVERY == _CHECK_EVERY - 1:
            ascent.check()
            if progress is not None:
                progress(iteration + 1, ascent.error, ascent.family_bound)
            if ascent.error <= ascent.family_bound * (1 + tolerance):
                break
        ascent.update()
    return ascent.solution(iteration + 1)


class _Ascent:
    """The measure on the active rows, and the best form that was found on the way."""

    def __init__(self, worst: Worst, days: int, window_weight: Floats, daily_weight: float) -> None:
        self._worst, self._days = worst, days
        self._window_weight, self._daily_weight = window_weight, daily_weight
        series, activity = worst.seed()
        self.measure = Measure(series, activity, np.full(len(series), 1 / len(series)))
        daily = activity.shape[1]
        self._windows = series.shape[1] // max(daily, 1)
        centering = np.zeros((daily, series.shape[1]))
        centering[np.arange(daily), np.arange(daily) * self._windows] = 0.5
        self._form = Form(np.eye(series.shape[1]), centering, np.ones(daily))
        self._best: Form | None = None
        self.error, self.family_bound = np.inf, 0.0
        self._improve(rounds=20)

    def update(self) -> None:
        """Moves mass to the contributions that the form protects least."""
        values = self._form.values(self.measure.series, self.measure.activity)
        mass = self.measure.mass * (values / (self.measure.mass @ values)) ** _POWER
        self.measure = Measure(self.measure.series, self.measure.activity, mass / mass.sum())
        self._improve(rounds=2)

    def check(self) -> None:
        """Looks at the whole class: keeps the best form, and takes in the rows that exceed it."""
        values = self._form.values(self.measure.series, self.measure.activity)
        average = float(self.measure.mass @ values)
        trace = self._trace(self._form)
        self.family_bound = max(self.family_bound, np.sqrt(average * trace / self._days))
        above = average * (1 + TOLERANCE / 4)
        supremum, series, activity = self._worst.worst(self._form, above)
        error = float(np.sqrt(supremum * trace / self._days))
        if error < self.error:
            self.error, self._best = error, self._form.scaled(supremum)
        self.measure = _joined(_pruned(self.measure), series, activity, mass=_NEW_MASS)

    def solution(self, iterations: int) -> Solution:
        """What was found."""
        assert self._best is not None, "the class was looked at"
        return Solution(
            form=self._best, measure=self.measure, error=self.error,
            family_bound=float(self.family_bound), iterations=iterations,
        )  # fmt: skip

    def _trace(self, form: Form) -> float:
        """tr(ΩΣ)."""
        covariance = np.diag(form.covariance())
        width = len(self._window_weight)
        return float(
            self._window_weight @ covariance[:width] + self._daily_weight * covariance[width:].sum()
        )

    def _improve(self, *, rounds: int) -> None:
        """Brings the form closer to the minimum of tr(ΩΣ) + E[v'Σ⁻¹v] over the family."""
        second, cross, squares = self.measure.moments()
        form = self._form
        # Without daily counts the window covariance follows from the measure at once.
        for _ in range(rounds if len(squares) else 1):
            centering, spread = self._center(form, second, cross, squares)
            weight = np.diag(self._window_weight) + self._daily_weight * centering.T @ centering
            root = _square_root(weight)
            back = np.linalg.inv(root)
            window = back @ _square_root(root @ second @ root) @ back
            form = Form(_symmetric(window), centering, spread)
        self._form = form

    def _center(
        self, form: Form, second: Floats, cross: Floats, squares: Floats
    ) -> tuple[Floats, Floats]:
        """The best centering for each day, a ridge regression, and then the best spread."""
        if not len(squares):
            return form.centering, form.spread
        ridge = self._daily_weight * form.spread[:, None, None] * form.window_covariance
        system = second + ridge + _EIGENVALUE_MIN * np.trace(second) * np.eye(len(second))
        centering: Floats = np.linalg.solve(system, cross[:, :, None])[:, :, 0]
        left = squares - 2 * (centering * cross).sum(axis=1)
        left = left + ((centering @ second) * centering).sum(axis=1)
        return centering, np.sqrt(np.maximum(left, _EIGENVALUE_MIN) / self._daily_weight)


def general_bound(measure: Measure, weights: tuple[float, ...]) -> float:
    """The error that no unbiased Gaussian mechanism can beat, by any measure on its class.

    Guarantee: for a measure on contributions that users can make, the weighted error, as in
    `Solution`, of every Gaussian noise that is 1-GDP for them is at least this.
    """
    rows = measure.rows() * _scale(measure, weights)
    moments = (rows * measure.mass[:, None]).T @ rows
    days = _days(measure, weights)
    return float(np.sqrt(np.maximum(np.linalg.eigvalsh(moments), 0)).sum() / np.sqrt(days))


def sharpen(
    measure: Measure,
    contribution: ContributionClass,
    weights: tuple[float, ...],
    *,
    iterations: int,
    progress: Progress | None = None,
) -> Measure:
    """A measure on possible contributions with a larger `general_bound`.

    Ascends over all covariances, not only those of the family. The worst contributions of a general
    form are searched for from those of its diagonal part, one day at a time; what the search misses
    makes the bound smaller, never wrong. Without daily counts the measure is as good as it gets.
    """
    if not contribution.daily:
        return measure
    possible = contribution.possible(
        measure.series.astype(np.uint8), measure.activity.astype(np.uint8)
    )
    measure = _pruned(measure, possible)
    best, best_bound = measure, 0.0
    listed = ListedClass.of(contribution)
    for iteration in range(iterations):
        scale = _scale(measure, weights)
        rows = measure.rows() * scale
        values, vectors = np.linalg.eigh((rows * measure.mass[:, None]).T @ rows)
        roots = np.sqrt(np.maximum(values, _EIGENVALUE_MIN * values[-1]))
        form = _symmetric((vectors / roots) @ vectors.T)
        gain = ((rows @ form) * rows).sum(axis=1)
        bound = float(roots.sum() / np.sqrt(contribution.horizon))
        if bound > best_bound:
            best, best_bound = measure, bound
        if iteration % _CHECK_EVERY < _CHECK_EVERY - 1:
            mass = measure.mass * (gain / roots.sum()) ** _POWER
            measure = Measure(measure.series, measure.activity, mass / mass.sum())
            continue
        general = form * np.outer(scale, scale)
        found = _search(listed, contribution, general, measure, np.argsort(-gain))
        measure = _joined(_pruned(measure), *found, mass=2 * _NEW_MASS)
        if progress is not None:
            progress(iteration + 1, best_bound, bound)
    return best


def _search(
    listed: ListedClass,
    contribution: ContributionClass,
    general: Floats,
    measure: Measure,
    ranking: NDArray[np.int64],
) -> tuple[Floats, Floats]:
    """Possible contributions for which v' `general` v is large."""
    width = measure.series.shape[1]
    daily, cross = general[width:, width:], general[width:, :width]
    centering = np.asarray(-np.linalg.solve(daily, cross), dtype=np.float64)
    window = np.linalg.inv(general[:width, :width] + cross.T @ centering)
    form = Form(_symmetric(window), centering, 1 / np.diag(daily))
    _, series, activity = listed.worst(form, 0.0)
    near = ranking[: _NEW_ROWS_MAX // 2]
    series = np.vstack([series, measure.series[near]])
    activity = np.vstack([activity, measure.activity[near]])
    members = series.astype(np.uint8)
    idle, active = contribution.activity_range(members)
    pull = series @ cross.T
    for day in np.tile(np.arange(daily.shape[0]), _SWEEPS):
        rest = pull[:, day] + activity @ daily[:, day] - activity[:, day] * daily[day, day]
        better = activity.copy()
        better[:, day] = np.where(
            idle[:, day] & active[:, day], 2 * rest + daily[day, day] > 0, activity[:, day]
        )
        possible = contribution.possible(members, better.astype(np.uint8))
        activity = np.where(possible[:, None], better, activity)
    rows = np.hstack([series, activity])
    value = ((rows @ general) * rows).sum(axis=1)
    chosen = contribution.possible(members, activity.astype(np.uint8))
    chosen &= value > np.median(value)
    return series[chosen], activity[chosen]


def _pruned(measure: Measure, kept: NDArray[np.bool_] | None = None) -> Measure:
    """Without the rows that hardly count, or with the `kept` ones alone."""
    if kept is None:
        kept = measure.mass > _PRUNE_BELOW / len(measure.mass)
    mass = measure.mass[kept]
    return Measure(measure.series[kept], measure.activity[kept], mass / mass.sum())


def _joined(measure: Measure, series: Floats, activity: Floats, *, mass: float) -> Measure:
    """With new rows that share `mass`; equal rows are merged."""
    if not len(series):
        return measure
    shares = np.append(measure.mass * (1 - mass), np.full(len(series), mass / len(series)))
    width = series.shape[1]
    rows = np.vstack([measure.rows(), np.hstack([series, activity])]).astype(np.uint8)
    rows, inverse = np.unique(rows, axis=0, return_inverse=True)
    shares = np.bincount(inverse.ravel(), weights=shares, minlength=len(rows))
    merged = rows.astype(np.float64)
    return Measure(merged[:, :width], merged[:, width:], shares.astype(np.float64))


def _days(measure: Measure, weights: tuple[float, ...]) -> int:
    """The days of the horizon that a measure is about."""
    daily = int(measure.activity.shape[1])
    return daily or int(measure.series.shape[1]) // len(weights)


def _scale(measure: Measure, weights: tuple[float, ...]) -> Floats:
    """(d + e,) the weight of each release, in the order of `Measure.rows`."""
    daily = measure.activity.shape[1]
    windows = weights[:-1] if daily else weights
    return np.append(np.tile(windows, _days(measure, weights)), np.full(daily, weights[-1]))


def _square_root(matrix: Floats) -> Floats:
    """The symmetric root of a positive definite matrix, with its tiniest eigenvalues raised."""
    values, vectors = np.linalg.eigh(_symmetric(matrix))
    values = np.maximum(values, _EIGENVALUE_MIN * values[-1])
    root: Floats = (vectors * np.sqrt(values)) @ vectors.T
    return root


def _symmetric(matrix: NDArray[np.floating[Any]]) -> Floats:
    """The symmetric part, which is all of it but for rounding."""
    return np.asarray((matrix + matrix.T) / 2, dtype=np.float64)
