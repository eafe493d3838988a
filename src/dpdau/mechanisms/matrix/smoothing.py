"""Two more views of a month's published numbers, made from them alone.

Both are post-processing: they read what is published, the law of its noise, which is public, and
nothing else. So they cost no privacy, however often they are computed. Both give up what the
published series has: it is unbiased, and so its mean over many months is right.

- `consistent` moves the numbers of a day to the nearest ones with 0 ≤ DAU ≤ WAU ≤ MAU.
- `smoothed` estimates each day from all days so far, under a model of how counts move.
"""

from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from dpdau.domain import Metric
from dpdau.errors import InvalidPlanError

Floats = NDArray[np.float64]

_ASCENDING: Final = (Metric.DAU, Metric.WAU, Metric.MAU)
_WEEK_DAYS: Final = 7
_GRID_POINTS: Final = 13
_GRID_LOWEST: Final = 1e-4
_GRID_HIGHEST: Final = 1e2
_SWEEPS: Final = 3


@dataclass(frozen=True, slots=True, eq=False)
class Smoothed:
    """A smoothed series.

    Shapes and units:
        values: (days, metrics) users, not integers, possibly below 0.
        stddev: (days, metrics) standard deviation of value minus count under the model, users.
    """

    values: Floats
    stddev: Floats


def consistent(estimates: Floats, stddev: Floats, metrics: tuple[Metric, ...]) -> Floats:
    """The nearest numbers with 0 ≤ DAU ≤ WAU ≤ MAU on each day.

    Distances are squared and divided by the variance of each number, so the less certain ones move
    more. The windows must be nested, as those of the three metrics are.

    Guarantee: what is returned is in order and not below 0; where the input is, it is unchanged;
    and it is no farther from the counts than the input was, in that distance. It is biased where
    it changes something.

    Shapes and units:
        estimates, stddev: (days, metrics) users, columns as `metrics` names them.
        returns: (days, metrics) users.

    Raises:
        InvalidPlanError: The shapes do not fit, or a standard deviation is not positive.

    Source: isotonic regression by its min-max formula (Robertson, Wright, Dykstra 1988, Theorem
    1.4.4); a lower bound is met by cutting the result at it.

    Example:
        >>> series = (Metric.DAU, Metric.WAU)
        >>> consistent(np.array([[12.0, 10.0]]), np.array([[1.0, 1.0]]), series).tolist()
        [[11.0, 11.0]]
    """
    _check(estimates, metrics)
    if stddev.shape != estimates.shape or not (stddev > 0).all():
        raise InvalidPlanError("Expected a positive standard deviation for each estimate.")
    order = [metrics.index(metric) for metric in _ASCENDING if metric in metrics]
    weight = 1 / np.square(stddev[:, order])
    value = estimates[:, order]
    count = len(order)
    mean = {
        (low, high): np.average(value[:, low:high], axis=1, weights=weight[:, low:high])
        for low in range(count)
        for high in range(low + 1, count + 1)
    }
    found = np.empty_like(estimates)
    for place, column in enumerate(order):
        least = [
            np.min([mean[low, high] for high in range(place + 1, count + 1)], axis=0)
            for low in range(place + 1)
        ]
        found[:, column] = np.maximum(np.max(least, axis=0), 0)
    return found


def smoothed(estimates: Floats, covariance: Floats, metrics: tuple[Metric, ...]) -> Smoothed:
    """Each day estimated from all days so far, under a model of how counts move.

    The model: each metric follows a line of any level and slope, and strays from it by independent
    normal steps from day to day; DAU has, besides, its own level for each day of the week. The
    variance of the steps, and of the levels, is the most likely one given the estimates; none is
    assumed.

    Guarantee: a function of published numbers and public constants. Where counts move as the model
    says, with the variances found, `stddev` is that of the error; in truth the variances are
    uncertain, and errors somewhat larger. The values are biased towards a slow course of things,
    and the better the more slowly counts move; where they jump by much more than the noise, and on
    the first two days, they are the estimates. The past may change with each new day: it is an
    extra series, never a replacement for the published one.

    Shapes and units:
        estimates: (days, metrics) users, the first days of a month, columns as `metrics` names.
        covariance: (n, n) users², n ≥ days · metrics, of the noise in the order of release, as
            `LatticeStrategy.covariance` gives it; the first days are taken.

    Raises:
        InvalidPlanError: The shapes do not fit.

    Source: best linear unbiased prediction with restricted maximum likelihood (Patterson, Thompson
    1971; Robinson 1991). With noise Σ, y = x + noise, x of covariance K around a mean Hβ without
    prior, V = K + Σ and P = V⁻¹ - V⁻¹H(H'V⁻¹H)⁻¹H'V⁻¹: x̂ = y - ΣPy, with error Σ - ΣPΣ.
    """
    _check(estimates, metrics)
    days, count = estimates.shape
    size = days * count
    if covariance.shape[0] != covariance.shape[1] or len(covariance) < size:
        raise InvalidPlanError(f"Expected a covariance of {size} estimates or more.")
    noise = covariance[:size, :size]
    observed = estimates.ravel()
    parts, grids = _model(estimates, np.diag(noise).reshape(days, count), metrics)
    lines = np.vander(np.arange(days), min(days, 2), increasing=True)
    means = _kron(lines.astype(np.float64), np.eye(count))
    chosen = [len(grid) // 2 for grid in grids]
    for _ in range(_SWEEPS):
        for which, grid in enumerate(grids):
            fits = []
            for place in range(len(grid)):
                chosen[which] = place
                prior = _prior(parts, grids, chosen)
                fits.append(_likelihood(observed, noise + prior, means))
            chosen[which] = int(np.argmax(fits))
    projector = _projector(noise + _prior(parts, grids, chosen), means)[0]
    values = observed - noise @ (projector @ observed)
    variance = np.diag(noise - noise @ projector @ noise)
    return Smoothed(
        values.reshape(days, count), np.sqrt(np.maximum(variance, 0)).reshape(days, count)
    )


def _check(estimates: Floats, metrics: tuple[Metric, ...]) -> None:
    """Refuses what is not a table of distinct metrics over some days."""
    if len(set(metrics)) != len(metrics) or not metrics:
        raise InvalidPlanError(f"Expected distinct metrics, found {metrics}.")
    if estimates.ndim != 2 or not len(estimates) or estimates.shape[1] != len(metrics):
        raise InvalidPlanError(
            f"Expected one column for each of {len(metrics)} metrics, found {estimates.shape}."
        )


def _model(
    estimates: Floats, variance: Floats, metrics: tuple[Metric, ...]
) -> tuple[list[Floats], list[Floats]]:
    """The parts of the prior, and for each the variances that are tried.

    Variances run from what the noise drowns to what drowns the noise.
    """
    days, count = estimates.shape
    day = np.arange(days)
    walk = np.minimum.outer(day, day).astype(np.float64)
    week = np.equal.outer(day % _WEEK_DAYS, day % _WEEK_DAYS).astype(np.float64)
    parts: list[Floats] = []
    grids: list[Floats] = []
    for place, metric in enumerate(metrics):
        only = np.zeros((count, count))
        only[place, place] = 1
        noise = float(variance[:, place].mean())
        moves = float(np.square(np.diff(estimates[:, place])).max(initial=0.0))
        grid = np.geomspace(_GRID_LOWEST * noise, _GRID_HIGHEST * max(noise, moves), _GRID_POINTS)
        parts.append(_kron(walk, only))
        grids.append(grid)
        if metric is Metric.DAU:
            parts.append(_kron(week, only))
            grids.append(np.append(0.0, grid))
    return parts, grids


def _kron(days: Floats, metrics: Floats) -> Floats:
    """What holds between days, for the metrics for which it holds."""
    return np.asarray(np.kron(days, metrics), dtype=np.float64)


def _prior(parts: list[Floats], grids: list[Floats], chosen: list[int]) -> Floats:
    """The covariance K of the counts around their means."""
    total = np.zeros_like(parts[0])
    for part, grid, place in zip(parts, grids, chosen, strict=True):
        total += grid[place] * part
    return total


def _projector(total: Floats, means: Floats) -> tuple[Floats, float]:
    """P, and log |V| + log |H'V⁻¹H|."""
    inverse = np.asarray(np.linalg.inv(total), dtype=np.float64)
    spread = inverse @ means
    inner = means.T @ spread
    projector = inverse - spread @ np.asarray(np.linalg.solve(inner, spread.T), dtype=np.float64)
    logarithms = np.linalg.slogdet(total)[1] + np.linalg.slogdet(inner)[1]
    return projector, float(logarithms)


def _likelihood(observed: Floats, total: Floats, means: Floats) -> float:
    """The restricted log-likelihood but for a constant."""
    projector, logarithms = _projector(total, means)
    return -0.5 * (logarithms + float(observed @ projector @ observed))
