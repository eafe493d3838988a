"""Folding and merging: bounded work, bounded files, the same answers."""

import datetime as dt
import os
import stat
import threading
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from dpdau.activity.change import StoreLimits
from dpdau.activity.embedded import EmbeddedStore
from dpdau.activity.history import History, Snapshot
from dpdau.activity.manifest import Manifest, SegmentRef
from dpdau.activity.masks import MASKS
from dpdau.activity.residue import inspect
from dpdau.activity.runs import Table
from dpdau.activity.segments import SegmentFiles
from dpdau.domain import Event, Op, day_number
from strategies import batch, columns

FIRST = dt.date(2026, 1, 1)
DAY = day_number(FIRST)
NOW = dt.datetime(2026, 3, 15, 12, tzinfo=dt.UTC)

WAIT_SECONDS = 20
Open = Callable[..., EmbeddedStore]


def put(who: int, day: int = 0) -> Event:
    """A `+`."""
    return Event(who, Op.ADD, DAY + day)


def scattered(start: int, size: int) -> np.ndarray:
    """Pseudonyms over all parts."""
    some = np.arange(start, start + size, dtype=np.uint64)
    return some * np.uint64(0x9E3779B97F4A7C15)


def test_few_rows_stay_in_the_manifest(open_store: Open, tmp_path: Path) -> None:
    """Small commits are gathered without making a file."""
    store = open_store(limits=StoreLimits(pending_commits_max=3))
    for who in range(20):
        store.apply(batch([put(who)]))

    assert [] == list((tmp_path / "activity" / "segments").glob("*"))
    assert (20, 20) == (store.stats().rows, store.stats().pending_rows)


def test_the_number_of_files_stays_bounded(open_store: Open, tiny: StoreLimits) -> None:
    """However many batches come, a part keeps few files and the uncut ones stay few."""
    store = open_store()
    for one in range(30):
        store.apply(columns(scattered(one * 40, 40), np.full(40, DAY + one)))
        stats = store.stats()
        assert stats.segments <= 16 * 2 * (tiny.part_files_max + 1) + tiny.loose_files_max + 1
        assert stats.pending_rows <= tiny.pending_rows_max + 2 * 40

    last = FIRST + dt.timedelta(days=29)
    table = store.counts(first=FIRST, last=last, window_days=(1, 30))
    assert [40] * 30 == table[0].tolist()
    assert 1200 == table[1, -1]


def test_removed_rows_leave_with_a_merge(open_store: Open) -> None:
    """A pair that was taken out takes no room once its part is merged down."""
    store = open_store()
    for op in (Op.ADD, Op.REMOVE):
        store.apply(batch([Event(who, op, DAY) for who in range(30)]))
    for one in range(12):
        store.apply(batch([put(100 + one * 3 + who, one) for who in range(3)]))

    assert store.stats().rows <= 36 + 30
    store.purge_before(FIRST)
    assert 0 == store.counts(first=FIRST, last=FIRST, window_days=(1,))[0, 0] - 3


def test_a_merge_above_the_base_keeps_removals(open_store: Open, tmp_path: Path) -> None:
    """Newer files merge without a much larger older one, and still take its pairs out."""
    store = open_store()
    store.apply(batch([put(who) for who in range(300)]))
    for one in range(12):
        store.apply(batch([Event(one * 5 + who, Op.REMOVE, DAY) for who in range(5)]))
        left = 300 - 5 * (one + 1)
        assert left == store.counts(first=FIRST, last=FIRST, window_days=(1,))[0, 0]

    sizes = sorted(path.stat().st_size for path in tmp_path.rglob("*.seg"))
    assert sizes[-1] > 300 * 16


def test_a_merge_that_fails_changes_nothing(
    open_store: Open, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """When a merge cannot finish, its files go, the batch is refused and the answers stay."""
    store = open_store()
    for one in range(3):
        store.apply(batch([put(one * 10 + who) for who in range(5)]))
    before = store.counts(first=FIRST, last=FIRST, window_days=(1,)).tolist()
    names = {path.name for path in tmp_path.rglob("*.seg*")}

    def broken(*_: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr("dpdau.activity.manifest.Manifest.drop_segments", broken)
        with pytest.raises(KeyboardInterrupt):
            store.apply(batch([put(1000 + who) for who in range(5)]))
    assert names == {path.name for path in tmp_path.rglob("*.seg*")}
    assert before == store.counts(first=FIRST, last=FIRST, window_days=(1,)).tolist()
    assert 5 == store.apply(batch([put(1000 + who) for who in range(5)])).accepted


def test_a_file_is_durable_before_it_is_named(
    open_store: Open, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Content is synced under the temporary name, then the folder, and only then the manifest."""
    steps: list[str] = []
    store = open_store()
    store.apply(batch([put(1)]))
    fsync, rename, add = os.fsync, Path.rename, Manifest.add_segment

    def synced(descriptor: int) -> None:
        steps.append("folder" if stat.S_ISDIR(os.fstat(descriptor).st_mode) else "content")
        fsync(descriptor)

    def renamed(path: Path, target: Path) -> Path:
        steps.append("rename")
        return rename(path, target)

    def named(manifest: Manifest, ref: SegmentRef) -> None:
        steps.append("manifest")
        add(manifest, ref)

    monkeypatch.setattr(os, "fsync", synced)
    monkeypatch.setattr(Path, "rename", renamed)
    monkeypatch.setattr(Manifest, "add_segment", named)
    store.apply(batch([put(who) for who in range(5)]))

    assert ["content", "rename", "folder", "manifest"] == steps


def test_the_manifest_syncs_every_commit(open_store: Open) -> None:
    """SQLite is told to wait for the disk, and to overwrite what it frees."""
    store = open_store()
    store.check_writable()
    assert store._access._writer is not None
    db = store._access._writer[0]._db
    pragmas = ("journal_mode", "synchronous", "secure_delete")

    assert ["wal", 2, 1] == [db.execute(f"PRAGMA {name}").fetchone()[0] for name in pragmas]


def test_expired_event_ids_leave_the_disk(open_store: Open, tmp_path: Path) -> None:
    """Files that hold only event ids past the retention are deleted."""
    now = [NOW]
    store = open_store(clock=lambda: now[0])
    for one in range(6):
        ids = scattered(one * 20 + 1, 20).tolist()
        store.apply(batch([Event(1, Op.ADD, DAY, event_id=id_) for id_ in ids]))
    full = len(list(tmp_path.rglob("*.seg")))
    now[0] += dt.timedelta(days=60)
    for _ in range(4):
        store.apply(batch([put(1), put(2), put(3)]))

    assert 6 < full
    assert len(list(tmp_path.rglob("*.seg"))) < 6


def test_purging_early_files_leaves_later_ones(open_store: Open, tmp_path: Path) -> None:
    """Only files with something before the limit are written again."""
    store = open_store()
    for one in range(6):
        store.apply(batch([put(who, 100 + one) for who in range(5)]))
    store.purge_before(FIRST)
    names = {path.name for path in tmp_path.rglob("*.seg")}
    store.purge_before(FIRST + dt.timedelta(days=100))
    kept = {path.name for path in tmp_path.rglob("*.seg")}
    store.purge_before(FIRST + dt.timedelta(days=106))

    assert names == kept
    assert set() == {path.name for path in tmp_path.rglob("*.seg")}
    assert 0 == store.stats().rows


@pytest.mark.parametrize("part_rows_min", [1, 1_000])
def test_what_comes_while_it_folds_is_newer(
    open_store: Open, monkeypatch: pytest.MonkeyPatch, part_rows_min: int
) -> None:
    """Users who leave between the reading and the storing of a fold stay out, cut or gathered."""
    limits = StoreLimits(pending_commits_max=3, part_rows_min=part_rows_min)
    store = open_store(limits=limits)
    real = History.snapshot
    added = []

    def snapshot(self: History, tables: Iterable[Table]) -> Snapshot:
        found = real(self, tables)
        if tables == (MASKS,) and not added:
            added.append(store.apply(batch([Event(1, Op.REMOVE, DAY), put(9)])))
        return found

    for who in range(4):
        store.apply(batch([put(who)]))
    with monkeypatch.context() as patch:
        patch.setattr(History, "snapshot", snapshot)
        assert store.tend()
    again = open_store(read_only=True)

    assert 1 == len(added)
    assert (part_rows_min == 1) == (store.stats().segments > 0)
    for one in (store, again):
        assert 4 == one.counts(first=FIRST, last=FIRST, window_days=(1,))[0, 0]


def test_nothing_is_replaced_while_it_folds(
    open_store: Open, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An erasure waits for a fold that holds the user; events do not."""
    store = open_store(limits=StoreLimits(pending_commits_max=3, part_rows_min=1))
    for who in range(5):
        store.apply(batch([put(who)]))
    entered, gate = threading.Event(), threading.Event()
    real = SegmentFiles.write

    def write(self: SegmentFiles, *arguments: Any) -> Any:
        entered.set()
        assert gate.wait(WAIT_SECONDS)
        return real(self, *arguments)

    monkeypatch.setattr(SegmentFiles, "write", write)
    with ThreadPoolExecutor(2) as threads:
        folded = threads.submit(store.tend)
        assert entered.wait(WAIT_SECONDS)
        erased = threads.submit(store.forget, [3])
        store.apply(batch([put(7)]))
        assert not erased.done()
        gate.set()
        assert folded.result(WAIT_SECONDS)
        assert 1 == erased.result(WAIT_SECONDS)

    assert 5 == store.counts(first=FIRST, last=FIRST, window_days=(1,))[0, 0]
    assert [] == inspect(store._root, store_key=None, names=[3]).rows_found
