"""What an event must be: the limits, the faults, and the checks that every reader shares."""

import datetime as dt
from dataclasses import dataclass
from enum import StrEnum
from typing import Final, NamedTuple

import msgspec

from dpdau.domain import DAYS_AHEAD_MAX, Op
from dpdau.errors import InvalidEventError, InvalidSettingError

USER_ID_BYTES_MAX: Final = 256
EVENT_ID_BYTES_MAX: Final = 256
LABEL_BYTES_MAX: Final = 64
REMOVED_DAYS_MAX: Final = 400
FIRST_DAY: Final = dt.date(1900, 1, 1)


class RejectionCode(StrEnum):
    """Why one item was not taken; stable, for machines."""

    BAD_JSON = "bad_json"
    BAD_ROW = "bad_row"
    MISSING_FIELD = "missing_field"
    BAD_USER_ID = "bad_user_id"
    UNKNOWN_OP = "unknown_op"
    BAD_DAY = "bad_day"
    FUTURE_DAY = "future_day"
    TOO_OLD = "too_old"
    BAD_EVENT_ID = "bad_event_id"
    BAD_METADATA = "bad_metadata"


class Fault(NamedTuple):
    """What is wrong with an item, wherever it stands; repeats nothing of the item."""

    code: RejectionCode
    field: str | None
    message: str


class Rejection(msgspec.Struct, frozen=True, gc=False):
    """One item that was not taken, by its place among the items received, from 0."""

    index: int
    code: RejectionCode
    field: str | None
    message: str

    @classmethod
    def of(cls, index: int, fault: Fault) -> "Rejection":
        """A fault at a place."""
        return cls(index, fault.code, fault.field, fault.message)

    def moved(self, rows: int) -> "Rejection":
        """The same, so many places further on."""
        return Rejection(self.index + rows, self.code, self.field, self.message)


_Code = RejectionCode
NOT_AN_OBJECT: Final = Fault(_Code.BAD_JSON, None, "Expected one JSON object in UTF-8.")
BAD_ROW: Final = Fault(
    _Code.BAD_ROW, None, "Expected as many columns as the header has, and each quote closed."
)
NO_USER_ID: Final = Fault(_Code.MISSING_FIELD, "user_id", "Expected the field user_id.")
NO_OP: Final = Fault(_Code.MISSING_FIELD, "op", "Expected the field op.")
NO_DAY: Final = Fault(_Code.MISSING_FIELD, "day", "Expected the field day or the field ts.")
BAD_USER_ID: Final = Fault(
    _Code.BAD_USER_ID, "user_id", f"Expected a string of 1..{USER_ID_BYTES_MAX} bytes of UTF-8."
)
UNKNOWN_OP: Final = Fault(_Code.UNKNOWN_OP, "op", 'Expected "+" or "-".')
BAD_DAY: Final = Fault(
    _Code.BAD_DAY, "day", f"Expected a date YYYY-MM-DD, not before {FIRST_DAY.isoformat()}."
)
BAD_TS: Final = Fault(_Code.BAD_DAY, "ts", "Expected a date and time in the form of RFC 3339.")
FUTURE_DAY: Final = Fault(
    _Code.FUTURE_DAY, "day", f"Expected a day at most {DAYS_AHEAD_MAX} day ahead of today."
)
TOO_OLD: Final = Fault(
    _Code.TOO_OLD,
    "day",
    "Expected a day within RETENTION_DAYS, and not of a time whose pseudonym key is destroyed.",
)
BAD_EVENT_ID: Final = Fault(
    _Code.BAD_EVENT_ID, "event_id", f"Expected a string of 1..{EVENT_ID_BYTES_MAX} bytes of UTF-8."
)
BAD_METADATA: Final = Fault(
    _Code.BAD_METADATA,
    "metadata",
    "Expected an object whose declared dimensions are strings and whose days are dates.",
)
BAD_LABEL: Final = Fault(
    _Code.BAD_METADATA,
    "metadata",
    f"Expected each declared dimension as a string of 1..{LABEL_BYTES_MAX} bytes of UTF-8.",
)
BAD_DAYS: Final = Fault(
    _Code.BAD_METADATA, "metadata.days", f"Expected 1..{REMOVED_DAYS_MAX} dates YYYY-MM-DD."
)


@dataclass(frozen=True, slots=True)
class Fields:
    """What the fields or columns are called in a source."""

    user_id: str = "user_id"
    op: str = "op"
    day: str = "day"
    ts: str = "ts"
    event_id: str = "event_id"


@dataclass(frozen=True, slots=True)
class Rules:
    """What a deployment takes on one day.

    Args:
        today: The current day in `TIMEZONE`, from the clock.
        zone: `TIMEZONE`: it turns `ts` into a day, and is the zone of a `ts` without an offset.
        dimensions: The keys of `metadata` that are kept.
        retention_days: `RETENTION_DAYS`, or None where everything is kept.
        fields: What the fields are called.
        op_default: What an item without `op` does; None refuses it.
        cutoff: The first day that the pseudonym keys in use may name; see `Keyring.first_day`.

    Raises:
        InvalidSettingError: A dimension is empty, too long, declared twice, or called `days`, which
            is the list of days of a `-`.
    """

    today: dt.date
    zone: dt.tzinfo = dt.UTC
    dimensions: tuple[str, ...] = ()
    retention_days: int | None = None
    fields: Fields = Fields()
    op_default: Op | None = None
    cutoff: dt.date = FIRST_DAY

    def __post_init__(self) -> None:
        names = self.dimensions
        sound = all(is_text(name, LABEL_BYTES_MAX) and name != "days" for name in names)
        if not sound or len(set(names)) != len(names):
            raise InvalidSettingError(
                f"Expected distinct dimensions of 1..{LABEL_BYTES_MAX} bytes, none of them `days`,"
                f" found {', '.join(names)!r}.",
                setting="DIMENSIONS",
            )

    @property
    def last_day(self) -> dt.date:
        """The last day that is taken."""
        return self.today + dt.timedelta(days=DAYS_AHEAD_MAX)

    @property
    def first_day(self) -> dt.date:
        """The first day that is taken."""
        first = max(FIRST_DAY, self.cutoff)
        if self.retention_days is None:
            return first
        return max(first, self.today - dt.timedelta(days=self.retention_days))

    def day_fault(self, day: dt.date) -> Fault | None:
        """What is wrong with a day, if anything."""
        if day > self.last_day:
            return FUTURE_DAY
        if day < FIRST_DAY:
            return BAD_DAY
        return TOO_OLD if day < self.first_day else None

    def day_of(self, moment: dt.datetime) -> dt.date:
        """The day of a moment in the zone (at the ends of the calendar, of its own offset)."""
        if moment.tzinfo is None:
            return moment.date()
        try:
            return moment.astimezone(self.zone).date()
        except OverflowError:
            return moment.date()


def is_text(text: str, bytes_max: int) -> bool:
    """Whether a string has 1..bytes_max bytes of UTF-8.

    Example:
        >>> is_text("é" * 128, 256), is_text("é" * 129, 256), is_text("\\ud800", 256)
        (True, False, False)
    """
    if text.isascii():
        return 0 < len(text) <= bytes_max
    try:
        return len(text.encode()) <= bytes_max
    except UnicodeEncodeError:
        return False


def check_user_id(user_id: str) -> None:
    """Refuses what cannot be a user id; for the verbs that name one user.

    Raises:
        InvalidEventError: It is empty, too long, or not UTF-8.
    """
    if not is_text(user_id, USER_ID_BYTES_MAX):
        raise InvalidEventError(BAD_USER_ID.message, field="user_id")
