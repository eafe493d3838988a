"""Which revision the ledger's tables have, and the way to the newest one.

Alembic holds the revisions (`migrations/versions`). It is imported only when there is something to
migrate, because most starts find the newest revision and need one query.
"""

import io
import json
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final

from sqlalchemy import Connection, inspect, text

from dpdau.errors import LedgerCorruptError, SchemaVersionError

if TYPE_CHECKING:
    from alembic.config import Config

REVISIONS: tuple[str, ...] = ("0001", "0002", "0003", "0004")
"""Every revision, oldest first."""

SCRIPT_LOCATION: Path = Path(__file__).parent / "migrations"

WHOLE: Final = "whole.json"
"""All statements of all revisions, by dialect; the tests say what has to be in it."""

_VERSION_TABLE: Final = "alembic_version"


@dataclass(frozen=True, slots=True)
class PendingRevision:
    """A revision that is not applied yet: what it does and the SQL it would run."""

    revision: str
    summary: str
    sql: str


def current_revision(connection: Connection) -> str | None:
    """The revision of the tables, or None for a database without tables.

    Raises:
        SchemaVersionError: The revision is not known here: a newer version wrote it.
        LedgerCorruptError: There are tables, and they are not a ledger's.
    """
    names = inspect(connection).get_table_names()
    if not names:
        return None
    found: list[str] = []
    if _VERSION_TABLE in names:
        found = list(connection.execute(text("SELECT version_num FROM alembic_version")).scalars())
    if len(found) != 1:
        raise LedgerCorruptError(
            "Expected a ledger with one schema revision, found a database with "
            f"{len(names)} tables and {len(found)} revisions. Check the ledger's URL.",
        )
    if found[0] not in REVISIONS:
        raise SchemaVersionError(
            f"Expected a schema revision up to {REVISIONS[-1]}, found {found[0]!r}. A newer "
            "version wrote this ledger: run that version or a later one.",
            found=found[0],
            known=list(REVISIONS),
        )
    return found[0]


def pending_revisions(current: str | None, *, dialect_name: str) -> tuple[PendingRevision, ...]:
    """The revisions after `current`, oldest first, as text; changes nothing."""
    from alembic import command
    from alembic.script import ScriptDirectory

    first = 0 if current is None else REVISIONS.index(current) + 1
    below = "base" if current is None else current
    found = []
    for revision in REVISIONS[first:]:
        sql = io.StringIO()
        config = _config(sql)
        config.attributes["dialect_name"] = dialect_name
        command.upgrade(config, f"{below}:{revision}", sql=True)
        script = ScriptDirectory.from_config(config).get_revision(revision)
        assert script is not None, "a revision of the table is in the folder"
        found.append(PendingRevision(revision, script.doc, sql.getvalue().strip()))
        below = revision
    return tuple(found)


def upgrade(connection: Connection) -> None:
    """Applies every pending revision inside the caller's transaction.

    A database without tables gets all revisions from a file that holds their statements, which
    saves a new ledger from loading Alembic; where that file is not of the newest revision, and for
    every older database, Alembic applies them one after the other. Both give the same tables.
    """
    whole = json.loads((SCRIPT_LOCATION / WHOLE).read_text("utf-8"))
    if whole["revision"] != REVISIONS[-1] or current_revision(connection) is not None:
        upgrade_stepwise(connection)
        return
    for statement in whole["statements"][connection.dialect.name]:
        connection.exec_driver_sql(statement)


def upgrade_stepwise(connection: Connection) -> None:
    """Applies every pending revision by Alembic."""
    from alembic import command

    config = _config(io.StringIO())
    config.attributes["connection"] = connection
    command.upgrade(config, REVISIONS[-1])


def _config(output: io.StringIO) -> "Config":
    """An Alembic configuration without a file."""
    from alembic.config import Config

    config = Config(stdout=output, output_buffer=output)
    # Alembic reads the value with %-interpolation.
    config.set_main_option("script_location", str(SCRIPT_LOCATION).replace("%", "%%"))
    return config
