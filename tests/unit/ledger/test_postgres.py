"""The ledger on Postgres: its transactions, its limits and its errors."""

import sys
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from sqlalchemy import Connection, exc, text

from components import free_port
from dpdau.errors import (
    InvalidPlanError,
    InvalidSettingError,
    LedgerConflictError,
    LedgerCorruptError,
    LedgerUnavailableError,
)
from dpdau.ledger import Ledger, migrate, restore, schema, steps
from dpdau.ledger.backup import audit_copy
from dpdau.ledger.engine import Database
from in_process import captured_logs
from simulation.ledger_cases import (
    POSTGRES,
    Ticking,
    budget,
    empty_schema,
    file_of,
    mark_of,
    open_ledger,
    release,
    request,
    spend,
    sql,
)

pytestmark = POSTGRES

Opener = Callable[..., Ledger]
OFF = "%20-csynchronous_commit%3Doff"


@pytest.fixture
def open_here(postgres_url: str, tmp_path: Path) -> Iterator[Opener]:
    """Opens the ledger as one of several replicas, each with a folder of its own."""
    opened: list[Ledger] = []

    def one(replica: str = "a", **options: float) -> Ledger:
        mark = mark_of(tmp_path / replica)
        opened.append(Ledger(postgres_url, mark_path=mark, clock=Ticking(), **options))
        return opened[-1]

    yield one
    for ledger in opened:
        ledger.close()


def kill(server: str, name: str) -> int:
    """Ends the connections that show a name; gives their number."""
    found = sql(
        server,
        "SELECT pg_terminate_backend(pid, 5000) FROM pg_stat_activity "
        f"WHERE application_name = '{name}'",
    )
    return len(found)


def shown(connection: Connection) -> tuple[object, ...]:
    """What a transaction runs under."""
    names = ("transaction_isolation", "transaction_read_only", "application_name", "lock_timeout")
    return tuple(
        connection.execute(text(f"SELECT current_setting('{name}')")).scalar_one()
        for name in (*names, "statement_timeout", "synchronous_commit")
    )


def test_transactions_are_named_and_limited(postgres_url: str, tmp_path: Path) -> None:
    """Writers wait and last for so long and commit durably; readers have one read-only snapshot."""
    Ledger(postgres_url, mark_path=mark_of(tmp_path), clock=Ticking()).close()
    database = Database(postgres_url + OFF, busy_timeout_seconds=1.5, statement_timeout_seconds=2)
    write = database.run("step", shown)
    read = database.run("states", shown, write=False)
    between = database.run("states", lambda one: shown(one)[3], write=False)
    database.close()

    assert ("read committed", "off", "dpdau step", "1500ms", "2s", "on") == write
    assert ("repeatable read", "on", "dpdau states", "1500ms", "2s", "off") == read
    assert "1500ms" == between


def test_a_reader_keeps_its_snapshot_and_no_writer_waits_for_it(
    open_here: Opener, postgres_url: str
) -> None:
    """Whoever reads sees one state, and a charge goes through meanwhile."""
    ledger = open_here()
    database = Database(postgres_url, busy_timeout_seconds=1)

    def twice(connection: Connection) -> list[object]:
        count = text("SELECT count(*) FROM entries")
        first = connection.execute(count).scalar_one()
        spend(ledger, "meanwhile")
        return [first, connection.execute(count).scalar_one()]

    assert [1, 1] == database.run("twice", twice, write=False)
    database.close()
    assert 5 == ledger.verify().entries


def test_a_writer_waits_so_long_and_readers_do_not(open_here: Opener) -> None:
    """Another writer that stays is a conflict after the timeout; what is stored is read."""
    holder, waiter = open_here(), open_here(busy_timeout_seconds=0.05)
    spend(holder, "before")

    def held() -> object:
        with ThreadPoolExecutor(1) as thread:
            second = thread.submit(spend, waiter, "second")
            state = thread.submit(waiter.budget_state, budget())
        with pytest.raises(LedgerConflictError, match="too long") as refused:
            second.result()
        assert {"transaction": "step"} == refused.value.facts
        assert 1 == state.result().release_count
        return release("first")

    holder.step(request("first"), held)  # type: ignore[arg-type]

    spend(waiter, "second")
    assert 3 == holder.budget_state(budget()).release_count


def test_a_statement_may_not_take_for_ever(postgres_url: str) -> None:
    """A statement over its limit is an outage that names the transaction."""
    database = Database(postgres_url, busy_timeout_seconds=1, statement_timeout_seconds=0.02)
    with pytest.raises(LedgerUnavailableError, match="statement timeout") as late:
        database.run("slow", lambda one: one.execute(text("SELECT pg_sleep(60)")), write=False)
    database.close()

    assert {"transaction": "slow"} == late.value.facts


def test_a_connection_that_breaks_in_a_charge_leaves_nothing(
    open_here: Opener, server: str
) -> None:
    """The charge is reported as not taken, nothing of it is there, and the next call works."""
    ledger = open_here()

    def cut() -> object:
        assert 1 == kill(server, "dpdau step")
        return release()

    with pytest.raises(LedgerUnavailableError):
        ledger.step(request(), cut)  # type: ignore[arg-type]

    assert () == ledger.states()
    assert (1, ()) == (ledger.verify().entries, ledger.verify().problems)
    assert not ledger.step(request(), lambda: release())[1]


def test_a_connection_that_breaks_at_the_commit_leaves_no_half(
    open_here: Opener, server: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With every row written but not committed, all of them are gone."""
    ledger, store = open_here(), steps._store

    def cut(*args: object, **options: object) -> object:
        stored = store(*args, **options)  # type: ignore[arg-type]
        assert 1 == kill(server, "dpdau step")
        return stored

    with monkeypatch.context() as broken:
        broken.setattr(steps, "_store", cut)
        with pytest.raises(LedgerUnavailableError):
            ledger.step(request(), lambda: release())

    assert (1, ()) == (ledger.verify().entries, ledger.verify().problems)
    assert not ledger.step(request(), lambda: release())[1]


def test_connections_that_broke_unnoticed_are_replaced(open_here: Opener, server: str) -> None:
    """After the server ended every idle connection, the next call is answered."""
    ledger = open_here()
    spend(ledger, "before")
    assert kill(server, "dpdau") > 0

    assert 1 == ledger.budget_state(budget()).release_count


def test_replicas_make_one_ledger(open_here: Opener) -> None:
    """Eight replicas that find no tables make one ledger together, each with a mark of its own."""
    with ThreadPoolExecutor(8) as threads:
        opened = list(threads.map(open_here, "abcdefgh"))

    assert 1 == len({one.ledger_id for one in opened})
    assert 1 == opened[0].verify().entries


def test_a_replica_joins_a_ledger_with_a_history(open_here: Opener, tmp_path: Path) -> None:
    """A replica without a mark gets one, and goes on where the others are."""
    spend(open_here("a"), "first")
    joined = open_here("b")

    _, replayed = joined.step(request("first"), lambda: release("first"))
    assert (True, False) == (replayed, joined.is_local)
    assert mark_of(tmp_path / "a").read_bytes() == mark_of(tmp_path / "b").read_bytes()


def test_a_database_that_was_put_back_is_refused(
    open_here: Opener, postgres_url: str, server: str
) -> None:
    """A replica that has seen more than the database knows does not open, nor go on."""
    ledger = open_here()
    spend(ledger, "first")
    name = postgres_url.rsplit("%3D", 1)[1]
    sql(server, f"ALTER SCHEMA {name} RENAME TO {name}_newer", f"CREATE SCHEMA {name}")

    with pytest.raises(LedgerCorruptError, match="forget what was spent"):
        open_here()
    with pytest.raises(LedgerCorruptError, match="missing tables"):
        ledger.states()
    open_here("another replica")
    with pytest.raises(LedgerCorruptError, match="another history"):
        ledger.states()
    with pytest.raises(LedgerCorruptError, match="found ledger"):
        open_here()


def test_dry_run_shows_what_is_missing_and_makes_nothing(postgres_url: str, tmp_path: Path) -> None:
    """The whole history as SQL of Postgres, and no table; then the tables, once."""
    where = {"mark_path": mark_of(tmp_path), "clock": Ticking()}
    pending = migrate(postgres_url, **where, dry_run=True)  # type: ignore[arg-type]
    tables = "SELECT count(*) FROM information_schema.tables WHERE table_schema = current_schema"
    before = sql(postgres_url, tables)
    made, nothing = (migrate(postgres_url, **where) for _ in range(2))  # type: ignore[arg-type]

    assert ["0001", "0002", "0003", "0004"] == [one.revision for one in pending]
    assert "FOR EACH STATEMENT EXECUTE FUNCTION dpdau_append_only()" in pending[0].sql
    assert ([(0,)], pending, ()) == (before, made, nothing)


def test_a_new_ledger_is_what_all_revisions_make(server: str) -> None:
    """The same columns, constraints, indexes and triggers, made at once or one after the other."""
    found = []
    for upgrade in (schema.upgrade, schema.upgrade_stepwise):
        url = empty_schema(server)
        database = Database(url, busy_timeout_seconds=1)
        database.run("migrate", upgrade, schema=True)
        database.close()
        own = "(SELECT oid FROM pg_class WHERE relnamespace = current_schema::regnamespace)"
        found.append(
            sql(
                url,
                "SELECT table_name, column_name, data_type, is_nullable FROM "
                "information_schema.columns WHERE table_schema = current_schema ORDER BY 1, 2",
            )
            + sql(
                url,
                "SELECT conname, pg_get_constraintdef(oid) FROM pg_constraint "
                f"WHERE conrelid IN {own} ORDER BY 1",
            )
            + sql(url, f"SELECT relname, relkind FROM pg_class WHERE oid IN {own} ORDER BY 1")
            + sql(
                url,
                "SELECT tgname, tgtype FROM pg_trigger "
                f"WHERE tgrelid IN {own} AND NOT tgisinternal ORDER BY 1",
            )
            + sql(url, "SELECT * FROM alembic_version")
        )

    assert found[0] == found[1]
    assert ("entries_append_only", 58) in found[0]


def test_a_backup_is_a_file_and_is_not_put_back(
    open_here: Opener, postgres_url: str, tmp_path: Path
) -> None:
    """A copy beside writers is a sound SQLite ledger; putting it back is refused with the way."""
    ledger = open_here()
    spend(ledger, "first")
    target = tmp_path / "copy.sqlite"

    head = ledger.backup(target)

    report, _ = audit_copy(target, tmp_path / "scratch")
    assert (head.seq, head.hash, True) == (report.entries, report.head_hash, report.ok)
    assert ledger.ledger_id == report.ledger_id
    with pytest.raises(InvalidSettingError, match="dpdau ledger copy"):
        restore(
            target,
            url=postgres_url,
            mark_path=mark_of(tmp_path / "a"),
            clock=Ticking(),
            actor="ada",
            reason="test",
        )


def test_a_server_that_is_not_there_is_an_outage() -> None:
    """The log says where it looked, without the password; a caller hears neither host nor user."""
    url = f"postgresql+psycopg://ada:s3cret@127.0.0.1:{free_port()}/ledger"
    database = Database(url, busy_timeout_seconds=1)
    with captured_logs() as logs, pytest.raises(LedgerUnavailableError) as gone:
        database.run("states", lambda _: None, write=False)
    database.close()

    assert "ada:***@127.0.0.1" in logs.getvalue()
    assert "s3cret" not in logs.getvalue()
    for word in ("s3cret", "ada", "127.0.0.1"):
        assert word not in f"{gone.value} {gone.value.facts}"


@pytest.mark.parametrize(
    "option",
    [
        "sslmod=require",
        "sslmode=banana",
        "connect_timeout=abc",
        "keepalives_idle=banana",
        "port=abc",
    ],
)
def test_a_wrong_option_is_a_wrong_setting(option: str) -> None:
    """Whether its name is unknown or its value cannot be: one error, which repeats neither."""
    url = f"postgresql+psycopg://ada:s3cret@127.0.0.1:{free_port()}/ledger?{option}"

    def connect() -> None:
        Database(url, busy_timeout_seconds=1).run("states", lambda _: None, write=False)

    with captured_logs(), pytest.raises(InvalidSettingError, match="options of libpq") as wrong:
        connect()

    assert option.split("=")[1] not in str(wrong.value)


def test_a_server_that_goes_silent_counts_as_gone(server: str) -> None:
    """A connection asks whether the other side is there; what the URL says comes first."""
    found = []
    for more in ("", "?keepalives_idle=7"):
        database = Database(server + more, busy_timeout_seconds=1, statement_timeout_seconds=2)
        found.append(database.run("step", connection_options, schema=True))
        database.close()

    assert [("30", "60000", "2s"), ("7", "60000", "2s")] == found


def test_the_source_of_a_copy_may_stand_still(postgres_url: str, tmp_path: Path) -> None:
    """While the file of a copy or a backup is written and audited, nothing is asked of it."""
    Ledger(postgres_url, mark_path=mark_of(tmp_path), clock=Ticking()).close()
    database = Database(postgres_url, busy_timeout_seconds=1, statement_timeout_seconds=2)
    found = {
        name: database.run(name, lambda one: connection_options(one)[2], write=name == "copy_out")
        for name in ("copy_out", "backup", "verify")
    }
    database.close()

    assert {"copy_out": "1h", "backup": "1h", "verify": "2s"} == found


def connection_options(connection: Connection) -> tuple[str, ...]:
    """After how many seconds it asks, how long it waits, and how long it may stand still."""
    driver = connection.connection.driver_connection
    assert driver is not None
    options = driver.info.get_parameters()
    idle = connection.execute(text("SHOW idle_in_transaction_session_timeout")).scalar_one()
    return options["keepalives_idle"], options["tcp_user_timeout"], str(idle)


def test_a_missing_driver_names_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without psycopg the URL is refused with what to install."""
    monkeypatch.setitem(sys.modules, "psycopg", None)

    with pytest.raises(InvalidSettingError, match=r"dp-dau-mau\[postgres\]"):
        Database("postgresql+psycopg://ada@host/ledger", busy_timeout_seconds=1)


def test_text_that_postgres_cannot_keep_is_refused(open_here: Opener) -> None:
    """A NUL character is the caller's fault, and leaves nothing."""
    ledger = open_here()

    with pytest.raises(InvalidPlanError, match="NUL"):
        ledger.grant("dau", "2026-02", actor="ada", reason="a\0b")

    assert 1 == ledger.verify().entries


def test_a_wrong_statement_is_a_bug(postgres_url: str) -> None:
    """An error that no caller can cause is not translated."""
    database = Database(postgres_url, busy_timeout_seconds=1)
    with pytest.raises(exc.ProgrammingError):
        database.run("bug", lambda one: one.execute(text("SELEC 1")), write=False)
    database.close()


def test_a_foreign_database_is_refused(server: str, tmp_path: Path) -> None:
    """A schema with other tables is not taken for an empty one."""
    url = empty_schema(server)
    sql(url, "CREATE TABLE customers (name TEXT)")

    with pytest.raises(LedgerCorruptError, match="Check the ledger's URL"):
        Ledger(url, mark_path=mark_of(tmp_path), clock=Ticking())


def test_files_stay_files(tmp_path: Path) -> None:
    """A ledger in a file is local, and an event loop may read it."""
    ledger = open_ledger(tmp_path)
    ledger.close()

    assert ledger.is_local
    assert file_of(tmp_path).exists()
