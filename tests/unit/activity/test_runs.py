"""Sorted runs: cutting, finding and merging."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from dpdau.activity.masks import MASKS
from dpdau.activity.runs import (
    PARTS,
    Rows,
    constant,
    find,
    fold_runs,
    is_constant,
    map_rows,
    merge_rows,
    merge_runs,
    part_of,
    part_run,
    part_slice,
    pick,
    row_count,
    split_groups,
    without,
)

MASK = st.integers(0, 2**64 - 1)


def rows(entries: dict[int, tuple[int, int]]) -> Rows:
    """Mask rows with disjoint masks."""
    keys = sorted(entries)
    add = np.array([entries[key][0] & ~entries[key][1] for key in keys], dtype=np.uint64)
    remove = [entries[key][1] for key in keys]
    column = np.array(remove, dtype=np.uint64) if any(remove) else constant(np.uint64(0), len(keys))
    return Rows(np.array(keys, dtype=np.uint64), (add, column))


def as_dict(some: Rows | None) -> dict[int, tuple[int, int]]:
    """Rows as plain values."""
    if some is None:
        return {}
    columns = (some.key.tolist(), *(column.tolist() for column in some.values))
    return {key: (add, remove) for key, add, remove in zip(*columns, strict=True)}


def entries(max_size: int) -> st.SearchStrategy[dict[int, tuple[int, int]]]:
    """A few keys, so that two sides meet, with and without removals."""
    keys = st.integers(0, 40)
    return st.dictionaries(keys, st.tuples(MASK, MASK | st.just(0)), max_size=max_size)


def by_hand(older: dict, newer: dict) -> dict[int, tuple[int, int]]:
    """Later bits win, one key at a time."""
    merged = dict(older)
    for key, (add, remove) in newer.items():
        old_add, old_remove = merged.get(key, (0, 0))
        merged[key] = ((old_add & ~remove) | add, (old_remove & ~add) | remove)
    return merged


@given(older=entries(40), newer=entries(40))
def test_merging_balanced_sides_equals_merging_by_hand(older: dict, newer: dict) -> None:
    """A merge has each key once, sorted, with later bits winning."""
    left, right = rows(older), rows(newer)
    merged = merge_rows(MASKS, left, right)

    assert by_hand(as_dict(left), as_dict(right)) == as_dict(merged)
    assert merged is None or np.all(merged.key[1:] > merged.key[:-1])


@given(older=entries(40).filter(lambda some: len(some) > 16), newer=entries(2))
def test_merging_a_few_rows_equals_merging_by_hand(older: dict, newer: dict) -> None:
    """The binary-search road gives the same rows."""
    left, right = rows(older), rows(newer)

    assert by_hand(as_dict(left), as_dict(right)) == as_dict(merge_rows(MASKS, left, right))


@given(first=entries(20), second=entries(20), third=entries(20))
def test_merging_is_associative(first: dict, second: dict, third: dict) -> None:
    """Which neighbors are merged first does not matter."""
    a, b, c = rows(first), rows(second), rows(third)
    left = merge_rows(MASKS, merge_rows(MASKS, a, b), c)
    right = merge_rows(MASKS, a, merge_rows(MASKS, b, c))

    assert as_dict(left) == as_dict(right)


@given(history=st.lists(st.dictionaries(st.integers(-2, 2), entries(8), max_size=3), max_size=12))
def test_folding_equals_merging_one_after_another(history: list[dict]) -> None:
    """Folding a history at once and merging it in order agree in every group."""
    runs = [{group: rows(some) for group, some in one.items() if some} for one in history]
    step: dict = {}
    for run in runs:
        step = merge_runs(MASKS, step, run)
    folded = fold_runs(MASKS, runs)

    assert {g: as_dict(r) for g, r in step.items()} == {g: as_dict(r) for g, r in folded.items()}


def test_merging_changes_neither_side() -> None:
    """Rows are values: both inputs read the same afterwards."""
    older, newer = rows(dict.fromkeys(range(40), (1, 0))), rows({5: (2, 1), 99: (4, 0)})
    before = as_dict(older), as_dict(newer)
    merge_rows(MASKS, older, newer)

    assert before == (as_dict(older), as_dict(newer))


def test_columns_without_removals_stay_constant() -> None:
    """Merging additions makes no remove column; a removal does."""
    older, newer = rows({1: (1, 0), 2: (1, 0)}), rows({2: (2, 0), 3: (1, 0)})
    added = merge_rows(MASKS, older, newer)
    removed = merge_rows(MASKS, older, rows({2: (0, 1)}))

    assert added is not None
    assert removed is not None
    assert is_constant(added.values[1])
    assert not is_constant(removed.values[1])
    assert {1: (1, 0), 2: (0, 1)} == as_dict(removed)


@given(keys=st.sets(MASK, max_size=30))
def test_parts_cut_the_key_space(keys: set[int]) -> None:
    """Each key lies in exactly one part, the one of its top four bits."""
    column = np.array(sorted(keys), dtype=np.uint64)
    parts = [column[part_slice(column, part)].tolist() for part in range(PARTS)]

    assert sorted(keys) == [key for part in parts for key in part]
    assert all(part_of(key) == part for part, some in enumerate(parts) for key in some)


def test_a_part_of_a_run_has_no_empty_groups() -> None:
    """Groups without a key of the part are left out."""
    run = {1: rows({0: (1, 0)}), 2: rows({2**63: (1, 0)})}

    assert [1] == list(part_run(run, 0))
    assert [2] == list(part_run(run, 8))


@given(haystack=entries(30), needles=st.sets(st.integers(0, 40), max_size=10))
def test_finding_picking_and_dropping(haystack: dict, needles: set[int]) -> None:
    """Sorted needles are found where they are; picking and dropping split the rows."""
    some, keys = rows(haystack), np.array(sorted(needles), dtype=np.uint64)
    _at, hit = find(some.key, keys)

    assert [key in haystack for key in sorted(needles)] == hit.tolist()
    assert needles & haystack.keys() == set(as_dict(pick(some, keys)))
    assert haystack.keys() - needles == set(as_dict(without(some, keys)))


def test_splitting_by_group() -> None:
    """Rows sorted by group and key become one slice for each group."""
    some = rows({1: (1, 0), 2: (2, 0), 3: (4, 0)})
    run = split_groups(np.array([-1, 5, 5]), some)

    assert {-1: {1: (1, 0)}, 5: {2: (2, 0), 3: (4, 0)}} == {g: as_dict(r) for g, r in run.items()}
    assert 3 == row_count(run)
    assert {} == split_groups(np.array([]), rows({}))


def test_mapping_drops_empty_groups() -> None:
    """A group that loses all its rows is gone."""
    run = {1: rows({1: (1, 0)}), 2: rows({2: (1, 0)})}
    kept = map_rows(run.items(), lambda group, some: some.take(slice(0, group - 1)))

    assert [2] == list(kept)


def test_rows_do_not_print_keys() -> None:
    """The text of rows shows how many there are and no pseudonym."""
    assert "Rows(n=1, key=<private>)" == repr(rows({123456789: (1, 0)}))


def test_a_part_outside_the_key_space_is_a_bug() -> None:
    """There are exactly sixteen parts."""
    with pytest.raises(AssertionError):
        part_slice(np.zeros(1, dtype=np.uint64), PARTS)
