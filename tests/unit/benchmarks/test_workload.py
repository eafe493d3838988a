"""The events of the benchmark and what is exact about them."""

import json
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
from numpy.typing import NDArray

from benchmarks import workload
from benchmarks.workload import DAYS


def test_the_same_seed_gives_the_same_rows_of_the_stated_size() -> None:
    """Rows, users and deletions of a size never change; another seed gives others."""
    one, again, other = (workload.generate("S", seed) for seed in (1, 1, 2))

    assert workload.SIZES["S"] == one.user.size
    for column in ("user", "day", "add"):
        assert getattr(one, column).tolist() == getattr(again, column).tolist()
    assert one.user.tolist() != other.user.tolist()
    assert 0.015 < 1 - one.add.mean() < 0.03


def test_both_meanings_equal_a_recount_row_by_row() -> None:
    """The last event decides, or each `-` takes one `+` away: as dictionaries have it."""
    events = workload.generate("XS")
    last: dict[tuple[int, int], bool] = {}
    net: dict[tuple[int, int], int] = {}
    rows = zip(events.user.tolist(), events.day.tolist(), events.add.tolist(), strict=True)
    for user, day, add in rows:
        last[user, day] = add
        net[user, day] = net.get((user, day), 0) + (1 if add else -1)

    own = workload.active_days(events, netted=False)
    netted = workload.active_days(events, netted=True)

    assert sorted(cell for cell, add in last.items() if add) == sorted(_cells(own))
    assert sorted(cell for cell, left in net.items() if left > 0) == sorted(_cells(netted))


def test_a_window_holds_each_user_once() -> None:
    """Users of the days of a window; before the first and after the last day nobody is active."""
    active = np.zeros((3, DAYS), dtype=np.bool_)
    active[0, [3, 5]] = active[1, 5] = active[2, 0] = True

    assert 2 == workload.windowed(active, 5, 3)
    assert 3 == workload.windowed(active, 5, 30)
    assert 1 == workload.windowed(active, 2, 30)
    assert 0 == workload.windowed(active, 80, 7)


def test_the_files_hold_the_rows_in_arrival_order(tmp_path: Path) -> None:
    """Parquet and NDJSON say the same, in the same order, and the truth has every number."""
    paths = workload.write(tmp_path, "XS")
    rows = pq.read_table(paths["parquet"]).to_pylist()
    lines = [json.loads(line) for line in paths["ndjson"].read_text("utf-8").splitlines()]
    truth = json.loads(paths["truth"].read_text("utf-8"))

    assert [{**row, "day": row["day"].isoformat()} for row in rows] == lines
    assert workload.SIZES["XS"] == len(rows) == truth["rows"]
    assert 60 == len(truth["others"])
    assert {"dau": 30, "wau": 30, "mau": 30} == {
        metric: len(days) for metric, days in truth["month"].items()
    }


def _cells(active: NDArray[np.bool_]) -> list[tuple[int, int]]:
    return [(int(user), int(day)) for user, day in zip(*np.nonzero(active), strict=True)]
