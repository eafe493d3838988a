"""One state of the lake: only the files that may matter are read, and all of them are."""

from pathlib import Path
from typing import TYPE_CHECKING

import pyarrow as pa
import pytest

from dpdau.activity.spark.lake import DAYS, LABELS, Lake
from dpdau.activity.spark.state import LakeState
from dpdau.errors import StoreUnavailableError

if TYPE_CHECKING:
    from pyspark.sql import SparkSession


@pytest.fixture
def state(folder: Path, spark: "SparkSession") -> LakeState:
    """Three files: two groups of days, and two ranges of the first one."""
    lake = Lake(folder, read_only=False)
    places = ((0, 5), (0, 70), (9, 5))
    files = []
    for group, day in places:
        row = {"group": [group], "key": [day], "day": [day], "add": [True], "commit": [1]}
        files += lake.write(DAYS, pa.table(row, schema=DAYS.arrow_schema))
    return LakeState(spark, lake, files)


def test_files_outside_are_not_read(state: LakeState, folder: Path) -> None:
    """Where a file cannot hold what is asked for, it may as well be gone."""
    (folder / state.files[1].name).unlink()
    (folder / state.files[2].name).unlink()
    asked = state.rows(DAYS, groups=range(1), days=range(3, 9))

    assert 1 == state.run(asked.count)
    assert 0 == state.run(state.rows(LABELS).count)


def test_a_file_that_is_gone_is_noticed(state: LakeState, folder: Path) -> None:
    """Also by a Spark that takes it for an empty one."""
    asked = state.rows(DAYS)
    assert 3 == state.run(asked.count)
    (folder / state.files[1].name).unlink()
    with pytest.raises(FileNotFoundError) as caught:
        state.run(asked.count)

    assert state.files[1].name == caught.value.filename


def test_what_spark_says_is_not_repeated(state: LakeState) -> None:
    """An error of Spark may quote rows; its name is all that is told."""
    from pyspark.sql import functions as sql

    wrong = state.rows(DAYS).select(sql.raise_error(sql.lit("user 4711 was here")))
    with pytest.raises(StoreUnavailableError) as caught:
        state.run(wrong.toArrow)

    assert "4711" not in str(caught.value)
    assert caught.value.__cause__ is None
