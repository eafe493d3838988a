"""The writing side of the embedded store: one change at a time, each complete or not there.

New files are finished first, then one manifest transaction names them and drops what they
replace, then the old files are deleted. A crash in between leaves files that nothing names;
`leftovers` deletes them.
"""

import contextlib
import datetime as dt
import sqlite3
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager
from typing import Final

import numpy as np
from numpy.typing import NDArray

from dpdau.activity import leftovers
from dpdau.activity.change import Change, StoreLimits, Waiting
from dpdau.activity.held import HELD, PlanMonth, tombstones
from dpdau.activity.history import History, Snapshot, pending_name
from dpdau.activity.labels import LABELS, month_index, plan_groups
from dpdau.activity.manifest import UNSPLIT, Manifest, PendingRef, SegmentRef
from dpdau.activity.masks import MASKS
from dpdau.activity.runs import (
    PARTS,
    Rows,
    Run,
    Table,
    find,
    map_rows,
    merge_rows,
    part_run,
    part_slice,
    row_count,
    without,
)
from dpdau.activity.sealing import Sealer
from dpdau.activity.seen import EVENT_ID_RETENTION_DAYS, SEEN, oldest_week
from dpdau.activity.segments import SegmentFiles, encode
from dpdau.activity.stale import (
    RowChange,
    Stale,
    among,
    before_month,
    dropping,
    dropping_days,
    kept_for_nothing,
    live_but,
    stale_days,
)
from dpdau.activity.today import out_of
from dpdau.domain import day_date, day_number
from dpdau.telemetry import span

TABLES: Final = (MASKS, LABELS, SEEN, HELD)
_GROWTH: Final = 2
"""A merge takes an older file along when it is at most this many times what is merged so far."""


class Upkeep:
    """Changes the store; the caller holds the writer's lock, or for `tend` the right to fold.

    Args:
        manifest: The writing side of the manifest.
        history: What is read.
        files: The files.
        sealer: Seals small commits.
        limits: When to fold and merge.
        turn: Held while the manifest is used: others may add while `tend` reads and writes files.
    """

    def __init__(
        self,
        manifest: Manifest,
        *,
        history: History,
        files: SegmentFiles,
        sealer: Sealer,
        limits: StoreLimits,
        turn: AbstractContextManager[object],
    ) -> None:
        self._turn = turn
        self._manifest = manifest
        self._history = history
        self._files = files
        self._sealer = sealer
        self._limits = limits
        self._pruned_on: dt.date | None = None
        self._waiting: dict[str, Waiting] | None = None
        self._is_left = False

    def commit(
        self,
        change: Change,
        also: Callable[[], None] | None = None,
        *,
        only_adds: bool = False,
    ) -> None:
        """Makes a change durable.

        Args:
            change: New content and what it replaces.
            also: Further statements of the same transaction.
            only_adds: See `Manifest.writing`.
        """
        if only_adds and also is None and not change.files:
            self._append(change)
            return
        try:
            if change.files:
                self._files.sync()
            with self._turn:
                self._store(change, also, only_adds=only_adds)
                self._note(change)
        except BaseException:
            self.discard(change)
            raise
        self._files.remove(ref.file.name for ref in change.old_files)

    def _store(self, change: Change, also: Callable[[], None] | None, *, only_adds: bool) -> None:
        """Names what is new, and drops what it replaces, in one transaction."""
        if change.place is not None:
            self._history.forget_recent()
        with self._manifest.writing(only_adds=only_adds):
            seq = self._manifest.take_seq()
            self._manifest.drop_segments(ref.file.name for ref in change.old_files)
            self._manifest.drop_pending(change.old_pending)
            for table, part, old_seq, file in change.files:
                kept = seq if old_seq is None else old_seq
                self._manifest.add_segment(SegmentRef(table.kind, part, kept, file))
            place = seq if change.place is None else change.place
            rows = [self._pending(table, place, run) for table, run in change.runs.items()]
            for row in rows:
                self._manifest.add_pending(*row)
            if also is not None:
                also()
        self._remember(rows, change)

    def _remember(self, rows: Sequence[tuple[PendingRef, bytes]], change: Change) -> None:
        """Spares the next reader to read what was just stored."""
        for (ref, _payload), run in zip(rows, change.runs.values(), strict=True):
            self._history.remember(ref, run)

    def discard(self, change: Change) -> None:
        """Deletes the new files of a change that was not committed."""
        # Where the manifest cannot be asked, the files stay for the next start to delete.
        with contextlib.suppress(sqlite3.Error, OSError), self._turn:
            named = {ref.file.name for ref in self._manifest.segments()}
            self._files.remove({file.name for *_, file in change.files} - named)

    @contextlib.contextmanager
    def changing(self) -> Iterator[Change]:
        """A change to fill with files; they are deleted again if filling it fails."""
        change = Change()
        try:
            yield change
        except BaseException:
            self.discard(change)
            raise

    def add(self, change: Change, table: Table, run: Run) -> None:
        """Adds new rows to a change: a file where they are many, else a row of the manifest."""
        rows = row_count(run)
        if rows >= self._limits.direct_rows_min:
            self._add_file(change, table, UNSPLIT, sorted(run.items()))
        elif rows:
            change.add_run(table, run)

    def tend(self, now: dt.datetime, *, patience: int = 1) -> bool:
        """Folds and merges what has grown over its limit, a bounded amount of work at a time.

        Args:
            now: What time it is.
            patience: How many times its limit something may reach.

        Returns:
            Whether nothing is left that is due.
        """
        known = self._waiting
        is_due = known is None or any(self._is_due(one, patience) for one in known.values())
        # Parts with too many files are for those who have time.
        if is_due or (self._is_left and patience == 1):
            self._tend_tables(now, patience)
        if self._pruned_on is None or (now.date() - self._pruned_on).days >= patience:
            self._prune(now)
        return not self._is_left

    def _tend_tables(self, now: dt.datetime, patience: int) -> None:
        """Folds and merges; then knows what waits, and whether parts still have too many files."""
        for table in TABLES:
            if self._is_due(_waiting_in(self._bare(), table), patience):
                with span("fold", table=table.kind):
                    self._fold(table, now)
            allowed = patience * self._limits.part_files_max
            while len(longest := _longest_part(self._bare(), table)) > allowed:
                with span("merge", table=table.kind):
                    self._merge(table, longest, now)
                # The other parts wait for later calls, unless they are far over the limit.
                allowed = 2 * self._limits.part_files_max
        with self._turn:
            snapshot = self._bare()
            most = max(len(_longest_part(snapshot, table)) for table in TABLES)
            self._is_left = most > self._limits.part_files_max
            self._waiting = {table.kind: _waiting_in(snapshot, table) for table in TABLES}

    def _bare(self) -> Snapshot:
        """The newest state, without deltas."""
        with self._turn:
            return Snapshot.bare(self._files, self._manifest)

    def _is_due(self, waiting: "Waiting", patience: int) -> bool:
        """Whether what waits of a table is over so many times a limit."""
        limits = self._limits
        return (
            waiting.commits > patience * limits.pending_commits_max
            or waiting.files > patience * limits.loose_files_max
            or waiting.rows > patience * limits.pending_rows_max
        )

    def _note(self, change: Change) -> None:
        """Keeps count of what waits, as long as commits only add to it."""
        waiting = self._waiting
        if change.old_files or change.old_pending or any(one[1] >= 0 for one in change.files):
            self._waiting = None
        elif waiting is not None:
            for table, run in change.runs.items():
                waiting[table.kind] = waiting[table.kind].plus(Waiting(1, 0, row_count(run)))
            for table, _part, _seq, file in change.files:
                waiting[table.kind] = waiting[table.kind].plus(Waiting(0, 1, file.rows))

    def forget(self, keys: NDArray[np.uint64], now: dt.datetime, also: Callable[[], None]) -> None:
        """Rewrites every file with a row of one of some sorted unique pseudonyms.

        Guarantee:
            When it returns, no file of the store and no page of the manifest holds one of them,
            but for the tombstones in the open months and in the live day.
        """

        def drop(_group: int, rows: Rows) -> Rows:
            return without(rows, keys)

        with self.changing() as change:
            snapshot = self._history.snapshot((MASKS, LABELS, HELD))
            for table in (MASKS, LABELS, HELD):
                delta = snapshot.deltas[table.kind]
                if any(find(rows.key, keys)[1].any() for rows in delta.values()):
                    self._refold(change, snapshot, table, (drop, now))
                for part in range(PARTS):
                    wanted = keys[part_slice(keys, part)]
                    for ref in snapshot.part(table, part) if wanted.shape[0] else ():
                        if snapshot.holds(table, ref, wanted):
                            self._rewrite(change, table, ref, drop)
            graves: Run = {}
            for month in snapshot.months:
                graves = {**graves, **tombstones(month, keys)}
            if snapshot.live is not None:
                graves = {**graves, **out_of(snapshot.live, keys)}
            self.add(change, HELD, graves)
        self.commit(change, also)
        self.leave_no_trace()

    def purge_before(self, day: dt.date, now: dt.datetime) -> None:
        """Rewrites every file with activity before a day, and drops labels of earlier months."""
        with self.changing() as change:
            snapshot = self._history.snapshot((MASKS, LABELS))
            kept = [month.start for month in snapshot.months]
            kept += [] if snapshot.live is None else [snapshot.live]
            first = min(day_number(day), *kept) if kept else day_number(day)
            month = month_index(day_date(first))
            self._take_out(change, snapshot, MASKS, (dropping_days(first), stale_days(first), now))
            stale = before_month(month)
            self._take_out(change, snapshot, LABELS, (dropping(stale), stale, now))
        self.commit(change)
        self.leave_no_trace()

    def drop_month(self, month: PlanMonth, now: dt.datetime, also: Callable[[], None]) -> None:
        """Rewrites every file with a held row, a tombstone or a plan label of a month.

        Guarantee:
            When it returns, no file of the store and no page of the manifest holds one of them.
        """
        with self.changing() as change:
            snapshot = self._history.snapshot((LABELS, HELD))
            for table, groups in ((LABELS, plan_groups(month.month)), (HELD, month.groups())):
                stale = among(groups)
                self._take_out(change, snapshot, table, (dropping(stale), stale, now))
        self.commit(change, also)
        self.leave_no_trace()

    def drop_live(self, kept: int | None, now: dt.datetime, also: Callable[[], None]) -> None:
        """Rewrites every file that says who is out of a live day, but for one day.

        Guarantee:
            When it returns, no file of the store and no page of the manifest says so.
        """
        stale = live_but(kept)
        with self.changing() as change:
            snapshot = self._history.snapshot((HELD,))
            self._take_out(change, snapshot, HELD, (dropping(stale), stale, now))
        self.commit(change, also)
        self.leave_no_trace()

    def flush(self, now: dt.datetime) -> None:
        """Takes out what is kept for no open plan, event ids over their age, and every trace.

        Guarantee:
            When it returns, nothing is left under the folder but what counts.
        """
        with self.changing() as change:
            snapshot = self._history.snapshot((LABELS, SEEN, HELD))
            for table, stale in kept_for_nothing(snapshot.months, snapshot.live, now).items():
                self._take_out(change, snapshot, table, (dropping(stale), stale, now))
        self.commit(change)
        self.leave_no_trace()

    def leave_no_trace(self) -> None:
        """Empties what still holds replaced rows: files, the write-ahead log and memory."""
        self._history.drop_cache()
        leftovers.clear(self._manifest, self._files)

    def _take_out(
        self,
        change: Change,
        snapshot: Snapshot,
        table: Table,
        how: tuple[RowChange, Stale, dt.datetime],
    ) -> None:
        """Changes the rows of a table, in the files that have something stale."""
        drop, stale, now = how
        delta = snapshot.deltas[table.kind]
        if any(stale(group, table.digest(rows)) for group, rows in delta.items()):
            self._refold(change, snapshot, table, (drop, now))
        for part in range(PARTS):
            for ref in snapshot.part(table, part):
                groups = self._files.groups(table, ref.file.name)
                if any(stale(group, index.digest) for group, index in groups.items()):
                    self._rewrite(change, table, ref, drop)

    def _fold(self, table: Table, now: dt.datetime) -> None:
        """Cuts all waiting rows of a table by key, or gathers them while they are few."""
        with self.changing() as change:
            snapshot = self._history.snapshot((table,))
            self._refold(change, snapshot, table, (_keep, now))
            # What others add meanwhile is newer. The rows are the same, so their place may be.
            seqs = [ref.seq for ref in change.old_files] + [ref.seq for ref in change.old_pending]
            change.place = max(seqs, default=None)
        self.commit(change)

    def _refold(
        self,
        change: Change,
        snapshot: Snapshot,
        table: Table,
        how: tuple[RowChange, dt.datetime],
    ) -> None:
        """Replaces all waiting rows of a table by changed ones."""
        drop, now = how
        run = map_rows(_live(table, snapshot.deltas[table.kind], now).items(), drop)
        change.old_files += snapshot.loose(table)
        change.old_pending += snapshot.small(table)
        if 0 < row_count(run) < self._limits.part_rows_min:
            change.add_run(table, run)
            return
        for part in range(PARTS):
            rows = part_run(run, part)
            if not snapshot.part(table, part):
                rows = map_rows(rows.items(), lambda _group, one: table.settle(one))
            self._add_file(change, table, part, sorted(rows.items()))

    def _merge(self, table: Table, refs: Sequence[SegmentRef], now: dt.datetime) -> None:
        """Merges the newer files of one part, and the older ones that are not much larger."""
        start = len(refs) - 1
        rows = refs[start].file.rows
        while start > 0 and (
            start > self._limits.part_files_max // 2 or refs[start - 1].file.rows <= _GROWTH * rows
        ):
            start -= 1
            rows += refs[start].file.rows
        chosen = refs[start:]
        with self.changing() as change:
            change.old_files += chosen
            blocks = self._merged(table, chosen, now, base=start == 0)
            self._add_file(change, table, chosen[-1].part, blocks, seq=chosen[-1].seq)
        self.commit(change)

    def _merged(
        self, table: Table, refs: Sequence[SegmentRef], now: dt.datetime, *, base: bool
    ) -> Iterator[tuple[int, Rows]]:
        """The groups of several files as one, with one group in memory at a time."""
        groups = set().union(*(self._files.groups(table, ref.file.name) for ref in refs))
        for group in sorted(groups):
            rows: Rows | None = None
            for ref in reversed(refs):
                older = self._files.rows(table, ref.file.name, group, cached=False)
                rows = merge_rows(table, older, rows)
            assert rows is not None
            for live in _live(table, {group: rows}, now).values():
                yield group, table.settle(live) if base else live

    def _rewrite(self, change: Change, table: Table, ref: SegmentRef, drop: RowChange) -> None:
        """Replaces one file by a changed one in the same place of the history."""
        name = ref.file.name
        change.old_files.append(ref)
        blocks = (
            (group, drop(group, rows))
            for group in sorted(self._files.groups(table, name))
            if (rows := self._files.rows(table, name, group, cached=False)) is not None
        )
        self._add_file(change, table, ref.part, blocks, seq=ref.seq)

    def _prune(self, now: dt.datetime) -> None:
        """Forgets batch ids and whole files of event ids that are older than the retention."""
        oldest = oldest_week(now)
        with self._turn:
            known = self._manifest.segments()
        change = Change(
            old_files=[
                ref for ref in known if ref.kind == SEEN.kind and ref.file.group_max < oldest
            ]
        )
        before = now.date() - dt.timedelta(days=EVENT_ID_RETENTION_DAYS)
        self.commit(change, lambda: self._manifest.prune_batches(before))
        self._pruned_on = now.date()

    def _add_file(
        self,
        change: Change,
        table: Table,
        part: int,
        blocks: Iterator[tuple[int, Rows]] | Sequence[tuple[int, Rows]],
        *,
        seq: int | None = None,
    ) -> None:
        """Writes a file into a change, unless there is no row for it."""
        file = self._files.write(table, blocks)
        if file is not None:
            change.files.append((table, part, seq, file))

    def _append(self, change: Change) -> None:
        """Makes a change durable that only adds rows of the manifest."""
        if change.runs:
            seq = self._manifest.last_seq() + 1
            rows = [self._pending(table, seq, run) for table, run in change.runs.items()]
            self._manifest.append(rows)
            self._remember(rows, change)
            self._note(change)

    def _pending(self, table: Table, seq: int, run: Run) -> tuple[PendingRef, bytes]:
        """A small commit as the manifest stores it."""
        ref = PendingRef(table.kind, seq, row_count(run))
        payload = bytearray()
        sealer = self._sealer.for_file(pending_name(ref))
        encode(payload.extend, table, sorted(run.items()), sealer)
        return ref, bytes(payload)


def _waiting_in(snapshot: Snapshot, table: Table) -> Waiting:
    """What of a table waits in one state of the store."""
    small, loose = snapshot.small(table), snapshot.loose(table)
    rows = sum(ref.rows for ref in small) + sum(ref.file.rows for ref in loose)
    return Waiting(len(small), len(loose), rows)


def _longest_part(snapshot: Snapshot, table: Table) -> Sequence[SegmentRef]:
    """The files of the part that has the most of them."""
    return max((snapshot.part(table, part) for part in range(PARTS)), key=len)


def _keep(_group: int, rows: Rows) -> Rows:
    """The change that changes nothing."""
    return rows


def _live(table: Table, run: Run, now: dt.datetime) -> Run:
    """A run without event ids that are older than the retention."""
    if table is not SEEN:
        return run
    return {group: rows for group, rows in run.items() if group >= oldest_week(now)}
