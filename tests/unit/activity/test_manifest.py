"""The manifest: one transaction at a time, one version, one key."""

import datetime as dt
import sqlite3
from pathlib import Path

import pytest

from dpdau.activity.held import plan_month
from dpdau.activity.manifest import SCHEMA_VERSION, Manifest, PendingRef
from dpdau.activity.sealing import Sealer
from dpdau.errors import SchemaVersionError, SecretMismatchError, StoreUnavailableError

PLAIN, KEYED = Sealer(None), Sealer(bytes(32))


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """An empty manifest without a key."""
    Manifest.create(tmp_path / "manifest.sqlite", PLAIN)
    return tmp_path / "manifest.sqlite"


def test_a_manifest_exists_when_it_is_complete(tmp_path: Path) -> None:
    """A file that a crash left empty is no manifest, and can be made one."""
    path = tmp_path / "manifest.sqlite"
    before = Manifest.exists(path)
    path.touch()
    empty = Manifest.exists(path)
    Manifest.create(path, PLAIN)

    assert [False, False, True] == [before, empty, Manifest.exists(path)]


def test_a_failed_transaction_changes_nothing(path: Path) -> None:
    """All of a transaction or nothing, and the next one works."""
    manifest = Manifest(path, PLAIN, read_only=False)

    def fail() -> None:
        with manifest.writing():
            manifest.set_offsets({"a": 1})
            manifest.take_seq()
            raise KeyError

    with pytest.raises(KeyError):
        fail()
    with manifest.writing():
        first = manifest.take_seq()

    assert (1, None) == (first, manifest.offset("a"))
    manifest.close()


def test_commit_numbers_are_never_used_twice(path: Path) -> None:
    """Numbers grow over restarts, also when what they named is gone."""
    seqs = []
    for _ in range(2):
        manifest = Manifest(path, PLAIN, read_only=False)
        with manifest.writing():
            seqs.append(manifest.take_seq())
            ref = PendingRef("masks", seqs[-1], 1)
            manifest.add_pending(ref, b"rows")
            manifest.drop_pending([ref])
        manifest.close()

    assert [1, 2] == seqs


def test_a_newer_schema_is_refused(path: Path) -> None:
    """A store of a later version is not guessed at."""
    db = sqlite3.connect(path)
    db.execute("PRAGMA user_version = 99")
    db.close()

    with pytest.raises(SchemaVersionError):
        Manifest(path, PLAIN, read_only=True)


def test_a_key_where_none_was_is_refused(path: Path) -> None:
    """The choice of key is checked when the store is opened."""
    with pytest.raises(SecretMismatchError):
        Manifest(path, KEYED, read_only=True)


def test_a_read_only_view_cannot_write(path: Path) -> None:
    """SQLite itself refuses."""
    manifest = Manifest(path, PLAIN, read_only=True)
    with pytest.raises(sqlite3.OperationalError), manifest.writing():
        manifest.close_day(1)
    manifest.close()


def test_the_log_is_not_emptied_under_a_reader(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Emptying the log says so when a reader still needs it, and works once it is gone."""
    monkeypatch.setattr("dpdau.activity.manifest._BUSY_TIMEOUT_SECONDS", 0.01)
    writer = Manifest(path, PLAIN, read_only=False)
    reader = Manifest(path, PLAIN, read_only=True)
    with writer.writing():
        writer.close_day(1)
    with reader.reading():
        reader.closed_days(0, 2)
        with writer.writing():
            writer.close_day(2)
        with pytest.raises(StoreUnavailableError):
            writer.truncate_log()
    writer.truncate_log()

    assert 0 == path.with_name(path.name + "-wal").stat().st_size
    reader.close()
    writer.close()


def test_batches_are_pruned_by_day(path: Path) -> None:
    """Batch ids of earlier days go, the others stay."""
    manifest = Manifest(path, PLAIN, read_only=False)
    day = dt.date(2026, 3, 1)
    with manifest.writing():
        manifest.add_batch("old", day)
        manifest.add_batch("new", day + dt.timedelta(days=1))
        manifest.prune_batches(day + dt.timedelta(days=1))

    assert [False, True] == [manifest.batch_applied(one) for one in ("old", "new")]
    manifest.close()


def test_a_manifest_of_the_previous_version_opens(path: Path) -> None:
    """It is read as it is, brought up to date by the next writer, and then known to old readers."""
    month = plan_month("2026-02", lookback_days=30, dimensions=["platform"])
    db = sqlite3.connect(path)
    db.executescript(
        "DROP TABLE month_secrets; DROP TABLE plan_months; DROP TABLE live_months;"
        "ALTER TABLE erasures DROP COLUMN keys_searched; ALTER TABLE erasures DROP COLUMN version;"
        "ALTER TABLE erasures DROP COLUMN tombstones;"
        "ALTER TABLE erasures DROP COLUMN files_cleared;"
        "PRAGMA user_version = 1;"
        " INSERT INTO offsets VALUES ('a', 7);"
    )
    db.close()
    reader = Manifest(path, PLAIN, read_only=True)
    before = reader.open_months(), reader.month(month.month), reader.secret(month.month)
    writer = Manifest(path, PLAIN, read_only=False)
    with writer.writing():
        writer.put_month(month)
        writer.add_secret(month.month, b"sealed")

    assert ([], None, None) == before
    assert ([month], b"sealed") == (reader.open_months(), reader.secret(month.month))
    assert 7 == reader.offset("a")
    for one in (reader, writer):
        one.close()
    db = sqlite3.connect(path)
    assert SCHEMA_VERSION == db.execute("PRAGMA user_version").fetchone()[0]
    db.close()
