"""At which moments the days of a time zone begin: a table of them, for engines that know no zone.

A day does not always begin once: where clocks go back over midnight, the day before comes again.
"""

import datetime as dt
import itertools

_HOUR = dt.timedelta(hours=1)
_SECOND = dt.timedelta(seconds=1)
_DAY = dt.timedelta(days=1)


def day_starts(zone: dt.tzinfo, first: dt.date, last: dt.date) -> list[tuple[dt.datetime, dt.date]]:
    """The moments in UTC, ascending, at which the day changes, and the day that it becomes.

    Covers two days more on each side than `first`..`last`. A zone changes its clocks at most once
    an hour.
    """
    begin = dt.datetime.combine(first - 2 * _DAY, dt.time(), dt.UTC)
    end = dt.datetime.combine(last + 3 * _DAY, dt.time(), dt.UTC)
    found: list[tuple[dt.datetime, dt.date]] = []
    pieces = [begin, *_changes(zone, begin, end), end]
    for since, until in itertools.pairwise(pieces):
        offset = _offset(zone, since)
        at, day = since, (since + offset).date()
        while at < until:
            if not found or found[-1][1] != day:
                found.append((at, day))
            day += _DAY
            at = dt.datetime.combine(day, dt.time(), dt.UTC) - offset
    return found


def _changes(zone: dt.tzinfo, begin: dt.datetime, end: dt.datetime) -> list[dt.datetime]:
    """The moments at which the offset of a zone changes."""
    found = []
    at = begin
    while at < end:
        low, high = at, at + _HOUR
        if _offset(zone, low) != _offset(zone, high):
            while high - low > _SECOND:
                middle = low + (high - low) // (2 * _SECOND) * _SECOND
                if _offset(zone, middle) == _offset(zone, low):
                    low = middle
                else:
                    high = middle
            found.append(high)
        at += _HOUR
    return found


def _offset(zone: dt.tzinfo, at: dt.datetime) -> dt.timedelta:
    """The offset of a zone at a moment."""
    offset = at.astimezone(zone).utcoffset()
    return dt.timedelta() if offset is None else offset
