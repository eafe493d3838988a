"""What an open month counts: its view of the day masks, and the labels its users keep."""

from collections.abc import Iterable, Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from dpdau.activity.counting import window_keys
from dpdau.activity.held import HELD, PlanMonth, holding, view
from dpdau.activity.history import Snapshot
from dpdau.activity.labels import (
    FORGET,
    LABELS,
    codes_of,
    label_group,
    months,
    plan_groups,
)
from dpdau.activity.masks import MASKS, days_mask, page_of
from dpdau.activity.month_verbs import Code
from dpdau.activity.parallel import sum_over_parts
from dpdau.activity.runs import PARTS, Rows, Run, Table, merge_rows, merge_runs, pick


class MonthView:
    """An open month in one snapshot with masks, labels and held rows."""

    def __init__(self, state: Snapshot, month: PlanMonth) -> None:
        self._state = state
        self._month = month

    def counts(
        self, day: int, window_days: Sequence[int], segments: Sequence[Code | None]
    ) -> NDArray[np.int64]:
        """How many users each window that ends on a fixed day holds.

        Args:
            day: A fixed day number of the month.
            window_days: 1..`lookback_days` days each.
            segments: Dimension and value; None for one that nobody has.

        Returns:
            (1 + len(segments), len(window_days)) int64: everyone, then each segment by plan label.
        """
        asked = [(row, *one) for row, one in enumerate(segments, start=1) if one is not None]

        def of_part(part: int) -> NDArray[np.int64]:
            return self._part_counts(part, day, window_days, asked)

        found = sum_over_parts(of_part, rows=self._state.size(MASKS))
        table = np.zeros((1 + len(segments), len(window_days)), dtype=np.int64)
        table[[0, *(row for row, _dimension, _code in asked)]] = found
        return table

    def plan_labels(self, day: int, dimensions: Iterable[int]) -> Run:
        """The labels of the users who contribute to the month for the first time on a day.

        The label of the latest month up to this one, and within the look-back, in which the user
        has one.
        """
        parts = [self._newcomers(part, day) for part in range(PARTS)]
        index = months(np.array([self._month.start, self._month.first], dtype=np.int32))
        run: Run = {}
        for dimension in dimensions:
            groups = label_group(np.arange(index[0], index[1] + 1, dtype=np.int32), dimension)
            codes = [self._latest(part, keys, groups.tolist()) for part, keys in enumerate(parts)]
            rows = Rows(np.concatenate(parts), (np.concatenate(codes),))
            labeled = rows.take(rows.values[0] != FORGET)
            if len(labeled):
                run = {**run, plan_groups(self._month.month)[dimension]: labeled}
        return run

    def _page(self, part: int, page: int) -> Rows | None:
        """The view of one part and page."""
        true = self._state.net(MASKS, part, page)
        if page not in self._month.pages:
            return true
        return view(true, self._state.net(HELD, part, self._month.group(page)))

    def _part_counts(
        self, part: int, day: int, window_days: Sequence[int], asked: Sequence[tuple[int, int, int]]
    ) -> NDArray[np.int64]:
        """The counts of one part: everyone, then each segment that is asked for."""
        first = day - max(window_days, default=1) + 1
        pages = {page: self._page(part, page) for page in range(page_of(first), page_of(day) + 1)}
        inside = [window_keys(pages, day - days + 1, day) for days in window_days]
        rows = [[keys.shape[0] for keys in inside]]
        labeled = {
            dimension: self._state.net(LABELS, part, plan_groups(self._month.month)[dimension])
            for _row, dimension, _code in asked
        }
        codes = {
            dimension: [codes_of(found, keys) for keys in inside]
            for dimension, found in labeled.items()
        }
        rows += [
            [np.count_nonzero(one == code) for one in codes[dimension]]
            for _row, dimension, code in asked
        ]
        return np.array(rows, dtype=np.int64)

    def _newcomers(self, part: int, day: int) -> NDArray[np.uint64]:
        """The sorted users who contribute on a day and did on no fixed day before."""
        month = self._month
        first = day - (month.lookback_days if day == month.first else 1) + 1
        pages = {page: self._page(part, page) for page in range(page_of(first), page_of(day) + 1)}
        keys = window_keys(pages, first, day)
        if day == month.first:
            return keys
        for page in range(page_of(month.start), page_of(day - 1) + 1):
            rows = self._page(part, page)
            if rows is not None:
                known = pick(rows, keys)
                seen = (known.values[0] & days_mask(page, month.start, day - 1)) != 0
                keys = keys[~np.isin(keys, known.key[seen], assume_unique=True)]
        return keys

    def _latest(
        self, part: int, keys: NDArray[np.uint64], groups: Sequence[int]
    ) -> NDArray[np.int32]:
        """The code of each key in the last group that has one."""
        codes = np.full(len(keys), FORGET, dtype=np.int32)
        for group in groups:
            found = codes_of(self._state.net(LABELS, part, group), keys)
            codes = np.where(found == FORGET, codes, found)
        return codes


def warm_months(state: Snapshot) -> None:
    """Merges what the next day of each open month is counted from; performance only."""
    for month in state.months:
        if month.next_day is not None:
            state.warm(MASKS, range(month.pages.start, page_of(month.next_day) + 1))


def held_by(state: Snapshot, moved: Mapping[Table, Run], events: Run) -> Run:
    """What has to be held, in every open month, before some events change its fixed days.

    Args:
        state: A snapshot with masks and held rows, without the events.
        moved: Rows that come between the two.
        events: The mask rows of the events.

    Guarantee:
        With these rows, the events change no month's view of a day that it has fixed.
    """
    run: Run = {}
    for month in state.months:
        for page in month.pages:
            rows, fixed = events.get(page), month.fixed_days(page)
            if rows is None:
                continue
            late = rows.take(((rows.values[0] | rows.values[1]) & fixed) != 0)
            if len(late):
                group = month.group(page)
                found = [
                    looked_up(state, moved, table, late.key, group=place)
                    for table, place in ((HELD, group), (MASKS, page))
                ]
                rows = holding(found[0], before=found[1], event=late, fixed=fixed)
                run = merge_runs(HELD, run, {group: rows} if len(rows) else {})
    return run


def has_late(open_months: Iterable[PlanMonth], events: Run) -> bool:
    """Whether some event rows touch a day that a month has fixed."""
    return any(
        bool(((rows.values[0] | rows.values[1]) & fixed).any())
        for month in open_months
        for page, rows in events.items()
        if page in month.pages and (fixed := month.fixed_days(page))
    )


def looked_up(
    state: Snapshot,
    moved: Mapping[Table, Run],
    table: Table,
    keys: NDArray[np.uint64],
    *,
    group: int,
) -> Rows | None:
    """The rows of some sorted keys in a group, after what was moved."""
    rows = state.lookup(table, keys, groups=range(group, group + 1)).get(group)
    later = moved.get(table, {}).get(group)
    return merge_rows(table, rows, None if later is None else pick(later, keys))
