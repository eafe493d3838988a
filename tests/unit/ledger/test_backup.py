"""Copies of the ledger."""

import errno
import os
import shutil
import stat
import threading
from pathlib import Path

import pytest

from dpdau.errors import InvalidSettingError, LedgerCorruptError, LedgerUnavailableError
from dpdau.ledger import AuditReport, restore
from simulation.ledger_cases import (
    Ticking,
    file_of,
    mark_body,
    mark_of,
    open_ledger,
    raw_sql,
    release,
    request,
    spend,
    url_of,
)


def backed_up(folder: Path, *plan_ids: str) -> Path:
    """Spends, and gives a backup of the ledger."""
    ledger = open_ledger(folder)
    for plan_id in plan_ids:
        spend(ledger, plan_id)
    target = folder / "backups" / f"{'-'.join(plan_ids)}.sqlite"
    ledger.backup(target)
    ledger.close()
    return target


def bring_back(source: Path, folder: Path) -> AuditReport:
    """Restores a backup into a folder."""
    return restore(
        source,
        url=url_of(folder),
        mark_path=mark_of(folder),
        clock=Ticking(),
        actor="ada",
        reason="new disk",
    )


def test_backup_is_whole_and_private(tmp_path: Path) -> None:
    """The copy ends with the head, is 0600, and has no leftovers beside it."""
    ledger = open_ledger(tmp_path)
    spend(ledger, "a")
    head = ledger.backup(tmp_path / "backups" / "copy.sqlite")
    report = ledger.verify()
    ledger.close()

    (copy,) = (tmp_path / "backups").iterdir()
    assert (report.entries, report.head_hash) == (head.seq, head.hash)
    assert (0o600, "copy.sqlite") == (stat.S_IMODE(copy.stat().st_mode), copy.name)


def test_backup_is_taken_while_others_write(tmp_path: Path) -> None:
    """Copies taken between the writes of another thread are each a sound moment."""
    ledger, writer = open_ledger(tmp_path), open_ledger(tmp_path)

    def write() -> None:
        for number in range(10):
            writer.step(request(f"p{number}"), lambda number=number: release(f"p{number}"))

    thread = threading.Thread(target=write)
    thread.start()
    heads = [ledger.backup(tmp_path / f"{number}.sqlite") for number in range(5)]
    thread.join()
    ledger.close()
    writer.close()

    for number, head in enumerate(heads):
        report = bring_back(tmp_path / f"{number}.sqlite", tmp_path / f"restored-{number}")
        assert (head.seq, head.hash, report.charges) == (
            report.entries,
            report.head_hash,
            report.releases,
        )


def test_backup_replaces_nothing(tmp_path: Path) -> None:
    """A target that exists is left alone."""
    ledger = open_ledger(tmp_path)
    (tmp_path / "mine").write_text("keep")

    with pytest.raises(InvalidSettingError, match="new file"):
        ledger.backup(tmp_path / "mine")
    ledger.close()

    assert "keep" == (tmp_path / "mine").read_text()


def test_backup_that_cannot_be_written_is_an_outage(tmp_path: Path) -> None:
    """A target under a file gives an error that names it."""
    ledger = open_ledger(tmp_path)
    (tmp_path / "file").write_text("in the way")

    with pytest.raises(LedgerUnavailableError):
        ledger.backup(tmp_path / "file" / "copy.sqlite")
    ledger.close()


def test_restore_on_a_new_machine_goes_on(tmp_path: Path) -> None:
    """Without ledger and mark, the backup becomes the ledger, marked and audited."""
    source = backed_up(tmp_path / "old", "a")
    new = tmp_path / "new"

    report = bring_back(source, new)

    ledger = open_ledger(new)
    _, replayed = ledger.step(request("a"), lambda: release("a"))
    (audited,) = ledger.audit_log()
    after = ledger.verify()
    ledger.close()
    assert replayed
    assert (5, 6, 6) == (report.entries, after.entries, mark_body(new)["seq"])
    assert ("ada", "ledger_restored", "new disk") == (
        audited.actor,
        audited.action,
        audited.facts["reason"],
    )
    assert ["ledger.sqlite"] == [path.name for path in file_of(new).parent.iterdir()]
    assert 0o600 == stat.S_IMODE(file_of(new).stat().st_mode)


def test_newest_backup_mends_a_lost_ledger(tmp_path: Path) -> None:
    """A backup that holds the mark's entry is taken in the place of a lost or older ledger."""
    source = backed_up(tmp_path, "a", "b")
    file_of(tmp_path).write_bytes(b"damaged")

    report = bring_back(source, tmp_path)

    assert (2, ()) == (report.releases, report.problems)
    open_ledger(tmp_path).close()


def test_older_backup_is_refused(tmp_path: Path) -> None:
    """A restore never refunds: the ledger and the mark stay as they are."""
    older = backed_up(tmp_path, "a")
    backed_up(tmp_path, "b")
    before = file_of(tmp_path).read_bytes(), mark_of(tmp_path).read_bytes()

    with pytest.raises(LedgerCorruptError, match="no older than the ledger was") as refused:
        bring_back(older, tmp_path)

    assert ["mark"] == refused.value.facts["findings"]
    assert before == (file_of(tmp_path).read_bytes(), mark_of(tmp_path).read_bytes())
    assert ["ledger.sqlite"] == [path.name for path in file_of(tmp_path).parent.iterdir()]


def test_changed_backup_is_refused(tmp_path: Path) -> None:
    """A backup whose rows do not match its chain is not brought in."""
    ledger = open_ledger(tmp_path / "old")
    spend(ledger, "a")
    ledger.close()
    raw_sql(tmp_path / "old", "UPDATE charges SET dp_event = replace(dp_event, '3/10', '1/10')")

    with pytest.raises(LedgerCorruptError, match="was changed"):
        bring_back(file_of(tmp_path / "old"), tmp_path / "new")

    assert not file_of(tmp_path / "new").exists()
    assert not mark_of(tmp_path / "new").exists()


@pytest.mark.parametrize("content", [b"", b"not a database" * 200])
def test_file_that_is_no_backup_is_refused(tmp_path: Path, content: bytes) -> None:
    """An empty or foreign file is named, and nothing is left of it."""
    (tmp_path / "source").write_bytes(content)

    with pytest.raises(LedgerCorruptError, match="Expected a backup of the ledger"):
        bring_back(tmp_path / "source", tmp_path / "new")

    assert [] == list(file_of(tmp_path / "new").parent.iterdir())


def test_missing_backup_is_refused(tmp_path: Path) -> None:
    """A source that is not there is the caller's mistake."""
    with pytest.raises(InvalidSettingError, match="no file at"):
        bring_back(tmp_path / "nothing", tmp_path)


def test_ledger_without_its_mark_is_not_replaced(tmp_path: Path) -> None:
    """Where a ledger stands without a mark, nothing shows that the backup is newer."""
    older = backed_up(tmp_path, "a")
    backed_up(tmp_path, "b")
    mark_of(tmp_path).unlink()

    with pytest.raises(InvalidSettingError, match="Move that ledger away"):
        bring_back(older, tmp_path)


def test_side_files_of_the_old_ledger_go(tmp_path: Path) -> None:
    """A write-ahead log that a crash left does not mix with the restored file."""
    source = backed_up(tmp_path, "a")
    for suffix in ("-wal", "-shm"):
        shutil.copy(source, f"{file_of(tmp_path)}{suffix}")

    assert bring_back(source, tmp_path).ok

    assert ["ledger.sqlite"] == [path.name for path in file_of(tmp_path).parent.iterdir()]


def test_a_copy_that_cannot_be_made_durable_is_unavailable(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A disk that runs full under a backup is named as such, and leaves no half of a copy."""
    ledger = open_ledger(tmp_path)

    def full(_: int) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with monkeypatch.context() as disk:
        disk.setattr(os, "fsync", full)
        with pytest.raises(LedgerUnavailableError, match="No space left"):
            ledger.backup(tmp_path / "backups" / "copy.sqlite")
    ledger.close()

    assert [] == list((tmp_path / "backups").iterdir())
