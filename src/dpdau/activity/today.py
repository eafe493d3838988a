"""What is kept of a day that is counted while it lasts: who has left it.

The live count of a day is of the users who are active on it *so far*. A user who was counted and
whose activity of that day is then taken out, by an event or by an erasure, is *out*: not counted
again on that day, also when activity comes back. So a user's live series goes up at most once and
down at most once a day, whatever the stream does.

A row is (live day, pseudonym) in the table of held rows, under a group of its own for each day,
written as a tombstone; a key rotation moves it like every held row. It is gone when the day is.
"""

import sqlite3
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from dpdau.activity.held import out_for_good
from dpdau.activity.runs import Run, starts_of
from dpdau.domain import WINDOW_END_MAX, WINDOW_END_MIN, day_number

LIVE_VERSION: Final = 3
"""The schema of the manifest that first knew live months."""
LIVE_SCHEMA: Final = """
CREATE TABLE live_months (
    month INTEGER PRIMARY KEY, day INTEGER, first INTEGER, step INTEGER, ended INTEGER NOT NULL,
    secret BLOB
) STRICT;
"""
_GROUPS_START: Final = -(1 << 24)
"""Groups of live days are far below those of months, which are positive."""
assert _GROUPS_START + day_number(WINDOW_END_MAX) + 1 < 0


@dataclass(frozen=True, slots=True)
class LiveMonth:
    """A month whose days are counted live.

    Attributes:
        month: The month index, as in `labels`.
        day: The day number that is live now, or None.
        first: The first day number that may still be live, or None before one was.
        step: The last step that was counted, or None.
        ended: Whether it was ended; then nothing else is kept of it.
        secret: The sealed secret, or None.
    """

    month: int
    day: int | None
    first: int | None
    step: int | None
    ended: bool
    secret: bytes | None


class LiveTable:
    """The live months of a manifest, over its connection; an older file has none."""

    def __init__(self, db: sqlite3.Connection) -> None:
        self._db = db

    def months(self) -> list[LiveMonth]:
        """The months that were ever opened, oldest first."""
        if int(self._db.execute("PRAGMA user_version").fetchone()[0]) < LIVE_VERSION:
            return []
        rows = self._db.execute("SELECT * FROM live_months ORDER BY month")
        return [
            LiveMonth(month, day, first, step, bool(ended), secret)
            for month, day, first, step, ended, secret in rows
        ]

    def month(self, month: int) -> LiveMonth | None:
        """A month that was ever opened, or None."""
        return next((one for one in self.months() if one.month == month), None)

    def day(self) -> int | None:
        """The day number that is live now, or None."""
        days = [one.day for one in self.months() if one.day is not None]
        assert len(days) <= 1, "one day is live at a time"
        return days[0] if days else None

    def put(self, month: LiveMonth) -> None:
        """Stores a month, in place of what was known of it."""
        self._db.execute(
            "INSERT OR REPLACE INTO live_months VALUES (?, ?, ?, ?, ?, ?)",
            (month.month, month.day, month.first, month.step, month.ended, month.secret),
        )


def live_group(day: int) -> int:
    """The group of the users who are out of a live day."""
    assert day_number(WINDOW_END_MIN) <= day <= day_number(WINDOW_END_MAX) + 1
    return _GROUPS_START + day


def is_live_group(group: int) -> bool:
    """Whether a group of held rows is of a live day."""
    return group < 0


def out_of(day: int, keys: NDArray[np.uint64]) -> Run:
    """Rows that take some sorted unique pseudonyms out of a live day for good."""
    return {live_group(day): out_for_good(keys)} if len(keys) else {}


@dataclass(frozen=True, slots=True)
class LiveTurns:
    """How some events take the live day from users; (n,) sorted unique pseudonyms each.

    Attributes:
        left: Those from whom a batch takes the day after an earlier batch gave it to them.
        first_left: Those from whom the first batch that speaks of the day takes it: they leave it
            if they were active on it before.
    """

    left: NDArray[np.uint64]
    first_left: NDArray[np.uint64]


def live_turns(
    live: int | None,
    pseudonym: NDArray[np.uint64],
    day: NDArray[np.int32],
    add: NDArray[np.bool_],
    number: NDArray[np.intp],
) -> LiveTurns | None:
    """What the rows of some batches, in arrival order, do to the live day; None if nobody leaves.

    Within one batch only the last row of a user counts, as the batch comes at once.

    Shapes and units:
        pseudonym, day, add: (n,) as in `EventBatch`; number: (n,) the batch of each row.
    """
    if live is None or add.all():
        return None
    here = day == live
    who, put, number = pseudonym[here], add[here], number[here]
    if put.all():
        return None
    order = np.lexsort((number, who))
    who, put, number = who[order], put[order], number[order]
    last = np.append(starts_of(who, number)[1:], who.shape[0]) - 1
    who, put = who[last], put[last]
    first = np.zeros(who.shape[0], dtype=np.bool_)
    first[starts_of(who)] = True
    put_before = np.concatenate(([False], put[:-1])) & ~first
    return LiveTurns(np.unique(who[~put & put_before]), who[~put & first])
