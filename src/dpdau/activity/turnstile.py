"""The meaning of a `+` and `-` stream, as a fold over plain sets: the oracle for every store.

Nothing here is fast and nothing here shares a trick with the stores: pairs are Python tuples in a
set, windows are unions over days, and a segment is looked up for each active day.
"""

import datetime as dt
from collections.abc import Iterable, Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from dpdau.domain import Event, Op, Segment, day_date, day_number, month_of

Labeled = tuple[Event, Mapping[str, str]]
"""An event with the values of its dimensions: dimension → value."""


class Turnstile:
    """The set of active (pseudonym, day) pairs after a prefix of a stream, with its labels.

    Guarantee:
        For one pair the last event in arrival order decides, so repeating an event changes nothing
        and the arrival order of `+` events alone changes nothing. A label belongs to (pseudonym,
        dimension, month of the event's day); only a `+` event sets one, and the first one stays,
        also when `-` takes the activity out. Hence a pseudonym has at most one segment for each
        dimension and month, and counts at most once in all segments of a dimension together.

    Source:
        The turnstile model; `docs/decisions/0002-labels-beside-masks.md` for labels.
    """

    def __init__(self) -> None:
        self._pairs: set[tuple[int, int]] = set()
        self._labels: dict[tuple[int, str, str], str] = {}

    @property
    def pairs(self) -> frozenset[tuple[int, int]]:
        """The active (pseudonym, day number) pairs."""
        return frozenset(self._pairs)

    def update(self, event: Event, labels: Mapping[str, str] | None = None) -> None:
        """Takes the next event of the stream."""
        pair = (event.pseudonym, event.day)
        if event.op is Op.REMOVE:
            self._pairs.discard(pair)
            return
        self._pairs.add(pair)
        month = month_of(day_date(event.day))
        for dimension, value in (labels or {}).items():
            self._labels.setdefault((event.pseudonym, dimension, month), value)

    def rename(self, old: int, new: int) -> None:
        """Gives every pair and label of one pseudonym to another: a key rotation seen from here."""
        self._pairs = {(new if who == old else who, day) for who, day in self._pairs}
        for (who, dimension, month), value in list(self._labels.items()):
            if who == old:
                del self._labels[who, dimension, month]
                self._labels.setdefault((new, dimension, month), value)

    def erase(self, pseudonyms: Iterable[int]) -> int:
        """Takes out every pair and label of these pseudonyms; returns the distinct days touched."""
        gone = set(pseudonyms)
        days = {day for who, day in self._pairs if who in gone}
        self._pairs = {pair for pair in self._pairs if pair[0] not in gone}
        self._labels = {key: value for key, value in self._labels.items() if key[0] not in gone}
        return len(days)

    def purge_before(self, day: dt.date) -> None:
        """Drops all pairs before a day, and the labels of months that ended before it."""
        limit, month = day_number(day), month_of(day)
        self._pairs = {pair for pair in self._pairs if pair[1] >= limit}
        self._labels = {key: value for key, value in self._labels.items() if key[2] >= month}

    def counts(
        self,
        *,
        first: dt.date,
        last: dt.date,
        window_days: Sequence[int],
        segment: Segment | None = None,
    ) -> NDArray[np.int64]:
        """Distinct pseudonyms in each trailing window; see `ActivityStore.counts`."""
        active: dict[int, set[int]] = {}
        for who, day in self._pairs:
            if segment is None or self._label(who, day, segment.dimension) == segment.value:
                active.setdefault(day, set()).add(who)
        start, stop = day_number(first), day_number(last) + 1
        table = [
            [
                len(set().union(*(who for day, who in active.items() if t - days < day <= t)))
                for t in range(start, stop)
            ]
            for days in window_days
        ]
        return np.array(table, dtype=np.int64).reshape(len(window_days), stop - start)

    def growth(self, end: dt.date, *, window_days: int) -> NDArray[np.int64]:
        """The four cells between two neighboring windows; see `ActivityStore.growth`."""
        last = day_number(end)
        later, earlier = last - window_days, last - 2 * window_days
        cells = dict.fromkeys(("new", "retained", "resurrected", "churned"), 0)
        for who in {who for who, _ in self._pairs}:
            days = {day for whose, day in self._pairs if whose == who}
            in_later = any(later < day <= last for day in days)
            in_earlier = any(earlier < day <= later for day in days)
            if in_later and in_earlier:
                cells["retained"] += 1
            elif in_earlier:
                cells["churned"] += 1
            elif in_later and any(day <= earlier for day in days):
                cells["resurrected"] += 1
            elif in_later:
                cells["new"] += 1
        return np.array(list(cells.values()), dtype=np.int64)

    def _label(self, who: int, day: int, dimension: str) -> str | None:
        """The value of a dimension for the month of a day, or None."""
        return self._labels.get((who, dimension, month_of(day_date(day))))


def fold(events: Iterable[Event | Labeled]) -> Turnstile:
    """The state after a whole stream.

    Example:
        >>> put = Event(pseudonym=7, op=Op.ADD, day=3)
        >>> take = Event(pseudonym=7, op=Op.REMOVE, day=3)
        >>> fold([put, take, put]).pairs
        frozenset({(7, 3)})
    """
    state = Turnstile()
    for item in events:
        if isinstance(item, Event):
            state.update(item)
        else:
            state.update(*item)
    return state
