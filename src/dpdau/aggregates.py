"""Exact counts with each person's contribution bounded: the only maker of `BoundedCount`."""

from dpdau.activity.store import ActivityStore
from dpdau.domain import BoundedCount, ContributionBounds, Segment, Unit, Window

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
