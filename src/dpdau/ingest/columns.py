"""Raw events as Arrow columns: the same checks as `ingest.event`, without a loop over the rows.

A column is looked at through its distinct values: days, ops and labels have few, and a user id is
checked and hashed once however often it occurs.

| column | types |
|---|---|
| user_id | string, binary, or integer (its decimal form), also as a dictionary |
| op | string; without the column every row is a `+` |
| day | date, string YYYY-MM-DD, or timestamp (its date in the zone) |
| ts | timestamp (without a zone: in the zone of the rules) or RFC 3339 string |
| event_id, dimensions | string |

Any other column is not read, but for `metadata`: a table with that column has the shape of the JSON
events and is read row by row as such.
"""

import contextlib
import datetime as dt
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Final

import msgspec
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from dpdau.domain import Op, day_number
from dpdau.errors import TooLargeError, UnsupportedMediaError
from dpdau.ingest import rules as faults
from dpdau.ingest.decoded import DecodedTable, RawLabels
from dpdau.ingest.event import Decoded, decode_objects, moment_of
from dpdau.ingest.rules import (
    EVENT_ID_BYTES_MAX,
    LABEL_BYTES_MAX,
    USER_ID_BYTES_MAX,
    Fault,
    Rejection,
    Rules,
)

__all__ = ["Columns", "decode_columns", "decode_table"]

ROWS_MAX: Final = 1_000_000
_SECONDS_PER_DAY: Final = 86_400
_SECONDS_PER_HOUR: Final = 3_600
_UNITS_PER_SECOND: Final = {"s": 1, "ms": 10**3, "us": 10**6, "ns": 10**9}
_LAST_DAY: Final = dt.date(9998, 12, 31)

# The faults of columns, in the order in which they are looked for; 0 is none.
_FAULTS: Final[tuple[Fault | None, ...]] = (
    None,
    faults.NO_USER_ID,
    faults.BAD_USER_ID,
    faults.NO_OP,
    faults.UNKNOWN_OP,
    faults.NO_DAY,
    faults.BAD_DAY,
    faults.BAD_TS,
    faults.FUTURE_DAY,
    faults.TOO_OLD,
    faults.BAD_EVENT_ID,
    faults.BAD_LABEL,
)
_PLACE: Final = {fault: np.int8(place) for place, fault in enumerate(_FAULTS)}


@dataclass(frozen=True, slots=True)
class Columns:
    """The fields of n events as Arrow arrays, None where a source has no such field."""

    user_id: Any
    op: Any = None
    day: Any = None
    ts: Any = None
    event_id: Any = None
    labels: Mapping[str, Any] = field(default_factory=dict)

    def __repr__(self) -> str:
        return f"Columns(n={len(self.user_id)}, values=<private>)"


def decode_table(
    table: "pa.Table | pa.RecordBatch",
    *,
    rules: Rules,
    row_index: NDArray[np.int64] | None = None,
) -> Decoded | DecodedTable:
    """Reads the events of a table; see the module's table of types.

    Args:
        table: The rows, in arrival order.
        rules: What is taken.
        row_index: (n,) the place of each row among all that were received, for the rejections;
            0..n-1 by default.

    Guarantee: accepts and refuses the same rows as `decode` does for the same events in JSON. A row
    with several faults is reported with the first, in the order user_id, op, day, event_id,
    dimensions.

    Raises:
        UnsupportedMediaError: A column is missing, occurs twice or has a type that is not read.
        TooLargeError: There are more than `ROWS_MAX` rows.
    """
    n = table.num_rows
    if n > ROWS_MAX:
        raise TooLargeError(f"Expected at most {ROWS_MAX} rows, found {n}.")
    place = np.arange(n, dtype=np.int64) if row_index is None else row_index
    if "metadata" in table.schema.names:
        return _from_rows(table, rules, place)
    names = rules.fields
    columns = Columns(
        user_id=_needed(table, names.user_id),
        op=_column(table, names.op),
        day=_column(table, names.day),
        ts=_column(table, names.ts),
        event_id=_column(table, names.event_id),
        labels={name: _column(table, name) for name in rules.dimensions},
    )
    return decode_columns(columns, rules=rules, row_index=place)


def decode_columns(columns: Columns, *, rules: Rules, row_index: NDArray[np.int64]) -> DecodedTable:
    """`decode_table` for columns that were found; its Guarantee and Raises are the same."""
    place, n = row_index, len(columns.user_id)
    fault = np.zeros(n, dtype=np.int8)
    user, user_ids = _users(columns.user_id, fault)
    add = _ops(columns.op, rules, fault)
    day = _days(columns.day, columns.ts, rules, fault)
    event_ids = _event_ids(columns.event_id, fault)
    found = ((name, columns.labels.get(name)) for name in rules.dimensions)
    labels = {name: _labels(column, fault) for name, column in found if column is not None}
    kept = np.flatnonzero(fault == 0)
    refused = np.flatnonzero(fault)
    if refused.size:
        user, add, day = user[kept], add[kept], day[kept]
        event_ids = None if event_ids is None else event_ids.take(pa.array(kept))
        labels = {name: RawLabels(one.values, one.codes[kept]) for name, one in labels.items()}
    codes = fault[refused].tolist()
    rejected = [
        Rejection.of(index, _fault(code))
        for index, code in zip(place[refused].tolist(), codes, strict=True)
    ]
    return DecodedTable(user_ids, user, day, add, event_ids, labels, rejected, n)


def local_days(seconds: NDArray[np.int64], zone: dt.tzinfo) -> NDArray[np.int64]:
    """The day numbers, in a zone, of moments given as seconds since 1970-01-01 UTC.

    The offset of a zone is looked up at both ends of each distinct hour; only in the rare hour in
    which it changes is it looked up moment by moment.
    """
    hours, place = np.unique(seconds // _SECONDS_PER_HOUR, return_inverse=True)
    starts = (hours * _SECONDS_PER_HOUR).tolist()
    before = _offsets(starts, zone)
    after = _offsets([start + _SECONDS_PER_HOUR - 1 for start in starts], zone)
    offset = before[place]
    changing = np.flatnonzero((before != after)[place])
    offset[changing] = _offsets(seconds[changing].tolist(), zone)
    return (seconds + offset) // _SECONDS_PER_DAY


def _offsets(moments: list[int], zone: dt.tzinfo) -> NDArray[np.int64]:
    """The UTC offset in seconds at each moment."""
    ends = (dt.datetime.fromtimestamp(one, tz=zone).utcoffset() for one in moments)
    return np.array(
        [0 if one is None else one.days * _SECONDS_PER_DAY + one.seconds for one in ends],
        dtype=np.int64,
    )


def _from_rows(table: Any, rules: Rules, place: NDArray[np.int64]) -> Decoded:
    """A table with a `metadata` column, read as the objects that it holds."""
    for position, column in enumerate(table.schema):
        # Python has no nanoseconds, and days need none.
        if pa.types.is_timestamp(column.type) and column.type.unit == "ns":
            exact = pa.timestamp("us", column.type.tz)
            cast = table.column(position).cast(exact, safe=False)
            table = table.set_column(position, column.name, cast)
        elif column.name == rules.fields.user_id:
            is_dictionary = pa.types.is_dictionary(column.type)
            kind = column.type.value_type if is_dictionary else column.type
            if pa.types.is_integer(kind):
                ids = table.column(position).cast(kind).cast(pa.string())
                table = table.set_column(position, column.name, ids)
    rows = None
    # The error of a string that is not UTF-8 carries the string; it ends here.
    with contextlib.suppress(UnicodeDecodeError):
        rows = table.to_pylist(maps_as_pydicts="lossy")
    if rows is None:
        raise UnsupportedMediaError("Expected strings in UTF-8, found others.")
    if rules.op_default is None and rules.fields.op not in table.schema.names:
        rules = replace(rules, op_default=Op.ADD)
    decoded = decode_objects(rows, rules=rules)
    rejected = [
        Rejection(int(place[one.index]), one.code, one.field, one.message)
        for one in decoded.rejected
    ]
    return Decoded(decoded.events, rejected, decoded.received)


def _column(table: Any, name: str) -> Any:
    """A column as one plain array, or None."""
    found = table.schema.get_all_field_indices(name)
    if not found:
        return None
    if len(found) > 1:
        raise UnsupportedMediaError(f"Expected the column {name} once, found it twice.")
    column = table.column(found[0])
    if isinstance(column, pa.ChunkedArray):
        column = column.combine_chunks()
    if pa.types.is_dictionary(column.type):
        column = column.cast(column.type.value_type)
    return column


def _needed(table: Any, name: str) -> Any:
    column = _column(table, name)
    if column is None:
        raise UnsupportedMediaError(f"Expected a column {name}, found none of that name.")
    return column


def _note(fault: NDArray[np.int8], where: NDArray[np.bool_], what: Fault) -> None:
    """Marks rows that have no earlier fault."""
    fault[where & (fault == 0)] = _PLACE[what]


def _fault(place: int) -> Fault:
    fault = _FAULTS[place]
    assert fault is not None, "place 0 is no fault"
    return fault


def _is_bytes(kind: Any) -> bool:
    """Whether a type is a string or binary one."""
    types = pa.types
    return bool(
        types.is_string(kind)
        or types.is_large_string(kind)
        or types.is_binary(kind)
        or types.is_large_binary(kind)
        or types.is_string_view(kind)
        or types.is_binary_view(kind)
    )


def _bytes(column: Any, name: str) -> Any:
    """A string or binary column as large binary: nothing is copied twice or validated yet."""
    if pa.types.is_null(column.type):
        return pa.nulls(len(column), pa.large_binary())
    if not _is_bytes(column.type):
        raise UnsupportedMediaError(f"Expected strings in the column {name}, found another type.")
    return column.cast(pa.large_binary())


def _by_distinct(column: Any) -> tuple[NDArray[np.intp], NDArray[np.bool_], Any]:
    """Each row's place among the distinct values, which rows are null, and the distinct values."""
    encoded = column.dictionary_encode()
    null = encoded.indices.is_null().to_numpy(zero_copy_only=False)
    place = encoded.indices.fill_null(0).to_numpy(zero_copy_only=False).astype(np.intp)
    return place, null, encoded.dictionary


def _spread(of_distinct: Any, place: NDArray[np.intp], kind: Any) -> Any:
    """A value for each distinct value, given to each row (0 where all rows are null)."""
    values = np.asarray(of_distinct, dtype=kind)
    return values[place] if values.size else np.zeros(place.shape, dtype=kind)


def _sound(values: Any, bytes_max: int) -> NDArray[np.bool_]:
    """Which binary values have 1..bytes_max bytes of UTF-8."""
    length = pc.binary_length(values).to_numpy(zero_copy_only=False)
    sound: NDArray[np.bool_] = (length >= 1) & (length <= bytes_max)
    if not _all_utf8(values):
        for place in np.flatnonzero(sound).tolist():
            sound[place] = _all_utf8(values.slice(place, 1))
    return sound


def _all_utf8(values: Any) -> bool:
    try:
        values.cast(pa.large_string())
    except pa.ArrowInvalid:
        return False
    return True


def _users(column: Any, fault: NDArray[np.int8]) -> tuple[NDArray[np.intp], Any]:
    if pa.types.is_integer(column.type):
        column = column.cast(pa.large_string())
    place, null, distinct = _by_distinct(_bytes(column, "user_id"))
    sound = _sound(distinct, USER_ID_BYTES_MAX)
    _note(fault, null, faults.NO_USER_ID)
    if not sound.all():
        _note(fault, ~_spread(sound, place, np.bool_), faults.BAD_USER_ID)
        place = _spread(np.cumsum(sound) - 1, place, np.intp)
        distinct = distinct.filter(pa.array(sound))
    return place, distinct


def _ops(column: Any, rules: Rules, fault: NDArray[np.int8]) -> NDArray[np.bool_]:
    if column is None:
        return np.full(fault.shape, rules.op_default is not Op.REMOVE)
    place, null, distinct = _by_distinct(_bytes(column, "op"))
    found = distinct.to_pylist()
    known = _spread([one in {b"+", b"-"} for one in found], place, np.bool_)
    _note(fault, ~null & ~known, faults.UNKNOWN_OP)
    add: NDArray[np.bool_] = _spread([one == b"+" for one in found], place, np.bool_)
    if rules.op_default is None:
        _note(fault, null, faults.NO_OP)
    else:
        add[null] = rules.op_default is Op.ADD
    return add


def _days(column: Any, moments: Any, rules: Rules, fault: NDArray[np.int8]) -> NDArray[np.int32]:
    """Day numbers from `day` and, where that is null, from `ts`."""
    n = fault.shape[0]
    if column is None and moments is None:
        raise UnsupportedMediaError(
            f"Expected a column {rules.fields.day} or {rules.fields.ts}, found neither."
        )
    day, null = np.zeros(n, dtype=np.int64), np.ones(n, dtype=np.bool_)
    if column is not None:
        day, null, wrong = _day_numbers(column, rules, _parse_day)
        _note(fault, wrong, faults.BAD_DAY)
    if moments is not None:
        if not (_is_bytes(moments.type) or pa.types.is_timestamp(moments.type)):
            raise UnsupportedMediaError("Expected timestamps in the column ts, found others.")
        second, without, wrong = _day_numbers(moments, rules, _parse_moment)
        _note(fault, wrong, faults.BAD_TS)
        day, null = np.where(null, second, day), null & without
    _note(fault, null, faults.NO_DAY)
    _note(fault, day > day_number(rules.last_day), faults.FUTURE_DAY)
    _note(fault, day < day_number(faults.FIRST_DAY), faults.BAD_DAY)
    _note(fault, day < day_number(rules.first_day), faults.TOO_OLD)
    return day.astype(np.int32)


_Numbers = tuple[NDArray[np.int64], NDArray[np.bool_], NDArray[np.bool_]]


def _day_numbers(column: Any, rules: Rules, parse: Callable[[str, Rules], dt.date]) -> _Numbers:
    """Day numbers, which rows are null, and which cannot be read."""
    kind = column.type
    null = column.is_null().to_numpy(zero_copy_only=False)
    if pa.types.is_date32(kind):
        return _integers(column.cast(pa.int32())), null, np.zeros_like(null)
    if pa.types.is_date64(kind):
        # Milliseconds, and not every writer has them at midnight.
        days = _integers(column.cast(pa.int64())) // (_SECONDS_PER_DAY * _UNITS_PER_SECOND["ms"])
        return days, null, np.zeros_like(null)
    if pa.types.is_timestamp(kind):
        seconds = _integers(column.cast(pa.int64())) // _UNITS_PER_SECOND[kind.unit]
        if kind.tz is None:
            return seconds // _SECONDS_PER_DAY, null, np.zeros_like(null)
        first, last = day_number(faults.FIRST_DAY) - 2, day_number(_LAST_DAY)
        inside = np.clip(seconds, first * _SECONDS_PER_DAY, last * _SECONDS_PER_DAY)
        return local_days(inside, rules.zone), null, np.zeros_like(null)
    place, _, distinct = _by_distinct(_bytes(column, "day"))
    found = [_number(one, rules, parse) for one in distinct.to_pylist()]
    wrong = ~null & _spread([one is None for one in found], place, np.bool_)
    return _spread([one or 0 for one in found], place, np.int64), null, wrong


def _integers(column: Any) -> NDArray[np.int64]:
    """An integer column, 0 where null."""
    values = column.fill_null(0).to_numpy(zero_copy_only=False)
    integers: NDArray[np.int64] = values.astype(np.int64)
    return integers


def _number(content: bytes, rules: Rules, parse: Callable[[str, Rules], dt.date]) -> int | None:
    """The day number in a text; what JSON would not take is not taken here."""
    try:
        return day_number(parse(content.decode(), rules))
    except (msgspec.ValidationError, UnicodeDecodeError):
        return None


def _parse_day(text: str, rules: Rules) -> dt.date:
    return msgspec.convert(text, dt.date)


def _parse_moment(text: str, rules: Rules) -> dt.date:
    return rules.day_of(moment_of(text))


def _event_ids(column: Any, fault: NDArray[np.int8]) -> Any:
    if column is None or column.null_count == len(column):
        return None
    values = _bytes(column, "event_id")
    present = ~values.is_null().to_numpy(zero_copy_only=False)
    sound = np.ones(len(values), dtype=np.bool_)
    sound[present] = _sound(values.drop_null(), EVENT_ID_BYTES_MAX)
    _note(fault, ~sound, faults.BAD_EVENT_ID)
    return values


def _labels(column: Any, fault: NDArray[np.int8]) -> RawLabels:
    place, null, distinct = _by_distinct(_bytes(column, "of a dimension"))
    sound = _sound(distinct, LABEL_BYTES_MAX)
    _note(fault, ~null & ~_spread(sound, place, np.bool_), faults.BAD_LABEL)
    values = tuple(one.decode() for one in distinct.filter(pa.array(sound)).to_pylist())
    codes = _spread(np.where(sound, np.cumsum(sound) - 1, -1), place, np.int32)
    codes[null] = -1
    return RawLabels(values, codes)
