"""What an executor needs to turn raw events into rows of the lake, and the form of those rows.

Everything here and in `messages` and `pieces` runs on executors: it needs this package, numpy,
pyarrow and msgspec, and nothing else.
"""

import datetime as dt
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

import msgspec
import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from dpdau.domain import EventBatch
from dpdau.errors import DpdauError, StoreUnavailableError
from dpdau.ingest.batch import REJECTIONS_KEPT_MAX
from dpdau.ingest.rules import Rejection, Rules
from dpdau.pseudonym import EpochKey, Pseudonymizer

__all__ = ["NOTE", "POISON", "Recipe", "Tally", "alias_column", "label_column"]

NOTE: Final = "note"
"""In this column the last row of a task has its tally, and is no event."""
POISON: Final = ("poison_partition", "poison_offset", "poison_reason", "poison_events")
"""In these columns a row has a message that has to go elsewhere, and is no event."""
_EVENT: Final = (
    ("pseudonym", "BIGINT", pa.int64()),
    ("day", "INT", pa.int32()),
    ("add", "BOOLEAN", pa.bool_()),
    ("event_id", "BIGINT", pa.int64()),
    ("event", "BIGINT", pa.int64()),
)
_OTHER: Final = (
    (NOTE, "STRING", pa.string()),
    *zip(
        POISON,
        ("INT", "BIGINT", "STRING", "STRING"),
        (pa.int32(), pa.int64(), pa.string(), pa.string()),
        strict=True,
    ),
)


def label_column(place: int) -> str:
    """The column of the dimension at a place among the declared ones."""
    return f"label_{place}"


def alias_column(place: int) -> str:
    """The column of the pseudonym under an older live key, newest first."""
    return f"alias_{place}"


@dataclass(frozen=True, slots=True)
class Recipe:
    """How raw events become rows of the lake; it travels to the executors.

    Attributes:
        keys: The live pseudonym keys, newest first. Whoever can read what the driver sends to an
            executor can name users: see `dpdau.activity.spark.channel`.
        first_day: The first day that the keys may name.
        rules: What is taken; its dimensions are those of the rows.

    Guarantee: the pseudonyms, rejections and labels are those of `ingest.batch.build` on what the
    readers of this room make, because they are made by them.
    """

    keys: tuple[EpochKey, ...] = field(repr=False)
    first_day: dt.date
    rules: Rules

    def pseudonymizer(self) -> Pseudonymizer:
        """What names users."""
        return Pseudonymizer(self.keys, first_day=self.first_day)

    @property
    def columns(self) -> "tuple[tuple[str, str, pa.DataType], ...]":
        """Name, type in Spark and type in Arrow of the columns of a row of the lake."""
        labels = [label_column(place) for place in range(len(self.rules.dimensions))]
        aliases = [alias_column(place) for place in range(len(self.keys) - 1)]
        return (
            *_EVENT,
            *((name, "STRING", pa.string()) for name in labels),
            *((name, "BIGINT", pa.int64()) for name in aliases),
        )

    @property
    def schema(self) -> str:
        """The form of what an executor makes, as Spark reads it."""
        return ", ".join(f"`{name}` {kind}" for name, kind, _ in (*self.columns, *_OTHER))

    def rows(self, batch: EventBatch, event: NDArray[np.int64]) -> "pa.RecordBatch":
        """The rows of a batch.

        Args:
            batch: What `ingest.batch` built.
            event: (events,) which event each is; later ones have higher numbers.
        """
        index = batch.event_index
        columns: dict[str, Any] = {
            "pseudonym": batch.pseudonym.view(np.int64),
            "day": batch.day,
            "add": batch.add,
            "event_id": batch.event_id[index].view(np.int64),
            "event": event[index],
        }
        for place, name in enumerate(self.rules.dimensions):
            labels = batch.labels[name]
            codes = pa.array(labels.codes, mask=labels.codes < 0)
            values = pa.array(labels.values, pa.string())
            columns[label_column(place)] = pa.DictionaryArray.from_arrays(codes, values).cast(
                pa.string()
            )
        for place, alias in enumerate(batch.aliases):
            columns[alias_column(place)] = alias.view(np.int64)
        return self._made(columns, batch.pseudonym.shape[0])

    def noted(self, tally: "Tally") -> "pa.RecordBatch":
        """The row that ends a task."""
        return self._made({NOTE: [msgspec.json.encode(tally).decode()]}, 1)

    def poison(self, found: "list[tuple[int, int, str, str]]") -> "pa.RecordBatch":
        """A row for each message that has to go elsewhere: where it is, why, and which events."""
        columns = dict(zip(POISON, map(list, zip(*found, strict=True)), strict=True))
        return self._made(columns, len(found))

    def _made(self, columns: dict[str, Any], n: int) -> "pa.RecordBatch":
        """Rows with these columns, and nothing in the others."""
        kinds = [(name, kind) for name, _, kind in (*self.columns, *_OTHER)]
        arrays = [
            pa.array(columns[name], kind) if name in columns else pa.nulls(n, kind)
            for name, kind in kinds
        ]
        return pa.RecordBatch.from_arrays(arrays, schema=pa.schema(kinds))


class Tally(msgspec.Struct):
    """What a task met, all of it free of what events hold.

    Attributes:
        received: Events.
        taken: Events that are rows.
        rejected: The first rejections.
        codes: How many were rejected, by code.
        ends: Partition → the offset of its last message.
        oldest_ms: The time of the oldest message, in milliseconds since 1970.
        failure: What ended the task early: the code of an error and its message.
    """

    received: int = 0
    taken: int = 0
    rejected: list[Rejection] = []
    codes: dict[str, int] = {}
    ends: dict[int, int] = {}
    oldest_ms: int | None = None
    failure: tuple[str, str] | None = None

    def count(self, received: int, taken: int, rejected: Sequence[Rejection]) -> None:
        """Adds what became of some events."""
        self.received += received
        self.taken += taken
        self.rejected += rejected[: REJECTIONS_KEPT_MAX - len(self.rejected)]
        for one in rejected:
            self.codes[one.code.value] = self.codes.get(one.code.value, 0) + 1

    def __add__(self, other: "Tally") -> "Tally":
        known = [one for one in (self.oldest_ms, other.oldest_ms) if one is not None]
        both = [self.codes, other.codes]
        codes = {code: sum(one.get(code, 0) for one in both) for code in {**both[0], **both[1]}}
        return Tally(
            self.received + other.received,
            self.taken + other.taken,
            (self.rejected + other.rejected)[:REJECTIONS_KEPT_MAX],
            codes,
            {
                one: max(self.ends.get(one, 0), other.ends.get(one, 0))
                for one in {**self.ends, **other.ends}
            },
            min(known, default=None),
            self.failure or other.failure,
        )


def ended(
    recipe: Recipe, tally: Tally, rows: "Iterator[pa.RecordBatch]"
) -> "Iterator[pa.RecordBatch]":
    """The rows of a task and behind them its tally, also where an error of ours ends it.

    Raises:
        StoreUnavailableError: Another error ended it, of which only the name is told: Spark logs
            what a task raises, and tries it again.
    """
    failed = ""
    try:
        yield from rows
    except DpdauError as error:
        tally.failure = (error.code, error.message)
    except Exception as error:  # noqa: BLE001 - it may quote an event.
        failed = type(error).__name__
    if failed:
        raise StoreUnavailableError(f"Expected to read events, found the error {failed}.")
    yield recipe.noted(tally)
