"""What a group of batches brings to the store, as rows of one commit.

Batches in a row are joined and folded in at once wherever that has the outcome of one after the
other. Where a later batch names, as an alias, a user who is written under that name in an earlier
one (a key rotation lies between them), a new *stretch* begins; it sees the rows of those before.
"""

import dataclasses
import datetime as dt
import itertools
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Final, TypeVar

import numpy as np
from numpy.typing import NDArray

from dpdau.activity import masks, rotation, seen
from dpdau.activity.access import StoreAccess
from dpdau.activity.dictionary import NewLabels, label_run
from dpdau.activity.held import HELD
from dpdau.activity.history import Snapshot
from dpdau.activity.labels import LABELS
from dpdau.activity.live import left_by
from dpdau.activity.manifest import Manifest
from dpdau.activity.masks import MASKS
from dpdau.activity.month_view import has_late, held_by
from dpdau.activity.runs import Run, Table, find, merge_runs
from dpdau.activity.seen import SEEN
from dpdau.activity.store import Applied
from dpdau.activity.today import live_turns
from dpdau.domain import BATCH_ROWS_MAX, EventBatch, Labels

_Answer = TypeVar("_Answer")


class Notes:
    """What a commit notes beside its rows: batch ids, offsets, and names of labels.

    Args:
        manifest: The writing side; the caller holds the writer's lock.
        now: What time it is.
    """

    def __init__(self, manifest: Manifest, now: dt.datetime) -> None:
        self._manifest = manifest
        self._now = now
        self._labels = NewLabels(manifest)
        self._batch_ids: dict[str, None] = {}
        self._offsets: dict[str, int] = {}

    @property
    def is_only_rows(self) -> bool:
        """Whether there is nothing to commit but rows."""
        return not (self._batch_ids or self._offsets or self._labels.are_some)

    def is_new(
        self, batch_id: str | None, older: Sequence[str], offsets: Mapping[str, int]
    ) -> bool:
        """Whether a batch was not applied before, here or earlier; then its id is noted."""
        if batch_id is not None:
            known = (batch_id, *older)
            if any(one in self._batch_ids or self._manifest.batch_applied(one) for one in known):
                return False
            self._batch_ids[batch_id] = None
        self._offsets.update(offsets)
        return True

    def store(self) -> None:
        """Writes them, in the transaction of the commit."""
        for batch_id in self._batch_ids:
            self._manifest.add_batch(batch_id, self._now.date())
        self._manifest.set_offsets(self._offsets)
        self._labels.store()


class Arrivals(Notes, ABC):
    """A group of batches in arrival order: what is new of them, for one commit."""

    def add(self, batches: Sequence[EventBatch]) -> list[Applied]:
        """Takes the next batches; what became of the events of each."""
        is_new = [
            self.is_new(batch.batch_id, batch.older_batch_ids, batch.offsets) for batch in batches
        ]
        done = (
            one
            for joined in _stretches(list(itertools.compress(batches, is_new)))
            for one in self._add(joined)
        )
        return [
            next(done) if new else Applied(accepted=0, duplicate=batch.events, late=0)
            for batch, new in zip(batches, is_new, strict=True)
        ]

    def _add(self, stretch: "Stretch") -> list[Applied]:
        """Folds joined batches in."""
        batch = stretch.batch
        fresh = np.ones(batch.events, dtype=np.bool_)
        if batch.event_id.any():
            fresh = seen.first_occurrences(batch.event_id) & ~self._seen(batch.event_id)
        late = _late_events(batch, self._manifest) & fresh
        keep = fresh[batch.event_index]
        self._put(stretch, fresh, keep, label_run(batch, keep, self._labels))
        return stretch.applied(fresh, late)

    @abstractmethod
    def _seen(self, event_id: NDArray[np.uint64]) -> NDArray[np.bool_]:
        """Which of some event ids were seen before; 0 is never."""

    @abstractmethod
    def _put(
        self, stretch: "Stretch", fresh: NDArray[np.bool_], keep: NDArray[np.bool_], labels: Run
    ) -> None:
        """Adds the fresh events, whose rows are kept, and the labels that they bring."""


class Folding(Arrivals):
    """Folds a group of batches, in arrival order, into the rows of one commit.

    Guarantee:
        `applied` and the state after the commit are those of the batches applied one by one.

    Args:
        access: The doors of the store; the caller holds the writer's lock.
        manifest: Its writing side.
        now: What time it is.
    """

    def __init__(self, access: StoreAccess, manifest: Manifest, now: dt.datetime) -> None:
        super().__init__(manifest, now)
        self._access = access
        self.runs: Final[dict[Table, Run]] = {}

    @property
    def is_empty(self) -> bool:
        """Whether there is nothing to commit."""
        return not (any(self.runs.values()) or self._batch_ids or self._offsets)

    def _put(
        self, stretch: "Stretch", fresh: NDArray[np.bool_], keep: NDArray[np.bool_], labels: Run
    ) -> None:
        """Adds the rows of the fresh events."""
        batch = stretch.batch
        pseudonym, day, add = batch.pseudonym[keep], batch.day[keep], batch.add[keep]
        events = masks.from_rows(pseudonym, day, add)
        rows: dict[Table, Run] = {}
        if batch.aliases.shape[0] and keep.any():
            aliases = batch.aliases[:, keep]
            rows = self._read(
                (MASKS, LABELS, HELD), lambda state: rotation.moves(state, pseudonym, aliases)
            )
        moved = dict(rows)
        if has_late(self._manifest.open_months(), events):
            held = self._read((MASKS, HELD), lambda state: held_by(state, moved, events))
            rows[HELD] = merge_runs(HELD, rows.get(HELD, {}), held)
        number = stretch.number[batch.event_index[keep]]
        turns = live_turns(self._manifest.live_day(), pseudonym, day, add, number)
        if turns is not None:
            out = self._read((MASKS,), lambda state: left_by(state, moved, turns))
            rows[HELD] = merge_runs(HELD, rows.get(HELD, {}), out)
        for table, run in ((MASKS, events), (LABELS, labels)):
            rows[table] = merge_runs(table, rows.get(table, {}), run)
        rows[SEEN] = seen.from_ids(batch.event_id[fresh], self._now)
        for table, run in rows.items():
            self.runs[table] = merge_runs(table, self.runs.get(table, {}), run)

    def _seen(self, event_id: NDArray[np.uint64]) -> NDArray[np.bool_]:
        """Which of some event ids were seen before."""
        ids = np.unique(event_id)
        known = self._read((SEEN,), lambda state: state.lookup(SEEN, ids))
        found = np.zeros(event_id.shape, dtype=np.bool_)
        for rows in known.values():
            found |= find(rows.key, event_id)[1]
        return found

    def _read(self, tables: Sequence[Table], question: Callable[[Snapshot], _Answer]) -> _Answer:
        """Answers from the store as it is after the stretches so far."""

        def asked(state: Snapshot) -> _Answer:
            deltas = {
                table.kind: merge_runs(table, state.deltas[table.kind], self.runs.get(table, {}))
                for table in tables
            }
            return question(dataclasses.replace(state, deltas=deltas))

        return self._access.read(tables, asked)


@dataclasses.dataclass(frozen=True, slots=True)
class Stretch:
    """Batches in a row that are folded in at once.

    Attributes:
        batch: All of them as one; its id and offsets are nobody's.
        number: (events,) which of them each event came from, from 0.
        count: How many they are.
    """

    batch: EventBatch
    number: NDArray[np.intp]
    count: int

    def applied(self, fresh: NDArray[np.bool_], late: NDArray[np.bool_]) -> list[Applied]:
        """What became of the events of each."""
        events, duplicates, lates = (
            np.bincount(self.number[one], minlength=self.count).tolist()
            for one in (slice(None), ~fresh, late)
        )
        return [
            Applied(accepted=all_ - duplicate - late_, duplicate=duplicate, late=late_)
            for all_, duplicate, late_ in zip(events, duplicates, lates, strict=True)
        ]


def _stretches(batches: Sequence[EventBatch]) -> Iterator[Stretch]:
    """The batches of a group, joined as far as the outcome allows."""
    start = rows = 0
    # Asked of the whole group first: batches under the same keys never do, and then none is asked.
    renamed = len(batches) > 1 and _renames(batches, batches)
    for place, batch in enumerate(batches):
        rows += batch.pseudonym.shape[0]
        if place > start and (
            rows > BATCH_ROWS_MAX
            or batch.aliases.shape[0] != batches[start].aliases.shape[0]
            or (renamed and _renames([batch], batches[start:place]))
        ):
            yield _joined(batches[start:place])
            start, rows = place, batch.pseudonym.shape[0]
    if batches:
        yield _joined(batches[start:])


def _renames(later: Sequence[EventBatch], earlier: Sequence[EventBatch]) -> bool:
    """Whether an alias of a later batch is the current name of a user of an earlier one."""
    aliases = np.concatenate([one.aliases.ravel() for one in later])
    if not aliases.size:
        return False
    known = np.concatenate([one.pseudonym for one in earlier])
    return bool(np.isin(aliases, known).any())


def _joined(batches: Sequence[EventBatch]) -> Stretch:
    """Batches with equally many aliases as one."""
    if len(batches) == 1:
        return Stretch(batches[0], np.zeros(batches[0].events, dtype=np.intp), 1)
    counts = [one.events for one in batches]
    starts = np.cumsum([0, *counts[:-1]], dtype=np.int32)
    names = dict.fromkeys(name for one in batches for name in one.labels)
    batch = dataclasses.replace(
        batches[0],
        events=sum(counts),
        pseudonym=np.concatenate([one.pseudonym for one in batches]),
        day=np.concatenate([one.day for one in batches]),
        add=np.concatenate([one.add for one in batches]),
        event_index=np.concatenate(
            [one.event_index + start for one, start in zip(batches, starts, strict=True)]
        ),
        event_id=np.concatenate([one.event_id for one in batches]),
        aliases=np.concatenate([one.aliases for one in batches], axis=1),
        labels={name: _joined_labels(batches, name) for name in names},
    )
    return Stretch(batch, np.repeat(np.arange(len(batches)), counts), len(batches))


def _joined_labels(batches: Sequence[EventBatch], name: str) -> Labels:
    """The values of one dimension over all rows, under one dictionary."""
    places: dict[str, int] = {}
    codes = []
    for one in batches:
        local = one.labels.get(name)
        if local is None or not local.values:
            codes.append(np.full(one.pseudonym.shape[0], -1, dtype=np.int32))
            continue
        # The last place is that of code -1, no value.
        table = [*(places.setdefault(value, len(places)) for value in local.values), -1]
        codes.append(np.array(table, dtype=np.int32)[local.codes])
    return Labels(tuple(places), np.concatenate(codes))


def _late_events(batch: EventBatch, manifest: Manifest) -> NDArray[np.bool_]:
    """(events,) bool: True for an event with a row on a released day."""
    late = np.zeros(batch.events, dtype=np.bool_)
    if batch.day.shape[0]:
        closed = manifest.closed_days(int(batch.day.min()), int(batch.day.max()))
        if closed:
            late[batch.event_index[np.isin(batch.day, closed)]] = True
    return late
