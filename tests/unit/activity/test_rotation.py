"""Moving rows from aliases to the current pseudonym."""

import datetime as dt
from collections.abc import Callable

from dpdau.activity.embedded import EmbeddedStore
from dpdau.domain import Event, Op, Segment, day_number
from strategies import batch

FIRST = dt.date(2026, 1, 1)
DAY = day_number(FIRST)

Open = Callable[..., EmbeddedStore]


def put(who: int, offset: int = 0) -> Event:
    """A `+`."""
    return Event(who, Op.ADD, DAY + offset)


def count(store: EmbeddedStore, segment: str | None = None) -> list[int]:
    """Two days of a two-day window."""
    asked = None if segment is None else Segment("platform", segment)
    last = FIRST + dt.timedelta(days=1)
    return store.counts(first=FIRST, last=last, window_days=(2,), segment=asked)[0].tolist()


def test_two_aliases_with_rows_become_one_user(open_store: Open) -> None:
    """Rows under several older keys meet under the current one, with the oldest key's label."""
    store = open_store()
    store.apply(batch([(put(1), {"platform": "web"}), (put(2, 1), {"platform": "ios"})]))
    store.apply(batch([put(3, 1)], alias=lambda _who: [2, 1]))

    assert [1, 1] == count(store)
    assert [1, 1] == count(store, "web")
    assert [0, 0] == count(store, "ios")


def test_an_alias_without_rows_moves_nothing(open_store: Open) -> None:
    """New users, and users that moved before, only get their event."""
    store = open_store()
    for _ in range(3):
        store.apply(batch([put(3), put(4)], alias=lambda who: [who + 100]))

    assert [2, 2] == count(store)


def test_a_removal_after_the_rotation_finds_the_earlier_day(open_store: Open) -> None:
    """A `-` under the new key takes out what came under the old one."""
    store = open_store()
    store.apply(batch([put(1), put(2)]))
    store.apply(batch([Event(11, Op.REMOVE, DAY)], alias=lambda _who: [1]))

    assert [1, 1] == count(store)


def test_an_alias_that_is_the_pseudonym_is_left_alone(open_store: Open) -> None:
    """A key that did not change moves nothing."""
    store = open_store()
    store.apply(batch([(put(1), {"platform": "web"})]))
    store.apply(batch([put(1, 1)], alias=lambda who: [who]))

    assert [1, 1] == count(store, "web")


def test_a_duplicate_event_moves_nothing(open_store: Open) -> None:
    """An event that is skipped has no effect at all."""
    store = open_store()
    store.apply(batch([Event(1, Op.ADD, DAY, event_id=5)]))
    store.apply(batch([Event(9, Op.ADD, DAY, event_id=5)], alias=lambda _who: [1]))

    assert 1 == store.forget([1])
