"""Moves rows from a pseudonym under an older key to the same user's current pseudonym.

While two keys are live, each event names the user under both. The first event after a rotation
finds rows under the old name; they are taken out there and put in under the new name in the same
commit, before the event itself. So at every commit a user's rows have one name, and counts over a
rotation equal counts without one.

Source:
    `docs/decisions/0002-labels-beside-masks.md`; the move of a row instead of a lasting link
    leaves nothing that ties the two pseudonyms together.
"""

import numpy as np
from numpy.typing import NDArray

from dpdau.activity.history import Snapshot
from dpdau.activity.labels import FORGET, LABELS
from dpdau.activity.masks import MASKS, adding, removing
from dpdau.activity.runs import Rows, Run, find, merge_rows, starts_of


def moves(
    state: Snapshot, current: NDArray[np.uint64], aliases: NDArray[np.uint64]
) -> tuple[Run, Run]:
    """The mask and label rows that move what aliases hold to the current pseudonyms.

    Args:
        state: A snapshot with masks and labels.
        current: (n,) uint64.
        aliases: (k, n) uint64, newest first.

    Guarantee:
        After these rows, an alias holds nothing, and its current pseudonym holds the union of both
        and keeps the label that was seen first.
    """
    old, at = np.unique(aliases.ravel(), return_index=True)
    new = np.tile(current, aliases.shape[0])[at]
    age = at // current.shape[0]
    moving = old != new
    old, new, age = old[moving], new[moving], age[moving]
    mask_run, label_run = {}, {}
    for page, rows in state.lookup(MASKS, old).items():
        target, order, begin = _targets(rows, old, new, age)
        moved = adding(target, np.bitwise_or.reduceat(rows.values[0][order], begin))
        both = merge_rows(MASKS, removing(rows.key, rows.values[0]), moved)
        assert both is not None
        mask_run[page] = both
    for group, rows in state.lookup(LABELS, old).items():
        target, order, begin = _targets(rows, old, new, age)
        emptied = Rows(rows.key, (np.full(len(rows), FORGET, dtype=np.int32),))
        moved = Rows(target, (rows.values[0][order][begin],))
        both = merge_rows(LABELS, emptied, moved)
        assert both is not None
        label_run[group] = both
    return mask_run, label_run


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
