"""Opening the ledger against its mark, and covering what leaves it."""

import json
import shutil
import sqlite3
from pathlib import Path

import pytest

from dpdau.domain import Metric, Window
from dpdau.errors import LedgerCorruptError
from dpdau.ledger.mark import HighWaterMark
from simulation.ledger_cases import (
    DAY,
    budget,
    file_of,
    mark_body,
    mark_of,
    open_ledger,
    raw_sql,
    release,
    request,
    spend,
)


def history(folder: Path, *plan_ids: str) -> None:
    """Opens a ledger, spends, and closes it."""
    ledger = open_ledger(folder)
    for plan_id in plan_ids:
        spend(ledger, plan_id)
    ledger.close()


def copy(folder: Path, name: str) -> Path:
    """A copy of a closed ledger's file."""
    return Path(shutil.copy(file_of(folder), folder / name))


def test_the_mark_follows_every_commit(tmp_path: Path) -> None:
    """After each write the mark names the last entry, before the caller goes on."""
    ledger = open_ledger(tmp_path)
    marked = [mark_body(tmp_path)["seq"]]
    for plan_id in ("a", "b"):
        spend(ledger, plan_id)
        marked.append(mark_body(tmp_path)["seq"])
    report = ledger.verify()
    ledger.close()

    assert [1, 5, 8] == marked
    assert {"ledger_id": ledger.ledger_id, "seq": 8, "hash": report.head_hash} == mark_body(
        tmp_path
    )


@pytest.mark.parametrize("how", ["replay", "find", "page", "series"])
def test_whatever_is_shown_is_covered(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, how: str
) -> None:
    """A release whose writer stopped before its mark is covered before anybody else shows it."""
    shower, writer = open_ledger(tmp_path), open_ledger(tmp_path)
    with monkeypatch.context() as patch:
        patch.setattr(HighWaterMark, "advance", lambda *_: None)
        spend(writer, "a")
    writer.close()
    stopped = mark_body(tmp_path)["seq"]

    match how:
        case "replay":
            shower.step(request("a"), lambda: release("a"))
        case "find":
            shower.find_release(Metric.DAU, Window(DAY, 1))
        case "page":
            shower.releases()
        case "series":
            shower.series([Metric.DAU], DAY, DAY)
    shower.close()

    assert (1, 5) == (stopped, mark_body(tmp_path)["seq"])


def test_ledger_ahead_of_its_mark_moves_it(tmp_path: Path) -> None:
    """A crash between commit and mark is mended by the next start."""
    history(tmp_path, "a")
    early = mark_of(tmp_path).read_bytes()
    history(tmp_path, "b", "c")
    late = mark_of(tmp_path).read_bytes()
    mark_of(tmp_path).write_bytes(early)

    history(tmp_path)

    assert late == mark_of(tmp_path).read_bytes()


def test_older_copy_is_refused_with_an_instruction(tmp_path: Path) -> None:
    """A restored copy does not refund: it does not open, and the error says what to do."""
    history(tmp_path, "a")
    older = copy(tmp_path, "older.sqlite")
    history(tmp_path, "b")
    newer = copy(tmp_path, "newer.sqlite")
    shutil.copy(older, file_of(tmp_path))

    with pytest.raises(LedgerCorruptError, match="the same budget could be spent twice") as refused:
        open_ledger(tmp_path)

    assert {
        "ledger": str(file_of(tmp_path)),
        "mark": str(mark_of(tmp_path)),
        "ledger_seq": 5,
        "mark_seq": 8,
    } == refused.value.facts
    assert "dpdau restore" in refused.value.message
    shutil.copy(newer, file_of(tmp_path))
    history(tmp_path, "c")


def test_older_copy_that_was_written_to_is_refused(tmp_path: Path) -> None:
    """An older copy that grew past the mark elsewhere has another hash at the mark."""
    history(tmp_path, "a")
    older, mark = copy(tmp_path, "older.sqlite"), mark_of(tmp_path).read_bytes()
    history(tmp_path, "b")
    newest = mark_of(tmp_path).read_bytes()
    shutil.copy(older, file_of(tmp_path))
    mark_of(tmp_path).write_bytes(mark)
    history(tmp_path, "x", "y")
    mark_of(tmp_path).write_bytes(newest)

    with pytest.raises(LedgerCorruptError, match="rewritten, or an older copy"):
        open_ledger(tmp_path)


@pytest.mark.parametrize("how", ["gone", "empty"])
def test_missing_ledger_is_refused(tmp_path: Path, how: str) -> None:
    """Where a mark is, a missing or emptied ledger is not made anew."""
    history(tmp_path, "a")
    file_of(tmp_path).unlink()
    if how == "empty":
        file_of(tmp_path).touch()

    with pytest.raises(LedgerCorruptError, match="would forget what was spent"):
        open_ledger(tmp_path)

    assert (how == "empty") == file_of(tmp_path).exists()


def test_another_ledger_is_refused(tmp_path: Path) -> None:
    """A ledger with another identity is not taken, however long it is."""
    history(tmp_path / "one", "a")
    history(tmp_path / "two", "a", "b", "c")
    shutil.copy(file_of(tmp_path / "two"), file_of(tmp_path / "one"))

    with pytest.raises(LedgerCorruptError, match="does not know what was spent here"):
        open_ledger(tmp_path / "one")


def test_ledger_without_its_mark_is_refused(tmp_path: Path) -> None:
    """Taking the mark away does not make an older copy acceptable."""
    history(tmp_path, "a")
    mark_of(tmp_path).unlink()

    with pytest.raises(LedgerCorruptError, match="nothing shows that this is the newest copy"):
        open_ledger(tmp_path)


def test_crash_before_the_first_mark_is_mended(tmp_path: Path) -> None:
    """A ledger that holds its identity alone gets the mark that the crash kept from it."""
    history(tmp_path)
    body = mark_body(tmp_path)
    mark_of(tmp_path).unlink()

    history(tmp_path)

    assert body == mark_body(tmp_path)


def test_ledger_without_identity_is_refused(tmp_path: Path) -> None:
    """Tables whose first entry was taken out are no ledger, with or without a mark."""
    history(tmp_path)
    raw_sql(tmp_path, "DELETE FROM identity")

    with pytest.raises(LedgerCorruptError):
        open_ledger(tmp_path)
    mark_of(tmp_path).unlink()
    with pytest.raises(LedgerCorruptError, match="identity"):
        open_ledger(tmp_path)


def test_refused_ledger_is_not_changed(tmp_path: Path) -> None:
    """A start that is refused leaves ledger and mark as they are."""
    history(tmp_path, "a")
    older = copy(tmp_path, "older.sqlite")
    history(tmp_path, "b")
    shutil.copy(older, file_of(tmp_path))
    before = [path.read_bytes() for path in (file_of(tmp_path), mark_of(tmp_path))]

    with pytest.raises(LedgerCorruptError):
        open_ledger(tmp_path)

    assert before == [path.read_bytes() for path in (file_of(tmp_path), mark_of(tmp_path))]


def test_another_ledger_in_the_place_while_open_is_noticed(tmp_path: Path) -> None:
    """A mark that came to belong to another ledger stops the first one at its next write."""
    ledger = open_ledger(tmp_path)
    body = {**mark_body(tmp_path), "ledger_id": "another"}
    mark_of(tmp_path).write_text(json.dumps(body))

    with pytest.raises(LedgerCorruptError, match="Two ledgers share one mark"):
        spend(ledger, "a")
    ledger.close()


def test_closed_ledger_leaves_one_file(tmp_path: Path) -> None:
    """Closing folds the write-ahead log in; closing twice is fine."""
    ledger = open_ledger(tmp_path)
    spend(ledger, "a")
    ledger.close()
    ledger.close()

    assert ["ledger.sqlite"] == [path.name for path in file_of(tmp_path).parent.iterdir()]
    with sqlite3.connect(file_of(tmp_path)) as connection:
        assert [("ok",)] == connection.execute("PRAGMA integrity_check").fetchall()
    connection.close()


def test_states_are_read_while_another_writes(tmp_path: Path) -> None:
    """A reader gets the last committed state while a step is being made."""
    ledger, other = open_ledger(tmp_path), open_ledger(tmp_path)
    spend(ledger, "a")

    def look() -> object:
        assert 1 == other.budget_state(budget()).release_count
        return release("b")

    ledger.step(request("b"), look)  # type: ignore[arg-type]
    after = other.budget_state(budget()).release_count
    ledger.close()
    other.close()

    assert 2 == after
