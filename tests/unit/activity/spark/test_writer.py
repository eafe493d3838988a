"""Changes of the lake: complete or not there, folded in time, and nothing left of what goes."""

import contextlib
import datetime as dt
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow.parquet as pq
import pytest

from dpdau.activity.doors import MANIFEST
from dpdau.activity.manifest import Manifest
from dpdau.activity.sealing import Sealer
from dpdau.activity.spark import adoption, frames, state, writer
from dpdau.activity.spark.lake import GRAVE, UNSPLIT
from dpdau.activity.spark.store import SparkStore
from dpdau.domain import Event, Op, day_number
from dpdau.errors import StoreUnavailableError
from stores import NOW, small_lake
from strategies import batch, columns

if TYPE_CHECKING:
    from pyspark.sql import DataFrame, SparkSession

FIRST = dt.date(2026, 2, 1)
DAY = day_number(FIRST)
WHO = 0x9E3779B97F4A7C15


class Killed(BaseException):
    """The end of the process: nothing after it changes the disk."""


class Dying:
    """Ends the process before the n-th change of the disk, or of the manifest."""

    def __init__(self, at: int, patch: pytest.MonkeyPatch) -> None:
        self._left = at
        for name in ("rename", "unlink", "chmod"):
            patch.setattr(Path, name, self._counted(getattr(Path, name)))
        for name in ("take_seq", "truncate_log"):
            patch.setattr(Manifest, name, self._counted(getattr(Manifest, name)))

    @property
    def is_dead(self) -> bool:
        """Whether the end came."""
        return self._left <= 0

    def _counted(self, work: Callable[..., Any]) -> Callable[..., Any]:
        def call(*args: Any, **named: Any) -> Any:
            self._left -= 1
            if self.is_dead:
                raise Killed
            return work(*args, **named)

        return call


def daily(store: SparkStore) -> list[int]:
    """The counts of a week."""
    last = FIRST + dt.timedelta(days=6)
    return store.counts(first=FIRST, last=last, window_days=(1,)).tolist()[0]


def filled(store: SparkStore) -> SparkStore:
    """A few commits with labels, ids and a month."""
    store.open_month("2026-02", lookback_days=7, dimensions=["platform"])
    store.apply(batch([(Event(WHO, Op.ADD, DAY, 5), {"platform": "web"}), Event(8, Op.ADD, DAY)]))
    store.freeze("2026-02", FIRST)
    store.apply(batch([Event(WHO, Op.ADD, DAY + 1), Event(9, Op.ADD, DAY + 1)]))
    return store


def keys_in(lake: Path) -> set[int]:
    """The keys of all rows in all files, whether they count or not."""
    files = [*lake.rglob("*.parquet")]
    return {key % 2**64 for one in files for key in pq.read_table(one)["key"].to_pylist()}


WORK: dict[str, Callable[[SparkStore], object]] = {
    "apply": lambda store: store.apply(
        batch([(Event(17, Op.ADD, DAY + 2, 6), {"platform": "ios"})], alias=lambda _who: [WHO])
    ),
    "forget": lambda store: store.forget([WHO], erasure_id="it", done_at=NOW),
    "freeze": lambda store: store.freeze("2026-02", FIRST + dt.timedelta(days=1)),
    "end": lambda store: store.end_month("2026-02"),
    "purge": lambda store: store.purge_before(FIRST + dt.timedelta(days=1)),
}


def told(store: SparkStore) -> dict[str, object]:
    """What a caller can see."""
    return {
        "counts": daily(store),
        "months": store.open_months(),
        "frozen": store.frozen_through("2026-02"),
        "values": store.segment_values("platform"),
        "closed": store.closed_days(FIRST, FIRST + dt.timedelta(days=9)),
    }


def named(root: Path) -> set[str]:
    """The files that a manifest names."""
    with closing(Manifest(root / "activity" / MANIFEST, Sealer(None), read_only=True)) as manifest:
        return manifest.lake.names()


def there(root: Path) -> set[str]:
    """The files that are in a lake."""
    return {str(one.relative_to(root / "lake")) for one in root.rglob("*.parquet")}


@pytest.mark.parametrize("work", WORK.values(), ids=WORK)
def test_a_change_is_there_whole_or_not_at_all(
    folder: Path, spark: "SparkSession", work: Callable[[SparkStore], object]
) -> None:
    """Killed before any change of the disk, the store is as before or as after, with no orphan."""
    filled(small_lake(folder / "filled", spark)).close()
    shutil.copytree(folder / "filled", folder / "0")
    with closing(small_lake(folder / "0", spark)) as store:
        before = told(store)
        work(store)
        after = told(store)
    is_over, number = False, 0
    while not is_over:
        number += 1
        root = folder / str(number)
        shutil.copytree(folder / "filled", root)
        store = small_lake(root, spark)
        store.check_writable()
        with pytest.MonkeyPatch.context() as patch:
            dying = Dying(number, patch)
            with contextlib.suppress(Killed):
                work(store)
            is_over = not dying.is_dead
        store.close()
        with closing(small_lake(root, spark)) as again:
            assert told(again) in (before, after)
        assert named(root) == there(root)
    assert number > 1


KILLER = """
import os, pathlib, signal, sys
sys.path[:0] = sys.argv[3:]
from dpdau.activity.lake_table import LakeTable
from dpdau.activity.spark.session import connect
from dpdau.domain import Event, Op
from stores import small_lake
from strategies import batch
store = small_lake(pathlib.Path(sys.argv[2]), connect(sys.argv[1]))
store.apply(batch([Event(7, Op.ADD, 20485)]))
LakeTable.add = lambda *_: os.kill(os.getpid(), signal.SIGKILL)
store.apply(batch([Event(8, Op.ADD, 20485)], batch_id="a"))
"""


def test_a_kill_before_the_manifest_leaves_nothing_that_counts(
    folder: Path, master: str, spark: "SparkSession"
) -> None:
    """Files are finished when the process is killed; they count for nothing, and they go."""
    assert DAY == 20485
    command = [sys.executable, "-c", KILLER, master, str(folder), *sys.path]
    assert -signal.SIGKILL == subprocess.run(command, check=False).returncode
    assert 1 == len(there(folder) - named(folder))
    with closing(small_lake(folder, spark)) as store:
        assert 1 == daily(store)[0]
        assert there(folder) == named(folder)
        assert 1 == store.apply(batch([Event(8, Op.ADD, DAY)], batch_id="a")).accepted
        assert 2 == daily(store)[0]


def test_nothing_of_a_forgotten_user_is_left(folder: Path, spark: "SparkSession") -> None:
    """Neither in the rows, labels and statistics of the files, nor in a page of the manifest."""
    with closing(small_lake(folder, spark)) as store:
        store.apply(batch([(Event(WHO, Op.ADD, DAY), {"platform": "web"})]))
        store.apply(batch([Event(8, Op.ADD, DAY)]))
        store.apply(batch([Event(17, Op.ADD, DAY + 1)], alias=lambda _who: [WHO]))
        assert {WHO, 17} < keys_in(folder)
        assert 2 == store.forget([17, WHO])
        assert {8} == keys_in(folder)
        for path in folder.rglob("*"):
            if path.is_file():
                body = path.read_bytes()
                for order in ("little", "big"):
                    assert WHO.to_bytes(8, order) not in body


def test_rows_that_are_not_seen_here_replace_nothing(
    folder: Path, spark: "SparkSession", monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where executors write to a disk of their own, nothing is folded, erased or adopted."""
    real = writer.written

    def elsewhere(rows: "DataFrame", stage: Path, **more: Any) -> int:
        count = real(rows, stage, **more)
        shutil.rmtree(stage)
        return count

    with closing(small_lake(folder, spark)) as store:
        for some in ((WHO, 8), (9,), (10,), (11,)):
            store.apply(batch([Event(who, Op.ADD, DAY) for who in some]))
        before = there(folder)
        more = store.spark.createDataFrame(
            [(7, DAY, True, 1, 0)],
            "pseudonym BIGINT, day INT, add BOOLEAN, event BIGINT, event_id BIGINT",
        )
        for place in (writer, adoption):
            monkeypatch.setattr(place, "written", elsewhere)
        for call in (store.tend, lambda: store.forget([WHO]), lambda: store.adopt(more)):
            with pytest.raises(StoreUnavailableError, match="share LAKE_DIR"):
                call()
        assert before == there(folder) == named(folder)
        assert 5 == daily(store)[0]


def test_a_stage_that_a_kill_left_goes_with_the_next_writer(
    folder: Path, spark: "SparkSession"
) -> None:
    """It may hold who is erased later."""
    small_lake(folder, spark).close()
    left = folder / "lake" / "tmp" / "left"
    left.mkdir()
    (left / "0.parquet").write_bytes(b"rows")
    with closing(small_lake(folder, spark)):
        assert not left.exists()


def test_an_open_month_keeps_a_grave_and_no_more(folder: Path, spark: "SparkSession") -> None:
    """The tombstone names the user until the month ends; then nothing does."""
    with closing(filled(small_lake(folder, spark))) as store:
        assert 2 == store.forget([WHO], erasure_id="it", done_at=NOW)
        files = [pq.read_table(one).to_pylist() for one in folder.rglob("*.parquet")]
        rows = [row for some in files for row in some if row["key"] % 2**64 == WHO]
        assert [GRAVE] == [row["day"] for row in rows]
        assert store.receipt("it").files_cleared
        store.end_month("2026-02")
        assert WHO not in keys_in(folder)


def test_many_commits_become_few(folder: Path, spark: "SparkSession") -> None:
    """However many small batches come, few files are left, and large ones are cut by key."""
    with closing(small_lake(folder, spark)) as store:
        for number in range(30):
            keys = np.arange(3, dtype=np.uint64) * np.uint64(WHO) + np.uint64(number)
            store.apply(columns(keys, np.full(3, DAY)))
        while not store.tend():
            pass
        with closing(Manifest(folder / "activity" / MANIFEST, Sealer(None), read_only=True)) as one:
            files = one.lake.files()

        assert len({one.seq for one in files}) <= 3
        assert any(one.part != UNSPLIT for one in files)
        assert len({(one.seq, one.part) for one in files}) >= len(files) // 2
        assert named(folder) == there(folder)
        assert len({(k * WHO + n) % 2**64 for k in range(3) for n in range(30)}) == daily(store)[0]


def test_many_keys_are_forgotten_at_once(
    folder: Path, spark: "SparkSession", monkeypatch: pytest.MonkeyPatch
) -> None:
    """More keys than one query names are joined; what is left is the same."""
    for one in (state, writer):
        monkeypatch.setattr(one, "LITERALS_MAX", 2)
    with closing(small_lake(folder, spark)) as store:
        store.apply(columns(np.arange(10), np.full(10, DAY)))

        assert 1 == store.forget(range(7))
        assert {7, 8, 9} == keys_in(folder)
        assert 3 == daily(store)[0]


def test_event_ids_go_when_they_are_old(folder: Path, spark: "SparkSession") -> None:
    """After the retention an id is forgotten by `flush`, and no batch id is remembered."""
    now = [NOW]
    with closing(small_lake(folder, spark, clock=lambda: now[0])) as store:
        store.apply(batch([Event(7, Op.ADD, DAY, 5)], batch_id="a"))
        assert 1 == store.apply(batch([Event(7, Op.ADD, DAY, 5)])).duplicate
        now[0] += dt.timedelta(days=60)
        store.flush()
        assert not any(name.startswith("seen/") for name in there(folder))
        assert store.tend()
        again = batch([Event(7, Op.ADD, DAY, 5)], batch_id="a")
        assert 1 == store.apply(again).accepted


def test_a_spark_that_fails_leaves_nothing(
    folder: Path, spark: "SparkSession", monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where a job gives up, the change is refused, its files are gone, and a retry works."""
    from pyspark.sql import functions as sql

    def broken(labels: "DataFrame") -> "DataFrame":
        return labels.withColumn("code", sql.raise_error(sql.lit("user 4711 was here")))

    with closing(filled(small_lake(folder, spark))) as store:
        before = there(folder)
        moving = batch([Event(17, Op.ADD, DAY + 2)], alias=lambda _who: [WHO])
        with monkeypatch.context() as patch:
            patch.setattr(frames, "first_codes", broken)
            with pytest.raises(StoreUnavailableError) as caught:
                store.apply(moving)
        assert "4711" not in str(caught.value)
        assert before == there(folder) == named(folder)
        assert 1 == store.apply(moving).accepted
