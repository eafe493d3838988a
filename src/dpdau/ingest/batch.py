"""Door 2: the one maker of `domain.EventBatch`, and what became of the events of a batch."""

import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, NamedTuple, Self

import numpy as np
from numpy.typing import NDArray

from dpdau.activity.store import ActivityStore, Applied
from dpdau.domain import BATCH_ROWS_MAX, Event, EventBatch, Labels, Op, day_number
from dpdau.errors import StoreUnavailableError, TooLargeError
from dpdau.ingest.decoded import DecodedTable
from dpdau.ingest.event import Decoded, RawEvent
from dpdau.ingest.rules import Rejection, Rules
from dpdau.pseudonym import Pseudonymizer

__all__ = [
    "IngestReport",
    "Prepared",
    "Source",
    "build",
    "build_many",
    "events_of",
    "from_arrow",
    "ingest",
]

REJECTIONS_KEPT_MAX: Final = 1_000


class Prepared(NamedTuple):
    """A batch to be stored, and what of its source was not taken."""

    batch: EventBatch
    rejected: Sequence[Rejection]


@dataclass(frozen=True, slots=True)
class IngestReport:
    """What became of events: received = accepted + duplicate + late + rejected_count, always.

    `rejected` has the first `REJECTIONS_KEPT_MAX` rejections; `rejected_count` counts them all.
    """

    received: int = 0
    accepted: int = 0
    duplicate: int = 0
    late: int = 0
    rejected: tuple[Rejection, ...] = ()
    rejected_count: int = 0

    def __post_init__(self) -> None:
        assert len(self.rejected) <= self.rejected_count
        assert self.received == sum(self.outcomes().values())

    @classmethod
    def of(cls, received: int, applied: Applied, rejected: Sequence[Rejection]) -> Self:
        """The report of one batch that was stored."""
        return cls(
            received,
            applied.accepted,
            applied.duplicate,
            applied.late,
            tuple(rejected[:REJECTIONS_KEPT_MAX]),
            len(rejected),
        )

    def __add__(self, other: "IngestReport") -> "IngestReport":
        return IngestReport(
            self.received + other.received,
            self.accepted + other.accepted,
            self.duplicate + other.duplicate,
            self.late + other.late,
            (self.rejected + other.rejected)[:REJECTIONS_KEPT_MAX],
            self.rejected_count + other.rejected_count,
        )

    def outcomes(self) -> dict[str, int]:
        """The number of events by outcome; they add up to `received`."""
        return {
            "accepted": self.accepted,
            "duplicate": self.duplicate,
            "late": self.late,
            "rejected": self.rejected_count,
        }

    def to_json(self) -> dict[str, Any]:
        """The answer of an ingest of the contract, section 8; `ingested` is what was stored."""
        return {
            "ingested": self.accepted + self.late,
            "received": self.received,
            "accepted": self.accepted,
            "duplicate": self.duplicate,
            "late": self.late,
            "rejected": [
                {
                    "index": one.index,
                    "code": one.code.value,
                    "field": one.field,
                    "message": one.message,
                }
                for one in self.rejected
            ],
            "rejected_count": self.rejected_count,
        }


def ingest(
    decoded: Decoded | DecodedTable,
    *,
    store: ActivityStore,
    pseudonymizer: Pseudonymizer,
    dimensions: Sequence[str] = (),
    batch_id: str | None = None,
    offsets: Mapping[str, int] | None = None,
) -> IngestReport:
    """Stores what was read; durable when it returns.

    Guarantee: whether the events of one user are applied depends on those events, their `event_id`s
    and the `batch_id` alone, never on the events of another: no id is made from the content.

    Args:
        decoded: What a reader of this room made.
        store: Where it goes.
        pseudonymizer: The live keys.
        dimensions: The declared dimensions.
        batch_id: The sender's id of the batch: a second one with it changes nothing.
        offsets: Source → the last offset in the batch.

    Raises:
        TooLargeError: The batch touches too many (user, day) pairs.
        StoreUnavailableError: Nothing was stored; retry.
    """
    batch = build(decoded, pseudonymizer, dimensions=dimensions, batch_id=batch_id, offsets=offsets)
    empty = batch.events == 0 and not batch.offsets
    applied = Applied(0, 0, 0) if empty else store.apply(batch)
    assert applied.accepted + applied.duplicate + applied.late == batch.events
    return IngestReport.of(decoded.received, applied, decoded.rejected)


class Source(NamedTuple):
    """What was read for one batch, the sender's id of it, and the offsets stored with it."""

    decoded: Decoded | DecodedTable
    batch_id: str | None = None
    offsets: Mapping[str, int] | None = None


def build(
    decoded: Decoded | DecodedTable,
    pseudonymizer: Pseudonymizer,
    *,
    dimensions: Sequence[str] = (),
    batch_id: str | None = None,
    offsets: Mapping[str, int] | None = None,
) -> EventBatch:
    """Replaces user ids by pseudonyms; the order of the events is kept.

    Raises:
        TooLargeError: The events touch more than `BATCH_ROWS_MAX` (user, day) pairs.
        StoreUnavailableError: A day is before the first one that the keys may name: a key was
            destroyed after the events were read. Read again, they are rejected one by one.
    """
    source = Source(decoded, batch_id, offsets)
    return build_many([source], pseudonymizer, dimensions=dimensions)[0]


def build_many(
    sources: Sequence[Source], pseudonymizer: Pseudonymizer, *, dimensions: Sequence[str] = ()
) -> list[EventBatch]:
    """The batch of each source; those that were read event by event are hashed together.

    Raises:
        TooLargeError: A batch, or those hashed together, touch more than `BATCH_ROWS_MAX` (user,
            day) pairs.
        StoreUnavailableError: As for `build`.
    """
    batches = []
    for _, some in itertools.groupby(sources, lambda one: type(one.decoded)):
        alike = list(some)
        tables = [one.decoded for one in alike if isinstance(one.decoded, DecodedTable)]
        items = [one.decoded for one in alike if isinstance(one.decoded, Decoded)]
        columns = [_from_table(one, pseudonymizer, dimensions) for one in tables]
        columns += _from_events(items, pseudonymizer, dimensions) if items else []
        for one, its_columns in zip(alike, columns, strict=True):
            _check_days(its_columns["day"], pseudonymizer)
            hashed, *older = (
                (None,) if one.batch_id is None else pseudonymizer.batch_ids(one.batch_id)
            )
            batches.append(
                EventBatch(
                    **its_columns,
                    batch_id=hashed,
                    older_batch_ids=tuple(older),
                    offsets=dict(one.offsets or {}),
                )
            )
    return batches


def _check_days(day: NDArray[np.int32], pseudonymizer: Pseudonymizer) -> None:
    """Refuses events whose user may have rows under a key that is gone: it would count twice."""
    if len(day) and int(day.min()) < day_number(pseudonymizer.first_day):
        raise StoreUnavailableError(
            "Expected events that are not older than the pseudonym keys, found that a key was "
            "destroyed while they were read; send them again."
        )


def from_arrow(
    table: Any,
    pseudonymizer: Pseudonymizer,
    *,
    rules: Rules,
    batch_id: str | None = None,
    offsets: Mapping[str, int] | None = None,
) -> Prepared:
    """The batch in an Arrow table; `columns.decode_table` and `build` in one step."""
    from dpdau.ingest.columns import decode_table

    decoded = decode_table(table, rules=rules)
    batch = build(
        decoded, pseudonymizer, dimensions=rules.dimensions, batch_id=batch_id, offsets=offsets
    )
    return Prepared(batch, decoded.rejected)


def events_of(batch: EventBatch) -> list[Event]:
    """The rows of a batch one by one: what a fold over single events takes."""
    return [
        Event(pseudonym, Op.ADD if add else Op.REMOVE, day, int(batch.event_id[index]))
        for pseudonym, add, day, index in zip(
            batch.pseudonym.tolist(),
            batch.add.tolist(),
            batch.day.tolist(),
            batch.event_index.tolist(),
            strict=True,
        )
    ]


def _from_events(
    decoded: Sequence[Decoded], pseudonymizer: Pseudonymizer, dimensions: Sequence[str]
) -> list[dict[str, Any]]:
    """The columns of events one by one; an event with several days becomes several rows."""
    events = list(itertools.chain.from_iterable(one.events for one in decoded))
    n = len(events)
    pseudonym, aliases = pseudonymizer.many([one.user_id for one in events])
    event_id = _event_ids(events, pseudonym, pseudonymizer)
    numbers = {day: day_number(day) for day in {one.day for one in events}}
    day = np.fromiter((numbers[one.day] for one in events), dtype=np.int32, count=n)
    add = np.fromiter((one.op is Op.ADD for one in events), dtype=np.bool_, count=n)
    index = np.arange(n, dtype=np.int32)
    if any(one.days for one in events):
        touched = [one.days or (one.day,) for one in events]
        index = np.repeat(index, [len(days) for days in touched])
        _check_rows(index.shape[0])
        day = np.array([day_number(one) for days in touched for one in days], dtype=np.int32)
        pseudonym, aliases, add = pseudonym[index], aliases[:, index], add[index]
    _check_rows(n)
    ends = list(itertools.accumulate((len(one.events) for one in decoded), initial=0))
    edges = np.searchsorted(index, ends).tolist()
    found = []
    for (first, last), (start, stop) in zip(
        itertools.pairwise(ends), itertools.pairwise(edges), strict=True
    ):
        rows = slice(start, stop)
        own_index = index[rows] - np.int32(first)
        found.append(
            {
                "events": last - first,
                "pseudonym": pseudonym[rows],
                "aliases": aliases[:, rows],
                "day": day[rows],
                "add": add[rows],
                "event_index": own_index,
                "event_id": event_id[first:last],
                "labels": {
                    name: _labels(events[first:last], name, own_index) for name in dimensions
                },
            }
        )
    return found


def _event_ids(
    events: Sequence[RawEvent], pseudonym: NDArray[np.uint64], pseudonymizer: Pseudonymizer
) -> NDArray[np.uint64]:
    """Hashed event ids, 0 where an event has none."""
    hashed = np.zeros(len(events), dtype=np.uint64)
    sent = [place for place, one in enumerate(events) if one.event_id is not None]
    if sent:
        ids = [one.event_id for one in events if one.event_id is not None]
        hashed[sent] = pseudonymizer.event_ids(ids, pseudonym[sent])
    return hashed


def _labels(events: Sequence[RawEvent], name: str, index: NDArray[np.int32]) -> Labels:
    """The values of a dimension, in the order in which they first occur."""
    places: dict[str, int] = {}
    codes = np.full(len(events), -1, dtype=np.int32)
    for row, one in enumerate(events):
        value = one.labels.get(name)
        if value is not None:
            codes[row] = places.setdefault(value, len(places))
    return Labels(tuple(places), codes[index])


def _from_table(
    decoded: DecodedTable, pseudonymizer: Pseudonymizer, dimensions: Sequence[str]
) -> dict[str, Any]:
    """The columns of a decoded table: every event is one row."""
    n = decoded.user.shape[0]
    _check_rows(n)
    pseudonym, aliases = pseudonymizer.many(decoded.user_ids)
    labels = {
        name: Labels(decoded.labels[name].values, decoded.labels[name].codes)
        if name in decoded.labels
        else Labels((), np.full(n, -1, dtype=np.int32))
        for name in dimensions
    }
    event_id = np.zeros(n, dtype=np.uint64)
    if decoded.event_ids is not None:
        present = ~decoded.event_ids.is_null().to_numpy(zero_copy_only=False)
        event_id[present] = pseudonymizer.event_ids(
            decoded.event_ids.drop_null(), pseudonym[decoded.user][present]
        )
    return {
        "events": n,
        "pseudonym": pseudonym[decoded.user],
        "aliases": aliases[:, decoded.user],
        "day": decoded.day,
        "add": decoded.add,
        "event_index": np.arange(n, dtype=np.int32),
        "event_id": event_id,
        "labels": labels,
    }


def _check_rows(rows: int) -> None:
    if rows > BATCH_ROWS_MAX:
        raise TooLargeError(
            f"Expected at most {BATCH_ROWS_MAX} (user, day) pairs in a batch, found {rows}."
        )
