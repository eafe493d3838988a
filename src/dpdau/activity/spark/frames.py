"""What is asked of the lake, as DataFrames: only what Spark Connect and Sail have, and no UDF.

A row of the lake says what one commit makes of one key, so of several rows of a key the one with
the greatest commit decides. Only counts come back to this process.

All is done with sums, minima and maxima of numbers, which every engine keeps in flat memory:
`max_by` takes Sail forty times as long, and `max_by` over structs has Spark sort.
"""

import datetime as dt
from collections.abc import Sequence
from typing import TYPE_CHECKING, Final

import numpy as np
from numpy.typing import NDArray

from dpdau.activity.held import PlanMonth
from dpdau.activity.labels import (
    DIMENSION_VALUES_MAX,
    DIMENSIONS_MAX,
    FORGET,
    month_index,
    plan_groups,
)
from dpdau.activity.month_verbs import Code
from dpdau.activity.spark.lake import DAYS, GRAVE, PART_BITS
from dpdau.domain import WINDOW_DAYS_MAX, day_date

if TYPE_CHECKING:
    import pyarrow as pa
    from pyspark.sql import Column, DataFrame

_EPOCH: Final = dt.date(1970, 1, 1)
_CODES: Final = 1 << 31
assert DIMENSION_VALUES_MAX < _CODES


def standing(days: "DataFrame", by: Sequence[str] = ("key",)) -> "DataFrame":
    """(by, day) of the rows that stand: those that were put in last, and not taken out.

    Args:
        days: Rows of one group.
        by: What a day is a day of; with "group" in front, the rows may be of several groups.
            Where all are of one, it would have Sail sort far more than it needs.
    """
    last = days.groupBy(*by, "day").agg(is_last_added("commit").alias("add"))
    return last.filter("add").select(*by, "day")


def is_last_added(order: str) -> "Column":
    """Whether the last row of a group in an order has `add`; rows of one place have one `add`."""
    from pyspark.sql import functions as sql

    add, place = sql.col("add"), sql.col(order)
    put, taken = sql.max(sql.when(add, place)), sql.max(sql.when(~add, place))
    return put.isNotNull() & (taken.isNull() | (put > taken))


def first_codes(labels: "DataFrame") -> "DataFrame":
    """(group, key, code): the first code of each label that was not moved to another key.

    A key that was moved is not written again, so nothing comes after `FORGET`.
    """
    from pyspark.sql import functions as sql

    first = labels.groupBy("group", "key").agg(
        _code_of(sql.min(_coded("commit"))).alias("code"), sql.min("code").alias("least")
    )
    return first.filter(sql.col("least") != FORGET).select("group", "key", "code")


def folded(kind: str, rows: "DataFrame", *, seq: int, is_base: bool) -> "DataFrame":
    """The rows of neighboring commits as one commit.

    Args:
        kind: The kind of the rows.
        rows: All rows of these commits.
        seq: The newest of the commits.
        is_base: No commit is older: then nothing has to be taken out.
    """
    from pyspark.sql import functions as sql

    commit = sql.lit(seq).cast("long").alias("commit")
    if kind == DAYS.kind:
        last = rows.groupBy("group", "key", "day").agg(is_last_added("commit").alias("add"))
        some = last.filter("add") if is_base else last
        return some.select("group", "key", "day", "add", commit)
    if "code" not in rows.columns:
        return rows.select("group", "key").distinct().select("group", "key", commit)
    first = rows.groupBy("group", "key").agg(
        _code_of(sql.min(_coded("commit"))).alias("code"), sql.min("code").alias("least")
    )
    forgotten = sql.col("least") == FORGET
    some = first.filter(~forgotten) if is_base else first
    code = sql.when(forgotten, FORGET).otherwise(sql.col("code")).cast("int")
    return some.select("group", "key", code.alias("code"), commit)


def part(key: str = "key") -> "Column":
    """Which part a key is in."""
    from pyspark.sql import functions as sql

    # Sail's shiftrightunsigned fails for the least BIGINT.
    high = sql.shiftright(key, 64 - PART_BITS).bitwiseAND(sql.lit((1 << PART_BITS) - 1))
    return high.cast("int")


def month(day: str = "day") -> "Column":
    """The month index of a day number."""
    from pyspark.sql import functions as sql

    date = sql.date_add(sql.lit(_EPOCH), sql.col(day))
    return (sql.year(date) * 12 + sql.month(date) - 1).cast("int")


def gaps(pairs: "DataFrame") -> "DataFrame":
    """(day, gap, users): how many users were active on a day and next after so many days.

    A gap is at most the longest window; a user without a further day has that one. So there are at
    most days × 64 rows, from which `window_counts` knows every window on every day.
    """
    from pyspark.sql import Window
    from pyspark.sql import functions as sql

    following = sql.lead("day").over(Window.partitionBy("key").orderBy("day"))
    gap = sql.least(
        sql.coalesce(following - sql.col("day"), sql.lit(WINDOW_DAYS_MAX)),
        sql.lit(WINDOW_DAYS_MAX),
    )
    per_day = pairs.select("day", gap.alias("gap")).groupBy("day", "gap")
    return per_day.agg(sql.count("*").alias("users"))


def window_counts(
    table: "pa.Table", *, first: int, days: int, window_days: Sequence[int]
) -> NDArray[np.int64]:
    """Distinct users in each trailing window, from the rows of `gaps`.

    A user who is active on day d, and not again for g days, is in the windows of w days that end
    on d, …, d + min(w, g) - 1 on account of that day, and on account of no other day.

    Args:
        table: (day, gap, users).
        first: The first day number on which a window ends.
        days: How many days windows end on.
        window_days: 1..64 days each.

    Returns:
        (len(window_days), days) int64.
    """
    day, gap, users = (table[name].to_numpy() for name in ("day", "gap", "users"))
    start = day.astype(np.int64) - first
    counts = np.zeros((len(window_days), days), dtype=np.int64)
    for row, window in enumerate(window_days):
        steps = np.zeros(days + 1, dtype=np.int64)
        np.add.at(steps, np.clip(start, 0, days), users)
        np.subtract.at(steps, np.clip(start + np.minimum(window, gap), 0, days), users)
        counts[row] = np.cumsum(steps)[:days]
    return counts


def labeled(pairs: "DataFrame", labels: "DataFrame", segment: Code) -> "DataFrame":
    """The pairs of which a segment is the label, each by the month of its day."""
    from pyspark.sql import functions as sql

    dimension, code = segment
    codes = first_codes(labels.filter(sql.pmod("group", sql.lit(DIMENSIONS_MAX)) == dimension))
    holders = codes.filter(sql.col("code") == code)
    months = holders.select("key", sql.floor(sql.col("group") / DIMENSIONS_MAX).alias("month"))
    return pairs.withColumn("month", month()).join(
        months.withColumn("month", sql.col("month").cast("int")), ["key", "month"], "left_semi"
    )


def growth_cells(pairs: "DataFrame", *, end: int, window_days: int) -> "DataFrame":
    """One row: new, retained, resurrected, churned; of all pairs up to a day."""
    from pyspark.sql import functions as sql

    day, later, earlier = sql.col("day"), end - window_days, end - 2 * window_days
    users = pairs.groupBy("key").agg(
        (sql.max("day") > later).alias("is_later"),
        sql.bool_or((day > earlier) & (day <= later)).alias("is_earlier"),
        (sql.min("day") <= earlier).alias("is_old"),
    )
    is_later, is_earlier, is_old = (sql.col(one) for one in ("is_later", "is_earlier", "is_old"))
    cells = {
        "new": is_later & ~is_earlier & ~is_old,
        "retained": is_later & is_earlier,
        "resurrected": is_later & ~is_earlier & is_old,
        "churned": ~is_later & is_earlier,
    }
    return users.agg(*(sql.count_if(one).alias(name) for name, one in cells.items()))


def month_counts(
    pairs: "DataFrame",
    labels: "DataFrame | None",
    *,
    month: int,
    day: int,
    window_days: Sequence[int],
    codes: Sequence[Code | None],
) -> "DataFrame":
    """One row with a column for each window of everyone, then of each segment.

    Args:
        pairs: The days that a month has fixed, up to one.
        labels: The labels of the lake; None where no segment is asked for.
        month: The month index.
        day: The day number on which the windows end.
        window_days: Their lengths.
        codes: The segments; None for one that nobody has.
    """
    from pyspark.sql import functions as sql

    users = pairs.groupBy("key").agg(sql.max("day").alias("last"))
    asked = sorted({one[0] for one in codes if one is not None})
    if labels is not None and asked:
        groups = {dimension: plan_groups(month)[dimension] for dimension in asked}
        kept = first_codes(labels.filter(sql.col("group").isin(list(groups.values()))))
        wide = kept.groupBy("key").agg(
            *(
                sql.max(sql.when(sql.col("group") == group, sql.col("code"))).alias(f"c{dimension}")
                for dimension, group in groups.items()
            )
        )
        users = users.join(wide, "key", "left")
    everyone = sql.lit(True)  # noqa: FBT003
    members = [
        everyone,
        *(
            sql.lit(False)  # noqa: FBT003
            if one is None
            else sql.col(f"c{one[0]}").eqNullSafe(one[1])
            for one in codes
        ),
    ]
    return users.agg(
        *(
            sql.count_if(member & (sql.col("last") > day - window)).alias(f"n{row}_{column}")
            for row, member in enumerate(members)
            for column, window in enumerate(window_days)
        )
    )


def latest_labels(
    labels: "DataFrame",
    newcomers: "DataFrame",
    month: PlanMonth,
    *,
    dimensions: Sequence[int],
    seq: int,
) -> "DataFrame":
    """The labels that a month keeps of those who contribute to it for the first time.

    For each dimension that of the latest month up to this one, and within the look-back, in which
    the user has one.

    Args:
        labels: The labels of the lake.
        newcomers: (key).
        month: The month.
        dimensions: The ids of its dimensions.
        seq: The commit of the rows.
    """
    from pyspark.sql import functions as sql

    months = range(month_index(day_date(month.start)), month.month + 1)
    groups = [one * DIMENSIONS_MAX + dimension for one in months for dimension in dimensions]
    codes = first_codes(labels.filter(sql.col("group").isin(groups)))
    codes = codes.join(newcomers, "key", "left_semi")
    planned = sql.pmod("group", sql.lit(DIMENSIONS_MAX)) + plan_groups(month.month).start
    latest = codes.groupBy("key", planned.cast("int").alias("planned")).agg(
        _code_of(sql.max(_coded("group"))).alias("code")
    )
    commit = sql.lit(seq).cast("long").alias("commit")
    return latest.select(sql.col("planned").alias("group"), "key", "code", commit)


def moved_days(pairs: "DataFrame", names: "DataFrame", *, seq: int) -> "DataFrame":
    """The rows that move the days of older pseudonyms to the current ones.

    Args:
        pairs: (group, key, day) that stand, of the truth and of the open months.
        names: (old, new, age), each `old` once; with (new, new, -1) for each `new`.
        seq: The commit of the rows.

    Guarantee:
        After these rows an old key has no day, and its new one has the union of both; in a month
        in which one of them has a grave, the new one has that and nothing else.
    """
    from pyspark.sql import Window
    from pyspark.sql import functions as sql

    found = pairs.join(names, sql.col("key") == sql.col("old"))
    user = Window.partitionBy("group", "new")
    is_moved, is_grave = sql.col("old") != sql.col("new"), sql.col("day") == GRAVE
    found = found.withColumn("is_erased", sql.max(is_grave.cast("int")).over(user) == 1)
    found = found.withColumn("is_touched", sql.max(is_moved.cast("int")).over(user) == 1)
    stays = is_grave | ~sql.col("is_erased")
    # What the new key has already needs a row only where it is taken out.
    found = found.filter(sql.col("is_touched") & (is_moved | ~stays))
    target = sql.struct(sql.col("new").alias("key"), stays.alias("add"))
    source = sql.struct(sql.col("old").alias("key"), (~is_moved & stays).alias("add"))
    rows = found.select("group", "day", sql.explode(sql.array(source, target)).alias("row"))
    commit = sql.lit(seq).cast("long").alias("commit")
    return rows.select("group", "row.key", "day", "row.add", commit).distinct()


def moved_labels(codes: "DataFrame", names: "DataFrame", *, seq: int) -> "DataFrame":
    """The rows that move the labels of older pseudonyms; the one that was seen first stays.

    Args:
        codes: The first codes of the lake.
        names: As in `moved_days`, without the current names themselves.
        seq: The commit of the rows.
    """
    from pyspark.sql import functions as sql

    found = codes.join(names, sql.col("key") == sql.col("old"))
    commit = sql.lit(seq).cast("long").alias("commit")
    emptied = found.select(
        "group", sql.col("old").alias("key"), sql.lit(FORGET).cast("int").alias("code")
    )
    oldest = found.groupBy("group", "new").agg(_code_of(sql.max(_coded("age"))).alias("code"))
    moved = oldest.select("group", sql.col("new").alias("key"), "code")
    return emptied.unionByName(moved).select("group", "key", "code", commit)


def _coded(order: str) -> "Column":
    """A number that is ordered by a column and says the code; NULL where the code is `FORGET`."""
    from pyspark.sql import functions as sql

    number = sql.col(order).cast("long") * _CODES + sql.col("code")
    return sql.when(sql.col("code") != FORGET, number)


def _code_of(coded: "Column") -> "Column":
    """The code that a number says."""
    return (coded % _CODES).cast("int")
