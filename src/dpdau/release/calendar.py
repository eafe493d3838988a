"""When a day may be released."""

import datetime as dt
from collections.abc import Callable
from dataclasses import dataclass
from zoneinfo import ZoneInfo

from dpdau.domain import Clock, Window
from dpdau.errors import InvalidPlanError, ReleaseNotReadyError


@dataclass(frozen=True, slots=True, kw_only=True)
class Calendar:
    """When a day closes: at its end in `zone`, plus `grace_hours`; and how long it is kept.

    `splits` says whether one user may have two names on days first..last that nobody can tie,
    because a key was destroyed; it depends on the days on which keys change, never on activity.
    """

    zone: ZoneInfo
    grace_hours: int
    clock: Clock
    retention_days: int | None = None
    splits: Callable[[dt.date, dt.date], bool] = lambda _first, _last: False

    def today(self) -> dt.date:
        """The current day in the zone."""
        return self.clock().astimezone(self.zone).date()

    def begins_at(self, day: dt.date) -> dt.datetime:
        """The moment (UTC) at which a day begins in the zone."""
        return dt.datetime.combine(day, dt.time(), tzinfo=self.zone).astimezone(dt.UTC)

    def closes_at(self, day: dt.date) -> dt.datetime:
        """The moment (UTC) from which the day may be released."""
        end = self.begins_at(day + dt.timedelta(days=1))
        return end + dt.timedelta(hours=self.grace_hours)

    def last_closed_day(self) -> dt.date:
        """The newest day that may be released now."""
        day = self.today() - dt.timedelta(days=1 + self.grace_hours // 24)
        while self.clock() >= self.closes_at(day + dt.timedelta(days=1)):
            day += dt.timedelta(days=1)
        while self.clock() < self.closes_at(day):
            day -= dt.timedelta(days=1)
        return day

    def require_closed(self, day: dt.date) -> None:
        """Refuses a day that events may still reach.

        Raises:
            ReleaseNotReadyError: The day closes later than now.
        """
        closes_at = self.closes_at(day)
        if self.clock() < closes_at:
            raise ReleaseNotReadyError(
                f"{day.isoformat()} closes at {closes_at.isoformat()}; ask again then.",
                day=day.isoformat(),
                closes_at=closes_at.isoformat(),
            )

    def require_zone(self, timezone: str, plan_id: str) -> None:
        """Refuses to go on with a plan under another zone than its own.

        Raises:
            InvalidPlanError: The zone is another one.
        """
        if timezone != self.zone.key:
            raise InvalidPlanError(
                f"Expected TIMEZONE={timezone}, with which {plan_id} was opened, found "
                f"{self.zone.key}."
            )

    def require_kept(self, window: Window) -> None:
        """Refuses a window that reaches into what is purged: its count would be too low.

        Raises:
            InvalidPlanError: The window starts before the first day that is kept.
        """
        if self.retention_days is None:
            return
        first = self.today() - dt.timedelta(days=self.retention_days)
        if window.start < first:
            raise InvalidPlanError(
                f"Expected a window within RETENTION_DAYS, from {first.isoformat()} on, found one "
                f"that starts on {window.start.isoformat()}."
            )

    def require_one_name(self, first: dt.date, last: dt.date) -> None:
        """Refuses days on which one user may count twice. Asked after the count.

        A key that is destroyed while the count is made may be missed before it, and is not after.

        Raises:
            InvalidPlanError: A pseudonym key was destroyed between the two days.
        """
        if self.splits(first, last):
            raise InvalidPlanError(
                f"Expected days with one pseudonym for each user, found that a key was destroyed "
                f"between {first.isoformat()} and {last.isoformat()}; ask for shorter windows."
            )
