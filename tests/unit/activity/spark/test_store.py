"""The store in a lake: what its callers meet beside what every `ActivityStore` promises."""

import datetime as dt
import stat
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from dpdau.activity.embedded import EmbeddedStore
from dpdau.activity.spark import frames
from dpdau.activity.spark.lake import Lake
from dpdau.activity.spark.store import SparkStore
from dpdau.activity.spark.writer import LakeWriter
from dpdau.activity.turnstile import fold
from dpdau.domain import Event, Op, day_number
from dpdau.errors import InvalidSettingError, StoreCorruptError, StoreUnavailableError
from stores import NOW, small_lake
from strategies import batch

if TYPE_CHECKING:
    from pyspark.sql import DataFrame, SparkSession

FIRST = dt.date(2026, 2, 1)
DAY = day_number(FIRST)


def daily(store: SparkStore) -> list[int]:
    """The counts of three days."""
    last = FIRST + dt.timedelta(days=2)
    return store.counts(first=FIRST, last=last, window_days=(1,)).tolist()[0]


def test_everything_is_private(folder: Path, spark: "SparkSession") -> None:
    """Folders are 0700 and files 0600, also those that Spark wrote."""
    with closing(small_lake(folder, spark)) as store:
        store.apply(batch([Event(7, Op.ADD, DAY)]))
        store.open_month("2026-02", lookback_days=7)
        store.freeze("2026-02", FIRST)
        for path in (*folder.rglob("*"), folder / "lake"):
            expected = {0o700} if path.is_dir() else {0o600}
            # SQLite gives its helpers the mode of the database.
            assert {stat.S_IMODE(path.stat().st_mode)} == expected, path


def test_one_process_writes_and_others_read(folder: Path, spark: "SparkSession") -> None:
    """A second writer is refused; a reader sees each commit, and cannot write."""
    with closing(small_lake(folder, spark)) as store:
        store.apply(batch([Event(7, Op.ADD, DAY)]))
        with closing(small_lake(folder, spark)) as other:
            assert [1, 0, 0] == daily(other)
            with pytest.raises(StoreUnavailableError, match="only writer"):
                other.apply(batch([Event(8, Op.ADD, DAY)]))
        with closing(small_lake(folder, spark, read_only=True)) as reader:
            store.apply(batch([Event(8, Op.ADD, DAY)]))
            assert [2, 0, 0] == daily(reader)
            with pytest.raises(StoreUnavailableError, match="read-only"):
                reader.apply(batch([Event(9, Op.ADD, DAY)]))
    with pytest.raises(StoreUnavailableError, match="Expected a lake"):
        small_lake(folder / "other", spark, read_only=True)


def test_a_lake_belongs_to_one_manifest(folder: Path, spark: "SparkSession") -> None:
    """Another lake, a folder's own store, or a lake whose manifest is lost is refused."""
    small_lake(folder, spark).close()
    EmbeddedStore(folder / "own" / "activity", clock=lambda: NOW).close()
    with pytest.raises(InvalidSettingError, match="another lake"):
        small_lake(folder, spark, lake=folder / "second")
    with pytest.raises(InvalidSettingError, match="own folder"):
        small_lake(folder / "own", spark)
    with pytest.raises(InvalidSettingError, match="lake"):
        EmbeddedStore(folder / "activity", clock=lambda: NOW)
    with closing(small_lake(folder, spark)) as store:
        store.apply(batch([Event(7, Op.ADD, DAY)]))
    (folder / "activity" / "manifest.sqlite").unlink()
    with pytest.raises(StoreCorruptError, match="Restore it"):
        small_lake(folder, spark)
    (folder / "activity" / "store.made").unlink()
    with pytest.raises(StoreCorruptError, match="Restore it"):
        small_lake(folder, spark)


def test_an_empty_lake_is_that_of_one_store(
    folder: Path, spark: "SparkSession", monkeypatch: pytest.MonkeyPatch
) -> None:
    """A second store is refused and leaves nothing; one that was cut short there goes on."""
    small_lake(folder, spark).close()
    with pytest.raises(InvalidSettingError, match="another DATA_DIR"):
        small_lake(folder / "other", spark, lake=folder / "lake")
    assert not SparkStore.exists(folder / "other" / "activity")

    def killed(_lake: Lake, _id: str) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(Lake, "claim", killed)
        with pytest.raises(KeyboardInterrupt):
            small_lake(folder / "cut", spark)
    with closing(small_lake(folder / "cut", spark)) as store:
        assert 1 == store.apply(batch([Event(7, Op.ADD, DAY)])).accepted


def test_who_comes_second_to_an_empty_lake_is_refused(
    folder: Path, spark: "SparkSession", monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two that look at once both see it free; only one takes it."""
    real = Lake.claim

    def late(lake: Lake, own: str) -> None:
        real(lake, "b" * 24)
        real(lake, own)

    monkeypatch.setattr(Lake, "claim", late)
    for _ in range(2):
        with pytest.raises(InvalidSettingError, match="another DATA_DIR"):
            small_lake(folder, spark)


def test_a_start_that_failed_is_tried_again(
    folder: Path, spark: "SparkSession", monkeypatch: pytest.MonkeyPatch
) -> None:
    """What a crash left is ended before anything is written, however often that fails."""
    with closing(small_lake(folder, spark)) as store:
        tries: list[int] = []

        def failing(writer: LakeWriter) -> None:
            tries.append(1)
            raise OSError(5, "away")

        with monkeypatch.context() as patch:
            patch.setattr(LakeWriter, "recover", failing)
            for _ in range(2):
                with pytest.raises(StoreUnavailableError, match="away"):
                    store.apply(batch([Event(7, Op.ADD, DAY)]))
        assert [1, 1] == tries
        assert 1 == store.apply(batch([Event(7, Op.ADD, DAY)])).accepted


@pytest.mark.parametrize("body", [None, b"cut"])
def test_a_file_that_is_damaged_is_never_left_out(
    folder: Path, spark: "SparkSession", body: bytes | None
) -> None:
    """Where a file is gone or cut, nothing is counted and nothing is folded without it."""
    with closing(small_lake(folder, spark)) as store:
        for who in (7, 8):
            store.apply(batch([Event(who, Op.ADD, DAY)]))
        path = next((folder / "lake" / "days").iterdir())
        if body is None:
            path.unlink()
        else:
            path.write_bytes(body)
        for call in (
            lambda: daily(store),
            lambda: store.growth(FIRST, window_days=7),
            lambda: store.forget([7]),
            lambda: store.apply(batch([Event(9, Op.ADD, DAY)], alias=lambda _who: [7])),
        ):
            with pytest.raises(StoreCorruptError) as caught:
                call()
            assert path.name in str(caught.value.facts["file"])


def test_a_reader_goes_on_while_files_are_replaced(folder: Path, spark: "SparkSession") -> None:
    """A count that meets a fold in another thread is that of a state before or after."""
    with closing(small_lake(folder, spark)) as store, ThreadPoolExecutor(1) as other:
        for who in range(8):
            store.apply(batch([Event(who, Op.ADD, DAY)]))
            written = other.submit(store.tend)
            assert [who + 1, 0, 0] == daily(store)
            written.result()


def test_a_wrong_order_is_noticed(
    folder: Path, spark: "SparkSession", monkeypatch: pytest.MonkeyPatch
) -> None:
    """With the first row of a key in place of the last one, the fold says something else."""
    from pyspark.sql import functions as sql

    def oldest(days: "DataFrame") -> "DataFrame":
        first = days.groupBy("key", "day").agg(sql.min_by("add", "commit").alias("add"))
        return first.filter("add").select("key", "day")

    stream = [Event(7, Op.ADD, DAY), Event(7, Op.REMOVE, DAY), Event(8, Op.ADD, DAY)]
    expected = fold(stream).counts(first=FIRST, last=FIRST, window_days=(1,)).tolist()[0]
    with closing(small_lake(folder, spark)) as store:
        for event in stream:
            store.apply(batch([event]))
        assert expected == daily(store)[:1]
        monkeypatch.setattr(frames, "standing", oldest)
        assert expected != daily(store)[:1]


def test_the_size_is_told(folder: Path, spark: "SparkSession") -> None:
    """Rows that wait for a fold are told apart; after it none waits."""
    with closing(small_lake(folder, spark)) as store:
        store.apply(batch([Event(7, Op.ADD, DAY), Event(8, Op.ADD, DAY)]))
        store.apply(batch([Event(9, Op.ADD, DAY + 1)]))
        stats = store.stats()
        assert (2, 3, 1) == (stats.segments, stats.rows, stats.pending_rows)
        for who in range(10, 13):
            store.apply(batch([Event(who, Op.ADD, DAY + 1)]))
        store.tend()
        assert (6, 0) == (store.stats().rows, store.stats().pending_rows)
