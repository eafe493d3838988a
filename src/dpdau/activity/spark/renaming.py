"""Moves rows of the lake from pseudonyms under older keys to the same users' current ones."""

from typing import TYPE_CHECKING, Final

from dpdau.activity.spark import frames
from dpdau.activity.spark.lake import DAYS, LABELS
from dpdau.activity.spark.writer import LakeChange, LakeWriter

if TYPE_CHECKING:
    from pyspark.sql import DataFrame


_BROADCAST_MAX: Final = 1 << 18
"""So many names are held by every executor at once, in place of sending all rows around."""


def rename(writer: LakeWriter, change: LakeChange, names: "DataFrame", *, at_most: int) -> None:
    """Writes the rows of a commit that moves what older pseudonyms hold.

    Args:
        writer: What changes the lake.
        change: What the files are added to; what it holds already counts as there.
        names: (old, new, age), each `old` once and never its own `new`; age 0 is the newest key.
        at_most: So many names at most.

    Guarantee:
        After these rows, an old name holds nothing, and its new one holds the union of both and
        keeps the label that was seen first. In each open month, it has the union of both, and is
        erased if one of them was.

    Source:
        `activity.rotation`, which does the same to segment files.
    """
    from pyspark.sql import functions as sql

    def of(rows: "DataFrame", some: "DataFrame") -> "DataFrame":
        # What most users have is left alone before anything is sorted or sent.
        keys = some.select(sql.col("old").alias("key"))
        few = sql.broadcast(keys) if at_most <= _BROADCAST_MAX else keys
        return rows.join(few, "key", "left_semi")

    state = writer.state(change.files)
    seq = change.next_seq()
    if state.of(DAYS):
        asked = names
        if state.months:
            # A grave of one name is that of the user, so what the other one holds is asked too.
            own = names.select(sql.col("new").alias("old"), "new").distinct()
            asked = names.unionByName(own.withColumn("age", sql.lit(-1)))
        pairs = frames.standing(of(state.rows(DAYS), asked), by=("group", "key"))
        writer.write(change, DAYS, frames.moved_days(pairs, asked, seq=seq), state=state)
    if state.of(LABELS):
        codes = frames.first_codes(of(state.rows(LABELS), names))
        writer.write(change, LABELS, frames.moved_labels(codes, names, seq=seq), state=state)
