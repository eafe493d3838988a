"""Exact counts with each person's contribution bounded: the only maker of `BoundedCount`."""

import datetime as dt
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from dpdau.activity.store import ActivityStore
from dpdau.domain import (
    GROWTH,
    BoundedCount,
    ContributionBounds,
    Figure,
    Segment,
    Unit,
    Window,
)

DISTINCT_USERS = ContributionBounds(max_per_count=1, max_active_steps=1)
"""A user is in the set of a window once or not at all, however many days it was active."""


def distinct_users(
    store: ActivityStore, window: Window, segment: Segment | None = None
) -> BoundedCount:
    """Counts the distinct users active in a window.

    Guarantee: adding or removing one user's entire history changes the value by at most 1. The
    store holds a set of (pseudonym, day) pairs, so a pseudonym adds 0 or 1 whatever its events; a
    segment only narrows the set.
    """
    counts = store.counts(
        first=window.end, last=window.end, window_days=[window.days], segment=segment
    )
    assert counts.shape == (1, 1)
    assert counts[0, 0] >= 0
    return BoundedCount(value=int(counts[0, 0]), bounds=DISTINCT_USERS, unit=Unit.USER)


GROWTH_CELLS = ContributionBounds(max_per_count=1, max_active_steps=1)
"""A user is in one cell of a growth plan or in none, so it reaches one release of the four."""


def growth_cells(store: ActivityStore, window: Window) -> dict[Figure, BoundedCount]:
    """Counts the users of a window and of the one before it, each user in one cell.

    Guarantee: adding or removing one user's entire history changes exactly one of the four values
    by 1, or none, because the cells are disjoint: the vector has sensitivity 1 in L1 and in L2. It
    rests on one pseudonym for each user: a key that a user of the earlier window is known by has to
    be live for as long as that user can come back in the later one, 127 days at most.
    """
    counts = store.growth(window.end, window_days=window.days)
    assert counts.shape == (len(GROWTH),)
    assert (counts >= 0).all()
    return {
        figure: BoundedCount(value=int(value), bounds=GROWTH_CELLS, unit=Unit.USER)
        for figure, value in zip(GROWTH, counts, strict=True)
    }


def month_counts(
    store: ActivityStore,
    month: str,
    day: dt.date,
    *,
    window_days: Sequence[int],
    segments: Sequence[Segment],
    days: int,
) -> list[list[BoundedCount]]:
    """Counts what each user contributes to a month plan on one day.

    Returns:
        One row for everyone; with segments, one more for each of them and, last, one for the users
        of no listed segment, so that each user is in exactly one of those. One count for each
        window.

    Guarantee: over the `days` days of the month the counts of one user in one row are a member of
    the contribution class of the plan, because the store fixes each day's contribution when the day
    is taken, and keeps an erased user out to the end of the month.
    """
    table = store.contributions(month, day, window_days=window_days, segments=segments)
    assert table.shape == (1 + len(segments), len(window_days))
    return bounded_row(table, days=days)


def bounded_row(table: NDArray[np.int64], *, days: int) -> list[list[BoundedCount]]:
    """The counts of one of the `days` days of a month, as a month plan takes them.

    Args:
        table: (1 + segments, windows): everyone, then each segment.
        days: Days of the month.

    Returns:
        As `month_counts`.

    Guarantee: changes nothing but to add, with segments, the row of the users of none; so what
    holds for one user's part in `table` over the month is what the bounds stand for.
    """
    if len(table) > 1:
        table = np.vstack([table, table[0] - table[1:].sum(axis=0)])
    assert (table >= 0).all()
    bounds = ContributionBounds(max_per_count=1, max_active_steps=days * table.shape[1])
    return [
        [BoundedCount(value=int(value), bounds=bounds, unit=Unit.USER) for value in row]
        for row in table
    ]


def live_count(store: ActivityStore, day: dt.date, *, steps: int) -> BoundedCount:
    """Counts the users who are active on the live day so far.

    Guarantee: over the `steps` ticks of a live plan, the values that one user adds go up at most
    once and down at most once on each day, because the store keeps out of the day whoever left it.
    """
    value = store.live.count(day)
    assert value >= 0
    bounds = ContributionBounds(max_per_count=1, max_active_steps=steps)
    return BoundedCount(value=value, bounds=bounds, unit=Unit.USER)
