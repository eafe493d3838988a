"""Event ids: the first occurrence is fresh, and weeks expire."""

import datetime as dt

import numpy as np

from dpdau.activity.seen import (
    EVENT_ID_RETENTION_DAYS,
    first_occurrences,
    from_ids,
    oldest_week,
    week_of,
)

NOW = dt.datetime(2026, 3, 15, tzinfo=dt.UTC)


def test_the_first_of_each_id_is_fresh() -> None:
    """Events without an id are all fresh; of equal ids only the first is."""
    ids = np.array([0, 5, 0, 5, 6, 5], dtype=np.uint64)

    assert [True, True, True, False, True, False] == first_occurrences(ids).tolist()


def test_ids_become_sorted_rows() -> None:
    """0 is no id; equal ids stand once."""
    run = from_ids(np.array([9, 0, 4, 9], dtype=np.uint64), NOW)

    assert [4, 9] == run[week_of(NOW)].key.tolist()
    assert {} == from_ids(np.zeros(3, dtype=np.uint64), NOW)


def test_ids_are_kept_for_the_whole_retention() -> None:
    """The week of an id expires only when all its days are older than the retention."""
    for day in range(14):
        seen_at = NOW + dt.timedelta(days=day)
        still = seen_at + dt.timedelta(days=EVENT_ID_RETENTION_DAYS)
        gone = still + dt.timedelta(days=8)

        assert oldest_week(still) <= week_of(seen_at) < oldest_week(gone)
