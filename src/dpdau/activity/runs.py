"""Sorted runs: the one shape in which the store holds, merges and writes its rows.

A run is an ordered piece of history: group → rows sorted by key, each key at most once. What a row
means is the business of its `Table`, which says how a later row acts on an earlier one. Groups are
64-day pages for masks, (month, dimension) for labels and weeks for seen event ids, so a query
touches only its own groups and each group is one contiguous sorted slice.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

Values = tuple[NDArray[Any], ...]

PARTS: Final = 16
"""The key space is cut by the top 4 bits, so that a merge holds 1/16 of a group in memory."""
_PART_SHIFT: Final = 60
_INSERT_RATIO: Final = 8


@dataclass(frozen=True, slots=True)
class Rows:
    """The rows of one group.

    Shapes and units:
        key: (n,) uint64, strictly increasing: a pseudonym or an event id.
        values: one (n,) array for each column of the table.
    """

    key: NDArray[np.uint64]
    values: Values

    def __len__(self) -> int:
        return int(self.key.shape[0])

    def __repr__(self) -> str:
        return f"Rows(n={len(self)}, key=<private>)"

    def take(self, index: slice | NDArray[Any]) -> "Rows":
        """The rows at an index, a mask or a slice that keeps the order."""
        key = self.key[index]
        return Rows(key, tuple(_gather(column, index, key.shape[0]) for column in self.values))


Run = Mapping[int, Rows]


@dataclass(frozen=True, slots=True)
class Table:
    """What the rows of a run mean.

    Attributes:
        kind: The table's stable name in files and in the manifest.
        columns: Name and little-endian dtype of each value column. A column that is all zero in a
            group is not written.
        combine: (older values, newer values) of the same keys → the values with the same effect.
            Must be associative.
        settle: Drops what has no effect when nothing older exists.
        digest: A bitwise OR over a group's rows that is kept in the file's index; 0 if unused.
    """

    kind: str
    columns: tuple[tuple[str, str], ...]
    combine: Callable[[Values, Values], Values]
    settle: Callable[[Rows], Rows]
    digest: Callable[[Rows], int]


def part_of(key: int) -> int:
    """The part that a key belongs to.

    Example:
        >>> part_of(0xF000_0000_0000_0000)
        15
    """
    return key >> _PART_SHIFT


def part_slice(key: NDArray[np.uint64], part: int) -> slice:
    """Where the keys of one part lie in a sorted column."""
    assert 0 <= part < PARTS
    low = np.uint64(part << _PART_SHIFT)
    high = np.uint64(((part + 1) << _PART_SHIFT) - 1)
    start = int(np.searchsorted(key, low, side="left"))
    return slice(start, int(np.searchsorted(key, high, side="right")))


def part_run(run: Run, part: int) -> Run:
    """The rows of one part, without empty groups."""
    cut = {group: rows.take(part_slice(rows.key, part)) for group, rows in run.items()}
    return {group: rows for group, rows in cut.items() if len(rows)}


def row_count(run: Run) -> int:
    """The number of rows in all groups."""
    return sum(len(rows) for rows in run.values())


def starts_of(*columns: NDArray[Any]) -> NDArray[np.intp]:
    """Where a new combination of values begins in sorted columns of equal length ≥ 1."""
    change = np.empty(columns[0].shape[0], dtype=np.bool_)
    change[0] = True
    np.not_equal(columns[0][1:], columns[0][:-1], out=change[1:])
    for column in columns[1:]:
        change[1:] |= column[1:] != column[:-1]
    return np.flatnonzero(change)


def split_groups(group: NDArray[Any], rows: Rows) -> Run:
    """Cuts rows that are sorted by (group, key) into a run."""
    if not len(rows):
        return {}
    begin = starts_of(group)
    end = np.append(begin[1:], len(rows))
    return {
        int(group[start]): rows.take(slice(int(start), int(stop)))
        for start, stop in zip(begin, end, strict=True)
    }


def pick(rows: Rows, keys: NDArray[np.uint64]) -> Rows:
    """The rows whose key is among sorted unique keys."""
    at, hit = find(rows.key, keys)
    return rows.take(at[hit])


def find(
    haystack: NDArray[np.uint64], needles: NDArray[np.uint64]
) -> tuple[NDArray[np.intp], NDArray[np.bool_]]:
    """Where each needle lies in a sorted column, and whether it is there.

    Returns:
        (at, hit): (n,) positions, valid where hit is True; (n,) bool.
    """
    if not haystack.shape[0]:
        nowhere = np.zeros(needles.shape[0], dtype=np.intp)
        return nowhere, nowhere.astype(np.bool_)
    at = np.searchsorted(haystack, needles)
    np.minimum(at, haystack.shape[0] - 1, out=at)
    return at, haystack[at] == needles


def without(rows: Rows, keys: NDArray[np.uint64]) -> Rows:
    """The rows whose key is not among sorted unique keys."""
    at, hit = find(rows.key, keys)
    if not hit.any():
        return rows
    keep = np.ones(len(rows), dtype=np.bool_)
    keep[at[hit]] = False
    return rows.take(keep)


def merge_rows(table: Table, older: Rows | None, newer: Rows | None) -> Rows | None:
    """The rows with the same effect as the older ones followed by the newer ones.

    Guarantee:
        Associative, because `table.combine` is; the result is sorted with unique keys.
    """
    if older is None or not len(older):
        return newer
    if newer is None or not len(newer):
        return older
    if len(newer) * _INSERT_RATIO < len(older):
        return _merge_few(table, older, newer)
    key = np.concatenate((older.key, newer.key))
    size = key.shape[0]
    columns = tuple(_concatenated(pair) for pair in zip(older.values, newer.values, strict=True))
    # Stable, so of two equal keys the older row comes first; two sorted runs merge in one pass.
    order = np.argsort(key, kind="stable")
    ordered = key[order]
    same = ordered[1:] == ordered[:-1]
    first = np.flatnonzero(same)
    if not first.shape[0]:
        return Rows(ordered, tuple(_gather(column, order, size) for column in columns))
    before, after = order[first], order[first + 1]
    both = table.combine(
        tuple(column[before] for column in columns), tuple(column[after] for column in columns)
    )
    kept = order[np.flatnonzero(np.concatenate(([True], ~same)))]
    # One row is dropped after each pair so far, so the pair moves down by as many places.
    place = first - np.arange(first.shape[0])
    values = tuple(
        _with(_gather(column, kept, kept.shape[0]), place, combined)
        for column, combined in zip(columns, both, strict=True)
    )
    return Rows(key[kept], values)


def _merge_few(table: Table, older: Rows, newer: Rows) -> Rows:
    """`merge_rows` by binary search, for a newer side much smaller than the older one."""
    at, hit = find(older.key, newer.key)
    match = at[hit]
    both = table.combine(
        tuple(column[match] for column in older.values),
        tuple(column[hit] for column in newer.values),
    )
    values = tuple(
        _with(column if is_constant(column) else column.copy(), match, combined)
        for column, combined in zip(older.values, both, strict=True)
    )
    if hit.all():
        return Rows(older.key, values)
    fresh = newer.take(~hit)
    place = np.searchsorted(older.key, fresh.key)
    return Rows(
        np.insert(older.key, place, fresh.key),
        tuple(
            constant(column[0], len(older) + len(fresh))
            if _agree(column, added)
            else np.insert(column, place, added)
            for column, added in zip(values, fresh.values, strict=True)
        ),
    )


def constant(value: Any, size: int) -> NDArray[Any]:
    """A column that repeats one value and takes no memory; most remove masks are like that."""
    return np.broadcast_to(value, (size,))


def is_constant(column: NDArray[Any]) -> bool:
    """Whether a column was made by `constant`."""
    return column.strides == (0,) and column.shape[0] > 0


def _agree(left: NDArray[Any], right: NDArray[Any]) -> bool:
    """Whether two columns repeat the same value."""
    return is_constant(left) and is_constant(right) and bool(left[0] == right[0])


def _concatenated(columns: Sequence[NDArray[Any]]) -> NDArray[Any]:
    """Columns as one; stays constant where all are."""
    if all(_agree(columns[0], one) for one in columns):
        return constant(columns[0][0], sum(one.shape[0] for one in columns))
    return np.concatenate(columns)


def _gather(column: NDArray[Any], index: slice | NDArray[Any], size: int) -> NDArray[Any]:
    """`column[index]`, of a known size; stays constant where it was."""
    return constant(column[0], size) if is_constant(column) else column[index]


def _with(column: NDArray[Any], place: NDArray[np.intp], values: NDArray[Any]) -> NDArray[Any]:
    """A fresh column with values put in places; stays constant where they are the same."""
    if is_constant(column):
        if bool((values == column[0]).all()):
            return column
        column = np.array(column)
    column[place] = values
    return column


def merge_runs(table: Table, older: Run, newer: Run) -> Run:
    """The run with the same effect as the older one followed by the newer one."""
    merged = dict(older)
    for group, rows in newer.items():
        both = merge_rows(table, merged.get(group), rows)
        assert both is not None
        merged[group] = both
    return merged


def fold_runs(table: Table, history: Sequence[Run]) -> Run:
    """One run with the effect of many, oldest first."""
    groups = dict.fromkeys(group for run in history for group in run)
    return {
        group: _merge_all(table, [run[group] for run in history if group in run])
        for group in groups
    }


def _merge_all(table: Table, history: Sequence[Rows]) -> Rows:
    """The rows with the effect of many, oldest first, in few passes over all of them.

    Each call into numpy lets other threads run; merging two by two would make thousands.
    """
    if len(history) <= 2:
        merged = merge_rows(table, None, history[0])
        for rows in history[1:]:
            merged = merge_rows(table, merged, rows)
        assert merged is not None
        return merged
    key = np.concatenate([rows.key for rows in history])
    columns = [_concatenated(some) for some in zip(*(rows.values for rows in history), strict=True)]
    # Stable, so the rows of one key stay in order, oldest first.
    order = np.argsort(key, kind="stable")
    key = key[order]
    begin = starts_of(key)
    times = np.diff(begin, append=key.shape[0])
    values = tuple(_gather(column, order[begin], begin.shape[0]) for column in columns)
    place, rank = np.flatnonzero(times > 1), 1
    while place.shape[0]:
        later = order[begin[place] + rank]
        both = table.combine(
            tuple(column[place] for column in values), tuple(column[later] for column in columns)
        )
        values = tuple(
            _with(column, place, combined) for column, combined in zip(values, both, strict=True)
        )
        rank += 1
        place = place[times[place] > rank]
    return Rows(key[begin], values)


def map_rows(run: Iterable[tuple[int, Rows]], change: Callable[[int, Rows], Rows]) -> Run:
    """A run with each group's rows changed, without empty groups."""
    changed = {group: change(group, rows) for group, rows in run}
    return {group: rows for group, rows in changed.items() if len(rows)}
