"""Pseudonymous events, one by one and as columns."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

BATCH_ROWS_MAX: Final = 5_000_000


class Op(StrEnum):
    """What an event does to the pair (user, day)."""

    ADD = "+"
    REMOVE = "-"


@dataclass(frozen=True, slots=True)
class Event:
    """One (pseudonym, day) pair put in or taken out: the scalar form of a row of `EventBatch`.

    Made only by `ingest.batch`; `event_id` is the sender's idempotency key, already hashed.
    """

    pseudonym: int
    op: Op
    day: int
    event_id: int = 0


@dataclass(frozen=True, slots=True)
class Labels:
    """The values of one dimension for the rows of a batch.

    Shapes and units:
        codes: (n,) int32, an index into `values`, or -1 where the row has none.
    """

    values: tuple[str, ...]
    codes: "NDArray[np.int32]"


@dataclass(frozen=True, slots=True)
class EventBatch:
    """Door 2: pseudonymous events in arrival order, as columns. Made only by `ingest.batch`.

    One event gives one row for each day that it touches; rows of one event share `event_index`.

    Shapes and units:
        pseudonym: (n,) uint64, under the current key epoch.
        aliases: (k, n) uint64, the same users under the k older live keys, newest first.
        day: (n,) int32 day numbers.
        add: (n,) bool, True for `+`.
        event_index: (n,) int32, non-decreasing ordinals 0..events-1.
        event_id: (events,) uint64 keyed hash of the sender's id, 0 where none was sent.
        labels: dimension → `Labels` over the n rows.
        batch_id: keyed hash of the sender's id of the batch, under the current key epoch.
        older_batch_ids: the same under the older live keys.
    """

    events: int
    pseudonym: "NDArray[np.uint64]"
    day: "NDArray[np.int32]"
    add: "NDArray[np.bool_]"
    event_index: "NDArray[np.int32]"
    event_id: "NDArray[np.uint64]"
    aliases: "NDArray[np.uint64]"
    labels: Mapping[str, Labels] = field(default_factory=dict)
    batch_id: str | None = None
    older_batch_ids: tuple[str, ...] = ()
    offsets: Mapping[str, int] = field(default_factory=dict)

    def __post_init__(self) -> None:
        n = self.pseudonym.shape[0]
        assert n <= BATCH_ROWS_MAX, "a batch is split before it is built"
        assert self.day.shape == self.add.shape == self.event_index.shape == (n,)
        assert self.event_id.shape == (self.events,)
        assert self.aliases.ndim == 2 and self.aliases.shape[1] == n
        assert all(one.codes.shape == (n,) for one in self.labels.values())

    def __repr__(self) -> str:
        return f"EventBatch(events={self.events}, rows=<private>)"
