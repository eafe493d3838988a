"""The `ActivityStore` protocol: who was active, durably, and how many in a window.

Every implementation gives the same answers as the pure fold in `activity.turnstile`, at every
prefix of every stream; `tests/contracts/test_activity_store.py` holds them to it.
"""

import datetime as dt
from collections.abc import Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from dpdau.domain import ErasureReceipt, EventBatch, Segment


@dataclass(frozen=True, slots=True)
class Applied:
    """What became of the events of one batch: events = accepted + duplicate + late."""

    accepted: int
    duplicate: int
    late: int


@dataclass(frozen=True, slots=True)
class StoreStats:
    """The size of the store: rows are (pseudonym, 64-day page) entries before the final merge.

    `segments` and `rows` are those of activity, without labels and event ids; `bytes_on_disk` is
    everything.
    `first_day` and `last_day` are bounds: a day whose activity was all taken out again may still
    count until the next merge.
    """

    segments: int
    rows: int
    pending_rows: int
    bytes_on_disk: int
    first_day: dt.date | None
    last_day: dt.date | None


class LiveStore(Protocol):
    """The live day of a store: counted while it lasts.

    Guarantee:
        Let m be what one user adds to `count` of a day, over all its calls. Then m is 0…0 1…1 0…0:
        it goes up at most once and down at most once, whatever the stream does, also over an
        erasure with a return, and under every live key. So it is in `ToggleClass(calls, 2)`.
    """

    def open(self, month: str) -> None:
        """Lets the days of a month be counted live. Durable, idempotent.

        Raises:
            InvalidPlanError: It was ended.
        """

    def begin(self, day: dt.date) -> None:
        """Makes a day the live one, in place of an earlier day. Durable, idempotent.

        From now on a user whose activity of the day is taken out is out of its count, until the
        day is over; nothing is left then of who was out of the earlier day.

        Raises:
            InvalidPlanError: Its month is not open, or it or a later day was live and is over.
        """

    def advance(self, month: str, step: int) -> None:
        """Notes the step that is counted next, so that an older copy can be told. Durable.

        Raises:
            InvalidPlanError: The month is not open.
        """

    def step(self, month: str) -> int | None:
        """The last step that was noted, or None."""

    def count(self, day: dt.date) -> int:
        """How many users are active on the live day so far, and not out of it. Private.

        Raises:
            InvalidPlanError: It is not the live day.
        """

    def put_secret(self, month: str, body: bytes) -> bytes:
        """Stores a secret of an open month if it has none; returns the one it has. Durable.

        Raises:
            InvalidPlanError: The month is not open, or the secret is empty or too long.
        """

    def secret(self, month: str) -> bytes | None:
        """The secret of a month, or None."""

    def end(self, before: dt.date) -> None:
        """Destroys what was kept of live days and months that ended before a day. Idempotent.

        No file holds it when this returns; that a month was ended stays.

        Raises:
            StoreUnavailableError: Nothing is gone, or all is but a reader kept the write-ahead log
                from being emptied; in both cases retry.
        """


class ActivityStore(Protocol):
    """A set of (pseudonym, day) pairs under `+` and `-`, with labels for segments.

    A batch may name its users under older live keys too (`EventBatch.aliases`). What an alias
    holds is moved to the current pseudonym before the batch is folded in, so counts over a key
    rotation equal counts without one. A pseudonym that was moved must not be written again under
    its old name while the new one is in use.

    For a month plan, the store keeps a second reading of a month. Between `open_month` and
    `end_month`, `freeze` fixes its days in order, and what the month counts of a fixed day never
    changes: later events correct the activity, and the day as it was is held for the month.

    Guarantee:
        Let m be what one user adds to `contributions` on the days of a month, each day asked for
        after it was fixed and before the next one is. Then m(t) for a window of W days is "active
        on a day in (t - W, t]" of one set of days that does not depend on t, until the user is
        erased, and 0 from then on, also when the user comes back and under every live key. With
        segments of one dimension, all of it is in one segment or in none. So every user's
        series is in `ContributionClass(T, windows, daily=True, erasure=True)`.
    """

    @property
    def live(self) -> LiveStore:
        """The live day."""

    def apply(self, batch: EventBatch) -> Applied:
        """Folds a batch in, in arrival order; durable when it returns.

        A batch whose `batch_id` was applied before changes nothing and counts as duplicate, as does
        each event whose `event_id` was seen. An event that touches a closed day is applied and
        counted as late.

        Raises:
            StoreUnavailableError: Nothing of the batch was applied; retry.
        """

    def apply_many(self, batches: Sequence[EventBatch]) -> list[Applied]:
        """The same as `apply` on each batch in turn; durable together when it returns.

        One durable write for all of them: after a crash all batches are there or none is.

        Raises:
            StoreUnavailableError: Nothing of any batch was applied; retry.
        """

    def tend(self) -> bool:
        """Does some of the upkeep that is due; True where none is left.

        Where it is long overdue, `apply` does it by itself.
        """

    def unless_busy(self, wait_seconds: float) -> AbstractContextManager[bool]:
        """Keeps the writing side for the calls of this thread inside.

        Gives False, and keeps nothing, where a call inside would wait longer for another one.
        """

    def counts(
        self,
        *,
        first: dt.date,
        last: dt.date,
        window_days: Sequence[int],
        segment: Segment | None = None,
    ) -> NDArray[np.int64]:
        """Distinct pseudonyms active in each trailing window, in one scan. Exact, so private.

        With a segment, a pseudonym counts when it was active in the window on a day of a month for
        which that segment is its label (the first one seen in that month).

        Returns:
            (len(window_days), days) int64: row i holds the counts of the windows of
            `window_days[i]` days that end on first, …, last.
        """

    def growth(self, end: dt.date, *, window_days: int) -> NDArray[np.int64]:
        """Who came and went between two neighboring windows. Exact, so private.

        The later window is the `window_days` days that end at `end`, the earlier one as many days
        before it. A pseudonym active in one of them is in exactly one cell: new (in the later one,
        and on no day before it), retained (in both), resurrected (in the later one, not in the
        earlier one, and on a day before both) or churned (in the earlier one alone); every other
        pseudonym is in none. Days before reach as far as activity is kept.

        Returns:
            (4,) int64: new, retained, resurrected, churned.

        Raises:
            InvalidPlanError: A window outside 1..64 days.
        """

    def segment_values(self, dimension: str) -> tuple[str, ...]:
        """The values of a dimension seen so far, sorted. Private: not for publication."""

    def close_day(self, day: dt.date) -> None:
        """Marks a day as released: later events for it count as late. Durable, idempotent."""

    def closed_days(self, first: dt.date, last: dt.date) -> frozenset[dt.date]:
        """The days of a range that were marked as released."""

    def has_closed_days(self) -> bool:
        """Whether any day was ever marked as released."""

    def forget(
        self,
        pseudonyms: Sequence[int],
        *,
        erasure_id: str | None = None,
        done_at: dt.datetime | None = None,
    ) -> int:
        """Takes out every pair and label of these pseudonyms; durable when it returns.

        Each open month keeps a tombstone for each of them until it ends: they count as inactive.

        Args:
            pseudonyms: One user under every live key, or several users.
            erasure_id: Keeps a receipt under this id, in the same transaction.
            done_at: The time on the receipt.

        Returns:
            The number of distinct days that were touched.
        """

    def receipt(self, erasure_id: str) -> ErasureReceipt:
        """The receipt of an erasure.

        Raises:
            NotFoundError: There is none with this id.
        """

    def purge_before(self, day: dt.date) -> None:
        """Drops all activity before a day, and labels of months that ended before it.

        Days that the windows of an open month touch stay until it ends.
        """

    def flush(self) -> None:
        """Finishes every outstanding physical removal: what is left afterwards is what counts.

        Replaced rows, files that a crash left, and what is kept for no open month and no live day
        are gone from the disk when it returns, and the receipts of all erasures say so.

        Raises:
            StoreUnavailableError: Something could not be removed, or a reader kept the log; retry.
        """

    def open_month(self, month: str, *, lookback_days: int, dimensions: Sequence[str] = ()) -> None:
        """Starts to keep what a month counts. Durable, idempotent.

        Args:
            month: "YYYY-MM".
            lookback_days: The longest window that will be counted, 1..64 days.
            dimensions: Those for which each user keeps one label through the month.

        Raises:
            InvalidPlanError: It was ended, or opened with other arguments and used since.
        """

    def open_months(self) -> tuple[str, ...]:
        """The months that were opened and not ended, oldest first."""

    def freeze(self, month: str, day: dt.date) -> None:
        """Fixes all days up to one for an open month, and closes it. Durable, idempotent.

        A user who contributes for the first time gets the label, for each dimension of the month,
        of the latest month up to this one, and within the look-back, that has one; without it the
        user is in no segment through the month.

        Raises:
            InvalidPlanError: It is not the next day of the month, or the month is not open.
        """

    def frozen_through(self, month: str) -> dt.date | None:
        """The last fixed day of a month, or None before the first one."""

    def contributions(
        self,
        month: str,
        day: dt.date,
        *,
        window_days: Sequence[int],
        segments: Sequence[Segment] = (),
    ) -> NDArray[np.int64]:
        """How many users an open month counts in each window that ends on a fixed day. Private.

        Returns:
            (1 + len(segments), len(window_days)) int64: everyone, then each segment.

        Raises:
            InvalidPlanError: The month is not open, the day is not fixed, a window is longer than
                the look-back, or a segment is of another dimension.
        """

    def put_secret(self, month: str, body: bytes) -> bytes:
        """Stores a secret of an open month if it has none; returns the one it has. Durable.

        Raises:
            InvalidPlanError: The month is not open, or the secret is empty or too long.
        """

    def secret(self, month: str) -> bytes | None:
        """The secret of a month, or None."""

    def end_month(self, month: str) -> None:
        """Destroys what was kept for a month; no file holds it when this returns. Idempotent.

        What is held, tombstones, plan labels and the secret are gone; that the month was ended
        stays, so it cannot be opened again, unless no day of it was fixed. A month that was never
        opened is left alone.

        Raises:
            StoreUnavailableError: Nothing is gone, or all is but a reader kept the write-ahead log
                from being emptied. In both cases the month is still open: retry.
        """

    def offset(self, source: str) -> int | None:
        """The last offset of a source that was stored with its activity, or None.

        A negative one that comes with a batch forgets the source.
        """

    def stats(self) -> StoreStats:
        """The size of the store."""

    def check_writable(self) -> None:
        """Proves that a durable write works now.

        Raises:
            StoreUnavailableError: It does not.
        """

    def close(self) -> None:
        """Releases files and locks; may be called twice."""
