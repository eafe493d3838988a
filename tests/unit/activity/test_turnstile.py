"""The fold that every store is held to, checked by hand."""

import datetime as dt

from dpdau.activity.turnstile import Turnstile, fold
from dpdau.domain import Event, Op, Segment, day_number

DAY = dt.date(2026, 1, 31)
T = day_number(DAY)


def put(who: int, offset: int = 0) -> Event:
    """A `+` some days after the first."""
    return Event(who, Op.ADD, T + offset)


def take(who: int, offset: int = 0) -> Event:
    """A `-` some days after the first."""
    return Event(who, Op.REMOVE, T + offset)


def count(state: Turnstile, days: int, window: int, segment: Segment | None = None) -> list[int]:
    """The counts of one window on some days."""
    last = DAY + dt.timedelta(days=days - 1)
    return state.counts(first=DAY, last=last, window_days=[window], segment=segment)[0].tolist()


def test_the_last_event_decides() -> None:
    """A pair is in when its last event is `+`; repeating changes nothing."""
    assert frozenset({(1, T)}) == fold([take(1), put(1), put(1)]).pairs
    assert frozenset() == fold([put(1), take(1), take(1)]).pairs


def test_windows_trail() -> None:
    """A user counts on each day whose window reaches back to an active day, once."""
    state = fold([put(1), put(1, 1), put(2, 2)])

    assert [1, 1, 1, 0] == count(state, 4, 1)
    assert [1, 1, 2, 1] == count(state, 4, 2)


def test_growth_puts_each_user_in_one_cell() -> None:
    """New, retained, resurrected, churned: by hand, with two users of the second and none twice."""
    state = fold(
        [
            put(1, 9),
            *(put(2, 9), put(2, 6)),
            *(put(3, 8), put(3, 7), put(3, 0)),
            *(put(4, 9), put(4, 5)),
            put(5, 7),
            put(6, 5),
            *(put(7, 9), take(7, 9)),
            put(8, 10),
        ]
    )
    end = DAY + dt.timedelta(days=9)

    assert [1, 2, 1, 1] == state.growth(end, window_days=2).tolist()


def test_the_first_label_of_a_month_stays() -> None:
    """A second value, and the label of another month, do not move earlier days."""
    state = fold(
        [
            (put(1), {"platform": "ios"}),
            (put(1), {"platform": "web"}),
            (put(1, 1), {"platform": "web"}),
        ]
    )

    assert [1, 0] == count(state, 2, 1, Segment("platform", "ios"))
    assert [0, 1] == count(state, 2, 1, Segment("platform", "web"))
    assert [1, 1] == count(state, 2, 2, Segment("platform", "ios"))


def test_a_removal_sets_no_label() -> None:
    """Only `+` labels, and a label outlives the activity that brought it."""
    state = fold([(take(1), {"platform": "web"}), (put(1), {"platform": "ios"}), take(1), put(1)])

    assert [1] == count(state, 1, 1, Segment("platform", "ios"))


def test_erasure_takes_pairs_and_labels() -> None:
    """An erased user who returns is labeled afresh."""
    state = fold([(put(1), {"platform": "ios"}), put(1, 1), put(2)])

    assert 2 == state.erase([1])
    state.update(put(1), {"platform": "web"})
    assert [0, 1] == [count(state, 1, 1, Segment("platform", value))[0] for value in ("ios", "web")]


def test_a_renamed_user_is_the_same_user() -> None:
    """Renaming moves pairs and labels and changes no count."""
    state = fold([(put(1), {"platform": "ios"}), put(2)])
    before = count(state, 1, 1), count(state, 1, 1, Segment("platform", "ios"))
    state.rename(1, 9)

    assert before == (count(state, 1, 1), count(state, 1, 1, Segment("platform", "ios")))
    assert frozenset({(9, T), (2, T)}) == state.pairs


def test_purging_keeps_later_days_and_their_month() -> None:
    """Days before the limit go; labels go with months that ended before it."""
    state = fold([(put(1), {"platform": "ios"}), (put(1, 1), {"platform": "web"})])
    state.purge_before(DAY + dt.timedelta(days=1))

    assert [0, 1] == count(state, 2, 1)
    assert [0, 1] == count(state, 2, 1, Segment("platform", "web"))
