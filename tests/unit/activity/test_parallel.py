"""The parts of the key space, counted one by one or side by side."""

import threading

import numpy as np
import pytest
from numpy.typing import NDArray

from dpdau.activity import parallel
from dpdau.activity.runs import PARTS


@pytest.mark.parametrize("rows", [1, 1 << 20])
def test_the_sum_has_each_part_once(rows: int) -> None:
    """Few rows or many: every part is asked once, and all answers are added."""
    asked: list[int] = []

    def count(part: int) -> NDArray[np.int64]:
        asked.append(part)
        return np.array([[1, part]], dtype=np.int64)

    total = parallel.sum_over_parts(count, rows=rows)

    assert list(range(PARTS)) == sorted(asked)
    assert [[PARTS, sum(range(PARTS))]] == total.tolist()


def test_many_rows_are_counted_in_threads(monkeypatch: pytest.MonkeyPatch) -> None:
    """Two parts are under way at the same time: each waits for the other."""
    monkeypatch.setattr(parallel.os, "cpu_count", lambda: 2)
    both = threading.Barrier(2, timeout=30)

    def count(part: int) -> NDArray[np.int64]:
        both.wait()
        return np.ones(1, dtype=np.int64)

    assert [PARTS] == parallel.sum_over_parts(count, rows=1 << 20).tolist()


def test_few_rows_stay_in_the_thread_of_the_caller() -> None:
    """No thread is started for a small store."""
    threads: set[int] = set()

    def count(part: int) -> NDArray[np.int64]:
        threads.add(threading.get_ident())
        return np.ones(1, dtype=np.int64)

    parallel.sum_over_parts(count, rows=100)

    assert {threading.get_ident()} == threads
