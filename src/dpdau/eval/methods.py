"""The methods that are compared, and those of them that take a month's exact counts as they are.

`plan` and `on_demand` are the product's own verbs (`experiments`). The others add real noise to the
counts that the product's `exact` gave, each calibrated to one (ε, δ) for the whole month.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from fractions import Fraction
from functools import lru_cache
from statistics import NormalDist
from typing import Final

import numpy as np
from numpy.typing import NDArray

from dpdau.accounting.calibration import rho_cap
from dpdau.domain import Metric
from dpdau.mechanisms.gaussian import DiscreteGaussian
from dpdau.mechanisms.laplace import DiscreteLaplace
from dpdau.mechanisms.matrix.classes import ContributionClass
from dpdau.mechanisms.matrix.lattice import (
    GRID_BITS,
    LatticeMechanism,
    shared_noise,
)
from dpdau.mechanisms.matrix.strategies import shipped
from dpdau.mechanisms.matrix.toeplitz import sqrt_toeplitz
from dpdau.mechanisms.sampling import NoiseSource
from dpdau.mechanisms.tree import TreeMechanism, TreeStrategy

__all__ = ["MAU_DAYS", "TITLES", "Estimates", "Method", "from_counts", "ignoring_removals"]

MAU_DAYS: Final = 30
ALL: Final = (Metric.WAU, Metric.MAU, Metric.DAU)
"""In the order in which a month plan releases them."""

_QUANTILE: Final = NormalDist().inv_cdf(0.975)

Counts = Mapping[Metric, NDArray[np.int64]]


class Method(StrEnum):
    """A way to publish a month of counts."""

    PLAN = "plan"
    IGNORES = "ignores_removals"
    SHARED_ALL = "shared_all"
    SHARED = "shared"
    TOEPLITZ = "sqrt_toeplitz"
    TREE = "tree"
    GAUSSIAN = "gaussian_split"
    LAPLACE = "laplace_split"
    ON_DEMAND = "on_demand"


TITLES: Final = {
    Method.PLAN: "month plan",
    Method.IGNORES: "plan's noise, removals ignored",
    Method.SHARED_ALL: "shared noise, all metrics",
    Method.SHARED: "shared noise, one metric",
    Method.TOEPLITZ: "square-root Toeplitz",
    Method.TREE: "binary tree",
    Method.GAUSSIAN: "independent Gaussian (zCDP)",
    Method.LAPLACE: "independent Laplace (basic)",
    Method.ON_DEMAND: "on demand, ε each day",
}


@dataclass(frozen=True, slots=True)
class Estimates:
    """What one method published for one metric of a month, and what the whole of it costs.

    Shapes and units:
        values, half_widths: (days,) users.
        epsilon, delta: of everything that is published under this promise together, which is
            `numbers` numbers.
        setting: the ε that the method was set to: of the month, or for `on_demand` of one day.
    """

    method: Method
    metric: Metric
    setting: float
    epsilon: float
    delta: float
    numbers: int
    values: NDArray[np.int64]
    half_widths: NDArray[np.int64]


def from_counts(
    counts: Counts, epsilon: Fraction, delta: Fraction, noise: NoiseSource
) -> list[Estimates]:
    """Every method that stands on exact counts, each at (ε, δ) for the month.

    Tree and square-root Toeplitz take differences, and are calibrated to the changes that one user
    can cause: for MAU those of the month's contribution class, for DAU one every day.
    """
    made = [_independent(counts[Metric.DAU], epsilon, noise)]
    made += _lattice(Method.SHARED_ALL, ALL, counts, epsilon, delta, noise)
    for metric in (Metric.DAU, Metric.MAU):
        made.append(_gaussian(metric, counts[metric], epsilon, delta, noise))
        for method in (Method.SHARED, Method.TREE, Method.TOEPLITZ):
            made += _lattice(method, (metric,), counts, epsilon, delta, noise)
    return made


def ignoring_removals(
    counts: Counts, epsilon: Fraction, delta: Fraction, noise: NoiseSource
) -> list[Estimates]:
    """The month plan's noise on counts from which nobody was ever removed."""
    return _lattice(Method.IGNORES, ALL, counts, epsilon, delta, noise)


@lru_cache(maxsize=8)
def mau_toggles(days: int) -> int:
    """The most changes, the first membership included, that one user can cause in a month's MAU.

    Example:
        >>> mau_toggles(30)
        4
    """
    series = ContributionClass(days, (MAU_DAYS,)).series().astype(np.int64)
    return int(np.abs(np.diff(series, axis=1, prepend=0)).sum(axis=1).max())


def _lattice(
    method: Method,
    metrics: tuple[Metric, ...],
    counts: Counts,
    epsilon: Fraction,
    delta: Fraction,
    noise: NoiseSource,
) -> list[Estimates]:
    """The estimates of a mechanism whose noise is drawn ahead for the month."""
    days = len(counts[metrics[0]])
    mechanism, half_widths = _mechanism(method, days, metrics, epsilon, delta)
    drawn = np.array(mechanism.init(noise).noise, dtype=np.float64) / 2.0**GRID_BITS
    table = drawn.reshape(days, len(metrics))
    return [
        Estimates(
            method,
            metric,
            setting=float(epsilon),
            epsilon=float(epsilon),
            delta=float(delta),
            numbers=table.size,
            values=np.rint(counts[metric] + table[:, place]).astype(np.int64),
            half_widths=half_widths[:, place],
        )
        for place, metric in enumerate(metrics)
    ]


@lru_cache(maxsize=128)
def _mechanism(
    method: Method, days: int, metrics: tuple[Metric, ...], epsilon: Fraction, delta: Fraction
) -> tuple[LatticeMechanism | TreeMechanism, NDArray[np.int64]]:
    """The mechanism of a method at (ε, δ), and its half widths, (days, metrics) users."""
    cap = rho_cap(epsilon, delta)
    toggles = mau_toggles(days) if metrics == (Metric.MAU,) else days
    mechanism: LatticeMechanism | TreeMechanism
    if method is Method.TREE:
        mechanism = TreeMechanism(TreeStrategy(days, metrics[0], toggles), cap)
    elif method is Method.TOEPLITZ:
        mechanism = LatticeMechanism(sqrt_toeplitz(days, metrics[0], toggles), cap)
    elif method is Method.IGNORES:
        strategy = shipped(days, MAU_DAYS).strategy
        assert strategy.metrics == metrics, "a month plan releases all metrics in this order"
        mechanism = LatticeMechanism(strategy, cap)
    else:
        mechanism = LatticeMechanism(shared_noise(days, metrics), cap)
    # What `half_width` says for each day, with one matrix inverted instead of one a day.
    half = np.ceil(_QUANTILE * mechanism.noise_stddevs() - 0.5)
    return mechanism, np.maximum(half, 0).astype(np.int64)


def _independent(counts: NDArray[np.int64], epsilon: Fraction, noise: NoiseSource) -> Estimates:
    """DAU with Laplace noise, ε shared out evenly over the days by basic composition."""
    days = counts.size
    mechanism = DiscreteLaplace(epsilon=epsilon / days)
    return Estimates(
        Method.LAPLACE,
        Metric.DAU,
        setting=float(epsilon),
        epsilon=float(epsilon),
        delta=0.0,
        numbers=days,
        values=counts + noise.discrete_laplace(mechanism.scale, days),
        half_widths=np.full(days, mechanism.half_width()),
    )


def _gaussian(
    metric: Metric,
    counts: NDArray[np.int64],
    epsilon: Fraction,
    delta: Fraction,
    noise: NoiseSource,
) -> Estimates:
    """Gaussian noise drawn anew each day, the ρ of (ε, δ) shared out evenly over the days."""
    days = counts.size
    share = rho_cap(epsilon, delta) / days
    sigma = math.nextafter(math.sqrt(1 / (2 * share)), math.inf)
    mechanism = DiscreteGaussian(sigma=sigma, epsilon=epsilon, delta=delta)
    assert mechanism.rho <= share, "the scale is rounded up"
    return Estimates(
        Method.GAUSSIAN,
        metric,
        setting=float(epsilon),
        epsilon=float(epsilon),
        delta=float(delta),
        numbers=days,
        values=counts + noise.discrete_gaussian(sigma, days),
        half_widths=np.full(days, mechanism.half_width()),
    )
