"""The embedded store as a thing on disk: locks, damage, keys, forgetting, other processes."""

import datetime as dt
import errno
import os
import shutil
import sqlite3
import stat
import subprocess
import sys
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest

from dpdau.activity.change import StoreLimits
from dpdau.activity.embedded import EmbeddedStore
from dpdau.activity.store import Applied
from dpdau.domain import Event, Op, Segment, day_number
from dpdau.errors import (
    InvalidPlanError,
    InvalidSettingError,
    SchemaVersionError,
    SecretMismatchError,
    StoreCorruptError,
    StoreUnavailableError,
)
from strategies import batch, columns

FIRST = dt.date(2026, 1, 1)
DAY = day_number(FIRST)
KEY = bytes(range(32))
WHO = 0x0123456789ABCDEF
NOW = dt.datetime(2026, 3, 15, 12, tzinfo=dt.UTC)

Open = Callable[..., EmbeddedStore]


def put(who: int, offset: int = 0, event_id: int = 0) -> Event:
    """A `+`."""
    return Event(who, Op.ADD, DAY + offset, event_id)


def fill(store: EmbeddedStore, batches: int = 12) -> None:
    """Batches of several sizes, labels and ids, so that every table has rows on every level."""
    for one in range(batches):
        events = [
            put(one << 59 | user, user % 3, event_id=one * 100 + user + 1) for user in range(5)
        ]
        store.apply(batch([(event, {"platform": "web"}) for event in events[: 1 + one % 5]]))


def read_everything(store: EmbeddedStore) -> None:
    """Reads every column of every table."""
    last = FIRST + dt.timedelta(days=5)
    store.counts(first=FIRST, last=last, window_days=(1, 30), segment=Segment("platform", "web"))
    ids = [put(1, event_id=one) for one in range(1, 1300)]
    store.apply(batch(ids))


def dau(store: EmbeddedStore, days: int = 1) -> list[int]:
    """The daily counts from the first day on."""
    last = FIRST + dt.timedelta(days=days - 1)
    return store.counts(first=FIRST, last=last, window_days=(1,))[0].tolist()


def test_files_and_folders_are_private(open_store: Open, tmp_path: Path) -> None:
    """Folders are 0700 and files 0600, also those that SQLite makes."""
    fill(open_store())
    modes = {
        stat.S_IMODE(path.stat().st_mode): path.is_dir()
        for path in (tmp_path / "activity", *(tmp_path / "activity").rglob("*"))
    }

    assert {0o700: True, 0o600: False} == modes


@pytest.mark.parametrize("key", [None, KEY], ids=["plain", "encrypted"])
def test_damage_anywhere_is_found(open_store: Open, tmp_path: Path, key: bytes | None) -> None:
    """One flipped byte in any segment file is an error that names the file."""
    store = open_store(store_key=key)
    fill(store)
    store.close()
    rng = np.random.default_rng(1)
    paths = sorted((tmp_path / "activity" / "segments").iterdir())
    assert len(paths) > 6

    for number, name in enumerate(path.name for path in paths):
        root = tmp_path / str(number)
        shutil.copytree(tmp_path / "activity", root)
        path = root / "segments" / name
        whole = path.read_bytes()
        at = int(rng.integers(len(whole)))
        path.write_bytes(whole[:at] + bytes([whole[at] ^ 1]) + whole[at + 1 :])
        damaged = EmbeddedStore(root, store_key=key, clock=lambda: NOW)
        with pytest.raises(StoreCorruptError) as caught:
            read_everything(damaged)
        assert name == caught.value.facts["file"]
        damaged.close()


@pytest.mark.parametrize("key", [None, KEY], ids=["plain", "encrypted"])
def test_damage_in_a_small_commit_is_found(
    open_store: Open, tmp_path: Path, key: bytes | None
) -> None:
    """Rows that wait in the manifest are checked too."""
    store = open_store(store_key=key)
    store.apply(batch([put(WHO)]))
    store.close()
    db = sqlite3.connect(tmp_path / "activity" / "manifest.sqlite")
    (payload,) = db.execute("SELECT payload FROM pending WHERE kind = 'masks'").fetchone()
    changed = payload[:30] + bytes([payload[30] ^ 1]) + payload[31:]
    db.execute("UPDATE pending SET payload = ? WHERE kind = 'masks'", (changed,))
    db.commit()
    db.close()

    with pytest.raises(StoreCorruptError):
        dau(open_store(store_key=key))


def test_a_manifest_that_is_none_is_damage(tmp_path: Path, open_store: Open) -> None:
    """Another file in the manifest's place is an error of integrity."""
    (tmp_path / "activity").mkdir()
    (tmp_path / "activity" / "manifest.sqlite").write_bytes(b"not a database" * 100)

    with pytest.raises(StoreCorruptError):
        open_store()


def test_a_named_file_that_is_gone_is_damage(open_store: Open, tmp_path: Path) -> None:
    """A file that the manifest names and nobody replaced must be there."""
    store = open_store()
    fill(store)
    store.close()
    shutil.rmtree(tmp_path / "activity" / "segments")

    with pytest.raises(StoreCorruptError):
        dau(open_store())


def test_a_later_schema_is_refused(open_store: Open, tmp_path: Path) -> None:
    """A store written by a newer version stops the start."""
    open_store().close()
    db = sqlite3.connect(tmp_path / "activity" / "manifest.sqlite")
    db.execute("PRAGMA user_version = 99")
    db.close()

    with pytest.raises(SchemaVersionError):
        open_store()


@pytest.mark.parametrize(("written", "opened"), [(None, KEY), (KEY, None), (KEY, bytes(32))])
def test_another_key_is_refused(
    open_store: Open, written: bytes | None, opened: bytes | None
) -> None:
    """A store opens only under the choice of key that it was made with."""
    open_store(store_key=written).close()

    with pytest.raises(SecretMismatchError):
        open_store(store_key=opened)


def test_a_short_key_is_refused(open_store: Open) -> None:
    """A store key has 32 bytes."""
    with pytest.raises(InvalidSettingError):
        open_store(store_key=b"short")


def holding(root: Path, *values: int) -> list[str]:
    """The files that hold one of some 64-bit values, in either byte order."""
    wanted = [value.to_bytes(8, order) for value in values for order in ("little", "big")]
    return [
        path.name
        for path in sorted(root.rglob("*"))
        if path.is_file() and any(one in path.read_bytes() for one in wanted)
    ]


@pytest.mark.parametrize("later", [0, 1, 2, 3, 12])
def test_forgetting_leaves_no_byte(open_store: Open, tmp_path: Path, later: int) -> None:
    """After an erasure no file holds the pseudonym or its alias, at whatever level they were."""
    store = open_store()
    fill(store, 5)
    alias = WHO ^ 0xFF
    store.apply(batch([(put(alias), {"platform": "ios"}), (put(alias, 70), {"platform": "ios"})]))
    store.apply(batch([(put(WHO, 1), {"platform": "web"})], alias=lambda _who: [alias]))
    fill(store, later)
    others = dau(store, 80)
    root = tmp_path / "activity"
    assert holding(root, WHO)
    assert holding(root, alias)

    assert 3 == store.forget([WHO, alias])
    assert [] == holding(root, WHO, alias)
    gone = [others[day] - (day in {0, 1, 70}) for day in range(80)]
    assert gone == dau(store, 80)
    assert 0 == store.forget([WHO, alias])


def test_the_key_hides_pseudonyms(open_store: Open, tmp_path: Path) -> None:
    """Under a store key no file holds a pseudonym in the clear."""
    store = open_store(store_key=KEY)
    store.apply(batch([(put(WHO), {"platform": "ios"})]))
    small = holding(tmp_path / "activity", WHO)
    fill(store)

    assert [] == small
    assert [] == holding(tmp_path / "activity", WHO)


def test_forgetting_too_many_is_refused(open_store: Open, monkeypatch: pytest.MonkeyPatch) -> None:
    """One call forgets a bounded number of pseudonyms; none is no work."""
    monkeypatch.setattr("dpdau.activity.verbs.FORGET_MAX", 2)
    store = open_store()

    assert 0 == store.forget([])
    with pytest.raises(InvalidPlanError):
        store.forget([1, 2, 3])


def test_orphans_go_on_the_next_writable_open(open_store: Open, tmp_path: Path) -> None:
    """Files that a crash left are deleted; files that count stay; a reader touches nothing."""
    store = open_store()
    fill(store)
    expected = dau(store)
    store.close()
    segments = tmp_path / "activity" / "segments"
    named = {path.name for path in segments.iterdir()}
    for orphan in ("0" * 32 + ".seg", "1" * 32 + ".seg.tmp"):
        (segments / orphan).write_bytes(b"half")
    open_store(read_only=True).close()
    with_orphans = {path.name for path in segments.iterdir()}
    store = open_store()

    assert named < with_orphans
    assert named == {path.name for path in segments.iterdir()}
    assert expected == dau(store)


def test_orphans_of_another_writer_go_with_the_first_write(
    open_store: Open, tmp_path: Path
) -> None:
    """A process that takes over from a crashed writer cleans up after it."""
    first, second = open_store(), open_store()
    fill(first)
    orphan = tmp_path / "activity" / "segments" / ("0" * 32 + ".seg")
    orphan.write_bytes(b"half")
    first.close()
    second.check_writable()

    assert not orphan.exists()


def test_a_second_writer_is_refused(open_store: Open) -> None:
    """The first writer holds the store until it closes; reading goes on beside it."""
    first, second = open_store(), open_store()
    first.apply(batch([put(1)]))

    with pytest.raises(StoreUnavailableError, match="another process"):
        second.apply(batch([put(2)]))
    assert [1] == dau(second)
    first.close()
    second.apply(batch([put(2)]))
    assert [2] == dau(second)


def test_a_store_can_be_opened_while_another_writes(open_store: Open) -> None:
    """Opening does not need the writer's lock once the store exists."""
    first = open_store()
    first.apply(batch([put(1)]))

    assert [1] == dau(open_store())


def test_read_only_never_writes(open_store: Open, tmp_path: Path) -> None:
    """A read-only store needs one that exists, answers, and refuses writes."""
    with pytest.raises(StoreUnavailableError):
        open_store(read_only=True)
    assert not (tmp_path / "activity").exists()
    fill(open_store())
    reader = open_store(read_only=True)

    assert dau(open_store()) == dau(reader)
    for call in (
        lambda: reader.apply(batch([put(1)])),
        lambda: reader.forget([1]),
        reader.check_writable,
    ):
        with pytest.raises(StoreUnavailableError):
            call()


@pytest.mark.parametrize("rows", [1, 50])
def test_a_full_disk_applies_nothing(
    open_store: Open, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, rows: int
) -> None:
    """When a write fails the batch is not there, no file is left, and a retry works."""
    store = open_store()
    fill(store, 3)
    before, names = dau(store), {path.name for path in tmp_path.rglob("*")}
    events = batch([put(1000 + who) for who in range(rows)], batch_id="a", offsets={"topic": 1})

    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patched:
        patched.setattr(os, "fsync", full)
        patched.setattr("dpdau.activity.manifest.Manifest.add_pending", full)
        with pytest.raises(StoreUnavailableError):
            store.apply(events)
        assert before == dau(store)
        assert names == {path.name for path in tmp_path.rglob("*")}
        assert store.offset("topic") is None
    assert Applied(accepted=rows, duplicate=0, late=0) == store.apply(events)
    assert [before[0] + rows] == dau(store)


def test_a_full_manifest_applies_nothing(open_store: Open) -> None:
    """SQLite's own lack of room is the store's to report, with nothing applied."""
    store = open_store()
    store.apply(batch([put(1)]))
    assert store._access._writer is not None
    db = store._access._writer[0]._db
    pages = db.execute("PRAGMA page_count").fetchone()[0]
    db.execute(f"PRAGMA max_page_count = {pages}")

    big = columns(np.arange(2000), np.full(2000, DAY))
    with pytest.raises(StoreUnavailableError):
        EmbeddedStore.apply(_with_direct_rows(store, 10_000), big)
    assert [1] == dau(store)
    db.execute("PRAGMA max_page_count = 1000000")
    assert 2000 == store.apply(big).accepted


def _with_direct_rows(store: EmbeddedStore, rows: int) -> EmbeddedStore:
    """The same store, with a higher limit for rows that go through the manifest."""
    assert store._access._writer is not None
    store._access._writer[1]._limits = StoreLimits(direct_rows_min=rows)
    return store


def test_ids_expire_with_the_clock(open_store: Open) -> None:
    """Event and batch ids are remembered for the retention and forgotten some time after it."""
    now = [NOW]
    store = open_store(clock=lambda: now[0])
    events = batch([put(1, event_id=9)])
    named = batch([put(2)], batch_id="a")

    results = []
    for days in (0, 35, 15):
        now[0] += dt.timedelta(days=days)
        fill(store)
        results.append((store.apply(events).duplicate, store.apply(named).duplicate))

    assert [(0, 0), (1, 1), (0, 0)] == results


def test_a_batch_without_room_for_its_labels_is_refused_whole(
    open_store: Open, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Over the limits nothing of a batch is applied: no label is dropped without a word."""
    monkeypatch.setattr("dpdau.activity.dictionary.DIMENSION_VALUES_MAX", 1)
    monkeypatch.setattr("dpdau.activity.dictionary.DIMENSIONS_MAX", 1)
    store = open_store()
    store.apply(batch([(put(1), {"platform": "web"})]))
    for labels in ({"platform": "ios"}, {"country": "de"}):
        with pytest.raises(StoreUnavailableError):
            store.apply(batch([(put(2), {"platform": "web"}), (put(3), labels)]))

    assert [1] == dau(store)
    assert ("web",) == store.segment_values("platform")
    assert () == store.segment_values("country")


def test_one_user_with_many_values_moves_no_other_segment(open_store: Open) -> None:
    """The labels of others do not depend on how many values one user brings."""
    store = open_store()
    many = [(put(1), {"platform": f"value-{number}"}) for number in range(70_000)]
    store.apply(batch(many))
    store.apply(batch([(put(2), {"platform": "web"})]))
    counted = store.counts(
        first=FIRST, last=FIRST, window_days=[1], segment=Segment("platform", "web")
    )

    assert [[1]] == counted.tolist()


def test_threads_share_a_store(open_store: Open) -> None:
    """Writes and reads from several threads at once lose nothing and never tear a batch."""
    store = open_store()

    def work(thread: int) -> bool:
        whole = True
        for one in range(10):
            store.apply(batch([put(thread * 1000 + one * 2 + pair) for pair in range(2)]))
            whole &= dau(store)[0] % 2 == 0
        return whole

    with ThreadPoolExecutor(4) as threads:
        assert [True] * 4 == list(threads.map(work, range(4)))
    assert [80] == dau(store)


READER = """
import datetime as dt, sys
from pathlib import Path
from dpdau.activity.embedded import EmbeddedStore
day = dt.date(2026, 1, 1)
clock = lambda: dt.datetime(2026, 3, 15, tzinfo=dt.UTC)
store = EmbeddedStore(Path(sys.argv[1]), clock=clock, read_only=True)
print("ready", flush=True)
seen = 0
while seen < int(sys.argv[2]):
    now = int(store.counts(first=day, last=day, window_days=[1])[0, 0])
    assert now >= seen and now % 5 == 0, (seen, now)
    seen = now
print("done", flush=True)
"""


def test_another_process_reads_while_one_writes(open_store: Open, tmp_path: Path) -> None:
    """A reader sees whole batches in order, while the writer folds and merges under it."""
    store = open_store()
    store.apply(batch([put(who << 60) for who in range(5)]))
    rounds = 80
    reader = subprocess.Popen(
        [sys.executable, "-c", READER, str(tmp_path / "activity"), str(5 * rounds)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert reader.stdout is not None
    assert "ready" == reader.stdout.readline().strip()
    for one in range(1, rounds):
        store.apply(batch([put((one * 5 + who) * 0x9E3779B97F4A7C15 % 2**64) for who in range(5)]))
    out, errors = reader.communicate(timeout=60)

    assert ("done", "") == (out.strip(), errors)
    assert 0 == reader.returncode


def test_erasures_alone_do_not_pile_up(open_store: Open, tmp_path: Path) -> None:
    """Tombstones of an open month are folded although nothing is ingested between erasures."""
    store = open_store(limits=StoreLimits(pending_commits_max=4))
    store.open_month("2026-01", lookback_days=30)
    for who in range(1, 40):
        store.forget([who])
    with sqlite3.connect(tmp_path / "activity" / "manifest.sqlite") as raw:
        (pending,) = raw.execute("SELECT count(*) FROM pending").fetchone()
    raw.close()

    assert pending <= 6
