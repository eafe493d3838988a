"""Without privacy, in polars: one bit mask for each user. Prints 30 DAU and 30 MAU as JSON."""

import datetime as dt
import json
import sys

import polars as pl

FIRST_DAY, FIRST, DAYS, WINDOW = dt.date(2024, 5, 1), 30, 60, 30
MASKS = [1 << day for day in range(FIRST, DAYS)] + [
    sum(1 << one for one in range(day - WINDOW + 1, day + 1)) for day in range(FIRST, DAYS)
]


def masks(path: str) -> pl.LazyFrame:
    """(user_id, days): a 60-bit mask for each user, each `-` taking one `+` away."""
    bits = pl.LazyFrame(
        {"day": list(range(DAYS)), "bit": [1 << day for day in range(DAYS)]},
        schema={"day": pl.Int64, "bit": pl.UInt64},
    )
    signed = pl.when(pl.col("op") == "+").then(1).otherwise(-1).sum()
    return (
        pl.scan_parquet(path)
        .group_by("user_id", "day")
        .agg(n=signed)
        .filter(pl.col("n") > 0)
        .select("user_id", day=(pl.col("day") - FIRST_DAY).dt.total_days().cast(pl.Int64))
        .join(bits, on="day")
        .group_by("user_id")
        .agg(days=pl.col("bit").sum())
    )


if __name__ == "__main__":
    counts = [
        ((pl.col("days") & pl.lit(mask, dtype=pl.UInt64)) != 0).sum().alias(str(place))
        for place, mask in enumerate(MASKS)
    ]
    print(json.dumps(list(masks(sys.argv[1]).select(counts).collect().row(0))))
