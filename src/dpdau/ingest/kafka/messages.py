"""What is in a message: one event, or several in an envelope or an array; and what is not.

A message with anything in it that cannot be taken is poison: it goes elsewhere as it came, with the
reason, and what is good in it is taken.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, Protocol

from dpdau.domain import BATCH_ROWS_MAX
from dpdau.errors import InvalidEventError, TooLargeError
from dpdau.ingest import rules as faults
from dpdau.ingest.bodies import checked, decode_body
from dpdau.ingest.decoded import DecodedTable
from dpdau.ingest.event import Decoded, Form, items_of
from dpdau.ingest.rules import Fault, Rejection, Rules

__all__ = ["NOTHING", "Batch", "Message", "Poison", "read"]

NOTHING: Final = Decoded((), (), 0)
"""No events, for what is stored without any."""
INDEXES_MAX: Final = 100
"""So many places of bad events are named of one message."""
_TOO_LARGE: Final = "too_large"


class Message(Protocol):
    """One message of a topic, as the library gives it."""

    def value(self, payload: Any = None, /) -> bytes | None:
        """What was sent."""

    def key(self, payload: Any = None, /) -> bytes | None:
        """The key that chose its partition."""

    def topic(self) -> str | None:
        """Where it lies."""

    def partition(self) -> int | None:
        """In which part."""

    def offset(self) -> int | None:
        """At which place."""

    def timestamp(self) -> tuple[int, int]:
        """Which kind of time, and the time in milliseconds."""


@dataclass(frozen=True, slots=True)
class Poison:
    """A message that cannot be taken as a whole.

    Attributes:
        message: As it came.
        code: The reason of the first event in it that was not taken.
        indexes: The places of those events in the message.
    """

    message: Message
    code: str
    indexes: tuple[int, ...] = (0,)

    def __repr__(self) -> str:
        return f"Poison(code={self.code!r})"


@dataclass(frozen=True, slots=True)
class Batch:
    """What some messages hold, in their order, and how far they go.

    Attributes:
        decoded: The events, and what was not taken of them.
        poison: The messages that have to go elsewhere.
        ends: Partition → the offset of its last message.
    """

    decoded: Decoded | DecodedTable
    poison: Sequence[Poison]
    ends: Mapping[int, int]


def read(messages: Sequence[Message], *, rules: Rules) -> list[Batch]:
    """Reads messages, as one batch where that is not too large for the store.

    Guarantee: the order of the events is that of the messages. A message never costs another one.
    """
    assert messages
    try:
        decoded, poison = _decoded(messages, rules)
    except TooLargeError:
        if len(messages) > 1:
            half = len(messages) // 2
            return read(messages[:half], rules=rules) + read(messages[half:], rules=rules)
        fault = Fault(faults.RejectionCode.BAD_JSON, None, "Expected a smaller message.")
        decoded = Decoded((), (Rejection.of(0, fault),), 1)
        poison = [Poison(messages[0], _TOO_LARGE)]
    ends: dict[int, int] = {}
    for one in messages:
        partition, offset = one.partition(), one.offset()
        assert partition is not None and offset is not None, "a message has its place"
        ends[partition] = offset
    return [Batch(decoded, poison, ends)]


def _decoded(
    messages: Sequence[Message], rules: Rules
) -> tuple[Decoded | DecodedTable, list[Poison]]:
    """The events of messages, and the messages with something bad in them."""
    values = [one.value() for one in messages]
    plain = _plain(values, rules)
    if plain is not None:
        return plain, []
    items: list[Any] = []
    owners: list[tuple[int, int]] = []
    for number, value in enumerate(values):
        found = _items(value, rules)
        items += found
        owners += [(number, place) for place in range(len(found))]
    decoded = _small_enough(checked(items, rules))
    codes: dict[int, str] = {}
    places: dict[int, list[int]] = {}
    for one in decoded.rejected:
        number, place = owners[one.index]
        codes.setdefault(number, one.code.value)
        places.setdefault(number, []).append(place)
    poison = [
        Poison(messages[number], code, tuple(places[number][:INDEXES_MAX]))
        for number, code in codes.items()
    ]
    return decoded, poison


def _plain(values: Sequence[bytes | None], rules: Rules) -> Decoded | DecodedTable | None:
    """The events of messages that are one good event each; None where there are others."""
    lines = [value for value in values if value is not None and value[:1] == b"{"]
    body = b"\n".join(lines)
    if len(lines) < len(values) or body.count(b"\n") != len(lines) - 1:
        return None
    decoded = decode_body(body, Form.NDJSON, rules=rules, unpacked_bytes_max=len(body))
    if decoded.rejected:
        return None
    assert decoded.received == len(values), "each line is an event"
    return _small_enough(decoded)


def _items(value: bytes | None, rules: Rules) -> list[Any]:
    """The items of one message."""
    if value is None:
        return [faults.NOT_AN_OBJECT]
    try:
        if value.lstrip()[:1] == b"[":
            return items_of(value, Form.ARRAY, rules=rules)
        found = items_of(b"[%b]" % value, Form.ARRAY, rules=rules)
    except InvalidEventError:
        return [faults.NOT_AN_OBJECT]
    if len(found) != 1:
        return [faults.NOT_AN_OBJECT]
    if isinstance(found[0], Fault):
        try:
            return items_of(value, Form.ENVELOPE, rules=rules)
        except InvalidEventError:
            return found
    return found


def _small_enough(decoded: Decoded | DecodedTable) -> Decoded | DecodedTable:
    """The same, unless the store would refuse it.

    Raises:
        TooLargeError: It touches too many (user, day) pairs.
    """
    if isinstance(decoded, Decoded):
        rows = sum(len(one.days) or 1 for one in decoded.events)
        if rows > BATCH_ROWS_MAX:
            raise TooLargeError(f"Expected at most {BATCH_ROWS_MAX} (user, day) pairs.")
    return decoded
