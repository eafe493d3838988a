"""What every `ActivityStore` promises of open months: at each freeze, the oracle's answers."""

import datetime as dt
import itertools
from collections.abc import Mapping, Sequence

import pytest
from hypothesis import HealthCheck, event, given, settings
from hypothesis import strategies as st

from dpdau.activity.frozen import FrozenTurnstile
from dpdau.activity.store import ActivityStore
from dpdau.domain import Event, Op, Segment, day_number
from dpdau.errors import InvalidPlanError
from stores import Stores
from strategies import DIMENSION_VALUES, LabeledEvent, batch, dimension_labels

MONTH, NEXT = "2026-02", "2026-03"
FIRST = dt.date(2026, 2, 1)
LOOKBACK_DAYS = 30
DAYS = 6
"""How many days of the month a stream may touch and fix."""
WINDOWS = (7, LOOKBACK_DAYS, 1)
SEGMENTS = [Segment(name, value) for name, some in DIMENSION_VALUES.items() for value in some]
OFFSETS = (-40, -30, -29, -28, -25, -7, -1, *range(DAYS))
"""Days relative to the month: outside the look-back, its first day, a page edge, the month."""
USERS = 4

Sent = tuple[int, bool, int, int, Mapping[str, str]]
"""(user, add, offset, event id, labels)."""


@pytest.fixture
def make(stores: Stores) -> Stores:
    """Makes empty stores of one implementation."""
    return stores


def sent_events() -> st.SearchStrategy[Sent]:
    """One event of a few users; every third has an id that others may have as well."""
    return st.tuples(
        st.integers(0, USERS - 1),
        st.booleans(),
        st.sampled_from(OFFSETS),
        st.sampled_from([0, 0, 0, 0, 1, 2]),
        dimension_labels(),
    )


def actions() -> st.SearchStrategy[tuple[str, object]]:
    """One thing that may happen to a store."""
    batches = st.tuples(st.just("batch"), st.lists(sent_events(), min_size=1, max_size=4))
    freezes = st.tuples(st.just("freeze"), st.none())
    erasures = st.tuples(st.just("erase"), st.integers(0, USERS - 1))
    rotations = st.tuples(st.just("rotate"), st.none())
    purges = st.tuples(st.just("purge"), st.sampled_from([-20, 0, 3]))
    return st.one_of(batches, batches, freezes, batches, freezes, erasures, rotations, purges)


class Driver:
    """Does the same to a store, under rotating keys, and to the oracle, which knows users."""

    def __init__(self, store: ActivityStore) -> None:
        self.store = store
        self.oracle = FrozenTurnstile()
        self._epoch = 0
        self._seen: set[int] = set()
        self._fixed = 0
        for month, lookback in ((MONTH, LOOKBACK_DAYS), (NEXT, 7)):
            for one in (self.store, self.oracle):
                one.open_month(month, lookback_days=lookback, dimensions=tuple(DIMENSION_VALUES))

    def batch(self, sent: Sequence[Sent]) -> None:
        """Sends events; the oracle skips those whose id it has seen."""
        stream: list[LabeledEvent] = []
        for user, add, offset, event_id, labels in sent:
            op = Op.ADD if add else Op.REMOVE
            day = day_number(FIRST) + offset
            stream.append((Event(_name(user, self._epoch), op, day, event_id), labels))
            if event_id == 0 or event_id not in self._seen:
                self.oracle.update(Event(user, op, day), labels)
                self._seen.add(event_id)
        self.store.apply(batch(stream, alias=self._older))

    def freeze(self, _nothing: object) -> None:
        """Fixes the next day and compares."""
        if self._fixed < DAYS:
            day = FIRST + dt.timedelta(days=self._fixed)
            self._fixed += 1
            for one in (self.store, self.oracle):
                one.freeze(MONTH, day)
            self.compare()

    def erase(self, user: int) -> None:
        """Forgets a user under every live key."""
        self.oracle.erase([user])
        self.store.forget([_name(user, epoch) for epoch in range(self._epoch + 1)])

    def rotate(self, _nothing: object) -> None:
        """Takes a new key; the oracle does not notice."""
        self._epoch += 1

    def purge(self, offset: int) -> None:
        """Drops what is older than a day."""
        for one in (self.store, self.oracle):
            one.purge_before(FIRST + dt.timedelta(days=offset))

    def compare(self) -> None:
        """Every fixed day counts as in the oracle, for everyone and for each segment."""
        for number in range(self._fixed):
            day = FIRST + dt.timedelta(days=number)
            asked = {"window_days": WINDOWS, "segments": SEGMENTS}
            expected = self.oracle.contributions(MONTH, day, **asked)
            actual = self.store.contributions(MONTH, day, **asked)
            assert expected.tolist() == actual.tolist()

    def _older(self, name: int) -> list[int]:
        """The same user under the older keys, newest first."""
        user = next(one for one in range(USERS) if _name(one, self._epoch) == name)
        return [_name(user, epoch) for epoch in range(self._epoch)][::-1]


def _name(user: int, epoch: int) -> int:
    """A user's pseudonym under a key, spread over the parts."""
    return (1 + user + USERS * epoch) * 0x9E3779B97F4A7C15 % 2**64


def test_contributions_equal_the_oracle(make: Stores) -> None:
    """Whatever comes late, is taken back, erased or renamed, a fixed day counts as when fixed."""

    @settings(max_examples=make.examples(40), suppress_health_check=list(HealthCheck))
    @given(stream=st.lists(actions(), min_size=4, max_size=24))
    def check(stream: list[tuple[str, object]]) -> None:
        driver = Driver(make())
        for verb, what in stream:
            getattr(driver, verb)(what)
        for verb in {verb for verb, _ in stream}:
            event(verb)
        driver.freeze(None)
        driver.compare()
        driver.store.end_month(MONTH)
        with pytest.raises(InvalidPlanError):
            driver.store.contributions(MONTH, FIRST, window_days=WINDOWS)
        driver.store.close()

    check()


def put(who: int, offset: int, *, event_id: int = 0) -> Event:
    """A `+`, relative to the first day of the month."""
    return Event(who, Op.ADD, day_number(FIRST) + offset, event_id)


def take(who: int, offset: int, *, event_id: int = 0) -> Event:
    """A `-`, relative to the first day of the month."""
    return Event(who, Op.REMOVE, day_number(FIRST) + offset, event_id)


def opened(store: ActivityStore, days: int = 0, **named: object) -> ActivityStore:
    """A store whose month is open, with some fixed days."""
    store.open_month(MONTH, lookback_days=LOOKBACK_DAYS, **named)  # type: ignore[arg-type]
    for offset in range(days):
        store.freeze(MONTH, FIRST + dt.timedelta(days=offset))
    return store


def counted(store: ActivityStore, offset: int, *segments: Segment) -> list[list[int]]:
    """(week, month, day) for everyone and each segment."""
    day = FIRST + dt.timedelta(days=offset)
    return store.contributions(MONTH, day, window_days=WINDOWS, segments=segments).tolist()


def test_a_fixed_day_stays_while_the_truth_moves(make: Stores) -> None:
    """Late events correct the counts, and nothing that the month has fixed."""
    store = make()
    store.apply(batch([put(1, 0), put(2, -3)]))
    opened(store, 1)
    store.apply(batch([take(1, 0), put(3, 0), take(2, -3), put(3, 1)]))

    true = store.counts(first=FIRST, last=FIRST, window_days=WINDOWS)
    assert [[1], [1], [1]] == true.tolist()
    assert [[2, 2, 1]] == counted(store, 0)
    store.freeze(MONTH, FIRST + dt.timedelta(days=1))
    assert [[3, 3, 1]] == counted(store, 1)


def test_the_value_before_the_batch_is_held(make: Stores) -> None:
    """Several late events for one day in one batch leave the day as it was before the batch."""
    store = make()
    store.apply(batch([put(1, 0)]))
    opened(store, 1)
    store.apply(batch([take(1, 0), put(1, 0), take(1, 0), put(2, 0), take(2, 0), put(2, 0)]))
    store.apply(batch([put(1, 0), take(2, 0)]))
    store.apply(batch([take(1, 0), put(2, 0)]))

    assert [[1, 1, 1]] == counted(store, 0)


def test_a_duplicate_holds_nothing(make: Stores) -> None:
    """An event that is skipped changes neither the activity nor the month."""
    store = make()
    store.apply(batch([put(1, 0, event_id=9)], batch_id="a"))
    opened(store, 1)
    before = store.stats()
    store.apply(batch([take(1, 0, event_id=9)]))
    store.apply(batch([take(1, 0)], batch_id="a"))

    assert [[1, 1, 1]] == counted(store, 0)
    assert before.rows == store.stats().rows


def test_an_erased_user_stays_out(make: Stores) -> None:
    """Also after coming back, on fixed days and later ones, under the old and a new key."""
    store = make()
    store.apply(batch([put(1, 0), put(2, 0)]))
    opened(store, 1)
    store.forget([1])
    assert [[1, 1, 1]] == counted(store, 0)
    store.apply(batch([put(1, 0), put(1, 1), put(3, 1)]))
    store.freeze(MONTH, FIRST + dt.timedelta(days=1))
    assert [[2, 2, 1]] == counted(store, 1)
    store.apply(batch([put(11, 1), put(11, 2)], alias=lambda _who: [1]))
    store.freeze(MONTH, FIRST + dt.timedelta(days=2))

    assert [[2, 2, 0]] == counted(store, 2)


def test_a_label_stays_for_the_month(make: Stores) -> None:
    """The label of the first contribution counts; who had none then is in no segment."""
    store, web, ios = make(), Segment("platform", "web"), Segment("platform", "ios")
    label = {"platform": "web"}, {"platform": "ios"}
    store.apply(batch([(put(1, -3), label[0]), (put(2, -2), {}), (put(3, -40), label[1])]))
    opened(store, 1, dimensions=["platform"])
    assert [[2, 2, 0], [1, 1, 0], [0, 0, 0]] == counted(store, 0, web, ios)
    store.apply(batch([(put(who, 1), label[1]) for who in (1, 2, 3)]))
    store.freeze(MONTH, FIRST + dt.timedelta(days=1))

    assert [[3, 3, 3], [1, 1, 1], [1, 1, 1]] == counted(store, 1, web, ios)
    assert [[0, 0, 0]] == counted(store, 1, Segment("platform", "tv"))[1:]


def test_the_latest_label_counts(make: Stores) -> None:
    """Of the months of the look-back and this one, the latest with a label gives it."""
    store, web, ios = make(), Segment("platform", "web"), Segment("platform", "ios")
    for offset, value in ((-5, "web"), (3, "ios")):
        store.apply(batch([(put(1, offset), {"platform": value})]))
    store.apply(batch([(put(2, -5), {"platform": "web"})]))
    opened(store, 1, dimensions=["platform"])

    assert [[2, 2, 0], [1, 1, 0], [1, 1, 0]] == counted(store, 0, web, ios)


def test_days_are_fixed_in_order(make: Stores) -> None:
    """A day again is no work; a day ahead, of another month or of no open month is refused."""
    store = make()
    days = [FIRST + dt.timedelta(days=number) for number in range(28)]
    with pytest.raises(InvalidPlanError):
        store.freeze(MONTH, days[0])
    opened(store)
    assert store.frozen_through(MONTH) is None
    for wrong in (days[1], FIRST - dt.timedelta(days=1), dt.date(2026, 3, 1)):
        with pytest.raises(InvalidPlanError):
            store.freeze(MONTH, wrong)
    for day in days:
        store.freeze(MONTH, day)
        store.freeze(MONTH, days[0])
        assert day == store.frozen_through(MONTH)

    assert frozenset(days) == store.closed_days(FIRST, dt.date(2026, 3, 31))


def test_a_month_is_opened_once(make: Stores) -> None:
    """Opening again is no work, with other arguments or after the end it is refused."""
    store = opened(make(), 1, dimensions=["platform", "country"])
    opened(store, dimensions=["country", "platform"])
    for lookback, dimensions in ((28, ["platform", "country"]), (30, ["platform"]), (30, [])):
        with pytest.raises(InvalidPlanError):
            store.open_month(MONTH, lookback_days=lookback, dimensions=dimensions)
    assert FIRST == store.frozen_through(MONTH)
    store.end_month(MONTH)
    store.end_month(MONTH)

    for call in (lambda: opened(store), lambda: store.freeze(MONTH, FIRST)):
        with pytest.raises(InvalidPlanError, match="ended"):
            call()


def test_what_cannot_be_asked_is_refused(make: Stores) -> None:
    """A day that is not fixed, a window over the look-back, another dimension, a wrong month."""
    store = opened(make(), 1, dimensions=["platform"])
    for call in (
        lambda: counted(store, 1),
        lambda: counted(store, -1),
        lambda: counted(store, 0, Segment("country", "de")),
        lambda: store.contributions(MONTH, FIRST, window_days=[31]),
        lambda: store.contributions(NEXT, FIRST, window_days=[1]),
        lambda: store.open_month("2026-13", lookback_days=30),
        lambda: store.open_month("0001-01", lookback_days=30),
        lambda: store.open_month(NEXT, lookback_days=65),
        lambda: store.open_month(NEXT, lookback_days=30, dimensions=["a", "a"]),
    ):
        with pytest.raises(InvalidPlanError):
            call()
    assert (1, 0) == store.contributions(MONTH, FIRST, window_days=()).shape


def test_a_secret_is_stored_once(make: Stores) -> None:
    """The first secret of an open month stays until the month ends."""
    store = make()
    for body in (b"first", b""):
        with pytest.raises(InvalidPlanError):
            store.put_secret(MONTH, body)
    opened(store)
    assert store.secret(MONTH) is None
    assert [b"first"] * 2 == [store.put_secret(MONTH, body) for body in (b"first", b"second")]
    assert b"first" == store.secret(MONTH)
    store.end_month(MONTH)

    assert store.secret(MONTH) is None
    with pytest.raises(InvalidPlanError):
        store.put_secret(MONTH, b"third")


def test_two_open_months_keep_their_own_view(make: Stores) -> None:
    """A day that one month has fixed and the other has not moves in the other alone."""
    store = make()
    store.open_month("2026-01", lookback_days=30)
    opened(store, 0)
    january = [dt.date(2026, 1, 1) + dt.timedelta(days=number) for number in range(31)]
    for day in january:
        store.freeze("2026-01", day)
    store.apply(batch([put(1, -1)]))
    store.freeze(MONTH, FIRST)
    last = store.contributions("2026-01", january[-1], window_days=WINDOWS)

    assert [[0, 0, 0]] == last.tolist()
    assert [[1, 1, 0]] == counted(store, 0)
    store.end_month("2026-01")
    assert [[1, 1, 0]] == counted(store, 0)


def test_a_purge_leaves_what_an_open_month_counts(make: Stores) -> None:
    """The look-back of an open month stays until it ends, then it goes."""
    store = make()
    store.apply(batch([put(1, -29), put(2, -30)]))
    opened(store, 1)
    late = FIRST + dt.timedelta(days=20)
    before = FIRST - dt.timedelta(days=30)
    store.purge_before(late)
    assert [[0, 1, 0]] == counted(store, 0)
    assert [0, 1] == _daily(store, before)
    store.end_month(MONTH)
    store.purge_before(late)

    assert [0, 0] == _daily(store, before)


def _daily(store: ActivityStore, first: dt.date) -> list[int]:
    """The daily counts of two days."""
    last = first + dt.timedelta(days=1)
    return list(itertools.chain(*store.counts(first=first, last=last, window_days=[1]).tolist()))
