"""Synthetic streams: repeatable, of the promised shape, and readable back from every format."""

import datetime as dt
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from dpdau.errors import InvalidSettingError, UnsupportedMediaError
from dpdau.eval import workloads
from dpdau.eval.workloads import SCHEMA, BetaActivity, Pattern, generate, user_id, write
from dpdau.ingest.files import read
from dpdau.ingest.rules import Rules

START = dt.date(2026, 1, 20)
DAYS = 70
Row = tuple[str, str, dt.date]


def stream(users: int = 500, days: int = DAYS, **options: Any) -> list[Row]:
    """All rows of a stream."""
    batches = generate(users, days, START, **{"seed": 7, "p_active": 0.2, **options})
    return [tuple(row.values()) for batch in batches for row in batch.to_pylist()]  # type: ignore[misc]


def final_state(rows: list[Row]) -> set[tuple[str, dt.date]]:
    """The pairs that are in at the end: the last event of a pair decides."""
    return {pair for pair, op in {(who, day): op for who, op, day in rows}.items() if op == "+"}


def added(rows: list[Row]) -> set[tuple[str, dt.date]]:
    """The pairs that were ever put in."""
    return {(who, day) for who, op, day in rows if op == "+"}


@pytest.mark.parametrize("pattern", list(Pattern))
def test_a_stream_is_repeatable_by_its_seed(pattern: Pattern) -> None:
    """The same arguments give the same rows, another seed gives other users."""
    rows = stream(delete_rate=0.3, pattern=pattern)
    others = stream(delete_rate=0.3, pattern=pattern, seed=8)

    assert rows == stream(delete_rate=0.3, pattern=pattern)
    assert set() == {row[0] for row in rows} & {row[0] for row in others}


def test_a_seed_gives_these_rows() -> None:
    """A change of the generator that moves every recorded experiment is noticed."""
    rows = stream(users=3, days=4, p_active=0.5, delete_rate=0.4, seed=1)

    assert [
        (user_id(who, 1), op, START + dt.timedelta(days=day)) for who, op, day in FIRST_ROWS
    ] == rows
    assert "u5e41ab087439611e" == user_id(0, 1)


FIRST_ROWS = [(0, "+", 0), (0, "-", 0), (1, "+", 1), (1, "+", 2), (1, "+", 3)]


@pytest.mark.parametrize("pattern", list(Pattern))
@pytest.mark.parametrize("rate", [0.0, 0.3, 1.0])
def test_deleted_users_end_with_no_day_and_others_with_all_of_theirs(
    pattern: Pattern, rate: float
) -> None:
    """At the end of the stream, the rate of the users is gone, whatever the pattern."""
    rows = stream(delete_rate=rate, pattern=pattern)
    put_in, left = added(rows), final_state(rows)
    gone = {who for who, _ in put_in} - {who for who, _ in left}

    assert {pair for pair in put_in if pair[0] not in gone} == left
    assert rate * 500 * 0.9 - 5 <= len(gone) <= rate * 500


def test_days_come_in_order_and_removals_after_what_they_remove() -> None:
    """Arrival is day by day: a `-` never comes before the `+` of its pair."""
    rows = stream(delete_rate=0.5)
    days = [day for _, op, day in rows if op == "+"]
    seen: set[tuple[str, dt.date]] = set()
    for who, op, day in rows:
        assert op == "+" or (who, day) in seen
        seen.add((who, day))

    assert days == sorted(days)
    assert (START, START + dt.timedelta(days=DAYS - 1)) == (days[0], days[-1])
    assert len([row for row in rows if row[1] == "-"]) == len(added(rows)) - len(final_state(rows))


def test_a_deleted_user_does_not_come_back() -> None:
    """After the removal of a user's days there is no further event of that user."""
    last_op: dict[str, str] = {}
    for who, op, _ in stream(delete_rate=0.5):
        assert not (last_op.get(who) == "-" and op == "+")
        last_op[who] = op


@pytest.mark.parametrize("pattern", [Pattern.TOP, Pattern.ADVERSARIAL])
def test_the_most_active_are_deleted_first(pattern: Pattern) -> None:
    """With a spread of activity, those deleted were likelier to come than all who stay."""
    options = {"p_active": BetaActivity(), "pattern": pattern, "delete_rate": 0.1, "days": 400}
    rows = stream(users=300, **options)
    whole = stream(users=300, **{**options, "delete_rate": 0.0, "pattern": Pattern.RANDOM})
    gone = {who for who, _ in added(rows)} - {who for who, _ in final_state(rows)}
    times = Counter(who for who, _, _ in whole)
    average = {
        deleted: np.mean([n for who, n in times.items() if (who in gone) is deleted])
        for deleted in (True, False)
    }

    assert 30 == len(gone)
    assert average[True] > 3 * average[False]


@pytest.mark.parametrize("pattern", [Pattern.END, Pattern.ADVERSARIAL])
def test_removals_may_wait_for_the_end(pattern: Pattern) -> None:
    """The deletions of the whole stream come in one burst after its last day."""
    rows = stream(delete_rate=0.3, pattern=pattern)
    last_add = max(place for place, row in enumerate(rows) if row[1] == "+")
    burst = rows[last_add + 1 :]

    assert {(who, day) for who, _, day in burst} == added(rows) - final_state(rows)
    assert len(burst) == len(added(rows)) - len(final_state(rows))


@pytest.mark.parametrize("pattern", [Pattern.FLIP, Pattern.ADVERSARIAL])
def test_pairs_may_flip(pattern: Pattern) -> None:
    """A flipping pair goes in, out and in again, all on its own day."""
    rows = stream(delete_rate=0.3, pattern=pattern)
    times = Counter((who, day) for who, op, day in rows if op == "+")
    flipping = {who for (who, _), n in times.items() if n == 2}

    assert {1, 2} >= set(times.values())
    assert (len({who for who, _ in times}) if pattern is Pattern.FLIP else 150) == len(flipping)
    assert all(n == 2 for (who, _), n in times.items() if who in flipping)


def test_the_rate_of_activity_is_the_one_asked_for() -> None:
    """Rows are within 6 standard deviations of their mean: a false alarm in 5e8 runs at most."""
    users, days = 20_000, 10
    for p_active, mean, spread in (
        (0.2, 0.2, (0.2 * 0.8 * days) ** 0.5),
        (BetaActivity(), 0.5 / 5.5, (days * 0.0826 + days**2 * 0.0127) ** 0.5),
    ):
        rows = sum(one.num_rows for one in generate(users, days, START, p_active=p_active, seed=3))
        assert abs(rows - users * days * mean) < 6 * spread * users**0.5


def test_every_batch_has_the_schema_and_a_bounded_length(monkeypatch: pytest.MonkeyPatch) -> None:
    """Batches are small enough to be stored one by one."""
    monkeypatch.setattr(workloads, "ROWS_PER_BATCH", 50)
    batches = list(
        generate(500, 5, START, p_active=1.0, delete_rate=0.5, seed=1, pattern=Pattern.END)
    )

    assert {SCHEMA} == {batch.schema for batch in batches}
    assert 50 >= max(batch.num_rows for batch in batches)
    assert 500 * 5 + 250 * 5 == sum(batch.num_rows for batch in batches)
    for batch in batches:
        batch.validate(full=True)


def test_ids_are_distinct_and_of_one_length() -> None:
    """Two users never share an id."""
    ids = {user_id(index, seed) for index in range(2_000) for seed in (0, 1)}

    assert 4_000 == len(ids)
    assert {17} == {len(one) for one in ids}


@pytest.mark.parametrize(
    "name",
    [
        "e.parquet",
        "e.ndjson",
        "e.jsonl",
        "e.csv",
        "e.ndjson.gz",
        "e.csv.gz",
        "e.ndjson.zst",
        "e.csv.zst",
        "below/e.csv",
    ],
)
def test_what_is_written_is_read_back(name: str, tmp_path: Path) -> None:
    """Every format gives the rows in their order, and no draft stays."""
    path, told = tmp_path / name, []
    options: dict[str, Any] = {"p_active": 0.3, "delete_rate": 0.3, "seed": 5}
    rows = write(path, generate(200, 20, START, **options), on_rows=told.append)
    expected = stream(users=200, days=20, **options)
    found = [
        (one.user_id, one.op.value, one.day)
        for chunk in read(path, rules=Rules(dt.date(2026, 5, 1)), chunk_bytes=5_000)
        for one in chunk.decoded.events
    ]

    assert expected == found
    assert len(expected) == rows == told[-1]
    assert [path.name] == [one.name for one in path.parent.iterdir()]


def test_a_stream_that_fails_leaves_no_file(tmp_path: Path) -> None:
    """A file under its name is complete."""

    def broken() -> Any:
        yield next(generate(10, 1, START, p_active=1.0, seed=1))
        raise KeyboardInterrupt

    for name in ("e.csv", "e.parquet"):
        with pytest.raises(KeyboardInterrupt):
            write(tmp_path / name, broken())
    assert [] == list(tmp_path.iterdir())


@pytest.mark.parametrize("name", ["e", "e.txt", "e.gz", "e.parquet.gz", "e.csv.bz2"])
def test_a_suffix_that_is_not_written_is_refused(name: str, tmp_path: Path) -> None:
    """Before any row is made."""
    with pytest.raises(UnsupportedMediaError):
        write(tmp_path / name, iter([pa.RecordBatch.from_pylist([], SCHEMA)]))


@pytest.mark.parametrize(
    "options",
    [
        {"users": 0},
        {"days": 0},
        {"days": 3_661},
        {"p_active": 1.1},
        {"p_active": float("nan")},
        {"p_active": BetaActivity(0, 1)},
        {"delete_rate": -0.1},
        {"delete_rate": 1.1},
    ],
)
def test_sizes_out_of_range_are_refused_at_once(options: dict[str, Any]) -> None:
    """Not when the first batch is asked for."""
    whole = {"users": 5, "days": 5, "start": START, "seed": 1, **options}
    with pytest.raises(InvalidSettingError):
        generate(whole.pop("users"), whole.pop("days"), whole.pop("start"), **whole)
