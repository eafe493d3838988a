"""What every `ActivityStore` promises of `apply_many`: the outcome of `apply` on each in turn."""

import datetime as dt
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import pytest
from hypothesis import HealthCheck, event, given, settings
from hypothesis import strategies as st

from dpdau.activity import folding
from dpdau.activity.embedded import EmbeddedStore
from dpdau.activity.frozen import FrozenTurnstile
from dpdau.activity.live_turnstile import LiveTurnstile
from dpdau.activity.store import ActivityStore, Applied
from dpdau.activity.turnstile import Turnstile
from dpdau.domain import Event, EventBatch, Op, Segment, day_date, day_number, month_of
from dpdau.errors import StoreUnavailableError
from stores import Stores
from strategies import DIMENSION_VALUES, batch, columns, dimension_labels

FIRST = dt.date(2026, 2, 1)
MONTH = month_of(FIRST)
DAY = day_number(FIRST)
LIVE = FIRST + dt.timedelta(days=5)
OFFSETS = (-70, -3, 0, 1, 5, 5, 5, 5)
WINDOWS = (1, 7, 64)
SEGMENTS = [Segment(name, value) for name, some in DIMENSION_VALUES.items() for value in some]
USERS = 2

Sent = tuple[int, bool, int, int, Mapping[str, str]]
"""(user, add, offset, event id, labels)."""


@dataclass(frozen=True)
class SentBatch:
    """One batch: its events, whether a rotation comes before it, its id and its offset."""

    events: Sequence[Sent]
    rotated: bool
    batch_id: str | None
    offset: int


def sent_batches() -> st.SearchStrategy[SentBatch]:
    """A small batch; ids of events and batches repeat, and sometimes a key was rotated before."""
    sent = st.tuples(
        st.integers(0, USERS - 1),
        st.booleans(),
        st.sampled_from(OFFSETS),
        st.sampled_from([0, 0, 0, 1, 2, 3]),
        dimension_labels(),
    )
    return st.builds(
        SentBatch,
        events=st.lists(sent, max_size=3),
        rotated=st.sampled_from([False, False, False, True]),
        batch_id=st.sampled_from([None, None, None, "a", "b"]),
        offset=st.integers(0, 9),
    )


def groups() -> st.SearchStrategy[list[tuple[str, list[SentBatch]]]]:
    """Groups of batches, each followed by something else that may happen to a store."""
    verbs = st.sampled_from(["nothing", "freeze", "close", "erase"])
    return st.lists(st.tuples(verbs, st.lists(sent_batches(), max_size=5)), max_size=6)


class Driver:
    """Gives the same batches to a store group by group, to another one by one, and to oracles."""

    def __init__(self, grouped: ActivityStore, single: ActivityStore) -> None:
        self._grouped, self._single = grouped, single
        self._frozen = FrozenTurnstile()
        self._oracles: list[Turnstile] = [self._frozen]
        self._epoch = self._fixed = 0
        self._closed: set[int] = set()
        self._events_seen: set[int] = {0}
        self._batches_seen: set[str | None] = set()
        self._offset: int | None = None
        for one in (grouped, single, self._frozen):
            one.open_month(MONTH, lookback_days=30, dimensions=tuple(DIMENSION_VALUES))

    def group(self, sent: Sequence[SentBatch]) -> None:
        """Applies a group; the outcome of each batch is that of the oracle and of the other."""
        built = [self._build(one) for one in sent]
        expected = [self._told(one) for one in sent]

        assert expected == self._grouped.apply_many(built)
        assert expected == [self._single.apply(one) for one in built]

    def freeze(self) -> None:
        """Fixes the next day of the month."""
        if self._fixed < 4:
            day = FIRST + dt.timedelta(days=self._fixed)
            self._fixed += 1
            self._closed.add(day_number(day))
            for one in (self._grouped, self._single, self._frozen):
                one.freeze(MONTH, day)

    def close(self) -> None:
        """Marks a day as released."""
        self._closed.add(DAY - 3)
        for store in (self._grouped, self._single):
            store.close_day(day_date(DAY - 3))

    def erase(self) -> None:
        """Forgets the first user under every key."""
        for oracle in self._oracles:
            oracle.erase([0])
        for store in (self._grouped, self._single):
            store.forget([_name(0, epoch) for epoch in range(self._epoch + 1)])

    def nothing(self) -> None:
        """Leaves the store alone."""

    def check(self) -> None:
        """Every count is that of the oracles."""
        asked = {"first": FIRST - dt.timedelta(days=71), "last": LIVE, "window_days": WINDOWS}
        for segment in (None, *SEGMENTS):
            expected = self._frozen.counts(**asked, segment=segment).tolist()
            assert expected == self._grouped.counts(**asked, segment=segment).tolist()
        for number in range(self._fixed):
            day = FIRST + dt.timedelta(days=number)
            what = {"window_days": (1, 7, 30), "segments": SEGMENTS}
            expected = self._frozen.contributions(MONTH, day, **what).tolist()
            assert expected == self._grouped.contributions(MONTH, day, **what).tolist()
        assert self._offset == self._grouped.offset("source")

    def _build(self, sent: SentBatch) -> EventBatch:
        """The columns of a batch under the keys that are live by then."""
        self._epoch += sent.rotated
        names = {_name(user, self._epoch): user for user in range(USERS)}
        stream = [
            (Event(_name(user, self._epoch), _op(add), DAY + offset, event_id), labels)
            for user, add, offset, event_id, labels in sent.events
        ]
        return batch(
            stream,
            batch_id=sent.batch_id,
            offsets={"source": sent.offset},
            alias=lambda name: [_name(names[name], one) for one in range(self._epoch)][::-1],
        )

    def _told(self, sent: SentBatch) -> Applied:
        """What the oracles say of a batch."""
        count = len(sent.events)
        if sent.batch_id is not None and sent.batch_id in self._batches_seen:
            return Applied(accepted=0, duplicate=count, late=0)
        self._batches_seen.add(sent.batch_id)
        self._offset = sent.offset
        duplicate = late = 0
        for user, add, offset, event_id, labels in sent.events:
            if event_id and event_id in self._events_seen:
                duplicate += 1
                continue
            self._events_seen.add(event_id)
            late += DAY + offset in self._closed
            for oracle in self._oracles:
                oracle.update(Event(user, _op(add), DAY + offset), labels)
        self._settle()
        return Applied(accepted=count - duplicate - late, duplicate=duplicate, late=late)

    def _settle(self) -> None:
        """A batch is over."""


class LiveDriver(Driver):
    """Counts a day live as well."""

    def __init__(self, grouped: ActivityStore, single: ActivityStore) -> None:
        super().__init__(grouped, single)
        self._live = LiveTurnstile()
        self._oracles.append(self._live)
        for store in (grouped, single):
            store.live.open(MONTH)
            store.live.begin(LIVE)
        self._live.begin(LIVE)

    def check(self) -> None:
        """Every count is that of the oracles, the live one too."""
        super().check()
        assert self._live.count() == self._grouped.live.count(LIVE)

    def _settle(self) -> None:
        self._live.settle()


def _op(add: bool) -> Op:
    return Op.ADD if add else Op.REMOVE


def _name(user: int, epoch: int) -> int:
    """A user's pseudonym under a key, spread over the parts."""
    return (1 + user + USERS * epoch) * 0x9E3779B97F4A7C15 % 2**64


KINDS = {"plain": LiveDriver, "encrypted": LiveDriver, "lake": Driver}
"""What drives the stores of each implementation: a lake is not counted live."""


@pytest.mark.parametrize(("stores", "driver"), KINDS.items(), indirect=["stores"], ids=KINDS)
def test_groups_equal_batches_one_by_one(stores: Stores, driver: type[Driver]) -> None:
    """However batches are grouped, each outcome and each prefix is that of the oracles."""

    @settings(max_examples=stores.examples(30), suppress_health_check=list(HealthCheck))
    @given(stream=groups())
    def check(stream: list[tuple[str, list[SentBatch]]]) -> None:
        one = driver(stores(), stores())
        for verb, group in stream:
            event(f"rotations in a group: {sum(some.rotated for some in group[1:])}")
            one.group(group)
            one.check()
            getattr(one, verb)()
            one.check()

    check()


def test_a_rotation_inside_a_group_moves_what_the_group_wrote(
    stores: Stores,
) -> None:
    """With as many aliases before and after, rows written under the old name move to the new."""
    store = stores()
    before = batch([Event(11, Op.ADD, DAY)], alias=lambda _who: [1])
    after = batch([Event(21, Op.ADD, DAY + 1)], alias=lambda _who: [11])
    store.apply(batch([Event(1, Op.ADD, DAY - 1)]))
    store.apply_many([before, after])

    table = store.counts(
        first=day_date(DAY - 1), last=day_date(DAY + 1), window_days=(1, 3)
    ).tolist()
    assert [[1, 1, 1], [1, 1, 1]] == table


def test_who_leaves_the_live_day_within_a_group_stays_out(
    make: Callable[[], EmbeddedStore],
) -> None:
    """Come, gone and back in three batches of one group: out, as in three groups."""
    store = make()
    store.live.open(MONTH)
    store.live.begin(LIVE)
    come, gone = (Event(1, op, day_number(LIVE)) for op in (Op.ADD, Op.REMOVE))
    store.apply_many([batch([come]), batch([gone]), batch([come]), batch([gone, come])])
    assert 0 == store.live.count(LIVE)

    other = [Event(2, op, day_number(LIVE)) for op in (Op.ADD, Op.REMOVE, Op.ADD)]
    store.apply_many([batch(other)])
    assert 1 == store.live.count(LIVE)


def test_one_batch_twice_in_a_group(stores: Stores) -> None:
    """Without ids a batch that comes twice is applied twice; with one, once."""
    store = stores()
    plain, named = batch([Event(1, Op.ADD, DAY)]), batch([Event(2, Op.ADD, DAY)], batch_id="a")

    once, again = Applied(accepted=1, duplicate=0, late=0), Applied(accepted=0, duplicate=1, late=0)
    assert [once, once, once, again] == store.apply_many([plain, named, plain, named])
    assert [] == store.apply_many([])


def test_a_group_is_cut_where_it_is_too_long(
    stores: Stores, monkeypatch: pytest.MonkeyPatch
) -> None:
    """More rows than one batch may have are folded in piece by piece, and committed together."""
    monkeypatch.setattr(folding, "BATCH_ROWS_MAX", 4)
    store = stores()
    some = [columns(np.arange(3 * n, 3 * n + 3), np.full(3, DAY)) for n in range(5)]

    assert [Applied(accepted=3, duplicate=0, late=0)] * 5 == store.apply_many(some)
    assert 15 == store.counts(first=FIRST, last=FIRST, window_days=(1,))[0, 0]


def test_a_group_that_cannot_be_stored_leaves_nothing(
    stores: Stores, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where one batch has no room, none of the group is there, with its ids and offsets."""
    store = stores()
    good = batch([Event(1, Op.ADD, DAY, 5)], batch_id="a", offsets={"source": 3})
    labeled = batch([(Event(2, Op.ADD, DAY), {"platform": "web"})])
    monkeypatch.setattr("dpdau.activity.dictionary.DIMENSIONS_MAX", 0)

    with pytest.raises(StoreUnavailableError):
        store.apply_many([good, labeled])
    assert (0, None) == (store.stats().rows, store.offset("source"))
    assert [Applied(accepted=1, duplicate=0, late=0)] == store.apply_many([good])


def test_upkeep_is_free_to_come_at_any_time(stores: Stores) -> None:
    """Tending between batches changes no count, and leaves less to read."""
    store = stores()
    for number in range(9):
        store.apply(columns(np.arange(number, number + 5), np.full(5, DAY)))
        store.tend()
    stats = store.stats()
    store.tend()

    assert stats == store.stats()
    assert 13 == store.counts(first=FIRST, last=FIRST, window_days=(1,))[0, 0]
