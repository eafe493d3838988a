"""The limits of an event, and the day of a moment."""

import datetime as dt
from zoneinfo import ZoneInfo

import pytest

from dpdau.errors import InvalidEventError, InvalidSettingError
from dpdau.ingest.rules import RejectionCode, Rules, check_user_id

TODAY = dt.date(2026, 3, 1)


@pytest.mark.parametrize(
    ("retention_days", "day", "code"),
    [
        (None, "2026-03-02", None),
        (None, "2026-03-03", RejectionCode.FUTURE_DAY),
        (None, "1900-01-01", None),
        (None, "1899-12-31", RejectionCode.BAD_DAY),
        (30, "2026-01-30", None),
        (30, "2026-01-29", RejectionCode.TOO_OLD),
        (30, "1899-12-31", RejectionCode.BAD_DAY),
    ],
)
def test_days_have_a_first_and_a_last(
    retention_days: int | None, day: str, code: RejectionCode | None
) -> None:
    """One day ahead is taken, two are not; RETENTION_DAYS moves the first day."""
    fault = Rules(TODAY, retention_days=retention_days).day_fault(dt.date.fromisoformat(day))

    assert code == (fault and fault.code)


@pytest.mark.parametrize(
    ("zone", "moment", "day"),
    [
        ("UTC", "2026-03-01T23:59:59.999999+00:00", "2026-03-01"),
        ("Europe/Berlin", "2026-03-01T23:30:00+00:00", "2026-03-02"),
        ("America/New_York", "2026-03-01T03:00:00+00:00", "2026-02-28"),
        ("Europe/Berlin", "2026-03-01T23:30:00", "2026-03-01"),
        ("Pacific/Kiritimati", "2026-03-01T23:30:00-10:00", "2026-03-02"),
        ("Asia/Tokyo", "9999-12-31T23:30:00+00:00", "9999-12-31"),
        ("Asia/Tokyo", "0001-01-01T00:00:00+10:00", "0001-01-01"),
    ],
)
def test_a_moment_becomes_a_day_in_the_zone(zone: str, moment: str, day: str) -> None:
    """A moment without an offset is in the zone already; the ends of the calendar do not raise."""
    found = Rules(TODAY, ZoneInfo(zone)).day_of(dt.datetime.fromisoformat(moment))

    assert day == found.isoformat()


@pytest.mark.parametrize("dimensions", [("days",), ("a", "a"), ("",), ("x" * 65,)])
def test_dimensions_that_cannot_be_kept_apart_are_refused(dimensions: tuple[str, ...]) -> None:
    """`days` has a meaning of its own in metadata."""
    with pytest.raises(InvalidSettingError):
        Rules(TODAY, dimensions=dimensions)


@pytest.mark.parametrize("user_id", ["", "x" * 257, "é" * 129, "\ud800"])
def test_what_cannot_be_a_user_id_is_refused_without_being_shown(user_id: str) -> None:
    """The message is the same for every bad id."""
    with pytest.raises(InvalidEventError) as caught:
        check_user_id(user_id)
    assert "Expected a string of 1..256 bytes of UTF-8." == caught.value.message


@pytest.mark.parametrize("user_id", ["x", "x" * 256, "é" * 128, "\x00", " "])
def test_a_user_id_is_any_text_of_up_to_256_bytes(user_id: str) -> None:
    """Nothing is trimmed: white space is an id too."""
    check_user_id(user_id)
