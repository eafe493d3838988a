"""Closes days on the clock: takes what is due, as soon as a day may be released."""

import datetime as dt
from threading import Event as Flag
from threading import Thread
from typing import Final, Protocol

from dpdau.errors import DpdauError, InvalidPlanError
from dpdau.release import Calendar
from dpdau.telemetry import log

WAKE_SECONDS_MAX: Final = 240.0
"""A clock that was set, or a machine that slept, is noticed after that long."""
RETRY_SECONDS: Final = 30.0
_LOG = log("schedule")


class Due(Protocol):
    """What the schedule drives: `app.App`."""

    calendar: Calendar

    def take_due(self) -> int:
        """Does everything that is due; returns how many numbers were released."""

    def next_due(self) -> dt.datetime:
        """When something is due next, as an aware UTC datetime."""


class Schedule:
    """One thread that takes due days until it is stopped.

    An error is logged and tried again: what is due stays due, and taking it twice changes nothing.
    """

    def __init__(self, due: Due) -> None:
        self._due = due
        self._stopped = Flag()
        self._thread = Thread(target=self._run, name="schedule", daemon=True)

    def start(self) -> None:
        """Starts the thread; called once."""
        self._thread.start()

    def close(self, timeout_seconds: float = 30.0) -> None:
        """Asks the thread to end and waits for the day that it is taking; may be called twice."""
        self._stopped.set()
        if self._thread.is_alive():
            self._thread.join(timeout_seconds)

    def turn(self) -> float:
        """Takes what is due once.

        Returns:
            Seconds until the next turn.
        """
        shortest = 1.0
        try:
            try:
                released = self._due.take_due()
            except InvalidPlanError as error:
                # What is refused now is refused in a second too.
                _LOG.warning("schedule_refused", code=error.code, detail=error.message)
                released, shortest = 0, RETRY_SECONDS
            if released:
                _LOG.info("numbers_released", count=released)
            wait = (self._due.next_due() - self._due.calendar.clock()).total_seconds()
        except Exception as error:  # noqa: BLE001
            # The outermost loop of a worker: whatever fails, what is due stays due.
            code = error.code if isinstance(error, DpdauError) else type(error).__name__
            _LOG.warning("schedule_failed", code=code, exc_info=error)
            return RETRY_SECONDS
        return min(max(wait, shortest), WAKE_SECONDS_MAX)

    def _run(self) -> None:
        """Turns until stopped."""
        while not self._stopped.wait(self.turn()):
            pass
