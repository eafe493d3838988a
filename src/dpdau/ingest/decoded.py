"""Door 1 in columns: events that were read and checked, and what was not taken.

A place of its own, so that a service that has met no table yet need not load the array library.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dpdau.domain import Op, day_date
from dpdau.ingest.event import RawEvent, raw_events
from dpdau.ingest.rules import Rejection

__all__ = ["DecodedTable", "RawLabels", "TableForm"]


class TableForm(StrEnum):
    """How a body holds a table of events."""

    ARROW = "Arrow stream"
    PARQUET = "Parquet file"


@dataclass(frozen=True, slots=True)
class RawLabels:
    """The values of one dimension; codes (n,) int32, -1 where a row has none."""

    values: tuple[str, ...]
    codes: NDArray[np.int32]


@dataclass(frozen=True, slots=True)
class DecodedTable:
    """Door 1 in columns: n checked events of one day each, and what was not taken.

    Shapes and units:
        user_ids: the distinct ids, an Arrow array of binary or a list of bytes; user: (n,) intp,
            an index into them.
        day: (n,) int32 day numbers; add: (n,) bool.
        event_ids: (n,) binary with nulls, or None where there are none.
    """

    user_ids: Any
    user: NDArray[np.intp]
    day: NDArray[np.int32]
    add: NDArray[np.bool_]
    event_ids: Any
    labels: Mapping[str, RawLabels]
    rejected: Sequence[Rejection]
    received: int

    def __post_init__(self) -> None:
        n = self.user.shape[0]
        assert self.day.shape == self.add.shape == (n,)
        assert self.received == n + len(self.rejected)

    def __repr__(self) -> str:
        return f"DecodedTable(received={self.received}, rejected={len(self.rejected)})"

    @property
    def events(self) -> list[RawEvent]:
        """The same events one by one, for a front that sends them on."""
        distinct = self.user_ids
        names = [
            one.decode()
            for one in (distinct if isinstance(distinct, list) else distinct.to_pylist())
        ]
        ids = [None] * len(self.user) if self.event_ids is None else self.event_ids.to_pylist()
        return raw_events(
            (
                names[user],
                Op.ADD if add else Op.REMOVE,
                day_date(day),
                None if event_id is None else event_id.decode(),
                (),
                {
                    name: one.values[one.codes[row]]
                    for name, one in self.labels.items()
                    if one.codes[row] >= 0
                },
            )
            for row, (user, add, day, event_id) in enumerate(
                zip(self.user.tolist(), self.add.tolist(), self.day.tolist(), ids, strict=True)
            )
        )
