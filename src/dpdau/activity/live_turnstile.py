"""The meaning of a live day, over plain sets: the oracle for every store."""

import datetime as dt
from collections.abc import Iterable

from dpdau.activity.turnstile import Turnstile
from dpdau.domain import day_date, day_number


class LiveTurnstile(Turnstile):
    """A turnstile that counts one day while it lasts.

    Guarantee:
        Seen after each batch (`settle`), a user counts as long as the pair of the live day is true
        without a break. After the break, or an erasure, the user is out until the day is over.

    Source:
        `docs/guides/live.md`.
    """

    def __init__(self) -> None:
        super().__init__()
        self._day: int | None = None
        self._in: set[int] = set()
        self._out: set[int] = set()

    def begin(self, day: dt.date) -> None:
        """Makes a day the live one."""
        if day_number(day) != self._day:
            self._day, self._in, self._out = day_number(day), set(), set()
            self.settle()

    def settle(self) -> None:
        """Ends a batch."""
        active = {who for who, day in self._pairs if day == self._day}
        self._out |= self._in - active
        self._in = active - self._out

    def count(self) -> int:
        """How many users the live day counts."""
        return len(self._in)

    def rename(self, old: int, new: int) -> None:
        """Gives what one pseudonym has to another, on the live day too."""
        super().rename(old, new)
        self._in = {new if who == old else who for who in self._in}
        self._out = {new if who == old else who for who in self._out}

    def erase(self, pseudonyms: Iterable[int]) -> int:
        """Takes these pseudonyms out, of the live day for good."""
        gone = set(pseudonyms)
        self._out |= gone
        self._in -= gone
        return super().erase(gone)

    def purge_before(self, day: dt.date) -> None:
        """Drops what is older than a day and than the live day."""
        super().purge_before(day if self._day is None else min(day, day_date(self._day)))
