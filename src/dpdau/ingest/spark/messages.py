"""Messages of a Kafka topic, as an executor reads them."""

import itertools
from collections.abc import Iterable, Iterator, Mapping
from typing import Any, Final

import numpy as np
import pyarrow as pa

from dpdau.ingest.batch import build
from dpdau.ingest.kafka.messages import read
from dpdau.ingest.spark.recipe import Recipe, Tally, ended

__all__ = ["COLUMNS", "rows_of_messages"]

COLUMNS: Final = ("value", "partition", "offset", "timestamp_ms")
"""What is read of a topic."""
PARTITIONS_MAX: Final = 1 << 16


def rows_of_messages(
    recipe: Recipe, after: Mapping[int, int], batches: "Iterable[pa.RecordBatch]"
) -> "Iterator[pa.RecordBatch]":
    """Turns messages into rows of the lake; one call for each task of Spark.

    Guarantee: within a partition, a later event has a higher position, and no two events of one
    batch of Spark have the same, as long as a task reads whole partitions: so Spark's source does
    unless it is told otherwise.

    Args:
        recipe: How.
        after: Partition → the offset behind which messages are taken, where any was taken before.
        batches: Messages in the order of each partition, with `COLUMNS`.
    """
    tally = Tally()
    return ended(recipe, tally, _rows(recipe, after, batches, tally))


def _rows(
    recipe: Recipe, after: Mapping[int, int], batches: "Iterable[pa.RecordBatch]", tally: Tally
) -> "Iterator[pa.RecordBatch]":
    pseudonymizer, dimensions = recipe.pseudonymizer(), recipe.rules.dimensions
    done = 0
    for arrived in batches:
        columns = [arrived.column(name).to_pylist() for name in COLUMNS]
        messages = [_Message(*row) for row in zip(*columns, strict=True)]
        fresh = (one for one in messages if one.place[1] > after.get(one.place[0], -1))
        for partition, some in itertools.groupby(fresh, lambda one: one.place[0]):
            assert partition < PARTITIONS_MAX
            own = list(some)
            times = [one.timestamp_ms for one in own]
            tally.oldest_ms = min(times if tally.oldest_ms is None else [*times, tally.oldest_ms])
            for batch in read(own, rules=recipe.rules):
                decoded = batch.decoded
                built = build(decoded, pseudonymizer, dimensions=dimensions)
                tally.count(decoded.received, built.events, decoded.rejected)
                tally.ends |= batch.ends
                position = (done + np.arange(built.events, dtype=np.int64)) * PARTITIONS_MAX
                done += built.events
                yield recipe.rows(built, position + partition)
                poison = [
                    (
                        partition,
                        one.message.offset() or 0,
                        one.code,
                        ",".join(map(str, one.indexes)),
                    )
                    for one in batch.poison
                ]
                if poison:
                    yield recipe.poison(poison)


class _Message:
    """A row of Spark's source as the reader of messages takes it."""

    __slots__ = ("content", "place", "timestamp_ms")

    def __init__(
        self, content: bytes | None, partition: int, offset: int, timestamp_ms: int
    ) -> None:
        self.content = content
        self.place = (partition, offset)
        self.timestamp_ms = timestamp_ms

    def __repr__(self) -> str:
        return "_Message(<private>)"

    def value(self, _payload: Any = None, /) -> bytes | None:
        return self.content

    def key(self, _payload: Any = None, /) -> bytes | None:
        return None

    def topic(self) -> str | None:
        return None

    def partition(self) -> int | None:
        return self.place[0]

    def offset(self) -> int | None:
        return self.place[1]

    def timestamp(self) -> tuple[int, int]:
        return 0, self.timestamp_ms
