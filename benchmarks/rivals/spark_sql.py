"""Without privacy, in Spark SQL: one bit mask for each user, and all 90 numbers of June 2024.

The last row of a user and day decides, as in the product. The columns of a window are those of
`benchmarks.spark`, which runs it.
"""

from typing import Any

FIRST_DAY, DAYS, LOOKBACK = "date '2024-05-03'", 30, 29
WINDOWS = (1, 7, 30)
MASKS = {
    (window, day): ((1 << window) - 1) << (LOOKBACK + day - window + 1)
    for window in WINDOWS
    for day in range(DAYS)
}
COUNTS = ", ".join(
    f"sum(if(days & {mask}L <> 0, people, 0)) as w{window}_{day}"
    for (window, day), mask in MASKS.items()
)
# A place and an op in one number: what decides is the largest, which is cheaper than an ordering.
QUERY = f"""
with active as (
    select user_id, datediff(day, {FIRST_DAY}) as day, max(seq * 2 + if(op = '+', 1, 0)) % 2 as add
    from {{events}} where day between {FIRST_DAY} and date '2024-06-30' group by user_id, day
), masks as (
    select user_id, bit_or(shiftleft(1L, day)) as days from active where add = 1 group by user_id
), groups as (select days, count(*) as people from masks group by days)
select {COUNTS} from groups
"""


def counts(spark: Any, events: str) -> list[list[int]]:
    """The numbers of each window, day by day, from a view."""
    (row,) = spark.sql(QUERY.format(events=events)).toArrow().to_pylist()
    return [[row[f"w{window}_{day}"] for day in range(DAYS)] for window in WINDOWS]
