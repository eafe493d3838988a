"""Copies of a ledger into another database."""

import datetime as dt
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from dpdau.domain import Scope
from dpdau.errors import InvalidSettingError, LedgerConflictError, LedgerCorruptError
from dpdau.ledger import Ledger, copying, engine
from dpdau.ledger.places import make_private_folder
from dpdau.ledger.tables import KINDS
from simulation.ledger_cases import (
    NOW,
    POSTGRES,
    Ticking,
    budget,
    empty_schema,
    mark_of,
    open_ledger,
    open_month,
    raw_rows,
    raw_sql,
    release,
    request,
    spend,
    sql,
    url_of,
)

pytestmark = POSTGRES


PAST_THE_LOCK = """
    SET session_replication_role = replica;
    INSERT INTO entries SELECT seq + 1, kind, ref, digest, hash, digest, at
    FROM entries ORDER BY seq DESC LIMIT 1
"""


def used_ledger(folder: Path) -> tuple[Ledger, str]:
    """A ledger with rows of every kind, and an API key of it."""
    ledger = open_ledger(folder)
    spend(ledger, "first", epsilon="2.9")
    open_month(ledger, days=2)
    ledger.grant("mau", "2026-02", actor="ada", reason="more")
    _, key = ledger.keys.create("ci \N{GREEK SMALL LETTER EPSILON}", [Scope.READ], None)
    gone, _ = ledger.keys.create("gone", [Scope.READ], None, rate_limit="5/day")
    ledger.keys.rotate(gone, overlap=dt.timedelta(days=1))
    ledger.keys.revoke(gone)
    return ledger, key


def reopened(url: str, folder: Path) -> Ledger:
    """A ledger elsewhere, under the mark of the one that was copied."""
    return Ledger(url, mark_path=mark_of(folder), clock=Ticking())


def test_a_copy_is_the_same_ledger(postgres_url: str, tmp_path: Path) -> None:
    """File to server and back: the same chain, charges, releases and keys, under the same mark."""
    source, key = used_ledger(tmp_path)
    heard: list[tuple[int, int]] = []
    report = source.copy(postgres_url, moved=lambda *rows: heard.append(rows))
    seen = source.verify()
    source.close()

    there = reopened(postgres_url, tmp_path)
    _, replayed = there.step(request("first"), lambda: release("first"))
    known = there.keys.authenticate(key, NOW)
    file = tmp_path / "back" / "ledger.sqlite"
    again = there.copy(f"sqlite:///{file}")
    there.close()

    assert (seen, seen) == (report, again)
    assert (2 * seen.entries,) * 2 == heard[-1]
    assert (True, True) == (replayed, known is not None)


def test_only_one_of_both_goes_on(postgres_url: str, tmp_path: Path) -> None:
    """Once the copy has spent, the mark refuses the ledger that it was made of."""
    source, _ = used_ledger(tmp_path)
    source.copy(postgres_url)
    source.close()
    there = reopened(postgres_url, tmp_path)
    spend(there, "second", epsilon="0.1")
    left = there.budget_state(budget()).remaining.epsilon
    report = there.verify()
    there.close()

    assert (0, ()) == (left, report.problems)
    with pytest.raises(LedgerCorruptError, match="older copy"):
        open_ledger(tmp_path)


def test_a_target_with_a_ledger_is_refused(postgres_url: str, tmp_path: Path) -> None:
    """Nothing is ever copied over a ledger, not even over itself."""
    source, _ = used_ledger(tmp_path)
    source.copy(postgres_url)

    with pytest.raises(InvalidSettingError, match="found one that has a ledger"):
        source.copy(postgres_url)
    with pytest.raises(InvalidSettingError, match="Expected a new file"):
        source.copy(url_of(tmp_path))
    assert source.verify().ok
    source.close()


def test_of_two_copies_to_one_file_one_is_made(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Both find no file: the one that makes it is done, and the other leaves it alone."""
    source, _ = used_ledger(tmp_path)
    target = tmp_path / "new" / "copy.sqlite"
    both = threading.Barrier(2, timeout=30)

    def wait_for_both(folder: Path) -> None:
        both.wait()
        make_private_folder(folder)

    def copied() -> str:
        try:
            return str(source.copy(f"sqlite:///{target}").ok)
        except InvalidSettingError as error:
            return error.code

    monkeypatch.setattr(engine, "make_private_folder", wait_for_both)
    with ThreadPoolExecutor(2) as threads:
        outcomes = [threads.submit(copied) for _ in range(2)]
    monkeypatch.undo()
    seen = source.verify()
    source.close()

    assert ["True", "invalid_setting"] == sorted(one.result() for one in outcomes)
    copy = Ledger(f"sqlite:///{target}", mark_path=mark_of(tmp_path), clock=Ticking())
    assert seen == copy.verify()
    copy.close()


def test_a_source_that_changes_is_not_copied(server: str, tmp_path: Path) -> None:
    """Where somebody writes past the lock, the copy is refused and leaves no file."""
    url = empty_schema(server)
    source = Ledger(url, mark_path=mark_of(tmp_path), clock=Ticking())
    spend(source, "first")
    passed: list[int] = []

    def moved(_done: int, _all: int) -> None:
        if not passed:
            passed.append(1)
            sql(url, PAST_THE_LOCK)

    target = tmp_path / "new" / "copy.sqlite"
    with pytest.raises(LedgerConflictError, match="nobody writes to while it is copied"):
        source.copy(f"sqlite:///{target}", moved=moved)
    source.close()

    assert [1] == passed
    assert [] == list(target.parent.iterdir())


def test_a_failed_copy_leaves_no_file(tmp_path: Path) -> None:
    """A file that was made for it is gone; one that was there is as it was."""
    source, _ = used_ledger(tmp_path)

    def fail(_done: int, _all: int) -> None:
        raise LedgerCorruptError("Expected a disk.")

    for place in ("new", "there"):
        target = tmp_path / place / "copy.sqlite"
        target.parent.mkdir()
        if place == "there":
            target.touch()
        with pytest.raises(InvalidSettingError if place == "there" else LedgerCorruptError):
            source.copy(f"sqlite:///{target}", moved=fail)
        assert (place == "there") == target.exists()
    source.close()


def test_nobody_writes_while_it_is_copied(postgres_url: str, tmp_path: Path) -> None:
    """The lock of the source is held from the first row to the last."""
    source, _ = used_ledger(tmp_path)
    impatient = open_ledger(tmp_path, busy_timeout_seconds=0.03)
    refused: list[str] = []

    def moved(_done: int, _all: int) -> None:
        try:
            spend(impatient, "meanwhile", epsilon="0.1")
        except LedgerConflictError as error:
            refused.append(error.code)

    source.copy(postgres_url, moved=moved)
    impatient.close()
    source.close()

    assert {"ledger_conflict"} == set(refused)


@pytest.mark.parametrize(
    ("statement", "code"),
    [
        ("UPDATE releases SET body = replace(body, '120', '121') WHERE seq = 5", "row_changed"),
        ("UPDATE entries SET kind = 'audit' WHERE seq = 2", "hash"),
        ("DELETE FROM grants", "row_missing"),
    ],
)
def test_a_ledger_that_was_tampered_with_is_not_copied(
    postgres_url: str, tmp_path: Path, statement: str, code: str
) -> None:
    """The copy is audited before it is kept; a refused one leaves no table."""
    source, _ = used_ledger(tmp_path)
    assert (5,) in raw_rows(tmp_path, "SELECT seq FROM releases")
    raw_sql(tmp_path, statement)

    with pytest.raises(LedgerCorruptError, match="Nothing was copied") as refused:
        source.copy(postgres_url)
    source.close()

    assert code in refused.value.facts["findings"]
    reopened(postgres_url, tmp_path / "elsewhere").close()


def test_what_is_lost_on_the_way_is_found(
    postgres_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A sound ledger whose copy is not the same is not called copied."""
    source, _ = used_ledger(tmp_path)
    kept = {name: kind for name, kind in KINDS.items() if name != "audit"}
    monkeypatch.setattr(copying, "KINDS", kept)

    with pytest.raises(LedgerCorruptError, match="has no row"):
        source.copy(postgres_url)
    monkeypatch.undo()

    assert source.copy(postgres_url).ok
    source.close()
