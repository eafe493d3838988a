"""Messages as events: every shape, in order, and what cannot be taken."""

import datetime as dt
import json

import pytest

from dpdau.ingest.decoded import DecodedTable
from dpdau.ingest.kafka import messages
from dpdau.ingest.kafka.messages import read
from dpdau.ingest.rules import Rules

RULES = Rules(today=dt.date(2026, 3, 15))


class Message:
    """One message as the library gives it."""

    def __init__(self, value: bytes | None, offset: int = 0, partition: int = 0) -> None:
        self._value, self._offset, self._partition = value, offset, partition

    def value(self) -> bytes | None:
        return self._value

    def key(self) -> bytes | None:
        return b"k"

    def topic(self) -> str:
        return "t"

    def partition(self) -> int:
        return self._partition

    def offset(self) -> int:
        return self._offset

    def timestamp(self) -> tuple[int, int]:
        return 1, 0


def event(user: str, op: str = "+", **more: object) -> bytes:
    """One event."""
    return json.dumps({"user_id": user, "op": op, "day": "2026-03-10", **more}).encode()


def users_of(values: list[bytes | None]) -> list[str]:
    """The users of the events of some messages, which make one batch."""
    (batch,) = read([Message(one, place) for place, one in enumerate(values)], rules=RULES)
    return [one.user_id for one in batch.decoded.events]


def test_many_plain_events_become_columns() -> None:
    """Messages of one good event each are read at once, and the last offsets are kept."""
    some = [Message(event(f"u{place}"), place, place % 2) for place in range(100)]

    (batch,) = read(some, rules=RULES)

    assert isinstance(batch.decoded, DecodedTable)
    assert (100, {0: 98, 1: 99}, 0) == (batch.decoded.received, batch.ends, len(batch.poison))


def test_every_shape_is_read_in_order() -> None:
    """Events, envelopes, arrays and spread-out objects keep their order."""
    spread = json.dumps(json.loads(event("d")), indent=2).encode()
    values = [
        event("a"),
        b'{"events": [' + event("b") + b"," + event("c") + b"]}",
        spread,
        b" [" + event("e") + b"," + event("f") + b"]",
        b'{"event": ' + event("g") + b"}",
        b"[]",
    ]

    assert list("abcdefg") == users_of(values)


@pytest.mark.parametrize(
    ("value", "code"),
    [
        (None, "bad_json"),
        (b"", "bad_json"),
        (b"  ", "bad_json"),
        (b"\xff\xfe", "bad_json"),
        (b"{", "bad_json"),
        (b'"text"', "bad_json"),
        (b"{}", "missing_field"),
        (event(""), "bad_user_id"),
        (event("u", "?"), "unknown_op"),
        (event("u", day="2026-02-30"), "bad_day"),
        (event("u", day="2026-03-30"), "future_day"),
        (event("u") + b"," + event("v"), "bad_json"),
        (event("u") + b"\n" + event("v"), "bad_json"),
        (b"]" + event("u") + b"[", "bad_json"),
    ],
)
def test_poison_has_its_reason_and_costs_nobody_else(value: bytes | None, code: str) -> None:
    """A message that cannot be taken is named with its code; those around it are taken."""
    some = [Message(one, place) for place, one in enumerate([event("a"), value, event("b")])]

    (batch,) = read(some, rules=RULES)

    assert [(some[1], code)] == [(one.message, one.code) for one in batch.poison]
    assert ["a", "b"] == [one.user_id for one in batch.decoded.events]
    assert (3, {0: 2}) == (batch.decoded.received, batch.ends)


def test_an_envelope_with_a_bad_event_is_poison_and_its_good_ones_are_taken() -> None:
    """The places of the bad events in their message are told."""
    value = b'{"events": [' + b",".join([event("a"), event(""), event("b"), event("")]) + b"]}"

    (batch,) = read([Message(value)], rules=RULES)

    assert [("bad_user_id", (1, 3))] == [(one.code, one.indexes) for one in batch.poison]
    assert ["a", "b"] == [one.user_id for one in batch.decoded.events]
    assert "Poison(code='bad_user_id')" == repr(batch.poison[0])


def test_what_is_too_large_for_the_store_is_cut_between_messages(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Messages that together name too many days come as several batches; one alone is poison."""
    monkeypatch.setattr(messages, "BATCH_ROWS_MAX", 4)

    def remove(user: str, days: int) -> bytes:
        return event(user, "-", metadata={"days": [f"2026-03-{day + 1:02}" for day in range(days)]})

    values = [remove("a", 2), remove("b", 2), remove("c", 5), remove("d", 1)]
    batches = read([Message(one, place) for place, one in enumerate(values)], rules=RULES)

    assert ["a", "b", "d"] == [one.user_id for batch in batches for one in batch.decoded.events]
    assert [("too_large", 2)] == [
        (one.code, one.message.offset()) for batch in batches for one in batch.poison
    ]
    assert [{0: 1}, {0: 2}, {0: 3}] == [batch.ends for batch in batches]
    assert 4 == sum(batch.decoded.received for batch in batches)
