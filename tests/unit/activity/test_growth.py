"""Counting who came and went, against sets of days."""

import numpy as np
import pytest

from dpdau.activity.growth import growth_counts
from dpdau.activity.masks import MASKS, from_rows, page_of
from dpdau.activity.runs import Rows, merge_runs, part_slice

FIRST, LAST = -300, 150


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("window_days", [1, 7, 30, 33, 64])
def test_cells_equal_direct_counts(seed: int, window_days: int) -> None:
    """On the days around page edges, each cell is the count over plain rows of days."""
    rng = np.random.default_rng(seed)
    users = rng.integers(0, 2**64, 400, dtype=np.uint64)
    active = rng.random((400, LAST - FIRST + 1)) < rng.choice([0.0005, 0.004, 0.03], (400, 1))
    who, offset = np.nonzero(active)
    run = merge_runs(
        MASKS,
        {},
        from_rows(users[who], (offset + FIRST).astype(np.int32), np.ones(len(who), dtype=bool)),
    )

    def load(part: int, page: int) -> Rows | None:
        rows = run.get(page)
        return None if rows is None else rows.take(part_slice(rows.key, part))

    for end in (-1, 0, 62, 63, 64, 65, 127, 128, LAST):
        stop = end - FIRST + 1
        later = active[:, stop - window_days : stop].any(axis=1)
        earlier = active[:, stop - 2 * window_days : stop - window_days].any(axis=1)
        before = active[:, : stop - 2 * window_days].any(axis=1)
        expected = [
            later & ~earlier & ~before,
            later & earlier,
            later & ~earlier & before,
            earlier & ~later,
        ]
        found = growth_counts(
            load, first_page=page_of(FIRST), end=end, window_days=window_days, rows=1 << 20
        )
        assert [int(cell.sum()) for cell in expected] == found.tolist()


def test_a_page_is_loaded_once_and_only_while_somebody_is_unseen() -> None:
    """Older pages are read newest first until everybody who is there now was found."""
    asked: list[tuple[int, int]] = []
    here = from_rows(np.array([1], np.uint64), np.array([640], np.int32), np.array([True]))
    there = from_rows(np.array([1], np.uint64), np.array([320], np.int32), np.array([True]))

    def load(part: int, page: int) -> Rows | None:
        asked.append((part, page))
        return (here | there).get(page) if part == 0 else None

    found = growth_counts(load, first_page=0, end=640, window_days=30, rows=1)

    assert [0, 0, 1, 0] == found.tolist()
    assert sorted(set(asked)) == sorted(asked)
    assert [10, 9, 8, 7, 6, 5] == sorted((page for part, page in asked if part == 0), reverse=True)
    assert {10, 9} == {page for part, page in asked if part == 1}
