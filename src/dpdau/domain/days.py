"""Days, months and windows.

Days are `datetime.date` where people see them and int32 *day numbers* (days since 1970-01-01, the
zone of `TIMEZONE` already applied) in columns.
"""

import datetime as dt
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from dpdau.errors import InvalidPlanError

WINDOW_DAYS_MAX: Final = 64
WAU_WINDOW_DAYS: Final = 7
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
