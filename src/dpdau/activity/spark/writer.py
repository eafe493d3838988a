"""The writing side of the lake store: one change at a time, each complete or not there.

New files are finished first, then one manifest transaction names them and drops what they
replace, then the old files are deleted. A crash in between leaves files that nothing names.
"""

import contextlib
import datetime as dt
import sqlite3
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from dpdau.activity.held import PlanMonth
from dpdau.activity.labels import DIMENSIONS_MAX, month_index, plan_groups
from dpdau.activity.lake_table import LakeFile
from dpdau.activity.manifest import Manifest
from dpdau.activity.seen import EVENT_ID_RETENTION_DAYS, oldest_week
from dpdau.activity.spark import frames
from dpdau.activity.spark.lake import (
    DAYS,
    GRAVE,
    KINDS,
    LABELS,
    SEEN,
    TRUTH,
    UNSPLIT,
    Lake,
    TableKind,
)
from dpdau.activity.spark.state import LITERALS_MAX, LakeState, may_have
from dpdau.activity.spark.writing import written
from dpdau.domain import day_date, day_number
from dpdau.errors import StoreUnavailableError

if TYPE_CHECKING:
    from pyspark.sql import Column, DataFrame, SparkSession

_GROWTH: Final = 2
"""A fold takes an older commit along when it is at most this many times what is folded so far."""


@dataclass(frozen=True, slots=True)
class Stale:
    """Rows that have to go.

    Attributes:
        gone: Of some rows, those that have to go.
        rest: Of some rows, those that stay.
        may: Whether a file may have one that has to go.
    """

    gone: Callable[["DataFrame"], "DataFrame"]
    rest: Callable[["DataFrame"], "DataFrame"]
    may: Callable[[LakeFile], bool] = lambda _file: True


@dataclass(frozen=True, slots=True)
class LakeLimits:
    """When the lake is folded. Performance only.

    Attributes:
        commits_max: Commits of one kind that may wait; more are folded into one.
        split_rows_min: With so many rows, what is folded is cut by key.
        lock_wait_seconds: How long a writer waits for another one.
    """

    commits_max: int = 64
    split_rows_min: int = 1 << 22
    lock_wait_seconds: float = 2.0


@dataclass(slots=True)
class LakeChange:
    """What one transaction adds to the lake and what it replaces.

    Attributes:
        seq: The newest commit of its rows.
        files: New files.
        old: Files that are replaced.
    """

    seq: int
    files: list[LakeFile] = field(default_factory=list)
    old: list[LakeFile] = field(default_factory=list)

    def next_seq(self) -> int:
        """The commit of the next rows."""
        self.seq += 1
        return self.seq


class LakeWriter:
    """Changes the lake; the caller holds the writer's lock, or for `tend` the right to fold.

    Args:
        manifest: The writing side of the manifest.
        lake: The files.
        spark: Gives who reads and writes them.
        limits: When to fold.
        turn: Held while the manifest is used: others may add while `tend` folds.
    """

    def __init__(
        self,
        manifest: Manifest,
        *,
        lake: Lake,
        spark: Callable[[], "SparkSession"],
        limits: LakeLimits,
        turn: AbstractContextManager[object],
    ) -> None:
        self._manifest = manifest
        self._turn = turn
        self._limits = limits
        self._pruned_on: dt.date | None = None
        self._spark = spark
        self.lake: Final = lake

    @property
    def spark(self) -> "SparkSession":
        """The session, which may start here."""
        return self._spark()

    def state(self, also: Sequence[LakeFile] = ()) -> LakeState:
        """The newest state, with files of a change that is not committed."""
        with self._turn:
            files, months = self._manifest.lake.files(), self._manifest.open_months()
        return LakeState(self.spark, self.lake, [*files, *also], months)

    @contextlib.contextmanager
    def changing(self) -> Iterator[LakeChange]:
        """A change to fill with files; they are deleted again if filling it fails."""
        with self._turn:
            change = LakeChange(self._manifest.last_seq())
        try:
            yield change
        except BaseException:
            self._discard(change)
            raise

    def commit(self, change: LakeChange, also: Callable[[], None] | None = None) -> None:
        """Makes a change durable, with further statements of the same transaction."""
        try:
            with self._turn, self._manifest.writing():
                while self._manifest.last_seq() < change.seq:
                    self._manifest.take_seq()
                self._manifest.lake.drop(change.old)
                self._manifest.lake.add(change.files)
                if also is not None:
                    also()
        except BaseException:
            self._discard(change)
            raise
        self.lake.remove(one.name for one in change.old)

    def put(self, change: LakeChange, kind: TableKind, table: pa.Table) -> None:
        """Writes rows that this process holds, of one commit."""
        change.files += self.lake.write(kind, table)

    def write(
        self,
        change: LakeChange,
        kind: TableKind,
        rows: "DataFrame",
        *,
        state: LakeState,
        is_split: bool = False,
    ) -> list[LakeFile]:
        """Has Spark write rows, each commit of them to files of its own; gives these files.

        Args:
            change: Where the files are noted.
            kind: What the rows are.
            rows: What to compute and to write.
            state: What they are read from.
            is_split: Whether each part gets files of its own.

        Raises:
            StoreUnavailableError: Spark gave up, or what it wrote is not seen here.
        """
        from pyspark.sql import functions as sql

        by = {"of_commit": sql.col("commit")}
        if kind is DAYS:
            by["of_group"] = sql.col("group")
        if is_split:
            by["of_part"] = frames.part()
        placed = rows.select(*kind.columns).withColumns(by)
        if is_split:
            placed = placed.repartition(*by).sortWithinPartitions(*by, "key")
        with self.lake.staging() as stage:
            count = state.run(lambda: written(placed, stage, by=tuple(by)))
            files = self.lake.take(kind, stage, rows=count)
        change.files += files
        return files

    def forget(self, keys: NDArray[np.uint64], also: Callable[[int], None]) -> int:
        """Rewrites every file with a row of one of some sorted unique pseudonyms.

        Args:
            keys: The pseudonyms.
            also: Further statements of the transaction, given how many days are touched.

        Guarantee:
            When it returns, no file of the lake and no page of the manifest holds one of them, but
            for the graves in the open months.
        """
        from pyspark.sql import functions as sql

        stale = self._keys(keys)
        with self.changing() as change:
            state = self.state()
            truth = state.rows_of(DAYS, keys).filter(sql.col("group") == TRUTH)
            days = frames.standing(truth).select("day").distinct()
            touched = state.run(days.count)
            for kind in (DAYS, LABELS):
                self._take_out(change, state, kind, stale)
            seq = change.next_seq()
            for month in state.months:
                self.put(change, DAYS, _graves(month, keys, seq))
        self.commit(change, lambda: also(touched))
        self.clear()
        return touched

    def purge_before(self, day: dt.date) -> None:
        """Takes out the true days before one, and labels of earlier months."""
        from pyspark.sql import functions as sql

        with self.changing() as change:
            state = self.state()
            first = min([day_number(day), *(month.start for month in state.months)])
            days = range(-(2**31), first)
            truth = range(TRUTH, TRUTH + 1)
            month = month_index(day_date(first))
            groups = range(min(month * DIMENSIONS_MAX, plan_groups(0).start))
            old_days = (sql.col("group") == TRUTH) & (sql.col("day") < first)
            stale = _stale(old_days, lambda one: one.has_groups(truth) and one.has_days(days))
            self._take_out(change, state, DAYS, stale)
            self._take_out(change, state, LABELS, _stale_groups(groups))
        self.commit(change)
        self.clear()

    def drop_month(self, month: PlanMonth, also: Callable[[], None]) -> None:
        """Takes out every row of a month, graves and plan labels with it."""
        own, planned = range(month.month, month.month + 1), plan_groups(month.month)
        with self.changing() as change:
            state = self.state()
            for kind, groups in ((DAYS, own), (LABELS, planned)):
                self._take_out(change, state, kind, _stale_groups(groups))
        self.commit(change, also)
        self.clear()

    def flush(self, now: dt.datetime) -> None:
        """Takes out what is kept for no open month, event ids over their age, and every trace."""
        from pyspark.sql import functions as sql

        with self.changing() as change:
            state = self.state()
            open_months = [one.month for one in state.months]
            planned = [group for one in open_months for group in plan_groups(one)]
            plans = range(plan_groups(0).start, 2**31)
            for kind, groups, kept in (
                (DAYS, range(TRUTH + 1, 2**31), open_months),
                (LABELS, plans, planned),
                (SEEN, range(-(2**31), oldest_week(now)), []),
            ):
                column = _of_groups(groups) & ~sql.col("group").isin([*kept, -(2**31)])
                self._take_out(change, state, kind, _stale(column, _may(groups)))
        self.commit(change)
        self.clear()

    def tend(self, now: dt.datetime, *, patience: int = 1) -> bool:
        """Folds the commits of each kind that has too many.

        Args:
            now: What time it is.
            patience: How many times its limit something may reach.

        Returns:
            Whether nothing is left that is due.
        """
        for kind in KINDS:
            self._fold(kind, now, patience)
        if self._pruned_on is None or (now.date() - self._pruned_on).days >= patience:
            before = now.date() - dt.timedelta(days=EVENT_ID_RETENTION_DAYS)
            with self._turn, self._manifest.writing():
                self._manifest.prune_batches(before)
            self._pruned_on = now.date()
        return True

    def recover(self) -> None:
        """What a new writer does first: ends what a crash cut short."""
        self.lake.remove(self.lake.names() - self._manifest.lake.names())
        # What cannot be deleted now is told where an erasure rests on it.
        with contextlib.suppress(StoreUnavailableError):
            if self._manifest.receipts.outstanding():
                self.clear()
            else:
                self.lake.sync()

    def clear(self) -> None:
        """Removes every byte of rows that were replaced.

        Raises:
            StoreUnavailableError: A reader kept the write-ahead log from being emptied, or what a
                job left cannot be deleted; retry.
        """
        self.lake.remove(self.lake.names() - self._manifest.lake.names())
        # A power cut must not bring a file back behind a receipt that says that it is gone.
        self.lake.sync()
        self._manifest.truncate_log()
        if self._manifest.receipts.outstanding():
            with self._manifest.writing():
                self._manifest.receipts.mark_cleared()

    def _take_out(
        self,
        change: LakeChange,
        state: LakeState,
        kind: TableKind,
        stale: Stale,
    ) -> None:
        """Rewrites the files of a kind that have a row that has to go; where they may have one."""
        files = [one for one in state.of(kind) if stale.may(one)]
        if not files:
            return
        gone = stale.gone(state.of_files(kind, files))
        where = gone.select("commit", frames.part().alias("part")).distinct()
        table = state.run(where.toArrow)
        hit = set(zip(*(table[name].to_pylist() for name in ("commit", "part")), strict=True))
        commits = {commit for commit, _part in hit}
        old = [
            one
            for one in files
            if one.seq in commits and (one.part == UNSPLIT or (one.seq, one.part) in hit)
        ]
        if old:
            change.old += old
            is_split = sum(one.rows for one in old) >= self._limits.split_rows_min
            kept = stale.rest(state.of_files(kind, old))
            self.write(change, kind, kept, state=state, is_split=is_split)

    def _fold(self, kind: TableKind, now: dt.datetime, patience: int) -> None:
        """Folds the newer commits of a kind, and the older ones that are not much larger."""
        from pyspark.sql import functions as sql

        state = self.state()
        rows: dict[int, int] = {}
        for one in state.of(kind):
            rows[one.seq] = rows.get(one.seq, 0) + one.rows
        seqs = sorted(rows)
        if len(seqs) <= patience * self._limits.commits_max:
            return
        start, total = len(seqs) - 1, rows[seqs[-1]]
        while start > 0 and (
            start > self._limits.commits_max // 2 or rows[seqs[start - 1]] <= _GROWTH * total
        ):
            start -= 1
            total += rows[seqs[start]]
        with self.changing() as change:
            change.old += [one for one in state.of(kind) if one.seq >= seqs[start]]
            some = state.of_files(kind, change.old)
            if kind is SEEN:
                some = some.filter(sql.col("group") >= oldest_week(now))
            folded = frames.folded(kind.kind, some, seq=seqs[-1], is_base=start == 0)
            is_split = total >= self._limits.split_rows_min
            self.write(change, kind, folded, state=state, is_split=is_split)
        self.commit(change)

    def _keys(self, keys: NDArray[np.uint64]) -> Stale:
        """The rows of some keys."""
        from pyspark.sql import functions as sql

        def may(file: LakeFile) -> bool:
            return may_have(file, keys)

        signed = keys.view(np.int64)
        if len(keys) <= LITERALS_MAX:
            return _stale(sql.col("key").isin(signed.tolist()), may)
        known = self.spark.createDataFrame(pa.table({"key": signed}))
        return Stale(
            lambda rows: rows.join(known, "key", "left_semi"),
            lambda rows: rows.join(known, "key", "left_anti"),
            may,
        )

    def _discard(self, change: LakeChange) -> None:
        """Deletes the new files of a change that was not committed."""
        # Where the manifest cannot be asked, the files stay for the next start to delete.
        with contextlib.suppress(sqlite3.Error, OSError), self._turn:
            named = self._manifest.lake.names()
            self.lake.remove({one.name for one in change.files} - named)


def _stale(column: "Column", may: Callable[[LakeFile], bool]) -> Stale:
    """The rows of which something is true."""
    return Stale(lambda rows: rows.filter(column), lambda rows: rows.filter(~column), may)


def _stale_groups(groups: range) -> Stale:
    """The rows of some groups."""
    return _stale(_of_groups(groups), _may(groups))


def _of_groups(groups: range) -> "Column":
    """Whether a row is of one of some groups."""
    from pyspark.sql import functions as sql

    return sql.col("group").between(groups.start, groups.stop - 1)


def _may(groups: range) -> Callable[[LakeFile], bool]:
    """Whether a file may have a row of some groups."""
    return lambda one: one.has_groups(groups)


def _graves(month: PlanMonth, keys: NDArray[np.uint64], seq: int) -> pa.Table:
    """Rows that take some pseudonyms out of a month for good."""
    size = len(keys)
    return pa.table(
        {
            "group": np.full(size, month.month, dtype=np.int32),
            "key": keys.view(np.int64),
            "day": np.full(size, GRAVE, dtype=np.int32),
            "add": np.ones(size, dtype=np.bool_),
            "commit": np.full(size, seq, dtype=np.int64),
        }
    )
