"""A table elsewhere: its address, who may listen on the way, and what its engine says."""

import datetime as dt
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from dpdau.errors import (
    InvalidSettingError,
    NotFoundError,
    TooLargeError,
    UnsupportedMediaError,
    WarehouseUnavailableError,
)
from dpdau.ingest import warehouse
from dpdau.ingest.event_tables import MonthSpan
from dpdau.ingest.rules import Rules
from dpdau.ingest.warehouse import TableAddress, Warehouse

duckdb = pytest.importorskip("duckdb")
ibis = pytest.importorskip("ibis")

# Ibis 12 reads schemas by a name that DuckDB 2 has another one for.
pytestmark = pytest.mark.filterwarnings("ignore:fetch_arrow_table:DeprecationWarning")

SPAN = MonthSpan("2026-02", (1,))
RULES = Rules(today=dt.date(2026, 4, 2))


def make(path: Path) -> Path:
    """A DuckDB file with three events of two users."""
    with duckdb.connect(str(path)) as connection:
        connection.execute(
            "create table events (user_id varchar, day date);"
            "insert into events values"
            " ('a', '2026-02-01'), ('b', '2026-02-01'), ('a', '2026-02-01')"
        )
    return path


def at(path: Path, table: str = "events") -> Warehouse:
    """The table of a DuckDB file."""
    return Warehouse(TableAddress.parse(f"duckdb://{path}?table={table}"), rules=RULES, span=SPAN)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "events.parquet",
        "duckdb:///e.db",
        "duckdb:///e.db?table=",
        "duckdb:///e.db?table=a&table=b",
        "duckdb:///e.db?table=a.b.c.d",
        "duckdb:///e.db?table=a..b",
        "mysql://h/d?table=e",
        "postgresql://u:hush@[::1/d?table=e",
    ],
)
def test_an_address_of_another_form_is_refused(text: str) -> None:
    """And not repeated, for it may hold a password."""
    with pytest.raises(InvalidSettingError) as caught:
        TableAddress.parse(text)
    assert "hush" not in f"{caught.value}{caught.value.__context__!r}"


def test_an_address_is_the_engine_s_own_with_a_table() -> None:
    """The table is taken out of it, and all else stays as it was; nothing of it is shown."""
    one = TableAddress.parse("postgres://u:p%40ss@[::1]:5/d?sslmode=disable&table=s.e&options=-cx")
    assert ("postgres", ("s", "e")) == (one.engine, one.table)
    assert "postgres://u:p%40ss@[::1]:5/d?sslmode=disable&options=-cx" == one.url
    assert "p%40ss" not in repr(one)
    assert "postgresql:///db" == TableAddress.parse("postgresql:///db?table=e").url
    paths = ["duckdb://rel/e%20f.db?table=e", "duckdb:///abs/e.db?table=e"]
    found = [str(TableAddress.parse(text).path) for text in paths]
    assert ["rel/e f.db", "/abs/e.db"] == found


@pytest.mark.parametrize(
    ("address", "safe"),
    [
        ("postgresql:///db?x=1", True),
        ("postgresql://localhost/db?x=1", True),
        ("postgresql://127.0.0.1:5432/db?x=1", True),
        ("postgresql://[::1]:5432/db?x=1", True),
        ("postgresql:///db?host=/run/postgresql", True),
        ("postgresql://%2Frun%2Fpostgresql/db?x=1", True),
        ("postgresql://db.example/db?x=1", False),
        ("postgresql://db.example/db?sslmode=prefer", False),
        ("postgresql://db.example/db?sslmode=require", True),
        ("postgresql://db.example/db?sslmode=verify-ca", True),
        ("postgres://u:p@db.example:5432/db?sslmode=verify-full", True),
        ("postgresql://localhost,db.example/db?x=1", False),
        ("postgresql://localhost/db?host=db.example", False),
        ("postgresql://localhost/db?hostaddr=10.0.0.7", False),
        ("clickhouse://ch.example/db?x=1", False),
        ("clickhouse://ch.example/db?secure=true", False),
        ("clickhouse://localhost/db?host=ch.example", False),
        ("clickhouse://localhost/db?", True),
        ("snowflake://u:p@account/db?protocol=http", False),
        ("snowflake://u:p@account/db?x=1", True),
        ("bigquery://project/dataset?x=1", True),
    ],
)
def test_counts_cross_a_network_under_tls_or_not_at_all(address: str, safe: bool) -> None:
    """The address of another machine has to ask for it; this machine need not."""
    text = f"{address}&table=events"
    if safe:
        assert ("events",) == TableAddress.parse(text).table
        return
    with pytest.raises(InvalidSettingError, match=r"TLS|sslmode|ClickHouse on this machine|HTTPS"):
        TableAddress.parse(text)


def test_a_connection_without_tls_to_elsewhere_is_closed(monkeypatch: pytest.MonkeyPatch) -> None:
    """Also where a service file or the environment, and not the address, named the machine."""
    psycopg = pytest.importorskip("psycopg")

    class Elsewhere:
        pgconn = info = None

        def __enter__(self) -> Any:
            self.pgconn = type("Open", (), {"ssl_in_use": False})
            self.info = type("Info", (), {"hostaddr": "10.0.0.7", "host": "db.example"})
            return self

        def __exit__(self, *_error: object) -> None:
            closed.append(True)

    closed: list[bool] = []
    monkeypatch.setattr(psycopg, "connect", lambda *_words, **_more: Elsewhere())
    address = TableAddress.parse("postgresql:///db?table=events")
    with pytest.raises(InvalidSettingError, match="Expected TLS"):
        Warehouse(address, rules=RULES, span=SPAN).count()
    assert [True] == closed


def test_a_table_is_counted_and_its_file_only_read(tmp_path: Path) -> None:
    """The same file can be read again, and is as it was, byte for byte."""
    path = make(tmp_path / "e v.db")
    before = path.read_bytes()
    counting = at(path)
    assert (0.0, 0) == counting.progress()
    found = counting.count()

    assert (2, 3, 0) == (found.table[0, 0, 0], found.received, found.rejected_count)
    assert (1.0, 3) == counting.progress()
    for name in ("main.events", "e v.main.events"):
        assert 3 == at(path, name).count().received
    assert (before, ["e v.db"]) == (path.read_bytes(), [one.name for one in tmp_path.iterdir()])


def test_what_is_asked_can_be_seen(tmp_path: Path) -> None:
    """Two queries in the engine's words; the second gives one number for each day and window."""
    survey, counts = at(make(tmp_path / "e.db")).sql()
    assert '"fault"' in survey and '"w1_20260228"' in counts
    with duckdb.connect(str(tmp_path / "e.db"), read_only=True) as connection:
        assert [(0, 3)] == connection.execute(survey).fetchall()
        assert (0, 2, 0) == connection.execute(counts).fetchall()[0][:3]


def test_what_is_not_there_is_said(tmp_path: Path) -> None:
    """A file, a table, a schema, and a file that is no database."""
    path = make(tmp_path / "e.db")
    (tmp_path / "other.db").write_text("no database" * 1000)
    with pytest.raises(NotFoundError, match="Expected a DuckDB file"):
        at(tmp_path / "none.db").count()
    for table in ("nothing", "nowhere.events"):
        with pytest.raises(NotFoundError, match=f"Expected the table {table}"):
            at(path, table).count()
    with pytest.raises(WarehouseUnavailableError, match="nothing was charged"):
        at(tmp_path / "other.db").count()


def test_memory_that_does_not_hold_it_is_an_error_of_its_own(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nothing is spilled to a disk, and the error names nobody."""
    path = make(tmp_path / "e.db")
    with duckdb.connect(str(path)) as connection:
        connection.execute(
            "insert into events select 'user-' || range, '2026-02-01' from range(300000)"
        )
    monkeypatch.setitem(warehouse._DUCKDB, "memory_limit", "8MB")
    with pytest.raises(TooLargeError, match="fit the memory") as caught:
        at(path).count()
    assert "user-" not in str(caught.value) and caught.value.__context__ is None
    assert ["e.db"] == [one.name for one in tmp_path.iterdir()]


def test_a_stop_before_the_beginning_ends_it(tmp_path: Path) -> None:
    """Nothing is asked any more; who stops again after the end is not told off."""
    counting = at(make(tmp_path / "e.db"))
    counting.count()
    counting.stop()
    with pytest.raises(UnsupportedMediaError, match="nothing was charged"):
        counting.count()


def test_a_missing_library_is_named_with_what_brings_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """That of Ibis is the extra `warehouse`; that of an engine is Ibis's own extra."""
    far = TableAddress.parse("bigquery://project/dataset?table=events")
    monkeypatch.setitem(sys.modules, "google.api_core.exceptions", None)
    with pytest.raises(InvalidSettingError, match=r"ibis-framework\[bigquery\]"):
        Warehouse(far, rules=RULES, span=SPAN).count()
    monkeypatch.setitem(sys.modules, "ibis.common.exceptions", None)
    with pytest.raises(InvalidSettingError, match=r"dp-dau-mau\[warehouse\]"):
        at(make(tmp_path / "e.db")).count()


def test_other_engines_are_connected_to_by_ibis(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With the address without the table; the connection is closed at the end."""
    backend = ibis.duckdb.connect(make(tmp_path / "e.db"), read_only=True)
    given: list[str] = []
    monkeypatch.setattr(ibis, "connect", lambda url: given.append(url) or backend)
    monkeypatch.setitem(warehouse._ERRORS, "clickhouse", ("duckdb:Error",))
    address = TableAddress.parse("clickhouse://u:p@localhost/db?table=events")
    counting = Warehouse(address, rules=RULES, span=SPAN)
    # The words are those of another engine: ids of ClickHouse are bytes already.
    with pytest.raises(WarehouseUnavailableError, match="BinderException"):
        counting.count()

    assert ["clickhouse://u:p@localhost/db"] == given
    with pytest.raises(duckdb.ConnectionException):
        backend.con.execute("select 1")


def test_a_login_that_fails_is_an_error_of_the_product(monkeypatch: pytest.MonkeyPatch) -> None:
    """Google raises it apart from what BigQuery raises; its words are not repeated."""

    class LoginError(Exception):
        """Stands for the root of what the library of logins raises."""

    class QueryError(Exception):
        """Stands for that of queries."""

    def refuse(_url: str) -> Any:
        raise LoginError("key of ann@example.org is hush")

    logins, queries = ModuleType("google.auth.exceptions"), ModuleType("google.api_core.exceptions")
    logins.GoogleAuthError, queries.GoogleAPIError = LoginError, QueryError  # type: ignore[attr-defined]
    for module in (logins, queries):
        monkeypatch.setitem(sys.modules, module.__name__, module)
    monkeypatch.setattr(ibis, "connect", refuse)
    far = TableAddress.parse("bigquery://project/dataset?table=events")
    with pytest.raises(WarehouseUnavailableError, match="found the error LoginError") as caught:
        Warehouse(far, rules=RULES, span=SPAN).count()
    assert "hush" not in str(caught.value) and caught.value.__context__ is None
