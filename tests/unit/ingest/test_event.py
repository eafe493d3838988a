"""Reading events from JSON: one rejection for each bad item, and the rest is taken."""

import datetime as dt
import json
from collections.abc import Iterable
from dataclasses import replace
from typing import Any
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dpdau.domain import Op
from dpdau.errors import InvalidEventError, InvalidSettingError, TooLargeError
from dpdau.ingest import event as events
from dpdau.ingest.event import (
    Decoded,
    Fields,
    Form,
    RawEvent,
    Rejection,
    RejectionCode,
    Rules,
    decode,
    decode_objects,
)
from dpdau.ingest.plain import decode_plain

TODAY = dt.date(2026, 3, 1)
RULES = Rules(TODAY, dimensions=("platform", "country of birth"), retention_days=400)
GOOD = {"user_id": "u1", "op": "+", "day": "2026-02-01"}
GOOD_EVENT = RawEvent("u1", Op.ADD, dt.date(2026, 2, 1))
CANARY = "canary-4c1e77"

FAULTS: list[tuple[dict[str, Any], str, str | None]] = [
    ({"user_id": None}, "missing_field", "user_id"),
    ({"user_id": 7}, "bad_user_id", "user_id"),
    ({"user_id": ""}, "bad_user_id", "user_id"),
    ({"user_id": "x" * 257}, "bad_user_id", "user_id"),
    ({"user_id": "é" * 129}, "bad_user_id", "user_id"),
    ({"op": None}, "missing_field", "op"),
    ({"op": "x"}, "unknown_op", "op"),
    ({"op": "add"}, "unknown_op", "op"),
    ({"op": 1}, "unknown_op", "op"),
    ({"day": None}, "missing_field", "day"),
    ({"day": "2026-02-30"}, "bad_day", "day"),
    ({"day": "2026-2-3"}, "bad_day", "day"),
    ({"day": "20260203"}, "bad_day", "day"),
    ({"day": 20260203}, "bad_day", "day"),
    ({"day": "0001-01-01"}, "bad_day", "day"),
    ({"day": "2026-03-03"}, "future_day", "day"),
    ({"day": "2025-01-24"}, "too_old", "day"),
    ({"day": None, "ts": "yesterday"}, "bad_day", "ts"),
    ({"day": None, "ts": "2026-02-01"}, "bad_day", "ts"),
    ({"day": None, "ts": 1767225600}, "bad_day", "ts"),
    ({"day": None, "ts": "2026-03-04T00:00:00Z"}, "future_day", "day"),
    ({"event_id": ""}, "bad_event_id", "event_id"),
    ({"event_id": 5}, "bad_event_id", "event_id"),
    ({"event_id": "x" * 257}, "bad_event_id", "event_id"),
    ({"metadata": "x"}, "bad_metadata", "metadata"),
    ({"metadata": {"platform": 1}}, "bad_metadata", "metadata"),
    ({"metadata": {"platform": ""}}, "bad_metadata", "metadata"),
    ({"metadata": {"platform": "x" * 65}}, "bad_metadata", "metadata"),
    ({"op": "-", "metadata": {"days": []}}, "bad_metadata", "metadata.days"),
    ({"op": "-", "metadata": {"days": ["2026-02-01"] * 401}}, "bad_metadata", "metadata.days"),
    ({"op": "-", "metadata": {"days": ["2026-02-31"]}}, "bad_metadata", "metadata.days"),
    ({"op": "-", "metadata": {"days": "2026-02-01"}}, "bad_metadata", "metadata.days"),
    ({"op": "-", "metadata": {"days": ["2026-04-01"]}}, "future_day", "metadata.days"),
    ({"op": "-", "metadata": {"days": ["2024-04-01"]}}, "too_old", "metadata.days"),
]


def body(items: Iterable[object], form: Form) -> bytes:
    """Items in one of the forms."""
    if form is Form.NDJSON:
        return b"\n".join(json.dumps(one).encode() for one in items)
    whole = list(items)
    return json.dumps(whole if form is Form.ARRAY else {"events": whole}).encode()


def every_form(items: list[object], rules: Rules = RULES) -> list[Decoded]:
    """What each form, and the reader of Python objects, make of the same items."""
    read = [decode(body(items, form), form, rules=rules) for form in Form]
    return [*read, decode_objects(items, rules=rules)]


@pytest.mark.parametrize("form", list(Form))
def test_events_are_read_in_order(form: Form) -> None:
    """Order, and so which event is the last for a pair, is the order of the body."""
    items = [{**GOOD, "user_id": f"u{number}", "op": "+-"[number % 2]} for number in range(50)]
    decoded = decode(body(items, form), form, rules=RULES)

    assert [one["user_id"] for one in items] == [one.user_id for one in decoded.events]
    assert [one["op"] for one in items] == [one.op.value for one in decoded.events]
    assert (50, []) == (decoded.received, decoded.rejected)


def test_an_envelope_may_hold_one_event() -> None:
    """`{"event": {...}}` is the form of a single event."""
    decoded = decode(json.dumps({"event": GOOD}).encode(), Form.ENVELOPE, rules=RULES)

    assert [GOOD_EVENT] == decoded.events


def test_all_fields_are_kept_and_unknown_metadata_is_not() -> None:
    """Declared dimensions stay under their own names; any other key is accepted and dropped."""
    metadata = {"platform": "ios", "country of birth": "é" * 32, "name": CANARY, "more": {"a": [1]}}
    item = {**GOOD, "event_id": "e1", "metadata": metadata, "extra": None}
    kept = {"platform": "ios", "country of birth": "é" * 32}

    for decoded in every_form([item]):
        assert [RawEvent("u1", Op.ADD, dt.date(2026, 2, 1), "e1", (), kept)] == decoded.events


@pytest.mark.parametrize(
    "nothing", [{"metadata": None}, {"metadata": {"days": None}}, {"ts": None}]
)
def test_null_stands_for_absent(nothing: dict[str, object]) -> None:
    """A sender may write out the fields that it does not use."""
    item = {**GOOD, "event_id": None, **nothing}

    assert all([GOOD_EVENT] == decoded.events for decoded in every_form([item]))


@pytest.mark.parametrize(("change", "code", "field"), FAULTS)
def test_each_fault_is_one_rejection_and_the_rest_is_taken(
    change: dict[str, Any], code: str, field: str | None
) -> None:
    """A bad item between good ones costs itself alone, and says which field and why."""
    for decoded in every_form([GOOD, {**GOOD, **change}, GOOD]):
        assert [GOOD_EVENT, GOOD_EVENT] == decoded.events
        assert [(1, code, field)] == [(one.index, one.code, one.field) for one in decoded.rejected]
        assert 3 == decoded.received


@pytest.mark.parametrize("item", [None, 3, "x", [], [GOOD], True])
def test_an_item_that_is_no_object_is_rejected(item: object) -> None:
    """Its place is told."""
    for decoded in every_form([GOOD, item]):
        assert [(1, RejectionCode.BAD_JSON)] == [(one.index, one.code) for one in decoded.rejected]


@pytest.mark.parametrize(
    "line",
    [
        b"{",
        b'{"user_id": "\xff", "op": "+"}',
        b"x",
        b"[" * 5000,
        b'{"user_id":"\\ud800"}',
        json.dumps(GOOD).encode() * 2,
    ],
)
def test_a_bad_line_costs_itself_alone(line: bytes) -> None:
    """In NDJSON every line stands for itself; two objects on a line are none."""
    good = json.dumps(GOOD).encode()
    decoded = decode(b"\n".join([good, b"", line, b" \r", good]), Form.NDJSON, rules=RULES)

    assert 2 == len(decoded.events)
    assert [Rejection(1, RejectionCode.BAD_JSON, None, "Expected one JSON object in UTF-8.")] == (
        decoded.rejected
    )


def test_a_bad_item_in_bad_utf_8_costs_itself_alone() -> None:
    """An id that is not UTF-8 is rejected inside an array too."""
    good = json.dumps(GOOD).encode()
    content = b"[%s, %s, %s]" % (good, good.replace(b"u1", b"\xff"), good)
    decoded = decode(content, Form.ARRAY, rules=RULES)

    assert ([1], 2) == ([one.index for one in decoded.rejected], len(decoded.events))


@pytest.mark.parametrize(
    ("content", "form"),
    [
        (b"", Form.ENVELOPE),
        (b"{}", Form.ENVELOPE),
        (b"[]", Form.ENVELOPE),
        (b"x", Form.ENVELOPE),
        (b'{"events": {}}', Form.ENVELOPE),
        (b'{"event": {}, "events": []}', Form.ENVELOPE),
        (b"", Form.ARRAY),
        (b"{}", Form.ARRAY),
        (b"[1,", Form.ARRAY),
        (b"[" * 5000, Form.ARRAY),
        (b"[1] [2]", Form.ARRAY),
    ],
)
def test_a_body_of_another_form_has_no_items(content: bytes, form: Form) -> None:
    """What is wrong as a whole is one error, not a rejection."""
    with pytest.raises(InvalidEventError):
        decode(content, form, rules=RULES)


@pytest.mark.parametrize(
    ("content", "form"),
    [(b'{"events": []}', Form.ENVELOPE), (b"[]", Form.ARRAY), (b"", Form.NDJSON)],
)
def test_a_body_may_be_empty(content: bytes, form: Form) -> None:
    """No events are no error."""
    assert 0 == decode(content, form, rules=RULES).received


@pytest.mark.parametrize("form", list(Form))
@pytest.mark.parametrize("item", [GOOD, 1], ids=["good", "bad"])
def test_too_many_events_are_refused(
    form: Form, item: object, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The number of items of a body has a limit, whatever they are."""
    monkeypatch.setattr(events, "EVENTS_MAX", 3)

    assert 3 == decode(body([item] * 3, form), form, rules=RULES).received
    with pytest.raises(TooLargeError):
        decode(body([item] * 4, form), form, rules=RULES)


@pytest.mark.parametrize("form", [Form.ARRAY, Form.NDJSON])
def test_a_limit_is_met_before_any_item_is_looked_at(
    form: Form, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A body of millions of tiny bad items is refused without one fault being made."""
    monkeypatch.setattr(events, "_from_json", lambda *_: pytest.fail("an item was read"))
    content = {Form.ARRAY: b"[" + b"1," * 500_000 + b"1]", Form.NDJSON: b"1\n" * 500_000}[form]

    with pytest.raises(TooLargeError):
        decode(content, form, rules=RULES)


def test_a_last_newline_and_a_last_line_without_one_count_alike(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The limit of lines is the same for both."""
    monkeypatch.setattr(events, "EVENTS_MAX", 3)
    content = body([GOOD] * 3, Form.NDJSON)

    assert 3 == decode(content, Form.NDJSON, rules=RULES).received
    assert 3 == decode(content + b"\n", Form.NDJSON, rules=RULES).received


UNREADABLE = {
    "half a character": rb'"\ud83d"',
    "deep lists": b"[" * 1_500 + b"]" * 1_500,
    "deep objects": b'{"a":' * 1_500 + b"1" + b"}" * 1_500,
    "brackets in strings": rb'"]}[{,\"],\\", nonsense',
    "a word": b"nonsense",
}


@pytest.mark.parametrize("odd", UNREADABLE.values(), ids=UNREADABLE)
@pytest.mark.parametrize("form", list(Form))
def test_an_item_that_no_reader_takes_costs_itself_alone(odd: bytes, form: Form) -> None:
    """Whatever stands in a field that is not even kept, the rest of the batch is taken."""
    good = json.dumps(GOOD).encode()
    bad = good[:-1] + b', "metadata": {"x": %b}}' % odd
    items = {Form.NDJSON: b"\n"}.get(form, b" ,\n").join([good, bad, good])
    content = {
        Form.NDJSON: items,
        Form.ARRAY: b"[%b]" % items,
        Form.ENVELOPE: b'{"note": %b, "ev\\u0065nts": [%b]}' % (b"[1]", items),
    }[form]

    decoded = decode(content, form, rules=RULES)

    assert [GOOD_EVENT, GOOD_EVENT] == decoded.events
    assert [(1, RejectionCode.BAD_JSON)] == [(one.index, one.code) for one in decoded.rejected]


@pytest.mark.parametrize("days", [["2026-02-01"], [], ["never"], 7, None, {"a": 1}])
def test_days_of_an_addition_are_not_looked_at(days: object) -> None:
    """`days` belongs to `-`; beside a `+` it is a key like any other that is not kept."""
    item = {**GOOD, "metadata": {"days": days}}

    assert all([GOOD_EVENT] == decoded.events for decoded in every_form([item]))


def test_a_day_is_not_taken_from_the_days_of_an_addition() -> None:
    """A `+` names its own day."""
    item = {"user_id": "u", "op": "+", "metadata": {"days": ["2026-02-01"]}}

    for decoded in every_form([item]):
        assert ["day"] == [one.field for one in decoded.rejected]


@pytest.mark.parametrize(
    ("ts", "day"),
    [
        ("2016-12-31T23:59:60Z", "2016-12-31"),
        ("2016-12-31T23:59:60.5Z", "2016-12-31"),
        ("2017-01-01 00:59:60+01:00", "2016-12-31"),
        ("2017-01-01T00:00:61Z", None),
        ("2017-01-32T00:00:60Z", None),
    ],
)
def test_a_leap_second_is_the_second_before_it(ts: str, day: str | None) -> None:
    """RFC 3339 allows second 60; no later one."""
    for decoded in every_form([{"user_id": "u", "op": "+", "ts": ts}], Rules(TODAY)):
        assert [day] if day else [] == [one.day.isoformat() for one in decoded.events]
        assert ([] if day else ["ts"]) == [one.field for one in decoded.rejected]


@pytest.mark.parametrize(
    ("item", "day"),
    [
        ({"ts": "2026-02-01T23:30:00Z"}, "2026-02-02"),
        ({"ts": "2026-02-01T23:30:00"}, "2026-02-01"),
        ({"ts": "2026-02-01 23:30:00.123456789-05:00"}, "2026-02-02"),
        ({"ts": "2026-02-01T23:30:00Z", "day": "2026-01-01"}, "2026-01-01"),
    ],
)
def test_a_ts_stands_for_the_day_in_the_zone(item: dict[str, str], day: str) -> None:
    """A `ts` without an offset is in TIMEZONE; where `day` is given too, `day` counts."""
    berlin = Rules(TODAY, ZoneInfo("Europe/Berlin"))

    for decoded in every_form([{"user_id": "u", "op": "+", **item}], berlin):
        assert [day] == [one.day.isoformat() for one in decoded.events]


def test_a_removal_may_name_several_days() -> None:
    """`metadata.days` of a `-` replaces `day`; a day named twice counts once."""
    days = ["2026-02-03", "2026-01-01", "2026-02-03"]
    items = [{"user_id": "u", "op": "-", "metadata": {"days": days}}]
    items.append({**items[0], "day": "2026-02-20"})

    for decoded in every_form(list(items)):
        first, second = decoded.events
        assert (dt.date(2026, 2, 3), dt.date(2026, 1, 1)) == first.days == second.days
        assert (dt.date(2026, 2, 3), dt.date(2026, 2, 20)) == (first.day, second.day)


def test_fields_may_have_other_names_and_op_a_default() -> None:
    """A source that calls its fields otherwise, or knows only `+`, is read as it is."""
    rules = Rules(TODAY, fields=Fields(user_id="who", day="on"), op_default=Op.ADD)
    items: list[object] = [
        {"who": "u1", "on": "2026-02-01"},
        {"who": "u1", "on": "2026-02-01", "op": None},
        {"who": "u1", "on": "2026-02-01", "op": "-"},
        {"user_id": "u1", "on": "2026-02-01"},
    ]

    for decoded in every_form(items, rules):
        assert [Op.ADD, Op.ADD, Op.REMOVE] == [one.op for one in decoded.events]
        assert [(3, "user_id")] == [(one.index, one.field) for one in decoded.rejected]


def test_a_byte_order_mark_is_skipped() -> None:
    """Files from some editors begin with one."""
    assert [GOOD_EVENT] == (
        decode(b"\xef\xbb\xbf" + body([GOOD], Form.NDJSON), Form.NDJSON, rules=RULES).events
    )


@pytest.mark.parametrize("user_id", ["ts", "metadata", 'a"b', "a\\b", "a\nb", "\udcff"])
def test_names_that_cannot_be_those_of_json(user_id: str) -> None:
    """Two fields of one name, and what would need an escape, are told as such."""
    rules = replace(RULES, fields=Fields(user_id=user_id))
    content = body([GOOD] * 2, Form.NDJSON)

    assert decode_plain(content, Form.NDJSON, rules=rules) is None
    with pytest.raises(InvalidSettingError):
        decode(content, Form.NDJSON, rules=rules)


def test_a_mark_alone_is_a_blank_line() -> None:
    """Wherever it stands, so that a cut before it changes nothing."""
    mark, line = b"\xef\xbb\xbf", body([GOOD], Form.NDJSON)
    for content in (mark + b"\n" + line, line + b"\n" + mark + b"\n" + line, line + b"\n" + mark):
        decoded = decode(content, Form.NDJSON, rules=RULES)

        assert {(GOOD_EVENT.user_id, 0)} == {(one.user_id, 0) for one in decoded.events}
        assert [] == decoded.rejected


JSON = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=4), inner),
    max_leaves=6,
)
FIELD_VALUES = {
    "user_id": st.text(max_size=6) | JSON,
    "op": st.sampled_from(["+", "-"]) | JSON,
    "day": st.dates().map(dt.date.isoformat) | st.sampled_from(["2026-02-01"]) | JSON,
    "ts": st.datetimes().map(dt.datetime.isoformat) | JSON,
    "event_id": st.text(max_size=6) | JSON,
    "metadata": st.fixed_dictionaries(
        {}, optional={"platform": JSON, "days": st.lists(st.just("2026-02-01") | JSON, max_size=2)}
    )
    | JSON,
}
ITEMS = (
    JSON
    | st.fixed_dictionaries({}, optional=FIELD_VALUES)
    | st.fixed_dictionaries(
        {
            "user_id": st.text(min_size=1, max_size=6),
            "op": st.sampled_from("+-"),
            "day": st.just("2026-02-01"),
        },
        optional={name: FIELD_VALUES[name] for name in ("ts", "event_id", "metadata")},
    )
)


@given(st.lists(ITEMS, max_size=8))
def test_any_json_is_taken_or_rejected_item_by_item(items: list[object]) -> None:
    """No item raises; received = taken + rejected; all forms agree; together is as alone."""
    first, *others = every_form(items)
    alone = [decode(body([one], Form.ARRAY), Form.ARRAY, rules=RULES) for one in items]

    assert len(items) == first.received == len(first.events) + len(first.rejected)
    assert [one.events for one in others] == [first.events] * len(others)
    assert [one.rejected for one in others] == [first.rejected] * len(others)
    assert [event for one in alone for event in one.events] == first.events
    assert [place for place, one in enumerate(alone) if one.rejected] == [
        one.index for one in first.rejected
    ]


@given(st.lists(st.binary(max_size=30) | ITEMS.map(lambda one: json.dumps(one).encode())))
def test_any_bytes_are_taken_or_rejected_line_by_line(lines: list[bytes]) -> None:
    """No line of bytes raises."""
    content = b"\n".join(lines)
    decoded = decode(content, Form.NDJSON, rules=RULES)

    counted = content.removeprefix(b"\xef\xbb\xbf").split(b"\n")
    assert len([one for one in counted if one.strip()]) == decoded.received


@pytest.mark.parametrize("change", [one[0] for one in FAULTS])
def test_no_rejection_and_no_repr_shows_an_id(change: dict[str, Any]) -> None:
    """A unique id, also in the place of any other field, is in nothing that can be logged."""
    bad = {**GOOD, **change}
    items: list[object] = [{**GOOD, "user_id": CANARY, "event_id": CANARY}]
    for name in ("user_id", "op", "day", "ts", "event_id", "metadata"):
        items.append({**bad, name: CANARY})
        items.append({**bad, name: {CANARY: [CANARY], "days": [CANARY], "platform": CANARY}})
    items.append({CANARY: CANARY})

    for decoded in every_form(items):
        shown = (
            f"{decoded} {decoded.rejected!r} {decoded.events!r} {list(map(str, decoded.events))}"
        )
        rich = [list(one.__rich_repr__()) for one in decoded.events]
        assert CANARY not in shown.replace(f"'platform': '{CANARY}'", "")
        assert CANARY not in repr(rich)
        assert decoded.rejected


def test_no_error_shows_an_id() -> None:
    """The error of a bad body carries nothing of it, nor does the error behind it."""
    for content in (CANARY.encode(), b'{"events": "%s"}' % CANARY.encode(), b'["\xff"]'):
        with pytest.raises(InvalidEventError) as caught:
            decode(content, Form.ENVELOPE, rules=RULES)
        error: BaseException | None = caught.value
        while error is not None:
            assert CANARY not in f"{error!r} {vars(error)} {error.args}"
            error = error.__cause__ or error.__context__


@pytest.mark.parametrize(
    "separators",
    [(" ", "\n"), ("", "\n"), ("\n", "\n"), ("\n", ""), ("\r\n", "\n"), ("\n\n", "\n")],
)
def test_an_item_is_one_line_and_a_line_one_item(separators: tuple[str, str]) -> None:
    """Two items on a line are no event, and one item over two lines is none either."""
    between, inside = separators
    text = json.dumps({"user_id": "u", "op": "+", "day": "2026-03-10"})
    body = f"{text}{between}{text}\n{text[:-1]}{inside}}}"

    decoded = decode(body.encode(), Form.NDJSON, rules=RULES)
    alone = [decode(line.encode(), Form.NDJSON, rules=RULES) for line in body.split("\n")]
    assert sum(one.received for one in alone) == decoded.received
    assert sum(len(one.events) for one in alone) == len(decoded.events)
