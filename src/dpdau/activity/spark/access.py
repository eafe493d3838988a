"""The doors of the lake store, and what is read of the lake in one state of the manifest."""

import functools
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Final, TypeVar

from dpdau.activity.doors import Doors, translated
from dpdau.activity.manifest import Manifest
from dpdau.activity.sealing import Sealer
from dpdau.activity.spark.lake import Lake
from dpdau.activity.spark.state import LakeState
from dpdau.activity.spark.writer import LakeLimits, LakeWriter
from dpdau.errors import StoreUnavailableError

if TYPE_CHECKING:
    from pyspark.sql import SparkSession

_READ_ATTEMPTS: Final = 10

_Answer = TypeVar("_Answer")


class LakeAccess(Doors[LakeWriter]):
    """One writer at a time, any number of readers, all errors the store's own.

    Args and Raises are those of `SparkStore`.
    """

    def __init__(
        self,
        root: Path,
        *,
        lake: Path,
        spark: "SparkSession | Callable[[], SparkSession]",
        read_only: bool,
        limits: LakeLimits,
    ) -> None:
        self.lake: Final = Lake(lake, read_only=read_only)
        self._spark = spark if callable(spark) else lambda: spark
        self._limits = limits
        super().__init__(
            root,
            # The files of a lake are read by Spark, which has no store key.
            sealer=Sealer(None),
            read_only=read_only,
            lock_wait_seconds=limits.lock_wait_seconds,
            lake=self.lake,
        )

    @property
    def spark(self) -> "SparkSession":
        """The session, which may start here."""
        return self._spark()

    def read(self, question: Callable[[LakeState], _Answer]) -> _Answer:
        """Answers from one state; takes another one where a merge replaced a file meanwhile."""
        with translated():
            for _ in range(_READ_ATTEMPTS):
                with self.looking() as manifest:
                    files, months = manifest.lake.files(), manifest.open_months()
                state = LakeState(self.spark, self.lake, files, months)
                try:
                    return state.run(functools.partial(question, state))
                except FileNotFoundError as gone:
                    with self.looking() as manifest:
                        if gone.filename in manifest.lake.names():
                            raise
        raise StoreUnavailableError(
            "Expected to read while another process merges, found files replaced too often; retry."
        )

    def _make_writer(self, manifest: Manifest) -> LakeWriter:
        """Changes the files of the lake."""
        return LakeWriter(
            manifest, lake=self.lake, spark=self._spark, limits=self._limits, turn=self._lock
        )

    def _recover(self, manifest: Manifest) -> None:
        """Ends what a crash cut short; the caller holds the writer's lock."""
        self._make_writer(manifest).recover()

    def _has_data(self) -> bool:
        """Whether there are files in the lake."""
        return bool(self.lake.names())

    def _close_views(self) -> None:
        """Nothing is kept open: the session is the caller's."""
