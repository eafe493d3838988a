"""The oracle of open months, by hand."""

import datetime as dt

import pytest

from dpdau.activity.frozen import FrozenTurnstile
from dpdau.domain import Event, Op, Segment, day_number
from dpdau.errors import InvalidPlanError

MONTH, FIRST = "2026-02", dt.date(2026, 2, 1)
DAY = day_number(FIRST)
WEB = Segment("platform", "web")


def opened(days: int) -> FrozenTurnstile:
    """Two users, one of them labeled, and some fixed days."""
    oracle = FrozenTurnstile()
    oracle.update(Event(1, Op.ADD, DAY - 2), {"platform": "web"})
    oracle.update(Event(2, Op.ADD, DAY))
    oracle.open_month(MONTH, lookback_days=30, dimensions=["platform"])
    for offset in range(days):
        oracle.freeze(MONTH, FIRST + dt.timedelta(days=offset))
    return oracle


def counted(oracle: FrozenTurnstile, offset: int = 0) -> list[list[int]]:
    """(month, day) for everyone and one segment."""
    day = FIRST + dt.timedelta(days=offset)
    return oracle.contributions(MONTH, day, window_days=(30, 1), segments=[WEB]).tolist()


def test_a_fixed_day_is_a_copy() -> None:
    """What comes later changes the pairs and not the month."""
    oracle = opened(1)
    oracle.update(Event(2, Op.REMOVE, DAY))
    oracle.update(Event(3, Op.ADD, DAY))

    assert [[2, 1], [1, 0]] == counted(oracle)
    assert {(1, DAY - 2), (3, DAY)} == oracle.pairs


def test_an_erasure_is_for_the_whole_month() -> None:
    """Who was erased counts no more, also after coming back under another name."""
    oracle = opened(1)
    oracle.erase([1])
    oracle.update(Event(1, Op.ADD, DAY + 1), {"platform": "web"})
    oracle.rename(1, 9)
    oracle.update(Event(9, Op.ADD, DAY + 1))
    oracle.freeze(MONTH, FIRST + dt.timedelta(days=1))

    assert [[1, 0], [0, 0]] == counted(oracle, 1)


def test_a_new_name_changes_nothing() -> None:
    """A rotation takes fixed days and labels along."""
    oracle = opened(1)
    oracle.rename(1, 9)
    oracle.update(Event(9, Op.ADD, DAY + 1), {"platform": "ios"})
    oracle.freeze(MONTH, FIRST + dt.timedelta(days=1))

    assert [[2, 1], [1, 1]] == counted(oracle, 1)


def test_only_fixed_days_of_open_months_count() -> None:
    """Another day, or a month that ended, has no answer; its look-back may go."""
    oracle = opened(1)
    with pytest.raises(InvalidPlanError):
        counted(oracle, 1)
    oracle.purge_before(FIRST + dt.timedelta(days=9))
    assert [[2, 1], [1, 0]] == counted(oracle)
    assert 2 == len(oracle.pairs)
    oracle.end_month(MONTH)
    with pytest.raises(InvalidPlanError):
        counted(oracle)
    oracle.purge_before(FIRST + dt.timedelta(days=9))

    assert frozenset() == oracle.pairs
