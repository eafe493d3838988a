"""What is asked of the lake, on a few rows."""

from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa
import pytest

from dpdau.activity.labels import DIMENSIONS_MAX, FORGET, months
from dpdau.activity.spark import frames
from dpdau.activity.spark.lake import DAYS, GRAVE, LABELS, SEEN, TableKind, part_of

if TYPE_CHECKING:
    from pyspark.sql import DataFrame, SparkSession


def frame(spark: "SparkSession", kind: TableKind, *rows: tuple[object, ...]) -> "DataFrame":
    """Rows of a kind."""
    columns = zip(*rows, strict=True) if rows else ([] for _ in kind.columns)
    named = dict(zip(kind.columns, map(list, columns), strict=True))
    return spark.createDataFrame(pa.table(named, schema=kind.arrow_schema))


def sorted_rows(rows: "DataFrame") -> list[tuple[object, ...]]:
    """The rows in an order of their own."""
    return sorted(tuple(one.values()) for one in rows.toArrow().to_pylist())


def test_the_last_commit_decides(spark: "SparkSession") -> None:
    """Of each group, key and day the newest row counts, whatever order they come in."""
    rows = frame(
        spark,
        DAYS,
        (0, 1, 5, True, 3),
        (0, 1, 5, False, 2),
        (0, 2, 5, False, 9),
        (0, 2, 5, True, 8),
        (7, 2, 5, True, 1),
    )

    assert [(0, 1, 5), (7, 2, 5)] == sorted_rows(frames.standing(rows, by=("group", "key")))


def test_the_first_label_stays_until_it_is_moved(spark: "SparkSession") -> None:
    """The oldest commit gives the label; a key that was moved has none."""
    rows = frame(spark, LABELS, (1, 1, 4, 2), (1, 1, 3, 5), (1, 2, 3, 1), (1, 2, FORGET, 4))

    assert [(1, 1, 4)] == sorted_rows(frames.first_codes(rows))


@pytest.mark.parametrize(
    ("kind", "rows", "base", "expected"),
    [
        (DAYS, [(0, 1, 5, True, 1), (0, 1, 5, False, 2)], False, [(0, 1, 5, False, 9)]),
        (DAYS, [(0, 1, 5, True, 1), (0, 1, 5, False, 2)], True, []),
        (DAYS, [(0, 1, 5, True, 1), (0, 1, 5, True, 2)], True, [(0, 1, 5, True, 9)]),
        (LABELS, [(1, 1, 4, 1), (1, 1, 3, 2)], False, [(1, 1, 4, 9)]),
        (LABELS, [(1, 1, 4, 1), (1, 1, FORGET, 2)], False, [(1, 1, FORGET, 9)]),
        (LABELS, [(1, 1, 4, 1), (1, 1, FORGET, 2)], True, []),
        (SEEN, [(1, 8, 1), (1, 8, 2)], True, [(1, 8, 9)]),
    ],
)
def test_folding_keeps_what_decides(
    spark: "SparkSession",
    kind: TableKind,
    rows: list[tuple[object, ...]],
    base: bool,
    expected: list[tuple[object, ...]],
) -> None:
    """One commit in place of several; what is taken out goes where nothing is older."""
    folded = frames.folded(kind.kind, frame(spark, kind, *rows), seq=9, is_base=base)

    assert expected == sorted_rows(folded.select(*kind.columns))


def test_parts_and_months_are_those_of_the_embedded_store(spark: "SparkSession") -> None:
    """For keys and days at every edge."""
    keys = [-(2**63), -1, 0, 2**63 - 1, 2**60, -(2**60)]
    days = [-1, 0, -25567, 2932896, 59, 60]
    rows = spark.createDataFrame(pa.table({"key": keys, "day": pa.array(days, pa.int32())})).select(
        "key", "day", frames.part().alias("part"), frames.month().alias("month")
    )
    expected = months(np.array(days, dtype=np.int32)).tolist()

    parts = map(part_of, keys)
    assert sorted(zip(keys, days, parts, expected, strict=True)) == sorted_rows(rows)


def test_windows_are_counted_from_gaps(spark: "SparkSession") -> None:
    """Each window of each day has the distinct keys that a set has, for many keys at once."""
    source = np.random.default_rng(7)
    pairs = {(int(source.integers(30)), int(source.integers(100))) for _ in range(200)}
    rows = frame(spark, DAYS, *((0, key, day, True, 1) for key, day in sorted(pairs)))
    table = frames.gaps(rows.select("key", "day")).toArrow()
    windows = (1, 2, 7, 64)
    counts = frames.window_counts(table, first=20, days=90, window_days=windows)

    expected = [
        [len({key for key, day in pairs if end - window < day <= end}) for end in range(20, 110)]
        for window in windows
    ]
    assert expected == counts.tolist()


def test_a_grave_moves_with_its_user(spark: "SparkSession") -> None:
    """Under whichever name a user was erased in a month, nothing of the user is left there."""
    pairs = frame(
        spark,
        DAYS,
        *((0, 1, 5, True, 1), (9, 1, 5, True, 1), (9, 11, 6, True, 1), (9, 1, GRAVE, True, 1)),
        *((9, 2, 5, True, 1), (9, 12, 6, True, 1)),
    ).select("group", "key", "day")
    names = spark.createDataFrame(
        pa.table({"old": [1, 2, 11, 12], "new": [11, 12, 11, 12], "age": [0, 0, -1, -1]})
    )
    moved = frames.moved_days(pairs, names, seq=4)

    expected = [
        (0, 1, 5, False, 4),
        (0, 11, 5, True, 4),
        *((9, 1, GRAVE, False, 4), (9, 1, 5, False, 4), (9, 2, 5, False, 4)),
        *((9, 11, GRAVE, True, 4), (9, 11, 5, False, 4), (9, 11, 6, False, 4)),
        (9, 12, 5, True, 4),
    ]
    assert expected == sorted_rows(moved.select(*DAYS.columns))


def test_the_label_of_the_oldest_key_moves(spark: "SparkSession") -> None:
    """Several old names of one user: the label that was seen first, and the names are emptied."""
    group = 3 * DIMENSIONS_MAX
    codes = frame(spark, LABELS, (group, 1, 4, 1), (group, 2, 5, 1)).drop("commit")
    names = spark.createDataFrame(pa.table({"old": [1, 2], "new": [9, 9], "age": [1, 0]}))
    moved = frames.moved_labels(codes, names, seq=6)

    expected = [(group, 1, FORGET, 6), (group, 2, FORGET, 6), (group, 9, 4, 6)]
    assert expected == sorted_rows(moved.select(*LABELS.columns))
