"""Files as executors read them: the same rows as the embedded store gets, in the same order."""

import datetime as dt
import gzip
import json
import os
from dataclasses import replace
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from dpdau.errors import NotFoundError
from dpdau.ingest import files
from dpdau.ingest.batch import build
from dpdau.ingest.rules import Rules
from dpdau.ingest.spark.pieces import Piece, pieces_of, rows_of_pieces, table_of
from dpdau.ingest.spark.recipe import NOTE, Recipe, Tally
from dpdau.pseudonym import EpochKey
from event_files import ROWS, csv, ndjson, parquet

RULES = Rules(dt.date(2026, 3, 1), dimensions=("platform", "country"))
KEYS = tuple(EpochKey(number, bytes([number]) * 32) for number in (3, 2, 1))
RECIPE = Recipe(KEYS, dt.date.min, RULES)


def made(pieces: list[Piece], recipe: Recipe = RECIPE) -> tuple[list[dict[str, Any]], Tally]:
    """What a task makes of pieces: its rows without those of other kinds, and its tally."""
    batches = list(rows_of_pieces(recipe, table_of(pieces).to_batches()))
    rows = pa.Table.from_batches(batches).to_pylist()
    tally = msgspec.json.decode(rows[-1][NOTE], type=Tally)
    return [row for row in rows if row["event"] is not None], tally


def embedded(path: Path) -> list[dict[str, Any]]:
    """The same rows by way of the batches that the embedded store gets."""
    rows = []
    for chunk in files.read(path, rules=RULES):
        batch = build(chunk.decoded, RECIPE.pseudonymizer(), dimensions=RULES.dimensions)
        event_id = batch.event_id[batch.event_index].view(np.int64).tolist()
        for row in range(batch.pseudonym.shape[0]):
            values = [
                one.values[code] if (code := one.codes[row]) >= 0 else None
                for one in (batch.labels[name] for name in RULES.dimensions)
            ]
            rows.append(
                {
                    "pseudonym": batch.pseudonym.view(np.int64).tolist()[row],
                    "day": int(batch.day[row]),
                    "add": bool(batch.add[row]),
                    "event_id": event_id[row],
                    "labels": values,
                    "aliases": batch.aliases[:, row].view(np.int64).tolist(),
                }
            )
    return rows


def compared(row: dict[str, Any]) -> dict[str, Any]:
    """A row of the lake in the form of `embedded`."""
    return {
        **{name: row[name] for name in ("pseudonym", "day", "add", "event_id")},
        "labels": [row["label_0"], row["label_1"]],
        "aliases": [row["alias_0"], row["alias_1"]],
    }


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("a.ndjson", ndjson(ROWS)),
        ("a.ndjson.gz", gzip.compress(ndjson(ROWS))),
        ("a.csv", csv(ROWS)),
        ("a.parquet", parquet(ROWS)),
    ],
)
def test_rows_are_those_of_the_embedded_store(name: str, content: bytes, tmp_path: Path) -> None:
    """Pseudonyms under every live key, days, ids and labels are equal to the bit, and in order."""
    (tmp_path / name).write_bytes(content)

    rows, tally = made(pieces_of(tmp_path / name))

    assert embedded(tmp_path / name) == [compared(row) for row in rows]
    assert (len(ROWS), len(ROWS), {}) == (tally.received, tally.taken, tally.codes)
    assert sorted(row["event"] for row in rows) == [row["event"] for row in rows]


def test_an_event_of_several_days_is_one_event(tmp_path: Path) -> None:
    """Its rows share their number, and its id."""
    days = ["2026-02-01", "2026-02-03"]
    some = [
        {"user_id": "ada", "op": "-", "event_id": "x", "metadata": {"days": days}},
        {"user_id": "ada", "op": "+", "day": days[0]},
    ]
    (tmp_path / "a.ndjson").write_text("\n".join(map(json.dumps, some)))

    rows, tally = made(pieces_of(tmp_path / "a.ndjson"))

    assert [0, 0, 1] == [row["event"] for row in rows]
    assert 2 == len({row["event_id"] for row in rows}) and 0 == rows[2]["event_id"]
    assert (2, 2) == (tally.received, tally.taken)


def test_a_parquet_file_is_cut_where_its_chunks_are(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The pieces, each read by itself and in any order, are the whole file once."""
    monkeypatch.setattr(files, "CHUNK_ROWS", 300)
    path = tmp_path / "a.parquet"
    path.write_bytes(parquet(ROWS))
    pieces = pieces_of(path)

    rows, _ = made(pieces)
    parts = [made([one])[0] for one in pieces]

    assert [(0, 300), (300, None)] == [(one.start.row, one.stop_row) for one in pieces]
    assert embedded(path) == [compared(row) for row in rows]
    assert [300, 100] == [len(one) for one in parts]
    assert embedded(path) == [compared(row) for part in parts for row in part]


def test_later_files_have_later_events(tmp_path: Path) -> None:
    """A folder is read in the order of names; what Spark does not call data is left alone."""
    line = {"user_id": "ada", "day": "2026-02-01"}
    for name, op in (("b/2.ndjson", "-"), ("a/1.ndjson", "+"), ("b/10.ndjson", "+")):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(json.dumps({**line, "op": op}))
    for name in ("_SUCCESS", ".a.crc"):
        (tmp_path / name).write_text("x")

    rows, _ = made(pieces_of(tmp_path))
    last = sorted(rows, key=lambda row: row["event"])

    assert [True, True, False] == [row["add"] for row in last]


def test_what_is_refused_is_told_with_its_row(tmp_path: Path) -> None:
    """Rejections have the place in their file, and are counted by code."""
    (tmp_path / "a.ndjson").write_bytes(b"{}\n" + ndjson(ROWS[:2]) + b"no json\n")

    rows, tally = made(pieces_of(tmp_path))

    assert 2 == len(rows)
    assert ({"missing_field": 1, "bad_json": 1}, [0, 3]) == (
        tally.codes,
        [one.index for one in tally.rejected],
    )


def test_a_damaged_file_ends_the_task_with_its_error(tmp_path: Path) -> None:
    """The code and the message come back, and nothing of the file."""
    (tmp_path / "a.ndjson.gz").write_bytes(gzip.compress(ndjson(ROWS))[:-20])

    _, tally = made(pieces_of(tmp_path))

    assert tally.failure is not None
    assert "unsupported_media" == tally.failure[0]
    assert "a.ndjson.gz" in tally.failure[1]


def test_nothing_to_read_is_refused(tmp_path: Path) -> None:
    """An empty folder, or none, is no source of events."""
    for path in (tmp_path, tmp_path / "missing"):
        with pytest.raises(NotFoundError):
            pieces_of(path)


def test_a_name_that_is_no_text_is_refused(tmp_path: Path) -> None:
    """It could not be told to an executor."""
    (tmp_path / os.fsdecode(b"\xff.ndjson")).write_text("{}")

    with pytest.raises(NotFoundError, match="UTF-8"):
        pieces_of(tmp_path)


def test_pieces_travel_whole(tmp_path: Path) -> None:
    """What a row of a piece says is that piece, with its number."""
    (tmp_path / "é 1.csv").write_text("user_id\n")
    pieces = pieces_of(tmp_path, "csv")
    table = table_of([*pieces, replace(pieces[0], stop_row=7)])

    assert [0, 1] == table["id"].to_pylist()
    assert [*pieces, replace(pieces[0], stop_row=7)] == [
        msgspec.json.decode(one, type=Piece) for one in table["piece"].to_pylist()
    ]


def test_an_empty_parquet_file_has_no_events(tmp_path: Path) -> None:
    """It is read, and is no error."""
    pq.write_table(
        pa.table({"user_id": pa.array([], pa.string()), "day": pa.array([], pa.date32())}),
        tmp_path / "a.parquet",
    )

    rows, tally = made(pieces_of(tmp_path))

    assert ([], 0) == (rows, tally.received)
