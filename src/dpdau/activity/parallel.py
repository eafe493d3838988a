"""Counts every part of the key space, on all processors where it pays."""

import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Final

import numpy as np
from numpy.typing import NDArray

from dpdau.activity.runs import PARTS

_ROWS_MIN: Final = 1 << 17
"""Below this many rows the threads cost more than they save."""


def sum_over_parts(count: Callable[[int], NDArray[np.int64]], *, rows: int) -> NDArray[np.int64]:
    """The sum of the counts of all parts.

    Args:
        count: Called once for each part; from several threads at a time where rows are many. The
            array library lets go of the interpreter while it sorts and combines columns.
        rows: About how many rows all parts have together.
    """
    workers = min(os.cpu_count() or 1, PARTS)
    if rows < _ROWS_MIN or workers == 1:
        counts = [count(part) for part in range(PARTS)]
    else:
        with ThreadPoolExecutor(workers) as pool:
            counts = list(pool.map(count, range(PARTS)))
    total = np.zeros_like(counts[0])
    for one in counts:
        total += one
    return total
