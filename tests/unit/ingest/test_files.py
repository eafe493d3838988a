"""Reading files of events in chunks, whole, damaged and hostile."""

import datetime as dt
import gzip
from dataclasses import replace
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet
import pytest

from dpdau.domain import Op
from dpdau.errors import TooLargeError, UnsupportedMediaError
from dpdau.ingest import files
from dpdau.ingest.event import RawEvent
from dpdau.ingest.files import Chunk, FileFormat, read
from dpdau.ingest.rules import Fields, RejectionCode, Rules
from event_files import (
    FORMS,
    PACKERS,
    ROWS,
    RULES,
    csv,
    events,
    expected,
    ndjson,
    parquet,
    put,
    rejections,
)


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
