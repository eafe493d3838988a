"""Events into a lake by Spark: files and topics that its executors read themselves."""

from collections.abc import Callable
from contextlib import AbstractContextManager
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from dpdau.errors import InvalidSettingError
from dpdau.ingest.batch import IngestReport
from dpdau.ingest.rules import Rules
from dpdau.pseudonym import Pseudonymizer

if TYPE_CHECKING:
    from dpdau.activity.spark.store import SparkStore
    from dpdau.app.product import App
    from dpdau.ingest.files import FileFormat
    from dpdau.ingest.spark.adopting import Decoded
    from dpdau.ingest.spark.recipe import Recipe

__all__ = ["Adoption", "ingest_path", "lake_of", "start_spark"]


def lake_of(app: "App") -> "SparkStore | None":
    """The lake of an app, or None where its store is embedded."""
    if app.settings.SPARK_MASTER is None:
        return None
    from dpdau.activity.spark.store import SparkStore

    store = app.intake.store
    return store if isinstance(store, SparkStore) else None


def start_spark(app: "App") -> None:
    """Has the Spark of an app start now: a service is told at its start what is wrong with it.

    Raises:
        InvalidSettingError: The settings are none for a Spark.
        WarehouseUnavailableError: There is no Spark at `SPARK_MASTER`.
    """
    from dpdau.app.spark import OwnedLake

    lake = lake_of(app)
    if isinstance(lake, OwnedLake):
        lake.start()


def ingest_path(
    app: "App",
    source: Path,
    *,
    rules: Rules,
    file_format: "FileFormat | None" = None,
    batch_id: str | None = None,
) -> IngestReport:
    """Has the executors read a file, or all files of a folder, into the lake: all or nothing.

    Args:
        app: The product; its store is a lake.
        source: Where every executor finds it.
        rules: What is taken.
        file_format: Of every file; by default its name says.
        batch_id: A name for this content: read again under it, it changes nothing.

    Raises:
        NotFoundError: There is nothing to read.
        StoreUnavailableError: Nothing of it is stored; retry.
        DpdauError: What stood in the way in a file; nothing of it is stored.
    """
    from dpdau.ingest.spark.adopting import decoded_pieces
    from dpdau.ingest.spark.pieces import pieces_of

    adoption, pieces = Adoption(app), pieces_of(source, file_format)
    return adoption(
        lambda recipe: decoded_pieces(adoption.lake.spark, pieces, recipe),
        rules=rules,
        batch_id=batch_id,
    )


class Adoption:
    """The way of what executors decoded into the lake of an app.

    Guarantee: nothing is written under keys that are older than those that anything was written
    under before: where they changed while the executors worked, they work again.
    """

    def __init__(self, app: "App") -> None:
        lake = lake_of(app)
        if lake is None:
            raise InvalidSettingError(
                "Expected SPARK_MASTER, the Spark that reads into the lake, found it unset.",
                setting="SPARK_MASTER",
            )
        self.lake = lake
        self._app = app

    def __call__(
        self,
        decoded: "Callable[[Recipe], AbstractContextManager[Decoded]]",
        *,
        rules: Rules,
        batch_id: str | None = None,
        offsets: "Callable[[Decoded], dict[str, int]]" = lambda _found: {},
    ) -> IngestReport:
        """Has events decoded and adopts them; durable when it returns.

        Args:
            decoded: Has executors decode by a recipe.
            rules: What is taken.
            batch_id: The sender's id of the batch.
            offsets: Gives source → the last offset, of what was decoded.

        Raises:
            DpdauError: What stood in the way; nothing of it is stored.
        """
        from dpdau.ingest.spark.recipe import Recipe

        keys, report = self._app.keys, None
        while report is None:
            names = keys.pseudonymizer()
            recipe = Recipe(keys.live(), names.first_day, rules)
            with decoded(recipe) as found:
                work = partial(self._adopted, found, names, batch_id, offsets(found))
                report = self._app.intake.alone(work)
        return report

    def _adopted(
        self,
        found: "Decoded",
        names: Pseudonymizer,
        batch_id: str | None,
        offsets: dict[str, int],
    ) -> IngestReport | None:
        """Adopts, unless the keys are other ones by now; the caller has the store to itself."""
        if self._app.keys.pseudonymizer() is not names:
            return None
        hashed = () if batch_id is None else names.batch_ids(batch_id)
        return found.adopt(self.lake, batch_ids=hashed, offsets=offsets)
