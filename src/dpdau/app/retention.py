"""Drops activity that is older than `RETENTION_DAYS`."""

import datetime as dt

from dpdau.activity.store import ActivityStore
from dpdau.release import Calendar


class Retention:
    """Purges a store once a day.

    Args:
        store: What is purged.
        calendar: What day it is.
        days: How long activity is kept; None keeps it.
    """

    def __init__(self, store: ActivityStore, calendar: Calendar, days: int | None) -> None:
        self._store = store
        self._calendar = calendar
        self._days = days
        self._purged_on: dt.date | None = None

    def purge_if_due(self) -> None:
        """Once a day, drops what is older than is kept and what no open plan counts."""
        today = self._calendar.today()
        if self._days is not None and self._purged_on != today:
            self._store.purge_before(today - dt.timedelta(days=self._days))
            self._purged_on = today
