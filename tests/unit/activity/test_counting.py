"""Counting windows in one pass, against direct counts."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from dpdau.activity import counting
from dpdau.activity.masks import MASKS, from_rows
from dpdau.activity.runs import Rows, merge_runs, part_slice


@given(seed=st.integers(0, 2**32), size=st.integers(0, 700))
def test_bit_totals_count_each_bit(seed: int, size: int) -> None:
    """Each of the 64 totals is the number of words with that bit."""
    words = np.random.default_rng(seed).integers(0, 2**64, size, dtype=np.uint64)
    expected = [int(np.count_nonzero(words >> np.uint64(bit) & np.uint64(1))) for bit in range(64)]

    assert expected == counting.bit_totals(words).tolist()


@pytest.mark.parametrize("block_rows", [64, 1 << 15])
@pytest.mark.parametrize("seed", range(4))
def test_windows_equal_direct_counts(
    monkeypatch: pytest.MonkeyPatch, seed: int, block_rows: int
) -> None:
    """Every window on every day of four pages is counted exactly, over block and page edges."""
    monkeypatch.setattr(counting, "_BLOCK_ROWS", block_rows)
    rng = np.random.default_rng(seed)
    users = rng.integers(0, 2**64, 400, dtype=np.uint64)
    first, last = -70, 150
    active = rng.random((400, last - first + 1)) < 0.01
    active[:, 80:140] = False
    who, offset = np.nonzero(active)
    run = merge_runs(
        MASKS,
        {},
        from_rows(users[who], (offset + first).astype(np.int32), np.ones(len(who), dtype=bool)),
    )

    def load(part: int, page: int) -> Rows | None:
        rows = run.get(page)
        return None if rows is None else rows.take(part_slice(rows.key, part))

    windows = [1, 2, 7, 30, 33, 63, 64]
    counted = counting.windowed_counts(load, first=first, last=last, window_days=windows, rows=400)

    for row, days in enumerate(windows):
        expected = [
            int(active[:, max(0, end - days + 1) : end + 1].any(axis=1).sum())
            for end in range(last - first + 1)
        ]
        assert expected == counted[row].tolist()


def test_a_page_is_loaded_once() -> None:
    """One scan: each part and page is asked for once, from the first that a window reaches."""
    asked: list[tuple[int, int]] = []
    counting.windowed_counts(
        lambda part, page: asked.append((part, page)),
        first=64,
        last=200,
        window_days=[1, 2],
        rows=1,
    )

    assert sorted(set(asked)) == sorted(asked)
    assert {0, 1, 2, 3} == {page for _, page in asked}
