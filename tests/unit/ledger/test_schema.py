"""Revisions of the tables."""

import datetime as dt
import shutil
from pathlib import Path

import pytest
from alembic.script import ScriptDirectory

from dpdau.domain import Scope
from dpdau.errors import LedgerCorruptError, SchemaVersionError
from dpdau.ledger import Ledger, migrate, schema, steps
from dpdau.ledger.tables import APPEND_ONLY, PARTS
from simulation.ledger_cases import (
    NOW,
    Ticking,
    file_of,
    mark_of,
    open_ledger,
    open_month,
    raw_rows,
    raw_sql,
    release,
    spend,
    url_of,
)
from simulation.ledger_cases import (
    request as step_request,
)

LATER = '''"""A table for later."""

import sqlalchemy as sa
from alembic import op

revision = "0005"
down_revision = "0004"


def upgrade() -> None:
    op.create_table("later", sa.Column("a", sa.Integer))
'''


@pytest.fixture
def later_revision(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A newer version of the product, which has one revision more."""
    scripts = tmp_path / "100% newer"
    shutil.copytree(schema.SCRIPT_LOCATION, scripts, ignore=shutil.ignore_patterns("__pycache__"))
    (scripts / "versions" / "0005_later.py").write_text(LATER)
    monkeypatch.setattr(schema, "SCRIPT_LOCATION", scripts)
    monkeypatch.setattr(schema, "REVISIONS", ("0001", "0002", "0003", "0004", "0005"))


def tables(folder: Path) -> set[object]:
    """The names of the tables in the file."""
    return {name for (name,) in raw_rows(folder, "SELECT name FROM sqlite_master")}


def test_every_revision_is_listed() -> None:
    """The list in code is the folder's history, oldest first."""
    scripts = ScriptDirectory(str(schema.SCRIPT_LOCATION))
    history = [script.revision for script in scripts.walk_revisions()]

    assert list(schema.REVISIONS) == history[::-1]


def test_dry_run_shows_everything_and_makes_nothing(tmp_path: Path) -> None:
    """For a ledger that is not there, the dry run lists the whole history and creates no file."""
    pending = migrate(url_of(tmp_path), mark_path=mark_of(tmp_path), clock=Ticking(), dry_run=True)

    everything = "".join(one.sql for one in pending)
    assert ["0001", "0002", "0003", "0004"] == [one.revision for one in pending]
    assert "triggers" in pending[0].summary
    assert all(f"CREATE TABLE {table}" in everything for table in APPEND_ONLY)
    assert [] == list(tmp_path.iterdir())


def test_migrate_makes_a_ledger_once(tmp_path: Path) -> None:
    """A first run makes the ledger and says with what; a second has nothing to do."""
    first, second = (
        migrate(url_of(tmp_path), mark_path=mark_of(tmp_path), clock=Ticking()) for _ in range(2)
    )

    assert (["0001", "0002", "0003", "0004"], ()) == ([one.revision for one in first], second)
    assert tables(tmp_path) >= {"entries", "charges"}


@pytest.mark.usefixtures("later_revision")
def test_postgres_text_has_its_own_triggers() -> None:
    """The same revisions give SQL for Postgres, with triggers that refuse TRUNCATE too."""
    first, second, third, fourth, fifth = schema.pending_revisions(None, dialect_name="postgresql")

    refusals = [
        one.sql.count("BEFORE UPDATE OR DELETE OR TRUNCATE") for one in (first, second, fourth)
    ]
    assert [len(APPEND_ONLY) - 3, 1, 2] == refusals
    assert "CHECK (spent >= 0 AND spent <= allowances * 1000000000000000)" in third.sql
    assert "CREATE TABLE later" in fifth.sql
    assert "CREATE TABLE entries" not in fifth.sql


def test_older_ledger_is_upgraded_on_open(tmp_path: Path, request: pytest.FixtureRequest) -> None:
    """A newer version lists what it would do to an older ledger, and does it on open."""
    ledger = open_ledger(tmp_path)
    spend(ledger, "before")
    ledger.close()
    request.getfixturevalue("later_revision")

    pending = migrate(url_of(tmp_path), mark_path=mark_of(tmp_path), clock=Ticking(), dry_run=True)
    untouched = "later" not in tables(tmp_path)
    ledger = open_ledger(tmp_path)
    report = ledger.verify()
    ledger.close()

    assert (["0005"], True) == ([one.revision for one in pending], untouched)
    assert "later" in tables(tmp_path)
    assert (1, ()) == (report.releases, report.problems)


def test_ledger_of_the_first_release_takes_month_plans(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A ledger without commitments and balances gets them; what it held stays, and it counts."""
    with monkeypatch.context() as earlier:
        earlier.setattr(schema, "REVISIONS", ("0001",))
        earlier.setattr(steps, "post_balance", lambda *_: None)
        ledger = open_ledger(tmp_path)
        spend(ledger, "before")
        ledger.close()
    untouched = "commitments" not in tables(tmp_path)

    ledger = open_ledger(tmp_path)
    _, replayed = ledger.step(step_request("before"), lambda: release("before"))
    open_month(ledger, days=2)
    spend(ledger, "after")
    report = ledger.verify()
    ledger.close()

    assert (True, True) == (untouched, replayed)
    assert [("dau:2026-02", 1, PARTS // 5)] == raw_rows(
        tmp_path, "SELECT * FROM balances WHERE budget_id LIKE 'dau:%'"
    )
    assert {"commitments", "commitments_no_update", "commitments_no_delete"} <= tables(tmp_path)
    assert (3, 8, ()) == (report.charges, report.releases, report.problems)


def test_keys_of_an_older_ledger_can_be_replaced(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A key from before limits, successors and uses has none of them, and can get them."""
    with monkeypatch.context() as earlier:
        earlier.setattr(schema, "REVISIONS", schema.REVISIONS[:3])
        ledger = open_ledger(tmp_path)
        key_id, _ = ledger.keys.create("app", [Scope.READ], None)
        ledger.close()
    untouched = "key_uses" not in tables(tmp_path)

    ledger = open_ledger(tmp_path)
    (before,) = ledger.keys.list()
    _, new, _ = ledger.keys.rotate(key_id, overlap=dt.timedelta(hours=1))
    ledger.keys.note_uses({key_id: NOW})
    after, _ = ledger.keys.list()
    report = ledger.verify()
    ledger.close()

    assert untouched
    assert (None, None, None) == (before.rate_limit, before.replaced_by, before.last_used)
    assert (new.key_id, NOW, ()) == (after.replaced_by, after.last_used, report.problems)


def test_first_release_refuses_a_newer_ledger(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A version that knows no commitments does not write to a ledger that has them."""
    open_ledger(tmp_path).close()
    monkeypatch.setattr(schema, "REVISIONS", ("0001",))

    with pytest.raises(SchemaVersionError, match="newer version"):
        open_ledger(tmp_path)


def test_an_upgrade_that_fails_leaves_the_old_tables(tmp_path: Path, later_revision: None) -> None:
    """Every revision or none: a failing one takes the earlier ones back."""
    broken = LATER + "    raise ZeroDivisionError\n"
    (schema.SCRIPT_LOCATION / "versions" / "0005_later.py").write_text(broken)

    with pytest.raises(ZeroDivisionError):
        open_ledger(tmp_path)

    assert set() == tables(tmp_path)


def test_newer_ledger_is_refused(tmp_path: Path) -> None:
    """A revision that is not known here stops the start before anything is written."""
    open_ledger(tmp_path).close()
    raw_sql(tmp_path, "UPDATE alembic_version SET version_num = '0099'")
    before = file_of(tmp_path).read_bytes()

    with pytest.raises(SchemaVersionError, match="newer version") as refused:
        open_ledger(tmp_path)

    assert ("0099", ["0001", "0002", "0003", "0004"]) == (
        refused.value.facts["found"],
        refused.value.facts["known"],
    )
    assert before == file_of(tmp_path).read_bytes()


def test_foreign_database_is_refused(tmp_path: Path) -> None:
    """A database with other tables is not taken for an empty one."""
    file_of(tmp_path).parent.mkdir()
    raw_sql(tmp_path, "CREATE TABLE customers (name TEXT)")

    with pytest.raises(LedgerCorruptError, match="Check the ledger's URL"):
        Ledger(url_of(tmp_path), mark_path=mark_of(tmp_path), clock=Ticking())
