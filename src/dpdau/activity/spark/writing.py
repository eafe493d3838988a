"""Rows that Spark writes, and how many it says they are."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from dpdau.activity.spark.lake import uri_of

if TYPE_CHECKING:
    from pyspark.sql import DataFrame

__all__ = ["written"]


def written(rows: "DataFrame", stage: Path, *, by: Sequence[str] = ()) -> int:
    """Has Spark write rows to a stage; how many it wrote.

    An executor that does not share the folder writes to its own disk, and Spark ends the job in
    peace. So the rows are counted while they are written, and who takes the files compares. Sail,
    which is one server, cannot do that: it counts what it sees in the stage.

    Args:
        rows: What to compute and to write.
        stage: The folder to make.
        by: Columns, each combination of which gets files of its own.
    """
    from pyspark.errors import PySparkException
    from pyspark.sql import Observation
    from pyspark.sql import functions as sql

    seen = Observation()
    try:
        _write(rows.observe(seen, sql.count(sql.lit(1)).alias("rows")), stage, by)
        return int(seen.get["rows"])
    except PySparkException as error:
        if type(error).__name__ != "UnsupportedOperationException":
            raise
    _write(rows, stage, by)
    # Any column will do: of each file, only the footer is read.
    return rows.sparkSession.read.schema("`commit` BIGINT").parquet(uri_of(stage)).count()


def _write(rows: "DataFrame", stage: Path, by: Sequence[str]) -> None:
    """Writes rows as they come."""
    rows.write.partitionBy(*by).option("compression", "zstd").parquet(uri_of(stage))
