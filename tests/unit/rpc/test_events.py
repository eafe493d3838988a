"""Batches out of messages: under the rules of JSON, one by one and in columns."""

import datetime as dt
from typing import Any

import pytest

from dpdau.domain import day_number
from dpdau.errors import InvalidEventError
from dpdau.ingest.event import Rules, decode_objects
from dpdau.rpc.events import batch_of
from dpdau.rpc.v1 import dpdau_pb2 as v1
from products import DAY, NOW, event
from rpc_service import OPS, listed

RULES = Rules(today=NOW.date(), dimensions=("platform",))
LATER = DAY + dt.timedelta(days=365)
MANY = 40
CASES = {
    "plain": event("u1"),
    "not ASCII": event("é"),
    "a removal": event("u2", op="-"),
    "a dimension": event("u1", metadata={"platform": "ios", "color": "red"}),
    "an id": event("u1", event_id="e1"),
    "a time": {"user_id": "u1", "op": "+", "ts": "2026-03-10T23:59:60Z"},
    "a day before a time": {**event("u1"), "ts": "2026-03-09T00:00:00Z"},
    "no user": event(""),
    "too long a user": event("x" * 257),
    "no operation": {"user_id": "u1", "day": "2026-03-10"},
    "an unknown operation": event("u1", op="?"),
    "no day": {"user_id": "u1", "op": "+"},
    "no such day": {**event("u1"), "day": "2026-02-30"},
    "no such time": {"user_id": "u1", "op": "+", "ts": "yesterday"},
    "a day to come": event("u1", LATER),
    "a long id": event("u1", event_id="x" * 257),
    "a long value": event("u1", metadata={"platform": "x" * 65}),
}


def found_in(request: v1.IngestRequest) -> tuple[list[Any], list[Any]]:
    """The events and what was rejected."""
    decoded, _ = batch_of(request, rules=RULES)
    return list(decoded.events), list(decoded.rejected)


def in_columns(*users: str, **columns: Any) -> v1.IngestRequest:
    """A request with columns."""
    return v1.IngestRequest(columns=v1.EventColumns(user_id=users, **columns))


@pytest.mark.parametrize("case", sorted(CASES))
@pytest.mark.parametrize("copies", [1, MANY])
def test_events_are_read_as_in_json(case: str, copies: int) -> None:
    """Alone and among many, an event is taken or rejected as the same one in JSON."""
    events = [CASES[case]] * copies
    expected = decode_objects(events, rules=RULES)

    assert (list(expected.events), list(expected.rejected)) == found_in(listed(events))


def test_a_removal_may_name_several_days() -> None:
    """The days of a removal are those of the metadata in JSON."""
    days = {"days": ["2026-03-01", "2026-03-02"]}
    events = [event("u1", op="-", metadata=days)] * MANY
    expected = decode_objects(events, rules=RULES)

    assert list(expected.events) == found_in(listed(events))[0]


def test_a_text_of_days_means_among_many_what_it_means_alone() -> None:
    """Metadata may hold `days` as a text, as it may in JSON, where it is rejected."""
    one = v1.Event(user_id="u1", op=v1.OP_REMOVE, metadata={"days": DAY.isoformat()})
    written = {"user_id": "u1", "op": "-", "metadata": {"days": DAY.isoformat()}}
    for copies in (1, MANY):
        expected = decode_objects([written] * copies, rules=RULES)
        request = v1.IngestRequest(list=v1.EventList(events=[one] * copies))
        assert (list(expected.events), list(expected.rejected)) == found_in(request)
        assert copies == len(expected.rejected)


@pytest.mark.parametrize("user", ["u1", "é"])
def test_columns_are_read_as_events_are(user: str) -> None:
    """Columns give what the same events give, by both of their readers."""
    events = [
        event(user, metadata={"platform": "ios"}),
        event("u2", DAY - dt.timedelta(days=1), op="-"),
        event(user, metadata={"platform": "web"}),
    ]
    request = in_columns(
        user,
        "u2",
        user,
        op=[OPS[one["op"]] for one in events],
        day=[day_number(dt.date.fromisoformat(one["day"])) for one in events],
        labels={"platform": v1.Labels(values=["web", "ios"], codes=[2, 0, 1])},
    )

    assert (decode_objects(events, rules=RULES).events, []) == found_in(request)


def test_columns_have_faults_by_row() -> None:
    """A row at fault is rejected at its place, and the others are taken."""
    today = day_number(DAY)
    request = in_columns(
        "u1",
        "",
        "u3",
        "u4",
        "u5",
        op=[v1.OP_ADD, v1.OP_ADD, 9, 0, v1.OP_ADD],
        day=[today, today, today, today, today + 365],
        event_id=["e1", "", "", "", ""],
    )
    taken, rejected = found_in(request)

    assert [("u1", "e1")] == [(one.user_id, one.event_id) for one in taken]
    assert [
        (1, "bad_user_id"),
        (2, "unknown_op"),
        (3, "missing_field"),
        (4, "future_day"),
    ] == [(one.index, one.code) for one in rejected]


def test_columns_without_operations_add() -> None:
    """Without the column of operations each event is one of activity; a time stands for a day."""
    noon = int(dt.datetime(2026, 3, 10, 12, tzinfo=dt.UTC).timestamp())
    expected = decode_objects([event("u1"), event("u2")], rules=RULES).events

    assert (expected, []) == found_in(in_columns("u1", "u2", day=[day_number(DAY)] * 2))
    assert (expected, []) == found_in(in_columns("u1", "u2", ts=[noon, noon]))
    assert "future_day" == found_in(in_columns("u1", ts=[2**62]))[1][0].code


@pytest.mark.parametrize(
    "request_",
    [
        v1.IngestRequest(),
        in_columns("u1", "u2", day=[1]),
        in_columns("u1"),
        in_columns("u1", day=[1], ts=[1]),
        in_columns("é", day=[1], labels={"platform": v1.Labels(values=["ios"], codes=[2])}),
        in_columns("u1", day=[1], labels={"platform": v1.Labels(codes=[1])}),
        listed([event("u1")], ""),
        listed([event("u1")], "x" * 257),
    ],
)
def test_a_request_without_items_is_refused(request_: v1.IngestRequest) -> None:
    """What is no batch is refused as a whole."""
    with pytest.raises(InvalidEventError):
        batch_of(request_, rules=RULES)


def test_an_empty_batch_is_one() -> None:
    """No events are no fault."""
    assert ([], []) == found_in(listed([]))
    assert ([], []) == found_in(in_columns())
