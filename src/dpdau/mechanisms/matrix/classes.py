"""Contribution classes: everything that one user can do to a month of counts, listed exactly.

A user is seen through their *age*, the days since their last activity: on each day it is 0, or one
more than the day before. A window of W days holds the user while age < W. So the 0/1 series of
several windows are the paths of one small automaton, and over a month there are few of them.
With *erasure* a series may also be cut to 0 on any day, and then stays 0 to the end of the horizon.

The daily series (window 1) has 2^T members. It is therefore never listed: `activity_range` says,
for each listed member and each day, whether the user may have been active and may have been idle.
"""

from dataclasses import dataclass
from itertools import combinations
from math import comb
from typing import Any, Final, TypeVar

import numpy as np
from numpy.typing import NDArray

from dpdau.domain import WINDOW_DAYS_MAX
from dpdau.errors import InvalidPlanError

HORIZON_MAX: Final = 1_440
"""Days of the longest toggle-capped class; dense matrices of this size are still cheap."""
SERIES_MAX: Final = 1_000_000
"""The most series that a class may list."""
TOGGLES_MAX: Final = 4
"""The largest toggle cap whose worst series is searched for exhaustively."""
_CODES_MAX: Final = 2**63
_NEVER_BEST: Final = 2**60

Number = TypeVar("Number", np.float64, np.int64)

Series = NDArray[np.uint8]
"""(n, d) 0/1: one row for each series, one column for each release."""


@dataclass(frozen=True, slots=True)
class ContributionClass:
    """What one user can add to the counts of nested windows over a horizon of days.

    Args:
        horizon: Days; each window is released once on each of them.
        windows: Window lengths in days, strictly ascending.
        daily: Whether the count of users active on the day itself is released too.
        erasure: Whether contributions may be cut to 0 on any day for the rest of the horizon.

    Guarantee: `series` lists every membership series that activity on any set of days, before and
    within the horizon, can cause (and every cut of one, under `erasure`), each once, and no other.

    Raises:
        InvalidPlanError: The arguments are out of range.

    Example:
        >>> ContributionClass(31, (30,), erasure=False).series().shape
        (497, 31)
    """

    horizon: int
    windows: tuple[int, ...]
    daily: bool = False
    erasure: bool = True

    def __post_init__(self) -> None:
        if not self.windows or list(self.windows) != sorted(set(self.windows)):
            raise InvalidPlanError(f"Expected ascending windows, found {self.windows}.")
        shortest = 2 if self.daily else 1
        if not shortest <= self.windows[0] <= self.windows[-1] <= WINDOW_DAYS_MAX:
            raise InvalidPlanError(
                f"Expected windows of {shortest}..{WINDOW_DAYS_MAX} days, found {self.windows}."
            )
        codes = (len(self.windows) + 1) ** max(self.horizon, 1) * (self.windows[-1] + 1)
        if self.horizon < 1 or codes >= _CODES_MAX:
            raise InvalidPlanError(
                f"Expected a horizon whose series of {len(self.windows)} windows fit 63 bits,"
                f" found {self.horizon} days."
            )

    @property
    def releases(self) -> int:
        """How many counts are released over the horizon."""
        return self.horizon * (len(self.windows) + self.daily)

    def series(self) -> Series:
        """(n, horizon · windows) in lexicographic order, the empty series first.

        Columns are day-major: day 1 of each window from the shortest to the longest, then day 2.

        Raises:
            InvalidPlanError: More than `SERIES_MAX` series exist.
        """
        levels = _digits(self._codes(), base=len(self.windows) + 1, count=self.horizon)
        needed = np.arange(len(self.windows), 0, -1, dtype=np.uint8)
        held = levels[:, :, None] >= needed
        return held.reshape(len(levels), -1).astype(np.uint8)

    def _codes(self) -> NDArray[np.int64]:
        """One integer for each series; its digits count the windows that hold the user."""
        base, oldest = len(self.windows) + 1, self.windows[-1]
        level_of = np.array(
            [sum(age < days for days in self.windows) for age in range(oldest + 1)], dtype=np.int64
        )
        code, age = np.zeros(oldest + 1, dtype=np.int64), np.arange(oldest + 1, dtype=np.int64)
        cut: list[NDArray[np.int64]] = []
        for day in range(self.horizon):
            if self.erasure and day:
                cut.append(np.unique(code) * base ** (self.horizon - day))
            following = np.concatenate([np.zeros_like(age), np.minimum(age + 1, oldest)])
            code = np.concatenate([code, code]) * base + level_of[following]
            # Paths that look the same so far and have the same age stay the same for good.
            code, age = np.divmod(np.unique(code * (oldest + 1) + following), oldest + 1)
            if len(code) > SERIES_MAX:
                raise InvalidPlanError(
                    f"Expected at most {SERIES_MAX} series, found more by day {day + 1}."
                )
        found = np.unique(np.concatenate([code, *cut]))
        if len(found) > SERIES_MAX:
            raise InvalidPlanError(f"Expected at most {SERIES_MAX} series, found {len(found)}.")
        return found

    def activity_range(self, series: Series) -> tuple[NDArray[np.bool_], NDArray[np.bool_]]:
        """(may_be_idle, may_be_active), each (n, horizon): what a user of each series did each day.

        Let m be the series of the shortest window, of W days. A day outside it was idle. The first
        day of a run of m was active, unless it is day 1. A run that ends by age, not by erasure,
        ended after exactly W - 1 idle days, and the day before those was active. A run ended by age
        for certain if nothing is ever erased, or if any window holds the user afterwards. All
        other days may be either.

        Guarantee: every activity that causes the series lies within the range. The converse need
        not hold, so a maximum over the range is an upper bound, and never too small.
        """
        windows, length = len(self.windows), self.windows[0]
        member = series[:, ::windows].astype(bool)
        active = member.copy()
        idle = member.copy()
        idle[:, 1:] &= member[:, :-1]
        later = np.maximum.accumulate(series[:, ::-1], axis=1)[:, ::-1].astype(bool)
        for last in range(self.horizon - 1):
            ended = member[:, last] & ~member[:, last + 1]
            if self.erasure:
                ended &= later[:, (last + 1) * windows]
            active[ended, max(0, last - length + 2) : last + 1] = False
            idle[ended, max(0, last - length + 2) : last + 1] = True
            if last >= length - 1:
                idle[ended, last - length + 1] = False
        idle |= ~member
        return idle, active

    def possible(self, series: Series, activity: Series) -> NDArray[np.bool_]:
        """(n,) whether the activity (n, horizon) can cause the series (n, horizon · windows).

        Within `activity_range` one thing can still be wrong: that a run of the shortest window
        holds a whole window of idle days.
        """
        windows, length = len(self.windows), self.windows[0]
        idle, active = self.activity_range(series)
        held = np.where(activity.astype(bool), active, idle)
        member = series[:, ::windows].astype(bool)
        for last in range(length - 1, self.horizon):
            seen = activity[:, last - length + 1 : last + 1].any(axis=1)
            held[:, last] &= seen | ~member[:, last]
        return np.asarray(held.all(axis=1), dtype=np.bool_)


@dataclass(frozen=True, slots=True)
class ToggleClass:
    """All 0/1 series over a horizon that change at most `toggles` times, starting from 0.

    A series that is 1 on day 1 spent its first toggle there. For streams with edits, where runs of
    any length occur, and for long horizons.

    Raises:
        InvalidPlanError: The arguments are out of range.
    """

    horizon: int
    toggles: int

    def __post_init__(self) -> None:
        if not 1 <= self.horizon <= HORIZON_MAX:
            raise InvalidPlanError(f"Expected 1..{HORIZON_MAX} days, found {self.horizon}.")
        if not 1 <= self.toggles <= self.horizon:
            raise InvalidPlanError(
                f"Expected 1..{self.horizon} toggles, found {self.toggles} of them."
            )

    def size(self) -> int:
        """How many series there are, the empty one included."""
        return sum(comb(self.horizon, count) for count in range(self.toggles + 1))

    def series(self) -> Series:
        """(n, horizon), the empty series first.

        Raises:
            InvalidPlanError: More than `SERIES_MAX` series exist.
        """
        if self.size() > SERIES_MAX:
            raise InvalidPlanError(f"Expected at most {SERIES_MAX} series, found {self.size()}.")
        parts = [np.zeros((1, self.horizon), dtype=np.uint8)]
        for count in range(1, self.toggles + 1):
            places = np.array(list(combinations(range(self.horizon), count)), dtype=np.int64)
            parts.append(toggled(places, self.horizon))
        return np.vstack(parts)

    def worst(self, gram: NDArray[Number]) -> tuple[NDArray[Number], NDArray[np.int64]]:
        """For each first toggle, the largest mᵀ `gram` m and the toggles that attain it.

        Shapes and units:
            gram: (horizon, horizon), symmetric; integers stay exact while the sum of their
                absolute values is below 2⁵⁷.
            returns: (horizon,) values; (horizon, toggles) places, `horizon` standing for never.

        Raises:
            InvalidPlanError: More than `TOGGLES_MAX` toggles.
        """
        if self.toggles > TOGGLES_MAX:
            raise InvalidPlanError(
                f"Expected at most {TOGGLES_MAX} toggles to search, found {self.toggles}."
            )
        suffix = np.zeros((self.horizon + 1, self.horizon + 1), dtype=gram.dtype)
        suffix[:-1, :-1] = gram[::-1, ::-1].cumsum(0).cumsum(1)[::-1, ::-1]
        # Toggles come in order: below the diagonal nothing can win.
        ordered = np.where(np.tri(len(suffix), k=-1, dtype=bool), _NEVER_BEST, suffix)
        values = np.empty(self.horizon, dtype=gram.dtype)
        places = np.full((self.horizon, self.toggles), self.horizon, dtype=np.int64)
        tail: tuple[int, ...]
        for first in range(self.horizon):
            values[first], tail = _best_tail(suffix, ordered, first, self.toggles)
            places[first, : 1 + len(tail)] = (first, *tail)
        return values, places


def toggle_bound(horizon: int, window: int) -> int:
    """The most toggles of a `window`-day membership series over `horizon` days.

    Only on-time additions: f(T, W) = 1 + (⌊(T-2)/(W+1)⌋ + 1) + (⌊(T-3)/(W+1)⌋ + 1) for T ≥ 3. The
    first toggle is the carried-in membership of day 1; after it, each gap and each run of at least
    W days takes W + 1 days.

    Raises:
        InvalidPlanError: horizon < 1 or window < 1.

    Example:
        >>> toggle_bound(31, 30), toggle_bound(31, 7)
        (3, 9)
    """
    if horizon < 1 or window < 1:
        raise InvalidPlanError(f"Expected positive days, found {horizon} and {window}.")
    if horizon < 3:
        return horizon
    return 1 + (horizon - 2) // (window + 1) + 1 + (horizon - 3) // (window + 1) + 1


def toggle_counts(series: Series) -> NDArray[np.int64]:
    """(n,) changes of each series, counting a 1 on day 1."""
    before = np.pad(series, ((0, 0), (1, 0)))[:, :-1]
    changes: NDArray[np.int64] = (series != before).sum(axis=1, dtype=np.int64)
    return changes


def toggled(places: NDArray[np.int64], horizon: int) -> Series:
    """(n, horizon): the series with toggles on the given days; `horizon` stands for never."""
    days = np.arange(horizon)
    parity = np.zeros((len(places), horizon), dtype=np.uint8)
    for column in places.T:
        parity ^= (days >= column[:, None]).astype(np.uint8)
    return parity


def _digits(codes: NDArray[np.int64], *, base: int, count: int) -> NDArray[np.uint8]:
    """(n, count) digits of the codes, the most significant first."""
    digits = np.empty((len(codes), count), dtype=np.uint8)
    for place in range(count - 1, -1, -1):
        codes, digits[:, place] = np.divmod(codes, base)
    return digits


def _best_tail(
    suffix: NDArray[Number], ordered: NDArray[Number], first: int, toggles: int
) -> tuple[Any, tuple[int, ...]]:
    """The largest form of a series whose first toggle is `first`, and its further toggles.

    Notation: with G the suffix sums of the form on both sides, a series with toggles t₁ < t₂ < …
    has the form Σᵢ G[tᵢ,tᵢ] + 2 Σ_{i<j} (-1)^{j-i} G[tᵢ,tⱼ]; the row of "never" is 0.
    """
    never = len(suffix) - 1
    diagonal = np.diag(suffix)
    best = diagonal[first]
    tail: tuple[int, ...] = ()
    more: tuple[int, ...]
    for second in range(first + 1, never if toggles > 1 else 0):
        base = diagonal[first] + diagonal[second] - 2 * suffix[first, second]
        cross = 2 * (suffix[first, second + 1 :] - suffix[second, second + 1 :])
        value = base
        more = ()
        if toggles == 3:
            third = int(np.argmax(diagonal[second + 1 :] + cross))
            value = base + diagonal[second + 1 + third] + cross[third]
            more = (second + 1 + third,)
        elif toggles == 4:
            gain = (diagonal[second + 1 :] + cross)[:, None] + (diagonal[second + 1 :] - cross)
            gain -= 2 * ordered[second + 1 :, second + 1 :]
            third, fourth = divmod(int(np.argmax(gain)), gain.shape[1])
            value = base + gain[third, fourth]
            more = (second + 1 + third, second + 1 + fourth)
        if value > best:
            best, tail = value, (second, *more)
    return best, tail
