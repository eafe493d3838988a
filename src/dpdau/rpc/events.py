"""Batches of events out of messages, under the rules that JSON and tables are read under."""

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from dpdau.domain import day_number
from dpdau.errors import InvalidEventError, TooLargeError
from dpdau.ingest.decoded import DecodedTable, RawLabels
from dpdau.ingest.event import BATCH_ID_LENGTH_MAX, EVENTS_MAX, Decoded, Rules, decode_objects
from dpdau.ingest.rules import LABEL_BYTES_MAX, USER_ID_BYTES_MAX, is_text
from dpdau.rpc.v1 import dpdau_pb2 as v1

if TYPE_CHECKING:
    import pyarrow as pa

    from dpdau.ingest.columns import Columns

_COLUMNS_MIN: Final = 32
"""Fewer events than this are read one by one."""
_SIGNS: Final = {v1.OP_ADD: "+", v1.OP_REMOVE: "-"}
_UNKNOWN_SIGN: Final = "?"
_SECONDS_MAX: Final = 1 << 40


def batch_of(
    request: v1.IngestRequest, *, rules: Rules
) -> tuple[Decoded | DecodedTable, str | None]:
    """The events of a request, and the sender's id of the batch.

    Guarantee: accepts and refuses the same events as `ingest.event.decode` does in JSON.

    Raises:
        InvalidEventError: The request as a whole is not of the form, so it has no items.
        TooLargeError: It has too many events.
    """
    batch_id = request.batch_id if request.HasField("batch_id") else None
    if batch_id is not None and not 1 <= len(batch_id) <= BATCH_ID_LENGTH_MAX:
        raise InvalidEventError(
            f"Expected a batch_id of 1..{BATCH_ID_LENGTH_MAX} characters, found {len(batch_id)}."
        )
    form = request.WhichOneof("events")
    received = len(request.list.events) if form == "list" else len(request.columns.user_id)
    if received > EVENTS_MAX:
        raise TooLargeError(f"Expected at most {EVENTS_MAX} events, found {received}.")
    if form == "columns":
        return _from_columns(request.columns, rules), batch_id
    if form == "list":
        return _from_list(request.list.events, rules), batch_id
    raise InvalidEventError("Expected a list or columns of events, found neither.")


def _from_list(events: Sequence[v1.Event], rules: Rules) -> Decoded | DecodedTable:
    """Events that were sent one by one; many of them are put into columns here."""
    if len(events) < _COLUMNS_MIN or any(one.days or "days" in one.metadata for one in events):
        return decode_objects(map(_object_of, events), rules=rules)
    from dpdau.ingest.columns import Columns

    metadata = [one.metadata for one in events]
    found = Columns(
        user_id=_texts(one.user_id for one in events),
        op=_ops(one.op for one in events),
        day=_texts(one.day or None for one in events),
        ts=_texts(one.ts or None for one in events),
        event_id=_texts(one.event_id or None for one in events),
        labels={name: _texts(one.get(name) for one in metadata) for name in rules.dimensions},
    )
    return _checked(found, rules)


def _object_of(event: v1.Event) -> dict[str, Any]:
    """An event as a sender would write it in JSON; an empty text is a field that is not given."""
    metadata: dict[str, Any] = dict(event.metadata)
    if event.days:
        metadata["days"] = list(event.days)
    texts = {"day": event.day, "ts": event.ts, "event_id": event.event_id}
    given = {name: text for name, text in texts.items() if text}
    if event.op != v1.OP_UNSPECIFIED:
        given["op"] = _SIGNS.get(event.op, _UNKNOWN_SIGN)
    return {"user_id": event.user_id, **given, "metadata": metadata}


def _from_columns(sent: v1.EventColumns, rules: Rules) -> DecodedTable:
    """Events that were sent in columns.

    Raises:
        InvalidEventError: The columns do not make events.
    """
    n = len(sent.user_id)
    columns = [sent.op, sent.day, sent.ts, sent.event_id]
    columns += [one.codes for one in sent.labels.values()]
    if any(len(one) not in (0, n) for one in columns):
        raise InvalidEventError("Expected columns of one length, found several.")
    if n and bool(sent.day) == bool(sent.ts):
        raise InvalidEventError("Expected a column day or a column ts, found both or neither.")
    return _plain(sent, rules) or _checked(_in_columns(sent, rules), rules)


def _plain(sent: v1.EventColumns, rules: Rules) -> DecodedTable | None:
    """Columns in which nothing is at fault, without the array library; None otherwise.

    The library lets other threads run at each of its calls, and waits for them each time.
    """
    user_ids, ops, days = list(sent.user_id), list(sent.op), list(sent.day)
    first, last = day_number(rules.first_day), day_number(rules.last_day)
    sizes = list(map(len, user_ids))
    if (
        not days
        or any(sent.event_id)
        or not (first <= min(days) and max(days) <= last)
        or not (min(sizes) > 0 and max(sizes) <= USER_ID_BYTES_MAX and "".join(user_ids).isascii())
        or not _SIGNS.keys() >= set(ops)
    ):
        return None
    labels = {}
    for name in rules.dimensions:
        if name in sent.labels and sent.labels[name].codes:
            values, codes = tuple(sent.labels[name].values), list(sent.labels[name].codes)
            sound = all(is_text(one, LABEL_BYTES_MAX) for one in values)
            if not sound or len(set(values)) != len(values) or max(codes) > len(values):
                return None
            labels[name] = RawLabels(values, np.array(codes, dtype=np.int32) - 1)
    n = len(user_ids)
    places = {one: place for place, one in enumerate(dict.fromkeys(user_ids))}
    return DecodedTable(
        user_ids=[one.encode() for one in places],
        user=np.fromiter(map(places.__getitem__, user_ids), dtype=np.intp, count=n),
        day=np.array(days, dtype=np.int32),
        add=np.array(ops, dtype=np.int32) == v1.OP_ADD if ops else np.ones(n, dtype=np.bool_),
        event_ids=None,
        labels=labels,
        rejected=(),
        received=n,
    )


def _in_columns(sent: v1.EventColumns, rules: Rules) -> "Columns":
    import pyarrow as pa

    from dpdau.ingest.columns import Columns

    return Columns(
        user_id=_texts(sent.user_id),
        op=_ops(sent.op) if sent.op else None,
        day=_integers(sent.day, np.int32).cast(pa.date32()) if not sent.ts else None,
        ts=_moments(sent.ts) if sent.ts else None,
        event_id=_texts(one or None for one in sent.event_id) if any(sent.event_id) else None,
        labels={
            name: _labels(sent.labels[name])
            for name in rules.dimensions
            if name in sent.labels and sent.labels[name].codes
        },
    )


def _checked(columns: "Columns", rules: Rules) -> DecodedTable:
    from dpdau.ingest.columns import decode_columns

    n = len(columns.user_id)
    return decode_columns(columns, rules=rules, row_index=np.arange(n, dtype=np.int64))


def _texts(values: Iterable[str | None]) -> "pa.Array":
    import pyarrow as pa

    return pa.array(list(values), pa.large_string())


def _integers(values: Iterable[int], kind: Any) -> "pa.Array":
    import pyarrow as pa

    return pa.array(np.array(list(values), dtype=kind))


def _ops(values: Iterable[int]) -> "pa.Array":
    """The signs of operations; none where one is not given."""
    import pyarrow as pa

    signs = [None, *_SIGNS.values(), _UNKNOWN_SIGN]
    codes = np.array(list(values), dtype=np.int64)
    known = (codes >= 0) & (codes < len(signs) - 1)
    places = pa.array(np.where(known, codes, len(signs) - 1))
    return pa.array(signs, pa.large_string()).take(places)


def _moments(values: Iterable[int]) -> "pa.Array":
    """Seconds as moments; beyond the calendar they stay out of it."""
    import pyarrow as pa

    seconds = np.clip(np.array(list(values), dtype=np.int64), -_SECONDS_MAX, _SECONDS_MAX)
    return pa.array(seconds).cast(pa.timestamp("s", "UTC"))


def _labels(sent: v1.Labels) -> "pa.Array":
    """The value of each event; none where its code is 0.

    Raises:
        InvalidEventError: A code is beyond the values.
    """
    import pyarrow as pa

    codes = np.array(list(sent.codes), dtype=np.int64)
    if codes.max(initial=0) > len(sent.values):
        raise InvalidEventError("Expected codes of 0..n for n values of a dimension, found more.")
    return pa.array([None, *sent.values], pa.large_string()).take(pa.array(codes))
