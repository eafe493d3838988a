"""The activity under `SPARK_MASTER`: a lake of files, and the session that reads them."""

from contextlib import suppress
from typing import Final

from dpdau.activity.spark.session import connect, errors
from dpdau.activity.spark.store import SparkStore
from dpdau.datadir import DataDir
from dpdau.domain import Clock
from dpdau.errors import InvalidSettingError
from dpdau.settings import Settings

__all__ = ["OwnedLake", "open_lake", "refuse_with_lake"]

_MASTER: Final = "SPARK_MASTER"


class OwnedLake(SparkStore):
    """A lake with a session of its own, which ends with it."""

    def close(self) -> None:
        """Closes the store, then the session; may be called twice."""
        super().close()
        with suppress(*errors()):
            self.spark.stop()


def open_lake(
    folder: DataDir,
    settings: Settings,
    *,
    store_key: bytes | None,
    clock: Clock,
    read_only: bool,
) -> SparkStore:
    """The lake of the settings; a reader that comes first makes it, as a writer would.

    Raises:
        InvalidSettingError: A setting asks for what a lake does not have, or the activity in the
            data directory is not that of this lake.
        WarehouseUnavailableError: There is no Spark at `SPARK_MASTER`.
    """
    assert settings.SPARK_MASTER is not None, "the caller chooses the store"
    _check(settings, store_key)
    spark = connect(settings.SPARK_MASTER, options=settings.spark_options)
    try:
        if read_only and not SparkStore.exists(folder.activity):
            SparkStore(folder.activity, lake=settings.lake_dir, spark=spark, clock=clock).close()
        return OwnedLake(
            folder.activity,
            lake=settings.lake_dir,
            spark=spark,
            clock=clock,
            read_only=read_only,
        )
    except BaseException:
        spark.stop()
        raise


def refuse_with_lake(settings: Settings, what: str, instead: str) -> None:
    """Refuses what is done with the files of an embedded store.

    Raises:
        InvalidSettingError: The activity is in a lake.
    """
    if settings.SPARK_MASTER is not None:
        raise InvalidSettingError(
            f"Expected {_MASTER} unset for {what}, found it set: the activity is in a lake."
            f" {instead}",
            setting=_MASTER,
        )


def _check(settings: Settings, store_key: bytes | None) -> None:
    """Refuses what would have no effect on a lake, or a wrong one.

    Raises:
        InvalidSettingError: There is such a thing.
    """
    if store_key is not None:
        raise InvalidSettingError(
            f"Expected activity that is not encrypted with {_MASTER}, found a DATA_DIR of"
            " `dpdau init --encrypt`. Start a new one, and keep LAKE_DIR on an encrypted disk.",
            setting=_MASTER,
        )
    if settings.LIVE_EPSILON is not None:
        raise InvalidSettingError(
            f"Expected LIVE_EPSILON unset with {_MASTER}, found it set: a lake keeps no live day.",
            setting="LIVE_EPSILON",
        )
    if settings.INGEST_MODE == "kafka":
        raise InvalidSettingError(
            f"Expected INGEST_MODE=direct with {_MASTER}, found kafka. Leave {_MASTER} unset where"
            " events are passed on to Kafka, and set it where `dpdau consume` takes them.",
            setting="INGEST_MODE",
        )
