"""Counts who is new, retained, resurrected or churned between two neighboring windows.

The keys of both windows come from their few pages. Of those that are in the later window alone, the
older pages say, newest first, who was there before; the search ends when nobody is left to find.
"""

import numpy as np
from numpy.typing import NDArray

from dpdau.activity.counting import PageLoader
from dpdau.activity.masks import PAGE_DAYS, days_mask, page_of
from dpdau.activity.runs import PARTS, Rows, find


def growth_counts(
    load: PageLoader, *, first_page: int, end: int, window_days: int
) -> NDArray[np.int64]:
    """The distinct keys in each of the four cells.

    Args:
        load: Gives the rows of one part and page; called at most once for each.
        first_page: No row is on an earlier page.
        end: The day number on which the later window ends.
        window_days: Days of each of the two windows.

    Returns:
        (4,) int64: new, retained, resurrected, churned.

    Guarantee:
        Exact: equal to `turnstile.Turnstile.growth` on the same pairs.
    """
    later, earlier = end - window_days + 1, end - 2 * window_days + 1
    cells = np.zeros(4, dtype=np.int64)
    for part in range(PARTS):
        near = {page: load(part, page) for page in range(page_of(earlier), page_of(end) + 1)}
        now, then = _keys(near, later, end), _keys(near, earlier, later - 1)
        unseen = _without(now, then)
        retained, came = now.shape[0] - unseen.shape[0], unseen.shape[0]
        for page in range(page_of(earlier - 1), first_page - 1, -1):
            if not unseen.shape[0]:
                break
            rows = near[page] if page in near else load(part, page)
            unseen = _without(unseen, _active(page, rows, page * PAGE_DAYS, earlier - 1))
        new = unseen.shape[0]
        cells += (new, retained, came - new, then.shape[0] - retained)
    return cells


def _keys(near: dict[int, Rows | None], first: int, last: int) -> NDArray[np.uint64]:
    """The keys that are active on some of the days first..last, sorted."""
    pages = range(page_of(first), page_of(last) + 1)
    some = [_active(page, near[page], first, last) for page in pages]
    return some[0] if len(some) == 1 else np.unique(np.concatenate(some))


def _active(page: int, rows: Rows | None, first: int, last: int) -> NDArray[np.uint64]:
    """The keys of one page that are active on some of the days first..last, sorted."""
    if rows is None:
        return np.zeros(0, dtype=np.uint64)
    found: NDArray[np.uint64] = rows.key[(rows.values[0] & days_mask(page, first, last)) != 0]
    return found


def _without(keys: NDArray[np.uint64], others: NDArray[np.uint64]) -> NDArray[np.uint64]:
    """The sorted keys that are not among others."""
    left: NDArray[np.uint64] = keys[~find(others, keys)[1]]
    return left
