"""Day masks: the columnar form of a turnstile stream, and what a merge of two of them means.

An entry is a key (page, pseudonym) with an add mask and a remove mask. Page = day number // 64,
rounded down; bit = day number mod 64. Bit b of `add` says that the last event for that day was
`+`, of `remove` that it was `-`, of neither that there was none: the masks are disjoint.

# Notation: h, l = the mask of a page and of the page before it.
"""

from typing import Final

import numpy as np
from numpy.typing import NDArray

from dpdau.activity.runs import Rows, Run, Table, Values, constant, split_groups, starts_of

PAGE_DAYS: Final = 64
_PAGE_SHIFT: Final = 6
_BIT_MASK: Final = PAGE_DAYS - 1
_ALL_DAYS: Final = (1 << PAGE_DAYS) - 1


def from_rows(pseudonym: NDArray[np.uint64], day: NDArray[np.int32], add: NDArray[np.bool_]) -> Run:
    """Folds the rows of one batch, in arrival order, into sorted unique entries.

    Guarantee:
        Equal to `turnstile.fold` on the same rows: for one (pseudonym, day) the last row decides.

    Shapes and units:
        pseudonym, day, add: (n,) as in `EventBatch`.
    """
    if not pseudonym.shape[0]:
        return {}
    page = day >> _PAGE_SHIFT
    bit = np.left_shift(np.uint64(1), (day & _BIT_MASK).astype(np.uint64))
    # The order inside one key is free here: the few days with both ops are looked at again.
    order = np.argsort(pseudonym)
    if not (page == page[0]).all():
        # All pages of the calendar fit into 16 bits, which are sorted without comparisons.
        order = order[np.argsort((page[order] - page.min()).astype(np.uint16), kind="stable")]
    pseudonym, page, bit = pseudonym[order], page[order], bit[order]
    begin = starts_of(pseudonym, page)
    if add.all():
        rows = adding(pseudonym[begin], np.bitwise_or.reduceat(bit, begin))
        return split_groups(page[begin], rows)
    plus = np.where(add[order], bit, np.uint64(0))
    put = np.bitwise_or.reduceat(plus, begin)
    out = np.bitwise_or.reduceat(bit ^ plus, begin)
    both = put & out
    if both.any():
        entry = np.repeat(np.arange(begin.shape[0]), np.diff(begin, append=order.shape[0]))
        row = np.flatnonzero(bit & both[entry])
        row = row[np.lexsort((order[row], bit[row], entry[row]))]
        last = row[np.append(starts_of(entry[row], bit[row])[1:], row.shape[0]) - 1]
        won = np.zeros_like(both)
        np.bitwise_or.at(won, entry[last], plus[last])
        put, out = (put & ~both) | won, (out & ~both) | (both & ~won)
    return split_groups(page[begin], Rows(pseudonym[begin], (put, out)))


def combine(older: Values, newer: Values) -> Values:
    """Later entries win bit by bit.

    Guarantee:
        Associative, and disjoint masks stay disjoint. Applying the result to a set of days equals
        applying the older entry and then the newer one.
    """
    (older_add, older_remove), (newer_add, newer_remove) = older, newer
    return (
        (older_add & ~newer_remove) | newer_add,
        (older_remove & ~newer_add) | newer_remove,
    )


def as_base(rows: Rows) -> Rows:
    """Drops what says nothing at the bottom of the history: remove masks and empty rows."""
    add = rows.values[0]
    base = Rows(rows.key, (add, _zeros(len(rows))))
    return base if add.all() else base.take(add != 0)


def _digest(rows: Rows) -> int:
    """The days of a page that some row adds."""
    return int(np.bitwise_or.reduce(rows.values[0])) if len(rows) else 0


def _zeros(size: int) -> NDArray[np.uint64]:
    """An all-zero column."""
    return constant(np.uint64(0), size)


MASKS: Final = Table(
    kind="masks",
    columns=(("add", "<u8"), ("remove", "<u8")),
    combine=combine,
    settle=as_base,
    digest=_digest,
)


def adding(key: NDArray[np.uint64], add: NDArray[np.uint64]) -> Rows:
    """Entries that put days in."""
    return Rows(key, (add, _zeros(key.shape[0])))


def removing(key: NDArray[np.uint64], remove: NDArray[np.uint64]) -> Rows:
    """Entries that take days out."""
    return Rows(key, (_zeros(key.shape[0]), remove))


def page_of(day: int) -> int:
    """The page of a day number.

    Example:
        >>> page_of(-1), page_of(63), page_of(64)
        (-1, 0, 1)
    """
    return day >> _PAGE_SHIFT


def days_mask(page: int, first: int, last: int) -> np.uint64:
    """The bits of a page for the days first..last, both included.

    Example:
        >>> int(days_mask(0, -5, 2))
        7
    """
    low = max(first - page * PAGE_DAYS, 0)
    high = min(last - page * PAGE_DAYS, PAGE_DAYS - 1)
    return np.uint64(0 if high < low else (_ALL_DAYS >> (PAGE_DAYS - 1 - high + low)) << low)


def drop_before(page: int, rows: Rows, day: int) -> Rows:
    """The rows of a page without any day before `day`."""
    keep = days_mask(page, day, (page + 1) * PAGE_DAYS - 1)
    add, remove = rows.values[0] & keep, rows.values[1] & keep
    return Rows(rows.key, (add, remove)).take((add | remove) != 0)


def days_of(page: int, digest: int) -> list[int]:
    """The day numbers whose bit is set in a mask of a page."""
    return [page * PAGE_DAYS + bit for bit in range(PAGE_DAYS) if digest >> bit & 1]
