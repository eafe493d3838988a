"""Folding and merging: bounded work, bounded files, the same answers."""

import datetime as dt
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from dpdau.activity.embedded import EmbeddedStore
from dpdau.activity.upkeep import StoreLimits
from dpdau.domain import Event, Op, day_number
from strategies import batch, columns

FIRST = dt.date(2026, 1, 1)
DAY = day_number(FIRST)
NOW = dt.datetime(2026, 3, 15, 12, tzinfo=dt.UTC)

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
    for one in range(60):
        store.apply(columns(scattered(one * 40, 40), np.full(40, DAY + one)))
        stats = store.stats()
        assert stats.segments <= 16 * 2 * (tiny.part_files_max + 1) + tiny.loose_files_max + 1
        assert stats.pending_rows <= tiny.pending_rows_max + 2 * 40

    last = FIRST + dt.timedelta(days=59)
    table = store.counts(first=FIRST, last=last, window_days=(1, 60))
    assert [40] * 60 == table[0].tolist()
    assert 2400 == table[1, -1]


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


def test_expired_event_ids_leave_the_disk(open_store: Open, tmp_path: Path) -> None:
    """Files that hold only event ids past the retention are deleted."""
    now = [NOW]
    store = open_store(clock=lambda: now[0])
    for one in range(6):
        events = [Event(1, Op.ADD, DAY, event_id=one * 10 + who + 1) for who in range(5)]
        store.apply(batch(events))
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
