"""Rows that Spark holds, folded into the lake without passing through this process."""

import datetime as dt
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack
from typing import TYPE_CHECKING

import pyarrow as pa

from dpdau.activity.folding import Notes
from dpdau.activity.labels import DIMENSIONS_MAX
from dpdau.activity.manifest import Manifest
from dpdau.activity.seen import week_of
from dpdau.activity.spark import frames
from dpdau.activity.spark.lake import DAYS, LABELS, SEEN, TRUTH, staged, uri_of
from dpdau.activity.spark.renaming import rename
from dpdau.activity.spark.state import LakeState
from dpdau.activity.spark.writer import LakeChange, LakeWriter
from dpdau.activity.spark.writing import written
from dpdau.activity.store import Applied

if TYPE_CHECKING:
    from pyspark.sql import DataFrame

_COLUMNS = {
    "pseudonym": "BIGINT",
    "day": "INT",
    "add": "BOOLEAN",
    "event": "BIGINT",
    "event_id": "BIGINT",
}


class Adoption(Notes):
    """Folds one batch of rows that Spark holds into the files of one change.

    Guarantee:
        `applied` and the state after the commit are those of `apply` on the same events.

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
        self._state = writer.state()

    def adopt(
        self,
        rows: "DataFrame",
        *,
        dimensions: Mapping[str, str],
        aliases: Sequence[str],
        is_new: bool,
    ) -> Applied:
        """Takes the rows of a batch; see `SparkStore.adopt`."""
        return self._state.run(
            lambda: (
                self._fold(rows, dimensions=dimensions, aliases=aliases)
                if is_new
                else Applied(0, rows.select("event").distinct().count(), 0)
            )
        )

    def _fold(
        self, rows: "DataFrame", *, dimensions: Mapping[str, str], aliases: Sequence[str]
    ) -> Applied:
        """Computes the rows once, and writes what the fresh ones bring."""
        from pyspark.sql import functions as sql

        named = {
            **{column: column for column in _COLUMNS},
            **{f"label{place}": column for place, column in enumerate(dimensions.values())},
            **{f"alias{place}": column for place, column in enumerate(aliases)},
        }
        with ExitStack() as stages:
            asked = rows.select(*(sql.col(one).alias(name) for name, one in named.items()))
            staged = self._stage(stages, asked)
            facts = staged.agg(
                sql.min("day").alias("first"),
                sql.max("day").alias("last"),
                sql.count("*").alias("rows"),
                sql.count_distinct("event").alias("events"),
                sql.bool_or(sql.col("event_id") != 0).alias("has_ids"),
            ).toArrow()
            [fact] = facts.to_pylist()
            if not fact["events"]:
                return Applied(0, 0, 0)
            fresh = self._stage(stages, self._fresh(staged)) if fact["has_ids"] else staged
            kept, late = self._tally(fresh, fact["first"], fact["last"])
            if aliases:
                names = _names(fresh, len(aliases))
                rename(self._writer, self._change, names, at_most=fact["rows"] * len(aliases))
            self._write(fresh, list(dimensions), has_ids=fact["has_ids"])
            return Applied(accepted=kept - late, duplicate=fact["events"] - kept, late=late)

    def _stage(self, stages: ExitStack, rows: "DataFrame") -> "DataFrame":
        """Has Spark compute rows now, and gives them as they are in files."""
        stage = stages.enter_context(self._writer.lake.staging())
        types = {"label": "STRING", "alias": "BIGINT", **_COLUMNS}
        columns = {name: types[name.rstrip("0123456789")] for name in rows.columns}
        typed = rows.selectExpr(
            *(f"CAST(`{name}` AS {one}) AS `{name}`" for name, one in columns.items())
        )
        schema = ", ".join(f"`{name}` {one}" for name, one in columns.items())
        if not staged(stage, rows=written(typed, stage)):
            return self._writer.spark.createDataFrame([], schema)
        return self._writer.spark.read.schema(schema).parquet(uri_of(stage))

    def _fresh(self, staged: "DataFrame") -> "DataFrame":
        """The rows of events whose id was not seen, here or earlier."""
        from pyspark.sql import functions as sql

        has_id = sql.col("event_id") != 0
        firsts = staged.filter(has_id).groupBy(sql.col("event_id").alias("key"))
        first = firsts.agg(sql.min("event").alias("first"))
        if self._state.of(SEEN):
            first = first.join(self._state.rows(SEEN).select("key"), "key", "left_anti")
        joined = staged.join(first, sql.col("event_id") == sql.col("key"), "left")
        is_fresh = ~has_id | (sql.col("event") == sql.col("first"))
        return joined.filter(is_fresh).select(*staged.columns)

    def _tally(self, fresh: "DataFrame", first: int, last: int) -> tuple[int, int]:
        """How many events are fresh, and how many of them touch a closed day."""
        from pyspark.sql import functions as sql

        closed = self._manifest.closed_days(first, last)
        events = fresh.groupBy("event").agg(sql.bool_or(sql.col("day").isin(closed)).alias("late"))
        [row] = (
            events.agg(sql.count("*").alias("kept"), sql.count_if("late").alias("late"))
            .toArrow()
            .to_pylist()
        )
        return row["kept"], row["late"]

    def _write(self, fresh: "DataFrame", dimensions: Sequence[str], *, has_ids: bool) -> None:
        """Writes the rows of the fresh events as one commit."""
        from pyspark.sql import functions as sql

        key, commit = sql.col("pseudonym").alias("key"), sql.lit(self._change.next_seq())
        commit = commit.cast("long").alias("commit")
        truth = sql.lit(TRUTH).cast("int").alias("group")
        days = fresh.groupBy(key, "day").agg(frames.is_last_added("event").alias("add"))
        state = LakeState(self._writer.spark, self._writer.lake, [])
        self._writer.write(
            self._change, DAYS, days.select(truth, "key", "day", "add", commit), state=state
        )
        for place, dimension in enumerate(dimensions):
            for labels in self._labels_of(fresh, f"label{place}", dimension):
                some = labels.select("group", "key", "code", commit)
                self._writer.write(self._change, LABELS, some, state=state)
        if has_ids:
            week = sql.lit(week_of(self._now)).cast("int").alias("group")
            ids = fresh.filter("event_id != 0").select(sql.col("event_id").alias("key")).distinct()
            self._writer.write(self._change, SEEN, ids.select(week, "key", commit), state=state)

    def _labels_of(self, fresh: "DataFrame", column: str, dimension: str) -> Iterator["DataFrame"]:
        """(group, key, code): the first label of each user and month, if there is one."""
        from pyspark.sql import functions as sql

        usable = fresh.filter(sql.col("add") & sql.col(column).isNotNull())
        values = sorted(usable.select(column).distinct().toArrow()[column].to_pylist())
        if not values:
            return
        known = self._labels.dimension(dimension)
        codes = self._labels.codes(known, dict(enumerate(values)), len(values))
        dictionary = self._writer.spark.createDataFrame(pa.table({"value": values, "code": codes}))
        group = (frames.month() * DIMENSIONS_MAX + known).cast("int").alias("group")
        coded = usable.join(dictionary, sql.col(column) == sql.col("value"))
        coded = coded.select(sql.col("pseudonym").alias("key"), group, "event", "code")
        firsts = coded.groupBy("key", "group").agg(sql.min("event").alias("event"))
        # Two rows of the first event have one label.
        first = coded.join(firsts, ["key", "group", "event"])
        yield first.groupBy("key", "group").agg(sql.min("code").alias("code"))


def _names(fresh: "DataFrame", aliases: int) -> "DataFrame":
    """(old, new, age) of the users; each old name once."""
    from pyspark.sql import functions as sql

    pairs = [
        sql.struct(
            sql.col(f"alias{age}").alias("old"),
            sql.col("pseudonym").alias("new"),
            sql.lit(age).cast("int").alias("age"),
        )
        for age in range(aliases)
    ]
    named = fresh.select(sql.explode(sql.array(*pairs)).alias("name")).select("name.*")
    moving = named.filter(sql.col("old") != sql.col("new"))
    # Two users never share a name.
    return moving.groupBy("old").agg(sql.min("new").alias("new"), sql.min("age").alias("age"))
