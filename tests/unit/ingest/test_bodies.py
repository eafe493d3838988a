"""The bodies of requests: columns hold the same events as the reader of single items finds."""

import datetime as dt
import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dpdau.domain import Op
from dpdau.ingest.bodies import decode_body
from dpdau.ingest.decoded import DecodedTable
from dpdau.ingest.event import Decoded, Form, decode
from dpdau.ingest.rules import Rules

TODAY = dt.date(2026, 3, 15)
RULES = Rules(TODAY, dimensions=("platform", "country"), retention_days=100)
BYTES_MAX = 1 << 20

USERS = st.sampled_from(["u1", "u2", "ü", "", "x" * 256, "x" * 257])
DAYS = st.sampled_from(["2026-03-10", "2026-03-16", "2026-03-17", "2025-01-01", "bad"])


def items() -> st.SearchStrategy[dict[str, Any]]:
    """One item, which may have any fault."""
    return st.fixed_dictionaries(
        {"user_id": USERS, "op": st.sampled_from(["+", "-", "?"])},
        optional={
            "day": DAYS,
            "ts": st.just("2026-03-10T23:00:00-05:00"),
            "event_id": st.sampled_from(["a", "é", "", None]),
            "metadata": st.fixed_dictionaries(
                {},
                optional={
                    "platform": st.sampled_from(["web", "ios", "", "y" * 65]),
                    "days": st.just(["2026-03-09", "2026-03-10"]),
                },
            ),
        },
    )


def good(user: int, **more: Any) -> dict[str, Any]:
    """A plain event."""
    return {"user_id": f"u{user}", "op": "+", "day": "2026-03-10", **more}


def body_of(form: Form, some: list[Any]) -> bytes:
    """A body of a form."""
    if form is Form.ENVELOPE:
        return json.dumps({"events": some}).encode()
    if form is Form.ARRAY:
        return json.dumps(some).encode()
    return "\n".join(json.dumps(one) for one in some).encode()


@pytest.mark.parametrize("form", list(Form))
@given(some=st.lists(items(), max_size=4), place=st.integers(0, 40))
def test_the_same_as_one_by_one(form: Form, some: list[dict[str, Any]], place: int) -> None:
    """Whatever is among many plain events: the same events, rejections and order."""
    plain = [
        good(one % 30, metadata={"platform": "web"} if one % 2 else {"country": "de"})
        for one in range(40)
    ]
    body = body_of(form, [*plain[:place], *some, *plain[place:]])
    expected = decode(body, form, rules=RULES)

    found = decode_body(body, form, rules=RULES, unpacked_bytes_max=BYTES_MAX)

    assert (expected.received, list(expected.rejected)) == (found.received, list(found.rejected))
    assert list(expected.events) == list(found.events)


@pytest.mark.parametrize("form", list(Form))
def test_plain_events_become_columns(form: Form) -> None:
    """Many plain events are columns, with each user once; few are events one by one."""
    some = [good(one % 7, op="-" if one % 3 else "+", event_id=f"e{one}") for one in range(40)]
    found = decode_body(body_of(form, some), form, rules=RULES, unpacked_bytes_max=BYTES_MAX)
    few = decode_body(body_of(form, some[:5]), form, rules=RULES, unpacked_bytes_max=BYTES_MAX)

    assert isinstance(found, DecodedTable)
    assert isinstance(few, Decoded)
    assert 7 == len(found.user_ids)
    assert some == [
        {
            "user_id": one.user_id,
            "op": one.op.value,
            "day": one.day.isoformat(),
            "event_id": one.event_id,
        }
        for one in found.events
    ]


@pytest.mark.parametrize("default", [None, Op.ADD, Op.REMOVE])
def test_an_item_without_op(default: Op | None) -> None:
    """The rules' default is taken for each item by itself, or the item is refused."""
    some = [good(one, **({} if one % 2 else {"op": "-"})) for one in range(40)]
    for one in some[::3]:
        del one["op"]
    rules = Rules(TODAY, op_default=default)
    body = body_of(Form.ARRAY, some)

    expected = decode(body, Form.ARRAY, rules=rules)
    found = decode_body(body, Form.ARRAY, rules=rules, unpacked_bytes_max=BYTES_MAX)

    assert list(expected.rejected) == list(found.rejected)
    assert list(expected.events) == list(found.events)
