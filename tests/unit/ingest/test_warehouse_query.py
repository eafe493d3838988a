"""The query over a table of events, in the words of each engine, and what it asks of columns."""

import datetime as dt
import os
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo

import pytest

from dpdau.domain import Op, Segment
from dpdau.errors import InvalidSettingError, UnsupportedMediaError
from dpdau.ingest.event_tables import MonthSpan
from dpdau.ingest.rules import BAD_DAY, NO_USER_ID, Fields, Rules
from dpdau.ingest.warehouse_query import EventsQuery, table_of, taken_and_refused

ibis = pytest.importorskip("ibis")

SNAPSHOTS = Path(__file__).parent / "snapshots"
COMPILERS = {
    "duckdb": "DuckDBCompiler",
    "postgres": "PostgresCompiler",
    "bigquery": "BigQueryCompiler",
    "snowflake": "SnowflakeCompiler",
    "clickhouse": "ClickHouseCompiler",
    "pyspark": "PySparkCompiler",
}
SPAN = MonthSpan("2026-02", (30,), (Segment("platform", "ios"), Segment("platform", "o'web")))
RULES = Rules(today=dt.date(2026, 4, 2), dimensions=("platform",), retention_days=800)
PLAIN = Rules(today=RULES.today)
COLUMNS = {"user_id": "string", "op": "string", "day": "date", "seq": "int64"}


def words(expression: Any, dialect: str) -> str:
    """An expression as an engine is told it; needs no library of the engine."""
    from ibis.backends.sql import compilers

    compiler = getattr(compilers, COMPILERS[dialect])()
    text: str = compiler.to_sqlglot(expression).sql(dialect=compiler.dialect, pretty=True)
    return text


def query(columns: dict[str, str], **changes: Any) -> EventsQuery:
    """The query over a table with such columns."""
    given = {"rules": PLAIN, "span": SPAN, "order": "seq", "dialect": "duckdb", **changes}
    return EventsQuery(ibis.table(columns, name="events"), **given)


@pytest.mark.parametrize("dialect", COMPILERS)
def test_the_words_of_each_engine_are_known(dialect: str) -> None:
    """With an op, an event id and segments; `DPDAU_UPDATE_SNAPSHOTS=1` writes them anew."""
    columns = {**COLUMNS, "platform": "string", "event_id": "string", "other": "json"}
    asked = query(columns, rules=RULES, dialect=dialect)
    text = "".join(f"{words(one, dialect)};\n\n" for one in (asked.survey(), asked.counts()))
    path = SNAPSHOTS / f"warehouse.{dialect}.sql"
    if os.environ.get("DPDAU_UPDATE_SNAPSHOTS"):
        path.write_text(text, "utf-8")

    assert path.read_text("utf-8") == text
    assert "other" not in text


@pytest.mark.parametrize("dialect", COMPILERS)
def test_every_engine_has_words_for_moments_of_a_zone(dialect: str) -> None:
    """Days of a time zone come from comparisons: no engine is asked what it knows of zones."""
    columns = {"user_id": "int64", "ts": "timestamp('UTC')", "day": "timestamp"}
    rules = Rules(today=RULES.today, zone=ZoneInfo("Europe/Berlin"))
    asked = query(
        columns, rules=rules, order=None, dialect=dialect, span=MonthSpan("2026-03", (7,))
    )
    text = f"{words(asked.survey(), dialect)}{words(asked.counts(), dialect)}"

    assert "Berlin" not in text and "EPOCH_S" not in text.upper()
    # The last day of winter time begins an hour later in UTC than the first one of summer time.
    assert {"postgres": "2026-03-28T23:00:00+00:00", "bigquery": "2026-03-29T22:00:00+00:00"}.get(
        dialect, ""
    ) in text


@pytest.mark.parametrize(
    ("columns", "changes", "message"),
    [
        ({"day": "date"}, {}, "Expected a column user_id in"),
        ({"user_id": "float64", "day": "date"}, {}, "user_id of a type among string, integer"),
        ({"user_id": "string", "seq": "int64"}, {}, "Expected a column day or ts"),
        ({"user_id": "string", "day": "string"}, {}, "day of a type among date, timestamp"),
        ({"user_id": "string", "ts": "date"}, {}, "ts of a type among timestamp"),
        ({**COLUMNS, "op": "boolean"}, {}, "op of a type among string"),
        (COLUMNS, {"order": "turn"}, "Expected a column turn in"),
        ({**COLUMNS, "seq": "float64"}, {}, "seq of a type among integer"),
        (COLUMNS, {"rules": RULES}, "Expected a column platform in"),
        (COLUMNS, {"rules": Rules(RULES.today, fields=Fields(op="kind"))}, "a column kind in"),
        (COLUMNS, {"rules": Rules(RULES.today, fields=Fields(ts="at"))}, "a column at in"),
        (
            {"user_id": "string", "day": "date", "seq": "int64", "OP": "string"},
            {},
            "other capitals",
        ),
        ({**COLUMNS, "event_id": "json"}, {}, "event_id of a type among string"),
    ],
)
def test_columns_that_are_missing_or_of_another_type_are_named(
    columns: dict[str, str], changes: dict[str, Any], message: str
) -> None:
    """A column that an option names has to be there, and of a type that all engines agree on."""
    with pytest.raises(UnsupportedMediaError, match=message):
        query(columns, **changes)


@pytest.mark.parametrize(
    ("more", "rules", "why"),
    [
        ({"op": "string"}, PLAIN, "the last value in the column op decides"),
        ({"event_id": "string"}, PLAIN, "of rows with one event_id the first counts"),
        ({"platform": "string"}, RULES, "the segment of a user is that of the first label"),
    ],
)
def test_what_depends_on_an_order_asks_for_one(
    more: dict[str, str], rules: Rules, why: str
) -> None:
    """A table has no order of its own; without an op, ids and segments none is needed."""
    columns = {"user_id": "string", "day": "date"}
    with pytest.raises(InvalidSettingError, match=why):
        query({**columns, **more}, rules=rules, order=None)
    plain = query(columns, order=None, span=MonthSpan("2026-02", (1,)))
    assert "DISTINCT" in words(plain.counts(), "duckdb")


def test_a_table_of_retractions_counts_nobody() -> None:
    """Where every row takes out, none is asked for."""
    columns, rules = {"user_id": "string", "day": "date"}, Rules(RULES.today, op_default=Op.REMOVE)
    asked = query(columns, rules=rules, order=None, span=MonthSpan("2026-02", (1,)))
    assert "LIMIT 0" in words(asked.counts(), "duckdb")


def test_results_become_the_table_and_the_faults() -> None:
    """Parts add up to everyone; windows stand as they were asked for, also twice."""
    span = MonthSpan("2026-02", (7, 1, 7), (Segment("platform", "ios"),))
    names = [f"w{window}_202602{day:02d}" for day in range(1, 29) for window in (1, 7)]
    rows = [{"part": part, **dict.fromkeys(names, part + 1)} for part in (0, 1)]
    rows[1]["w1_20260228"] = 5

    table = table_of(rows, span)
    assert (28, 2, 3) == table.shape
    assert [[3, 3, 3], [2, 2, 2]] == table[0].tolist()
    assert [[3, 6, 3], [2, 5, 2]] == table[27].tolist()
    assert (9, ((NO_USER_ID, 2), (BAD_DAY, 3))) == taken_and_refused(
        [{"fault": 6, "rows": 3}, {"fault": 0, "rows": 4}, {"fault": 1, "rows": 2}]
    )
