"""Every row of a lake is looked at: who is still in it, and what does not belong there."""

import datetime as dt
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from dpdau.activity.spark.store import SparkStore
from dpdau.domain import Event, Op, day_number
from dpdau.errors import InvalidSettingError
from stores import NOW, small_lake
from strategies import batch

if TYPE_CHECKING:
    from pyspark.sql import SparkSession

FIRST = dt.date(2026, 2, 1)
DAY = day_number(FIRST)
WHO = 0x9E3779B97F4A7C15


@pytest.fixture
def store(folder: Path, spark: "SparkSession") -> Iterator[SparkStore]:
    """A user with labels, an id and a fixed day, and another one."""
    with closing(small_lake(folder, spark)) as one:
        one.open_month("2026-02", lookback_days=7, dimensions=["platform"])
        one.apply(batch([(Event(WHO, Op.ADD, DAY, 5), {"platform": "web"}), Event(8, Op.ADD, DAY)]))
        one.freeze("2026-02", FIRST)
        yield one


def test_a_user_is_found_until_forgotten(store: SparkStore) -> None:
    """In each table before, as a tombstone afterwards, and nowhere when the month is over."""
    before = store.inspect([WHO, 99])
    assert 4 == len(before.rows_found)
    assert [] == before.problems
    store.forget([WHO], erasure_id="it", done_at=NOW)
    after = store.inspect([WHO])

    assert ([], [], {"2026-02"}) == (after.rows_found, after.problems, after.plans_found)
    assert [1] == list(after.tombstones_found.values())
    assert [1] == [one.pseudonyms for one in after.kept]
    assert {"it"} == after.receipts
    store.end_month("2026-02")
    over = store.inspect([WHO])
    assert ([], [], {}, ()) == (
        over.rows_found,
        over.problems,
        dict(over.tombstones_found),
        over.kept,
    )


def test_what_does_not_belong_there_is_named(store: SparkStore, folder: Path) -> None:
    """A file that nothing names, one that is gone, one that is damaged, and what a job left."""
    lake = folder / "lake"
    first, second, *_ = sorted((lake / "days").iterdir())
    (lake / "days" / "stray.parquet").write_bytes(b"")
    (lake / "tmp" / "left").mkdir()
    first.unlink()
    second.write_bytes(b"not Parquet")
    problems = store.inspect().problems

    assert sorted(problems) == sorted(
        [
            "days/stray.parquet: no part of the store",
            f"days/{first.name}: missing",
            f"days/{second.name}: cannot be read",
            "tmp/left: left by a job",
        ]
    )


def test_files_in_place_of_others_are_named(store: SparkStore, folder: Path) -> None:
    """Where one file lies in the place of another, its rows are of another commit."""
    first, second, *_ = sorted((folder / "lake" / "days").iterdir())
    first.write_bytes(second.read_bytes())

    assert [f"days/{first.name}: days: rows of another commit"] == [
        one for one in store.inspect().problems if "commit" in one
    ]


def test_another_lake_is_refused(store: SparkStore, folder: Path, spark: "SparkSession") -> None:
    """The files of one store say nothing about another one."""
    from dpdau.activity.spark.residue import inspect

    small_lake(folder / "other", spark).close()
    with pytest.raises(InvalidSettingError):
        inspect(folder / "activity", lake=folder / "other" / "lake", names=[WHO])
    assert [] == inspect(folder / "activity", lake=folder / "lake").problems
