"""The events of the benchmark: 60 days of a product with churn, heavy tails and 2 % deletions.

A user comes on a day of -60..58 for 1 + Exp(60) days, is active on a day with a probability from
Beta(0.5, 2) (a fifth less at weekends), and sends 1 + Geometric events on an active day. 0.7 % of
the users take back all that they did, and 1.5 % of all other events are taken back one by one, up
to a week later. Rows are in arrival order. The same seed gives the same rows on every machine.
"""

import datetime as dt
import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

SIZES: Final = {"XS": 5_000, "S": 100_000, "M": 2_000_000, "L": 20_000_000}
SEED: Final = 20240601
DAYS: Final = 60
FIRST_DAY: Final = dt.date(2024, 5, 1)
FIRST_RELEASED: Final = 30
WINDOW_DAYS: Final = 30
MONTH: Final = "2024-06"
WINDOWS: Final = {"dau": 1, "wau": 7, "mau": 30}
_USERS_IN_BLOCK: Final = 20_000
_ROWS_WRITTEN_AT_ONCE: Final = 2_000_000
_ROWS_IN_GROUP: Final = 500_000


@dataclass(frozen=True, slots=True)
class Events:
    """Rows in arrival order: user (n,) from 0, day (n,) from 0, add (n,) bool."""

    user: NDArray[np.int64]
    day: NDArray[np.int64]
    add: NDArray[np.bool_]


def generate(size: str, seed: int = SEED) -> Events:
    """The rows of one size; whole users up to the target, then a part of the next one."""
    target = SIZES[size]
    random = np.random.Generator(np.random.PCG64(seed))
    blocks, rows, first = [], 0, 0
    while rows < target:
        blocks.append(_block(random, first, _USERS_IN_BLOCK))
        rows += blocks[-1][0].size
        first += _USERS_IN_BLOCK
    user, day, add, arrival = (np.concatenate(column) for column in zip(*blocks, strict=True))
    whole = int(np.searchsorted(np.cumsum(np.bincount(user)), target, side="right"))
    kept = user < whole
    short = target - int(kept.sum())
    kept[np.flatnonzero((user >= whole) & add)[:short]] = True
    user, day, add, arrival = user[kept], day[kept], add[kept], arrival[kept]
    order = np.lexsort((random.random(user.size), arrival * 2 + ~add))
    assert user.size == target
    return Events(user[order], day[order], add[order])


def _block(random: np.random.Generator, first: int, n: int) -> tuple[NDArray[Any], ...]:
    """The events of n users: user, day, add, time of arrival."""
    comes = random.integers(-60, 59, n)
    stays = 1 + random.exponential(60, n)
    activity = random.beta(0.5, 2.0, n)
    leaves_no_trace = random.random(n) < 0.007
    days = np.arange(DAYS)
    weekend = np.array([(FIRST_DAY + dt.timedelta(int(one))).weekday() >= 5 for one in days])
    there = (days >= comes[:, None]) & (days < (comes + stays)[:, None])
    active = there & (
        random.random((n, DAYS)) < activity[:, None] * np.where(weekend, 0.8, 1.0)[None, :]
    )
    user, day = np.nonzero(active)
    times = random.geometric(1 / 3.0, user.size)
    user, day = np.repeat(user, times), np.repeat(day, times)
    erased = leaves_no_trace[user]
    taken_back = (random.random(user.size) < 0.015) & ~erased
    delay = random.integers(0, 8, user.size)
    last = np.full(n, -1)
    np.maximum.at(last, user, day)
    return (
        np.concatenate([user, user[taken_back], user[erased]]) + first,
        np.concatenate([day, day[taken_back], day[erased]]),
        np.repeat([True, False], [user.size, int(taken_back.sum() + erased.sum())]),
        np.concatenate([day * 2, (day + delay)[taken_back] * 2 + 1, last[user[erased]] * 2 + 1]),
    )


def active_days(events: Events, *, netted: bool) -> NDArray[np.bool_]:
    """Who is active when, (users, DAYS).

    Args:
        events: The rows.
        netted: Whether each `-` takes one `+` away, as the SQL of the other programs has it; the
            product's own rule is that the last event of a user and day decides.
    """
    cell = events.user * DAYS + events.day
    users = int(events.user.max()) + 1
    if netted:
        signed = np.where(events.add, 1.0, -1.0)
        return (np.bincount(cell, signed, users * DAYS) > 0).reshape(users, DAYS)
    last = np.zeros(users * DAYS, dtype=np.bool_)
    # Of repeated places the last one is assigned: that is the rule.
    last[cell] = events.add
    return last.reshape(users, DAYS)


def windowed(active: NDArray[np.bool_], last_day: int, days: int) -> int:
    """Users active in the `days` days that end on `last_day`; days after the data are empty."""
    return int(active[:, max(last_day - days + 1, 0) : last_day + 1].any(axis=1).sum())


def truth(events: Events) -> dict[str, Any]:
    """Exact counts: for the product its month, for the others their 30 + 30 numbers."""
    own, netted = active_days(events, netted=False), active_days(events, netted=True)
    month = [FIRST_DAY + dt.timedelta(one) for one in range(DAYS + 31)]
    places = [place for place, day in enumerate(month) if day.isoformat()[:7] == MONTH]
    others = range(FIRST_RELEASED, DAYS)
    return {
        "rows": int(events.user.size),
        "users": int(np.unique(events.user).size),
        "month": {
            metric: {month[place].isoformat(): windowed(own, place, days) for place in places}
            for metric, days in WINDOWS.items()
        },
        "others": [windowed(netted, place, days) for days in (1, WINDOW_DAYS) for place in others],
    }


def write(folder: Path, size: str) -> dict[str, Path]:
    """The files of one size, made where they are missing: parquet, ndjson, truth."""
    folder.mkdir(parents=True, exist_ok=True)
    paths = {
        kind: folder / f"events_{size}.{suffix}"
        for kind, suffix in {"parquet": "parquet", "ndjson": "ndjson", "truth": "json"}.items()
    }
    if paths["truth"].exists():
        return paths
    events = generate(size)
    names = _names(int(events.user.max()) + 1)
    dates = np.array([FIRST_DAY + dt.timedelta(one) for one in range(DAYS)], "datetime64[D]")
    schema = pa.schema([("user_id", pa.string()), ("op", pa.string()), ("day", pa.date32())])
    with (
        pq.ParquetWriter(paths["parquet"], schema, compression="zstd") as parquet,
        paths["ndjson"].open("w", encoding="utf-8") as ndjson,
    ):
        for start in range(0, events.user.size, _ROWS_WRITTEN_AT_ONCE):
            rows = slice(start, start + _ROWS_WRITTEN_AT_ONCE)
            columns = [
                names[events.user[rows]],
                np.where(events.add[rows], "+", "-"),
                dates[events.day[rows]],
            ]
            parquet.write_table(pa.table(columns, schema=schema), row_group_size=_ROWS_IN_GROUP)
            ndjson.writelines(_lines(*columns))
    paths["truth"].write_text(json.dumps(truth(events)), "utf-8")
    return paths


def ordered(parquet: Path) -> Path:
    """The rows of a file with their places as a column `seq`; made where it is missing."""
    path = parquet.with_name(f"{parquet.stem}_ordered.parquet")
    if path.exists():
        return path
    draft, place = path.with_suffix(".draft"), 0
    with pq.ParquetFile(parquet) as file:
        schema = file.schema_arrow.append(pa.field("seq", pa.int64()))
        with pq.ParquetWriter(draft, schema, compression="zstd") as to:
            for group in range(file.num_row_groups):
                rows = file.read_row_group(group)
                seq = pa.array(np.arange(place, place + len(rows)))
                to.write_table(rows.append_column("seq", seq), row_group_size=_ROWS_IN_GROUP)
                place += len(rows)
    return draft.rename(path)


def _lines(user: NDArray[Any], op: NDArray[Any], day: NDArray[Any]) -> Iterator[str]:
    """Rows as JSON lines."""
    for one, sign, date in zip(user.tolist(), op.tolist(), day.astype(str).tolist(), strict=True):
        yield f'{{"user_id": "{one}", "op": "{sign}", "day": "{date}"}}\n'


def _names(users: int) -> NDArray[Any]:
    """A name of 17 characters for each user; neighbors in number are far apart in name."""
    word = np.arange(users, dtype=np.uint64) + np.uint64(0x9E3779B97F4A7C15)
    word = (word ^ (word >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    word = (word ^ (word >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return np.array([f"u{one:016x}" for one in (word ^ (word >> np.uint64(31))).tolist()])
