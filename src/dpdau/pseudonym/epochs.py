"""Epochs of pseudonym keys, and how long an old key stays beside its successor."""

import datetime as dt
from dataclasses import dataclass, field

from dpdau.domain import DAYS_AHEAD_MAX, WINDOW_DAYS_MAX


@dataclass(frozen=True, slots=True)
class Epoch:
    """One period of pseudonyms.

    Attributes:
        epoch_id: 1, 2, …
        created_at: When its salt was drawn.
        effective: The day of arrival on which it was first used; the day on which it is to be,
            while it is only planned.
        salt: Half of its key; None where the key is destroyed.
        rotation_days: After how many days it is replaced; None leaves that to the setting.
        cutoff: For a destroyed key, the first day of which events were taken from then on.
    """

    epoch_id: int
    created_at: dt.datetime
    effective: dt.date
    salt: bytes | None = field(repr=False)
    rotation_days: int | None = None
    cutoff: dt.date | None = None

    @property
    def since(self) -> dt.date:
        """The day from which its age counts; the first epoch is in force before it was made."""
        return self.created_at.date() if self.epoch_id == 1 else self.effective


@dataclass(frozen=True, slots=True)
class EpochKey:
    """The derived key of one epoch; its repr does not show it."""

    epoch_id: int
    key: bytes = field(repr=False)


@dataclass(frozen=True, slots=True)
class Overlap:
    """How long an old key stays beside its successor.

    Let A be the day on which the successor is first used. Rows under the old key alone hold days up
    to A + 1, because an event is at most one day ahead of its arrival.

    Attributes:
        span_days: The cut-off comes that many days after A + 1: no question that is answered holds
            a day up to A + 1 and one from the cut-off on.
        late_days: The old key stays that many days beyond the cut-off, so that an event which is
            not later than that is taken at any time.
    """

    span_days: int
    late_days: int

    def __post_init__(self) -> None:
        assert self.span_days >= WINDOW_DAYS_MAX and self.late_days >= 1

    def cutoff(self, successor: Epoch) -> dt.date:
        """The first day that is taken once the key before this one is destroyed."""
        return last_day_before(successor) + dt.timedelta(days=self.span_days)

    def ends(self, successor: Epoch) -> dt.date:
        """The first day on which the key before this one may be destroyed."""
        return self.cutoff(successor) + dt.timedelta(days=self.late_days)


def last_day_before(successor: Epoch) -> dt.date:
    """The last day that a row under the keys before this one alone can hold."""
    return successor.effective + dt.timedelta(days=DAYS_AHEAD_MAX)
