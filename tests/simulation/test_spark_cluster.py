"""Spark on the JVM: beside this process, and as a cluster of two workers, one of which dies.

`DPDAU_SOAK=1` has both kinds count everything.
"""

import datetime as dt
import json
import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import pytest

from components import Cluster, spark_local, spark_standalone
from contracts.test_activity_engines import (
    check_data,
    check_month,
    check_streams,
    month_streams,
)
from dpdau.activity.embedded import EmbeddedStore
from dpdau.activity.spark.session import connect
from dpdau.activity.spark.store import SparkStore
from dpdau.ingest.batch import IngestReport
from dpdau.ingest.datasets import read_cdnow, read_nycflights
from dpdau.ingest.rules import Rules
from dpdau.ingest.spark.adopting import decoded_pieces
from dpdau.ingest.spark.pieces import pieces_of
from dpdau.ingest.spark.recipe import Recipe
from dpdau.pseudonym import EpochKey
from lakes import lake_counts
from products import NOW, SECRET
from stores import folder_in_memory
from streams import ENDS, WINDOWS, recount, stream

if TYPE_CHECKING:
    from pyspark.sql import SparkSession

SEED = 20260325
EVERYTHING = bool(os.environ.get("DPDAU_SOAK"))
FILES = 16
ROWS = 3_200
PATIENCE_SECONDS = 120
OPTIONS = {
    "spark.sql.shuffle.partitions": "2",
    "spark.executor.memory": "512m",
    "spark.log.level": "FATAL",
    # For a few rows, compiling costs more than it saves.
    "spark.sql.codegen.wholeStage": "false",
    "spark.sql.codegen.factoryMode": "NO_CODEGEN",
    "spark.sql.adaptive.enabled": "false",
    "spark.locality.wait": "0s",
}
BYTE_ORDERS: tuple[Literal["little", "big"], ...] = ("little", "big")
RECIPE = Recipe((EpochKey(1, b"k" * 32),), dt.date.min, Rules(NOW.date()))
pytestmark = [
    pytest.mark.slow,
    pytest.mark.xdist_group("jvm"),
    # Where its files are encrypted, the library is handed rows over sockets that it does not close.
    pytest.mark.filterwarnings("ignore:unclosed <socket:ResourceWarning"),
]


@pytest.fixture(scope="module")
def cluster() -> Iterator[Cluster]:
    """A master and two workers."""
    with spark_standalone() as found:
        yield found


@pytest.fixture
def folder(tmp_path: Path) -> Iterator[Path]:
    """A folder in memory where the system has one."""
    with folder_in_memory(otherwise=tmp_path) as found:
        yield found


@contextmanager
def both(
    master: str, folder: Path
) -> Iterator[tuple["SparkSession", tuple[EmbeddedStore, SparkStore]]]:
    """A session, and an empty store of each kind; the lake has a name that is easily mistaken."""
    with session(master, **{"spark.local.dir": str(folder / "spark")}) as spark:
        embedded = EmbeddedStore(folder / "embedded", clock=lambda: NOW)
        lake = SparkStore(
            folder / "store", lake=folder / "my lake é", spark=spark, clock=lambda: NOW
        )
        with closing(embedded), closing(lake):
            yield spark, (embedded, lake)


@contextmanager
def session(master: str, **more: str) -> Iterator["SparkSession"]:
    """A session, given back: a process has one at a time."""
    spark = connect(master, options={**OPTIONS, **more})
    try:
        yield spark
    finally:
        spark.stop()


@pytest.fixture
def local() -> Iterator[str]:
    """Spark in a JVM beside this process; its master URL."""
    with spark_local() as found:
        yield found


def test_in_one_jvm_it_counts_as_the_embedded_store(local: str, folder: Path) -> None:
    """Real data, and a month of all streams: the same, and no file of Spark shows them."""
    with both(local, folder) as (spark, stores):
        check_real_data(spark, stores)
        check_month(stores, days=2)
        (folder / "events").mkdir()
        _write(folder / "events" / "few", stream(SEED, FILES))
        _adopted(spark, stores[1], folder / "events" / "few")
        check_no_traces(folder / "spark")
        if EVERYTHING:
            check_streams(stores)


def test_on_two_workers_it_counts_as_the_embedded_store(cluster: Cluster, folder: Path) -> None:
    """200 random streams, with what they take back and who is erased."""
    with both(cluster.url, folder) as (spark, stores):
        check_streams(stores)
        if EVERYTHING:
            check_month(stores)
            check_real_data(spark, stores)


def test_submitted_with_the_package_the_workers_need_nothing_else(
    cluster: Cluster, tmp_path: Path
) -> None:
    """spark-submit has a Python without libraries name the users: the counts are the recount."""
    rows = stream(SEED, 200)
    (tmp_path / "events.ndjson").write_text("\n".join(map(json.dumps, rows)))
    package = tmp_path / "dpdau.zip"
    deploy = Path(__file__).parents[2] / "deploy" / "spark"
    subprocess.run([sys.executable, deploy / "package.py", package], check=True)
    options = {
        **OPTIONS,
        "spark.executorEnv.PYTHONPATH": "dpdau",
        "spark.pyspark.driver.python": sys.executable,
        "spark.pyspark.python": str(sys._base_executable),  # type: ignore[attr-defined]
        "spark.driver.host": "127.0.0.1",
    }
    submit = Path(sys.executable).with_name("spark-submit")
    done = subprocess.run(
        [submit, "--master", cluster.url, "--archives", f"{package}#dpdau"]
        + [part for name, value in options.items() for part in ("--conf", f"{name}={value}")]
        + [deploy / "job.py", "ingest", "--from", tmp_path / "events.ndjson", "--json"],
        env={
            **{name: value for name, value in os.environ.items() if name != "PYSPARK_PYTHON"},
            "PYSPARK_DRIVER_PYTHON": sys.executable,
            "DATA_DIR": str(tmp_path / "data"),
            "HASH_SALT_SECRET": SECRET,
        },
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
        timeout=PATIENCE_SECONDS,
    )

    assert 0 == done.returncode, done.stderr[-2000:]
    assert (200, 200) == tuple(json.loads(done.stdout)[name] for name in ("received", "accepted"))
    assert recount(rows) == lake_counts(tmp_path / "data")


def test_workers_that_die_in_the_middle_change_nothing(cluster: Cluster, tmp_path: Path) -> None:
    """While events are read, then while the lake is written: nothing is lost, nothing doubled."""
    rows = stream(SEED, 2 * ROWS)
    lake = tmp_path / "lake"
    with session(cluster.url) as spark:
        store = SparkStore(tmp_path / "activity", lake=lake, spark=spark, clock=lambda: NOW)
        done: list[IngestReport] = []
        for dying, is_due in enumerate((lambda: _is_reading(spark), lambda: _is_writing(lake))):
            source = tmp_path / f"events-{dying}"
            _write(source, rows[dying * ROWS : (dying + 1) * ROWS])
            work = threading.Thread(target=partial(_adopt, done, spark, store, source))
            work.start()
            _until(is_due)
            cluster.kill_worker(dying)
            was_busy = work.is_alive() and len(done) == dying
            cluster.add_worker()
            work.join(PATIENCE_SECONDS)
            assert was_busy
        found = store.counts(first=ENDS[0], last=ENDS[-1], window_days=WINDOWS).tolist()
        store.close()

    assert 2 * [(ROWS, ROWS, 0)] == [(one.received, one.accepted, one.duplicate) for one in done]
    assert recount(rows) == found


def check_real_data(spark: "SparkSession", stores: tuple[EmbeddedStore, SparkStore]) -> None:
    """Real data counts the same; there is enough of it to be worth compiling for."""
    spark.conf.set("spark.sql.codegen.wholeStage", "true")
    spark.conf.set("spark.sql.codegen.factoryMode", "FALLBACK")
    for read in (read_cdnow, read_nycflights) if EVERYTHING else (read_cdnow,):
        check_data(stores, read)


def check_no_traces(folder: Path) -> None:
    """Neither a pseudonym nor the key is in what Spark keeps on the disk until it ends."""
    kept = b"".join(one.read_bytes() for one in folder.rglob("*") if one.is_file())
    names = [event.pseudonym for some in month_streams(SEED) for event, _labels in some]

    assert kept
    assert RECIPE.keys[0].key not in kept
    assert [] == [
        one for one in names[::100] for order in BYTE_ORDERS if one.to_bytes(8, order) in kept
    ]


def _write(folder: Path, rows: list[dict[str, str]]) -> None:
    """Rows as files, each of which is a task."""
    folder.mkdir()
    share = len(rows) // FILES
    for number in range(FILES):
        part = rows[number * share : (number + 1) * share]
        (folder / f"{number:03}.ndjson").write_text("\n".join(map(json.dumps, part)))


def _adopted(spark: "SparkSession", store: SparkStore, folder: Path) -> IngestReport:
    """Has Spark read the files into the lake."""
    with decoded_pieces(spark, pieces_of(folder), RECIPE) as decoded:
        return decoded.adopt(store)


def _adopt(
    done: list[IngestReport], spark: "SparkSession", store: SparkStore, folder: Path
) -> None:
    """The same, in a thread."""
    done.append(_adopted(spark, store, folder))


def _is_reading(spark: "SparkSession") -> bool:
    """Whether some tasks of the job that is running are done, and not all."""
    tracker = spark.sparkContext.statusTracker()
    stages = (tracker.getStageInfo(one) for one in tracker.getActiveStageIds())
    return any(one and FILES // 4 <= one.numCompletedTasks < one.numTasks for one in stages)


def _is_writing(lake: Path) -> bool:
    """Whether a task has begun a file of the lake, and the job is not done."""
    return any(lake.glob("tmp/*/_temporary/0/_temporary/*/**/*.parquet"))


def _until(is_due: Callable[[], bool]) -> None:
    """Waits for a moment of a job that runs beside this thread."""
    deadline = time.monotonic() + PATIENCE_SECONDS
    while not is_due():
        assert time.monotonic() < deadline, "the job does not come"
        time.sleep(0.005)
