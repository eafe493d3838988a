"""Receipts of erasures as the manifest keeps them."""

import datetime as dt
import sqlite3
from collections.abc import Callable
from pathlib import Path

import pytest

from dpdau.activity.embedded import EmbeddedStore
from dpdau.activity.receipts import ReceiptTable
from dpdau.activity.segments import SegmentFiles
from dpdau.domain import ErasureReceipt, Event, Op
from stores import NOW, TINY
from strategies import batch

Open = Callable[..., EmbeddedStore]


def test_a_receipt_of_an_older_store_is_read_and_finished(open_store: Open, tmp_path: Path) -> None:
    """It has what it was written with; the next writer clears the files, and it says so."""
    store = open_store()
    store.apply(batch([Event(7, Op.ADD, 1)]))
    store.forget([7], erasure_id="old", done_at=NOW)
    store.close()
    db = sqlite3.connect(tmp_path / "activity" / "manifest.sqlite")
    for column in ("keys_searched", "tombstones", "version", "files_cleared"):
        db.execute(f"ALTER TABLE erasures DROP COLUMN {column}")
    db.execute("PRAGMA user_version = 3")
    db.close()
    reader = open_store(read_only=True)
    before = reader.receipt("old")
    writer = open_store()
    writer.check_writable()
    after = reader.receipt("old")

    assert ErasureReceipt("old", 1, NOW) == before
    assert ErasureReceipt("old", 1, NOW, files_cleared=True) == after


def test_a_receipt_says_what_was_done(open_store: Open) -> None:
    """Days, keys, version and what is kept come back as they were stored; the user does not."""
    store = open_store()
    store.open_month("2026-03", lookback_days=30)
    store.apply(batch([Event(7, Op.ADD, 1), Event(7, Op.ADD, 5)]))
    store.forget([7, 8, 9], erasure_id="it", done_at=NOW)
    body = store.receipt("it").to_json()

    assert {
        "erasure_id": "it",
        "days_touched": 2,
        "done_at": NOW.isoformat(),
        "keys_searched": 3,
        "tombstones": [{"kept_for": "2026-03", "through": "2026-03-31"}],
        "files_cleared": True,
    } == {name: value for name, value in body.items() if name != "version"}
    assert body["version"]
    assert store.receipt("it") == ErasureReceipt.from_json(body)
    assert dt.date(2026, 3, 31) == store.receipt("it").tombstones[0].through  # type: ignore[index]


def test_a_receipt_speaks_of_files_whose_end_is_durable(
    open_store: Open, monkeypatch: pytest.MonkeyPatch
) -> None:
    """After the last file is deleted the folder is synced, and only then the receipt says so."""
    store, seen = open_store(limits=TINY), list[str]()

    def noted(kind: type, name: str) -> None:
        work = getattr(kind, name)

        def call(self: object, *arguments: object) -> object:
            seen.append(name)
            return work(self, *arguments)

        monkeypatch.setattr(kind, name, call)

    for number in range(1, 40):
        store.apply(batch([Event(number, Op.ADD, 1)]))
    for kind, name in ((SegmentFiles, "remove"), (SegmentFiles, "sync")):
        noted(kind, name)
    noted(ReceiptTable, "mark_cleared")
    store.forget([7], erasure_id="it", done_at=NOW)

    assert "remove" in seen
    assert ["remove", "sync", "mark_cleared"] == seen[-3:]
