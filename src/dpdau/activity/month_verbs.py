"""The month verbs of a store, but for what its rows have to do with them."""

import dataclasses
import datetime as dt
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from typing import Generic

import numpy as np
from numpy.typing import NDArray

from dpdau.activity.doors import Doors, Writer
from dpdau.activity.held import PlanMonth, parse_month, plan_month
from dpdau.activity.manifest import Manifest
from dpdau.domain import Clock, Segment, day_date, day_number, month_of
from dpdau.errors import InvalidPlanError

Code = tuple[int, int]
"""(dimension id, value code)."""


class MonthVerbs(ABC, Generic[Writer]):
    """Opens, fixes, counts and ends months; see `ActivityStore` for what the verbs promise."""

    def __init__(self, doors: Doors[Writer], clock: Clock) -> None:
        self._doors = doors
        self._clock = clock

    def open(self, month: str, *, lookback_days: int, dimensions: Sequence[str]) -> None:
        """See `ActivityStore.open_month`."""
        asked = plan_month(month, lookback_days=lookback_days, dimensions=dimensions)
        with self._doors.writing() as (manifest, _writer):
            known = manifest.month(asked.month)
            if known is None:
                with manifest.writing():
                    manifest.put_month(asked)
                return
            if known.ended:
                raise _ended(month)
            if (known.lookback_days, known.dimensions) == (asked.lookback_days, asked.dimensions):
                return
            if known.frozen_through is not None or manifest.secret(asked.month) is not None:
                raise InvalidPlanError(
                    f"Expected {month} as it was opened, found another look-back or dimensions."
                )
            with manifest.writing():
                manifest.drop_month(known.month)
                manifest.put_month(asked)

    def freeze(self, month: str, day: dt.date) -> None:
        """See `ActivityStore.freeze`."""
        if month_of(day) != month:
            raise InvalidPlanError(f"Expected a day of {month}, found {day.isoformat()}.")
        number = day_number(day)
        with self._doors.writing() as (manifest, writer):
            known = _open(manifest, month)
            if known.frozen_through is not None and number <= known.frozen_through:
                return
            if number != known.next_day:
                raise InvalidPlanError(
                    f"Expected the days of {month} in order, found {day.isoformat()}."
                )
            ids = manifest.dimensions()
            dimensions = [ids[name] for name in known.dimensions if name in ids]

            def also() -> None:
                manifest.put_month(dataclasses.replace(known, frozen_through=number))
                manifest.close_day(number)

            self._fix(writer, known, number, dimensions=dimensions, also=also)

    def frozen_through(self, month: str) -> dt.date | None:
        """See `ActivityStore.frozen_through`."""
        with self._doors.looking() as manifest:
            known = manifest.month(parse_month(month))
        if known is None or known.frozen_through is None:
            return None
        return day_date(known.frozen_through)

    def contributions(
        self,
        month: str,
        day: dt.date,
        *,
        window_days: Sequence[int],
        segments: Sequence[Segment],
    ) -> NDArray[np.int64]:
        """See `ActivityStore.contributions`."""
        index, number = parse_month(month), day_number(day)
        with self._doors.looking() as manifest:
            known = _open(manifest, month)
            codes = [_code(manifest, known, segment) for segment in segments]
        wrong = [days for days in window_days if not 1 <= days <= known.lookback_days]
        if wrong:
            raise InvalidPlanError(
                f"Expected windows of 1..{known.lookback_days} days, found {wrong[0]}."
            )

        def checked(months: Sequence[PlanMonth]) -> PlanMonth:
            # The month is read again with its rows: it may have ended meanwhile.
            now = next((one for one in months if one.month == index), None)
            if now is None:
                raise _ended(month)
            if now.frozen_through is None or not now.first <= number <= now.frozen_through:
                raise InvalidPlanError(
                    f"Expected a day of {month} that is fixed, found {day.isoformat()}."
                )
            return now

        return self._count(checked, number, window_days=window_days, codes=codes)

    def put_secret(self, month: str, body: bytes) -> bytes:
        """See `ActivityStore.put_secret`."""
        index = parse_month(month)
        sealed = self._doors.seal_secret(_secret_name(index), body)
        with self._doors.writing() as (manifest, _writer):
            _open(manifest, month)
            stored = manifest.secret(index)
            if stored is not None:
                return self._doors.open_secret(_secret_name(index), stored)
            with manifest.writing():
                manifest.add_secret(index, sealed)
            return body

    def secret(self, month: str) -> bytes | None:
        """See `ActivityStore.secret`."""
        index = parse_month(month)
        with self._doors.looking() as manifest:
            stored = manifest.secret(index)
        return None if stored is None else self._doors.open_secret(_secret_name(index), stored)

    def end(self, month: str) -> None:
        """See `ActivityStore.end_month`."""
        index = parse_month(month)
        with self._doors.rewriting() as (manifest, writer):
            known = manifest.month(index)
            if known is None or known.ended:
                return
            self._drop(writer, known, lambda: manifest.drop_secret(index))
            # Last, so that a month of which something may be left in the log is still open.
            with manifest.writing():
                if known.frozen_through is None:
                    manifest.drop_month(index)
                else:
                    manifest.put_month(dataclasses.replace(known, ended=True))

    def open_months(self) -> tuple[str, ...]:
        """See `ActivityStore.open_months`."""
        with self._doors.looking() as manifest:
            return tuple(month_of(day_date(one.first)) for one in manifest.open_months())

    @abstractmethod
    def _fix(
        self,
        writer: Writer,
        month: PlanMonth,
        day: int,
        *,
        dimensions: Sequence[int],
        also: Callable[[], None],
    ) -> None:
        """Fixes the next day in one transaction with further statements."""

    @abstractmethod
    def _count(
        self,
        checked: Callable[[Sequence[PlanMonth]], PlanMonth],
        day: int,
        *,
        window_days: Sequence[int],
        codes: Sequence[Code | None],
    ) -> NDArray[np.int64]:
        """Counts a fixed day.

        Args:
            checked: The month among those that are open in the state that is read.
            day: The day number.
            window_days: 1..`lookback_days` days each.
            codes: A segment each; None for one that nobody has.

        Returns:
            (1 + len(codes), len(window_days)) int64: everyone, then each segment.
        """

    @abstractmethod
    def _drop(self, writer: Writer, month: PlanMonth, also: Callable[[], None]) -> None:
        """Takes out every row of a month in one transaction with further statements, for good."""


def _ended(month: str) -> InvalidPlanError:
    """The error for a month that was ended."""
    return InvalidPlanError(f"Expected a month that is open, found {month}, which was ended.")


def _open(manifest: Manifest, month: str) -> PlanMonth:
    """A month that was opened and not ended.

    Raises:
        InvalidPlanError: It was not opened, or it was ended.
    """
    known = manifest.month(parse_month(month))
    if known is None:
        raise InvalidPlanError(f"Expected a month that is open, found {month}, which is not.")
    if known.ended:
        raise _ended(month)
    return known


def _code(manifest: Manifest, month: PlanMonth, segment: Segment) -> Code | None:
    """The dimension id and value code of a segment, or None where it was never seen.

    Raises:
        InvalidPlanError: The month was not opened with its dimension.
    """
    if segment.dimension not in month.dimensions:
        raise InvalidPlanError("Expected a dimension of the month, found another one.")
    dimension = manifest.dimensions().get(segment.dimension)
    code = None if dimension is None else manifest.value_code(dimension, segment.value)
    return None if dimension is None or code is None else (dimension, code)


def _secret_name(index: int) -> str:
    """The name under which the secret of a month is sealed."""
    return f"manifest:month-secret:{index}"
