"""The activity under `SPARK_MASTER`: a lake of files, and the session that reads them."""

import threading
from contextlib import suppress
from typing import TYPE_CHECKING, Final

from dpdau.activity.spark.lake import uri_of
from dpdau.activity.spark.session import check_form, connect, errors
from dpdau.activity.spark.store import SparkStore
from dpdau.datadir import DataDir
from dpdau.domain import Clock
from dpdau.errors import InvalidSettingError
from dpdau.settings import Settings

if TYPE_CHECKING:
    from pyspark.sql import SparkSession

__all__ = ["OwnedLake", "open_lake", "refuse_with_lake"]

_MASTER: Final = "SPARK_MASTER"


class OwnedSpark:
    """The session of the settings: it starts when it is first asked for, by whichever thread."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._lock = threading.Lock()
        self._session: SparkSession | None = None

    def __call__(self) -> "SparkSession":
        """The session.

        Raises:
            InvalidSettingError: The settings are none for a Spark.
            WarehouseUnavailableError: There is no Spark at `SPARK_MASTER`.
        """
        settings = self._settings
        assert settings.SPARK_MASTER is not None, "the caller chooses the store"
        with self._lock:
            if self._session is None:
                self._session = connect(settings.SPARK_MASTER, options=settings.spark_options)
            return self._session

    def stop(self) -> None:
        """Ends it, where it was started; may be called twice."""
        with self._lock:
            if self._session is not None:
                with suppress(*errors()):
                    self._session.stop()


class OwnedLake(SparkStore):
    """A lake with a session of its own, which ends with it."""

    def __init__(
        self, folder: DataDir, settings: Settings, *, clock: Clock, read_only: bool = False
    ) -> None:
        self._own = OwnedSpark(settings)
        super().__init__(
            folder.activity,
            lake=settings.lake_dir,
            spark=self._own,
            clock=clock,
            read_only=read_only,
        )

    def start(self) -> None:
        """Starts the session now, where the first question would; raises what that does."""
        self._own()

    def close(self) -> None:
        """Closes the store, then the session; may be called twice."""
        super().close()
        self._own.stop()


def open_lake(
    folder: DataDir,
    settings: Settings,
    *,
    store_key: bytes | None,
    clock: Clock,
    read_only: bool,
) -> SparkStore:
    """The lake of the settings; a reader that comes first makes it, as a writer would.

    Its Spark starts with the first question to it: what only the ledger is asked needs none.

    Raises:
        InvalidSettingError: A setting asks for what a lake does not have, the activity in the data
            directory is not that of this lake, or `SPARK_MASTER` is no Spark.
    """
    _check(settings, store_key)
    assert settings.SPARK_MASTER is not None, "the caller chooses the store"
    check_form(settings.SPARK_MASTER)
    if read_only and not SparkStore.exists(folder.activity):
        OwnedLake(folder, settings, clock=clock).close()
    return OwnedLake(folder, settings, clock=clock, read_only=read_only)


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
    for one in (settings.lake_dir, settings.DATA_DIR):
        uri_of(one.resolve())
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
