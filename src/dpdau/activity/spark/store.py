"""The activity store in a lake of Parquet files, counted by Spark."""

import datetime as dt
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Final

import numpy as np
from numpy.typing import NDArray

from dpdau.activity.labels import DIMENSIONS_MAX, month_index
from dpdau.activity.residue import Findings
from dpdau.activity.spark import frames, residue
from dpdau.activity.spark.access import LakeAccess
from dpdau.activity.spark.adoption import Adoption
from dpdau.activity.spark.arrivals import LakeArrivals
from dpdau.activity.spark.lake import DAYS, LABELS, TRUTH
from dpdau.activity.spark.live import NoLiveDays
from dpdau.activity.spark.months import LakeMonths
from dpdau.activity.spark.state import LakeState
from dpdau.activity.spark.writer import LakeLimits, LakeWriter
from dpdau.activity.store import Applied, StoreStats
from dpdau.activity.verbs import (
    StoreVerbs,
    check_days,
    check_windows,
    erasure_receipt,
    unique_keys,
)
from dpdau.domain import Clock, EventBatch, Segment, day_date, day_number

if TYPE_CHECKING:
    from pyspark.sql import DataFrame, SparkSession

_PATIENCE: Final = 2
"""How many times its limits what waits may reach before a commit folds it itself."""
_WINDOW_MONTHS: Final = 3
"""So many months before that of its last day, the longest window begins at the earliest."""
_TRUE: Final = range(TRUTH, TRUTH + 1)


class SparkStore(StoreVerbs[LakeWriter]):
    """An `ActivityStore` whose rows lie in a lake, and whose counting is work of Spark.

    The manifest under `root` says which files of the lake count; it stays with the one process
    that writes, and any number of processes may read. The executors of Spark read and write files,
    and only counts come back from them. A live day is not kept: `live` refuses it.

    Args:
        root: The folder of the manifest; made with mode 0700 when missing.
        lake: The folder of the files, which all executors see under the same name.
        spark: The session, or what gives it at the first question that needs it; it stays the
            caller's, who also stops it.
        clock: What time it is; only the age of event ids and receipts depend on it.
        read_only: Never write; the store must exist.
        limits: When to fold; performance only.

    Guarantee:
        What a call has acknowledged survives the end of the process at any point, whole; what it
        has not acknowledged is there whole or not at all, also where Spark fails in the middle.

    Raises:
        InvalidSettingError: The manifest is not that of this lake.
        StoreUnavailableError: A folder cannot be opened.
    """

    def __init__(
        self,
        root: Path,
        *,
        lake: Path,
        spark: "SparkSession | Callable[[], SparkSession]",
        clock: Clock,
        read_only: bool = False,
        limits: LakeLimits | None = None,
    ) -> None:
        self._access = LakeAccess(
            root,
            lake=lake,
            spark=spark,
            read_only=read_only,
            limits=LakeLimits() if limits is None else limits,
        )
        super().__init__(self._access, clock, LakeMonths(self._access, clock))
        self._root = root
        self.live: Final = NoLiveDays()

    @property
    def spark(self) -> "SparkSession":
        """The session, which may start here."""
        return self._access.spark

    def apply(self, batch: EventBatch) -> Applied:
        """Folds a batch in; see `ActivityStore.apply`."""
        return self.apply_many([batch])[0]

    def apply_many(self, batches: Sequence[EventBatch]) -> list[Applied]:
        """Folds batches in as one commit; see `ActivityStore.apply_many`."""
        with self._access.writing() as (manifest, writer):
            now = self._clock()
            self._tend_overdue(writer, now)
            with writer.changing() as change:
                arrivals = LakeArrivals(manifest, now, writer=writer, change=change)
                applied = arrivals.add(batches)
            if change.files or not arrivals.is_only_rows:
                writer.commit(change, arrivals.store)
            return applied

    def adopt(
        self,
        rows: "DataFrame",
        *,
        dimensions: Mapping[str, str] | None = None,
        aliases: Sequence[str] = (),
        batch_id: str | None = None,
        older_batch_ids: Sequence[str] = (),
        offsets: Mapping[str, int] | None = None,
    ) -> Applied:
        """Folds in rows that Spark holds: `apply`, without a row passing through this process.

        The rows are computed once: they are written to the lake first, by the executors.

        Args:
            rows: One row for each event and day, with the columns
                `pseudonym` BIGINT, the two's complement of the uint64, under the current key;
                `day` INT, a day number; `add` BOOLEAN, true for `+`;
                `event` BIGINT, which event the row belongs to: the same for all rows of one event,
                different for each event of this call, and increasing in the order of arrival;
                `event_id` BIGINT, the two's complement of the keyed hash, 0 where none was sent.
                Other columns are left alone. None of these is NULL.
            dimensions: Dimension → the STRING column with its values, NULL where there is none.
            aliases: BIGINT columns with the pseudonyms under the older live keys, newest first.
            batch_id: As in `EventBatch`.
            older_batch_ids: As in `EventBatch`.
            offsets: As in `EventBatch`.

        Raises:
            StoreUnavailableError: Nothing of it was applied; retry.
        """
        with self._access.writing() as (manifest, writer):
            now = self._clock()
            self._tend_overdue(writer, now)
            with writer.changing() as change:
                adoption = Adoption(manifest, now, writer=writer, change=change)
                is_new = adoption.is_new(batch_id, older_batch_ids, offsets or {})
                applied = adoption.adopt(
                    rows, dimensions=dimensions or {}, aliases=aliases, is_new=is_new
                )
            if change.files or not adoption.is_only_rows:
                writer.commit(change, adoption.store)
            return applied

    def tend(self) -> bool:
        """Folds what has grown; see `ActivityStore.tend`."""
        with self._access.folding() as writer:
            return writer.tend(self._clock())

    def counts(
        self,
        *,
        first: dt.date,
        last: dt.date,
        window_days: Sequence[int],
        segment: Segment | None = None,
    ) -> NDArray[np.int64]:
        """Distinct pseudonyms in each trailing window; see `ActivityStore.counts`.

        All days and windows are one job.

        Raises:
            InvalidPlanError: A window outside 1..64 days, or a range that is empty or too long.
            StoreCorruptError: A file is damaged or gone.
        """
        days = check_days(first, last)
        check_windows(window_days)
        code = None if segment is None else self._segment_code(segment)
        nobody = np.zeros((len(window_days), days), dtype=np.int64)
        if (segment is not None and code is None) or not window_days:
            return nobody
        start = day_number(first)

        def count(state: LakeState) -> NDArray[np.int64]:
            if not state.of(DAYS):
                return nobody
            touched = range(start - max(window_days) + 1, start + days)
            pairs = frames.standing(state.rows(DAYS, groups=_TRUE, days=touched))
            if code is not None:
                months = range(month_index(first) - _WINDOW_MONTHS, month_index(last) + 1)
                groups = range(months.start * DIMENSIONS_MAX, months.stop * DIMENSIONS_MAX)
                pairs = frames.labeled(pairs, state.rows(LABELS, groups=groups), code)
            table = frames.gaps(pairs).toArrow()
            return frames.window_counts(table, first=start, days=days, window_days=window_days)

        return self._access.read(count)

    def growth(self, end: dt.date, *, window_days: int) -> NDArray[np.int64]:
        """Who came and went between two neighboring windows; see `ActivityStore.growth`."""
        check_windows([window_days])
        number = day_number(end)

        def count(state: LakeState) -> NDArray[np.int64]:
            kept = range(-(2**31) + 1, number + 1)
            pairs = frames.standing(state.rows(DAYS, groups=_TRUE, days=kept))
            cells = frames.growth_cells(pairs, end=number, window_days=window_days)
            [row] = cells.toArrow().to_pylist()
            return np.array(list(row.values()), dtype=np.int64)

        return self._access.read(count)

    def forget(
        self,
        pseudonyms: Sequence[int],
        *,
        erasure_id: str | None = None,
        done_at: dt.datetime | None = None,
    ) -> int:
        """Takes out every pair and label; see `ActivityStore.forget`.

        Guarantee:
            When it returns, no file of the lake and none under the store's folder holds one of the
            pseudonyms, except the tombstone of each open month.

        Raises:
            StoreUnavailableError: Nothing was taken out, or all was but a reader kept the
                write-ahead log from being emptied; in both cases retry.
        """
        keys = unique_keys(pseudonyms)
        with self._access.rewriting() as (manifest, writer):

            def also(touched: int) -> None:
                if erasure_id is not None:
                    done = erasure_receipt(
                        manifest,
                        erasure_id,
                        done_at or self._clock(),
                        days_touched=touched,
                        keys=len(keys),
                    )
                    manifest.receipts.add(done)

            return writer.forget(keys, also)

    def purge_before(self, day: dt.date) -> None:
        """Drops all activity before a day, and the labels of months that ended before it."""
        with self._access.rewriting() as (_manifest, writer):
            writer.purge_before(day)

    def flush(self) -> None:
        """Finishes every outstanding physical removal; see `ActivityStore.flush`."""
        with self._access.rewriting() as (_manifest, writer):
            writer.flush(self._clock())

    def stats(self) -> StoreStats:
        """The size of the store; see `StoreStats`. A row here is one day of one pseudonym."""

        def measure(state: LakeState) -> StoreStats:
            files = [one for one in state.of(DAYS) if one.has_groups(_TRUE)]
            first = min((one.day_min for one in files if one.day_min is not None), default=None)
            last = max((one.day_max for one in files if one.day_max is not None), default=None)
            return StoreStats(
                segments=len(files),
                rows=sum(one.rows for one in files),
                pending_rows=sum(one.rows for one in files if one.seq != files[0].seq),
                bytes_on_disk=self._access.lake.bytes_on_disk() + _bytes_under(self._root),
                first_day=None if first is None else day_date(first),
                last_day=None if last is None else day_date(last),
            )

        return self._access.read(measure)

    def inspect(self, names: Sequence[int] = ()) -> Findings:
        """Looks at every row, and for pseudonyms; see `residue.inspect`."""
        return residue.inspect(self._root, lake=self._access.lake.folder, names=names)

    def _tend_overdue(self, writer: LakeWriter, now: dt.datetime) -> None:
        """Folds where it is long overdue and nobody else does."""
        with self._access.folding_unless_busy() as is_free:
            if is_free:
                writer.tend(now, patience=_PATIENCE)


def _bytes_under(root: Path) -> int:
    """The bytes of the files in a folder."""
    return sum(path.stat().st_size for path in root.iterdir() if path.is_file())
