"""Counts who is new, retained, resurrected or churned between two neighboring windows.

The keys of both windows come from their few pages. Of those that are in the later window alone, the
older pages say, newest first, who was there before; the search ends when nobody is left to find.
"""

import numpy as np
from numpy.typing import NDArray

from dpdau.activity.counting import PageLoader, active_keys, window_keys
from dpdau.activity.masks import PAGE_DAYS, page_of
from dpdau.activity.parallel import sum_over_parts
from dpdau.activity.runs import find


def growth_counts(
    load: PageLoader, *, first_page: int, end: int, window_days: int, rows: int
) -> NDArray[np.int64]:
    """The distinct keys in each of the four cells.

    Args:
        load: Gives the rows of one part and page; called at most once for each.
        first_page: No row is on an earlier page.
        end: The day number on which the later window ends.
        window_days: Days of each of the two windows.
        rows: About how many rows there are.

    Returns:
        (4,) int64: new, retained, resurrected, churned.

    Guarantee:
        Exact: equal to `turnstile.Turnstile.growth` on the same pairs.
    """

    def of_part(part: int) -> NDArray[np.int64]:
        return _cells(load, part, first_page=first_page, end=end, window_days=window_days)

    return sum_over_parts(of_part, rows=rows)


def _cells(
    load: PageLoader, part: int, *, first_page: int, end: int, window_days: int
) -> NDArray[np.int64]:
    """The four cells of one part."""
    later, earlier = end - window_days + 1, end - 2 * window_days + 1
    near = {page: load(part, page) for page in range(page_of(earlier), page_of(end) + 1)}
    now, then = window_keys(near, later, end), window_keys(near, earlier, later - 1)
    unseen = _without(now, then)
    retained, came = now.shape[0] - unseen.shape[0], unseen.shape[0]
    for page in range(page_of(earlier - 1), first_page - 1, -1):
        if not unseen.shape[0]:
            break
        rows = near[page] if page in near else load(part, page)
        unseen = _without(unseen, active_keys(page, rows, page * PAGE_DAYS, earlier - 1))
    new = unseen.shape[0]
    return np.array((new, retained, came - new, then.shape[0] - retained), dtype=np.int64)


def _without(keys: NDArray[np.uint64], others: NDArray[np.uint64]) -> NDArray[np.uint64]:
    """The sorted keys that are not among others."""
    left: NDArray[np.uint64] = keys[~find(others, keys)[1]]
    return left
