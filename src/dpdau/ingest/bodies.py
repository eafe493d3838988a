"""The bodies of requests, in every form: JSON in columns where that is possible, else as tables.

A body of plain JSON events becomes columns without an object for each event. The forms of tables
are checked before anything is unpacked (`table_bodies`).
"""

from collections.abc import Iterable, Sequence
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from dpdau.domain import Op, day_number
from dpdau.ingest import event
from dpdau.ingest.decoded import DecodedTable, RawLabels, TableForm
from dpdau.ingest.event import Decoded, Form
from dpdau.ingest.rules import (
    EVENT_ID_BYTES_MAX,
    LABEL_BYTES_MAX,
    USER_ID_BYTES_MAX,
    Fault,
    Rules,
    is_text,
)

__all__ = ["checked", "decode_body"]

LARGE_BYTES_MIN: Final = 1 << 20
"""A body of this size is looked at as a whole first; below it that costs more than it saves."""
_COLUMNS_MIN: Final = 32
"""Fewer items than this are read one by one."""


def decode_body(
    body: bytes, form: Form | TableForm, *, rules: Rules, unpacked_bytes_max: int
) -> Decoded | DecodedTable:
    """Reads the events of the body of a request.

    Args:
        body: What was sent, without its content encoding.
        form: How it holds its events.
        rules: What is taken.
        unpacked_bytes_max: What a table may take when it is unpacked.

    Guarantee: as `event.decode` for a form of JSON, as `columns.decode_table` for a table.

    Raises:
        InvalidEventError: The body as a whole is not of the form, or broken.
        TooLargeError: There are too many items, or a table is too large when unpacked.
        UnsupportedMediaError: A column of a table is missing or has a type that is not read.
    """
    if isinstance(form, TableForm):
        from dpdau.ingest.table_bodies import decode_table_body

        return decode_table_body(body, form, rules=rules, unpacked_bytes_max=unpacked_bytes_max)
    if len(body) >= LARGE_BYTES_MIN:
        from dpdau.ingest.plain import decode_large

        large = decode_large(body, form, rules=rules)
        if large is not None:
            return large
    return checked(event.items_of(body, form, rules=rules), rules)


def checked(items: list[Any], rules: Rules) -> Decoded | DecodedTable:
    """Checks the values of items, in columns where that is possible; see `event.items_of`.

    Raises:
        TooLargeError: There are too many.
    """
    columns = _columns(items, rules) if len(items) >= _COLUMNS_MIN else None
    return event.taken(items, rules) if columns is None else columns


def _columns(items: list[Any], rules: Rules) -> DecodedTable | None:
    """Items in columns, where each is plain and good; None otherwise.

    Plain: no fault, ASCII in what names a user or an event, a `day`, and one day each.
    """
    if len(items) > event.EVENTS_MAX or any(kind is Fault for kind in set(map(type, items))):
        return None
    user_ids = [one.user_id for one in items]
    event_ids = [one.event_id for one in items]
    sent = [one for one in event_ids if one is not None]
    days = [one.day for one in items]
    distinct = set(days)
    # By identity: the members of an enumeration hash and compare slowly.
    remove, default_adds = Op.REMOVE, rules.op_default is not Op.REMOVE
    ops = [one.op for one in items]
    adds = [default_adds if op is None else op is not remove for op in ops]
    metadata = [one.metadata for one in items]
    if (
        not _plain(user_ids, USER_ID_BYTES_MAX)
        or (sent and not _plain(sent, EVENT_ID_BYTES_MAX))
        or None in distinct
        or not rules.first_day <= min(distinct) <= max(distinct) <= rules.last_day
        or (not all(adds) and _names_days(metadata, adds))
    ):
        return None
    labels: dict[str, RawLabels] = {}
    for place, name in enumerate(rules.dimensions):
        attribute = f"d{place}"
        found = [None if one is None else getattr(one, attribute) for one in metadata]
        values = dict.fromkeys(one for one in found if one is not None)
        if not all(is_text(one, LABEL_BYTES_MAX) for one in values):
            return None
        labels[name] = RawLabels(tuple(values), _coded(found, values))
    n, users = len(items), dict.fromkeys(user_ids)
    numbers = {day: day_number(day) for day in distinct}
    return DecodedTable(
        user_ids=[one.encode() for one in users],
        user=np.arange(n) if len(users) == n else _coded(user_ids, users).astype(np.intp),
        day=np.fromiter(map(numbers.__getitem__, days), dtype=np.int32, count=n),
        add=np.array(adds, dtype=np.bool_),
        event_ids=_arrow(event_ids) if sent else None,
        labels=labels,
        rejected=(),
        received=n,
    )


def _arrow(texts: Sequence[str | None]) -> Any:
    """Texts as a column; the array library is loaded by the first sender who needs it."""
    import pyarrow as pa

    return pa.array(texts, pa.large_binary())


def _plain(texts: Sequence[str], bytes_max: int) -> bool:
    """Whether all texts have 1..bytes_max characters of ASCII."""
    sizes = list(map(len, texts))
    return min(sizes) > 0 and max(sizes) <= bytes_max and "".join(texts).isascii()


def _names_days(metadata: Sequence[Any], adds: Sequence[bool]) -> bool:
    """Whether some `-` names its days by itself."""
    return any(
        one is not None and one.days is not None and not add
        for one, add in zip(metadata, adds, strict=True)
    )


def _coded(found: Sequence[str | None], values: Iterable[str]) -> NDArray[np.int32]:
    """Each value's place among the distinct ones; -1 for none."""
    places: dict[str | None, int] = {value: place for place, value in enumerate(values)}
    places[None] = -1
    return np.fromiter(map(places.__getitem__, found), dtype=np.int32, count=len(found))
