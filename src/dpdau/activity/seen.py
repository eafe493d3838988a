"""Event ids seen lately, so that an event that is sent twice is applied once."""

import datetime as dt
from typing import Final

import numpy as np
from numpy.typing import NDArray

from dpdau.activity.runs import Rows, Run, Table
from dpdau.domain import day_number

EVENT_ID_RETENTION_DAYS: Final = 35
"""How long, by the clock, an event id or a batch id is remembered at least."""
_WEEK_DAYS: Final = 7

SEEN: Final = Table(
    kind="seen",
    columns=(),
    combine=lambda _older, _newer: (),
    settle=lambda rows: rows,
    digest=lambda _rows: 0,
)


def week_of(moment: dt.datetime) -> int:
    """The group that an id seen at this moment belongs to."""
    return day_number(moment.date()) // _WEEK_DAYS


def oldest_week(moment: dt.datetime) -> int:
    """The oldest group that may still hold an id younger than the retention."""
    return (day_number(moment.date()) - EVENT_ID_RETENTION_DAYS) // _WEEK_DAYS


def first_occurrences(event_id: NDArray[np.uint64]) -> NDArray[np.bool_]:
    """True for an event without an id, and for the first event of each id of a batch."""
    first: NDArray[np.bool_] = event_id == 0
    _ids, at = np.unique(event_id, return_index=True)
    first[at] = True
    return first


def from_ids(event_id: NDArray[np.uint64], moment: dt.datetime) -> Run:
    """The ids of a batch's fresh events as a run; 0 is no id."""
    if not event_id.any():
        return {}
    return {week_of(moment): Rows(np.unique(event_id[event_id != 0]), ())}
