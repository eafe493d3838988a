"""What a look at every byte finds."""

import datetime as dt
import sqlite3
from collections.abc import Callable
from pathlib import Path

import pytest

from dpdau.activity import residue
from dpdau.activity.embedded import EmbeddedStore
from dpdau.activity.residue import dirty_free_pages, inspect, needles_of, occurrences
from dpdau.domain import Event, Op
from stores import KEY
from strategies import batch

Open = Callable[..., EmbeddedStore]
WHO = 0x9E3779B97F4A7C15


def test_a_pseudonym_is_looked_for_in_every_form() -> None:
    """Both byte orders, decimal, and hexadecimal in either case."""
    needles = needles_of(WHO)

    assert WHO.to_bytes(8, "little") in needles
    assert WHO.to_bytes(8, "big") in needles
    assert str(WHO).encode() in needles
    assert f"{WHO:016x}".encode() in needles
    assert f"{WHO:016X}".encode() in needles


@pytest.mark.parametrize("chunk", [1, 2, 3, 5, 64])
def test_what_lies_over_an_edge_is_counted_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, chunk: int
) -> None:
    """The count does not depend on how a file is cut for reading."""
    monkeypatch.setattr(residue, "_CHUNK_BYTES", chunk)
    path = tmp_path / "file"
    path.write_bytes(b"..abcd.abcdef...ab.cd.xyabcd")

    assert 4 == occurrences(path, frozenset({b"abcd", b"xy"}))
    assert 0 == occurrences(path, frozenset({b"abcdx", b"zz"}))
    assert 0 == occurrences(path, frozenset())


def test_a_free_page_that_holds_something_is_dirty(tmp_path: Path) -> None:
    """Without overwriting, deleted rows stay in free pages; with it, none do."""
    for secure, expected in (("OFF", True), ("ON", False)):
        path = tmp_path / f"{secure}.sqlite"
        db = sqlite3.connect(path, isolation_level=None)
        db.execute(f"PRAGMA secure_delete = {secure}")
        db.execute("CREATE TABLE rows (body BLOB)")
        db.executemany("INSERT INTO rows VALUES (?)", [(bytes([7]) * 3000,) for _ in range(40)])
        db.execute("DELETE FROM rows WHERE rowid > 3")
        db.close()
        assert expected == (dirty_free_pages(path) > 0)


def test_rows_that_are_kept_for_nothing_are_a_problem(
    open_store: Open, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Tombstones and labels of a month that is not open are found, and flushed."""
    store = open_store()
    store.open_month("2026-03", lookback_days=30, dimensions=["platform"])
    store.apply(batch([(Event(WHO + 1, Op.ADD, 20514), {"platform": "ios"})]))
    store.freeze("2026-03", dt.date(2026, 3, 1))
    store.forget([WHO])
    assert [1] == [one.pseudonyms for one in inspect(tmp_path / "activity", store_key=None).kept]
    with monkeypatch.context() as patch:
        patch.setattr("dpdau.activity.upkeep.Upkeep._take_out", lambda *_args: None)
        store.end_month("2026-03")
    left = inspect(tmp_path / "activity", store_key=None)
    store.flush()

    assert left.problems
    assert all("not open" in text for text in left.problems)
    assert [] == inspect(tmp_path / "activity", store_key=None).problems


def test_a_damaged_manifest_is_a_problem_and_not_a_crash(open_store: Open, tmp_path: Path) -> None:
    """Cut off, overwritten, or under another key: it is named, and nothing is raised."""
    store = open_store()
    store.apply(batch([Event(WHO, Op.ADD, 1)]))
    store.close()
    path = tmp_path / "activity" / "manifest.sqlite"
    whole = path.read_bytes()
    for damaged in (whole[: len(whole) // 2], b"x" * len(whole), whole[:100] + bytes(9000)):
        path.write_bytes(damaged)
        assert inspect(tmp_path / "activity", store_key=None).problems
    path.write_bytes(whole)

    assert [] == inspect(tmp_path / "activity", store_key=None).problems
    assert inspect(tmp_path / "activity", store_key=KEY).problems
