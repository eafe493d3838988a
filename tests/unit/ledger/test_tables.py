"""The typed tables."""

from pathlib import Path

from alembic.autogenerate import compare_metadata
from alembic.runtime.migration import MigrationContext
from sqlalchemy import BigInteger, Connection, Integer, Text

from dpdau.ledger.engine import Database
from dpdau.ledger.schema import upgrade
from dpdau.ledger.tables import APPEND_ONLY, KINDS, METADATA
from simulation.ledger_cases import url_of


def test_migrations_build_exactly_these_tables(tmp_path: Path) -> None:
    """The newest revision and the tables in code do not differ in any table, column or key."""
    database = Database(url_of(tmp_path), busy_timeout_seconds=1)
    database.create_file()
    database.run("migrate", upgrade)

    def differences(connection: Connection) -> list[object]:
        context = MigrationContext.configure(
            connection, opts={"compare_type": True, "compare_server_default": True}
        )
        return list(compare_metadata(context, METADATA))

    found = database.run("compare", differences, write=False)
    database.close()
    assert [] == found


def test_only_portable_types_are_used() -> None:
    """Every column has a type that each database has, with one form for a value."""
    types = {type(column.type) for table in METADATA.tables.values() for column in table.columns}

    assert {BigInteger, Integer, Text} == types


def test_every_table_but_three_is_chained() -> None:
    """A table is append-only and has a kind in the chain, or it decides nothing."""
    assert {"balances", "key_uses", "probe"} == METADATA.tables.keys() - set(APPEND_ONLY)
    assert {"entries"} == set(APPEND_ONLY) - {kind.table.name for kind in KINDS.values()}
    assert all(kind.key in kind.table.c for kind in KINDS.values())


def test_every_row_points_at_its_entry() -> None:
    """The number of a chained row is the number of an entry."""
    for kind in KINDS.values():
        (key,) = kind.table.c["seq"].foreign_keys
        assert "entries.seq" == key.target_fullname
