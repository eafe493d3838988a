"""Reading files of events in chunks, whole, damaged and hostile."""

import datetime as dt
import gzip
import io
import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet
import pytest

from dpdau.domain import Op
from dpdau.errors import DpdauError, NotFoundError, TooLargeError, UnsupportedMediaError
from dpdau.ingest import files
from dpdau.ingest.event import RawEvent
from dpdau.ingest.files import Chunk, FileFormat, read
from dpdau.ingest.rules import Fields, Rejection, RejectionCode, Rules

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


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("packed", PACKERS)
def test_every_form_and_packing_gives_the_same_events(
    form: str, packed: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In order, in several chunks, with progress to the end."""
    monkeypatch.setattr(files, "CHUNK_ROWS", 130)
    path = put(tmp_path, f"events.{form}{packed}", PACKERS[packed](FORMS[form](ROWS)))
    chunks = list(read(path, rules=RULES, chunk_bytes=3000))

    assert expected() == events(chunks)
    assert len(chunks) > 2
    assert list(range(len(chunks))) == [chunk.number for chunk in chunks]
    done = [chunk.bytes_done for chunk in chunks]
    assert done == sorted(done)
    assert {path.stat().st_size} == {chunk.bytes_total for chunk in chunks}
    assert path.stat().st_size == done[-1]


@pytest.mark.parametrize("form", ["ndjson", "parquet"])
@pytest.mark.parametrize("packed", PACKERS)
def test_a_form_is_known_by_its_first_bytes(form: str, packed: str, tmp_path: Path) -> None:
    """A file needs no suffix where its content tells, and packing is never told by the name."""
    path = put(tmp_path, "events", PACKERS[packed](FORMS[form](ROWS)))

    assert expected() == events(list(read(path, rules=RULES)))


def test_a_named_format_wins_over_the_suffix(tmp_path: Path) -> None:
    """`--format` decides."""
    path = put(tmp_path, "events.json", csv(ROWS))

    assert expected() == events(list(read(path, rules=RULES, file_format=FileFormat.CSV)))


def test_chunks_are_cut_at_the_same_places_every_time(tmp_path: Path) -> None:
    """So a second reading, also of another packing, gives each number the same events."""
    plain = put(tmp_path, "a.csv", csv(ROWS))
    packed = put(tmp_path, "b.csv.gz", gzip.compress(csv(ROWS)))
    first, *others = (
        [
            (chunk.number, chunk.decoded.events)
            for chunk in read(path, rules=RULES, chunk_bytes=3000)
        ]
        for path in (plain, plain, packed)
    )

    assert [first, first] == others
    assert len(first) > 2


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("packed", PACKERS)
@pytest.mark.parametrize("lines_max", [70, 10_000])
def test_reading_goes_on_at_the_end_of_any_chunk(
    form: str, packed: str, lines_max: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With the chunks, rows and ends that a reading from the start has from there on."""
    monkeypatch.setattr(files, "CHUNK_ROWS", lines_max)
    rows = [*ROWS, *({**row, "user_id": "é" * 129} for row in ROWS[:60]), *ROWS]
    path = put(tmp_path, f"e.{form}{packed}", PACKERS[packed](FORMS[form](rows)))
    whole = list(read(path, rules=RULES, chunk_bytes=7000))
    rests = [list(read(path, rules=RULES, chunk_bytes=7000, start=one.end)) for one in whole]

    def told(chunks: list[Chunk]) -> list[tuple[object, ...]]:
        return [
            (one.number, one.end, list(one.decoded.events), list(one.decoded.rejected))
            for one in chunks
        ]

    expected_rests = [told(whole)[done + 1 :] for done in range(len(whole))]
    assert expected_rests == [told(rest) for rest in rests]
    assert len(rows) == whole[-1].end.row


def test_a_row_group_without_rows_is_no_chunk(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A reading that goes on in front of it has the same last chunk as one from the start."""
    monkeypatch.setattr(files, "CHUNK_ROWS", 2)
    table, path = pa.Table.from_pylist(ROWS[:5]), tmp_path / "e.parquet"
    with pyarrow.parquet.ParquetWriter(path, table.schema) as writer:
        for part in (table, table.slice(0, 0), table, table.slice(0, 0)):
            writer.write_table(part)
    whole = list(read(path, rules=RULES))

    assert [2, 2, 1, 2, 2, 1] == [one.decoded.received for one in whole]
    for done, one in enumerate(whole, start=1):
        rest = list(read(path, rules=RULES, start=one.end))
        assert [one.end for one in whole[done:]] == [one.end for one in rest]


def test_damage_counts_the_chunks_of_earlier_readings(tmp_path: Path) -> None:
    """Those that a reading went on behind are read too."""
    packed = gzip.compress(ndjson(ROWS), compresslevel=0)
    path = put(tmp_path, "e.ndjson.gz", packed[: len(packed) // 2])
    whole: list[Chunk] = []
    with pytest.raises(UnsupportedMediaError):
        whole.extend(read(path, rules=RULES, chunk_bytes=3000))
    with pytest.raises(UnsupportedMediaError) as caught:
        list(read(path, rules=RULES, chunk_bytes=3000, start=whole[-1].end))

    assert len(whole) == caught.value.facts["chunks_read"] > 1


def test_rows_that_end_in_a_carriage_return_are_cut_too(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A chunk of CSV never has more rows than a chunk may have, however they end."""
    monkeypatch.setattr(files, "CHUNK_ROWS", 50)
    path = put(tmp_path, "e.csv", csv(ROWS).replace(b"\n", b"\r"))
    chunks = list(read(path, rules=RULES))

    assert expected() == events(chunks)
    assert {50} == {chunk.decoded.received for chunk in chunks}


@pytest.mark.parametrize("chunk_bytes", [90, 200, 1 << 20])
def test_bad_rows_are_rejected_at_their_place_in_the_file(chunk_bytes: int, tmp_path: Path) -> None:
    """Blank lines do not count, in any size of chunk."""
    lines = [
        b"user_id,day",
        b"a,2026-02-01",
        b"a",
        b"",
        b"b,2026-02-30",
        b"\xff,2026-02-01",
        b"a,b,c",
        b'"",2026-02-01',
        b",2026-02-01",
        b"a,",
        b"c,2026-02-02",
        b"1,2,3",
        b"x",
    ]
    path = put(tmp_path, "events.csv", b"\n".join(lines))
    chunks = list(read(path, rules=RULES, chunk_bytes=chunk_bytes))

    assert [
        (1, "bad_row"),
        (2, "bad_day"),
        (3, "bad_user_id"),
        (4, "bad_row"),
        (5, "bad_user_id"),
        (6, "missing_field"),
        (7, "missing_field"),
        (9, "bad_row"),
        (10, "bad_row"),
    ] == [(one.index, one.code.value) for one in rejections(chunks)]
    assert ["a", "c"] == [one.user_id for one in events(chunks)]
    assert 11 == sum(chunk.decoded.received for chunk in chunks)


def test_thousands_of_bad_rows_keep_their_places(tmp_path: Path) -> None:
    """Whatever the reader has read ahead, each rejection has its row."""
    bad = {row for row in range(20_000) if row % 7 == 3 or 5_000 <= row < 9_000}
    lines = ["user_id,day"]
    lines += ["x" if row in bad else f"u{row},2026-02-01" for row in range(20_000)]
    path = put(tmp_path, "events.csv", "\n".join(lines).encode())
    chunks = list(read(path, rules=RULES, chunk_bytes=5_000))

    assert sorted(bad) == [one.index for one in rejections(chunks)]
    assert {RejectionCode.BAD_ROW} == {one.code for one in rejections(chunks)}
    assert [f"u{row}" for row in range(20_000) if row not in bad] == [
        one.user_id for one in events(chunks)
    ]


def test_bad_lines_are_rejected_at_their_place_in_the_file(tmp_path: Path) -> None:
    """The places of NDJSON run on from chunk to chunk."""
    lines = [b"x" if row % 10 == 3 else ndjson([ROWS[row]]).strip() for row in range(100)]
    path = put(tmp_path, "events.ndjson", b"\n".join(lines))
    chunks = list(read(path, rules=RULES, chunk_bytes=500))

    assert list(range(3, 100, 10)) == [one.index for one in rejections(chunks)]
    assert expected([row for place, row in enumerate(ROWS[:100]) if place % 10 != 3]) == (
        events(chunks)
    )


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("packed", [".gz", ".zst"])
def test_a_file_that_was_cut_off_is_one_clear_error(form: str, packed: str, tmp_path: Path) -> None:
    """What is before the damage is given, then an error that names the file and repeats nothing."""
    rows = [
        {**row, "user_id": f"{CANARY}-{i * 2_654_435_761 % 2**32:x}"}
        for i, row in enumerate(ROWS * 5)
    ]
    whole = PACKERS[packed](FORMS[form](rows))
    path = put(tmp_path, f"events.{form}{packed}", whole[: len(whole) * 2 // 3])
    seen: list[Chunk] = []

    with pytest.raises(UnsupportedMediaError, match=r"events\.\w+\.\w+ .* cut off") as caught:
        seen.extend(read(path, rules=RULES, chunk_bytes=3000))
    _assert_hidden(caught.value)
    assert expected(rows)[: len(events(seen))] == events(seen)


def test_damage_inside_a_packed_file_is_one_clear_error(tmp_path: Path) -> None:
    """Bytes that were changed do not pass for events where the packing has a checksum."""
    content = bytearray(gzip.compress(ndjson(ROWS * 20)))
    content[len(content) // 2 : len(content) // 2 + 40] = bytes(40)
    path = put(tmp_path, "events.ndjson.gz", bytes(content))

    with pytest.raises(UnsupportedMediaError, match="damaged"):
        list(read(path, rules=RULES))


@pytest.mark.parametrize("content", [b"", b"PAR1", b"PAR1xxxxPAR1", CANARY.encode() * 10])
def test_what_is_no_parquet_is_one_clear_error(content: bytes, tmp_path: Path) -> None:
    """A file that only is called Parquet is refused."""
    with pytest.raises(UnsupportedMediaError) as caught:
        list(read(put(tmp_path, "events.parquet", content), rules=RULES))
    _assert_hidden(caught.value)


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("e.csv", b""),
        ("e.csv", b"\n"),
        ("e.csv", b"canary-88aa01,2026-02-01\nx,2026-02-02\n"),
        ("e.csv", b"user_id;day\ncanary-88aa01;2026-02-01\n"),
        ("e.csv", b"user_id,user_id,day\ncanary-88aa01,b,2026-02-01\n"),
        ("e.csv", b"user_id,op\ncanary-88aa01,+\n"),
        ("e.csv", b"user_id,day,metadata\ncanary-88aa01,2026-02-01,\n"),
        ("e.json", b'[{"user_id": "canary-88aa01"}]'),
        ("e.dat", b"canary-88aa01 2026-02-01"),
        ("e", b""),
        ("e.csv", b'user_id,day,"canary-88aa01\nb,2026-02-01,x\n'),
    ],
)
def test_a_file_of_another_shape_is_one_clear_error(
    name: str, content: bytes, tmp_path: Path
) -> None:
    """Even where an event stands in the place of the header, the message does not repeat it."""
    with pytest.raises((UnsupportedMediaError, TooLargeError)) as caught:
        list(read(put(tmp_path, name, content), rules=RULES, chunk_bytes=10_000))
    _assert_hidden(caught.value)


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("e.ndjson", b""),
        ("e.ndjson", b"\n\n"),
        ("e.csv", b"user_id,day"),
        ("e.csv", b"user_id,day\r\n"),
        ("e.parquet", parquet(ROWS[:1])[:0] or None),
    ],
)
def test_a_file_without_events_is_no_error(
    name: str, content: bytes | None, tmp_path: Path
) -> None:
    """An empty log, a header alone and a table without rows have no events."""
    if content is None:
        sink = io.BytesIO()
        pa.parquet.write_table(
            pa.table({"user_id": pa.array([], pa.string()), "day": pa.array([], pa.string())}), sink
        )
        content = sink.getvalue()
    chunks = list(read(put(tmp_path, name, content), rules=RULES))

    assert 0 == sum(chunk.decoded.received for chunk in chunks)


def test_a_missing_file_and_a_folder_are_said(tmp_path: Path) -> None:
    """Both are named when the file is opened, before any event is read."""
    with pytest.raises(NotFoundError):
        read(tmp_path / "none.csv", rules=RULES)
    with pytest.raises(NotFoundError, match="folder"):
        read(tmp_path, rules=RULES)


def test_a_line_without_an_end_is_refused(tmp_path: Path) -> None:
    """Memory stays bounded whatever the file holds."""
    path = put(tmp_path, "events.ndjson", b'{"user_id": "' + b"x" * 10_000)

    with pytest.raises(TooLargeError):
        list(read(path, rules=RULES, chunk_bytes=1_000))


def test_a_line_may_span_reads(tmp_path: Path) -> None:
    """A line that is longer than what is left of a read is put together."""
    rows = [{**ROWS[0], "user_id": "x" * length} for length in (256, 1, 200, 256)]
    path = put(tmp_path, "events.ndjson", ndjson(rows).rstrip(b"\n"))

    assert expected(rows) == events(list(read(path, rules=RULES, chunk_bytes=350)))


def test_garbage_of_tiny_lines_does_not_pass_the_limit(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """More lines than one batch may have are given in several chunks."""
    monkeypatch.setattr(files, "CHUNK_ROWS", 100)
    path = put(tmp_path, "events.ndjson", b"{}\n" * 1_000)
    chunks = list(read(path, rules=RULES))

    assert (1_000, True) == (
        len(rejections(chunks)),
        max(chunk.decoded.received for chunk in chunks) <= 101,
    )
    assert list(range(1_000)) == [one.index for one in rejections(chunks)]


@pytest.mark.parametrize("first", ['{"user_id":"a","op":"+","day":"2026-02-01"}', "broken", None])
def test_no_line_says_what_another_without_op_means(first: str | None, tmp_path: Path) -> None:
    """In NDJSON an item without `op` is rejected, or as the default says, whatever is before it."""
    lines = ([first] if first else []) + ['{"user_id":"b","day":"2026-02-01"}'] * 3
    path = put(tmp_path, "e.ndjson", "\n".join(lines).encode())
    named = {}
    for default in (None, Op.ADD, Op.REMOVE):
        chunks = list(read(path, rules=replace(RULES, op_default=default)))
        named[default] = [one.op for one in events(chunks) if one.user_id == "b"]
        missing = [one for one in rejections(chunks) if one.code is RejectionCode.MISSING_FIELD]
        assert (3 if default is None else 0) == len(missing)

    assert {None: [], Op.ADD: [Op.ADD] * 3, Op.REMOVE: [Op.REMOVE] * 3} == named


@pytest.mark.parametrize(
    "extra", [{}, {"metadata": {"platform": "ios"}}], ids=["plain", "metadata"]
)
def test_columns_without_ops_are_additions(extra: dict[str, Any], tmp_path: Path) -> None:
    """A file without the column `op` holds `+` only, in CSV, in Parquet and with metadata."""
    table = pa.Table.from_pylist([{"user_id": "a", "day": "2026-02-01", **extra}])
    pa.parquet.write_table(table, tmp_path / "e.parquet")
    put(tmp_path, "e.csv", b"user_id,day\na,2026-02-01\n")

    for name in ("e.parquet", "e.csv"):
        found = events(list(read(tmp_path / name, rules=RULES)))
        assert [("a", Op.ADD)] == [(one.user_id, one.op) for one in found]


@pytest.mark.parametrize(
    "line",
    [
        b'"eve,2026-02-01,n',
        b'eve,2026-02-01,"n',
        b'eve,2026-02-01,"a "b" c"',
        b'eve,2026-02-01,"',
        b'"eve"x,2026-02-01,n',
        b'x"y,2026-02-01,"z',
        b'"""',
    ],
)
@pytest.mark.parametrize("end", [b"\n", b"\r\n"])
@pytest.mark.parametrize("chunk_bytes", [90, 1 << 20])
def test_a_quote_that_is_not_closed_costs_its_line_alone(
    line: bytes, end: bytes, chunk_bytes: int, tmp_path: Path
) -> None:
    """It swallows no line behind it, be there another quote or none; good quotes stay good."""
    good = [
        b"a,2026-02-01,n",
        b'"b",2026-02-01,"1, ""2"""',
        b'c,2026-02-01,5" wide',
        b"d,2026-02-01,",
    ]
    lines = [b"user_id,day,note", *good, line, *good, line, *good]
    chunks = list(
        read(put(tmp_path, "e.csv", end.join(lines)), rules=RULES, chunk_bytes=chunk_bytes)
    )

    assert list("abcd" * 3) == [one.user_id for one in events(chunks)]
    assert [(4, RejectionCode.BAD_ROW), (9, RejectionCode.BAD_ROW)] == [
        (one.index, one.code) for one in rejections(chunks)
    ]


def test_a_mark_at_the_edge_of_a_chunk_is_part_of_the_id(tmp_path: Path) -> None:
    """Where a chunk begins, which hangs on the lines before, changes no user id."""
    lines = ["user_id,day", *["\ufeffu,2026-02-01"] * 40]
    path = put(tmp_path, "e.csv", "\n".join(lines).encode())
    chunks = list(read(path, rules=RULES, chunk_bytes=60))

    assert len(chunks) > 2
    assert {"\ufeffu"} == {one.user_id for one in events(chunks)}


def test_blank_lines_before_a_long_one_are_cut(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Many lines in the first half of a piece and one in the second end, and lose nothing."""
    monkeypatch.setattr(files, "CHUNK_ROWS", 100)
    long = {**ROWS[0], "platform": None, "user_id": "x" * 256}
    path = put(tmp_path, "e.ndjson", b"\n" * 1_100 + ndjson([long]).replace(b"null", b'"y"') * 50)
    chunks = list(read(path, rules=RULES))

    assert 50 == len(events(chunks))
    assert list(range(len(chunks))) == [chunk.number for chunk in chunks]


@pytest.mark.parametrize("packed", [".gz", ".zst"])
def test_packed_parquet_stays_in_memory_up_to_a_limit(
    packed: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Raw ids are never written to a disk, and what would not fit is refused."""
    path = put(tmp_path, f"e.parquet{packed}", PACKERS[packed](parquet(ROWS)))
    monkeypatch.setenv("TMPDIR", str(tmp_path / "none"))
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path / "none"))
    assert expected() == events(list(read(path, rules=RULES)))

    monkeypatch.setattr(files, "PARQUET_UNPACKED_BYTES_MAX", 1_000)
    with pytest.raises(TooLargeError, match="unpack the file"):
        list(read(path, rules=RULES))


def test_columns_may_have_other_names_and_another_delimiter(tmp_path: Path) -> None:
    """A source's own names are used, in a .tsv file between tabs."""
    rules = Rules(RULES.today, fields=Fields(user_id="who", day="on", op="what"))
    content = "on\twhat\twho\n2026-02-01\t-\ta\n"
    tabs = list(read(put(tmp_path, "e.tsv", content.encode()), rules=rules))
    pipes = list(
        read(
            put(tmp_path, "e.csv", content.replace("\t", "|").encode()), rules=rules, delimiter="|"
        )
    )

    assert [RawEvent("a", Op.REMOVE, dt.date(2026, 2, 1))] == events(tabs) == events(pipes)


def test_a_byte_order_mark_before_a_header_is_skipped(tmp_path: Path) -> None:
    """Spreadsheets write one."""
    path = put(tmp_path, "e.csv", b"\xef\xbb\xbfuser_id,day\r\na,2026-02-01\r\n")

    assert ["a"] == [one.user_id for one in events(list(read(path, rules=RULES)))]


def test_metadata_in_parquet_keeps_its_meaning(tmp_path: Path) -> None:
    """A `-` for several days removes all of them."""
    rows = [{"user_id": "a", "op": "-", "metadata": {"days": ["2026-02-01", "2026-02-02"]}}]
    table = pa.Table.from_pylist(rows).append_column("day", pa.nulls(1, pa.string()))
    path = tmp_path / "e.parquet"
    pa.parquet.write_table(table, path)

    assert [2] == [len(one.days) for one in events(list(read(path, rules=RULES)))]


def _assert_hidden(error: DpdauError) -> None:
    """No error on the way shows an id."""
    shown: BaseException | None = error
    while shown is not None:
        assert CANARY not in f"{shown!r} {vars(shown)} {shown.args}"
        shown = shown.__cause__ or shown.__context__
