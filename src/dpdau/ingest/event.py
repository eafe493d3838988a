"""Door 1: raw events, and the reader of their JSON forms.

One bad item never costs the rest: the good path decodes a whole body into typed structs at once,
and only when that fails is it read item by item to find the items at fault. Nothing is taken from
one item to read another by: whether an item has an `op` is its own matter.

A `ts` without an offset is read in the zone of the rules (`TIMEZONE`); its second 60 counts as 59.
Where `day` and `ts` are both given, `day` counts. A user id is taken byte for byte: nothing is
trimmed or normalized.
"""

import datetime as dt
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from functools import lru_cache, partial
from typing import Any, Final, TypeVar

import msgspec

from dpdau.domain import Op
from dpdau.errors import InvalidEventError, InvalidSettingError, TooLargeError
from dpdau.ingest import rules as faults
from dpdau.ingest.items import elements, members
from dpdau.ingest.rules import (
    EVENT_ID_BYTES_MAX,
    LABEL_BYTES_MAX,
    REMOVED_DAYS_MAX,
    USER_ID_BYTES_MAX,
    Fault,
    Fields,
    Rejection,
    RejectionCode,
    Rules,
    check_user_id,
    is_text,
)

__all__ = [
    "Decoded",
    "Fields",
    "Form",
    "RawEvent",
    "Rejection",
    "RejectionCode",
    "Rules",
    "check_user_id",
    "decode",
    "decode_objects",
    "items_of",
    "moment_of",
    "taken",
    "wire_of",
]

EVENTS_MAX: Final = 200_000
BATCH_ID_LENGTH_MAX: Final = 256
"""Of a sender's id of a batch, at every front."""

_T = TypeVar("_T")
_NO_LABELS: Final[Mapping[str, str]] = {}
_BYTE_ORDER_MARK: Final = b"\xef\xbb\xbf"
_LEAP_SECOND: Final = re.compile(r"\A(\d{4}-\d\d-\d\d[Tt ]\d\d:\d\d:)60")


class Form(StrEnum):
    """How a body holds its events."""

    ENVELOPE = "envelope"
    """`{"event": {...}}` or `{"events": [...]}`."""
    ARRAY = "array"
    """A JSON array of events."""
    NDJSON = "ndjson"
    """One event on each line; blank lines do not count."""


class _Private(msgspec.Struct, gc=False):
    """A struct with a user id in it, which neither repr nor a traceback with locals shows."""

    def __repr__(self) -> str:
        return f"{type(self).__name__}(<private>)"

    def __rich_repr__(self) -> Any:
        yield "<private>"


class RawEvent(msgspec.Struct, frozen=True, gc=False):
    """Door 1: one event as it was sent, checked. Made only by the readers of this room.

    Args:
        user_id: 1..256 bytes of UTF-8.
        op: What it does.
        day: The day; where a `-` names only `days`, the first of them.
        event_id: The sender's idempotency key, if any.
        days: The distinct days of a `-` that names several, in their order; else empty.
        labels: Declared dimension → value.
    """

    user_id: str
    op: Op
    day: dt.date
    event_id: str | None = None
    days: tuple[dt.date, ...] = ()
    labels: Mapping[str, str] = msgspec.field(default_factory=dict)

    def __repr__(self) -> str:
        return f"RawEvent(user_id=<private>, op={self.op.value!r}, day={self.day.isoformat()})"

    def __rich_repr__(self) -> Any:
        yield repr(self)


@dataclass(frozen=True, slots=True)
class Decoded:
    """The events of a body in arrival order, and what was not taken: received = both together."""

    events: Sequence[RawEvent]
    rejected: Sequence[Rejection]
    received: int

    def __post_init__(self) -> None:
        assert self.received == len(self.events) + len(self.rejected)

    def __repr__(self) -> str:
        return f"Decoded(received={self.received}, rejected={len(self.rejected)})"


def decode(body: bytes, form: Form, *, rules: Rules) -> Decoded:
    """Reads the events of a body.

    Guarantee: each item is either an event or has one `Rejection`; the order is kept; no message
    repeats anything of the body. Faults of shape (JSON, missing fields, types) are reported before
    faults of value, and within each in the order user_id, op, day, event_id, metadata.

    Raises:
        InvalidSettingError: The names of the fields in the rules cannot be those of JSON.
        InvalidEventError: The body as a whole is not of the form, so it has no items.
        TooLargeError: There are more than `EVENTS_MAX` items, or lines with the blank ones.
    """
    return taken(items_of(body, form, rules=rules), rules)


def items_of(body: bytes, form: Form, *, rules: Rules) -> list[Any]:
    """The items of a body in their order: a wire struct each, or the fault of its shape.

    A wire struct has the fields of `RawEvent` as they were sent, `ts` beside `day`, and `metadata`
    with `days` and the dimensions as d0, d1, … in the order of `rules.dimensions`.

    Raises: as `decode`.
    """
    reader = _reader(rules.dimensions, rules.fields, rules.op_default)
    body = body.removeprefix(_BYTE_ORDER_MARK)
    if form is Form.ENVELOPE:
        return _envelope_items(body, reader)
    if form is Form.ARRAY:
        return _array_items(body, reader)
    return _line_items(body, reader)


def decode_objects(objects: Iterable[object], *, rules: Rules) -> Decoded:
    """Reads events that are Python mappings already, as a caller in this process has them.

    Guarantee: as `decode`, for the same items in JSON.
    """
    reader = _reader(rules.dimensions, rules.fields, rules.op_default)
    return taken([_from_object(one, reader) for one in objects], rules)


def moment_of(text: str) -> dt.datetime:
    """A date and time in the form of RFC 3339; a leap second is the second before it.

    Raises:
        msgspec.ValidationError: It is none.
    """
    return msgspec.convert(_LEAP_SECOND.sub(r"\g<1>59", text, count=1), dt.datetime)


def raw_events(rows: Iterable[tuple[Any, ...]]) -> list[RawEvent]:
    """Events from the values of their fields, which another reader of this room has checked."""
    return [RawEvent(*row) for row in rows]


def wire_of(event: RawEvent) -> dict[str, object]:
    """An event as a sender writes it; its days are left to the encoder."""
    body: dict[str, object] = {"user_id": event.user_id, "op": event.op, "day": event.day}
    if event.event_id is not None:
        body["event_id"] = event.event_id
    if event.labels or event.days:
        body["metadata"] = {**event.labels, **({"days": event.days} if event.days else {})}
    return body


class _Reader:
    """The typed decoders for one set of dimensions and field names.

    The wire type has the fields of `types` under their names in the source; `metadata` has the
    declared dimensions as d0, d1, … and `days`, which only a `-` is asked for; all else is skipped
    without being built.
    """

    def __init__(self, dimensions: tuple[str, ...], fields: Fields, default: Op | None) -> None:
        names = {f"d{place}": name for place, name in enumerate(dimensions)}
        self.metadata = msgspec.defstruct(
            "Metadata",
            [("days", Any, None), *((one, str | None, None) for one in names)],
            bases=(_Private,),
            rename=names,
            gc=False,
        )
        self.types: dict[str, Any] = {
            "user_id": str,
            "op": Op if default is None else Op | None,
            "day": dt.date | None,
            "ts": dt.datetime | None,
            "event_id": str | None,
            "metadata": self.metadata | None,
        }
        required = {"user_id"} if default is not None else {"user_id", "op"}
        self.names = {name: getattr(fields, name, name) for name in self.types}
        self.wire = msgspec.defstruct(
            "Wire",
            [
                (name, kind) if name in required else (name, kind, None)
                for name, kind in self.types.items()
            ],
            bases=(_Private,),
            rename=self.names,
            gc=False,
        )
        envelope = msgspec.defstruct(
            "Envelope",
            [
                ("event", self.wire | msgspec.UnsetType, msgspec.UNSET),
                ("events", list[self.wire] | msgspec.UnsetType, msgspec.UNSET),  # type: ignore[name-defined]
            ],
            bases=(_Private,),
        )
        self.one: Callable[[bytes], Any] = msgspec.json.Decoder(self.wire).decode
        self.lines: Callable[[bytes], Any] = msgspec.json.Decoder(self.wire).decode_lines
        self.array: Callable[[bytes], Any] = msgspec.json.Decoder(list[self.wire]).decode  # type: ignore[name-defined]
        self.envelope: Callable[[bytes], Any] = msgspec.json.Decoder(envelope).decode
        self.labels = tuple(names.items())


@lru_cache(maxsize=16)
def _reader(dimensions: tuple[str, ...], fields: Fields, default: Op | None) -> _Reader:
    try:
        return _Reader(dimensions, fields, default)
    except ValueError:
        raise InvalidSettingError(
            "Expected a name of its own for each field of an event, none of them metadata or with"
            " a quote, a backslash or a control character in it, found others."
        ) from None


_ANYTHING: Final = msgspec.json.Decoder()
_DATES: Final[Callable[[Any], list[dt.date]]] = partial(msgspec.convert, type=list[dt.date])


def _attempt(decoder: Callable[[Any], _T], content: Any) -> _T | None:
    """What a decoder makes of content, or None.

    The decoder's error ends here: it can carry the content, which holds user ids.
    """
    try:
        return decoder(content)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return None


def _envelope_items(body: bytes, reader: _Reader) -> list[Any]:
    envelope: Any = _attempt(reader.envelope, body)
    unset = msgspec.UNSET
    if envelope is not None and (envelope.event is unset) != (envelope.events is unset):
        return [envelope.event] if envelope.events is unset else list(envelope.events)
    found = members(body, EVENTS_MAX) or {}
    raw = [found["event"]] if "event" in found else None
    if "events" in found:
        raw = elements(found["events"], EVENTS_MAX) if raw is None else None
    if raw is None:
        raise InvalidEventError('Expected {"event": {...}} or {"events": [...]} as the body.')
    return [_from_json(one, reader) for one in raw]


def _array_items(body: bytes, reader: _Reader) -> list[Any]:
    items = _attempt(reader.array, body)
    if items is not None:
        return list(items)
    raw = elements(body, EVENTS_MAX)
    if raw is None:
        raise InvalidEventError("Expected a JSON array of events as the body.")
    return [_from_json(one, reader) for one in raw]


def _line_items(body: bytes, reader: _Reader) -> list[Any]:
    if body.count(b"\n", 0, -1) >= EVENTS_MAX:
        raise TooLargeError(f"Expected at most {EVENTS_MAX} lines, found more.")
    items: list[Any] | None = _attempt(reader.lines, body)
    # Between two items, and nowhere else, is the end of a line: each item is one line.
    ends = body.count(b"}\n{")
    if items and len(items) == ends + 1 and body.count(b"\n", 0, -1) == ends:
        return items
    # Files that were put together may have a mark before any line.
    unmarked = (line.removeprefix(_BYTE_ORDER_MARK) for line in body.split(b"\n"))
    lines = [line for line in unmarked if line and not line.isspace()]
    one = reader.one
    try:
        return [one(line) for line in lines]
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        pass
    return [_from_json(line, reader) for line in lines]


def _from_json(content: bytes, reader: _Reader) -> Any:
    """A wire struct, or the fault of an item."""
    wire = _attempt(reader.one, content)
    return _mended(_attempt(_ANYTHING.decode, content), reader) if wire is None else wire


def _from_object(item: object, reader: _Reader) -> Any:
    """A wire struct, or the fault of a mapping."""
    wire: Any = _attempt(partial(msgspec.convert, type=reader.wire), item)
    return _mended(item, reader) if wire is None else wire


def _mended(item: object, reader: _Reader) -> Any:
    """An item that is no wire struct once more, where a leap second may be why; else its fault."""
    ts = item.get(reader.names["ts"]) if isinstance(item, Mapping) else None
    if isinstance(ts, str) and _LEAP_SECOND.match(ts):
        moment = _attempt(moment_of, ts)
        changed = {**item, reader.names["ts"]: moment}  # type: ignore[dict-item]
        wire: Any = _attempt(partial(msgspec.convert, type=reader.wire), changed)
        if moment is not None and wire is not None:
            return wire
    return _shape_fault(item, reader)


_SHAPES: Final = {
    "user_id": (faults.NO_USER_ID, faults.BAD_USER_ID),
    "op": (faults.NO_OP, faults.UNKNOWN_OP),
    "day": (None, faults.BAD_DAY),
    "ts": (None, faults.BAD_TS),
    "event_id": (None, faults.BAD_EVENT_ID),
    "metadata": (None, faults.BAD_METADATA),
}
_TEXTS: Final = frozenset({"user_id", "op", "event_id"})
_OPS: Final = frozenset(Op)


def _shape_fault(item: object, reader: _Reader) -> Fault:
    """Which field of an item does not have its type."""
    if not isinstance(item, Mapping):
        return faults.NOT_AN_OBJECT
    for name, (missing, wrong) in _SHAPES.items():
        value, kind = item.get(reader.names[name]), reader.types[name]
        if value is not None:
            # The commonest types first: an exception for each item would be slow.
            if name in _TEXTS:
                fits = isinstance(value, str) and (name != "op" or value in _OPS)
            else:
                fits = _attempt(partial(msgspec.convert, type=kind), value) is not None
            if not fits:
                return wrong
        elif missing is not None and not (name == "op" and reader.types[name] != Op):
            return missing
    return faults.NOT_AN_OBJECT


def taken(items: list[Any], rules: Rules) -> Decoded:
    """Checks the values of wire structs and keeps the faults of the others."""
    if len(items) > EVENTS_MAX:
        raise TooLargeError(f"Expected at most {EVENTS_MAX} events, found {len(items)}.")
    take = _Taker(rules)
    events: list[RawEvent] = []
    rejected: list[Rejection] = []
    for index, item in enumerate(items):
        taken = item if isinstance(item, Fault) else take(item)
        if isinstance(taken, Fault):
            rejected.append(Rejection.of(index, taken))
        else:
            events.append(taken)
    return Decoded(events, rejected, len(items))


class _Taker:
    """Turns wire structs into raw events under one set of rules."""

    def __init__(self, rules: Rules) -> None:
        self._rules = rules
        self._first_day, self._last_day = rules.first_day, rules.last_day
        self._labels = _reader(rules.dimensions, rules.fields, rules.op_default).labels
        self._op_default = rules.op_default

    def __call__(self, wire: Any) -> RawEvent | Fault:
        user_id = wire.user_id
        if not is_text(user_id, USER_ID_BYTES_MAX):
            return faults.BAD_USER_ID
        op = wire.op or self._op_default
        assert op is not None, "the wire type requires op where there is no default"
        metadata = wire.metadata
        removed = None if metadata is None or op is Op.ADD else metadata.days
        days: Any = () if removed is None else _attempt(_DATES, removed)
        if days is None:
            return faults.BAD_DAYS
        day: dt.date | Fault = wire.day or self._day(wire, days)
        if isinstance(day, Fault):
            return day
        if not self._first_day <= day <= self._last_day:
            return self._day_fault(day)
        event_id = wire.event_id
        if event_id is not None and not is_text(event_id, EVENT_ID_BYTES_MAX):
            return faults.BAD_EVENT_ID
        if metadata is None:
            return RawEvent(user_id, op, day, event_id, (), _NO_LABELS)
        if removed is not None:
            days = self._days(days)
            if isinstance(days, Fault):
                return days
        labels = {}
        for attribute, name in self._labels:
            value = getattr(metadata, attribute)
            if value is not None:
                if not is_text(value, LABEL_BYTES_MAX):
                    return faults.BAD_LABEL
                labels[name] = value
        return RawEvent(user_id, op, day, event_id, days, labels)

    def _day(self, wire: Any, days: Sequence[dt.date]) -> dt.date | Fault:
        """The day of an item without `day`."""
        if wire.ts is not None:
            return self._rules.day_of(wire.ts)
        return days[0] if days else faults.NO_DAY

    def _days(self, days: list[dt.date]) -> tuple[dt.date, ...] | Fault:
        """The distinct days of a `-` that names several."""
        if not 1 <= len(days) <= REMOVED_DAYS_MAX:
            return faults.BAD_DAYS
        for day in days:
            if not self._first_day <= day <= self._last_day:
                return self._day_fault(day)._replace(field="metadata.days")
        return tuple(dict.fromkeys(days))

    def _day_fault(self, day: dt.date) -> Fault:
        fault = self._rules.day_fault(day)
        assert fault is not None, "called for a day outside first_day..last_day"
        return fault
