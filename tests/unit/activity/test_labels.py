"""Labels: the first of a month stays, whatever the merges."""

import datetime as dt
import functools

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from dpdau.activity import labels
from dpdau.activity.runs import Rows
from dpdau.domain import day_number

CODES = st.integers(-6, 5)
"""Values, `FORGET`, and forget-then-value."""


def act(code: int, value: int | None) -> int | None:
    """What a row does to the value so far, by the table in the module's docstring."""
    if code >= 0:
        return code if value is None else value
    return None if code == labels.FORGET else -code - 2


def column(*codes: int) -> tuple[np.ndarray]:
    """One value column."""
    return (np.array(codes, dtype=np.int32),)


@given(first=CODES, second=CODES, value=st.none() | st.integers(0, 5))
def test_a_combined_row_acts_as_both(first: int, second: int, value: int | None) -> None:
    """The combination does what the older row and then the newer one do."""
    both = int(labels.combine(column(first), column(second))[0][0])

    assert act(second, act(first, value)) == act(both, value)


@given(codes=st.lists(CODES, min_size=3, max_size=3))
def test_combining_is_associative(codes: list[int]) -> None:
    """Which neighbors are combined first does not matter."""
    a, b, c = (column(code) for code in codes)
    left = labels.combine(labels.combine(a, b), c)
    right = labels.combine(a, labels.combine(b, c))

    assert left[0].tolist() == right[0].tolist()


@given(codes=st.lists(CODES, min_size=1, max_size=6))
def test_the_base_is_what_the_history_says(codes: list[int]) -> None:
    """At the bottom a row is the value that the history leaves, or is dropped."""
    merged = functools.reduce(labels.combine, (column(code) for code in codes))
    settled = labels.as_base(Rows(np.zeros(1, dtype=np.uint64), merged))
    value = functools.reduce(lambda so_far, code: act(code, so_far), codes, None)

    assert ([] if value is None else [value]) == settled.values[0].tolist()


def test_the_first_row_of_a_month_labels_it() -> None:
    """Rows without a value are skipped; each month and pseudonym has one row."""
    days = [day_number(dt.date(2026, 1, 5)), day_number(dt.date(2026, 2, 5))]
    run = labels.from_rows(
        pseudonym=np.array([1, 1, 1, 2, 1], dtype=np.uint64),
        day=np.array([days[0]] * 4 + [days[1]], dtype=np.int32),
        code=np.array([-1, 4, 5, 6, 7], dtype=np.int32),
        dimension=3,
    )
    january, february = (labels.month_index(dt.date(2026, month, 1)) for month in (1, 2))

    assert [january, february] == [group // labels.DIMENSIONS_MAX for group in run]
    assert [([1, 2], [4, 6]), ([1], [7])] == [
        (rows.key.tolist(), rows.values[0].tolist()) for rows in run.values()
    ]


def test_no_value_no_rows() -> None:
    """A batch without a value of the dimension brings no label."""
    nobody = np.zeros(2, dtype=np.uint64)
    run = labels.from_rows(
        pseudonym=nobody,
        day=nobody.astype(np.int32),
        code=np.full(2, -1, dtype=np.int32),
        dimension=0,
    )

    assert {} == run


def test_holders_see_through_the_encoding() -> None:
    """A value counts whether or not the row begins by forgetting."""
    rows = Rows(np.arange(4, dtype=np.uint64), column(3, -5, labels.FORGET, 2))

    assert [0, 1] == labels.holders(rows, 3).tolist()


@pytest.mark.parametrize(
    "day", [dt.date(1969, 12, 31), dt.date(1970, 1, 1), dt.date(2024, 2, 29), dt.date(9999, 12, 31)]
)
def test_months_of_days(day: dt.date) -> None:
    """The columnar month of a day is the calendar's, and its days enclose the day."""
    month = int(labels.months(np.array([day_number(day)], dtype=np.int32))[0])
    first, last = labels.month_days(month)

    assert labels.month_index(day) == month
    assert first <= day_number(day) <= last
    assert 1 == dt.date.fromordinal(day.toordinal() - day_number(day) + first).day


def test_plan_labels_meet_no_ordinary_month() -> None:
    """Their groups lie above those of every month, and are never older than one."""
    first, last = (labels.month_index(day) for day in (dt.date.min, dt.date.max))
    ordinary = labels.label_group(
        np.array([first, last], dtype=np.int32), labels.DIMENSIONS_MAX - 1
    )
    plan = labels.plan_groups(first)

    assert int(ordinary.max()) < plan.start
    assert labels.plan_groups(first + 1).start == plan.stop
    assert not labels.is_before(plan.start, last + 1)
    assert [True, False] == [labels.is_before(int(one), last) for one in ordinary]


def test_codes_of_some_keys() -> None:
    """A forgotten value is none, one that replaced another counts, an unknown key has none."""
    keys = np.array([1, 2, 3, 4], dtype=np.uint64)
    rows = Rows(keys[:3], (np.array([5, -1, -8], dtype=np.int32),))

    assert [5, -1, 6, -1] == labels.codes_of(rows, keys).tolist()
    assert [-1] * 4 == labels.codes_of(None, keys).tolist()
