"""The audit finds every change that was made behind the ledger's back."""

import datetime as dt
from dataclasses import replace
from pathlib import Path

import pytest

from dpdau.domain import Scope
from dpdau.errors import LedgerCorruptError
from dpdau.ledger import AuditReport, Ledger
from dpdau.ledger.audit import FINDINGS_MAX
from dpdau.ledger.budgets import state_of
from dpdau.ledger.chain import Entry, row_digest
from dpdau.ledger.steps import LIVE
from dpdau.ledger.tables import KINDS
from simulation.ledger_cases import (
    DIGEST,
    budget,
    growth_releases,
    growth_request,
    mark_of,
    open_ledger,
    open_month,
    open_request,
    raw_rows,
    raw_sql,
    release,
    spend,
)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A closed ledger with a row in every table."""
    ledger = open_ledger(tmp_path)
    for number in range(3):
        spend(ledger, f"plan-{number}")
    open_month(ledger, days=2)
    ledger.grant("dau", "2026-02", actor="ada", reason="more")
    key_id, _ = ledger.keys.create("ci", [Scope.READ], None, rate_limit="5/day")
    ledger.keys.rotate(key_id, overlap=dt.timedelta(days=1))
    ledger.keys.revoke(key_id)
    ledger.audit_event("operator", "erase", {"erasure_id": "e-1"})
    ledger.close()
    return tmp_path


def audited(folder: Path, *statements: str) -> AuditReport:
    """The audit of an open ledger after a change behind its back."""
    ledger = open_ledger(folder)
    try:
        raw_sql(folder, *statements)
        return ledger.verify()
    finally:
        ledger.close()


def codes(report: AuditReport) -> set[str]:
    """The kinds of contradiction found."""
    assert not report.ok
    return {one.code for one in report.findings}


def test_sound_ledger_has_no_findings(folder: Path) -> None:
    """An untouched ledger is sound, and the report says what it holds."""
    report = audited(folder)

    assert report.ok
    assert (4, 9, ()) == (report.charges, report.releases, report.problems)
    assert [(report.entries,)] == raw_rows(folder, "SELECT count(*) FROM entries")
    assert report.to_json()["ok"]


def columns() -> list[tuple[str, str]]:
    """Every column of every chained table."""
    return [
        (kind.table.name, column.name)
        for kind in KINDS.values()
        for column in kind.table.columns
        if column.name != "seq"
    ]


@pytest.mark.parametrize(("table", "column"), columns())
def test_every_changed_column_is_found(folder: Path, table: str, column: str) -> None:
    """Changing any column of any table shows as a changed row."""
    change = f"UPDATE {table} SET {column} = 12345 WHERE seq = (SELECT max(seq) FROM {table})"

    assert "row_changed" in codes(audited(folder, change))


@pytest.mark.parametrize("column", ["kind", "ref", "digest", "prev_hash", "hash", "at"])
def test_every_changed_part_of_an_entry_is_found(folder: Path, column: str) -> None:
    """Changing any column of an entry in the middle breaks the chain."""
    report = audited(folder, f"UPDATE entries SET {column} = 'x' WHERE seq = 5")

    assert codes(report) & {"hash", "link"}


@pytest.mark.parametrize("kind", sorted(KINDS))
def test_every_removed_row_is_found(folder: Path, kind: str) -> None:
    """Taking out a row leaves its entry without one."""
    table = KINDS[kind].table.name
    change = f"DELETE FROM {table} WHERE seq = (SELECT max(seq) FROM {table})"

    assert "row_missing" in codes(audited(folder, change))


@pytest.mark.parametrize("kind", sorted(KINDS))
def test_every_added_row_is_found(folder: Path, kind: str) -> None:
    """A row that was put in without an entry is found, whatever its number."""
    table = KINDS[kind].table
    unique = {"ledger_id", "budget_id", "plan_id", "release_id", "key_id", "successor"}
    copied = ", ".join(
        f"{one.name} || 'x'" if one.name in unique else one.name
        for one in table.columns
        if one.name != "seq"
    )
    changes = (
        f"INSERT INTO {table.name} SELECT {seq}, {copied} FROM {table.name} LIMIT 1"
        for seq in ("0", "9999", "'text'")
    )

    for change in changes:
        assert "row_without_entry" in codes(audited(folder, change))
        raw_sql(folder, f"DELETE FROM {table.name} WHERE seq IN (0, 9999, 'text')")


def test_removed_entry_is_found(folder: Path) -> None:
    """A gap in the numbers is found, and so is the row that lost its entry."""
    report = audited(folder, "DELETE FROM entries WHERE seq = 5")

    assert {"gap", "link", "row_without_entry"} <= codes(report)


def test_entry_with_a_text_for_a_number_is_found(folder: Path) -> None:
    """A number that is no number is a finding, and does not stop the audit."""
    assert "gap" in codes(audited(folder, "UPDATE entries SET seq = 'x' WHERE seq = 5"))


def test_removed_tail_is_found_by_the_mark(folder: Path) -> None:
    """Cutting off the newest entries with their rows leaves a sound chain that the mark refutes."""
    (last,) = raw_rows(folder, "SELECT max(seq) FROM entries")[0]

    report = audited(
        folder, f"DELETE FROM audit WHERE seq = {last}", f"DELETE FROM entries WHERE seq = {last}"
    )

    assert {"mark"} == codes(report)


def test_missing_mark_is_a_finding(folder: Path) -> None:
    """A ledger whose mark was taken away while it was open is not called sound."""
    ledger = open_ledger(folder)
    mark_of(folder).unlink()
    report = ledger.verify()
    ledger.close()

    assert {"mark"} == codes(report)


def test_findings_are_bounded(folder: Path) -> None:
    """A ledger that was destroyed gives a bounded report with the whole count."""
    ledger = open_ledger(folder)
    for number in range(60):
        ledger.audit_event("operator", "noise", {"number": number})
    raw_sql(folder, "UPDATE entries SET hash = 'x'")
    report = ledger.verify()
    ledger.close()

    assert FINDINGS_MAX == len(report.findings)
    assert FINDINGS_MAX < report.finding_count


class Forger:
    """Somebody who rewrites rows and then the whole chain and the mark: the books must notice."""

    def __init__(self, ledger: Ledger, folder: Path) -> None:
        self._ledger = ledger
        self._folder = folder

    def rewrite(self, *statements: str) -> AuditReport:
        """Changes rows, makes a sound chain of what is left, and forgets the mark."""
        raw_sql(self._folder, *statements)
        rows = {
            kind: {
                row[0]: dict(zip(of.table.c.keys(), row, strict=True))
                for row in raw_rows(self._folder, f"SELECT * FROM {of.table.name}")
            }
            for kind, of in KINDS.items()
        }
        previous, changes = "0" * 64, []
        for seq, kind, at in raw_rows(self._folder, "SELECT seq, kind, at FROM entries"):
            row = rows[str(kind)][seq]
            entry = Entry(
                prev_hash=previous,
                seq=int(str(seq)),
                kind=str(kind),
                ref=KINDS[str(kind)].ref(row),
                digest=row_digest(row),
                at=str(at),
            )
            previous = entry.hash()
            changes.append(
                f"UPDATE entries SET ref = '{entry.ref}', digest = '{entry.digest}', "
                f"prev_hash = '{entry.prev_hash}', hash = '{previous}' WHERE seq = {seq}"
            )
        raw_sql(self._folder, *changes)
        mark_of(self._folder).unlink()
        return self._ledger.verify()


@pytest.mark.parametrize(
    ("change", "found"),
    [
        ("UPDATE budgets SET epsilon = '1/2'", "over_cap"),
        ("UPDATE budgets SET filter = 'magic'", "unreadable"),
        ("UPDATE charges SET budget_id = 'mau:2026-02'", "charge_without_plan"),
        ('UPDATE charges SET dp_event = \'{"kind": "unknown"}\'', "unreadable"),
        ("UPDATE charges SET plan_id = 'other' WHERE plan_id = 'plan-1'", "release_without_charge"),
        ("UPDATE charges SET plan_id = 'other' WHERE plan_id = 'plan-1'", "plan_without_charge"),
        ("UPDATE releases SET plan_id = 'x' WHERE plan_id = 'plan-1'", "charge_without_release"),
        ("UPDATE releases SET day = '2026-02-04'", "release_body"),
        ("UPDATE releases SET body = replace(body, ',', ', ')", "release_body"),
        ("UPDATE releases SET body = '{}'", "unreadable"),
        ("UPDATE releases SET step = 6 WHERE step = 5", "step_out_of_order"),
        ("UPDATE releases SET step = step + 9 WHERE step > 2", "step_out_of_order"),
        ("UPDATE releases SET step = 1 WHERE plan_id = 'plan-1'", "step_out_of_order"),
        ("UPDATE plans SET body = '{\"releases\":5}' WHERE kind = 'month'", "step_not_paid"),
        ("UPDATE plans SET body = '{}' WHERE kind = 'month'", "unreadable"),
        ("UPDATE plans SET kind = 'single' WHERE kind = 'month'", "step_not_paid"),
        ("UPDATE plans SET kind = 'single' WHERE kind = 'month'", "commitment_without_plan"),
        ("UPDATE commitments SET plan_id = 'plan-1'", "release_without_commitment"),
        ("UPDATE commitments SET plan_id = 'plan-1'", "commitment_without_plan"),
        ("UPDATE commitments SET plan_id = 'other'", "commitment_without_plan"),
        (
            "UPDATE charges SET plan_id = 'other' WHERE plan_id = 'plan-2026-02'",
            "plan_without_charge",
        ),
    ],
)
def test_forged_chain_does_not_hide_wrong_books(folder: Path, change: str, found: str) -> None:
    """Rows that contradict each other are found even under a chain that was made to fit them."""
    ledger = open_ledger(folder)
    report = Forger(ledger, folder).rewrite(change)
    ledger.close()

    assert found in codes(report)
    assert not codes(report) & {"hash", "link", "row_changed"}


@pytest.mark.parametrize(
    ("change", "found"),
    [
        ("UPDATE releases SET plan_id = 'x' WHERE step = 3", "charge_without_release"),
        ("UPDATE releases SET plan_id = 'x'", "charge_without_release"),
        ("UPDATE plans SET body = '{\"releases\":5}'", "charge_without_release"),
        ("UPDATE plans SET body = '{\"releases\":3}'", "step_not_paid"),
        ("UPDATE plans SET kind = 'single'", "step_not_paid"),
        ("UPDATE plans SET body = '[]'", "unreadable"),
        ("UPDATE charges SET plan_id = 'x'", "release_without_charge"),
    ],
)
def test_growth_that_is_not_whole_is_found(tmp_path: Path, change: str, found: str) -> None:
    """A charge without its four releases, or with more, is found under a sound chain."""
    ledger = open_ledger(tmp_path)
    ledger.take_growth(growth_request(), growth_releases)
    assert ledger.verify().ok
    report = Forger(ledger, tmp_path).rewrite(change)
    ledger.close()

    assert found in codes(report)


@pytest.mark.parametrize(
    ("kind", "table", "found"),
    [
        ("charge", "charges", "charged_twice"),
        ("commitment", "commitments", "committed_twice"),
    ],
)
def test_forged_chain_does_not_hide_a_second_one(
    folder: Path, kind: str, table: str, found: str
) -> None:
    """A charge or a commitment that stands there twice is found under a sound chain."""
    ledger = open_ledger(folder)
    # The audit event of the fixture makes room for an entry at the end of the chain.
    ((seq,),) = raw_rows(folder, "SELECT max(seq) FROM audit")
    columns = ", ".join(one.name for one in KINDS[kind].table.columns if one.name != "seq")
    report = Forger(ledger, folder).rewrite(
        f"DELETE FROM audit WHERE seq = {seq}",
        f"UPDATE entries SET kind = '{kind}' WHERE seq = {seq}",
        f"CREATE TABLE copy AS SELECT * FROM {table}",
        f"DROP TABLE {table}",
        f"ALTER TABLE copy RENAME TO {table}",
        f"INSERT INTO {table} SELECT {seq}, {columns} FROM {table} ORDER BY seq DESC LIMIT 1",
    )
    ledger.close()

    assert found in codes(report)


def test_forged_chain_without_a_contradiction_is_found_by_the_mark(folder: Path) -> None:
    """A whole new history that adds up is refuted by the mark alone."""
    ledger = open_ledger(folder)
    mark = mark_of(folder).read_bytes()
    forged = Forger(ledger, folder).rewrite("UPDATE audit SET actor = 'eve'")
    mark_of(folder).write_bytes(mark)
    report = ledger.verify()
    ledger.close()

    assert ({"mark"}, {"mark"}) == (codes(forged), codes(report))


def test_spending_is_judged_at_each_moment(folder: Path) -> None:
    """A grant that came later does not excuse what was over the cap before it."""
    ledger = open_ledger(folder)
    report = Forger(ledger, folder).rewrite("UPDATE budgets SET epsilon = '1/2'")
    # The ledger itself no longer reads a history that was rewritten under it.
    with pytest.raises(LedgerCorruptError, match="another history"):
        ledger.budget_state(budget())
    database = ledger._transactions.database
    state = database.run("state", lambda connection: state_of(connection, budget()), write=False)
    ledger.close()

    assert state.spent.epsilon <= state.cap.epsilon
    assert "over_cap" in codes(report)


@pytest.mark.parametrize(
    ("change", "found"),
    [
        ("UPDATE releases SET step = 0 WHERE step = 4", "step_out_of_order"),
        ("UPDATE releases SET step = 0 WHERE step = 2", "step_out_of_order"),
        ("UPDATE releases SET step = 6 WHERE step = 4", "step_not_paid"),
        ("UPDATE plans SET body = '{\"releases\":4}'", "step_not_paid"),
        ("UPDATE plans SET kind = 'month'", "step_out_of_order"),
        ("UPDATE commitments SET plan_id = 'x'", "release_without_commitment"),
        ("UPDATE charges SET plan_id = 'x'", "release_without_charge"),
    ],
)
def test_live_ticks_may_be_skipped_and_not_go_back(tmp_path: Path, change: str, found: str) -> None:
    """Steps 1, 2, 4 of a live plan are sound; one that goes back or past the end is found."""
    ledger = open_ledger(tmp_path)
    ledger.open_plan(open_request(days=2), LIVE)
    ledger.commit_noise("plan-2026-02", DIGEST)
    for step in (1, 2, 4):
        made = replace(release("plan-2026-02"), step=step, release_id=f"rel-{step}")
        ledger.take_tick("plan-2026-02", step, lambda made=made: made)
    assert ledger.verify().ok
    report = Forger(ledger, tmp_path).rewrite(change)
    ledger.close()

    assert found in codes(report)
