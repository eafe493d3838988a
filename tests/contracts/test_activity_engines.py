"""One store counted by this process, the other by Spark: the same numbers, for the same events."""

import datetime as dt
import itertools
import random
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa
import pytest

from dpdau.activity.embedded import EmbeddedStore
from dpdau.activity.store import ActivityStore
from dpdau.domain import Event, EventBatch, Op, Segment, day_date, day_number
from dpdau.ingest.datasets import read_cdnow, read_nycflights
from dpdau.ingest.files import Chunk
from dpdau.ingest.rules import Rules
from stores import NOW, small_lake
from strategies import DIMENSION_VALUES, LabeledEvent, batch, columns

if TYPE_CHECKING:
    from pyspark.sql import SparkSession

    from dpdau.activity.spark.store import SparkStore

SEED = 20260301
STREAMS = 200
EVENTS = 40
USERS = 8
STRIDE = 40
"""How many days each stream has for itself."""
FIRST = dt.date(2001, 1, 1)
RANGE = 4000
WINDOWS = (1, 7, 30, 64)
SEGMENTS = [Segment(name, value) for name, some in DIMENSION_VALUES.items() for value in some]
MONTH, MONTH_FIRST, MONTH_DAYS = "2020-02", dt.date(2020, 2, 1), 3
GOLDEN = 0x9E3779B97F4A7C15


@pytest.fixture(params=["sail"])
def spark_master(request: pytest.FixtureRequest) -> str:
    """The master URL of each kind of Spark."""
    url: str = request.getfixturevalue(request.param)
    return url


def streams(seed: int) -> Iterator[list[LabeledEvent]]:
    """Turnstile streams with labels; each has users and days that no other one has."""
    source = random.Random(seed)
    for number in range(STREAMS):
        first = day_number(FIRST) + number * STRIDE
        yield [
            (
                Event(
                    (number * USERS + source.randrange(USERS) + 1) * GOLDEN % 2**64,
                    source.choice([Op.ADD, Op.ADD, Op.REMOVE]),
                    first + source.randrange(STRIDE - 15),
                    source.choice([0, 0, number * EVENTS + source.randrange(EVENTS) + 1]),
                ),
                {
                    name: source.choice(some)
                    for name, some in DIMENSION_VALUES.items()
                    if source.random() < 0.3
                },
            )
            for _ in range(EVENTS)
        ]


def adopted(store: "SparkStore", events: EventBatch) -> object:
    """Gives a batch to a lake as rows that Spark holds."""
    rows = {
        "pseudonym": events.pseudonym.view(np.int64),
        "day": events.day,
        "add": events.add,
        "event": events.event_index.astype(np.int64),
        "event_id": events.event_id.view(np.int64)[events.event_index],
    }
    for name, one in events.labels.items():
        values = np.array([*one.values, None], dtype=object)
        rows[f"the {name}"] = pa.array(values[one.codes], pa.string())
    aliases = {f"old {place}": one.view(np.int64) for place, one in enumerate(events.aliases)}
    return store.adopt(
        store.spark.createDataFrame(pa.table({**rows, **aliases})),
        dimensions={name: f"the {name}" for name in events.labels},
        aliases=list(aliases),
        batch_id=events.batch_id,
        older_batch_ids=events.older_batch_ids,
        offsets=events.offsets,
    )


def check_counts(
    stores: tuple[ActivityStore, ActivityStore], days: range, segments: list[Segment]
) -> int:
    """All counts are the same; gives the sum of those of everyone."""
    total = 0
    for start, segment in itertools.product(range(days.start, days.stop, RANGE), [None, *segments]):
        last = min(start + RANGE, days.stop) - 1
        expected, actual = (
            one.counts(
                first=day_date(start), last=day_date(last), window_days=WINDOWS, segment=segment
            )
            for one in stores
        )
        assert expected.tolist() == actual.tolist()
        total += int(expected.sum()) if segment is None else 0
    return total


def check_streams(stores: "tuple[EmbeddedStore, SparkStore]") -> None:
    """Every day, window and segment of every stream is the same, and its growth."""
    embedded, lake = stores
    cut = [0, 15, 30, EVENTS]
    for place, (start, stop) in enumerate(itertools.pairwise(cut)):
        part = batch([event for one in streams(SEED) for event in one[start:stop]])
        applied = adopted(lake, part) if place % 2 else lake.apply(part)
        assert embedded.apply(part) == applied
        for store in stores:
            store.close_day(FIRST + dt.timedelta(days=place))
        erased = [(number * USERS + place + 1) * GOLDEN % 2**64 for number in range(0, STREAMS, 4)]
        assert embedded.forget(erased) == lake.forget(erased)
    first = day_number(FIRST)
    assert 0 < check_counts(stores, range(first, first + STREAMS * STRIDE), SEGMENTS)
    for offset in (30, 7 * STRIDE, 100 * STRIDE + 40):
        end = FIRST + dt.timedelta(days=offset)
        expected = embedded.growth(end, window_days=30).tolist()
        assert expected == lake.growth(end, window_days=30).tolist()


def month_streams(seed: int) -> Iterator[list[LabeledEvent]]:
    """The streams with users, ids and days of one month and what is before it, the same for all."""
    before = STRIDE - 15 - MONTH_DAYS
    for number, one in enumerate(streams(seed)):
        start = day_number(FIRST) + number * STRIDE
        yield [
            (
                replace(
                    event,
                    pseudonym=_in_month(event.pseudonym),
                    day=day_number(MONTH_FIRST) - before + event.day - start,
                    event_id=event.event_id and event.event_id + 10**6,
                ),
                labels,
            )
            for event, labels in one
        ]


def _in_month(pseudonym: int, key: int = 1) -> int:
    """The name of a user of a stream in the month, under a key."""
    return (pseudonym + key * 10**6 * GOLDEN) % 2**64


def check_month(stores: "tuple[EmbeddedStore, SparkStore]", *, days: int = MONTH_DAYS) -> None:
    """Every stream in one month: whatever is late, taken back, erased or renamed, it is the same.

    From the second half on the users have names of a new key, with the old ones beside them.
    """
    some = list(month_streams(SEED))
    names = [(number + 1) * GOLDEN % 2**64 for number in range(STREAMS * USERS)]
    older = {_in_month(one, 2): _in_month(one) for one in names}
    newer = {old: new for new, old in older.items()}
    for store in stores:
        store.open_month(MONTH, lookback_days=30, dimensions=tuple(DIMENSION_VALUES))
    cut = np.linspace(0, EVENTS, days + 1).astype(int)
    for number, (start, stop) in enumerate(itertools.pairwise(cut)):
        is_new = number >= days // 2
        events = [event for one in some for event in one[start:stop]]
        if is_new:
            events = [(replace(one, pseudonym=newer[one.pseudonym]), of) for one, of in events]
        part = batch(events, alias=(lambda who: [older[who]]) if is_new else None)
        assert stores[0].apply(part) == (
            adopted(stores[1], part) if number % 2 else stores[1].apply(part)
        )
        gone = [_in_month(one, key) for one in names[number::170] for key in (1, 2)]
        day = MONTH_FIRST + dt.timedelta(days=number)
        for store in stores:
            store.freeze(MONTH, day)
            store.forget(gone)
        tables = [
            store.contributions(MONTH, day, window_days=(1, 7, 30), segments=SEGMENTS).tolist()
            for store in stores
        ]
        assert tables[0] == tables[1]
        assert 0 < tables[0][0][0]


def check_data(
    stores: "tuple[EmbeddedStore, SparkStore]", read: Callable[..., Iterator[Chunk]]
) -> None:
    """A real data set, some of it taken back and some users erased, counts the same."""
    tables = [chunk.decoded for chunk in read(rules=Rules(dt.date(2026, 3, 1)))]
    user = np.concatenate([one.user for one in tables]).astype(np.uint64)
    day = np.concatenate([one.day for one in tables])
    order = np.random.default_rng(SEED).permutation(len(user))
    add = order % 11 != 0
    who = ((user + np.uint64(1)) * np.uint64(GOLDEN))[order]
    embedded, lake = stores
    for start, stop in itertools.pairwise(np.linspace(0, len(user), 4).astype(int)):
        part = columns(who[start:stop], day[order][start:stop], add=add[start:stop])
        assert embedded.apply(part) == lake.apply(part)
    erased = np.unique(who)[::50].tolist()
    assert embedded.forget(erased) == lake.forget(erased)
    days = range(int(day.min()), int(day.max()) + 65)
    assert 0 < check_counts(stores, days, [])
    for number in range(days.start + 30, days.stop, 150):
        end = day_date(number)
        expected = embedded.growth(end, window_days=30).tolist()
        assert expected == lake.growth(end, window_days=30).tolist()


def check_on(master: str, folder: Path, check: Callable[..., None], *some: object) -> None:
    """Does a check on an empty store of each kind.

    Args:
        master: The URL of the Spark.
        folder: One that all of its executors see.
        check: Takes both stores, and then `some`.
        some: What else.
    """
    from dpdau.activity.spark.session import connect

    with ExitStack() as stack:
        spark: SparkSession = connect(master)
        stack.callback(spark.stop)
        embedded = EmbeddedStore(folder / "embedded", clock=lambda: NOW)
        lake = small_lake(folder / "spark", spark)
        check(tuple(stack.enter_context(closing(one)) for one in (embedded, lake)), *some)


def test_streams_count_the_same(spark_master: str, folder: Path) -> None:
    """200 random streams, with what they take back and who is erased, count the same."""
    check_on(spark_master, folder, check_streams)


def test_months_count_the_same(spark_master: str, folder: Path) -> None:
    """All streams in an open month, on each of its days, for each segment."""
    check_on(spark_master, folder, check_month)


@pytest.mark.parametrize("read", [read_cdnow, read_nycflights])
def test_real_data_counts_the_same(
    spark_master: str, folder: Path, read: Callable[..., Iterator[Chunk]]
) -> None:
    """Two real data sets count the same."""
    check_on(spark_master, folder, check_data, read)
