"""What a group of batches, held by this process, brings to the lake: the files of one commit."""

import datetime as dt
from typing import Any, Final

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from dpdau.activity.folding import Arrivals, Stretch
from dpdau.activity.manifest import Manifest
from dpdau.activity.runs import Run
from dpdau.activity.seen import week_of
from dpdau.activity.spark.lake import DAYS, LABELS, SEEN, TRUTH, TableKind
from dpdau.activity.spark.renaming import rename
from dpdau.activity.spark.writer import LakeChange, LakeWriter

_LOOKUP_KEYS_MAX: Final = 1 << 20


class LakeArrivals(Arrivals):
    """Folds a group of batches, in arrival order, into the files of one change.

    Guarantee:
        `applied` and the state after the commit are those of the batches applied one by one.

    Args:
        manifest: The writing side; the caller holds the writer's lock.
        now: What time it is.
        writer: What changes the lake.
        change: What the files are added to.
    """

    def __init__(
        self, manifest: Manifest, now: dt.datetime, *, writer: LakeWriter, change: LakeChange
    ) -> None:
        super().__init__(manifest, now)
        self._writer = writer
        self._change = change
        self._ids: set[int] = set()

    def _put(
        self, stretch: Stretch, fresh: NDArray[np.bool_], keep: NDArray[np.bool_], labels: Run
    ) -> None:
        """Writes the rows of the fresh events, after what their aliases hold was moved."""
        batch, change = stretch.batch, self._change
        pseudonym = batch.pseudonym[keep]
        if batch.aliases.shape[0] and keep.any():
            self._rename(pseudonym, batch.aliases[:, keep])
        seq = change.next_seq()
        last = _last_of_each(pseudonym, batch.day[keep])
        rows: dict[str, NDArray[Any]] = {
            "group": np.full(len(last), TRUTH, dtype=np.int32),
            "key": pseudonym[last].view(np.int64),
            "day": batch.day[keep][last],
            "add": batch.add[keep][last],
        }
        self._write(DAYS, rows, seq)
        groups = [np.full(len(some), group, dtype=np.int32) for group, some in labels.items()]
        if groups:
            some = list(labels.values())
            codes = np.concatenate([one.values[0] for one in some])
            keys = np.concatenate([one.key for one in some]).view(np.int64)
            self._write(LABELS, {"group": np.concatenate(groups), "key": keys, "code": codes}, seq)
        ids = np.unique(batch.event_id[fresh & (batch.event_id != 0)])
        self._ids.update(ids.tolist())
        week = np.full(len(ids), week_of(self._now), dtype=np.int32)
        self._write(SEEN, {"group": week, "key": ids.view(np.int64)}, seq)

    def _seen(self, event_id: NDArray[np.uint64]) -> NDArray[np.bool_]:
        """Which of some event ids were seen before; asked of Spark some at a time."""
        ids = np.unique(event_id[event_id != 0])
        known = set(self._ids)
        state = self._writer.state()
        for start in range(0, len(ids) if state.of(SEEN) else 0, _LOOKUP_KEYS_MAX):
            found = state.rows_of(SEEN, ids[start : start + _LOOKUP_KEYS_MAX])
            keys = state.run(found.select("key").distinct().toArrow)["key"].to_numpy()
            keys = keys.astype(np.int64)
            known.update(keys.view(np.uint64).tolist())
        return np.isin(event_id, np.array(sorted(known), dtype=np.uint64))

    def _rename(self, current: NDArray[np.uint64], aliases: NDArray[np.uint64]) -> None:
        """Moves what older pseudonyms hold to the current ones, some users at a time."""
        users, first = np.unique(current, return_index=True)
        keys = aliases.shape[0]
        step = max(1, _LOOKUP_KEYS_MAX // keys)
        for start in range(0, len(users), step):
            new = np.tile(users[start : start + step], keys)
            old = aliases[:, first[start : start + step]].ravel()
            age = np.repeat(np.arange(keys, dtype=np.int32), len(new) // keys)
            old, at = np.unique(old, return_index=True)
            is_moving = old != new[at]
            names = {
                "old": old[is_moving].view(np.int64),
                "new": new[at][is_moving].view(np.int64),
                "age": age[at][is_moving],
            }
            if is_moving.any():
                asked = self._writer.spark.createDataFrame(pa.table(names))
                rename(self._writer, self._change, asked, at_most=len(names["old"]))

    def _write(self, kind: TableKind, rows: dict[str, NDArray[Any]], seq: int) -> None:
        """Writes rows of one commit."""
        commit = np.full(len(rows["key"]), seq, dtype=np.int64)
        self._writer.put(self._change, kind, pa.table({**rows, "commit": commit}))


def _last_of_each(pseudonym: NDArray[np.uint64], day: NDArray[np.int32]) -> NDArray[np.intp]:
    """The place of the last row of each (pseudonym, day), sorted by them."""
    order = np.lexsort((day, pseudonym))
    who, when = pseudonym[order], day[order]
    is_last = np.ones(len(order), dtype=np.bool_)
    is_last[:-1] = (who[1:] != who[:-1]) | (when[1:] != when[:-1])
    return order[is_last]
