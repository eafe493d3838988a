"""What a file adds up to is what a store would count, in every format, for every stream."""

import datetime as dt
import functools
import gzip
import hashlib
import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from dpdau.activity.embedded import EmbeddedStore
from dpdau.domain import Op, Segment, month_days
from dpdau.ingest import event_tables, files
from dpdau.ingest.batch import build
from dpdau.ingest.datasets import cdnow_path, read_cdnow
from dpdau.ingest.event_file import EventFile, MonthSpan
from dpdau.ingest.rules import Rules
from dpdau.mechanisms.matrix.classes import ContributionClass
from stores import folder_in_memory

MONTH = "2026-02"
NOW = dt.datetime(2026, 4, 2, tzinfo=dt.UTC)
RULES = Rules(today=NOW.date(), dimensions=("platform",))
PLAIN = Rules(today=NOW.date())
SEGMENTS = (Segment("platform", "ios"), Segment("platform", "o'web"))
WINDOWS = (7, 30, 1)
CLASS = ContributionClass(28, (7, 30), daily=True, erasure=True)
DAYS = tuple(
    dt.date(2026, 2, 1) + dt.timedelta(days=offset)
    for offset in (-40, -33, -32, -31, -30, -29, -28, -7, -6, -1, 0, 1, 6, 7, 13, 26, 27, 28, 90)
)
USERS = ("ann", "Ann", "bob", "é" * 128, "a b\tc", "0")


class Names:
    """Pseudonyms of a test: a hash, under one key."""

    first_day = dt.date.min

    def many(self, ids: Any) -> tuple[NDArray[np.uint64], NDArray[np.uint64]]:
        """One number for each user."""
        texts = ids.to_pylist() if isinstance(ids, pa.Array) else [one.encode() for one in ids]
        hashed = [_number(one) for one in texts]
        return np.array(hashed, np.uint64), np.zeros((0, len(hashed)), np.uint64)

    def event_ids(self, ids: Any, who: NDArray[np.uint64]) -> NDArray[np.uint64]:
        """One number for each event id of each user."""
        texts = ids.to_pylist() if isinstance(ids, pa.Array) else [one.encode() for one in ids]
        found = [_number(b"%d:%b" % pair) for pair in zip(who.tolist(), texts, strict=True)]
        return np.array(found, np.uint64)


def _number(content: bytes) -> int:
    return int.from_bytes(hashlib.blake2b(content, digest_size=8).digest(), "little")


@dataclass(frozen=True)
class Expected:
    """What a store that took a file in says."""

    table: NDArray[np.int64]
    rejected: list[Any]
    received: int


def expected(
    chunks: Iterator[files.Chunk], span: MonthSpan, folder: Path, dimensions: Sequence[str] = ()
) -> Expected:
    """Loads a store, opens the month and takes its days."""
    first, last = month_days(span.month)
    rejected: list[Any] = []
    received = 0
    store = EmbeddedStore(folder, clock=lambda: NOW)
    for chunk in chunks:
        store.apply(build(chunk.decoded, Names(), dimensions=dimensions))  # type: ignore[arg-type]
        rejected += chunk.decoded.rejected
        received += chunk.decoded.received
    asked = sorted({one.dimension for one in span.segments})
    store.open_month(span.month, lookback_days=max(span.windows), dimensions=asked)
    rows = []
    for offset in range((last - first).days + 1):
        day = first + dt.timedelta(days=offset)
        store.freeze(span.month, day)
        rows.append(
            store.contributions(span.month, day, window_days=span.windows, segments=span.segments)
        )
    store.close()
    return Expected(np.array(rows), rejected, received)


def check(path: Path, span: MonthSpan, rules: Rules, root: Path) -> None:
    """Counts a file, and compares."""
    with folder_in_memory(otherwise=root / "store") as folder:
        wanted = expected(files.read(path, rules=rules), span, folder, rules.dimensions)
    found = EventFile(path, rules=rules, span=span).count()
    assert wanted.table.tolist() == found.table.tolist(), path.name
    assert (wanted.received, len(wanted.rejected)) == (found.received, found.rejected_count)
    assert wanted.rejected[:1000] == list(found.rejected)


def flat_events() -> st.SearchStrategy[list[dict[str, Any]]]:
    """Rows of columns, some of them with a fault."""
    row = st.fixed_dictionaries(
        {
            "user_id": st.sampled_from([*USERS, *USERS, "", "u" * 257, None]),
            "op": st.sampled_from(["+", "+", "+", "-", "-", "*", None]),
            "day": st.sampled_from([*DAYS, *DAYS, dt.date(1899, 12, 31), None]),
        }
    )
    return st.lists(row, min_size=1, max_size=40)


def sound(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """The rows without a fault but in the day."""
    return [
        one
        for one in rows
        if one["user_id"] in USERS and one["op"] in {"+", "-"} and one["day"] is not None
    ]


PHYSICAL = {
    "plain": pa.schema([("user_id", pa.string()), ("op", pa.string()), ("day", pa.date32())]),
    "large": pa.schema([("user_id", pa.large_string()), ("op", pa.string()), ("day", pa.date32())]),
    "coded": pa.schema(
        [
            ("user_id", pa.dictionary(pa.int32(), pa.string())),
            ("op", pa.dictionary(pa.int8(), pa.string())),
            ("day", pa.date32()),
        ]
    ),
    "bytes": pa.schema([("user_id", pa.binary()), ("op", pa.binary()), ("day", pa.date32())]),
    "texts": pa.schema([("user_id", pa.string()), ("op", pa.string()), ("day", pa.string())]),
    "times": pa.schema(
        [("user_id", pa.string()), ("op", pa.string()), ("day", pa.timestamp("us"))]
    ),
}


@settings(max_examples=12)
@given(rows=flat_events(), clean=st.booleans(), kind=st.sampled_from(sorted(PHYSICAL)))
def test_parquet_of_any_type_is_what_a_store_counts(
    rows: list[dict[str, Any]], clean: bool, kind: str, tmp_path_factory: pytest.TempPathFactory
) -> None:
    """Counts, rejections and their places are those of a store, whatever the columns are."""
    root = tmp_path_factory.mktemp("parquet")
    schema = PHYSICAL[kind]
    held = sound(rows) if clean else rows
    if kind == "texts":
        held = [{**one, "day": one["day"] and one["day"].isoformat()} for one in held]
    if kind == "times":
        noon = dt.time(12)
        held = [
            {**one, "day": one["day"] and dt.datetime.combine(one["day"], noon)} for one in held
        ]
    if kind == "bytes":
        held = [{**one, "user_id": one["user_id"] and one["user_id"].encode()} for one in held]
    pa.parquet.write_table(
        pa.Table.from_pylist(held, schema=schema), root / "e.parquet", row_group_size=7
    )
    check(root / "e.parquet", MonthSpan(MONTH, WINDOWS), PLAIN, root)


@settings(max_examples=8)
@given(rows=flat_events())
def test_csv_is_what_a_store_counts(
    rows: list[dict[str, Any]], tmp_path_factory: pytest.TempPathFactory
) -> None:
    """A CSV file goes through the reader of `ingest`, and counts as it does there."""
    root = tmp_path_factory.mktemp("csv")
    pa.csv.write_csv(pa.Table.from_pylist(rows, schema=PHYSICAL["plain"]), root / "e.csv")
    check(root / "e.csv", MonthSpan(MONTH, WINDOWS), PLAIN, root)


@settings(max_examples=12)
@given(
    items=st.lists(
        st.fixed_dictionaries(
            {
                "user_id": st.sampled_from(USERS[:4]),
                "op": st.sampled_from(["+", "+", "-"]),
                "day": st.sampled_from([one.isoformat() for one in DAYS]),
            },
            optional={
                "event_id": st.sampled_from(["e1", "e2", "e3"]),
                "metadata": st.fixed_dictionaries(
                    {},
                    optional={
                        "platform": st.sampled_from(["ios", "o'web", "tv"]),
                        "days": st.lists(
                            st.sampled_from([one.isoformat() for one in DAYS[:-1]]),
                            min_size=1,
                            max_size=4,
                        ),
                    },
                ),
            },
        ),
        min_size=1,
        max_size=40,
    )
)
def test_ndjson_with_labels_and_ids_is_what_a_store_counts(
    items: list[dict[str, Any]], tmp_path_factory: pytest.TempPathFactory
) -> None:
    """Labels, event ids that come again, and retractions of several days mean what they mean."""
    root = tmp_path_factory.mktemp("ndjson")
    lines = "".join(json.dumps(one) + "\n" for one in items).encode()
    (root / "e.ndjson.gz").write_bytes(gzip.compress(lines))
    check(root / "e.ndjson.gz", MonthSpan(MONTH, WINDOWS, SEGMENTS), RULES, root)


@settings(max_examples=8)
@given(rows=flat_events().map(sound).filter(bool))
def test_a_window_of_two_words_is_counted_as_others(
    rows: list[dict[str, Any]], tmp_path_factory: pytest.TempPathFactory
) -> None:
    """With the longest window a month touches 91 days or more, which one word does not hold."""
    root = tmp_path_factory.mktemp("wide")
    table = pa.Table.from_pylist(rows, schema=PHYSICAL["plain"])
    pa.parquet.write_table(table, root / "e.parquet")
    check(root / "e.parquet", MonthSpan(MONTH, (1, 7, 64)), PLAIN, root)


@settings(max_examples=10)
@given(rows=flat_events().map(sound).filter(bool), who=st.sampled_from(USERS))
def test_one_user_adds_a_member_of_the_class(
    rows: list[dict[str, Any]], who: str, tmp_path_factory: pytest.TempPathFactory
) -> None:
    """Taking out all rows of one user changes the table by one series of the class, and no more."""
    root = tmp_path_factory.mktemp("neighbors")
    assert _is_member(_difference(rows, who, root))


def test_a_count_of_days_instead_of_users_leaves_the_class(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """A planted bug, a window that counts a user once for each active day, is found."""
    days = [dt.date(2026, 2, day) for day in (3, 4, 5)]
    rows = [{"user_id": "ann", "op": "+", "day": day} for day in days]
    counted = event_tables._counted
    assert _is_member(_difference(rows, "ann", tmp_path))

    def tripled(span: MonthSpan, columns: dict[str, NDArray[Any]]) -> NDArray[np.int64]:
        repeated = {name: np.repeat(values, 3) for name, values in columns.items()}
        return counted(span, repeated)

    monkeypatch.setattr(event_tables, "_counted", tripled)
    assert not _is_member(_difference(rows, "ann", tmp_path))


def test_an_order_that_is_lost_is_found(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """A planted bug, the first event of a pair instead of the last, counts otherwise than a store.

    Guards the oracle of this file: it would not pass on whatever it is given.
    """
    day = dt.date(2026, 2, 3)
    rows = [{"user_id": "ann", "op": op, "day": day} for op in ("+", "-")]
    pa.parquet.write_table(
        pa.Table.from_pylist(rows, schema=PHYSICAL["plain"]), tmp_path / "e.parquet"
    )
    execute = event_tables.EventTables.execute
    monkeypatch.setattr(
        event_tables.EventTables,
        "execute",
        lambda self, text: execute(self, text.replace("arg_max(add, ord)", "arg_min(add, ord)")),
    )
    with pytest.raises(AssertionError):
        check(tmp_path / "e.parquet", MonthSpan(MONTH, WINDOWS), PLAIN, tmp_path)


def test_the_last_event_decides_over_row_groups_and_threads(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """However many threads read them, rows keep their place in the file."""
    monkeypatch.setattr(event_tables, "ROWS_OF_A_THREAD", 1)
    random, n = np.random.default_rng(4), 200_000
    who, offset = random.integers(0, 400, n), random.integers(0, 28, n)
    put = random.random(n) < 0.5
    first = np.datetime64("2026-02-01")
    columns = {"user_id": who, "op": np.where(put, "+", "-"), "day": first + offset}
    table = pa.table(columns)
    pa.parquet.write_table(table, tmp_path / "e.parquet", row_group_size=4_096)
    found = EventFile(tmp_path / "e.parquet", rules=PLAIN, span=MonthSpan(MONTH, (1,))).count()

    last = dict(zip(zip(who.tolist(), offset.tolist(), strict=True), put.tolist(), strict=True))
    active = [day for (_, day), held in last.items() if held]
    assert np.bincount(active, minlength=28).tolist() == found.table[:, 0, 0].tolist()


def test_cdnow_is_what_a_store_counts(tmp_path: Path) -> None:
    """A real data set of 69,659 events, in Parquet: a month in its middle."""
    span = MonthSpan("1997-03", WINDOWS)
    with folder_in_memory(otherwise=tmp_path / "store") as folder:
        wanted = expected(read_cdnow(rules=PLAIN), span, folder)
    rows = [
        {"user_id": one.user_id, "op": one.op.value, "day": one.day}
        for chunk in read_cdnow(cdnow_path(), rules=PLAIN)
        for one in chunk.decoded.events
    ]
    table = pa.Table.from_pylist(rows, schema=PHYSICAL["plain"])
    pa.parquet.write_table(table, tmp_path / "cdnow.parquet")
    found = EventFile(tmp_path / "cdnow.parquet", rules=PLAIN, span=span).count()

    assert wanted.table.max() > 5_000
    assert wanted.table.tolist() == found.table.tolist()
    assert {Op.ADD.value} == {one["op"] for one in rows}


def _difference(rows: list[dict[str, Any]], who: str, root: Path) -> NDArray[np.int64]:
    """(days, 3) what one user adds to the exact table of a file."""
    tables = []
    for kept in (rows, [one for one in rows if one["user_id"] != who]):
        table = pa.Table.from_pylist(kept, schema=PHYSICAL["plain"])
        pa.parquet.write_table(table, root / "e.parquet")
        file = EventFile(root / "e.parquet", rules=PLAIN, span=MonthSpan(MONTH, WINDOWS))
        tables.append(file.count().table[:, 0])
    return tables[0] - tables[1]


@functools.cache
def _series() -> NDArray[np.uint8]:
    """Every series of windows that one user can cause."""
    return CLASS.series()


def _is_member(added: NDArray[np.int64]) -> bool:
    """Whether a table is a series of windows of one set of days, with the days themselves."""
    windows = added[:, :2].reshape(1, -1)
    if not np.isin(added, (0, 1)).all():
        return False
    if not (_series() == windows).all(axis=1).any():
        return False
    days = added[:, 2].reshape(1, -1).astype(np.uint8)
    return bool(CLASS.possible(windows.astype(np.uint8), days).all())
