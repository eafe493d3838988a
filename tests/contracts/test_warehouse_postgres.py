"""What only a warehouse in Postgres has: other hosts, roles, collations."""

import json
import subprocess
import sys
import threading
import uuid
from pathlib import Path
from typing import Any

import pytest

from dpdau.errors import UnsupportedMediaError, WarehouseUnavailableError
from dpdau.ingest.event_file import MonthSpan
from dpdau.ingest.warehouse import TableAddress, Warehouse
from simulation.ledger_cases import POSTGRES
from warehouses import MONTH, PLAIN, RULES, SEGMENTS, WINDOWS, in_postgres, of_table, stream

pytest.importorskip("ibis")

# Ibis 12 reads schemas by a name that DuckDB 2 has another one for.
pytestmark = [POSTGRES, pytest.mark.filterwarnings("ignore:fetch_arrow_table:DeprecationWarning")]


@pytest.fixture
def url(server: str) -> str:
    """A Postgres, as its own tools name it."""
    return server.replace("+psycopg", "")


def test_a_role_that_may_only_read_the_table_is_enough(url: str) -> None:
    """And one that may not is told so, without a word of the address."""
    import psycopg

    address = in_postgres(url, stream(4).shuffled())
    who = f"reader_{uuid.uuid4().hex[:8]}"
    with psycopg.connect(url, autocommit=True) as connection:
        connection.execute(f"create role {who} login password 'hush-hush'")
    own = url.replace("dpdau@", f"{who}:hush-hush@")
    reader = TableAddress.parse(f"{own}?table={address.table[0]}")
    span = MonthSpan(MONTH, WINDOWS, SEGMENTS)
    with pytest.raises(WarehouseUnavailableError, match="InsufficientPrivilege") as caught:
        of_table(reader, RULES, span)
    with psycopg.connect(url, autocommit=True) as connection:
        connection.execute(f"grant select on {address.table[0]} to {who}")
    wanted = of_table(address, RULES, span)

    assert wanted.table.tolist() == of_table(reader, RULES, span).table.tolist()
    assert "hush" not in f"{caught.value}{caught.value.__context__!r}{reader!r}"
    with psycopg.connect(url, autocommit=True) as connection:
        connection.execute(f"revoke all on {address.table[0]} from {who}; drop role {who}")


def test_the_command_of_its_own_process_releases_a_month(url: str, tmp_path: Path) -> None:
    """A process that starts bare finds all that it needs, and says what it read."""
    address = in_postgres(url, stream(1).shuffled())
    table = f"{url}?table={address.table[0]}"
    words = ["release", "--events", table, "--order", "seq", "--month", MONTH, "--json"]
    done = subprocess.run(
        [sys.executable, "-m", "dpdau", *words],
        capture_output=True,
        cwd=tmp_path,
        check=True,
        timeout=100,
    )
    assert 84 == len(json.loads(done.stdout))
    assert b"received = " in done.stderr and b"Warning" not in done.stderr


def test_the_session_cannot_write(url: str) -> None:
    """All that is asked is in one transaction that reads one state."""
    import psycopg

    from dpdau.ingest import warehouse

    with warehouse._postgres(url) as (backend, _):
        level = backend.con.execute("show transaction_isolation").fetchone()
        with pytest.raises(psycopg.errors.ReadOnlySqlTransaction), backend.con.transaction():
            backend.con.execute("create table written (x int)")
    assert ("repeatable read",) == level


def test_a_collation_that_calls_two_ids_equal_is_not_asked(url: str) -> None:
    """Ids are told apart by their bytes, also where the column does not."""
    import psycopg

    name = f"events_{uuid.uuid4().hex}"
    with psycopg.connect(url, autocommit=True) as connection:
        connection.execute(
            f"create table {name} (user_id char(9), day date);"
            f"insert into {name} values ('ann', '2026-02-01'), ('Ann', '2026-02-01')"
        )
    found = of_table(
        TableAddress.parse(f"{url}?table=public.{name}"), PLAIN, MonthSpan(MONTH, (1,)), None
    )
    assert 2 == found.table[0, 0, 0]


def test_days_without_end_are_refused_as_days(url: str) -> None:
    """`infinity` is in the future, and no arithmetic is done with it."""
    import psycopg

    name = f"events_{uuid.uuid4().hex}"
    with psycopg.connect(url, autocommit=True) as connection:
        connection.execute(
            f"create table {name} (user_id uuid, day date);"
            f"insert into {name} values (gen_random_uuid(), 'infinity'),"
            " (gen_random_uuid(), '-infinity'), (gen_random_uuid(), '2026-02-01')"
        )
    found = of_table(TableAddress.parse(f"{url}?table={name}"), PLAIN, MonthSpan(MONTH, (1,)), None)
    codes = {fault.code.value: count for fault, count in found.refused}
    assert ({"future_day": 1, "bad_day": 1}, 1) == (codes, found.table[0, 0, 0])


def test_a_server_that_is_not_there_is_unavailable() -> None:
    """The error names no address."""
    address = TableAddress.parse("postgresql://me:pw@127.0.0.1:1/db?table=events")
    with pytest.raises(WarehouseUnavailableError, match="OperationalError") as caught:
        of_table(address, PLAIN, MonthSpan(MONTH, (1,)))
    assert "pw" not in str(caught.value) and caught.value.__context__ is None


def test_a_stop_cancels_the_query(url: str) -> None:
    """The server ends what it was asked, and the answer is that nothing was charged."""
    address = in_postgres(url, stream(4).shuffled())
    counting = Warehouse(address, rules=PLAIN, span=MonthSpan(MONTH, (1,)), order="seq")
    ended = threading.Event()

    def stopping() -> None:
        # As `Reading.close` does: a stop between two queries ends neither.
        while not ended.wait(0.02):
            counting.stop()

    def asking(backend: Any) -> Any:
        thread.start()
        return backend.con.execute("select pg_sleep(600)").fetchall()

    thread = threading.Thread(target=stopping)
    with pytest.raises(UnsupportedMediaError, match="Stopped"):
        counting._asked(asking)
    ended.set()
    thread.join()
