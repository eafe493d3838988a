"""Moves rows from a pseudonym under an older key to the same user's current pseudonym.

While two keys are live, each event names the user under both. The first event after a rotation
finds rows under the old name; they are taken out there and put in under the new name in the same
commit, before the event itself. So at every commit a user's rows have one name, and counts over a
rotation equal counts without one.

Source:
    `docs/decisions/0002-labels-beside-masks.md`; the move of a row instead of a lasting link
    leaves nothing that ties the two pseudonyms together.
"""

from typing import Final

import numpy as np
from numpy.typing import NDArray

from dpdau.activity.held import HELD, united
from dpdau.activity.history import Snapshot
from dpdau.activity.labels import FORGET, LABELS
from dpdau.activity.masks import MASKS, adding, removing
from dpdau.activity.runs import Rows, Run, Table, find, merge_rows, merge_runs, starts_of

_LOOKUP_KEYS_MAX: Final = 1 << 20


def moves(
    state: Snapshot, current: NDArray[np.uint64], aliases: NDArray[np.uint64]
) -> dict[Table, Run]:
    """The rows that move what aliases hold to the current pseudonyms.

    Args:
        state: A snapshot with masks, labels and held rows.
        current: (n,) uint64.
        aliases: (k, n) uint64, newest first.

    Guarantee:
        After these rows, an alias holds nothing, and its current pseudonym holds the union of both
        and keeps the label that was seen first. In each open month, it has the union of both views
        where it had no view of its own, and is erased if one of them was.
    """
    found, old, new, age = _found(state, current, aliases)
    runs: dict[Table, Run] = {MASKS: {}, LABELS: {}, HELD: {}}
    for page, rows in found[MASKS].items():
        target, order, begin = _targets(rows, old, new, age)
        moved = adding(target, np.bitwise_or.reduceat(rows.values[0][order], begin))
        _put(runs, MASKS, page, removing(rows.key, rows.values[0]), moved)
    for group, rows in found[LABELS].items():
        target, order, begin = _targets(rows, old, new, age)
        emptied = Rows(rows.key, (np.full(len(rows), FORGET, dtype=np.int32),))
        _put(runs, LABELS, group, emptied, Rows(target, (rows.values[0][order][begin],)))
    held = found[HELD]
    if held:
        # Held rows are written whole, so what the target holds already is gathered as well.
        own = np.unique(new)
        held = merge_runs(HELD, held, state.lookup(HELD, own))
        old, new = np.concatenate((old, own)), np.concatenate((new, own))
        age = np.concatenate((age, np.full(len(own), -1)))
        unique, first = np.unique(old, return_index=True)
        old, new, age = unique, new[first], age[first]
    for group, rows in held.items():
        target, order, begin = _targets(rows, old, new, age)
        nothing = np.zeros(len(rows), dtype=np.uint64)
        moved = Rows(target, united(rows, order, begin))
        _put(runs, HELD, group, Rows(rows.key, (nothing, nothing)), moved)
    return runs


def _found(
    state: Snapshot, current: NDArray[np.uint64], aliases: NDArray[np.uint64]
) -> tuple[dict[Table, Run], NDArray[np.uint64], NDArray[np.uint64], NDArray[np.intp]]:
    """What aliases hold; and of those that hold something, sorted, whose they are and how old.

    A bounded number of keys is looked up at once: with daily rotation a user has sixty aliases.
    """
    users, first = np.unique(current, return_index=True)
    found: dict[Table, Run] = {MASKS: {}, LABELS: {}, HELD: {}}
    parts = [(users[:0], users[:0], first[:0])]
    step = max(1, _LOOKUP_KEYS_MAX // len(users))
    for start in range(0, aliases.shape[0], step):
        some = aliases[start : start + step, first]
        old, at = np.unique(some.ravel(), return_index=True)
        new, age = users[at % len(users)], start + at // len(users)
        moving = old != new
        old, new, age = old[moving], new[moving], age[moving]
        hit = np.zeros(len(old), dtype=np.bool_)
        for table, run in found.items():
            held = state.lookup(table, old)
            found[table] = merge_runs(table, run, held)
            for rows in held.values():
                hit |= find(rows.key, old)[1]
        parts.append((old[hit], new[hit], age[hit]))
    old, new, age = (np.concatenate(column) for column in zip(*parts, strict=True))
    old, at = np.unique(old, return_index=True)
    return found, old, new[at], age[at]


def _put(runs: dict[Table, Run], table: Table, group: int, emptied: Rows, moved: Rows) -> None:
    """Empties the old rows of a group and then writes the moved ones."""
    both = merge_rows(table, emptied, moved)
    assert both is not None
    runs[table] = {**runs[table], group: both}


def _targets(
    rows: Rows, old: NDArray[np.uint64], new: NDArray[np.uint64], age: NDArray[np.intp]
) -> tuple[NDArray[np.uint64], NDArray[np.intp], NDArray[np.intp]]:
    """Where rows move: sorted unique targets, the order of the rows, where each target begins.

    Rows with one target are ordered from the oldest key on.
    """
    at, hit = find(old, rows.key)
    assert hit.all(), "only aliases were looked up"
    target = new[at]
    order = np.lexsort((-age[at], target))
    target = target[order]
    begin = starts_of(target)
    return target[begin], order, begin
