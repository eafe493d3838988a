"""The days of a zone, as moments in UTC, are those that the calendar of Python says."""

import datetime as dt
from bisect import bisect_right
from zoneinfo import ZoneInfo

import pytest

from dpdau.ingest.zone_days import day_starts

FIRST, LAST = dt.date(2010, 9, 1), dt.date(2012, 4, 1)


@pytest.mark.parametrize(
    "zone",
    [
        "UTC",
        "Europe/Berlin",
        "Asia/Kolkata",
        "America/Sao_Paulo",  # Midnight is left out.
        "America/Havana",  # Midnight comes twice.
        "America/St_Johns",  # A minute after midnight it is the day before again.
        "Pacific/Apia",  # A whole day is left out.
    ],
)
def test_every_moment_is_on_its_day(zone: str) -> None:
    """Each half hour, and both sides of each step, with all changes of clocks."""
    where = ZoneInfo(zone)
    starts = day_starts(where, FIRST, LAST)
    begins = [at for at, _ in starts]
    step, close = dt.timedelta(minutes=30), dt.timedelta(microseconds=1)
    begin = dt.datetime.combine(FIRST, dt.time(), dt.UTC)
    moments = [begin + count * step for count in range(578 * 48)]
    moments += [at - close for at in begins[1:]] + begins

    found = [starts[bisect_right(begins, at) - 1][1] for at in moments]
    assert [at.astimezone(where).date() for at in moments] == found
    assert begins == sorted(set(begins))


def test_a_day_that_comes_again_has_two_starts() -> None:
    """Where clocks go from a minute after midnight to the day before, the steps say so."""
    zone = ZoneInfo("America/St_Johns")
    starts = day_starts(zone, dt.date(2010, 11, 6), dt.date(2010, 11, 8))
    assert [3, 4, 5, 6, 7, 6, 7, 8, 9, 10] == [day.day for _, day in starts]
