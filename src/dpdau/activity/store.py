"""The `ActivityStore` protocol: who was active, durably, and how many in a window.

Every implementation gives the same answers as the pure fold in `activity.turnstile`, at every
prefix of every stream; `tests/contracts/test_activity_store.py` holds them to it.
"""

import datetime as dt
from collections.abc import Sequence
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


class ActivityStore(Protocol):
    """A set of (pseudonym, day) pairs under `+` and `-`, with labels for segments.

    A batch may name its users under older live keys too (`EventBatch.aliases`). What an alias
    holds is moved to the current pseudonym before the batch is folded in, so counts over a key
    rotation equal counts without one. A pseudonym that was moved must not be written again under
    its old name while the new one is in use.
    """

    def apply(self, batch: EventBatch) -> Applied:
        """Folds a batch in, in arrival order; durable when it returns.

        A batch whose `batch_id` was applied before changes nothing and counts as duplicate, as does
        each event whose `event_id` was seen. An event that touches a closed day is applied and
        counted as late.

        Raises:
            StoreUnavailableError: Nothing of the batch was applied; retry.
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
        """Drops all activity before a day, and labels of months that ended before it."""

    def offset(self, source: str) -> int | None:
        """The last offset of a source that was stored with its activity, or None."""

    def stats(self) -> StoreStats:
        """The size of the store."""

    def check_writable(self) -> None:
        """Proves that a durable write works now.

        Raises:
            StoreUnavailableError: It does not.
        """

    def close(self) -> None:
        """Releases files and locks; may be called twice."""
