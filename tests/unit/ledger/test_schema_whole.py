"""A new ledger is made without Alembic, and is what Alembic would have made."""

import json
from collections.abc import Callable

from sqlalchemy import Connection, create_engine, event, text

from dpdau.ledger import schema


def made(by: Callable[[Connection], None]) -> tuple[list[str], list[tuple[object, ...]]]:
    """The statements that ran, and the tables, indexes, triggers and revision that are there."""
    engine = create_engine("sqlite://")
    ran: list[str] = []

    def note(_connection: object, _cursor: object, statement: str, *_more: object) -> None:
        ran.append(statement.strip())

    event.listen(engine, "before_cursor_execute", note)
    with engine.begin() as connection:
        by(connection)
        listed = text("SELECT type, name, sql FROM sqlite_master ORDER BY name")
        rows = [tuple(row) for row in connection.execute(listed)]
        rows += [tuple(row) for row in connection.execute(text("SELECT * FROM alembic_version"))]
    engine.dispose()
    return [one for one in ran if not one.startswith(("PRAGMA", "SELECT"))], rows


def postgres_script() -> list[str]:
    """Every revision for Postgres, as one script that is one round to the server."""
    revisions = schema.pending_revisions(None, dialect_name="postgresql")
    texts = [one.sql.removeprefix("BEGIN;").removesuffix("COMMIT;").strip() for one in revisions]
    return ["\n".join(texts)]


def test_a_new_ledger_is_what_all_revisions_make() -> None:
    """The same tables, to the letter."""
    assert made(schema.upgrade_stepwise)[1] == made(schema.upgrade)[1]


def test_the_file_holds_the_statements_of_all_revisions() -> None:
    """After a new revision, write these statements and its name into the file."""
    whole = json.loads((schema.SCRIPT_LOCATION / schema.WHOLE).read_text("utf-8"))
    assert made(schema.upgrade_stepwise)[0] == whole["statements"]["sqlite"]
    assert postgres_script() == whole["statements"]["postgresql"]
    assert schema.REVISIONS[-1] == whole["revision"]
