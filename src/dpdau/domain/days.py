"""Days, months and windows.

Days are `datetime.date` where people see them and int32 *day numbers* (days since 1970-01-01, the
zone of `TIMEZONE` already applied) in columns.
"""

import datetime as dt
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Final, Self

from dpdau.errors import InvalidPlanError

WINDOW_DAYS_MAX: Final = 64
DAYS_AHEAD_MAX: Final = 1
"""How far the day of an event may be ahead of the day on which it arrives."""
WAU_WINDOW_DAYS: Final = 7
RANGE_DAYS_MAX: Final = 3660
WINDOW_END_MIN: Final = dt.date(1900, 1, 1)
WINDOW_END_MAX: Final = dt.date(9998, 12, 31)
_EPOCH: Final = dt.date(1970, 1, 1).toordinal()
Clock = Callable[[], dt.datetime]
"""What time it is, as an aware UTC datetime; passed in by `app`."""


def day_number(day: dt.date) -> int:
    """Days since 1970-01-01.

    Example:
        >>> day_number(dt.date(1970, 1, 2))
        1
    """
    return day.toordinal() - _EPOCH


def day_date(number: int) -> dt.date:
    """The inverse of `day_number`.

    Example:
        >>> day_date(-1).isoformat()
        '1969-12-31'
    """
    return dt.date.fromordinal(int(number) + _EPOCH)


def parse_day(text: str) -> dt.date:
    """Reads YYYY-MM-DD, and nothing else that could be taken for a day.

    Raises:
        InvalidPlanError: It is no such day.

    Example:
        >>> parse_day("2026-02-03")
        datetime.date(2026, 2, 3)
    """
    try:
        day = dt.date.fromisoformat(text)
    except ValueError:
        day = None
    if day is None or text != day.isoformat():
        raise InvalidPlanError("Expected a day as YYYY-MM-DD, found something else.")
    return day


def month_of(day: dt.date) -> str:
    """The calendar month of a day, the period of every budget.

    Example:
        >>> month_of(dt.date(2026, 2, 3))
        '2026-02'
    """
    return f"{day.year:04d}-{day.month:02d}"


def month_days(month: str) -> tuple[dt.date, dt.date]:
    """The first and the last day of a calendar month written YYYY-MM.

    Raises:
        InvalidPlanError: It is no such month.

    Example:
        >>> [day.isoformat() for day in month_days("2024-02")]
        ['2024-02-01', '2024-02-29']
    """
    try:
        first = parse_day(f"{month}-01")
        following = (first + dt.timedelta(days=31)).replace(day=1)
    except (InvalidPlanError, OverflowError):
        raise InvalidPlanError("Expected a month as YYYY-MM, found something else.") from None
    return first, following - dt.timedelta(days=1)


def check_range(first: dt.date, last: dt.date) -> None:
    """Refuses a range that is empty or too long.

    Raises:
        InvalidPlanError: It is.
    """
    if not 0 <= (last - first).days < RANGE_DAYS_MAX:
        raise InvalidPlanError(
            f"Expected from <= to and at most {RANGE_DAYS_MAX} days, "
            f"found {first.isoformat()}..{last.isoformat()}."
        )


@dataclass(frozen=True, slots=True, order=True)
class Window:
    """The `days` days that end at `end`, both ends included; 1 ≤ days ≤ 64, years 1900..9998."""

    end: dt.date
    days: int

    def __post_init__(self) -> None:
        if not 1 <= self.days <= WINDOW_DAYS_MAX:
            raise InvalidPlanError(
                f"Expected a window of 1..{WINDOW_DAYS_MAX} days, found {self.days}."
            )
        if not WINDOW_END_MIN <= self.end <= WINDOW_END_MAX:
            raise InvalidPlanError(
                f"Expected a day of {WINDOW_END_MIN.isoformat()}..{WINDOW_END_MAX.isoformat()}, "
                f"found {self.end.isoformat()}."
            )

    @property
    def start(self) -> dt.date:
        """The first day that counts."""
        return self.end - dt.timedelta(days=self.days - 1)

    @property
    def before(self) -> Self:
        """The window of as many days that ends on the day before this one starts."""
        return replace(self, end=self.start - dt.timedelta(days=1))
