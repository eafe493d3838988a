"""The programs that the product is measured beside do the job that they stand for."""

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from benchmarks import workload
from benchmarks.rivals import spark_sql
from components import SAIL, sail_server
from dpdau.activity.spark.session import connect

RIVALS = Path(workload.__file__).parent / "rivals"
FALSE_ALARM_STDDEVS = 8
OPENDP_STDDEV = 12.7
"""Of independent noise at (3, 1e-6) for 60 numbers of a user, rounded up."""


@pytest.fixture(scope="module")
def paths(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """The smallest workload."""
    return workload.write(tmp_path_factory.mktemp("workload"), "XS")


def numbers(script: str, *arguments: str) -> list[int]:
    """What a program prints."""
    command = [sys.executable, str(RIVALS / script), *arguments]
    done = subprocess.run(command, cwd=RIVALS, check=True, capture_output=True, text=True)
    return json.loads(done.stdout)


@pytest.mark.parametrize("script", ["duckdb_masks.py", "polars_masks.py"])
def test_programs_without_privacy_are_exact(script: str, paths: dict[str, Path]) -> None:
    """30 DAU and 30 MAU, each `-` taking one `+` away."""
    truth = json.loads(paths["truth"].read_text("utf-8"))

    assert truth["others"] == numbers(script, str(paths["parquet"]))


@SAIL
def test_sql_for_spark_is_exact(paths: dict[str, Path]) -> None:
    """30 DAU, WAU and MAU of a calendar month, the last row of a user and day deciding."""
    truth = json.loads(paths["truth"].read_text("utf-8"))
    path = str(workload.ordered(paths["parquet"]))
    with sail_server() as master:
        spark = connect(master)
        try:
            spark.read.parquet(path).createTempView("events")
            found = spark_sql.counts(spark, "events")
        finally:
            spark.stop()

    assert [list(month.values()) for month in truth["month"].values()] == found


@pytest.mark.slow
def test_opendp_releases_the_same_numbers_with_noise(paths: dict[str, Path]) -> None:
    """60 numbers around the exact ones; eight standard deviations are a false alarm of 1e-13."""
    truth = np.array(json.loads(paths["truth"].read_text("utf-8"))["others"])
    found = np.array(numbers("opendp_bounded.py", str(paths["parquet"]), "3.0", "1e-6"))

    assert (60,) == found.shape
    assert (np.abs(found - truth) < FALSE_ALARM_STDDEVS * OPENDP_STDDEV).all()
    assert 0 < np.abs(found - truth).max()
