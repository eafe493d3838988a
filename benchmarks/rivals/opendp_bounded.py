"""OpenDP with polars, one user-level charge: OpenDP bounds the users itself. Prints a JSON list.

30 DAU and 30 MAU in one group-by over (user, number) pairs, at most one row of a user in a number
and at most 60 numbers of a user, both enforced by OpenDP; discrete Gaussian noise under zCDP.

    opendp_bounded.py FILE EPSILON DELTA
"""

import json
import math
import sys

import opendp.prelude as dp
import polars as pl
from polars_masks import MASKS, masks

dp.enable_features("contrib", "honest-but-curious")


def largest_rho(epsilon: float, delta: float) -> float:
    """The most zCDP that implies (epsilon, delta), by Canonne, Kamath and Steinke (2020)."""

    def spent(rho: float) -> float:
        low, high = 1 + 1e-9, 1e5
        for _ in range(300):
            left, right = low + (high - low) / 3, high - (high - low) / 3
            low, high = (low, right) if at(rho, left) < at(rho, right) else (left, high)
        return max(0.0, at(rho, (low + high) / 2))

    def at(rho: float, order: float) -> float:
        return rho * order + math.log(1 / (order * delta)) / (order - 1) + math.log1p(-1 / order)

    low, high = 1e-9, 10.0
    for _ in range(200):
        middle = (low + high) / 2
        low, high = (middle, high) if spent(middle) <= epsilon else (low, middle)
    return low


numbers = len(MASKS)
keys = pl.LazyFrame({"number": list(range(numbers))}, schema={"number": pl.Int64})
marks = keys.with_columns(mask=pl.Series(MASKS, dtype=pl.UInt64))
pairs = (
    masks(sys.argv[1])
    .join(marks, how="cross")
    .filter((pl.col("days") & pl.col("mask")) != 0)
    .select("user_id", "number")
    .collect()
    .lazy()
)
scale = math.sqrt(numbers / (2 * largest_rho(float(sys.argv[2]), float(sys.argv[3]))))
plan = (
    pl.LazyFrame(schema={"user_id": pl.String, "number": pl.Int64})
    .filter(pl.int_range(pl.len()).over("user_id", "number") < 1)
    .filter(pl.struct("number").rank("dense").over("user_id") < numbers + 1)
)
released = keys.join(
    plan.group_by("number").agg(dp.len(signed=True, scale=scale)),
    on=["number"],
    how="left",
    nulls_equal=True,
)
measurement = dp.m.make_private_lazyframe(
    input_domain=dp.lazyframe_domain(
        [
            dp.series_domain("user_id", dp.atom_domain(T=str)),
            dp.series_domain("number", dp.atom_domain(T="i64")),
        ]
    ),
    input_metric=dp.symmetric_id_distance(pl.col("user_id")),
    output_measure=dp.zero_concentrated_divergence(),
    lazyframe=released,
    global_scale=1.0,
)
print(json.dumps(measurement(pairs).collect().sort("number")["len"].to_list()))
