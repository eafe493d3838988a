"""The activity store of one machine: sorted segment files under a SQLite manifest.

```text
activity/
├── manifest.sqlite   which files count, small commits, batch ids, offsets, day states, receipts
├── store.made        says that a manifest was here: a lost one is no new store
├── writer.lock       held by the one process that writes
└── segments/*.seg    immutable sorted rows: masks, labels, seen event ids
```

Under a store key every row about people is AES-256-GCM; the manifest's own columns (row counts,
dimension values, sources, batch ids, closed days, receipts) are in the clear.
"""

import contextlib
import datetime as dt
import os
import sqlite3
import threading
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Final, TypeVar

import numpy as np
from numpy.typing import NDArray

from dpdau.activity import labels, masks, rotation, seen
from dpdau.activity.counting import PageLoader, windowed_counts
from dpdau.activity.dictionary import NewLabels, label_run
from dpdau.activity.history import History, Snapshot
from dpdau.activity.labels import LABELS
from dpdau.activity.manifest import Manifest, mark_made, was_made
from dpdau.activity.masks import MASKS
from dpdau.activity.runs import Rows, Table, find, merge_runs
from dpdau.activity.sealing import Sealer
from dpdau.activity.seen import SEEN
from dpdau.activity.segments import SegmentFiles
from dpdau.activity.store import Applied, StoreStats
from dpdau.activity.upkeep import StoreLimits, Upkeep, remove_orphans
from dpdau.activity.writer_lock import WriterLock
from dpdau.domain import (
    WINDOW_DAYS_MAX,
    Clock,
    ErasureReceipt,
    EventBatch,
    Segment,
    day_date,
    day_number,
)
from dpdau.errors import InvalidPlanError, NotFoundError, StoreCorruptError, StoreUnavailableError

COUNT_DAYS_MAX: Final = 4096
"""The longest range of days that one call may count."""
FORGET_MAX: Final = 1_000_000
"""How many pseudonyms one call may forget."""
_READ_ATTEMPTS: Final = 10
_FOLDER_MODE: Final = 0o700
_MANIFEST: Final = "manifest.sqlite"

_Answer = TypeVar("_Answer")


class EmbeddedStore:
    """An `ActivityStore` in a folder.

    One process writes at a time: the first write takes `writer.lock` and holds it until `close`.
    Any number of processes may read meanwhile. Within a process, calls are safe from any thread.

    Args:
        root: The folder; made with mode 0700 when missing.
        store_key: 32 bytes to encrypt rows about people, or None.
        clock: What time it is; only the age of event ids and receipts depend on it.
        read_only: Never write; the store must exist.
        limits: When to fold and merge; performance only.

    Guarantee:
        What a call has acknowledged survives the end of the process at any point, whole; what it
        has not acknowledged is there whole or not at all.

    Raises:
        SecretMismatchError: The store was written under another key, or none.
        SchemaVersionError: The store was written by a newer version.
        StoreUnavailableError: The folder cannot be opened.
    """

    def __init__(
        self,
        root: Path,
        *,
        store_key: bytes | None = None,
        clock: Clock,
        read_only: bool = False,
        limits: StoreLimits | None = None,
    ) -> None:
        self._root = root
        self._clock = clock
        self._read_only = read_only
        self._limits = StoreLimits() if limits is None else limits
        self._sealer = Sealer(store_key)
        self._files = SegmentFiles(root / "segments", self._sealer, self._limits.cache_bytes_max)
        self._path = root / _MANIFEST
        self._lock = threading.RLock()
        self._lookup_lock = threading.Lock()
        self._writer: tuple[Manifest, Upkeep] | None = None
        self._writer_lock = WriterLock(root / "writer.lock")
        self._closed = False
        with _translated():
            if not read_only:
                self._prepare()
            elif not Manifest.exists(self._path):
                raise StoreUnavailableError(f"Expected an activity store in {root}, found none.")
            self._lookups = Manifest(self._path, self._sealer, read_only=True)
            self._snapshots = Manifest(self._path, self._sealer, read_only=True)
        self._history = History(self._snapshots, self._files, self._sealer)

    @staticmethod
    def exists(root: Path) -> bool:
        """Whether a store was made in a folder, be its manifest there or lost."""
        return was_made(root) or Manifest.exists(root / _MANIFEST)

    def apply(self, batch: EventBatch) -> Applied:
        """Folds a batch in; see `ActivityStore.apply`.

        Edge cases:
            | case | result |
            |---|---|
            | `batch_id` applied before | nothing changes; every event is a duplicate |
            | `event_id` seen before or earlier in the batch | that event is a duplicate |
            | an event with a closed day | applied, counted as late |
            | an alias with rows | its rows move to the current pseudonym first, then the batch |
            | several of these | duplicate before late before accepted |
        """
        with self._writing() as (manifest, upkeep):
            now = self._clock()
            upkeep.tend(now)
            if batch.batch_id is not None and manifest.batch_applied(batch.batch_id):
                return Applied(accepted=0, duplicate=batch.events, late=0)
            fresh = self._fresh_events(batch)
            late = _late_events(batch, manifest) & fresh
            keep = fresh[batch.event_index]
            new_labels = NewLabels(manifest)
            labeled = label_run(batch, keep, new_labels)
            mask_run = masks.from_rows(batch.pseudonym[keep], batch.day[keep], batch.add[keep])
            if batch.aliases.shape[0] and keep.any():
                current, aliases = batch.pseudonym[keep], batch.aliases[:, keep]
                moved_masks, moved_labels = self._read(
                    (MASKS, LABELS), lambda state: rotation.moves(state, current, aliases)
                )
                mask_run = merge_runs(MASKS, moved_masks, mask_run)
                labeled = merge_runs(LABELS, moved_labels, labeled)
            with upkeep.changing() as change:
                upkeep.add(change, MASKS, mask_run)
                upkeep.add(change, LABELS, labeled)
                upkeep.add(change, SEEN, seen.from_ids(batch.event_id[fresh], now))

            def also() -> None:
                if batch.batch_id is not None:
                    manifest.add_batch(batch.batch_id, now.date())
                manifest.set_offsets(batch.offsets)
                new_labels.store()

            upkeep.commit(change, also)
            duplicates, lates = int((~fresh).sum()), int(late.sum())
            return Applied(
                accepted=batch.events - duplicates - lates, duplicate=duplicates, late=lates
            )

    def counts(
        self,
        *,
        first: dt.date,
        last: dt.date,
        window_days: Sequence[int],
        segment: Segment | None = None,
    ) -> NDArray[np.int64]:
        """Distinct pseudonyms in each trailing window; see `ActivityStore.counts`.

        Raises:
            InvalidPlanError: A window outside 1..64 days, or a range that is empty or too long.
            StoreCorruptError: A file is damaged or gone.
        """
        days = (last - first).days + 1
        if not 1 <= days <= COUNT_DAYS_MAX:
            raise InvalidPlanError(f"Expected a range of 1..{COUNT_DAYS_MAX} days, found {days}.")
        wrong = [one for one in window_days if not 1 <= one <= WINDOW_DAYS_MAX]
        if wrong:
            raise InvalidPlanError(
                f"Expected windows of 1..{WINDOW_DAYS_MAX} days, found {wrong[0]}."
            )
        value = None if segment is None else self._segment_code(segment)
        if segment is not None and value is None:
            return np.zeros((len(window_days), days), dtype=np.int64)
        return self._read(
            (MASKS,) if value is None else (MASKS, LABELS),
            lambda state: windowed_counts(
                _loader(state, value),
                first=day_number(first),
                last=day_number(last),
                window_days=window_days,
            ),
        )

    def segment_values(self, dimension: str) -> tuple[str, ...]:
        """The values of a dimension seen so far, sorted. Private: not for publication."""
        with self._looking() as manifest:
            known = manifest.dimensions().get(dimension)
            return () if known is None else tuple(manifest.values(known))

    def close_day(self, day: dt.date) -> None:
        """Marks a day as released; durable, idempotent."""
        with self._writing() as (manifest, _upkeep), manifest.writing():
            manifest.close_day(day_number(day))

    def closed_days(self, first: dt.date, last: dt.date) -> frozenset[dt.date]:
        """The days of a range that were marked as released."""
        with self._looking() as manifest:
            found = manifest.closed_days(day_number(first), day_number(last))
            return frozenset(day_date(day) for day in found)

    def has_closed_days(self) -> bool:
        """Whether any day was ever marked as released."""
        with self._looking() as manifest:
            return manifest.has_closed_days()

    def forget(
        self,
        pseudonyms: Sequence[int],
        *,
        erasure_id: str | None = None,
        done_at: dt.datetime | None = None,
    ) -> int:
        """Takes out every pair and label; see `ActivityStore.forget`.

        Guarantee:
            When it returns, no file under the store's folder holds one of the pseudonyms.

        Raises:
            StoreUnavailableError: Nothing was taken out, or all was but a reader kept the
                write-ahead log from being emptied; in both cases retry.
        """
        if len(pseudonyms) > FORGET_MAX:
            raise InvalidPlanError(
                f"Expected at most {FORGET_MAX} pseudonyms, found {len(pseudonyms)}."
            )
        keys = np.unique(np.array(list(pseudonyms), dtype=np.uint64))
        with self._writing() as (manifest, upkeep):
            now = self._clock()
            found = self._read((MASKS,), lambda state: state.lookup(MASKS, keys))
            touched = sum(
                len(masks.days_of(page, MASKS.digest(rows))) for page, rows in found.items()
            )

            def also() -> None:
                if erasure_id is not None:
                    manifest.add_receipt(ErasureReceipt(erasure_id, touched, done_at or now))

            upkeep.forget(keys, now, also)
            return touched

    def receipt(self, erasure_id: str) -> ErasureReceipt:
        """The receipt of an erasure.

        Raises:
            NotFoundError: There is none with this id.
        """
        with self._looking() as manifest:
            found = manifest.receipt(erasure_id)
        if found is None:
            raise NotFoundError("Expected the id of an erasure, found none with this id.")
        return found

    def purge_before(self, day: dt.date) -> None:
        """Drops all activity before a day, and the labels of months that ended before it."""
        with self._writing() as (_manifest, upkeep):
            upkeep.purge_before(day, self._clock())

    def offset(self, source: str) -> int | None:
        """The last offset of a source that was stored with its activity, or None."""
        with self._looking() as manifest:
            return manifest.offset(source)

    def stats(self) -> StoreStats:
        """The size of the store; see `StoreStats`."""
        return self._read((MASKS,), self._measure)

    def check_writable(self) -> None:
        """Proves that a durable write works now; see `ActivityStore.check_writable`."""
        with self._writing() as (manifest, _upkeep), manifest.writing():
            manifest.probe(self._clock())

    def close(self) -> None:
        """Releases files and the writer's lock; may be called twice."""
        with self._lock:
            if self._closed:
                return
            self._closed = True
            self._lookups.close()
            self._snapshots.close()
            self._release()

    def _prepare(self) -> None:
        """Makes a missing store and deletes what a crash left, where nobody else is writing."""
        self._root.mkdir(mode=_FOLDER_MODE, parents=True, exist_ok=True)
        missing = not Manifest.exists(self._path)
        if not self._writer_lock.take(self._limits.lock_wait_seconds if missing else 0.0):
            if missing and not Manifest.exists(self._path):
                raise self._busy()
            return
        try:
            if not Manifest.exists(self._path):
                self._refuse_a_lost_manifest()
                Manifest.create(self._path, self._sealer)
            mark_made(self._root)
            manifest = Manifest(self._path, self._sealer, read_only=False)
            with contextlib.closing(manifest):
                remove_orphans(manifest, self._files)
        finally:
            self._release()

    def _refuse_a_lost_manifest(self) -> None:
        """An empty manifest beside what a store left would make everything in it an orphan."""
        if was_made(self._root) or self._files.names():
            raise StoreCorruptError(
                f"Expected the manifest of the activity store at {self._path}, found none that is "
                "complete. Restore it from a backup; nothing was changed."
            )

    def _acquire(self) -> tuple[Manifest, Upkeep]:
        """The writing side; takes the writer's lock on the first call."""
        if self._writer is None:
            if not self._writer_lock.take(self._limits.lock_wait_seconds):
                raise self._busy()
            manifest = Manifest(self._path, self._sealer, read_only=False)
            upkeep = Upkeep(
                manifest,
                history=self._history,
                files=self._files,
                sealer=self._sealer,
                limits=self._limits,
            )
            self._writer = (manifest, upkeep)
            remove_orphans(manifest, self._files)
        return self._writer

    def _release(self) -> None:
        """Gives up the writing side."""
        if self._writer is not None:
            self._writer[0].close()
            self._writer = None
        self._writer_lock.release()

    def _busy(self) -> StoreUnavailableError:
        """The error for a store that another process writes."""
        return StoreUnavailableError(
            f"Expected to be the only writer of {self._root}, found another process that writes."
        )

    @contextlib.contextmanager
    def _writing(self) -> Iterator[tuple[Manifest, Upkeep]]:
        """The writing side, for one call at a time."""
        with self._lock, _translated():
            self._check_open()
            if self._read_only:
                raise StoreUnavailableError("Expected a store to write, found it read-only.")
            yield self._acquire()

    @contextlib.contextmanager
    def _looking(self) -> Iterator[Manifest]:
        """A read-only view of the manifest, for one call at a time."""
        with self._lookup_lock, _translated():
            self._check_open()
            with self._lookups.reading():
                yield self._lookups

    def _read(self, tables: Sequence[Table], question: Callable[[Snapshot], _Answer]) -> _Answer:
        """Answers from one snapshot; takes another one where a merge replaced a file meanwhile."""
        with _translated():
            for _ in range(_READ_ATTEMPTS):
                self._check_open()
                try:
                    return question(self._history.snapshot(tables))
                except FileNotFoundError as gone:
                    if self._history.names(Path(gone.filename).name):
                        raise
        raise StoreUnavailableError(
            "Expected to read while another process merges, found files replaced too often; retry."
        )

    def _check_open(self) -> None:
        """Refuses work after `close`."""
        if self._closed:
            raise StoreUnavailableError("Expected an open store, found it closed.")

    def _fresh_events(self, batch: EventBatch) -> NDArray[np.bool_]:
        """(events,) bool: False for an event that was seen before or earlier in the batch."""
        if not batch.event_id.any():
            return np.ones(batch.events, dtype=np.bool_)
        fresh = seen.first_occurrences(batch.event_id)
        ids = np.unique(batch.event_id)
        known = self._read((SEEN,), lambda state: state.lookup(SEEN, ids))
        for rows in known.values():
            fresh &= ~find(rows.key, batch.event_id)[1]
        return fresh

    def _segment_code(self, segment: Segment) -> tuple[int, int] | None:
        """The dimension id and value code of a segment, or None where it was never seen."""
        with self._looking() as manifest:
            dimension = manifest.dimensions().get(segment.dimension)
            code = None if dimension is None else manifest.value_code(dimension, segment.value)
            return None if dimension is None or code is None else (dimension, code)

    def _measure(self, state: Snapshot) -> StoreStats:
        """The size of one state."""
        digests: dict[int, int] = {}
        refs = [
            ref
            for (kind, _part), some in state.segments.items()
            if kind == MASKS.kind
            for ref in some
        ]
        for ref in refs:
            for page, index in self._files.groups(MASKS, ref.file.name).items():
                digests[page] = digests.get(page, 0) | index.digest
        for page, rows in state.deltas[MASKS.kind].items():
            digests[page] = digests.get(page, 0) | MASKS.digest(rows)
        active = sorted(page for page, digest in digests.items() if digest)
        split = [ref for ref in refs if ref.part >= 0]
        waiting = sum(ref.file.rows for ref in refs if ref.part < 0)
        pending = waiting + sum(ref.rows for ref in state.small(MASKS))
        return StoreStats(
            segments=len(refs),
            rows=pending + sum(ref.file.rows for ref in split),
            pending_rows=pending,
            bytes_on_disk=_bytes_under(self._root),
            first_day=day_date(masks.days_of(active[0], digests[active[0]])[0]) if active else None,
            last_day=day_date(masks.days_of(active[-1], digests[active[-1]])[-1])
            if active
            else None,
        )


def _late_events(batch: EventBatch, manifest: Manifest) -> NDArray[np.bool_]:
    """(events,) bool: True for an event with a row on a released day."""
    late = np.zeros(batch.events, dtype=np.bool_)
    if batch.day.shape[0]:
        closed = manifest.closed_days(int(batch.day.min()), int(batch.day.max()))
        late[batch.event_index[np.isin(batch.day, closed)]] = True
    return late


def _loader(state: Snapshot, segment: tuple[int, int] | None) -> PageLoader:
    """Gives the pages of a snapshot, only with the days on which a segment is the label."""

    def load(part: int, page: int) -> Rows | None:
        rows = state.net(MASKS, part, page)
        if rows is None or segment is None:
            return rows
        dimension, code = segment
        days = np.array([page * masks.PAGE_DAYS, (page + 1) * masks.PAGE_DAYS - 1], dtype=np.int32)
        first, last = labels.months(days).tolist()
        allowed = np.zeros(len(rows), dtype=np.uint64)
        for month in range(first, last + 1):
            labeled = state.net(LABELS, part, month * labels.DIMENSIONS_MAX + dimension)
            if labeled is not None:
                at, hit = find(rows.key, labels.holders(labeled, code))
                allowed[at[hit]] |= masks.days_mask(page, *labels.month_days(month))
        allowed &= rows.values[0]
        return Rows(rows.key, (allowed,)).take(allowed != 0)

    return load


def _bytes_under(root: Path) -> int:
    """The bytes of all files in a folder; one that a merge deletes meanwhile counts as 0."""
    total = 0
    for folder, _folders, names in os.walk(root):
        for name in names:
            with contextlib.suppress(FileNotFoundError):
                total += (Path(folder) / name).stat().st_size
    return total


@contextlib.contextmanager
def _translated() -> Iterator[None]:
    """Turns the errors of SQLite and of the system into the store's own."""
    try:
        yield
    except FileNotFoundError as error:
        name = Path(str(error.filename)).name
        raise StoreCorruptError(f"Expected the file {name}, found none.", file=name) from error
    except (sqlite3.OperationalError, OSError) as error:
        raise StoreUnavailableError(
            f"Expected to use the activity store, found: {error}."
        ) from error
    except sqlite3.IntegrityError:
        raise
    except sqlite3.DatabaseError as error:
        raise StoreCorruptError(
            f"Expected an intact manifest, found: {error}.", file="manifest.sqlite"
        ) from error
