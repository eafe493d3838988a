"""The database behind the ledger."""

import sqlite3
import stat
import threading
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest
from sqlalchemy import Connection, exc, text

from dpdau.errors import (
    InvalidPlanError,
    LedgerConflictError,
    LedgerCorruptError,
    LedgerUnavailableError,
)
from dpdau.ledger.engine import ATTEMPTS_MAX, Database
from dpdau.telemetry import Metrics
from simulation.ledger_cases import file_of, url_of


@pytest.fixture
def database(tmp_path: Path) -> Iterator[Database]:
    """A database with one table."""
    one = Database(url_of(tmp_path), busy_timeout_seconds=0.03)
    one.create_file()
    one.run("make", lambda connection: connection.execute(text("CREATE TABLE t (a INTEGER)")))
    yield one
    one.close()


def insert(connection: Connection) -> None:
    """Adds a row."""
    connection.execute(text("INSERT INTO t VALUES (1)"))


def count(connection: Connection) -> int:
    """Counts the rows."""
    return int(connection.execute(text("SELECT count(*) FROM t")).scalar_one())


def test_files_are_private(database: Database, tmp_path: Path) -> None:
    """The database and its side files are 0600, the folders that were made 0700."""
    database.run("write", insert)
    modes = {
        path.relative_to(tmp_path).as_posix(): stat.S_IMODE(path.stat().st_mode)
        for path in (tmp_path / "ledgers", *(tmp_path / "ledgers").iterdir())
    }

    assert 0o700 == modes.pop("ledgers")
    assert {"ledgers/ledger.sqlite", "ledgers/ledger.sqlite-wal"} <= modes.keys()
    assert {0o600} == set(modes.values())


def test_connections_are_durable_and_strict(database: Database) -> None:
    """Every connection writes ahead, waits for the disk, and enforces keys and triggers."""
    names = ("journal_mode", "synchronous", "foreign_keys", "recursive_triggers")

    found = database.run(
        "pragmas",
        lambda connection: [
            connection.exec_driver_sql(f"PRAGMA {name}").scalar_one() for name in names
        ],
    )

    assert ["wal", 2, 1, 1] == found


def test_replace_cannot_get_around_a_trigger(database: Database) -> None:
    """INSERT OR REPLACE fires the trigger that refuses a deletion."""

    def make(connection: Connection) -> None:
        connection.exec_driver_sql("CREATE TABLE kept (a INTEGER PRIMARY KEY, b TEXT)")
        connection.exec_driver_sql(
            "CREATE TRIGGER kept_no_delete BEFORE DELETE ON kept "
            "BEGIN SELECT RAISE(ABORT, 'append-only: kept'); END"
        )
        connection.exec_driver_sql("INSERT INTO kept VALUES (1, 'first')")

    database.run("make", make)

    with pytest.raises(exc.IntegrityError, match="append-only: kept"):
        database.run(
            "replace",
            lambda connection: connection.exec_driver_sql("REPLACE INTO kept VALUES (1, 'second')"),
        )


def test_failed_work_is_rolled_back(database: Database) -> None:
    """What a transaction wrote before it failed is gone."""

    def fail(connection: Connection) -> None:
        insert(connection)
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        database.run("fail", fail)

    assert 0 == database.run("count", count, write=False)


def test_a_writer_waits_and_gives_up(database: Database, tmp_path: Path) -> None:
    """Another writer that stays gives a conflict that names the transaction; readers go on."""
    with closing(sqlite3.connect(file_of(tmp_path), isolation_level=None)) as other:
        other.execute("BEGIN IMMEDIATE")

        with pytest.raises(LedgerConflictError) as refused:
            database.run("step", insert)

        assert {"transaction": "step"} == refused.value.facts
        assert 0 == database.run("count", count, write=False)
        other.execute("COMMIT")
    database.run("step", insert)


def test_a_busy_transaction_is_run_again(database: Database) -> None:
    """A transaction that met another writer starts again, a bounded number of times."""
    tries: list[int] = []

    def busy(connection: Connection) -> None:
        insert(connection)
        tries.append(1)
        if len(tries) < ATTEMPTS_MAX:
            error = sqlite3.OperationalError("database is locked")
            error.sqlite_errorcode = sqlite3.SQLITE_BUSY_SNAPSHOT
            raise error

    database.run("step", busy)

    assert (ATTEMPTS_MAX, 1) == (len(tries), database.run("count", count, write=False))


def test_writers_take_turns(database: Database) -> None:
    """Reading and then writing in one transaction never loses another thread's write."""
    patient = Database(f"sqlite:///{database.path}", busy_timeout_seconds=30)

    def increment(connection: Connection) -> None:
        found = count(connection)
        connection.execute(text("INSERT INTO t VALUES (:a)"), {"a": found})

    def work() -> None:
        for _ in range(20):
            patient.run("increment", increment)

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    rows = patient.run(
        "rows", lambda connection: connection.execute(text("SELECT a FROM t ORDER BY a")).all()
    )
    patient.close()

    assert list(range(80)) == [row.a for row in rows]


def test_a_file_that_is_no_database_is_corrupt(tmp_path: Path) -> None:
    """Foreign bytes in the ledger's place stop the start, with what to do."""
    file_of(tmp_path).parent.mkdir()
    file_of(tmp_path).write_bytes(b"not a database" * 100)
    database = Database(url_of(tmp_path), busy_timeout_seconds=1)

    with pytest.raises(LedgerCorruptError, match="dpdau restore"):
        database.run("open", count, write=False)
    database.close()


def test_text_that_cannot_be_read_is_corrupt(database: Database) -> None:
    """Bytes that are not UTF-8 in a text column are corruption, not an outage."""
    with pytest.raises(LedgerCorruptError):
        database.run(
            "read",
            lambda connection: connection.exec_driver_sql("SELECT CAST(x'ff' AS TEXT)").all(),
        )


def test_a_folder_that_cannot_be_made_is_an_outage(tmp_path: Path) -> None:
    """A ledger under a file cannot be created, and the error says where."""
    (tmp_path / "ledgers").write_text("in the way")
    database = Database(url_of(tmp_path), busy_timeout_seconds=1)

    with pytest.raises(LedgerUnavailableError) as refused:
        database.create_file()

    assert {"path": str(file_of(tmp_path))} == refused.value.facts
    database.close()


def test_a_file_that_vanished_is_an_outage(tmp_path: Path) -> None:
    """A path that cannot be opened is reported as unavailable, with its transaction."""
    database = Database(url_of(tmp_path), busy_timeout_seconds=1)

    with pytest.raises(LedgerUnavailableError) as refused:
        database.run("read", count, write=False)

    assert "read" == refused.value.facts["transaction"]
    database.close()


def test_a_missing_table_is_damage(database: Database) -> None:
    """A table that was taken out of the file is corruption."""
    with pytest.raises(LedgerCorruptError, match="no such table"):
        database.run("read", lambda connection: connection.execute(text("SELECT * FROM gone")))


@pytest.mark.parametrize("statement", ["SELEC 1", "INSERT INTO t VALUES (1, 2)"])
def test_a_wrong_statement_is_a_bug(database: Database, statement: str) -> None:
    """An error that no caller can cause is not translated."""
    with pytest.raises(exc.OperationalError):
        database.run("bug", lambda connection: connection.execute(text(statement)))


def test_a_full_disk_is_an_outage(database: Database) -> None:
    """A write that finds no space says so, and can be tried again later."""

    def fill(connection: Connection) -> None:
        connection.exec_driver_sql("PRAGMA max_page_count=1")
        for _ in range(10_000):
            insert(connection)

    with pytest.raises(LedgerUnavailableError, match="full"):
        database.run("step", fill)

    assert 0 == database.run("count", count, write=False)


def test_transactions_are_counted_and_timed(tmp_path: Path) -> None:
    """Each has its name and how it ended: done, or the code of what it raised."""
    metrics = Metrics()
    database = Database(url_of(tmp_path), busy_timeout_seconds=1, metrics=metrics)
    database.create_file()

    def refuse(_connection: Connection) -> None:
        raise InvalidPlanError("no")

    database.run("head", lambda _: None, write=False)
    for _ in range(2):
        with pytest.raises(InvalidPlanError):
            database.run("step", refuse)
    with pytest.raises(LedgerCorruptError):
        database.run("head", count, write=False)
    with pytest.raises(ZeroDivisionError):
        database.run("head", lambda _: 1 // 0)
    database.close()

    value = metrics.registry.get_sample_value
    outcomes = {
        (name, outcome): value(
            "dpdau_ledger_transactions_total", {"name": name, "outcome": outcome}
        )
        for name in ("head", "step")
        for outcome in ("done", "invalid_plan", "ledger_corrupt", "failed")
    }
    assert {
        ("head", "done"): 1,
        ("step", "invalid_plan"): 2,
        ("head", "ledger_corrupt"): 1,
        ("head", "failed"): 1,
    } == {name: times for name, times in outcomes.items() if times}
    assert 3 == value("dpdau_ledger_transaction_seconds_count", {"name": "head"})
