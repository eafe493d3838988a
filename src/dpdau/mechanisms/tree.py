"""The binary tree mechanism: noisy sums of dyadic stretches of a series' differences.

A node over the days a..b holds x(b) - x(a - 1), with x(0) = 0; the nodes are all whole dyadic
stretches within the horizon. A day's count is the sum of the maximal stretches that fill 1..t, and
each of them is estimated from all nodes within it by online least squares: the part of the noise
that the nodes below it tell is taken off. It is the textbook mechanism for continual counts, and
stands here to be compared with the optimum.

Source: Chan, Shi, Song 2011 and Dwork, Naor, Pitassi, Rothblum 2010 (the tree); Honaker 2015,
"Efficient Use of Differentially Private Binary Trees", section 3 (estimates from below).
"""

from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction
from functools import lru_cache
from typing import ClassVar

import numpy as np
from numpy.typing import NDArray

from dpdau.domain import ContributionBounds, Metric
from dpdau.mechanisms.matrix.classes import ToggleClass
from dpdau.mechanisms.matrix.lattice import (
    GRID_BITS,
    LATTICE_BITS,
    Integers,
    StrategyMechanism,
)

Node = tuple[int, int]
"""(first, last): the days first + 1 .. last."""


@dataclass(frozen=True, slots=True)
class TreeStrategy:
    """The tree over a horizon, for one series of at most `toggles` changes.

    Guarantee: `sensitivity_squared` is the exact maximum over `ToggleClass(horizon, toggles)` of
    the sum of squares of the node values, each times 2^20.

    Raises:
        InvalidPlanError: The horizon or the toggles are out of range.

    Example:
        >>> [TreeStrategy(31, Metric.MAU, w).sensitivity_squared >> 40 for w in range(1, 5)]
        [5, 9, 12, 15]
    """

    horizon: int
    metric: Metric
    toggles: int

    def __post_init__(self) -> None:
        ToggleClass(self.horizon, self.toggles)

    @property
    def metrics(self) -> tuple[Metric, ...]:
        """The one series."""
        return (self.metric,)

    @property
    def sensitivity_squared(self) -> int:
        """The exact sensitivity, squared, in units of 2^-20 users."""
        return _most_nodes(self.horizon, self.toggles) << (2 * LATTICE_BITS)

    @property
    def matrix(self) -> Integers:
        """(nodes, horizon) the node values times 2^20, children before parents, as they end."""
        rows = np.zeros((len(_nodes(self.horizon)), self.horizon), dtype=np.int64)
        for row, (first, last) in zip(rows, _nodes(self.horizon), strict=True):
            row[last - 1] = 1 << LATTICE_BITS
            if first:
                row[first - 1] = -1 << LATTICE_BITS
        return rows

    @property
    def bounds(self) -> ContributionBounds:
        """What one user may do to the counts that this strategy protects."""
        return ContributionBounds(max_per_count=1, max_active_steps=self.horizon)

    def spread(self, drawn: Sequence[int]) -> list[int]:
        """The noise of each estimate, in 2⁻³² users, from the noise of each node.

        Guarantee: count + noise is a function of the noisy nodes alone. For the estimates are exact
        fractions of them, rounded to the grid, and counts are multiples of the grid.
        """
        estimate: dict[Node, Fraction] = {}
        for (first, last), own in zip(_nodes(self.horizon), drawn, strict=True):
            middle = (first + last) // 2
            if last - first == 1:
                estimate[first, last] = Fraction(own)
                continue
            weight = _weight(last - first)
            below = estimate[first, middle] + estimate[middle, last]
            estimate[first, last] = weight * own + (1 - weight) * below
        unit = 2 ** (GRID_BITS - LATTICE_BITS)
        return [
            round(unit * sum((estimate[node] for node in _filling(day)), Fraction(0)))
            for day in range(1, self.horizon + 1)
        ]

    def normalized_stddev(self) -> NDArray[np.float64]:
        """(horizon, 1) standard deviation of the estimates at ρ = ½, in users."""
        variance = [
            float(sum(_weight(last - first) for first, last in _filling(day)))
            for day in range(1, self.horizon + 1)
        ]
        stddev = np.sqrt(np.array(variance) * _most_nodes(self.horizon, self.toggles))
        return np.asarray(stddev[:, None], dtype=np.float64)


class TreeMechanism(StrategyMechanism[TreeStrategy]):
    """One count every day of a horizon, from a binary tree of noise that is drawn ahead.

    Guarantee: all releases of the horizon together are ρ-zCDP under add-or-remove-one user,
    ρ = Δ² / (2s²) ≤ `rho_cap` exactly, for users whose series change at most `toggles` times.
    Estimates are unbiased, and those of a day rest on nodes that end by that day.

    Edge cases:
        | input | outcome |
        |---|---|
        | ρ so large or small that the noise leaves the sampler's range | refused |
        | counts of other bounds, another number of counts, or a day past the horizon | refused |

    Source: see the module; zCDP by Canonne, Kamath, Steinke 2020, Theorem 4.

    Raises:
        InvalidPlanError: The cap is out of range.
    """

    __slots__ = ()

    name: ClassVar[str] = "tree_discrete_gaussian"


@lru_cache(maxsize=64)
def _nodes(horizon: int) -> tuple[Node, ...]:
    """All whole dyadic stretches within the horizon, in the order in which they end, children
    before parents.
    """
    return tuple(
        (last - (1 << level), last)
        for last in range(1, horizon + 1)
        for level in range((last & -last).bit_length())
    )


def _filling(day: int) -> list[Node]:
    """The maximal nodes that fill the days 1..day."""
    found, first = [], 0
    for level in range(day.bit_length() - 1, -1, -1):
        if day >> level & 1:
            found.append((first, first + (1 << level)))
            first += 1 << level
    return found


def _weight(length: int) -> Fraction:
    """The weight of a node's own value in its estimate, which is also the estimate's variance.

    With v that of each child, the two children together have the variance 2v, so the least
    squares weight is 2v / (1 + 2v); for a leaf it is 1. That is n / (2n - 1) for n days.
    """
    return Fraction(length, 2 * length - 1)


@lru_cache(maxsize=64)
def _most_nodes(horizon: int, toggles: int) -> int:
    """The most nodes that a series of at most `toggles` changes makes 1 or -1.

    Changes alternate in sign, so a node is 1 or -1 if an odd number of them lies in it, and 0
    otherwise. So the maximum is found from the leaves up: the best that k changes do within a
    node is the best split of them over its children, and one more if k is odd.
    """
    best = [0, 1]
    total = [0]
    for level in range(horizon.bit_length()):
        if horizon >> level & 1:
            total = _split(total, best, toggles)
        best = [value + count % 2 for count, value in enumerate(_split(best, best, toggles))]
    return max(total)


def _split(left: list[int], right: list[int], toggles: int) -> list[int]:
    """For each number of changes up to `toggles`, the best of sharing it between two parts."""
    most = min(len(left) + len(right) - 2, toggles)
    return [
        max(
            left[count] + right[both - count]
            for count in range(max(0, both - len(right) + 1), min(both, len(left) - 1) + 1)
        )
        for both in range(most + 1)
    ]
