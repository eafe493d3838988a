"""The activity store of one machine: sorted segment files under a SQLite manifest.

```text
activity/
├── manifest.sqlite   which files count, small commits, batch ids, offsets, day states, receipts,
│                     open months and their secrets
├── store.made        says that a manifest was here: a lost one is no new store
├── writer.lock       held by the one process that writes
└── segments/*.seg    immutable sorted rows: masks, labels, seen event ids, held days
```

Under a store key every row about people and every secret is AES-256-GCM; the manifest's own columns
(row counts, dimension values, sources, batch ids, closed days, months, receipts) are in the clear.
"""

import contextlib
import datetime as dt
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Final

import numpy as np
from numpy.typing import NDArray

from dpdau.activity import labels, masks
from dpdau.activity.access import StoreAccess
from dpdau.activity.change import StoreLimits
from dpdau.activity.counting import PageLoader, windowed_counts
from dpdau.activity.folding import Folding
from dpdau.activity.growth import growth_counts
from dpdau.activity.held import HELD
from dpdau.activity.history import Snapshot
from dpdau.activity.labels import LABELS
from dpdau.activity.live import LiveDays
from dpdau.activity.masks import MASKS
from dpdau.activity.month_view import warm_months
from dpdau.activity.months import Months
from dpdau.activity.runs import Rows, find
from dpdau.activity.store import Applied, StoreStats
from dpdau.activity.upkeep import Upkeep
from dpdau.activity.verbs import (
    StoreVerbs,
    check_days,
    check_windows,
    erasure_receipt,
    unique_keys,
)
from dpdau.domain import Clock, EventBatch, Segment, day_date, day_number

_PATIENCE: Final = 2
"""How many times its limits what waits may reach before a commit folds it itself."""


class EmbeddedStore(StoreVerbs[Upkeep]):
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
        InvalidSettingError: The data of the store lies in a lake.
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
        self._access = StoreAccess(
            root,
            store_key=store_key,
            read_only=read_only,
            limits=StoreLimits() if limits is None else limits,
        )
        super().__init__(self._access, clock, Months(self._access, clock))
        self.live: Final = LiveDays(self._access, clock)

    def apply(self, batch: EventBatch) -> Applied:
        """Folds a batch in; see `ActivityStore.apply`."""
        return self.apply_many([batch])[0]

    def apply_many(self, batches: Sequence[EventBatch]) -> list[Applied]:
        """Folds batches in as one commit; see `ActivityStore.apply_many`.

        Edge cases:
            | case | result |
            |---|---|
            | `batch_id` applied before or earlier in the group | every event is a duplicate |
            | `event_id` seen before or earlier in the group | that event is a duplicate |
            | an event with a closed day | applied, counted as late |
            | an alias with rows | its rows move to the current pseudonym first, then the batch |
            | several of these | duplicate before late before accepted |
        """
        with self._access.writing() as (manifest, upkeep):
            now = self._clock()
            with self._access.folding_unless_busy() as is_free:
                if is_free:
                    upkeep.tend(now, patience=_PATIENCE)
            folding = Folding(self._access, manifest, now)
            applied = folding.add(batches)
            if not folding.is_empty:
                with upkeep.changing() as change:
                    for table, run in folding.runs.items():
                        upkeep.add(change, table, run)
                also = None if folding.is_only_rows else folding.store
                upkeep.commit(change, also, only_adds=True)
            return applied

    def tend(self) -> bool:
        """Folds and merges what has grown; see `ActivityStore.tend`."""
        with self._access.folding() as upkeep:
            is_done = upkeep.tend(self._clock())
        with self._access.looking() as manifest:
            counts_soon = bool(manifest.open_months())
        if counts_soon:
            # What is new is merged in memory now, so that the next day's numbers need not wait;
            # files are merged once they rest, for the next fold replaces them.
            self._access.read((MASKS, HELD), lambda state: warm_months(state) if is_done else None)
        return is_done

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
        days = check_days(first, last)
        check_windows(window_days)
        value = None if segment is None else self._segment_code(segment)
        if segment is not None and value is None:
            return np.zeros((len(window_days), days), dtype=np.int64)
        return self._access.read(
            (MASKS,) if value is None else (MASKS, LABELS),
            lambda state: windowed_counts(
                _loader(state, value),
                first=day_number(first),
                last=day_number(last),
                window_days=window_days,
                rows=state.size(MASKS),
            ),
        )

    def growth(self, end: dt.date, *, window_days: int) -> NDArray[np.int64]:
        """Who came and went between two neighboring windows; see `ActivityStore.growth`."""
        check_windows([window_days])
        return self._access.read(
            (MASKS,),
            lambda state: growth_counts(
                _loader(state, None),
                first_page=state.first_group(MASKS),
                end=day_number(end),
                window_days=window_days,
                rows=state.size(MASKS),
            ),
        )

    def forget(
        self,
        pseudonyms: Sequence[int],
        *,
        erasure_id: str | None = None,
        done_at: dt.datetime | None = None,
    ) -> int:
        """Takes out every pair and label; see `ActivityStore.forget`.

        Guarantee:
            When it returns, no file under the store's folder holds one of the pseudonyms, except
            the tombstone of each open month.

        Raises:
            StoreUnavailableError: Nothing was taken out, or all was but a reader kept the
                write-ahead log from being emptied; in both cases retry.
        """
        keys = unique_keys(pseudonyms)
        with self._access.rewriting() as (manifest, upkeep):
            now = self._clock()
            upkeep.tend(now)
            found = self._access.read((MASKS,), lambda state: state.lookup(MASKS, keys))
            touched = sum(
                len(masks.days_of(page, MASKS.digest(rows))) for page, rows in found.items()
            )

            def also() -> None:
                if erasure_id is not None:
                    manifest.receipts.add(
                        erasure_receipt(
                            manifest,
                            erasure_id,
                            done_at or now,
                            days_touched=touched,
                            keys=len(keys),
                        )
                    )

            upkeep.forget(keys, now, also)
            return touched

    def purge_before(self, day: dt.date) -> None:
        """Drops all activity before a day, and the labels of months that ended before it."""
        with self._access.rewriting() as (_manifest, upkeep):
            upkeep.purge_before(day, self._clock())

    def flush(self) -> None:
        """Finishes every outstanding physical removal; see `ActivityStore.flush`."""
        with self._access.rewriting() as (_manifest, upkeep):
            upkeep.flush(self._clock())

    def stats(self) -> StoreStats:
        """The size of the store; see `StoreStats`."""
        return self._access.read((MASKS,), self._measure)

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
            for page, index in state.files.groups(MASKS, ref.file.name).items():
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
