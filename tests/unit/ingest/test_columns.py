"""Reading events from Arrow columns, against the reader of single events."""

import datetime as dt
import json
from typing import Any
from zoneinfo import ZoneInfo

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from dpdau.domain import Op, day_number
from dpdau.errors import TooLargeError, UnsupportedMediaError
from dpdau.ingest import columns
from dpdau.ingest.columns import decode_table, local_days
from dpdau.ingest.decoded import DecodedTable
from dpdau.ingest.event import Decoded, decode_objects
from dpdau.ingest.rules import Fields, Rules

TODAY = dt.date(2026, 3, 1)
RULES = Rules(TODAY, dimensions=("platform", "country"), retention_days=400)
CANARY = "canary-90bb12"
ZONES = [
    "UTC",
    "Europe/Berlin",
    "America/St_Johns",
    "Australia/Lord_Howe",
    "Pacific/Apia",
    "America/Sao_Paulo",
    "Asia/Kathmandu",
]


def table(**given_columns: Any) -> pa.Table:
    """A table with good values for the columns that are not given."""
    n = max((len(one) for one in given_columns.values() if one is not None), default=1)
    whole: dict[str, Any] = {"user_id": ["u"] * n, "op": ["+"] * n, "day": ["2026-02-01"] * n}
    whole.update(given_columns)
    return pa.table({name: one for name, one in whole.items() if one is not None})


def outcome(decoded: Decoded | DecodedTable) -> tuple[Any, list[tuple[int, str, str | None]]]:
    """The events and the rejections."""
    return decoded.events, [(one.index, one.code.value, one.field) for one in decoded.rejected]


def nulls_dropped(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """The rows of a table as a sender of JSON would write them."""
    fields = ("user_id", "op", "day", "ts", "event_id")
    return [
        {name: row[name] for name in fields if row.get(name) is not None}
        | {"metadata": {name: row.get(name) for name in RULES.dimensions}}
        for row in rows
    ]


@pytest.mark.parametrize(
    "kind",
    [
        pa.string(),
        pa.large_string(),
        pa.binary(),
        pa.string_view(),
        pa.dictionary(pa.int32(), pa.string()),
    ],
)
def test_string_columns_of_every_kind_are_read(kind: pa.DataType) -> None:
    """However Arrow holds the strings, in one piece, sliced or chunked, they mean the same."""
    values = ["b", "a", "b", "é"]
    encode = kind.index_type if pa.types.is_dictionary(kind) else None
    whole = pa.array(["x", *values])
    column = whole.dictionary_encode() if encode else whole.cast(kind)
    pieces = pa.chunked_array([column.slice(1, 2), column.slice(3)])

    for one in (column.slice(1), pieces):
        events = decode_table(table(user_id=one), rules=RULES).events
        assert values == [event.user_id for event in events]


def test_whole_numbers_are_ids_in_their_decimal_form() -> None:
    """A table may hold numeric user ids."""
    decoded = decode_table(table(user_id=pa.array([7, -1, None])), rules=RULES)

    assert (["7", "-1"], [(2, "missing_field", "user_id")]) == (
        [one.user_id for one in decoded.events],
        outcome(decoded)[1],
    )


@pytest.mark.parametrize(
    "column",
    [
        pa.array([dt.date(2026, 2, 1), None, dt.date(2026, 3, 9)], pa.date32()),
        pa.array([dt.date(2026, 2, 1), None, dt.date(2026, 3, 9)], pa.date64()),
        pa.array([1_769_922_000_000, None, 1_773_014_400_000], pa.int64()).cast(pa.date64()),
        pa.array([1_769_922_000_000, None, 1_773_014_400_000], pa.timestamp("ms")),
        pa.array(["2026-02-01", None, "2026-03-09"]),
        pa.array(["2026-02-01", None, "2026-03-09"]).dictionary_encode(),
    ],
)
def test_day_columns_of_every_kind_are_read(column: pa.Array) -> None:
    """Dates, timestamps and strings give the same days and the same rejections, also sliced."""
    padded = pa.chunked_array([column.slice(2), column, column.slice(1)])
    decoded = decode_table(table(day=padded.slice(1, 3)), rules=RULES)

    assert [dt.date(2026, 2, 1)] == [one.day for one in decoded.events]
    assert [(1, "missing_field", "day"), (2, "future_day", "day")] == outcome(decoded)[1]


@pytest.mark.parametrize("unit", ["s", "ms", "us", "ns"])
@pytest.mark.parametrize("zone", ZONES)
def test_a_timestamp_column_gives_the_day_in_the_zone(unit: str, zone: str) -> None:
    """A timestamp with a zone is a moment; one without is in TIMEZONE already."""
    rules = Rules(TODAY, ZoneInfo(zone))
    moments = [
        dt.datetime(2025, 10, 26, tzinfo=dt.UTC) + dt.timedelta(minutes=37 * i) for i in range(200)
    ]
    expected = [one.astimezone(rules.zone).date() for one in moments]
    aware = pa.array(moments, pa.timestamp(unit, "Asia/Tokyo"))
    naive = pa.array([one.replace(tzinfo=None) for one in moments], pa.timestamp(unit))

    assert expected == [
        one.day for one in decode_table(table(day=None, ts=aware), rules=rules).events
    ]
    assert [one.date() for one in moments] == [
        one.day for one in decode_table(table(day=None, ts=naive), rules=rules).events
    ]


@given(st.lists(st.integers(-2_208_988_800, 4_102_444_800), max_size=30), st.sampled_from(ZONES))
def test_local_days_are_those_of_the_calendar(seconds: list[int], name: str) -> None:
    """For any moment of two centuries, the day is the one that datetime gives."""
    zone = ZoneInfo(name)
    expected = [day_number(dt.datetime.fromtimestamp(one, tz=zone).date()) for one in seconds]

    assert expected == local_days(np.array(seconds, dtype=np.int64), zone).tolist()


@pytest.mark.parametrize("name", ZONES)
def test_local_days_are_exact_around_every_change_of_the_clock(name: str) -> None:
    """Every minute of the days on which an offset changes, also at midnight, has its day."""
    zone = ZoneInfo(name)
    hours = range(0, 4_000 * 24 * 3_600, 3_600)
    start = int(dt.datetime(2005, 1, 1, tzinfo=dt.UTC).timestamp())
    offset = [dt.datetime.fromtimestamp(start + one, tz=zone).utcoffset() for one in hours]
    changes = [start + hours[i] for i in range(1, len(hours)) if offset[i] != offset[i - 1]]
    seconds = np.array(
        [one + 60 * minute for one in changes for minute in range(-180, 180)], dtype=np.int64
    )
    expected = [
        day_number(dt.datetime.fromtimestamp(one, tz=zone).date()) for one in seconds.tolist()
    ]

    assert expected == local_days(seconds, zone).tolist()


def test_where_the_day_is_null_the_ts_stands_for_it() -> None:
    """A table may have both columns."""
    decoded = decode_table(
        table(
            day=["2026-02-01", None, None, None],
            ts=["2026-02-09T00:00:00Z", "2026-02-02T00:00:00Z", "bad", None],
        ),
        rules=RULES,
    )

    assert [dt.date(2026, 2, 1), dt.date(2026, 2, 2)] == [one.day for one in decoded.events]
    assert [(2, "bad_day", "ts"), (3, "missing_field", "day")] == outcome(decoded)[1]


def test_without_an_op_column_every_row_is_a_plus() -> None:
    """A table of visits needs no op."""
    assert [Op.ADD] * 2 == [
        one.op for one in decode_table(table(op=None, day=["2026-02-01"] * 2), rules=RULES).events
    ]


def test_labels_keep_their_rows_when_rows_are_rejected() -> None:
    """Codes follow the rows that stay."""
    decoded = decode_table(
        table(
            user_id=["a", None, "c", "d", "e"],
            platform=["ios", "tv", None, "web", ""],
            country=pa.nulls(5),
        ),
        rules=RULES,
    )

    assert [{"platform": "ios"}, {}, {"platform": "web"}] == [one.labels for one in decoded.events]
    assert [(1, "missing_field", "user_id"), (4, "bad_metadata", "metadata")] == outcome(decoded)[1]


def test_bad_utf_8_costs_its_own_rows() -> None:
    """A table is not trusted to hold UTF-8 because its type says so."""
    raw = pa.array([b"ok", b"\xff", b"ok", b"\xed\xa0\x80"], pa.binary())
    bad = pa.StringArray.from_buffers(4, *raw.buffers()[1:])
    decoded = decode_table(table(user_id=bad, platform=bad, event_id=bad), rules=RULES)

    assert ["ok", "ok"] == [one.user_id for one in decoded.events]
    assert [(1, "bad_user_id", "user_id"), (3, "bad_user_id", "user_id")] == outcome(decoded)[1]


VALUES = {
    "user_id": st.sampled_from(["a", "b", "", "x" * 256, "x" * 257, "é" * 129, None]),
    "op": st.sampled_from(["+", "+", "-", "", "add", None]),
    "day": st.sampled_from(
        [
            "2026-02-01",
            "2026-03-02",
            "2026-03-03",
            "2026-02-30",
            "2024-01-01",
            "1899-12-31",
            "x",
            "",
            "20260201",
            None,
            None,
        ]
    ),
    "ts": st.sampled_from(
        [
            "2026-02-01T00:00:00Z",
            "2026-02-01T23:00:00",
            "9999-12-31T23:59:59Z",
            "2026-02-01 12:00:00.5-07:00",
            "2026-02-01",
            "",
            None,
        ]
    ),
    "event_id": st.sampled_from(["e1", "e2", "", "x" * 257, None]),
    "platform": st.sampled_from(["ios", "web", "", "x" * 65, None]),
}


@given(st.lists(st.fixed_dictionaries(VALUES), max_size=12), st.sampled_from(ZONES))
def test_columns_and_single_events_agree(rows: list[dict[str, Any]], zone: str) -> None:
    """Both readers take the same rows, give the same events, and reject the same rows."""
    rules = Rules(TODAY, ZoneInfo(zone), RULES.dimensions, RULES.retention_days)
    schema = pa.schema([(name, pa.string()) for name in VALUES])
    read = decode_table(pa.Table.from_pylist(rows, schema), rules=rules)
    expected = decode_objects(nulls_dropped(rows), rules=rules)

    assert expected.events == read.events
    assert [one.index for one in expected.rejected] == [one.index for one in read.rejected]


@given(st.fixed_dictionaries(VALUES))
def test_a_single_fault_has_the_same_code_in_both(row: dict[str, Any]) -> None:
    """What one reader calls a fault, the other calls the same."""
    good = {"user_id": "a", "op": "+", "day": "2026-02-01", "ts": None}
    schema = pa.schema([(name, pa.string()) for name in row])
    for name, value in row.items():
        item = {**good, name: value}
        read = decode_table(pa.Table.from_pylist([item], schema), rules=RULES)
        expected = decode_objects(nulls_dropped([item]), rules=RULES)

        assert list(expected.rejected) == list(read.rejected)
        assert expected.events == read.events


@pytest.mark.parametrize("ids", [pa.array([7, None, 12]), pa.array([7, None, 12], pa.uint8())])
@pytest.mark.parametrize("encoded", [True, False])
def test_integers_beside_metadata_name_the_users_that_they_name_without(
    ids: pa.Array, encoded: bool
) -> None:
    """A user id is its decimal form, whatever other columns there are."""
    user_id = ids.dictionary_encode() if encoded else ids
    columns = {"user_id": user_id, "day": pa.array(["2026-02-01"] * 3)}
    plain = pa.table(columns)
    beside = pa.table({**columns, "metadata": pa.array([{"days": None}] * 3)})
    found = [decode_table(one, rules=RULES) for one in (plain, beside)]

    assert ["7", "12"] == [one.user_id for one in found[1].events]
    assert [one.user_id for one in found[0].events] == [one.user_id for one in found[1].events]
    assert outcome(found[0])[1] == outcome(found[1])[1]


@pytest.mark.parametrize("whole", [True, False])
def test_a_table_with_metadata_is_read_as_the_events_that_it_holds(whole: bool) -> None:
    """Removed days and dimensions inside metadata mean what they mean in JSON."""
    items = [
        {
            "user_id": "u",
            "op": "-",
            "day": None,
            "metadata": {"days": ["2026-02-01", "2026-01-01"], "platform": None},
        },
        {
            "user_id": "u",
            "op": "+",
            "day": "2026-02-01",
            "metadata": {"days": None, "platform": "ios"},
        },
        {"user_id": "", "op": "+", "day": "2026-02-01", "metadata": None},
    ]
    arrow = pa.Table.from_pylist(items)
    read = decode_table(
        arrow if whole else arrow.to_batches()[0], rules=RULES, row_index=np.array([4, 5, 9])
    )
    expected = decode_objects(json.loads(json.dumps(items)), rules=RULES)

    assert expected.events == read.events
    assert [(9, "bad_user_id")] == [(one.index, one.code) for one in read.rejected]


def test_metadata_may_be_a_map_beside_exact_timestamps() -> None:
    """A map column is an object; nanoseconds do not keep a row from being read."""
    moment = pa.array([1_767_225_600_000_000_001], pa.timestamp("ns", "UTC"))
    metadata = pa.array([[("platform", "tv")]], pa.map_(pa.string(), pa.string()))
    read = decode_table(table(day=None, ts=moment, metadata=metadata), rules=RULES)

    assert [(dt.date(2026, 1, 1), {"platform": "tv"})] == [
        (one.day, one.labels) for one in read.events
    ]


@pytest.mark.parametrize(
    "bad",
    [
        table(user_id=None, day=["2026-02-01"]),
        table(day=None, op=["+"]),
        table(op=pa.array([1])),
        table(day=pa.array([20260201])),
        table(ts=pa.array([20260201])),
        table(platform=pa.array([1.5])),
        table(event_id=pa.array([1])),
        pa.table([["a"], ["b"], ["2026-02-01"]], names=["user_id", "user_id", "day"]),
    ],
)
def test_a_table_of_another_shape_is_refused_as_a_whole(bad: pa.Table) -> None:
    """A missing, doubled or wrongly typed column is one error."""
    with pytest.raises(UnsupportedMediaError):
        decode_table(bad, rules=RULES)


def test_too_many_rows_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    """The number of rows has a limit."""
    monkeypatch.setattr(columns, "ROWS_MAX", 2)

    with pytest.raises(TooLargeError):
        decode_table(table(user_id=["a"] * 3), rules=RULES)


def test_columns_may_have_other_names() -> None:
    """A source's own names are used where they are given."""
    rules = Rules(TODAY, fields=Fields(user_id="who", day="on"))
    read = decode_table(pa.table({"who": ["a"], "on": ["2026-02-01"]}), rules=rules)

    assert [("a", dt.date(2026, 2, 1))] == [(one.user_id, one.day) for one in read.events]


def test_nothing_shows_an_id() -> None:
    """A unique id in any place is in no repr and no rejection."""
    for name in VALUES:
        read = decode_table(table(**{name: [CANARY, "x" * 300, None]}), rules=RULES)
        assert CANARY not in f"{read!r} {read.rejected!r} {read}"


def test_an_empty_table_has_no_events() -> None:
    """Zero rows are no error."""
    read = decode_table(
        table(
            user_id=pa.array([], pa.string()),
            op=pa.array([], pa.string()),
            day=pa.array([], pa.string()),
        ),
        rules=RULES,
    )

    assert (0, []) == (read.received, read.events)
