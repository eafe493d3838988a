"""Files with bad rows, and files that are damaged or are none."""

import gzip
import io
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet
import pytest

from dpdau.errors import NotFoundError, TooLargeError, UnsupportedMediaError
from dpdau.ingest import files
from dpdau.ingest.files import Chunk, read
from dpdau.ingest.rules import RejectionCode
from event_files import (
    CANARY,
    FORMS,
    PACKERS,
    ROWS,
    RULES,
    assert_hidden,
    events,
    expected,
    ndjson,
    parquet,
    put,
    rejections,
)


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
    assert_hidden(caught.value)
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
    assert_hidden(caught.value)


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
    assert_hidden(caught.value)


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
