"""The verbs of a store that its manifest alone answers, the same for every place of its rows."""

import datetime as dt
from collections.abc import Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Final, Generic

import numpy as np
from numpy.typing import NDArray

from dpdau import __version__
from dpdau.activity import held
from dpdau.activity.doors import Doors, Writer
from dpdau.activity.manifest import Manifest
from dpdau.activity.month_verbs import MonthVerbs
from dpdau.domain import (
    WINDOW_DAYS_MAX,
    Clock,
    ErasureReceipt,
    Segment,
    day_date,
    day_number,
)
from dpdau.errors import InvalidPlanError, NotFoundError

COUNT_DAYS_MAX: Final = 4096
"""The longest range of days that one call may count."""
FORGET_MAX: Final = 1_000_000
"""How many pseudonyms one call may forget."""


class StoreVerbs(Generic[Writer]):
    """Closed days, offsets, receipts and months of an `ActivityStore`; see there."""

    def __init__(self, doors: Doors[Writer], clock: Clock, months: MonthVerbs[Writer]) -> None:
        self._doors = doors
        self._clock = clock
        self._months = months

    @staticmethod
    def exists(root: Path) -> bool:
        """Whether a store was made in a folder, be its manifest there or lost."""
        return Doors.exists(root)

    def unless_busy(self, wait_seconds: float) -> AbstractContextManager[bool]:
        """Keeps the writing side for the calls inside; see `ActivityStore.unless_busy`."""
        return self._doors.unless_busy(wait_seconds)

    def segment_values(self, dimension: str) -> tuple[str, ...]:
        """The values of a dimension seen so far, sorted. Private: not for publication."""
        with self._doors.looking() as manifest:
            known = manifest.dimensions().get(dimension)
            return () if known is None else tuple(manifest.values(known))

    def close_day(self, day: dt.date) -> None:
        """Marks a day as released; durable, idempotent."""
        with self._doors.writing() as (manifest, _writer), manifest.writing():
            manifest.close_day(day_number(day))

    def closed_days(self, first: dt.date, last: dt.date) -> frozenset[dt.date]:
        """The days of a range that were marked as released."""
        with self._doors.looking() as manifest:
            found = manifest.closed_days(day_number(first), day_number(last))
            return frozenset(day_date(day) for day in found)

    def has_closed_days(self) -> bool:
        """Whether any day was ever marked as released."""
        with self._doors.looking() as manifest:
            return manifest.has_closed_days()

    def open_month(self, month: str, *, lookback_days: int, dimensions: Sequence[str] = ()) -> None:
        """Starts to keep what a month counts; see `ActivityStore.open_month`."""
        self._months.open(month, lookback_days=lookback_days, dimensions=dimensions)

    def freeze(self, month: str, day: dt.date) -> None:
        """Fixes the next day of an open month; see `ActivityStore.freeze`."""
        self._months.freeze(month, day)

    def frozen_through(self, month: str) -> dt.date | None:
        """The last fixed day of a month, or None."""
        return self._months.frozen_through(month)

    def contributions(
        self,
        month: str,
        day: dt.date,
        *,
        window_days: Sequence[int],
        segments: Sequence[Segment] = (),
    ) -> NDArray[np.int64]:
        """What an open month counts on a fixed day; see `ActivityStore.contributions`."""
        return self._months.contributions(month, day, window_days=window_days, segments=segments)

    def put_secret(self, month: str, body: bytes) -> bytes:
        """Stores the secret of an open month once; see `ActivityStore.put_secret`."""
        return self._months.put_secret(month, body)

    def secret(self, month: str) -> bytes | None:
        """The secret of an open month, or None."""
        return self._months.secret(month)

    def open_months(self) -> tuple[str, ...]:
        """The months that were opened and not ended, oldest first."""
        return self._months.open_months()

    def end_month(self, month: str) -> None:
        """Destroys all that was kept for a month; see `ActivityStore.end_month`."""
        self._months.end(month)

    def receipt(self, erasure_id: str) -> ErasureReceipt:
        """The receipt of an erasure.

        Raises:
            NotFoundError: There is none with this id.
        """
        with self._doors.looking() as manifest:
            found = manifest.receipts.find(erasure_id)
        if found is None:
            raise NotFoundError("Expected the id of an erasure, found none with this id.")
        return found

    def offset(self, source: str) -> int | None:
        """The last offset of a source that was stored with its activity, or None."""
        with self._doors.looking() as manifest:
            return manifest.offset(source)

    def check_writable(self) -> None:
        """Proves that a durable write works now; see `ActivityStore.check_writable`."""
        with self._doors.writing() as (manifest, _writer), manifest.writing():
            manifest.probe(self._clock())

    def close(self) -> None:
        """Releases files and the writer's lock; may be called twice."""
        self._doors.close()

    def _segment_code(self, segment: Segment) -> tuple[int, int] | None:
        """The dimension id and value code of a segment, or None where it was never seen."""
        with self._doors.looking() as manifest:
            dimension = manifest.dimensions().get(segment.dimension)
            code = None if dimension is None else manifest.value_code(dimension, segment.value)
            return None if dimension is None or code is None else (dimension, code)


def unique_keys(pseudonyms: Sequence[int]) -> NDArray[np.uint64]:
    """The sorted pseudonyms that one call forgets.

    Raises:
        InvalidPlanError: They are too many.
    """
    if len(pseudonyms) > FORGET_MAX:
        raise InvalidPlanError(
            f"Expected at most {FORGET_MAX} pseudonyms, found {len(pseudonyms)}."
        )
    return np.unique(np.array(list(pseudonyms), dtype=np.uint64))


def erasure_receipt(
    manifest: Manifest, erasure_id: str, done_at: dt.datetime, *, days_touched: int, keys: int
) -> ErasureReceipt:
    """What an erasure did, in the transaction that does it."""
    return ErasureReceipt(
        erasure_id=erasure_id,
        days_touched=days_touched,
        done_at=done_at,
        keys_searched=keys,
        tombstones=held.kept_of(manifest.open_months(), manifest.live.day()),
        version=__version__,
    )


def check_days(first: dt.date, last: dt.date) -> int:
    """How many days a range has.

    Raises:
        InvalidPlanError: None, or too many.
    """
    days = (last - first).days + 1
    if not 1 <= days <= COUNT_DAYS_MAX:
        raise InvalidPlanError(f"Expected a range of 1..{COUNT_DAYS_MAX} days, found {days}.")
    return days


def check_windows(window_days: Sequence[int]) -> None:
    """Refuses a window that nothing here counts.

    Raises:
        InvalidPlanError: One is outside 1..64 days.
    """
    wrong = [one for one in window_days if not 1 <= one <= WINDOW_DAYS_MAX]
    if wrong:
        raise InvalidPlanError(f"Expected windows of 1..{WINDOW_DAYS_MAX} days, found {wrong[0]}.")
