"""What every `ActivityStore` promises: the answers of the fold, at every prefix, durably."""

import datetime as dt
import itertools
import os
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dpdau.activity import erasure
from dpdau.activity.embedded import EmbeddedStore
from dpdau.activity.store import ActivityStore, Applied
from dpdau.activity.turnstile import Turnstile, fold
from dpdau.domain import Event, EventBatch, Op, Segment, day_number
from dpdau.errors import InvalidPlanError, NotFoundError, StoreUnavailableError
from stores import NOW, TINY, Stores, stores_of
from strategies import (
    DIMENSION_VALUES,
    FIRST_DAY,
    STREAM_DAYS,
    LabeledEvent,
    batch,
    columns,
    cuts,
    event_streams,
    labeled_streams,
)

LAST_DAY = FIRST_DAY + dt.timedelta(days=STREAM_DAYS - 1)
WINDOWS = (1, 7, 30, 64)
DAY = day_number(FIRST_DAY)
SEGMENTS = [Segment(name, value) for name, some in DIMENSION_VALUES.items() for value in some]
STREAMS_PER_STORE = 25
STREAMS = 1000 if "DPDAU_SOAK" in os.environ else 150

Make = Callable[[], ActivityStore]


@pytest.fixture(params=["plain", "encrypted", "reopened", "lake"])
def make(request: pytest.FixtureRequest, folder: Path) -> Iterator[Stores]:
    """Makes empty stores of one implementation."""
    with stores_of(request.param, folder, lambda: request.getfixturevalue("spark")) as made:
        yield made


def counts(store: ActivityStore | Turnstile, segment: Segment | None = None) -> list[list[int]]:
    """All days of the stream, for several windows."""
    return store.counts(
        first=FIRST_DAY, last=LAST_DAY, window_days=WINDOWS, segment=segment
    ).tolist()


def moved(stream: list[Event], days: int) -> list[Event]:
    """The same stream some days later."""
    return [Event(one.pseudonym, one.op, one.day + days, one.event_id) for one in stream]


def check_every_prefix(new: Make) -> Callable[[list[Event]], None]:
    """A check that gives each stream days of its own, so that streams can share a store."""
    stores = itertools.cycle(range(STREAMS_PER_STORE))
    current: list[ActivityStore] = []

    def check(stream: list[Event]) -> None:
        slot = next(stores)
        if slot == 0:
            current[:] = [new()]
        shift = dt.timedelta(days=slot * 256)
        oracle = Turnstile()
        for event, shifted in zip(stream, moved(stream, shift.days), strict=True):
            current[0].apply(batch([shifted]))
            oracle.update(event)
            expected = counts(oracle)
            actual = current[0].counts(
                first=FIRST_DAY + shift, last=LAST_DAY + shift, window_days=WINDOWS
            )
            assert expected == actual.tolist()

    return check


@pytest.mark.slow
def test_every_prefix_equals_the_fold(folder: Path) -> None:
    """After each event of many random streams with `-`, every count is that of the fold."""
    made: list[EmbeddedStore] = []

    def new() -> EmbeddedStore:
        for old in made:
            old.close()
        made.append(EmbeddedStore(folder / str(len(made)), clock=lambda: NOW, limits=TINY))
        return made[-1]

    check = check_every_prefix(new)
    settings(max_examples=STREAMS)(given(event_streams(max_size=12))(check))()
    new()


def test_every_prefix_equals_the_fold_in_each_implementation(make: Stores) -> None:
    """The same for fewer streams, encrypted and with a restart before every call."""
    check = check_every_prefix(make)
    settings(max_examples=make.examples(15))(given(event_streams(max_size=12))(check))()


def test_segments_equal_the_fold(make: Stores) -> None:
    """However a stream is cut into batches, each segment counts its first labels of each month."""

    @settings(max_examples=make.examples(40))
    @given(data=st.data(), stream=labeled_streams())
    def check(data: st.DataObject, stream: list[LabeledEvent]) -> None:
        store, oracle = make(), fold(stream)
        places = [0, *data.draw(cuts(stream)), len(stream)]
        for start, stop in itertools.pairwise(places):
            store.apply(batch(stream[start:stop]))

        assert counts(oracle) == counts(store)
        for segment in SEGMENTS:
            assert counts(oracle, segment) == counts(store, segment)

    check()


def test_growth_equals_the_fold(make: Stores) -> None:
    """However a stream is cut, each user of two neighboring windows is in the cell of the fold."""

    @settings(max_examples=make.examples(40))
    @given(data=st.data(), stream=event_streams())
    def check(data: st.DataObject, stream: list[Event]) -> None:
        store, oracle = make(), fold(stream)
        places = [0, *data.draw(cuts(stream)), len(stream)]
        for start, stop in itertools.pairwise(places):
            store.apply(batch(stream[start:stop]))

        for offset, window in itertools.product((0, 5, 31, 64, STREAM_DAYS - 1, 150), WINDOWS):
            end = FIRST_DAY + dt.timedelta(days=offset)
            expected = oracle.growth(end, window_days=window).tolist()
            assert expected == store.growth(end, window_days=window).tolist()

    check()


def test_growth_looks_back_over_all_that_is_kept(make: Make) -> None:
    """A user of ten years ago is resurrected, until that activity is purged or taken back."""
    store = make()
    store.apply(batch([Event(user, Op.ADD, DAY - 3650) for user in (7, 8)]))
    store.apply(batch([Event(user, Op.ADD, DAY) for user in (7, 8, 9)]))

    assert [1, 0, 2, 0] == store.growth(FIRST_DAY, window_days=30).tolist()
    store.apply(batch([Event(7, Op.REMOVE, DAY - 3650)]))
    assert [2, 0, 1, 0] == store.growth(FIRST_DAY, window_days=30).tolist()
    store.purge_before(FIRST_DAY)
    assert [3, 0, 0, 0] == store.growth(FIRST_DAY, window_days=30).tolist()
    assert [0, 0, 0, 3] == store.growth(FIRST_DAY + dt.timedelta(days=1), window_days=1).tolist()


def test_growth_over_a_rotation_equals_growth_without(make: Make) -> None:
    """A user who comes back under a new key, the old one named beside it, is in one cell."""
    store = make()
    store.apply(batch([Event(7, Op.ADD, DAY), Event(8, Op.ADD, DAY)]))
    store.apply(batch([Event(17, Op.ADD, DAY + 30)], alias=lambda _who: [7]))

    end = FIRST_DAY + dt.timedelta(days=30)
    assert [0, 1, 0, 1] == store.growth(end, window_days=30).tolist()


def test_arrival_order_of_additions_is_free(make: Stores) -> None:
    """Shuffled `+` events give the same counts."""

    @settings(max_examples=make.examples(20))
    @given(data=st.data(), stream=event_streams(removals=False))
    def check(data: st.DataObject, stream: list[Event]) -> None:
        straight, shuffled = make(), make()
        straight.apply(batch(stream))
        for event in data.draw(st.permutations(stream)):
            shuffled.apply(batch([event]))

        assert counts(straight) == counts(shuffled)

    check()


def test_the_last_event_of_a_batch_decides(make: Make) -> None:
    """Inside one batch the arrival order decides for each pair."""
    store = make()
    put, take = Event(7, Op.ADD, DAY), Event(7, Op.REMOVE, DAY)
    store.apply(batch([put, take, put, Event(8, Op.ADD, DAY), Event(8, Op.REMOVE, DAY)]))

    assert 1 == counts(store)[0][0]


def test_an_event_id_is_applied_once(make: Make) -> None:
    """A repeated event id, in the batch or later, changes nothing and counts as duplicate."""
    store = make()
    put, take = Event(7, Op.ADD, DAY, event_id=5), Event(7, Op.REMOVE, DAY, event_id=5)
    others = [Event(user, Op.ADD, DAY, event_id=100 + user) for user in range(20, 30)]

    assert Applied(accepted=1, duplicate=1, late=0) == store.apply(batch([put, take]))
    for other in others:
        assert Applied(accepted=1, duplicate=0, late=0) == store.apply(batch([other]))
    assert Applied(accepted=0, duplicate=11, late=0) == store.apply(batch([take, *others]))
    assert Applied(accepted=2, duplicate=0, late=0) == store.apply(
        batch([Event(1, Op.ADD, DAY), Event(1, Op.ADD, DAY)])
    )
    assert 12 == counts(store)[0][0]


def test_an_event_id_covers_all_rows_of_its_event(make: Make) -> None:
    """An event that touches several days is applied or skipped as a whole."""
    store = make()
    base = columns(np.array([7, 7, 8]), np.array([DAY, DAY + 1, DAY]))
    events = EventBatch(
        events=2,
        pseudonym=base.pseudonym,
        day=base.day,
        add=base.add,
        event_index=np.array([0, 0, 1], dtype=np.int32),
        event_id=np.array([3, 4], dtype=np.uint64),
        aliases=base.aliases,
    )

    assert Applied(accepted=2, duplicate=0, late=0) == store.apply(events)
    assert Applied(accepted=0, duplicate=2, late=0) == store.apply(events)
    assert [2, 1] == counts(store)[0][:2]


def test_the_writing_side_is_kept_for_one_thread(make: Make) -> None:
    """While one thread keeps it, it may write, and another thread is told that it would wait."""
    store = make()
    store.apply(batch([Event(1, Op.ADD, DAY)]))

    def is_free() -> bool:
        with store.unless_busy(0.0) as free:
            return free

    with store.unless_busy(0.0) as kept, ThreadPoolExecutor(1) as other:
        store.apply(batch([Event(2, Op.ADD, DAY)]))
        assert not (kept and other.submit(is_free).result())
    while not store.tend():
        pass
    assert 2 == counts(store)[0][0]


def test_a_batch_id_is_applied_once(make: Make) -> None:
    """A retried batch changes nothing, its offsets included."""
    store = make()
    first = batch([Event(7, Op.ADD, DAY)], batch_id="a", offsets={"topic-0": 5})
    retry = batch([Event(8, Op.ADD, DAY)] * 2, batch_id="a", offsets={"topic-0": 6})

    assert Applied(accepted=1, duplicate=0, late=0) == store.apply(first)
    assert Applied(accepted=0, duplicate=2, late=0) == store.apply(retry)
    assert 1 == counts(store)[0][0]
    assert 5 == store.offset("topic-0")


def test_offsets_follow_their_activity(make: Make) -> None:
    """The last offset of each source is stored with the batch, also with an empty one."""
    store = make()
    store.apply(batch([Event(7, Op.ADD, DAY)], offsets={"topic-0": 1, "topic-1": 9}))
    store.apply(batch([], offsets={"topic-0": 2}))

    assert [2, 9, None] == [store.offset(f"topic-{one}") for one in range(3)]


def test_a_negative_offset_forgets_its_source(make: Make) -> None:
    """With the activity that it comes with, and for its own source alone."""
    store = make()
    store.apply(batch([], offsets={"file.row": 5, "topic-0": 3}))
    store.apply(batch([Event(7, Op.ADD, DAY)], offsets={"file.row": -1, "never": -1}))

    assert [None, None, 3] == [store.offset(one) for one in ("file.row", "never", "topic-0")]


def test_late_events_are_applied_and_counted(make: Make) -> None:
    """An event for a closed day corrects the store and counts as late, unless it is a duplicate."""
    store = make()
    store.apply(batch([Event(7, Op.ADD, DAY, event_id=1)]))
    store.close_day(FIRST_DAY)
    store.close_day(FIRST_DAY)
    events = [
        Event(7, Op.REMOVE, DAY, event_id=1),
        Event(8, Op.ADD, DAY, event_id=2),
        Event(9, Op.ADD, DAY + 1),
    ]

    assert Applied(accepted=1, duplicate=1, late=1) == store.apply(batch(events))
    assert [2, 1] == counts(store)[0][:2]
    assert frozenset({FIRST_DAY}) == store.closed_days(FIRST_DAY, LAST_DAY)
    assert frozenset() == store.closed_days(LAST_DAY, LAST_DAY)


def test_counts_over_a_rotation_equal_counts_without(make: Stores) -> None:
    """Two rotations, with the older keys named in each event, change no count and no segment."""

    @settings(max_examples=make.examples(25))
    @given(data=st.data(), stream=labeled_streams())
    def check(data: st.DataObject, stream: list[LabeledEvent]) -> None:
        store, oracle = make(), fold(stream)
        places = data.draw(cuts(stream).filter(lambda some: len(some) >= 2))
        names = [lambda who, k=key: (who * 3 + k) % 2**64 for key in range(3)]
        bounds = [0, places[0], places[-1], len(stream)]
        for key, (start, stop) in enumerate(itertools.pairwise(bounds)):
            older = names[:key][::-1]
            for event, some in stream[start:stop]:
                renamed = Event(names[key](event.pseudonym), event.op, event.day)
                alias = [name(event.pseudonym) for name in older]
                store.apply(batch([(renamed, some)], alias=lambda _who, alias=alias: alias))

        for segment in (None, *SEGMENTS):
            assert counts(oracle, segment) == counts(store, segment)

    check()


def test_an_erasure_in_the_overlap_finds_the_user(make: Make) -> None:
    """After a rotation a user is forgotten under every key, moved or not."""
    store = make()
    store.apply(batch([Event(7, Op.ADD, DAY), Event(8, Op.ADD, DAY)]))
    store.apply(batch([Event(17, Op.ADD, DAY + 1)], alias=lambda _who: [7]))

    assert 2 == store.forget([17, 7])
    assert 1 == store.forget([18, 8])
    assert 0 == np.sum(counts(store))


def test_forgetting_equals_the_fold(make: Stores) -> None:
    """What is forgotten is gone, with its labels, and later events start afresh."""

    @settings(max_examples=make.examples(20))
    @given(data=st.data(), stream=labeled_streams())
    def check(data: st.DataObject, stream: list[LabeledEvent]) -> None:
        store, oracle = make(), Turnstile()
        place = data.draw(st.integers(0, len(stream)))
        for part in (stream[:place], stream[place:]):
            for event in part:
                store.apply(batch([event]))
                oracle.update(*event)
            who = {event.pseudonym for event, _ in stream[:1]}
            assert oracle.erase(who) == store.forget(sorted(who))
            for segment in (None, *SEGMENTS):
                assert counts(oracle, segment) == counts(store, segment)

    check()


def test_purging_equals_the_fold(make: Stores) -> None:
    """Retention drops the days before one, and nothing else."""

    @settings(max_examples=make.examples(20))
    @given(stream=labeled_streams(), offset=st.integers(0, STREAM_DAYS))
    def check(stream: list[LabeledEvent], offset: int) -> None:
        store, oracle = make(), fold(stream)
        for event in stream:
            store.apply(batch([event]))
        day = FIRST_DAY + dt.timedelta(days=offset)
        store.purge_before(day)
        oracle.purge_before(day)

        for segment in (None, *SEGMENTS):
            assert counts(oracle, segment) == counts(store, segment)

    check()


def test_an_erasure_leaves_a_receipt(make: Make) -> None:
    """The receipt says how many days were touched and when, and can be asked for again."""
    store = make()
    store.apply(batch([Event(7, Op.ADD, DAY), Event(7, Op.ADD, DAY + 70), Event(8, Op.ADD, DAY)]))
    receipt = erasure.erase(store, [7], clock=lambda: NOW)

    assert (2, NOW) == (receipt.days_touched, receipt.done_at)
    assert receipt == erasure.receipt(store, receipt.erasure_id)
    with pytest.raises(NotFoundError):
        erasure.receipt(store, "no such id")


def test_segment_values_are_those_seen(make: Make) -> None:
    """The values of a dimension are listed in order; an unknown one has none and counts 0."""
    store = make()
    store.apply(batch([(Event(7, Op.ADD, DAY), {"platform": "web"})]))
    store.apply(batch([(Event(8, Op.ADD, DAY), {"platform": "ios"})]))
    store.apply(batch([(Event(8, Op.REMOVE, DAY), {"platform": "tv"})]))

    assert ("ios", "web") == store.segment_values("platform")
    assert () == store.segment_values("country")
    assert 0 == np.sum(counts(store, Segment("platform", "tv")))
    assert 0 == np.sum(counts(store, Segment("country", "de")))


def test_an_empty_store_counts_nobody(make: Make) -> None:
    """Counts are zero and have the shape that was asked for."""
    store = make()
    table = store.counts(first=FIRST_DAY, last=LAST_DAY, window_days=(30, 1, 30))

    assert (3, STREAM_DAYS) == table.shape
    assert np.int64 == table.dtype
    assert 0 == table.sum()
    assert (0, 1) == store.counts(first=FIRST_DAY, last=FIRST_DAY, window_days=()).shape
    assert [0, 0, 0, 0] == store.growth(FIRST_DAY, window_days=30).tolist()


def test_rows_answer_in_the_order_asked(make: Make) -> None:
    """Row i belongs to window i, in any order and repeated."""
    store = make()
    store.apply(batch([Event(7, Op.ADD, DAY)]))
    table = store.counts(
        first=FIRST_DAY, last=FIRST_DAY + dt.timedelta(days=8), window_days=(7, 1, 9, 7)
    )

    assert [[1] * 7 + [0] * 2, [1] + [0] * 8, [1] * 9, [1] * 7 + [0] * 2] == table.tolist()


@pytest.mark.parametrize("window", [0, 65])
def test_windows_outside_the_promise_are_refused(make: Make, window: int) -> None:
    """Windows are 1..64 days."""
    store = make()
    with pytest.raises(InvalidPlanError):
        store.counts(first=FIRST_DAY, last=FIRST_DAY, window_days=(window,))
    with pytest.raises(InvalidPlanError):
        store.growth(FIRST_DAY, window_days=window)


@pytest.mark.parametrize("days", [-1, 5000])
def test_ranges_outside_the_promise_are_refused(make: Make, days: int) -> None:
    """A range is not empty and not endless."""
    last = FIRST_DAY + dt.timedelta(days=days)
    with pytest.raises(InvalidPlanError):
        make().counts(first=FIRST_DAY, last=last, window_days=(1,))


def test_days_before_1970_count_too(make: Make) -> None:
    """Negative day numbers are days like others."""
    store = make()
    day = dt.date(1969, 12, 31)
    store.apply(batch([(Event(7, Op.ADD, -1), {"platform": "web"}), (Event(7, Op.ADD, 0), {})]))
    table = store.counts(
        first=day, last=day, window_days=(1, 2), segment=Segment("platform", "web")
    )

    assert [[1], [1]] == table.tolist()


def test_stats_bound_the_days(make: Make) -> None:
    """The size of the store names the first and last active day."""
    store = make()
    empty = store.stats()
    for offset in range(40, 50):
        store.apply(batch([Event(7, Op.ADD, DAY + offset), Event(8, Op.ADD, DAY + offset)]))
    full = store.stats()

    assert (0, 0, None, None) == (empty.rows, empty.segments, empty.first_day, empty.last_day)
    assert FIRST_DAY + dt.timedelta(days=40) == full.first_day
    assert FIRST_DAY + dt.timedelta(days=49) == full.last_day
    assert full.rows >= full.pending_rows
    assert full.bytes_on_disk > 0


@pytest.mark.parametrize("make", ["plain", "lake"], indirect=True)
def test_a_store_is_writable_until_it_is_closed(make: Make) -> None:
    """`check_writable` passes on an open store; a closed one refuses everything."""
    store = make()
    store.check_writable()
    store.close()
    store.close()

    for call in (store.check_writable, store.stats, lambda: store.offset("a")):
        with pytest.raises(StoreUnavailableError):
            call()
