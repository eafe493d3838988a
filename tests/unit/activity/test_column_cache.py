"""The cache stays under its bound and forgets what is gone."""

import numpy as np

from dpdau.activity.column_cache import ColumnCache
from dpdau.activity.runs import constant


def column(size: int) -> np.ndarray:
    """A column of so many bytes."""
    return np.arange(size, dtype=np.uint8)


def test_the_least_recently_used_goes_first() -> None:
    """Over the bound the oldest untouched entry is dropped."""
    cache = ColumnCache(100)
    for name in "ab":
        cache.put(((name,), 0, "key"), (column(40),))
    cache.get((("a",), 0, "key"))
    cache.put((("c",), 0, "key"), (column(40),))

    assert [True, False, True] == [cache.get(((name,), 0, "key")) is not None for name in "abc"]


def test_what_is_too_large_is_not_kept() -> None:
    """An entry over the whole bound does not empty the cache."""
    cache = ColumnCache(100)
    cache.put((("a",), 0, "key"), (column(60),))
    cache.put((("b",), 0, "key"), (column(101),))

    assert cache.get((("a",), 0, "key")) is not None
    assert cache.get((("b",), 0, "key")) is None


def test_constant_columns_take_no_room() -> None:
    """A column that repeats one value does not count."""
    cache = ColumnCache(10)
    cache.put((("a",), 0, "key"), (constant(np.uint64(0), 1000),))

    assert cache.get((("a",), 0, "key")) is not None


def test_dropping_a_file_drops_what_it_was_part_of() -> None:
    """Everything that was read of a file goes, merged results too, and frees its room."""
    cache = ColumnCache(100)
    cache.put((("a",), 0, "key"), (column(40),))
    cache.put((("a", "b"), 0, "settled"), (column(40),))
    cache.drop({"b"})
    cache.put((("c",), 0, "key"), (column(60),))

    assert [True, False, True] == [
        cache.get(place) is not None
        for place in ((("a",), 0, "key"), (("a", "b"), 0, "settled"), (("c",), 0, "key"))
    ]
