"""One state of the lake: which of its files are read, and that a job has read all of them."""

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Final, TypeVar

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from dpdau.activity.held import PlanMonth
from dpdau.activity.lake_table import LakeFile
from dpdau.activity.spark.lake import UNSPLIT, Lake, TableKind, part_of
from dpdau.activity.spark.session import errors, word_of
from dpdau.errors import StoreUnavailableError

if TYPE_CHECKING:
    from pyspark.sql import DataFrame, SparkSession

LITERALS_MAX: Final = 1024
"""So many keys are named in a query, where the bounds of files leave most of them unread."""

_Answer = TypeVar("_Answer")


class LakeState:
    """The files that are the store at one moment, as DataFrames.

    Args:
        spark: Who reads them.
        lake: Where they are.
        files: All of them.
        months: The open months at the same moment.
    """

    def __init__(
        self,
        spark: "SparkSession",
        lake: Lake,
        files: Sequence[LakeFile],
        months: Sequence[PlanMonth] = (),
    ) -> None:
        self._spark = spark
        self._lake = lake
        self._read: dict[str, LakeFile] = {}
        self.files = list(files)
        self.months = months

    def of(self, kind: TableKind) -> list[LakeFile]:
        """The files of a kind, oldest first."""
        return [one for one in self.files if one.kind == kind.kind]

    def rows(
        self,
        kind: TableKind,
        *,
        groups: range | None = None,
        days: range | None = None,
    ) -> "DataFrame":
        """The rows of a kind; those of some groups and days where they are given."""
        from pyspark.sql import functions as sql

        files = self.of(kind)
        if groups is not None:
            files = [one for one in files if one.has_groups(groups)]
        if days is not None:
            files = [one for one in files if one.has_days(days)]
        rows = self.of_files(kind, files)
        if groups is not None:
            rows = rows.filter(sql.col("group").between(groups.start, groups.stop - 1))
        if days is not None:
            rows = rows.filter(sql.col("day").between(days.start, days.stop - 1))
        return rows

    def rows_of(self, kind: TableKind, keys: NDArray[np.uint64]) -> "DataFrame":
        """The rows of a kind that have one of some keys."""
        from pyspark.sql import functions as sql

        rows = self.of_files(kind, [one for one in self.of(kind) if may_have(one, keys)])
        signed = keys.view(np.int64)
        if len(keys) <= LITERALS_MAX:
            return rows.filter(sql.col("key").isin(signed.tolist()))
        known = self._spark.createDataFrame(pa.table({"key": signed}))
        return rows.join(known, "key", "left_semi")

    def of_files(self, kind: TableKind, files: Sequence[LakeFile]) -> "DataFrame":
        """The rows of some files of a kind."""
        if not files:
            return self._spark.createDataFrame([], kind.schema)
        self._read.update({one.name: one for one in files})
        return self._spark.read.schema(kind.schema).parquet(*map(self._lake.uri, files))

    def run(self, job: Callable[[], _Answer]) -> _Answer:
        """The answer of a job over rows of this state.

        Raises:
            FileNotFoundError: A file that it had to read is gone or cut; the answer is of no use.
            StoreUnavailableError: Spark gave up for another reason.
        """
        failed, answer = "", None
        try:
            answer = job()
        except errors() as error:
            failed = word_of(error)
        for name in self._lake.damaged(self._read.values()):
            raise FileNotFoundError(0, "gone or cut", name)
        if failed:
            raise StoreUnavailableError(
                f"Expected Spark to read the lake, found the error {failed}; retry."
            )
        return answer  # type: ignore[return-value]


def may_have(file: LakeFile, keys: NDArray[np.uint64]) -> bool:
    """Whether a file may hold a row of one of some keys."""
    return file.part == UNSPLIT or file.part in {part_of(one) for one in keys.tolist()}
