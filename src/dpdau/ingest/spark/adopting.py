"""Raw events that Spark reads, into the lake: decoded by its executors, tallied here."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial, reduce
from operator import add
from typing import TYPE_CHECKING, Any, Final, TypeVar

import msgspec

from dpdau.activity.spark.session import errors, word_of
from dpdau.activity.spark.store import SparkStore
from dpdau.activity.store import Applied
from dpdau.errors import StoreUnavailableError, TopicMismatchError, error_class
from dpdau.ingest.batch import IngestReport
from dpdau.ingest.spark.messages import rows_of_messages
from dpdau.ingest.spark.pieces import Piece, rows_of_pieces, table_of
from dpdau.ingest.spark.recipe import NOTE, POISON, Recipe, Tally, alias_column, label_column

if TYPE_CHECKING:
    from pyspark.sql import DataFrame, SparkSession

__all__ = ["Decoded", "asked", "decoded_messages", "decoded_pieces", "gap", "is_gap"]

# The words of the connector; its own name of the error is not in every release.
_GAPS: Final = ("Some data may have been lost", "failOnDataLoss", "KAFKA_DATA_LOSS")
_Answer = TypeVar("_Answer")
_Work = Callable[[Iterator[Any]], Iterator[Any]]


@dataclass(frozen=True, slots=True)
class Decoded:
    """What Spark read, decoded: rows of the lake, messages that go elsewhere, and the tally."""

    recipe: Recipe
    frame: "DataFrame"
    tally: Tally

    def poison(self) -> "DataFrame":
        """Where each message lies that cannot be taken as a whole, and why."""
        return self.frame.where(f"{POISON[2]} IS NOT NULL").select(*POISON)

    def adopt(
        self,
        store: SparkStore,
        *,
        batch_ids: Sequence[str] = (),
        offsets: Mapping[str, int] | None = None,
    ) -> IngestReport:
        """Folds the rows into the lake, all or nothing; durable when it returns.

        Args:
            store: The lake.
            batch_ids: The keyed hashes of the batch's id, newest first.
            offsets: Source → the last offset in the batch.

        Raises:
            StoreUnavailableError: Nothing of it was applied; retry.
        """
        recipe, tally = self.recipe, self.tally
        applied = Applied(0, 0, 0)
        if tally.taken or offsets:
            newest, *older = batch_ids or (None,)
            applied = store.adopt(
                self.frame.where("event IS NOT NULL").select(
                    *(name for name, *_ in recipe.columns)
                ),
                dimensions={
                    name: label_column(place) for place, name in enumerate(recipe.rules.dimensions)
                },
                aliases=[alias_column(place) for place in range(len(recipe.keys) - 1)],
                batch_id=newest,
                older_batch_ids=[one for one in older if one is not None],
                offsets=offsets,
            )
        rejected = sum(tally.codes.values())
        return IngestReport(
            # What was stored, should a file have been changed between the tally and the writing.
            applied.accepted + applied.duplicate + applied.late + rejected,
            applied.accepted,
            applied.duplicate,
            applied.late,
            tuple(tally.rejected),
            rejected,
        )


@contextmanager
def decoded_pieces(
    spark: "SparkSession", pieces: Sequence[Piece], recipe: Recipe
) -> Iterator[Decoded]:
    """Has executors read pieces of files, each in a task of its own.

    Raises:
        DpdauError: What stood in the way in a file.
        StoreUnavailableError: Spark could not do it; retry.
    """
    from pyspark.sql import functions as sql

    numbers = spark.range(0, len(pieces), 1, len(pieces))
    # Pieces travel as rows and not within the work, which has the keys: work of more than a
    # megabyte goes to the executors by way of a file that is not encrypted. That of messages stays
    # below it, with a number for each partition.
    told = sql.broadcast(spark.createDataFrame(table_of(pieces)))
    with _decoded(numbers.join(told, "id"), partial(rows_of_pieces, recipe), recipe) as found:
        yield found


@contextmanager
def decoded_messages(
    messages: "DataFrame", recipe: Recipe, *, after: Mapping[int, int]
) -> Iterator[Decoded]:
    """Has executors read messages of a topic, each partition in a task of its own.

    Args:
        messages: Rows with the columns of `ingest.spark.messages`.
        recipe: How.
        after: Partition → the offset behind which messages are taken.

    Raises: as `decoded_pieces`.
    """
    with _decoded(messages, partial(rows_of_messages, recipe, dict(after)), recipe) as found:
        yield found


@contextmanager
def _decoded(frame: "DataFrame", work: _Work, recipe: Recipe) -> Iterator[Decoded]:
    """Does the work of the executors once, and keeps what they made for as long as this lasts."""
    made = asked("read events", lambda: frame.mapInArrow(work, recipe.schema).persist())
    try:
        notes = asked(
            "read events", lambda: made.where(f"{NOTE} IS NOT NULL").select(NOTE).collect()
        )
        tallies = (msgspec.json.decode(note, type=Tally) for (note,) in notes)
        tally = reduce(add, tallies, Tally())
        if tally.failure is not None:
            code, message = tally.failure
            raise (error_class(code) or StoreUnavailableError)(message)
        yield Decoded(recipe, made, tally)
    finally:
        made.unpersist()


def asked(what: str, work: Callable[[], _Answer]) -> _Answer:
    """Asks Spark for something; what it raises becomes the product's own error, quoting nothing.

    Raises:
        TopicMismatchError: Messages are gone that were not read.
        StoreUnavailableError: Spark did not do what it was asked for.
    """
    try:
        return work()
    except errors() as error:
        failed, is_gone = word_of(error), is_gap(error)
    if is_gone:
        raise gap()
    raise StoreUnavailableError(f"Expected Spark to {what}, found the error {failed}; retry.")


def is_gap(error: Exception) -> bool:
    """Whether Spark's Kafka connector says that messages are gone."""
    return any(one in str(error) for one in _GAPS)


def gap() -> TopicMismatchError:
    """The error of a topic from which messages are gone that were not read."""
    return TopicMismatchError(
        "Expected the topic to go on where it was left, found that messages are gone which were"
        " not read. --accept-gap goes on without them."
    )
