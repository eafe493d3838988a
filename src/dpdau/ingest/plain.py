"""JSON events in columns where a body is plain: all items have the shape of the first one.

Programs write the same keys, spaces and commas around every event, so the place of each quote says
what is what. The first item is read as a pattern, all that stands between the values of the others
is compared with it, and the values become Arrow columns without a Python object for any of them. A
body with anything else in it is left to `ingest.event`.

| plain | not plain |
|---|---|
| the same keys in the same order, all values strings | an escape, a number, a null, a key twice |
| `metadata` with strings in it | `metadata.days`, an object in another field |
| blank lines and spaces around the whole | blank lines between items |
"""

import re
from dataclasses import dataclass, replace
from typing import Any, Final, NamedTuple, Self

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from dpdau.ingest import event as by_item
from dpdau.ingest.columns import Columns, decode_columns
from dpdau.ingest.decoded import DecodedTable
from dpdau.ingest.event import Form
from dpdau.ingest.rules import Rejection, Rules

__all__ = ["decode_large", "decode_plain"]

REJECTED_MAX: Final = 1_000
"""With more rejections than this it is cheaper to read all items one by one."""
_BLOCK_BYTES: Final = 1 << 18
_WORD_BYTES: Final = 8
_FIRST_PRINTABLE: Final = 0x20
_BYTE_ORDER_MARK: Final = b"\xef\xbb\xbf"

_STRING: Final = rb'"[^"\\\x00-\x1f]*+"'
_SPACE: Final = rb"[ \t\r]*+"
_WIDE_SPACE: Final = rb"[ \t\r\n]*+"
_METADATA: Final = b"metadata"
_ROLES: Final = ("user_id", "op", "day", "ts", "event_id")
_TOKEN: Final = re.compile(rb'"([^"]*)"|[{}]')


def _object(value: bytes) -> bytes:
    """The pattern of an object with values of a pattern; every repetition is possessive."""
    member = _STRING + _SPACE + b":" + _SPACE + b"(?:" + value + b")" + _SPACE
    following = b"(?:," + _SPACE + member + b")*+"
    return rb"\{" + _SPACE + b"(?:" + member + following + b")?+" + rb"\}"


_ITEM: Final = re.compile(_object(_STRING + b"|" + _object(_STRING)))


class _Around(NamedTuple):
    """What may stand before the items of a form, between two of them, and behind the last."""

    before: re.Pattern[bytes]
    between: re.Pattern[bytes]
    behind: re.Pattern[bytes]


_AROUND: Final = {
    Form.NDJSON: _Around(
        re.compile(_WIDE_SPACE), re.compile(_SPACE + rb"\n" + _SPACE), re.compile(_WIDE_SPACE)
    ),
    Form.ARRAY: _Around(
        re.compile(_WIDE_SPACE + rb"\[" + _WIDE_SPACE),
        re.compile(_WIDE_SPACE + b"," + _WIDE_SPACE),
        re.compile(_WIDE_SPACE + rb"\]" + _WIDE_SPACE),
    ),
}


def decode_large(body: bytes, form: Form, *, rules: Rules) -> DecodedTable | None:
    """The events of a large plain body within the limits of a request; None for any other body.

    Guarantee: what is given is what `event.decode` gives.
    """
    if form not in _AROUND:
        return None
    # Blank lines count too.
    if form is Form.NDJSON and body.count(b"\n", 0, -1) >= by_item.EVENTS_MAX:
        return None
    table = decode_plain(body, form, rules=rules)
    return table if table is not None and table.received <= by_item.EVENTS_MAX else None


def decode_plain(body: bytes, form: Form, *, rules: Rules) -> DecodedTable | None:
    """The events of a plain body of lines or of an array; None where it is not plain.

    Guarantee: what is given has the events and rejections of `event.decode`, but for its limit on
    the number of items.
    """
    items = _Items.of(body.removeprefix(_BYTE_ORDER_MARK), form, rules)
    if items is None:
        return None
    places = np.arange(len(items), dtype=np.int64)
    table = decode_columns(items.columns(), rules=rules, row_index=places)
    return _reworded(table, items, rules) if table.rejected else table


def _reworded(table: DecodedTable, items: "_Items", rules: Rules) -> DecodedTable | None:
    """The same with the rejections that the items have by themselves."""
    if len(table.rejected) > REJECTED_MAX:
        return None
    rejected = []
    for place in [one.index for one in table.rejected]:
        alone = by_item.decode(items.item(place), Form.NDJSON, rules=rules).rejected
        if len(alone) != 1:
            return None
        rejected.append(Rejection(place, alone[0].code, alone[0].field, alone[0].message))
    return replace(table, rejected=rejected)


@dataclass(frozen=True, slots=True)
class _Shape:
    """An item without its values.

    Attributes:
        quotes: How many quotes it has.
        opening: Which of them open a value.
        roles: What each value is: a field of `Columns`, a dimension, or neither.
        texts: Before the first value, between each two, and behind the last, with their quotes.
    """

    quotes: int
    opening: tuple[int, ...]
    roles: tuple[tuple[str, str] | None, ...]
    texts: tuple[bytes, ...]

    def __repr__(self) -> str:
        return f"_Shape(quotes={self.quotes}, texts=<private>)"

    @classmethod
    def of(cls, item: bytes, rules: Rules) -> Self | None:
        """The shape of an item that the pattern matched; None where it is not plain."""
        fields = {_name(getattr(rules.fields, role)): ("field", role) for role in _ROLES}
        labels = {_name(name): ("label", name) for name in rules.dimensions}
        if len(fields) < len(_ROLES) or _METADATA in fields:
            return None
        quotes, done = 0, 0
        parent: bytes | None = None
        key: bytes | None = None
        opening, roles, texts = list[int](), list[tuple[str, str] | None](), list[bytes]()
        seen: set[tuple[bytes | None, bytes]] = {(_METADATA, b"days")}
        for token in _TOKEN.finditer(item):
            if token[0] == b"}":
                parent = None
            elif token[0] == b"{":
                if key not in {None, _METADATA}:
                    return None
                parent, key = key, None
            elif key is None:
                key = token[1]
                if (parent, key) in seen:
                    return None
                seen.add((parent, key))
                quotes += 2
            else:
                if (parent, key) == (None, _METADATA):
                    return None
                opening.append(quotes)
                roles.append((fields if parent is None else labels).get(key))
                texts.append(item[done : token.start() + 1])
                key, done = None, token.end() - 1
                quotes += 2
        known = {name for kind, name in filter(None, roles) if kind == "field"}
        if "user_id" not in known or not known & {"day", "ts"}:
            return None
        if "op" not in known and rules.op_default is None:
            return None
        return cls(quotes, tuple(opening), tuple(roles), (*texts, item[done:]))


@dataclass(frozen=True, slots=True)
class _Items:
    """The items of a plain body.

    Shapes and units:
        quotes: (quotes of an item, n) where the quotes lie in the body.
    """

    body: bytes
    shape: _Shape
    quotes: NDArray[np.intp]

    def __repr__(self) -> str:
        return f"_Items(n={len(self)}, body=<private>)"

    def __len__(self) -> int:
        return int(self.quotes.shape[1])

    @classmethod
    def of(cls, body: bytes, form: Form, rules: Rules) -> Self | None:
        """The items of a body, or None where it is not plain.

        Guarantee: the body is a beginning, the items, one joint between each two, and an end, where
        every item is the first one with other values. The values are UTF-8 without quotes, escapes
        and control characters. So each item is sound JSON, with the meaning of the first one.
        """
        before, between, behind = _AROUND[form]
        lead = before.match(body)
        first = None if lead is None else _ITEM.match(body, lead.end())
        shape = None if first is None else _Shape.of(first[0], rules)
        if lead is None or first is None or shape is None:
            return None
        if b"\\" in body or not _is_utf8(body):
            return None
        # Room for a word that is read at the last byte.
        content = np.frombuffer(body + bytes(_WORD_BYTES), np.uint8)
        quotes, controls = _scan(content)
        if quotes.size % shape.quotes:
            return None
        items = cls(body, shape, np.ascontiguousarray(quotes.reshape(-1, shape.quotes).T))
        n = len(items)
        second = items.start(1) if n > 1 else first.end()
        joint, rest = body[first.end() : second], body[items.end(-1) :]
        if n > 1 and between.fullmatch(joint) is None:
            return None
        # The padding is made of control characters.
        around = _controls(lead[0]) + _controls(rest) + _WORD_BYTES
        inside = _controls(first[0]) * n + _controls(joint) * (n - 1)
        sound = controls == around + inside and behind.fullmatch(rest) is not None
        # Behind the last item there is no joint that would show how it ends.
        sound = sound and items.item(-1).endswith(shape.texts[-1])
        return items if sound and items._are_alike(content, joint) else None

    def start(self, item: int) -> int:
        """Where an item begins."""
        return int(self.quotes[self.shape.opening[0], item]) + 1 - len(self.shape.texts[0])

    def end(self, item: int) -> int:
        """Where an item ends."""
        return int(self.quotes[self.shape.opening[-1] + 1, item]) + len(self.shape.texts[-1])

    def item(self, item: int) -> bytes:
        """One item as it stands in the body."""
        return self.body[self.start(item) : self.end(item)]

    def columns(self) -> Columns:
        """The values, each copied out of the body once."""
        fields: dict[str, Any] = {}
        labels: dict[str, Any] = {}
        for place, role in zip(self.shape.opening, self.shape.roles, strict=True):
            if role is not None:
                kind, name = role
                (fields if kind == "field" else labels)[name] = self._column(place)
        return Columns(**fields, labels=labels)

    def _column(self, place: int) -> Any:
        """The strings that begin at one of the quotes of each item."""
        n = len(self)
        # Every second value of this array is a string, the others are what lies between them.
        ends = np.empty(2 * n, dtype=np.int64)
        ends[0::2] = self.quotes[place] + 1
        ends[1::2] = self.quotes[place + 1]
        buffers = [None, pa.py_buffer(ends), pa.py_buffer(self.body)]
        both = pa.Array.from_buffers(pa.large_binary(), 2 * n - 1, buffers)
        return both.take(pa.array(np.arange(0, 2 * n - 1, 2)))

    def _are_alike(self, content: NDArray[np.uint8], joint: bytes) -> bool:
        """Whether the same texts stand between the values of all items."""
        shape, quotes = self.shape, self.quotes
        texts = [*shape.texts[1:-1], shape.texts[-1] + joint + shape.texts[0]]
        starts = [quotes[place + 1] for place in shape.opening]
        ends = [*(quotes[place] for place in shape.opening[1:]), quotes[shape.opening[0], 1:]]
        starts[-1] = starts[-1][:-1]
        return all(
            bool((start + (len(text) - 1) == end).all()) and _stands_at(content, start, text)
            for start, end, text in zip(starts, ends, texts, strict=True)
        )


def _name(text: str) -> bytes:
    """A name as it stands in a body; one that is no UTF-8 stands in none."""
    return text.encode(errors="surrogatepass")


def _stands_at(content: NDArray[np.uint8], start: NDArray[np.intp], text: bytes) -> bool:
    """Whether a text stands at all of some places."""
    words = np.ndarray((content.size - _WORD_BYTES + 1,), "<u8", content, strides=(1,))
    for done in range(0, len(text), _WORD_BYTES):
        wanted = text[done : done + _WORD_BYTES]
        here = words[start + done]
        if len(wanted) < _WORD_BYTES:
            here &= np.uint64((1 << 8 * len(wanted)) - 1)
        if not (here == np.uint64(int.from_bytes(wanted, "little"))).all():
            return False
    return True


def _scan(content: NDArray[np.uint8]) -> tuple[NDArray[np.intp], int]:
    """Where the quotes are, and the number of control characters; in blocks that a cache holds."""
    quotes, controls = [], 0
    for start in range(0, content.size, _BLOCK_BYTES):
        block = content[start : start + _BLOCK_BYTES]
        quotes.append(np.flatnonzero(block == ord('"')) + start)
        controls += int(np.count_nonzero(block < _FIRST_PRINTABLE))
    return np.concatenate(quotes), controls


def _controls(text: bytes) -> int:
    """How many control characters a text has."""
    return sum(byte < _FIRST_PRINTABLE for byte in text)


def _is_utf8(body: bytes) -> bool:
    if body.isascii():
        return True
    try:
        body.decode()
    except UnicodeDecodeError:
        return False
    return True
