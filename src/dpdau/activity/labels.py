"""Segment labels: one sorted table beside the masks, under the same pseudonyms.

A row says which value of a dimension a pseudonym has in a month: key (month, dimension,
pseudonym) → value code, and the first one stays. A code is one int32 that encodes a function on
"the value so far", so that a merge is a composition and needs no history:

| code  | meaning                                    |
|-------|--------------------------------------------|
| c ≥ 0 | the value is c, if there was none before   |
| -1    | forget the value                           |
| ≤ -2  | forget the value, then it is -(code) - 2   |

The labels that an open month has fixed for its users (*plan labels*) are rows of the same table, in
groups above all those of ordinary months; there too the first one stays.

The reason for a table of its own is in `docs/decisions/0002-labels-beside-masks.md`.
"""

import calendar
import datetime as dt
from typing import Final

import numpy as np
from numpy.typing import NDArray

from dpdau.activity.runs import Rows, Run, Table, Values, find, split_groups, starts_of
from dpdau.domain import day_number

DIMENSIONS_MAX: Final = 64
"""How many dimensions one store may know; a batch with a further one is refused."""
DIMENSION_VALUES_MAX: Final = 2**31 - 2
"""How many values one dimension may have, as many as codes; a batch with a further one is refused.

It is never dropped: whether one user's label is kept must not depend on another's values.
"""
FORGET: Final = -1
_PLAN_GROUPS: Final = 1 << 24
assert 10_000 * 12 * DIMENSIONS_MAX <= _PLAN_GROUPS, "no ordinary month reaches the plan labels"
_EPOCH_MONTH: Final = 1970 * 12


def from_rows(
    *,
    pseudonym: NDArray[np.uint64],
    day: NDArray[np.int32],
    code: NDArray[np.int32],
    dimension: int,
) -> Run:
    """The first label of each (month, pseudonym) in arrival order; rows with code < 0 have none."""
    assert 0 <= dimension < DIMENSIONS_MAX
    labeled = code >= 0
    if not labeled.any():
        return {}
    pseudonym, code = pseudonym[labeled], code[labeled]
    group = label_group(months(day[labeled]), dimension)
    order = np.lexsort((pseudonym, group))
    pseudonym, group, code = pseudonym[order], group[order], code[order]
    begin = starts_of(pseudonym, group)
    return split_groups(group[begin], Rows(pseudonym[begin], (code[begin],)))


def months(day: NDArray[np.int32]) -> NDArray[np.int32]:
    """The month index, year · 12 + month - 1, of each day number."""
    since = day.astype("datetime64[D]").astype("datetime64[M]").astype(np.int32)
    return since + np.int32(_EPOCH_MONTH)


def month_index(day: dt.date) -> int:
    """The month index of one day."""
    return day.year * 12 + day.month - 1


def month_days(month: int) -> tuple[int, int]:
    """The first and last day number of a month index."""
    start = dt.date(month // 12, month % 12 + 1, 1)
    _weekday, days = calendar.monthrange(start.year, start.month)
    return day_number(start), day_number(start) + days - 1


def label_group(month: NDArray[np.int32], dimension: int) -> NDArray[np.int32]:
    """The group of a month and a dimension; months sort first."""
    return month * np.int32(DIMENSIONS_MAX) + np.int32(dimension)


def is_before(group: int, month: int) -> bool:
    """Whether a group holds the ordinary labels of a month before one; never plan labels."""
    return group < min(month * DIMENSIONS_MAX, _PLAN_GROUPS)


def plan_groups(month: int) -> range:
    """The groups of the plan labels of a month, one for each dimension."""
    start = _PLAN_GROUPS + month * DIMENSIONS_MAX
    return range(start, start + DIMENSIONS_MAX)


def codes_of(rows: Rows | None, keys: NDArray[np.uint64]) -> NDArray[np.int32]:
    """(n,) int32: the value code of each key, -1 where it has none."""
    codes = np.full(len(keys), FORGET, dtype=np.int32)
    if rows is not None:
        at, hit = find(rows.key, keys)
        found = rows.values[0][at[hit]]
        codes[hit] = np.where(found < FORGET, -found - 2, found)
    return codes


def combine(older: Values, newer: Values) -> Values:
    """First wins, unless the newer row begins by forgetting.

    Guarantee:
        Associative: both sides encode functions s → (forget ? code : s or code), which are closed
        under composition.
    """
    (first,), (second,) = older, newer
    settled = first != FORGET
    # Forgetting and then taking the value of the newer row.
    chained = np.where(second >= 0, -second - 2, second)
    return (np.where((second < 0), second, np.where(settled, first, chained)),)


def as_base(rows: Rows) -> Rows:
    """Plain values only: at the bottom of the history there is nothing to forget."""
    (code,) = rows.values
    if (code >= 0).all():
        return rows
    settled = Rows(rows.key, (np.where(code < FORGET, -code - 2, code),))
    return settled.take(code != FORGET)


def holders(rows: Rows, code: int) -> NDArray[np.uint64]:
    """The sorted pseudonyms whose value is `code`."""
    found: NDArray[np.uint64] = rows.key[(rows.values[0] == code) | (rows.values[0] == -code - 2)]
    return found


LABELS: Final = Table(
    kind="labels",
    columns=(("code", "<i4"),),
    combine=combine,
    settle=as_base,
    digest=lambda _rows: 0,
)
