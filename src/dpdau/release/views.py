"""Views of released numbers: computed from the releases alone, so they cost nothing.

A view keeps the id of the release that it is made from, and says in `status` what it is. The
release itself never changes.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import replace
from fractions import Fraction
from statistics import NormalDist
from typing import Final

import numpy as np
from numpy.typing import NDArray

from dpdau.domain import Metric, Release, Segment, SeriesView
from dpdau.errors import InvalidPlanError
from dpdau.mechanisms.matrix.lattice import LatticeStrategy
from dpdau.mechanisms.matrix.smoothing import consistent, smoothed

SMOOTHED_MONTHS_MAX: Final = 24
"""The model of a month takes some tenths of a second."""
_QUANTILE_95: Final = NormalDist().inv_cdf(0.975)

Group = tuple[str, Segment | None]
"""A plan and one of its series."""
StrategyOf = Callable[[str], LatticeStrategy | None]
"""The noise strategy behind a plan; None where it is another one than this version has."""


def shown(
    releases: Sequence[Release], view: SeriesView, *, strategy_of: StrategyOf
) -> list[Release]:
    """The releases of month plans as a view shows them, in the order in which they are given.

    Args:
        releases: Whole months, as far as they were taken.
        view: The view; raw ones need none.
        strategy_of: Gives the shape of a plan's noise.

    Raises:
        InvalidPlanError: More months than `SMOOTHED_MONTHS_MAX` are to be smoothed.
    """
    groups: dict[Group, list[Release]] = {}
    for release in releases:
        groups.setdefault((release.plan_id, release.segment), []).append(release)
    if view is SeriesView.SMOOTHED and len(groups) > SMOOTHED_MONTHS_MAX:
        raise InvalidPlanError(
            f"Expected at most {SMOOTHED_MONTHS_MAX} months to smooth, found {len(groups)}."
        )
    changed: dict[str, Release] = {}
    for (plan_id, _segment), rows in groups.items():
        changed |= {one.release_id: one for one in _shown_month(rows, view, strategy_of(plan_id))}
    return [changed[one.release_id] for one in releases]


def _shown_month(
    rows: Sequence[Release], view: SeriesView, strategy: LatticeStrategy | None
) -> list[Release]:
    """One series of one month."""
    ordered = sorted(rows, key=lambda one: one.step)
    metrics = tuple(Metric(one.metric) for one in ordered[: len(Metric)])
    estimates = _table([one.estimate for one in ordered])
    stddev = _table([one.noise_stddev for one in ordered])
    if view is SeriesView.CONSISTENT:
        values = consistent(estimates, stddev, metrics).ravel()
        return [
            _moved(one, value, one.upper_95 - one.estimate, one.noise_stddev, view)
            for one, value in zip(ordered, values, strict=True)
        ]
    made = smoothed(estimates, _covariance(stddev, strategy), metrics)
    return [
        _moved(one, value, math.ceil(_QUANTILE_95 * spread), spread, view)
        for one, value, spread in zip(
            ordered, made.values.ravel(), made.stddev.ravel(), strict=True
        )
    ]


def _covariance(
    stddev: NDArray[np.float64], strategy: LatticeStrategy | None
) -> NDArray[np.float64]:
    """The covariance of the noise of a month so far, in users²; independent where not known.

    Every series of a plan has noise of one shape, so its size is that of any one number.
    """
    spread = stddev.ravel()
    if strategy is None:
        return np.diag(np.square(spread))
    shape = strategy.covariance(rho=Fraction(1, 2))[: len(spread), : len(spread)]
    return np.asarray(shape * (spread[0] ** 2 / shape[0, 0]), dtype=np.float64)


def _moved(
    release: Release, value: float, half_width: int, noise_stddev: float, view: SeriesView
) -> Release:
    """A release with another value, as a view of it."""
    estimate = round(float(value))
    return replace(
        release,
        estimate=estimate,
        lower_95=estimate - half_width,
        upper_95=estimate + half_width,
        noise_stddev=float(noise_stddev),
        status=view.value,
    )


def _table(values: Sequence[float]) -> NDArray[np.float64]:
    """(days, metrics) of the values of releases in order."""
    return np.array(values, dtype=np.float64).reshape(-1, len(Metric))
