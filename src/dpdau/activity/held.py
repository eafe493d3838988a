"""What an open month keeps of days that it has fixed: the differences from what is true now.

A month that was opened fixes its days one after the other. What it counts is its *view*: the day
masks, overridden by the bits that are *held* for it. A bit is held when an event changes a day
that the month has fixed, with the value that the day had before; so a fixed day never changes for
the month, and a user without such events takes no room.

A row is (month, page, pseudonym) → add mask and remove mask, as in `masks`: laid over the day
masks, it gives the view. It is written whole, so the newest row of a key is the only one that
counts. A *tombstone* is a row that takes out every day of its page: it stands for an erased user,
and nothing is ever held over it.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from dpdau.activity.labels import month_days, month_index
from dpdau.activity.masks import MASKS, PAGE_DAYS, days_mask, page_of
from dpdau.activity.runs import Rows, Run, Table, Values, constant, find, merge_rows
from dpdau.domain import (
    WINDOW_DAYS_MAX,
    WINDOW_END_MAX,
    WINDOW_END_MIN,
    Tombstone,
    day_date,
    month_of,
)
from dpdau.domain import month_days as days_of_month
from dpdau.errors import InvalidPlanError

MONTH_PAGES_MAX: Final = 8
"""Groups of one month; its look-back and its days touch at most three pages."""
assert (WINDOW_DAYS_MAX + 31) // PAGE_DAYS + 2 <= MONTH_PAGES_MAX

_EVERY_DAY: Final = np.uint64(2**PAGE_DAYS - 1)
_NO_DAY: Final = np.uint64(0)


@dataclass(frozen=True, slots=True)
class PlanMonth:
    """A month that was opened.

    Attributes:
        month: The month index, as in `labels`.
        lookback_days: The longest window that is counted in it.
        dimensions: The dimensions for which its users keep one label.
        frozen_through: The last day number that is fixed, or None.
        ended: Whether it was ended; then nothing else is kept of it.
    """

    month: int
    lookback_days: int
    dimensions: tuple[str, ...]
    frozen_through: int | None
    ended: bool

    @property
    def first(self) -> int:
        """The first day number of the month."""
        return month_days(self.month)[0]

    @property
    def start(self) -> int:
        """The first day number that any of its windows touches."""
        return self.first - self.lookback_days + 1

    @property
    def pages(self) -> range:
        """The pages that its windows touch."""
        return range(page_of(self.start), page_of(month_days(self.month)[1]) + 1)

    @property
    def next_day(self) -> int | None:
        """The day number that is fixed next, or None after the last one."""
        after = self.first if self.frozen_through is None else self.frozen_through + 1
        return after if after <= month_days(self.month)[1] else None

    def group(self, page: int) -> int:
        """The group of the held rows of one of its pages."""
        return self.month * MONTH_PAGES_MAX + page - self.pages.start

    def groups(self) -> range:
        """The groups of all its held rows."""
        return range(self.month * MONTH_PAGES_MAX, (self.month + 1) * MONTH_PAGES_MAX)

    def fixed_days(self, page: int) -> np.uint64:
        """The days of a page that are fixed."""
        if self.frozen_through is None:
            return _NO_DAY
        return days_mask(page, self.start, self.frozen_through)


def plan_month(month: str, *, lookback_days: int, dimensions: Sequence[str]) -> PlanMonth:
    """A month that is to be opened.

    Raises:
        InvalidPlanError: It is no month, the look-back is out of range, or a dimension is repeated.
    """
    if not 1 <= lookback_days <= WINDOW_DAYS_MAX:
        raise InvalidPlanError(
            f"Expected a look-back of 1..{WINDOW_DAYS_MAX} days, found {lookback_days}."
        )
    if len(set(dimensions)) != len(dimensions):
        raise InvalidPlanError("Expected different dimensions, found one of them twice.")
    return PlanMonth(
        month=parse_month(month),
        lookback_days=lookback_days,
        dimensions=tuple(sorted(dimensions)),
        frozen_through=None,
        ended=False,
    )


def parse_month(text: str) -> int:
    """The month index of "YYYY-MM".

    Raises:
        InvalidPlanError: It is no such month, or outside the years in which windows end.

    Example:
        >>> parse_month("2026-02") == 2026 * 12 + 1
        True
    """
    first, last = days_of_month(text)
    if not WINDOW_END_MIN <= first < last <= WINDOW_END_MAX:
        raise InvalidPlanError(
            f"Expected a month of {month_of(WINDOW_END_MIN)}..{month_of(WINDOW_END_MAX)}, "
            f"found {text}."
        )
    return month_index(first)


def tombstones(month: PlanMonth, keys: NDArray[np.uint64]) -> Run:
    """Rows that take some sorted unique pseudonyms out of a month for good."""
    rows = out_for_good(keys)
    return {month.group(page): rows for page in month.pages} if len(keys) else {}


def out_for_good(keys: NDArray[np.uint64]) -> Rows:
    """A tombstone for each of some sorted unique pseudonyms: every day of a page is taken out."""
    return Rows(keys, (constant(_NO_DAY, len(keys)), constant(_EVERY_DAY, len(keys))))


def kept_of(months: Sequence[PlanMonth], live: int | None) -> tuple[Tombstone, ...]:
    """What is kept of a user who is erased while some months are open and a day is live."""
    kept = [
        Tombstone(month_of(day_date(one.first)), day_date(month_days(one.month)[1]))
        for one in months
    ]
    if live is not None:
        kept.append(Tombstone(day_date(live).isoformat(), day_date(live)))
    return tuple(kept)


def holding(held: Rows | None, *, before: Rows | None, event: Rows, fixed: np.uint64) -> Rows:
    """The rows that keep the view of fixed days as it was before some events.

    Args:
        held: What is held of these pseudonyms.
        before: Their true days before the events.
        event: The events, as mask rows.
        fixed: The days that are fixed.

    Returns:
        Whole rows, only for pseudonyms of which something more is held than before.
    """
    true = _masks_of(before, event.key)[0]
    add, remove = _masks_of(held, event.key)
    changed = ((event.values[0] & ~true) | (event.values[1] & true)) & fixed & ~(add | remove)
    rows = Rows(event.key, (add | (changed & true), remove | (changed & ~true)))
    return rows.take(changed != 0)


def united(rows: Rows, order: NDArray[np.intp], begin: NDArray[np.intp]) -> Values:
    """What is held of one user under several pseudonyms: a day counts if it counts under one.

    A tombstone under one of them is a tombstone for the user.

    Args:
        rows: The rows under all pseudonyms.
        order: The rows user by user.
        begin: Where each user begins in that order.
    """
    add, remove = (column[order] for column in rows.values)
    erased = np.logical_or.reduceat(remove == _EVERY_DAY, begin)
    all_add = np.bitwise_or.reduceat(add, begin)
    all_remove = np.bitwise_or.reduceat(remove, begin)
    return (
        np.where(erased, _NO_DAY, all_add),
        np.where(erased, _EVERY_DAY, all_remove & ~all_add),
    )


def view(true: Rows | None, held: Rows | None) -> Rows | None:
    """The days of a page as a month counts them: `values[0]`; may hold rows without a day."""
    return merge_rows(MASKS, true, held)


def _masks_of(rows: Rows | None, keys: NDArray[np.uint64]) -> Values:
    """The two masks of some keys, 0 where there is no row."""
    found = (np.zeros(len(keys), dtype=np.uint64), np.zeros(len(keys), dtype=np.uint64))
    if rows is not None:
        at, hit = find(rows.key, keys)
        for column, values in zip(found, rows.values, strict=True):
            column[hit] = values[at[hit]]
    return found


def _settle(rows: Rows) -> Rows:
    """Drops rows that hold nothing: at the bottom of the history there is nothing to replace."""
    return rows.take((rows.values[0] | rows.values[1]) != 0)


HELD: Final = Table(
    kind="held",
    columns=(("add", "<u8"), ("remove", "<u8")),
    combine=lambda _older, newer: newer,
    settle=_settle,
    digest=lambda _rows: 0,
)
