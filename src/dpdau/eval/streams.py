"""What arrives on each day of a month: activity, and the removals that users ask for.

A share q of the users who are active in the month ask to be removed.

| pattern | who asks | when | afterwards |
|---|---|---|---|
| `random` | anyone | each on a day of their own | gone for good |
| `adversarial` | the most active users | all on one day, in the middle | 1 in 10 comes back |

| kind | what a removal is |
|---|---|
| `erase` | an erasure: every row of the user goes, at once |
| `retract` | a `-` for each day on which the user was active so far |

A removal comes at the end of its day, before that day closes, so no number of that day counts the
user.
"""

import calendar
import datetime as dt
from collections.abc import Sequence
from dataclasses import dataclass, replace
from enum import StrEnum
from typing import Any, Final

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from dpdau.domain import day_number
from dpdau.errors import InvalidSettingError
from dpdau.eval.workloads import SCHEMA, generate
from dpdau.ingest.datasets import read_cdnow, read_nycflights
from dpdau.ingest.decoded import DecodedTable
from dpdau.ingest.rules import Rules

__all__ = ["Kind", "MonthStream", "Pattern", "Removal", "data_set", "remove", "synthetic"]

RETURNING: Final = 10
"""Of the users who are removed adversarially, every tenth comes back."""
DATA_SETS: Final = {
    "cdnow": (dt.date(1997, 4, 1), read_cdnow),
    "nycflights": (dt.date(2013, 4, 1), read_nycflights),
}
"""The 30-day month that is taken from each real data set, with the days before as history."""


class Pattern(StrEnum):
    """Who asks to be removed, and when; see the module's table."""

    RANDOM = "random"
    ADVERSARIAL = "adversarial"


class Kind(StrEnum):
    """What a removal is; see the module's table."""

    ERASE = "erase"
    RETRACT = "retract"


@dataclass(frozen=True, slots=True)
class Removal:
    """How many users ask to be removed, which, and how.

    Raises:
        InvalidSettingError: The share is not in 0..1.
    """

    share: float
    pattern: Pattern = Pattern.RANDOM
    kind: Kind = Kind.ERASE

    def __post_init__(self) -> None:
        if not 0 <= self.share <= 1:
            raise InvalidSettingError(f"Expected a share of 0..1, found {self.share}.")

    @property
    def label(self) -> str:
        """A few words for tables and legends."""
        if not self.share:
            return "none"
        return f"{self.share:.0%} {self.pattern} {self.kind}"


@dataclass(frozen=True, slots=True)
class MonthStream:
    """The events of a month in arrival order, and the removals.

    Shapes and units:
        user_ids: distinct ids, a string array; user: (n,) an index into them.
        day: (n,) the day that each row is about, counted from `first`; history is below 0.
        removed: for each day of the month, the users who ask at its end.
    """

    first: dt.date
    days: int
    user_ids: Any
    user: NDArray[np.int64]
    day: NDArray[np.int64]
    removed: tuple[NDArray[np.int64], ...]

    def arrivals(self, day: int) -> pa.RecordBatch:
        """The `+` rows that arrive on a day; the first day brings the history too."""
        rows = (self.day <= 0) if day == 0 else (self.day == day)
        return self._batch(self.user[rows], self.day[rows], "+")

    def retractions(self, day: int) -> pa.RecordBatch:
        """A `-` for each row up to a day, of the users who ask to be removed on it."""
        gone = np.zeros(len(self.user_ids), dtype=np.bool_)
        gone[self.removed[day]] = True
        rows = gone[self.user] & (self.day <= day)
        return self._batch(self.user[rows], self.day[rows], "-")

    def names(self, day: int) -> list[str]:
        """The ids of the users who ask to be removed on a day."""
        found: list[str] = self.user_ids.take(pa.array(self.removed[day])).to_pylist()
        return found

    def _batch(self, user: NDArray[np.int64], day: NDArray[np.int64], op: str) -> pa.RecordBatch:
        numbers = (day + day_number(self.first)).astype(np.int32)
        return pa.RecordBatch.from_arrays(
            [
                self.user_ids.take(pa.array(user)),
                pa.array([op] * user.size, pa.string()),
                pa.Array.from_buffers(pa.date32(), user.size, [None, pa.py_buffer(numbers)]),
            ],
            schema=SCHEMA,
        )


def synthetic(users: int, first: dt.date, *, seed: int) -> MonthStream:
    """A month of users with p_u ~ Beta(0.5, 5), without history and without removals."""
    days = calendar.monthrange(first.year, first.month)[1]
    table = pa.Table.from_batches(generate(users, days, first, seed=seed), SCHEMA)
    return _stream(
        table.column("user_id").combine_chunks(),
        table.column("day").combine_chunks().cast(pa.int32()).to_numpy().astype(np.int64),
        first,
    )


def data_set(name: str) -> MonthStream:
    """A month of real data, with everything before it as history.

    Raises:
        NotFoundError: The package that carries the data is not installed.
    """
    first, read = DATA_SETS[name]
    days = calendar.monthrange(first.year, first.month)[1]
    rules = Rules(first + dt.timedelta(days=days))
    names, numbers = [], []
    for chunk in read(rules=rules):
        table = chunk.decoded
        assert isinstance(table, DecodedTable), "data sets are read as columns"
        names.append(table.user_ids.take(pa.array(table.user)).cast(pa.string()))
        numbers.append(table.day.astype(np.int64))
    who, when = pa.concat_arrays(names), np.concatenate(numbers)
    kept = when < day_number(first) + days
    return _stream(who.filter(pa.array(kept)), when[kept], first)


def remove(stream: MonthStream, removal: Removal, *, seed: int) -> MonthStream:
    """The stream in which a share of the month's users ask to be removed, and stop to be active.

    Guarantee: the same arguments give the same stream.
    """
    rng = np.random.Generator(np.random.PCG64([seed, 1]))
    active = np.bincount(stream.user[stream.day >= 0], minlength=len(stream.user_ids))
    present = rng.permutation(np.flatnonzero(active))
    if removal.pattern is Pattern.ADVERSARIAL:
        present = present[np.argsort(-active[present], kind="stable")]
    asking = present[: round(removal.share * present.size)]
    when = np.full(asking.size, stream.days // 2)
    stays = np.zeros(asking.size, dtype=np.bool_)
    if removal.pattern is Pattern.RANDOM:
        when = rng.integers(0, stream.days, asking.size)
    else:
        stays = rng.permutation(asking.size) % RETURNING == 0
    last = np.full(len(stream.user_ids), stream.days)
    last[asking[~stays]] = when[~stays]
    kept = stream.day <= last[stream.user]
    return replace(
        stream,
        user=stream.user[kept],
        day=stream.day[kept],
        removed=tuple(asking[when == day] for day in range(stream.days)),
    )


def _stream(names: Any, numbers: NDArray[np.int64], first: dt.date) -> MonthStream:
    coded = names.dictionary_encode()
    days = calendar.monthrange(first.year, first.month)[1]
    nobody: Sequence[NDArray[np.int64]] = [np.zeros(0, dtype=np.int64)] * days
    return MonthStream(
        first=first,
        days=days,
        user_ids=coded.dictionary,
        user=coded.indices.to_numpy().astype(np.int64),
        day=numbers - day_number(first),
        removed=tuple(nobody),
    )
