"""The meaning of an open month, over plain sets and dictionaries: the oracle for every store.

It keeps a copy of each day when the day is fixed, which is what the stores avoid: they keep the
differences. Nothing here shares a step with them.
"""

import datetime as dt
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from dpdau.activity.turnstile import Turnstile
from dpdau.domain import Segment, day_date, day_number, month_of
from dpdau.errors import InvalidPlanError


@dataclass(slots=True)
class _Month:
    """What one month has fixed so far."""

    start: int
    dimensions: tuple[str, ...]
    days: set[int] = field(default_factory=set)
    pairs: set[tuple[int, int]] = field(default_factory=set)
    labels: dict[tuple[int, str], str] = field(default_factory=dict)
    erased: set[int] = field(default_factory=set)
    ended: bool = False


class FrozenTurnstile(Turnstile):
    """A turnstile whose open months keep their days as they were when they were fixed.

    Guarantee:
        The pairs of a month change in two ways only: fixing a day adds the pairs of that day that
        are true then (for the first one, of all days of the look-back), and an erasure takes out
        all pairs of the user, who then never comes back into the month.

    Source:
        `docs/decisions/0007-frozen-contributions.md`.
    """

    def __init__(self) -> None:
        super().__init__()
        self._months: dict[str, _Month] = {}

    def open_month(self, month: str, *, lookback_days: int, dimensions: Sequence[str] = ()) -> None:
        """Starts to keep what a month counts."""
        first = day_number(dt.date.fromisoformat(f"{month}-01"))
        self._months[month] = _Month(first - lookback_days + 1, tuple(dimensions))

    def freeze(self, month: str, day: dt.date) -> None:
        """Fixes the next day of a month."""
        known, number = self._open(month), day_number(day)
        before = {who for who, _day in known.pairs}
        fixed = {number} if known.days else set(range(known.start, number + 1))
        known.days.add(number)
        known.pairs |= {
            (who, one) for who, one in self._pairs if one in fixed and who not in known.erased
        }
        for who in {who for who, _day in known.pairs} - before:
            for dimension in known.dimensions:
                value = self._latest_label(who, dimension, day_date(known.start), day)
                if value is not None:
                    known.labels.setdefault((who, dimension), value)

    def contributions(
        self,
        month: str,
        day: dt.date,
        *,
        window_days: Sequence[int],
        segments: Sequence[Segment] = (),
    ) -> NDArray[np.int64]:
        """What a month counts on a fixed day; see `ActivityStore.contributions`."""
        known, number = self._open(month), day_number(day)
        if number not in known.days:
            raise InvalidPlanError("Expected a fixed day.")
        table = []
        for segment in (None, *segments):
            row = []
            for days in window_days:
                users = {who for who, one in known.pairs if number - days < one <= number}
                row.append(sum(_is_in(known, who, segment) for who in users))
            table.append(row)
        return np.array(table, dtype=np.int64)

    def end_month(self, month: str) -> None:
        """Ends a month."""
        self._months[month] = _Month(0, (), ended=True)

    def rename(self, old: int, new: int) -> None:
        """Gives what one pseudonym has to another, in the open months too."""
        super().rename(old, new)
        for month in self._months.values():
            month.pairs = {(new if who == old else who, day) for who, day in month.pairs}
            for dimension in month.dimensions:
                value = month.labels.pop((old, dimension), None)
                if value is not None:
                    month.labels.setdefault((new, dimension), value)
            if old in month.erased:
                month.erased = month.erased - {old} | {new}
            month.pairs = {pair for pair in month.pairs if pair[0] not in month.erased}

    def erase(self, pseudonyms: Iterable[int]) -> int:
        """Takes these pseudonyms out, of the open months for good."""
        gone = set(pseudonyms)
        for month in self._months.values():
            month.erased |= gone
            month.pairs = {pair for pair in month.pairs if pair[0] not in gone}
            month.labels = {key: some for key, some in month.labels.items() if key[0] not in gone}
        return super().erase(gone)

    def purge_before(self, day: dt.date) -> None:
        """Drops what is older than a day, and than the look-back of every open month."""
        starts = [day_date(one.start) for one in self._months.values() if not one.ended]
        super().purge_before(min((day, *starts)))

    def _open(self, month: str) -> _Month:
        """An open month."""
        known = self._months.get(month)
        if known is None or known.ended:
            raise InvalidPlanError("Expected an open month.")
        return known

    def _latest_label(self, who: int, dimension: str, start: dt.date, last: dt.date) -> str | None:
        """The label of the latest month between two days that has one."""
        months = {month_of(start + dt.timedelta(days=n)) for n in range((last - start).days + 1)}
        for month in sorted(months, reverse=True):
            if (who, dimension, month) in self._labels:
                return self._labels[who, dimension, month]
        return None


def _is_in(month: _Month, who: int, segment: Segment | None) -> bool:
    """Whether a user belongs to a segment of a month, or to everyone."""
    return segment is None or month.labels.get((who, segment.dimension)) == segment.value
