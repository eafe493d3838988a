"""Rows of events as files of every form and packing, and what they mean."""

import datetime as dt
import gzip
import io
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet

from dpdau.domain import Op
from dpdau.errors import DpdauError
from dpdau.ingest.event import RawEvent
from dpdau.ingest.files import Chunk
from dpdau.ingest.rules import Rejection, Rules

RULES = Rules(dt.date(2026, 3, 1), dimensions=("platform",))
CANARY = "canary-88aa01"
ROWS: list[dict[str, Any]] = [
    {
        "user_id": f"u{i % 7}",
        "op": "+-"[i % 5 == 4],
        "day": f"2026-02-{1 + i % 28:02d}",
        "platform": ("ios", "web", None)[i % 3],
    }
    for i in range(400)
]


def ndjson(rows: list[dict[str, Any]]) -> bytes:
    """Rows as lines of JSON, with the dimension inside metadata."""
    return b"".join(
        json.dumps(
            {name: row[name] for name in ("user_id", "op", "day")}
            | {"metadata": {"platform": row["platform"]}}
        ).encode()
        + b"\n"
        for row in rows
    )


def csv(rows: list[dict[str, Any]]) -> bytes:
    """Rows as CSV with one more column."""
    lines = ["user_id,note,op,day,platform"]
    lines += [
        f'{row["user_id"]},"a ""b"", c",{row["op"]},{row["day"]},{row["platform"] or ""}'
        for row in rows
    ]
    return "\n".join(lines).encode()


def parquet(rows: list[dict[str, Any]]) -> bytes:
    """Rows as Parquet in several row groups, with one more column."""
    table = pa.Table.from_pylist(rows).append_column("note", pa.array(range(len(rows))))
    sink = io.BytesIO()
    pa.parquet.write_table(table, sink, row_group_size=150)
    return sink.getvalue()


FORMS: dict[str, Callable[[list[dict[str, Any]]], bytes]] = {
    "ndjson": ndjson,
    "csv": csv,
    "parquet": parquet,
}
PACKERS: dict[str, Callable[[bytes], bytes]] = {
    "": lambda content: content,
    ".gz": gzip.compress,
    ".zst": lambda content: bytes(pa.compress(content, codec="zstd", asbytes=True)),
}


def expected(rows: list[dict[str, Any]] = ROWS) -> list[RawEvent]:
    """What every form of the rows means."""
    return [
        RawEvent(
            row["user_id"],
            Op(row["op"]),
            dt.date.fromisoformat(row["day"]),
            None,
            (),
            {"platform": row["platform"]} if row["platform"] else {},
        )
        for row in rows
    ]


def events(chunks: list[Chunk]) -> list[RawEvent]:
    """The events of all chunks."""
    return [event for chunk in chunks for event in chunk.decoded.events]


def rejections(chunks: list[Chunk]) -> list[Rejection]:
    """The rejections of all chunks."""
    return [one for chunk in chunks for one in chunk.decoded.rejected]


def put(folder: Path, name: str, content: bytes) -> Path:
    """A file."""
    path = folder / name
    path.write_bytes(content)
    return path


def assert_hidden(error: DpdauError) -> None:
    """No error on the way shows an id."""
    shown: BaseException | None = error
    while shown is not None:
        assert CANARY not in f"{shown!r} {vars(shown)} {shown.args}"
        shown = shown.__cause__ or shown.__context__
