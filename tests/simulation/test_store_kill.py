"""The store under `kill -9`: what was acknowledged is whole, what was not is whole or absent."""

import datetime as dt
import random
import subprocess
import sys
from pathlib import Path

import pytest

from dpdau.activity.embedded import EmbeddedStore
from dpdau.domain import day_number, month_of

KILLS = 8
SEED = 20260315
FIRST = dt.date(2020, 1, 1)
SIZES = (7, 40, 900)

CHILD = """
import datetime as dt, sys
from pathlib import Path
import numpy as np
from dpdau.activity.embedded import EmbeddedStore
from dpdau.activity.change import StoreLimits
from dpdau.domain import day_date, month_of
from strategies import columns
import dataclasses

root, start, first, sizes = sys.argv[1], int(sys.argv[2]), int(sys.argv[3]), eval(sys.argv[4])
limits = StoreLimits(direct_rows_min=200, pending_rows_max=3000, pending_commits_max=3,
                     loose_files_max=2, part_rows_min=500, part_files_max=2)
clock = lambda: dt.datetime(2026, 3, 15, tzinfo=dt.UTC)
store = EmbeddedStore(Path(root), clock=clock, limits=limits)
for number in range(start, 100_000):
    size = sizes[number % len(sizes)]
    who = np.random.default_rng(number % 5).integers(1, 2**64, size, dtype=np.uint64)
    batch = columns(who, np.full(size, first + number))
    applied = store.apply(dataclasses.replace(batch, batch_id=str(number)))
    day = day_date(first + number)
    month = month_of(day)
    store.open_month(month, lookback_days=30)
    store.put_secret(month, month.encode())
    store.freeze(month, day)
    if month_of(day_date(first + number + 1)) != month:
        store.end_month(month)
    print(number, applied.duplicate, flush=True)
"""


GROUP_CHILD = """
import dataclasses, datetime as dt, sys
from pathlib import Path
import numpy as np
from dpdau.activity.embedded import EmbeddedStore
from dpdau.activity.change import StoreLimits
from strategies import columns

root, start, first, sizes = sys.argv[1], int(sys.argv[2]), int(sys.argv[3]), eval(sys.argv[4])
limits = StoreLimits(direct_rows_min=200, pending_rows_max=3000, pending_commits_max=3,
                     loose_files_max=2, part_rows_min=500, part_files_max=2)
clock = lambda: dt.datetime(2026, 3, 15, tzinfo=dt.UTC)
store = EmbeddedStore(Path(root), clock=clock, limits=limits)
for number in range(start, 100_000):
    group = []
    for place, size in enumerate(sizes):
        who = np.random.default_rng(number * 3 + place).integers(1, 2**64, size, dtype=np.uint64)
        batch = columns(who, np.full(size, first + number * len(sizes) + place))
        group.append(dataclasses.replace(batch, batch_id=f"{number}-{place}"))
    applied = store.apply_many(group)
    print(number, applied[0].duplicate, flush=True)
    store.tend()
"""


@pytest.mark.slow
def test_a_group_is_whole_or_absent_after_a_kill(tmp_path: Path) -> None:
    """After each of 4 kills every acknowledged group is there, and no group is there in part."""
    root, seeded = tmp_path / "activity", random.Random(SEED)
    start = 0
    for kill in range(KILLS // 2):
        last = _run_and_kill(root, start, seeded.randint(1, 40), child=GROUP_CHILD)[-1]
        store = EmbeddedStore(root, clock=lambda: dt.datetime(2026, 3, 15, tzinfo=dt.UTC))
        days = (last + 3) * len(SIZES)
        table = store.counts(
            first=FIRST, last=FIRST + dt.timedelta(days=days - 1), window_days=(1,)
        )
        store.close()

        groups = table[0].reshape(-1, len(SIZES)).tolist()
        context = f"seed {SEED}, kill {kill}, groups {start}..{last}"
        assert [list(SIZES)] * (last + 1) == groups[: last + 1], context
        assert groups[last + 1] in ([0] * len(SIZES), list(SIZES)), context
        assert [0] * len(SIZES) == groups[last + 2], context
        start = last + 1


@pytest.mark.slow
def test_acknowledged_batches_survive_a_kill(tmp_path: Path) -> None:
    """After each of 8 kills every acknowledged batch is whole, and none is torn or doubled."""
    root, seeded = tmp_path / "activity", random.Random(SEED)
    start = 0
    for kill in range(KILLS):
        acknowledged = _run_and_kill(root, start, seeded.randint(1, 60))
        last = acknowledged[-1]
        store = EmbeddedStore(root, clock=lambda: dt.datetime(2026, 3, 15, tzinfo=dt.UTC))
        table = store.counts(
            first=FIRST, last=FIRST + dt.timedelta(days=last + 3), window_days=(1,)
        )
        segments = store.stats().segments
        _check_months(store, last)
        store.close()

        found = table[0].tolist()
        whole = [SIZES[number % len(SIZES)] for number in range(len(found))]
        context = f"seed {SEED}, kill {kill}, batches {start}..{last}"
        assert whole[: last + 1] == found[: last + 1], context
        assert found[last + 1] in {0, whole[last + 1]}, context
        assert [0] * len(found[last + 2 :]) == found[last + 2 :], context
        # The next writer sends the batch again whose acknowledgment was perhaps lost.
        start = last + 1
    assert segments > 1
    left = {path.name for path in (root / "segments").iterdir()}
    assert not [name for name in left if name.endswith(".tmp")]


def _check_months(store: EmbeddedStore, last: int) -> None:
    """The last acknowledged day is fixed and closed; at most one more is, and then it is both."""
    day = FIRST + dt.timedelta(days=last)
    following = day + dt.timedelta(days=1)
    closed = store.closed_days(FIRST, following + dt.timedelta(days=1))
    fixed = {
        day,
        *(one for one in (day, following) if store.frozen_through(month_of(one)) == following),
    }
    assert {FIRST + dt.timedelta(days=number) for number in range(last)} | fixed == closed
    ended = month_of(following) != month_of(day)
    assert (None if ended else month_of(day).encode()) == store.secret(month_of(day))


def _run_and_kill(root: Path, start: int, after: int, *, child: str = CHILD) -> list[int]:
    """Writes batches from `start` on, kills after some acknowledgments, returns what was acked."""
    tests = Path(__file__).parents[1]
    process = subprocess.Popen(
        [sys.executable, "-c", child, str(root), str(start), str(day_number(FIRST)), repr(SIZES)],
        stdout=subprocess.PIPE,
        text=True,
        cwd=tests,
    )
    assert process.stdout is not None
    lines = [process.stdout.readline() for _ in range(after)]
    process.kill()
    rest = process.stdout.read().splitlines(keepends=True)
    process.wait()
    process.stdout.close()
    return [int(line.split()[0]) for line in (*lines, *rest) if line.endswith("\n")]
