"""Counts of real data equal a recount with plain sets that shares no code with the product."""

import csv
import datetime as dt
import io
import zipfile
from collections import defaultdict
from collections.abc import Callable, Iterator
from functools import cache
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from dpdau.activity.embedded import EmbeddedStore
from dpdau.ingest.batch import IngestReport, ingest
from dpdau.ingest.columns import decode_table
from dpdau.ingest.datasets import cdnow_path, nycflights_path, read_cdnow, read_nycflights
from dpdau.ingest.files import Chunk
from dpdau.ingest.rules import Rules
from dpdau.pseudonym import Keyring, Pseudonymizer

NOW = dt.datetime(2026, 3, 1, tzinfo=dt.UTC)
RULES = Rules(NOW.date())
WINDOWS = (1, 7, 30)
BATCHES = 7
AFTER = dt.timedelta(days=35)

Pair = tuple[str, dt.date]
Reader = Callable[..., Iterator[Chunk]]


@cache
def cdnow_pairs() -> list[Pair]:
    """(customer, day) of every purchase."""
    rows = [line.split() for line in cdnow_path().read_text("ascii").splitlines()[1:]]
    return [(row[0], dt.datetime.strptime(f"{row[1]}Z", "%Y%m%d%z").date()) for row in rows]


@cache
def nycflights_pairs() -> list[Pair]:
    """(aircraft, day) of every flight with a tail number."""
    with zipfile.ZipFile(nycflights_path()) as archive, archive.open("flights.csv") as member:
        rows = csv.DictReader(io.TextIOWrapper(member, "ascii"))
        return [
            (row["tailnum"], dt.date(int(row["year"]), int(row["month"]), int(row["day"])))
            for row in rows
            if row["tailnum"] not in {"", "NA"}
        ]


def recount(pairs: set[Pair], first: dt.date, last: dt.date) -> list[list[int]]:
    """Distinct users in each window, by unions of sets."""
    active: dict[dt.date, set[str]] = defaultdict(set)
    for user, day in pairs:
        active[day].add(user)
    none: set[str] = set()
    days = [first + dt.timedelta(days=back) for back in range((last - first).days + 1)]
    return [
        [
            len(none.union(*(active.get(t - dt.timedelta(days=back), none) for back in range(w))))
            for t in days
        ]
        for w in WINDOWS
    ]


@cache
def whole_recount(pairs_of: Callable[[], list[Pair]]) -> list[list[int]]:
    """The counts of a whole data set, from its first day on to 35 days after its last."""
    pairs = pairs_of()
    days = [day for _, day in pairs]
    return recount(set(pairs), min(days), max(days) + AFTER)


@pytest.fixture
def users(tmp_path: Path) -> Pseudonymizer:
    """Pseudonyms of a keyring on the disk."""
    keyring = Keyring.create(tmp_path / "keyring", bytes(range(64)), clock=lambda: NOW)
    return Pseudonymizer(keyring.live())


@pytest.fixture
def store(tmp_path: Path) -> Iterator[EmbeddedStore]:
    """An empty store."""
    opened = EmbeddedStore(tmp_path / "activity", clock=lambda: NOW)
    yield opened
    opened.close()


DATA = pytest.mark.parametrize(
    ("pairs_of", "reader", "rows", "population"),
    [
        pytest.param(cdnow_pairs, read_cdnow, 69_659, 23_570, id="cdnow"),
        pytest.param(nycflights_pairs, read_nycflights, 334_264, 4_043, id="nycflights"),
    ],
)


@pytest.mark.slow
@DATA
def test_counts_equal_an_independent_recount(
    pairs_of: Callable[[], list[Pair]],
    reader: Reader,
    rows: int,
    population: int,
    store: EmbeddedStore,
    users: Pseudonymizer,
) -> None:
    """For every day and window of the data set, and past its end; read twice counts once."""
    pairs = pairs_of()
    first, last = min(day for _, day in pairs), max(day for _, day in pairs) + AFTER
    reports = [
        sum(
            (
                ingest(one.decoded, store=store, pseudonymizer=users, batch_id=f"data:{one.number}")
                for one in reader(rules=RULES)
            ),
            IngestReport(),
        )
        for _ in range(2)
    ]
    counted = store.counts(first=first, last=last, window_days=WINDOWS)

    assert (rows, population) == (len(pairs), len({user for user, _ in pairs}))
    assert [(rows, 0), (0, rows)] == [(one.accepted, one.duplicate) for one in reports]
    assert whole_recount(pairs_of) == counted.tolist()


@pytest.mark.slow
@DATA
@pytest.mark.parametrize("removals", [False, True], ids=["adds", "turnstile"])
def test_counts_do_not_depend_on_the_order_of_arrival(
    pairs_of: Callable[[], list[Pair]],
    reader: Reader,
    rows: int,
    population: int,
    removals: bool,
    store: EmbeddedStore,
    users: Pseudonymizer,
) -> None:
    """Shuffled `+` give the same counts; with `-` in between, the last event of a pair decides."""
    pairs = pairs_of()
    rng = np.random.Generator(np.random.PCG64(20260301))
    order = rng.permutation(len(pairs) * (2 if removals else 1)) % len(pairs)
    add = rng.random(order.size) < 0.7 if removals else np.ones(order.size, dtype=bool)
    shuffled = [pairs[place] for place in order.tolist()]
    last_op = dict(zip(shuffled, add.tolist(), strict=True))
    active = {pair for pair, present in last_op.items() if present}
    table = pa.table(
        {
            "user_id": [user for user, _ in shuffled],
            "day": pa.array([day for _, day in shuffled], pa.date32()),
            "op": np.where(add, "+", "-"),
        }
    )
    step = -(-table.num_rows // BATCHES)
    for start in range(0, table.num_rows, step):
        decoded = decode_table(table.slice(start, step), rules=RULES)
        ingest(decoded, store=store, pseudonymizer=users)
    first, last = min(day for _, day in pairs), max(day for _, day in pairs) + AFTER
    counted = store.counts(first=first, last=last, window_days=WINDOWS)

    expected = recount(active, first, last) if removals else whole_recount(pairs_of)
    assert expected == counted.tolist()
