"""Rows that Spark holds are folded in as a batch is."""

import datetime as dt
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pyarrow as pa
import pytest

from dpdau.activity.spark.store import SparkStore
from dpdau.activity.store import Applied
from dpdau.domain import Segment, day_number
from dpdau.errors import StoreUnavailableError
from stores import small_lake

if TYPE_CHECKING:
    from pyspark.sql import DataFrame, SparkSession

FIRST = dt.date(2026, 2, 1)
DAY = day_number(FIRST)


@pytest.fixture
def store(folder: Path, spark: "SparkSession") -> Iterator[SparkStore]:
    """An empty store."""
    with closing(small_lake(folder, spark)) as one:
        yield one


def rows(store: SparkStore, *some: tuple[int, int, bool, int, int], **more: Any) -> "DataFrame":
    """Rows of (pseudonym, day after the first, add, event, event id), with further columns."""
    names = ("pseudonym", "day", "add", "event", "event_id")
    types = (pa.int64(), pa.int32(), pa.bool_(), pa.int64(), pa.int64())
    columns = list(zip(*((who, DAY + day, *rest) for who, day, *rest in some), strict=True))
    table = {
        name: pa.array(column, type_)
        for name, column, type_ in zip(names, columns, types, strict=True)
    }
    return store.spark.createDataFrame(pa.table({**table, **more}))


def daily(store: SparkStore, segment: Segment | None = None) -> list[int]:
    """The counts of three days."""
    last = FIRST + dt.timedelta(days=2)
    return store.counts(first=FIRST, last=last, window_days=(1,), segment=segment).tolist()[0]


def test_the_event_that_came_last_decides(store: SparkStore) -> None:
    """By the numbers of the events, in whatever order the rows lie, and over what was there."""
    some = rows(store, (7, 0, False, 9, 0), (7, 0, True, 8, 0), (8, 0, True, 3, 0))

    assert Applied(3, 0, 0) == store.adopt(some)
    assert [1, 0, 0] == daily(store)
    store.adopt(rows(store, (8, 0, False, 0, 0), (-1, 2, True, 1, 0)))
    assert [0, 0, 1] == daily(store)


def test_an_event_of_several_days_is_one(store: SparkStore) -> None:
    """It counts once, is late when one of its days is closed, and is skipped as a whole."""
    store.close_day(FIRST + dt.timedelta(days=1))
    twice = rows(store, (7, 0, True, 1, 5), (7, 1, True, 1, 5), (8, 0, True, 2, 0))

    assert Applied(1, 0, 1) == store.adopt(twice)
    assert Applied(1, 1, 0) == store.adopt(twice.where("day = " + str(DAY)))
    assert [2, 1, 0] == daily(store)


def test_the_first_of_an_id_counts(store: SparkStore) -> None:
    """By the numbers of the events; later ones, here and afterwards, are duplicates."""
    some = rows(store, (7, 0, False, 2, 5), (7, 0, True, 1, 5), (8, 0, True, 3, 6))

    assert Applied(2, 1, 0) == store.adopt(some)
    assert [2, 0, 0] == daily(store)
    assert Applied(0, 3, 0) == store.adopt(some)


def test_a_batch_is_adopted_once(store: SparkStore) -> None:
    """A retry under the new or an older name changes nothing, its offsets included."""
    some = rows(store, (7, 0, True, 1, 0), (7, 1, True, 2, 0))

    assert Applied(2, 0, 0) == store.adopt(some, batch_id="a", offsets={"topic": 4})
    for older, name in (((), "a"), (["a"], "b")):
        again = store.adopt(some, batch_id=name, older_batch_ids=older, offsets={"topic": 5})
        assert Applied(0, 2, 0) == again
    assert 4 == store.offset("topic")
    assert Applied(0, 0, 0) == store.adopt(some.where("false"), offsets={"topic": 6})
    assert 6 == store.offset("topic")


def test_labels_and_aliases_come_with_their_rows(store: SparkStore) -> None:
    """The first label of a month stays, over a rotation too."""
    web, ios = Segment("the platform", "web"), Segment("the platform", "ios")
    some = rows(
        store,
        *((7, 0, True, 2, 0), (7, 1, True, 1, 0), (8, 0, True, 3, 0), (9, 0, False, 4, 0)),
        **{"p 1": ["ios", "web", None, "tv"]},
    )
    store.adopt(some, dimensions={"the platform": "p 1"})
    assert [1, 1, 0] == daily(store, web)
    assert ("ios", "web") == store.segment_values("the platform")
    moved = rows(store, (17, 2, True, 1, 0), **{"p 1": ["ios"], "old": [7], "older": [7]})
    store.adopt(moved, dimensions={"the platform": "p 1"}, aliases=["old", "older"])

    assert [[2, 1, 1], [1, 1, 1], [0, 0, 0]] == [daily(store, one) for one in (None, web, ios)]
    assert 3 == store.forget([17])


def test_rows_that_cannot_be_computed_leave_nothing(store: SparkStore, folder: Path) -> None:
    """Neither rows nor the id of the batch, and a retry works."""
    from pyspark.sql import functions as sql

    some = rows(store, (7, 0, True, 1, 0))
    broken = some.withColumn("day", sql.raise_error(sql.lit("user 4711 was here")).cast("int"))
    for wrong in (broken, some.drop("event_id")):
        with pytest.raises(StoreUnavailableError) as caught:
            store.adopt(wrong, batch_id="a", offsets={"topic": 1})
        assert "4711" not in str(caught.value)
    assert [] == list(folder.rglob("*.parquet"))
    assert Applied(1, 0, 0) == store.adopt(some, batch_id="a", offsets={"topic": 1})
