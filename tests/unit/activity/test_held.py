"""The rows that keep the fixed days of a month, and what is held in them."""

import numpy as np
import pytest

from dpdau.activity import held
from dpdau.activity.held import HELD, PlanMonth, plan_month
from dpdau.activity.masks import adding
from dpdau.activity.runs import Rows, merge_rows
from dpdau.errors import InvalidPlanError

EVERY_DAY = 2**64 - 1


def rows(*some: tuple[int, int, int]) -> Rows:
    """(key, add, remove) rows."""
    columns = np.array(some, dtype=np.uint64).reshape(-1, 3).T
    return Rows(columns[0], (columns[1], columns[2]))


def listed(found: Rows) -> list[tuple[int, ...]]:
    """Rows as (key, add, remove)."""
    return list(zip(found.key.tolist(), *(one.tolist() for one in found.values), strict=True))


@pytest.mark.parametrize("lookback_days", [1, 28, 30, 64])
def test_the_groups_of_months_never_meet(lookback_days: int) -> None:
    """Each page of each month has a group of its own, whatever the look-back."""
    seen: set[int] = set()
    for year in (1900, 1969, 1970, 2026, 9998):
        for month in range(1, 13):
            if (year, month) == (9998, 12) or (year, month) == (1900, 1):
                continue
            one = plan_month(f"{year}-{month:02d}", lookback_days=lookback_days, dimensions=[])
            groups = {one.group(page) for page in one.pages}
            assert groups <= set(one.groups())
            assert not seen & set(one.groups())
            seen |= set(one.groups())


@pytest.mark.parametrize("text", ["2026-13", "2026-1", "26-01", "", "2026-01-01", "1899-12"])
def test_only_months_are_months(text: str) -> None:
    """A month is written YYYY-MM and lies in the years in which windows may end."""
    with pytest.raises(InvalidPlanError):
        held.parse_month(text)


def test_a_month_knows_its_days() -> None:
    """The days that are fixed reach from the look-back to the last one that was fixed."""
    opened = plan_month("1970-02", lookback_days=30, dimensions=["b", "a"])
    fixed = PlanMonth(opened.month, 30, ("a", "b"), frozen_through=33, ended=False)
    done = PlanMonth(opened.month, 30, ("a", "b"), frozen_through=58, ended=False)

    assert (31, 2, ("a", "b")) == (opened.first, opened.start, opened.dimensions)
    assert (31, 34, None) == (opened.next_day, fixed.next_day, done.next_day)
    assert (0, 2**34 - 4) == (int(opened.fixed_days(0)), int(fixed.fixed_days(0)))
    assert [0] == list(opened.pages)


def test_only_changed_fixed_days_are_held() -> None:
    """What was held stays; what does not change, or is not fixed, is not held."""
    event = rows((1, 0b11, 0), (2, 0, 0b1), (3, 0b100, 0), (4, 0b1, 0))
    before = adding(np.array([1, 2], dtype=np.uint64), np.array([0b1, 0b1], dtype=np.uint64))
    found = held.holding(rows((4, 0, 0b1)), before=before, event=event, fixed=np.uint64(0b11))

    assert [(1, 0, 0b10), (2, 0b1, 0)] == listed(found)


def test_more_is_held_beside_what_was() -> None:
    """A row is written whole, with what it held before."""
    found = held.holding(
        rows((1, 0b1, 0b10)), before=None, event=rows((1, 0b111, 0)), fixed=np.uint64(0b111)
    )

    assert [(1, 0b1, 0b110)] == listed(found)


def test_nothing_is_held_over_a_tombstone() -> None:
    """An erased user stays out whatever comes."""
    grave = rows((1, 0, EVERY_DAY))
    found = held.holding(grave, before=None, event=rows((1, 0b1, 0)), fixed=np.uint64(EVERY_DAY))
    seen = held.view(rows((1, 0b1, 0)), grave)

    assert [] == listed(found)
    assert seen is not None
    assert 0 == int(seen.values[0][0])


def test_one_user_of_two_pseudonyms() -> None:
    """A day counts if it counts under one of them, and a tombstone is one for both."""
    both = rows((1, 0b01, 0b10), (2, 0b10, 0b01), (3, 0b1, 0), (4, 0, EVERY_DAY))
    add, remove = held.united(both, np.arange(4), np.array([0, 2]))

    assert ([0b11, 0], [0, EVERY_DAY]) == (add.tolist(), remove.tolist())


def test_the_newest_row_counts() -> None:
    """Rows are written whole, an empty one takes a row out, and only the base drops it."""
    merged = merge_rows(HELD, rows((1, 1, 2), (2, 1, 0)), rows((1, 0, 0), (3, 0, 4)))
    assert merged is not None

    assert [(1, 0, 0), (2, 1, 0), (3, 0, 4)] == listed(merged)
    assert [(2, 1, 0), (3, 0, 4)] == listed(HELD.settle(merged))


def test_a_tombstone_is_on_every_page() -> None:
    """Also where the user has no other row; nobody has none."""
    month = plan_month("2026-02", lookback_days=64, dimensions=[])
    graves = held.tombstones(month, np.array([5, 7], dtype=np.uint64))

    assert [month.group(page) for page in month.pages] == sorted(graves)
    assert [(5, 0, EVERY_DAY), (7, 0, EVERY_DAY)] == listed(graves[month.group(month.pages[0])])
    assert {} == held.tombstones(month, np.zeros(0, dtype=np.uint64))
