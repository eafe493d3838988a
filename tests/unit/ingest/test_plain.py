"""Plain bodies in columns: the same events and rejections as one item at a time, or none at all."""

import datetime as dt
import json
from dataclasses import replace
from typing import Any
from zoneinfo import ZoneInfo

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from dpdau.domain import Op
from dpdau.errors import TooLargeError
from dpdau.ingest import event as by_item
from dpdau.ingest import plain
from dpdau.ingest.decoded import DecodedTable
from dpdau.ingest.event import Decoded, Fields, Form
from dpdau.ingest.plain import decode_large, decode_plain
from dpdau.ingest.rules import Rules

RULES = Rules(dt.date(2026, 3, 1), ZoneInfo("Europe/Berlin"), ("platform", "country"))
CANARY = "canary-51cc0e"

USERS = st.one_of(
    st.sampled_from(
        ["ada", "bob", "é", "u" * 256, "u" * 257, "é" * 129, "", " ", "\x7f", "\u2028"]
    ),
    st.text(max_size=6),
)
DAYS = st.sampled_from(
    "2026-03-01|2026-03-02|2026-03-03|1899-12-31|2026-02-29|9999-12-31|26-3-1|0000-01-01||"
    "2026-03-01T00:00:00| 2026-03-01|2026-03-01Z|\uff12026-03-01".split("|")
)
MOMENTS = st.sampled_from(
    "2026-03-01T23:30:00Z|2026-02-28T23:59:60Z|2026-03-01 10:00:00|2026-03-01|x||"
    "0001-01-01T00:00:00+14:00|9999-12-31T23:59:59-12:00|2026-03-01T25:00:00Z".split("|")
)
OPS = st.sampled_from(["+", "-", "+", "-", "*", ""])
LABELS = st.sampled_from(["ios", "web", "", "é" * 33, "a" * 64])
HOSTILE = st.sampled_from(
    [
        b'{"user_id": "a", "op": "+", "day": null}',
        b'{"user_id": "a", "op": "+", "day": "2026-03-01", "day": "2026-03-02"}',
        b'{"user_id": "a", "user_id": "b", "op": "+", "day": "2026-03-01"}',
        b'{"user_id": 7, "op": "+", "day": "2026-03-01"}',
        b'{"user_id": 1e999, "op": "+", "day": "2026-03-01"}',
        b'{"user_id": "\\u0041", "op": "+", "day": "2026-03-01"}',
        b'{"user_id": "\\ud800", "op": "+", "day": "2026-03-01"}',
        b'{"user_id": "\xff", "op": "+", "day": "2026-03-01"}',
        b'{"user_id": "\xed\xa0\x80", "op": "+", "day": "2026-03-01"}',
        b'{"user_id": "a\tb", "op": "+", "day": "2026-03-01"}',
        b'{"user_id": "a\x00b", "op": "+", "day": "2026-03-01"}',
        b'{"user_id": "a", "op": "+", "day": "2026-03-01"} ',
        b'{"user_id": "a", "op": "+", "day": "2026-03-01"}}',
        b'{"user_id": "a", "op": "+", "day": "2026-03-01",}',
        b'{"user_id": "a", "op": "+" "day": "2026-03-01"}',
        b'{"user_id": "a", "op": "+", "day": "2026-03-01", "metadata": {}}',
        b'{"user_id": "a", "op": "+", "day": "2026-03-01", "metadata": "x"}',
        b'{"user_id": "a", "op": "+", "day": "2026-03-01", "note": {"x": "y"}}',
        b'{"user_id": "a", "op": "-", "day": "2026-03-01", "metadata": {"days": "2026-03-01"}}',
        b'{"user_id": "a", "op": "-", "day": "2026-03-01", "metadata": {"days": ["2026-03-01"]}}',
        b'\xef\xbb\xbf{"user_id": "a", "op": "+", "day": "2026-03-01"}',
        b'{"user_id":"a","op":"+","day":"2026-03-01"}\r',
        b'{"user_id": "a", "op": "+", "day": "2026-03-01"}{"user_id": "b"',
        b'{"user_id": "a\x0b", "op": "+", "day": "2026-03-01"}',
        b"",
        b"  \t",
        b"[]",
        b'"a"',
        b"{}",
        b"null",
        b'{"',
    ]
)


@st.composite
def shapes(draw: st.DrawFn) -> tuple[list[str], list[str], tuple[str, str], bool]:
    """Which fields an item has, in which order, how it is spaced, and whether it is escaped."""
    fields = draw(
        st.lists(
            st.sampled_from(["user_id", "op", "day", "ts", "event_id", "note", "metadata"]),
            unique=True,
            max_size=7,
        )
    )
    if draw(st.booleans()):
        fields = [*{*fields, "user_id", "op", "day"}]
    labels = draw(st.lists(st.sampled_from(["platform", "country", "other"]), unique=True))
    spacing = draw(st.sampled_from([(",", ":"), (", ", ": "), (" ,\t", " :  "), (",\r", ":")]))
    return fields, labels, spacing, draw(st.booleans())


VALUES: dict[str, st.SearchStrategy[str]] = {
    "user_id": USERS,
    "op": OPS,
    "day": DAYS,
    "ts": MOMENTS,
    "event_id": st.sampled_from(["e-1", "e-2", "", "e" * 257]),
    "note": st.sampled_from(["", "x", "{}", "a:b,c"]),
}


@st.composite
def items(draw: st.DrawFn) -> list[bytes]:
    """Items that mostly have one shape, and a few that have none."""
    fields, labels, spacing, escaped = draw(shapes())
    some = []
    for _ in range(draw(st.integers(0, 6))):
        item: dict[str, Any] = {name: draw(VALUES[name]) for name in fields if name in VALUES}
        if "metadata" in fields:
            metadata = {name: draw(LABELS) for name in labels}
            item = {name: item.get(name, metadata) for name in fields}
        text = json.dumps(item, separators=spacing, ensure_ascii=escaped)
        some.append(text.encode("utf-8", "surrogatepass"))
    for _ in range(draw(st.sampled_from([0, 0, 0, 1, 2]))):
        some.insert(draw(st.integers(0, len(some))), draw(HOSTILE))
    return some


RULE_CHOICES = st.sampled_from(
    [
        RULES,
        Rules(dt.date(2026, 3, 1), retention_days=1),
        replace(RULES, op_default=Op.REMOVE),
        replace(RULES, fields=Fields(user_id="note", event_id="other")),
        replace(RULES, fields=Fields(user_id="metadata")),
    ]
)


def outcome(decoded: Decoded | DecodedTable) -> tuple[object, ...]:
    """Everything that a reading says."""
    return list(decoded.events), list(decoded.rejected), decoded.received


def check(body: bytes, form: Form, rules: Rules) -> DecodedTable | None:
    """Reads a body in columns and compares it with the reading by items."""
    table = decode_plain(body, form, rules=rules)
    if table is not None:
        assert outcome(by_item.decode(body, form, rules=rules)) == outcome(table)
    return table


@given(items(), st.sampled_from([b"\n", b"\r\n", b"\n ", b"\n\n"]), st.booleans(), RULE_CHOICES)
@example([b'{"user_id":"a","op":"+","day":"2026-03-01"}{', b'"user_id":"b"}'], b"\n", True, RULES)
def test_lines_in_columns_mean_what_they_mean_by_themselves(
    lines: list[bytes], newline: bytes, ended: bool, rules: Rules
) -> None:
    """Whatever is taken in columns has the same events and rejections, hostile lines or not."""
    check(newline.join(lines) + (newline if ended else b""), Form.NDJSON, rules)


@given(items(), st.sampled_from([b",", b", ", b" ,\n  ", b"\n"]), RULE_CHOICES)
@example([b'{"user_id":"a","op":"+","day":"2026-03-01"}', b""], b",", RULES)
def test_arrays_in_columns_mean_what_their_items_mean(
    parts: list[bytes], comma: bytes, rules: Rules
) -> None:
    """The same for a JSON array; where the array as a whole is none, it is not taken."""
    check(b"[" + comma.join(parts) + b"]", Form.ARRAY, rules)


@given(st.binary(max_size=60), st.sampled_from([Form.NDJSON, Form.ARRAY]))
def test_noise_is_never_taken_in_another_meaning(noise: bytes, form: Form) -> None:
    """Bytes of any kind behind two sound lines."""
    line = b'{"user_id":"a","op":"+","day":"2026-03-01"}'
    lines = line + b"\n" + line + b"\n" + noise
    check(lines if form is Form.NDJSON else b"[" + line + b"," + line + noise, form, RULES)


@pytest.mark.parametrize("form", [Form.NDJSON, Form.ARRAY])
def test_one_changed_byte_is_never_taken_in_another_meaning(form: Form) -> None:
    """Every byte of a body in turn becomes each of a few others."""
    line = b'{"user_id": "ab", "op": "+", "day": "2026-03-01", "metadata": {"platform": "x"}}'
    body = line + b"\n" + line + b"\n" + line if form is Form.NDJSON else b"[%b,%b]" % (line, line)
    taken = 0
    for place in range(len(body)):
        for other in b'"\\{}[]:, \n\r\t\x00x\xff':
            changed = body[:place] + bytes([other]) + body[place + 1 :]
            taken += check(changed, form, RULES) is not None

    assert taken > 0


def plain_lines(count: int, **more: str) -> bytes:
    """Lines of one shape."""
    return b"".join(
        json.dumps({"user_id": f"u{i}", "op": "+-"[i % 2], "day": "2026-03-01", **more}).encode()
        + b"\n"
        for i in range(count)
    )


@pytest.mark.parametrize(
    "more",
    [{}, {"event_id": "e"}, {"ts": "2026-03-01T10:00:00Z"}, {"note": "a"}],
    ids=["three fields", "event_id", "ts", "unknown"],
)
def test_what_programs_write_is_taken_in_columns(more: dict[str, str]) -> None:
    """Also with an event id, a time, or a field that nobody asked for."""
    table = check(plain_lines(30, **more), Form.NDJSON, RULES)

    assert table is not None and table.received == 30


def test_dimensions_are_taken_in_columns() -> None:
    """Declared ones have their values, others are not kept."""
    body = b"".join(
        b'{"user_id":"u","op":"+","day":"2026-03-01","metadata":{"platform":"%b","x":"y"}}\n' % one
        for one in (b"ios", b"web", b"ios")
    )
    table = check(body, Form.NDJSON, RULES)

    assert table is not None and ["platform"] == list(table.labels)
    assert ("ios", "web") == table.labels["platform"].values


def test_a_rejected_value_is_worded_as_ever() -> None:
    """Lines with wrong values stay in columns with the others, rejected in the same words."""
    lines = plain_lines(20).replace(b'"u7"', b'""').replace(b'"u9"', b'"%b"' % (b"u" * 300))
    table = check(lines, Form.NDJSON, RULES)

    assert table is not None
    assert [7, 9] == [one.index for one in table.rejected]


def test_many_rejections_are_left_to_the_reader_of_items(monkeypatch: pytest.MonkeyPatch) -> None:
    """Above the limit the whole body is."""
    monkeypatch.setattr(plain, "REJECTED_MAX", 3)
    body = plain_lines(4).replace(b"2026-03-01", b"2026-13-01")

    assert check(body, Form.NDJSON, RULES) is None


def test_an_envelope_is_left_to_others() -> None:
    """A large body is an array or lines."""
    body = plain_lines(40)
    large = decode_large(body, Form.NDJSON, rules=RULES)

    assert large is not None
    assert outcome(by_item.decode(body, Form.NDJSON, rules=RULES)) == outcome(large)
    assert decode_large(body, Form.ENVELOPE, rules=RULES) is None


@pytest.mark.parametrize("form", [Form.NDJSON, Form.ARRAY])
@pytest.mark.parametrize("limit", [5, 6])
def test_large_bodies_are_within_the_limit_on_items(
    form: Form, limit: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One item above it, or as many lines with the blank ones, is refused by the other reader."""
    monkeypatch.setattr(by_item, "EVENTS_MAX", limit)
    body, blank = plain_lines(6), b""
    if form is Form.ARRAY:
        body = b"[" + body.strip().replace(b"\n", b",") + b"]"
    else:
        body, blank = plain_lines(4), b"\n\n"
    table = decode_large(body + blank, form, rules=RULES)

    assert (limit == 6) == (table is not None)
    if table is None:
        with pytest.raises(TooLargeError):
            by_item.decode(body + blank, form, rules=RULES)


def test_no_repr_shows_a_user() -> None:
    """Neither of the items nor of the columns."""
    body = plain_lines(3).replace(b"u1", CANARY.encode())
    found = plain._Items.of(body, Form.NDJSON, RULES)

    assert found is not None
    assert CANARY not in f"{found!r} {found.columns()!r}"
