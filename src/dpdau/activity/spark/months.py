"""Fixes, counts and ends months in the lake.

A day is fixed by writing its pairs once more, for the month: what comes later changes the truth
and not these rows. That is the copy which the embedded store avoids by holding differences; in a
lake it is cheap, and no commit has to look at the open months.
"""

from collections.abc import Callable, Sequence

import numpy as np
from numpy.typing import NDArray

from dpdau.activity.held import PlanMonth
from dpdau.activity.labels import plan_groups
from dpdau.activity.month_verbs import Code, MonthVerbs
from dpdau.activity.spark import frames
from dpdau.activity.spark.access import LakeAccess
from dpdau.activity.spark.lake import DAYS, GRAVE, LABELS, TRUTH
from dpdau.activity.spark.state import LakeState
from dpdau.activity.spark.writer import LakeWriter
from dpdau.domain import Clock


class LakeMonths(MonthVerbs[LakeWriter]):
    """The month verbs over Parquet files."""

    def __init__(self, access: LakeAccess, clock: Clock) -> None:
        super().__init__(access, clock)
        self._access = access

    def _fix(
        self,
        writer: LakeWriter,
        month: PlanMonth,
        day: int,
        *,
        dimensions: Sequence[int],
        also: Callable[[], None],
    ) -> None:
        """Copies the pairs of the next days, and keeps the labels of the newcomers."""
        from pyspark.sql import functions as sql

        first = month.start if day == month.first else day
        with writer.changing() as change:
            state = writer.state()
            seq = change.next_seq()
            truth = state.rows(DAYS, groups=_one(TRUTH), days=range(first, day + 1))
            graves = state.rows(DAYS, groups=_one(month.month)).filter(sql.col("day") == GRAVE)
            rows = frames.standing(truth).join(
                frames.standing(graves).select("key"), "key", "left_anti"
            )
            fixed = rows.select(
                sql.lit(month.month).cast("int").alias("group"),
                "key",
                "day",
                sql.lit(True).alias("add"),  # noqa: FBT003
                sql.lit(seq).cast("long").alias("commit"),
            )
            files = writer.write(change, DAYS, fixed, state=state)
            if dimensions and files and state.of(LABELS):
                newcomers = state.of_files(DAYS, files).select("key").distinct()
                known = frames.standing(state.rows(DAYS, groups=_one(month.month)))
                newcomers = newcomers.join(known.select("key"), "key", "left_anti")
                labels = frames.latest_labels(
                    state.rows(LABELS), newcomers, month, dimensions=dimensions, seq=seq
                )
                writer.write(change, LABELS, labels, state=state)
        writer.commit(change, also)

    def _count(
        self,
        checked: Callable[[Sequence[PlanMonth]], PlanMonth],
        day: int,
        *,
        window_days: Sequence[int],
        codes: Sequence[Code | None],
    ) -> NDArray[np.int64]:
        """Counts the days that the month has fixed."""

        def count(state: LakeState) -> NDArray[np.int64]:
            month = checked(state.months).month
            shape = (1 + len(codes), len(window_days))
            if not window_days or not state.of(DAYS):
                return np.zeros(shape, dtype=np.int64)
            days = range(day - max(window_days) + 1, day + 1)
            cells = frames.month_counts(
                frames.standing(state.rows(DAYS, groups=_one(month), days=days)),
                state.rows(LABELS, groups=plan_groups(month)) if any(codes) else None,
                month=month,
                day=day,
                window_days=window_days,
                codes=codes,
            )
            [row] = cells.toArrow().to_pylist()
            return np.array(list(row.values()), dtype=np.int64).reshape(shape)

        return self._access.read(count)

    def _drop(self, writer: LakeWriter, month: PlanMonth, also: Callable[[], None]) -> None:
        """Rewrites every file with a row of the month."""
        writer.drop_month(month, also)


def _one(group: int) -> range:
    """A range of one group."""
    return range(group, group + 1)
