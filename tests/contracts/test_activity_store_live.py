"""What every `LiveStore` promises of a live day: after each batch, the oracle's count."""

import datetime as dt
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from dpdau.activity.embedded import EmbeddedStore
from dpdau.activity.live_turnstile import LiveTurnstile
from dpdau.domain import Event, Op, day_number
from dpdau.errors import InvalidPlanError
from strategies import batch

MONTH, NEXT = "2026-02", "2026-03"
FIRST = dt.date(2026, 2, 26)
DAYS = 4
"""The stream runs from the 26th of February to the 1st of March; page 321 begins on the 27th."""
USERS = 4

Sent = tuple[int, bool, int]
"""(user, add, offset from the live day)."""


def actions() -> st.SearchStrategy[tuple[str, object]]:
    """One thing that may happen to a store."""
    sent = st.tuples(st.integers(0, USERS - 1), st.booleans(), st.sampled_from([0, 0, 0, 0, -1, 1]))
    batches = st.tuples(st.just("batch"), st.lists(sent, min_size=1, max_size=4))
    erasures = st.tuples(st.just("erase"), st.integers(0, USERS - 1))
    turns = st.tuples(st.sampled_from(["rotate", "begin", "purge", "again"]), st.none())
    return st.one_of(batches, batches, batches, erasures, turns)


class Driver:
    """Does the same to a store, under rotating keys, and to the oracle, which knows users."""

    def __init__(self, store: EmbeddedStore) -> None:
        self.store = store
        self.oracle = LiveTurnstile()
        self._epoch = 0
        self._offset = -1
        for month in (MONTH, NEXT):
            store.live.open(month)
        self.begin(None)

    @property
    def today(self) -> dt.date:
        """The live day."""
        return FIRST + dt.timedelta(days=self._offset)

    def batch(self, sent: Sequence[Sent]) -> None:
        """Sends events."""
        stream = []
        for user, add, offset in sent:
            op, day = Op.ADD if add else Op.REMOVE, day_number(self.today) + offset
            stream.append(Event(_name(user, self._epoch), op, day))
            self.oracle.update(Event(user, op, day))
        self.oracle.settle()
        self.store.apply(batch(stream, alias=self._older))

    def begin(self, _nothing: object) -> None:
        """The next day is the live one."""
        if self._offset + 1 < DAYS:
            self._offset += 1
            self.oracle.begin(self.today)
            self.store.live.begin(self.today)

    def again(self, _nothing: object) -> None:
        """What is idempotent, once more."""
        self.store.live.begin(self.today)
        self.store.live.end(self.today)

    def erase(self, user: int) -> None:
        """Forgets a user under every live key."""
        self.oracle.erase([user])
        self.store.forget([_name(user, epoch) for epoch in range(self._epoch + 1)])

    def rotate(self, _nothing: object) -> None:
        """Takes a new key; the oracle does not notice."""
        self._epoch += 1

    def purge(self, _nothing: object) -> None:
        """Drops what is older than the day after the live one."""
        day = self.today + dt.timedelta(days=1)
        self.oracle.purge_before(day)
        self.store.purge_before(day)

    def _older(self, name: int) -> list[int]:
        """The same user under the older keys, newest first."""
        user = next(one for one in range(USERS) if _name(one, self._epoch) == name)
        return [_name(user, epoch) for epoch in range(self._epoch)][::-1]


def _name(user: int, epoch: int) -> int:
    """A user's pseudonym under a key, spread over the parts."""
    return (1 + user + USERS * epoch) * 0x9E3779B97F4A7C15 % 2**64


@settings(max_examples=40, suppress_health_check=list(HealthCheck), deadline=None)
@given(stream=st.lists(actions(), min_size=4, max_size=24))
def test_the_live_count_equals_the_oracle(
    make: Callable[[], EmbeddedStore], stream: list[tuple[str, object]]
) -> None:
    """Whatever is added, taken back, erased or renamed, each prefix counts as in the oracle."""
    driver = Driver(make())
    for verb, what in stream:
        getattr(driver, verb)(what)
        assert driver.oracle.count() == driver.store.live.count(driver.today), (verb, what)
    driver.store.close()


def put(who: int, day: dt.date = FIRST) -> Event:
    """A `+`."""
    return Event(who, Op.ADD, day_number(day))


def take(who: int, day: dt.date = FIRST) -> Event:
    """A `-`."""
    return Event(who, Op.REMOVE, day_number(day))


def begun(store: EmbeddedStore, day: dt.date = FIRST) -> EmbeddedStore:
    """A store with a live day."""
    store.live.open(MONTH)
    store.live.begin(day)
    return store


def test_who_left_the_day_stays_out_of_it(make: Callable[[], EmbeddedStore]) -> None:
    """A `-` or an erasure takes a user out of the live count until the day is over; not of DAU."""
    store = begun(make())
    store.apply(batch([put(1), put(2), put(3)]))
    counts = [store.live.count(FIRST)]
    store.apply(batch([take(1)]))
    store.forget([2])
    counts.append(store.live.count(FIRST))
    store.apply(batch([put(1), put(2)]))
    counts.append(store.live.count(FIRST))

    true = store.counts(first=FIRST, last=FIRST, window_days=[1])
    assert [3, 1, 1] == counts
    assert [[3]] == true.tolist()


def test_a_day_that_is_begun_knows_nobody_who_left(make: Callable[[], EmbeddedStore]) -> None:
    """Who was out yesterday counts today; only the live day is counted."""
    store, later = begun(make()), FIRST + dt.timedelta(days=1)
    store.apply(batch([put(1), put(1, later)]))
    store.apply(batch([take(1)]))
    store.live.begin(later)

    assert 1 == store.live.count(later)
    for wrong in (FIRST, later + dt.timedelta(days=1)):
        with pytest.raises(InvalidPlanError):
            store.live.count(wrong)
    with pytest.raises(InvalidPlanError):
        store.live.begin(FIRST)


def test_a_removal_before_the_day_began_counts_for_nothing(
    make: Callable[[], EmbeddedStore],
) -> None:
    """Only what leaves while the day is live is out; and what was never in cannot leave."""
    store = make()
    store.apply(batch([put(1)]))
    store.apply(batch([take(1)]))
    begun(store)
    store.apply(batch([take(1), take(2)]))
    store.apply(batch([put(1), put(2)]))

    assert 2 == store.live.count(FIRST)


def test_a_month_keeps_its_secret_to_its_end(make: Callable[[], EmbeddedStore]) -> None:
    """The first secret stays; at the end of the month it is gone, and the month stays ended."""
    store = begun(make())
    kept = [store.live.put_secret(MONTH, body) for body in (b"one", b"two")]
    store.live.end(dt.date(2026, 2, 28))
    before = store.live.secret(MONTH)
    store.live.end(dt.date(2026, 3, 1))
    store.live.end(dt.date(2026, 3, 1))

    assert [b"one", b"one"] == kept
    assert (b"one", None) == (before, store.live.secret(MONTH))
    for refused in (
        lambda: store.live.open(MONTH),
        lambda: store.live.begin(FIRST),
        lambda: store.live.count(FIRST),
        lambda: store.live.put_secret(MONTH, b"three"),
        lambda: store.live.put_secret(NEXT, b"not opened"),
        lambda: store.live.begin(dt.date(2026, 3, 1)),
        lambda: store.live.put_secret(NEXT, b""),
    ):
        with pytest.raises(InvalidPlanError):
            refused()


@pytest.mark.parametrize("make", ["plain"], indirect=True)
def test_what_was_kept_of_a_day_is_in_no_file_after_it(
    folder: Path, make: Callable[[], EmbeddedStore]
) -> None:
    """When the day is over no file under the store names who left it, or holds the secret."""
    store = begun(make())
    name = 0x1122334455667788
    store.apply(batch([put(name)]))
    store.live.put_secret(MONTH, b"a secret of the month")
    store.forget([name])

    def holders(text: bytes) -> list[str]:
        return [one.name for one in folder.rglob("*") if one.is_file() and text in one.read_bytes()]

    during = holders(name.to_bytes(8, "little"))
    store.live.end(dt.date(2026, 3, 1))

    assert [] != during
    assert [] == holders(name.to_bytes(8, "little")) + holders(b"a secret of the month")


def test_only_removals_of_the_live_day_are_looked_up(
    make: Callable[[], EmbeddedStore], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Additions, and removals of other days, cost no read of the store."""
    store = begun(make())
    store.apply(batch([put(1)]))
    asked: list[object] = []
    real = store._access.read
    monkeypatch.setattr(store._access, "read", lambda *some: asked.append(some) or real(*some))
    store.apply(batch([put(1), put(2), take(1, FIRST - dt.timedelta(days=3))]))
    free = len(asked)
    store.apply(batch([take(1)]))

    assert (0, 1) == (free, len(asked))


def test_a_day_that_is_over_is_never_live_again(make: Callable[[], EmbeddedStore]) -> None:
    """A clock that went back does not let those in who left the day."""
    store = begun(make())
    today = FIRST
    store.live.end(today + dt.timedelta(days=1))
    for _ in range(2):
        with pytest.raises(InvalidPlanError, match="live"):
            store.live.begin(today)
    store.live.begin(today + dt.timedelta(days=1))
    with pytest.raises(InvalidPlanError):
        store.live.begin(today)
