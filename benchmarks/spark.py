"""The counts of a month on Spark, in the product's query and in SQL written for them alone.

    python -m benchmarks.spark FILE RUNS

Both run in turn in one session of two threads, after one run of each that nothing is measured of.
Prints one JSON object: the counts, wall and CPU seconds, and bytes that were shuffled.
"""

import datetime as dt
import json
import os
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import Any, Final

from benchmarks.measure import spread
from benchmarks.rivals import spark_sql
from benchmarks.workload import MONTH, WINDOWS
from dpdau.activity.spark.session import connect
from dpdau.ingest.event_file import MonthSpan
from dpdau.ingest.rules import Rules
from dpdau.ingest.warehouse import Connected, Warehouse
from dpdau.ingest.warehouse_spark import SparkFiles

MASTER: Final = "local[2]"
ORDER: Final = "seq"
_OPTIONS: Final = {"spark.driver.memory": "3g"}
_RULES: Final = Rules(today=dt.date(2026, 4, 2))
_SPAN: Final = MonthSpan(MONTH, tuple(WINDOWS.values()))
_TICKS: Final = os.sysconf("SC_CLK_TCK")


class _InSession(SparkFiles):
    """Files that are read in the session that is there."""

    def connected(self) -> AbstractContextManager[Connected]:
        """A backend over it."""
        return _held()


@contextmanager
def _held() -> Iterator[Connected]:
    import ibis

    yield ibis.pyspark.connect(connect(MASTER, options=_OPTIONS)), None


def main(path: str, runs: int) -> None:
    """Runs both."""
    spark = connect(MASTER, options=_OPTIONS)
    spark.read.parquet(path).createOrReplaceTempView("events")
    place = _InSession(master=MASTER, path=path)

    def own() -> list[list[int]]:
        counted = Warehouse(place, rules=_RULES, span=_SPAN, order=ORDER).count()
        return counted.table[:, 0, :].T.tolist()

    programs: dict[str, Callable[[], list[list[int]]]] = {
        "dpdau": own,
        "spark sql": lambda: spark_sql.counts(spark, "events"),
    }
    answers = [program() for program in programs.values()]
    assert answers[0] == answers[1], "two programs, one truth"
    done: dict[str, list[tuple[float, float, int]]] = {name: [] for name in programs}
    for _ in range(runs):
        for name, program in programs.items():
            began, cpu, shuffled = time.perf_counter(), _cpu_seconds(), _shuffled(spark)
            program()
            done[name].append(
                (time.perf_counter() - began, _cpu_seconds() - cpu, _shuffled(spark) - shuffled)
            )
    told = {
        name: {
            "wall_seconds": spread([one[0] for one in some]),
            "cpu_seconds": spread([one[1] for one in some]),
            "shuffled_mb": round(some[-1][2] / 1e6, 1),
        }
        for name, some in done.items()
    }
    print(json.dumps({"counts": dict(zip(WINDOWS, answers[0], strict=True)), "programs": told}))


def _cpu_seconds() -> float:
    """Of this process and of the JVM that it started."""
    own = os.getpid()
    found = 0
    for path in Path("/proc").glob("[0-9]*/stat"):
        try:
            fields = path.read_text().rpartition(")")[2].split()
        except OSError:
            continue
        if int(path.parent.name) == own or int(fields[1]) == own:
            found += int(fields[11]) + int(fields[12])
    return found / _TICKS


def _shuffled(spark: Any) -> int:
    """Bytes that all stages so far wrote for others."""
    context, brief = spark.sparkContext, False
    gateway = context._gateway
    ranks, states = gateway.new_array(gateway.jvm.double, 0), gateway.jvm.java.util.ArrayList()
    stages = context._jsc.sc().statusStore().stageList(None, brief, brief, ranks, states)
    return sum(stages.apply(place).shuffleWriteBytes() for place in range(stages.size()))


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]))
