"""Without privacy, in SQL: one bit mask for each user, 30 DAU and 30 MAU. Prints a JSON list."""

import json
import sys

import duckdb

FIRST_DAY, FIRST, DAYS, WINDOW = "date '2024-05-01'", 30, 60, 30
MASKS = [1 << day for day in range(FIRST, DAYS)] + [
    sum(1 << one for one in range(day - WINDOW + 1, day + 1)) for day in range(FIRST, DAYS)
]
COUNTS = ", ".join(f"count(*) filter ((days & {mask}::ubigint) <> 0)" for mask in MASKS)
QUERY = f"""
with active as (
    select user_id, (day - {FIRST_DAY})::int as day from read_parquet('{sys.argv[1]}')
    group by user_id, day having sum(case op when '+' then 1 else -1 end) > 0
), masks as (select user_id, bit_or(1::ubigint << day) as days from active group by user_id)
select {COUNTS} from masks
"""
row = duckdb.connect().execute(QUERY).fetchone()
assert row is not None
print(json.dumps(list(row)))
