"""Counts every day and every trailing window of a range in one pass over sorted masks.

Each page is joined with the page before it by a sorted merge. The mask of "active in the w days
that end here" follows from shifts that double the span, and one carry-save addition then counts
all 64 days of a page at once, so the cost hardly depends on how many days are asked for.

# Notation: h, l = the mask of a page and of the page before it.
"""

import itertools
from collections.abc import Callable, Mapping, Sequence
from typing import Final

import numpy as np
from numpy.typing import NDArray

from dpdau.activity.masks import PAGE_DAYS, days_mask, page_of
from dpdau.activity.parallel import sum_over_parts
from dpdau.activity.runs import Rows, starts_of

PageLoader = Callable[[int, int], Rows | None]
"""(part, page) → the net mask rows: `values[0]` holds the active days."""

_BLOCK_ROWS: Final = 1 << 15
_LANES: Final = 128
_NOTHING: Final = np.zeros(0, dtype=np.uint64)
_NO_ROWS: Final = Rows(_NOTHING, (_NOTHING,))


def windowed_counts(
    load: PageLoader, *, first: int, last: int, window_days: Sequence[int], rows: int
) -> NDArray[np.int64]:
    """Distinct keys in each trailing window.

    Args:
        load: Gives the rows of one part and page; called once for each.
        first: The first day number on which a window ends.
        last: The last one; first ≤ last.
        window_days: 1..64 days each.
        rows: About how many rows there are.

    Returns:
        (len(window_days), last - first + 1) int64.

    Guarantee:
        Exact: equal to `turnstile.Turnstile.counts` on the same pairs.
    """
    spans = sorted(set(window_days))
    if not spans:
        return np.zeros((0, last - first + 1), dtype=np.int64)
    table = sum_over_parts(lambda part: _part_totals(load, part, (first, last), spans), rows=rows)
    return table[[spans.index(days) for days in window_days]]


def window_keys(pages: Mapping[int, Rows | None], first: int, last: int) -> NDArray[np.uint64]:
    """The keys that are active on some of the days first..last, sorted, each once.

    Args:
        pages: Page → its net rows, for at least the pages of these days.
        first: A day number.
        last: Another one, not before it.
    """
    wanted = range(page_of(first), page_of(last) + 1)
    some = [active_keys(page, pages[page], first, last) for page in wanted]
    if len(some) == 1:
        return some[0]
    keys = np.concatenate(some)
    # A stable sort merges sorted pieces; `np.unique` would hash every key.
    keys.sort(kind="stable")
    return keys[starts_of(keys)] if len(keys) else keys


def active_keys(page: int, rows: Rows | None, first: int, last: int) -> NDArray[np.uint64]:
    """The keys of one page that are active on some of the days first..last, sorted."""
    if rows is None:
        return _NOTHING
    found: NDArray[np.uint64] = rows.key[(rows.values[0] & days_mask(page, first, last)) != 0]
    return found


def _part_totals(
    load: PageLoader, part: int, ends: tuple[int, int], spans: Sequence[int]
) -> NDArray[np.int64]:
    """The counts of one part, a row for each span."""
    first, last = ends
    table = np.zeros((len(spans), last - first + 1), dtype=np.int64)
    reach = spans[-1] - 1
    before: Rows | None = None
    for page in range(page_of(first - reach), page_of(last) + 1):
        here = load(part, page)
        if page >= page_of(first):
            start = max(first, page * PAGE_DAYS)
            stop = min(last, (page + 1) * PAGE_DAYS - 1) + 1
            reaching = days_mask(page - 1, start - reach, page * PAGE_DAYS - 1)
            totals = _page_totals(here, before if reaching else None, reaching, spans)
            bits = slice(start - page * PAGE_DAYS, stop - page * PAGE_DAYS)
            table[:, start - first : stop - first] += totals[:, bits]
        before = here
    return table


def _page_totals(
    here: Rows | None, before: Rows | None, reaching: np.uint64, spans: Sequence[int]
) -> NDArray[np.int64]:
    """(len(spans), 64) int64: the counts for each day of a page.

    Only the days in `reaching` count of the page before.
    """
    totals = np.zeros((len(spans), PAGE_DAYS), dtype=np.int64)
    some = [rows for rows in (here, before) if rows is not None and len(rows)]
    if not some:
        return totals
    # Blocks of the key space, so that a join and all its steps stay in the processor's cache.
    edges = max(some, key=len).key[_BLOCK_ROWS::_BLOCK_ROWS]
    for high, low in zip(_blocks(here, edges), _blocks(before, edges), strict=True):
        totals += _block_totals(*_join(high, low, reaching), spans)
    return totals


def _blocks(rows: Rows | None, edges: NDArray[np.uint64]) -> list[Rows]:
    """Rows cut where the keys reach each edge."""
    if rows is None:
        return [_NO_ROWS] * (edges.shape[0] + 1)
    at = [0, *np.searchsorted(rows.key, edges).tolist(), len(rows)]
    return [rows.take(slice(start, stop)) for start, stop in itertools.pairwise(at)]


def _join(
    here: Rows, before: Rows, reaching: np.uint64
) -> tuple[NDArray[np.uint64], NDArray[np.uint64] | None]:
    """The masks (h, l) of the same keys; l is None where the page before says nothing."""
    old = before.values[0] & reaching
    keep = np.flatnonzero(old)
    if not keep.shape[0]:
        return here.values[0], None
    nothing = np.uint64(0)
    older = keep.shape[0]
    key = np.concatenate((before.key[keep], here.key))
    # Stable, so of two equal keys the one of the page before comes first.
    order = np.argsort(key, kind="stable")
    key = key[order]
    same = key[1:] == key[:-1]
    distinct = order[np.flatnonzero(np.concatenate(([True], ~same)))]
    mask = np.concatenate((old[keep], here.values[0]))[distinct]
    new = distinct >= older
    low, high = np.where(new, nothing, mask), np.where(new, mask, nothing)
    pair = np.flatnonzero(same)
    high[pair - np.arange(pair.shape[0])] = here.values[0][order[pair + 1] - older]
    return high, low


def _block_totals(
    high: NDArray[np.uint64], low: NDArray[np.uint64] | None, spans: Sequence[int]
) -> NDArray[np.int64]:
    """(len(spans), 64) int64: how many rows are active in each span ending on each day."""
    totals = np.empty((len(spans), PAGE_DAYS), dtype=np.int64)
    covered = 1
    shifted = np.empty_like(high)
    if spans[-1] > 1:
        high = high.copy()
    for row, days in enumerate(spans):
        while covered < days:
            step = min(covered, days - covered)
            shift, back = np.uint64(step), np.uint64(PAGE_DAYS - step)
            np.left_shift(high, shift, out=shifted)
            high |= shifted
            if low is not None:
                np.right_shift(low, back, out=shifted)
                high |= shifted
                np.left_shift(low, shift, out=shifted)
                low |= shifted
            covered += step
        totals[row] = bit_totals(high)
    return totals


def bit_totals(words: NDArray[np.uint64]) -> NDArray[np.int64]:
    """How many words have each of the 64 bits set.

    Halves are added as bit-sliced numbers (plane i holds bit i of every lane's count) until few
    lanes are left, which costs about ten word operations a word for all 64 bits together.

    Source:
        The carry-save adder of Harley and Seal (Warren, Hacker's Delight, section 5-1).

    Example:
        >>> bit_totals(np.array([1, 3, 2**63], dtype=np.uint64))[[0, 1, 63]].tolist()
        [2, 1, 1]
    """
    size = 1 << max(words.shape[0] - 1, 0).bit_length()
    if size != words.shape[0]:
        words = np.concatenate((words, np.zeros(size - words.shape[0], dtype=np.uint64)))
    planes = [words]
    while planes[0].shape[0] > _LANES:
        half = planes[0].shape[0] // 2
        left, right = planes[0][:half], planes[0][half:]
        added = [left ^ right]
        carry = left & right
        for plane in planes[1:]:
            left, right = plane[:half], plane[half:]
            either = left ^ right
            added.append(either ^ carry)
            carry = (left & right) | (either & carry)
        planes = [*added, carry]
    totals = np.zeros(PAGE_DAYS, dtype=np.int64)
    for weight, plane in enumerate(planes):
        octets = np.ascontiguousarray(plane, dtype="<u8").view(np.uint8)
        bits = np.unpackbits(octets, bitorder="little").reshape(-1, PAGE_DAYS)
        totals += bits.sum(axis=0, dtype=np.int64) << weight
    return totals
