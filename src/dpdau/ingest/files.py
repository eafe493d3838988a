"""Files of events: NDJSON, CSV and Parquet, plain or in gzip or zstd, in chunks of bounded memory.

Chunks of the same file are cut at the same places every time, so a reader that names its batches
after the `number` of the chunk, or that goes on at the `end` of the last one that it stored, stores
each of them once, however often it is killed and begun again.

A line is an event: in CSV too a quoted value ends on its line, so a quote that somebody forgot
costs its own line and not those behind it.
"""

import csv
import itertools
import math
import re
import zlib
from collections.abc import Iterator
from dataclasses import dataclass, replace
from enum import StrEnum
from pathlib import Path
from typing import Any, Final, TypeVar

import numpy as np
import pyarrow as pa

from dpdau.errors import TooLargeError, UnsupportedMediaError
from dpdau.ingest import rules as faults
from dpdau.ingest.columns import ROWS_MAX, decode_table
from dpdau.ingest.decoded import DecodedTable
from dpdau.ingest.event import EVENTS_MAX, Decoded, Form, decode
from dpdau.ingest.parquet_moments import OLD_UNIT, with_moments
from dpdau.ingest.plain import decode_plain
from dpdau.ingest.rules import Rejection, Rules
from dpdau.ingest.sources import START, Piece, Place, Source, Text, cut, line_ends, row_ends

__all__ = ["START", "Chunk", "FileFormat", "Place", "cuts", "read"]

CHUNK_BYTES: Final = 16 << 20
CHUNK_ROWS: Final = ROWS_MAX
PARQUET_UNPACKED_BYTES_MAX: Final = 256 << 20
_PARQUET_BUFFER_BYTES: Final = 1 << 20

_PARQUET_MAGIC: Final = b"PAR1"
_BYTE_ORDER_MARK: Final = b"\xef\xbb\xbf"
_LINE_END: Final = re.compile(rb"\r\n|\r|\n")
_BAD_LINE: Final = b"!"
_COMPRESSED_SUFFIXES: Final = {".gz", ".gzip", ".zst", ".zstd"}

_Read = TypeVar("_Read", Decoded, DecodedTable)


class FileFormat(StrEnum):
    """What a file is made of, inside its compression."""

    NDJSON = "ndjson"
    CSV = "csv"
    PARQUET = "parquet"


_SUFFIXES: Final = {
    ".ndjson": FileFormat.NDJSON,
    ".jsonl": FileFormat.NDJSON,
    ".json": FileFormat.NDJSON,
    ".csv": FileFormat.CSV,
    ".tsv": FileFormat.CSV,
    ".parquet": FileFormat.PARQUET,
    ".pq": FileFormat.PARQUET,
}


@dataclass(frozen=True, slots=True)
class Chunk:
    """A stretch of a file, read and checked; rejections have the row's place in the whole file.

    `end` is where the next one begins. `bytes_done` of `bytes_total` bytes of the file, as it lies
    on the disk, are behind its end.
    """

    number: int
    decoded: Decoded | DecodedTable
    end: Place
    bytes_done: int
    bytes_total: int


def read(
    path: Path,
    *,
    rules: Rules,
    file_format: FileFormat | None = None,
    delimiter: str | None = None,
    chunk_bytes: int = CHUNK_BYTES,
    start: Place = START,
) -> Iterator[Chunk]:
    """Opens a file of events and reads it chunk by chunk.

    Args:
        path: The file.
        rules: What is taken, and what the fields or columns are called.
        file_format: Its format; by default its suffix says, or its first bytes.
        delimiter: Between the columns of a CSV file: a comma, or a tab in a `.tsv` file.
        chunk_bytes: About how much text becomes one chunk.
        start: The `end` of the last chunk that is not wanted, of a reading with the same arguments.

    Edge cases:
        | the file | what happens |
        |---|---|
        | CSV or Parquet without the column `op` | every row is a `+` |
        | an item without `op` where items have one | as `rules.op_default` says, by itself |
        | a CSV line with too many or too few columns | one rejection, `bad_row` |
        | a CSV line with a quote that it does not close | one rejection, `bad_row` |
        | cut off or damaged | the chunks before the damage, then one error |

    Raises:
        NotFoundError: There is no such file, or it may not be read.
        UnsupportedMediaError: The format is not known, a column is missing, or the file is damaged;
            raised where the reading meets it.
        TooLargeError: One line is longer than a chunk, or Parquet inside gzip or zstd is larger
            than `PARQUET_UNPACKED_BYTES_MAX`.
    """
    source = Source.of(path)
    kind = file_format or _guess(path, source)
    if kind is FileFormat.NDJSON:
        chunks = _read_ndjson(Text(source, chunk_bytes, CHUNK_ROWS, start), rules)
    elif kind is FileFormat.CSV:
        separator = delimiter or ("\t" if ".tsv" in path.suffixes else ",")
        chunks = _read_csv(Text(source, chunk_bytes, CHUNK_ROWS, start), rules, separator)
    else:
        chunks = _read_parquet(source, rules, start)
    return guarded(chunks, path, start.chunk)


def cuts(path: Path, *, file_format: FileFormat | None = None) -> list[Place]:
    """The places at which a reading of a file can begin, the first of them its beginning.

    A Parquet file has one for each chunk; any other file is read from its beginning.

    Raises:
        NotFoundError: There is no such file, or it may not be read.
        UnsupportedMediaError: The format is not known, or the file is damaged.
    """
    from pyarrow.parquet import ParquetFile

    source = Source.of(path)
    if (file_format or _guess(path, source)) is not FileFormat.PARQUET or source.compression:
        return [START]
    try:
        with _seekable(source) as seekable, ParquetFile(seekable) as file:
            sizes = [rows for _groups, rows in _row_groups(file.metadata)]
    except (OSError, pa.ArrowException):
        raise _damaged(path, 0) from None
    before = itertools.accumulate((math.ceil(rows / CHUNK_ROWS) for rows in sizes), initial=0)
    rows_before = itertools.accumulate(sizes, initial=0)
    places = [Place(chunk, row) for chunk, row in zip(before, rows_before, strict=True)]
    return places[:-1] or [START]


def guarded(chunks: Iterator[Chunk], path: Path, done: int = 0) -> Iterator[Chunk]:
    """The chunks of a file behind those that are done; a damaged one ends in one clear error.

    The library's own error ends here: it may quote the file, and a file holds user ids.
    """
    while True:
        try:
            chunk = next(chunks, None)
        except (OSError, EOFError, zlib.error, pa.ArrowException, UnicodeDecodeError):
            break
        if chunk is None:
            return
        done = chunk.number + 1
        yield chunk
    raise _damaged(path, done)


def _damaged(path: Path, done: int) -> UnsupportedMediaError:
    """The error of a file that ends before its end."""
    return UnsupportedMediaError(
        f"Expected to read {path.name} to its end, found it cut off or damaged after"
        f" {done} chunks.",
        chunks_read=done,
    )


def _guess(path: Path, source: Source) -> FileFormat:
    """The format by suffix, or else by the first bytes."""
    suffixes = [one.lower() for one in path.suffixes]
    if suffixes and suffixes[-1] in _COMPRESSED_SUFFIXES:
        suffixes.pop()
    if suffixes and suffixes[-1] in _SUFFIXES:
        return _SUFFIXES[suffixes[-1]]
    try:
        head = source.head()
    except (OSError, pa.ArrowException):
        head = b""
    if head.startswith(_PARQUET_MAGIC):
        return FileFormat.PARQUET
    if head.lstrip(b"\xef\xbb\xbf \t\r\n").startswith(b"{"):
        return FileFormat.NDJSON
    raise UnsupportedMediaError(
        f"Expected {path.name} to end in .ndjson, .csv or .parquet (and .gz or .zst), found"
        " something else; name its format."
    )


def _read_ndjson(text: Text, rules: Rules) -> Iterator[Chunk]:
    row = text.start.row
    for piece in text.pieces(0, line_ends):
        if piece.number == 0:
            _refuse_array(piece.lines)
        decoded = _decode_lines(piece.lines, rules, row)
        row += decoded.received
        yield _chunk(text, piece, decoded, row)


def _chunk(text: Text, piece: Piece, decoded: Decoded | DecodedTable, row: int) -> Chunk:
    """What was read of a piece, and the row at which the next one begins."""
    end = Place(piece.number + 1, row, piece.byte)
    return Chunk(piece.number, decoded, end, piece.bytes_done, text.source.bytes_total)


def _decode_lines(lines: bytes, rules: Rules, row: int) -> Decoded | DecodedTable:
    """The events of some lines, however many they are, of which the first is at a row."""
    table = decode_plain(lines, Form.NDJSON, rules=rules)
    if table is not None:
        return _moved(table, row)
    parts: list[Decoded] = []
    received = 0
    for part in cut(lines, line_ends, EVENTS_MAX):
        parts.append(_moved(decode(part, Form.NDJSON, rules=rules), row + received))
        received += parts[-1].received
    return Decoded(
        list(itertools.chain.from_iterable(one.events for one in parts)),
        list(itertools.chain.from_iterable(one.rejected for one in parts)),
        received,
    )


def _refuse_array(piece: bytes) -> None:
    if piece.lstrip(b"\xef\xbb\xbf \t\r\n").startswith(b"["):
        raise UnsupportedMediaError("Expected one event on each line, found a JSON array.")


def _read_csv(text: Text, rules: Rules, delimiter: str) -> Iterator[Chunk]:
    head = text.source.head()
    names = _header(head, delimiter)
    if "metadata" in names:
        raise UnsupportedMediaError(
            "Expected a column for each dimension and a row for each removed day in CSV, found the"
            " column metadata."
        )
    columns = _columns(names, rules)
    broken = _broken_line(delimiter)
    line_end = _LINE_END.search(head)
    first_byte = len(head) if line_end is None else line_end.end()
    row = text.start.row
    for piece in text.pieces(first_byte, row_ends):
        lines = broken.sub(_BAD_LINE, piece.lines) if b'"' in piece.lines else piece.lines
        table, bad = _csv_table(lines, names, columns, delimiter)
        places = np.arange(row, row + table.num_rows + len(bad), dtype=np.int64)
        row += places.size
        decoded = decode_table(table, rules=rules, row_index=np.delete(places, bad))
        if bad:
            lost = (Rejection.of(one, faults.BAD_ROW) for one in places[bad].tolist())
            rejected = sorted([*decoded.rejected, *lost], key=lambda one: one.index)
            decoded = replace(decoded, rejected=rejected, received=places.size)
        yield _chunk(text, piece, decoded, row)


def _broken_line(delimiter: str) -> re.Pattern[bytes]:
    """Finds the lines with a quote that is not closed, or that goes on behind its end.

    Every repetition is possessive, so the search takes a time linear in the text.
    """
    mark = re.escape(delimiter.encode())
    value = rb'(?:"(?:[^"\r\n]|"")*+"|[^"\r\n%b][^\r\n%b]*+|)' % (mark, mark)
    whole = rb"%b(?:%b%b)*+(?=[\r\n]|\Z)" % (value, mark, value)
    return re.compile(rb"(?<![^\r\n])(?!%b)[^\r\n]++" % whole)


def _csv_table(
    lines: bytes, names: list[str], columns: list[str], delimiter: str
) -> tuple[Any, list[int]]:
    """The good rows of some lines, and the places of the others among all of them."""
    from pyarrow import csv as arrow_csv

    bad: list[int] = []

    def skip(row: Any) -> str:
        bad.append(row.number - 1)
        return "skip"

    # The blank line keeps the library from dropping a byte order mark that belongs to an id.
    content = b"\n" + lines
    table = arrow_csv.read_csv(
        pa.BufferReader(content),
        read_options=arrow_csv.ReadOptions(
            use_threads=False, block_size=len(content) + 1, column_names=names
        ),
        parse_options=arrow_csv.ParseOptions(delimiter=delimiter, invalid_row_handler=skip),
        convert_options=arrow_csv.ConvertOptions(
            include_columns=columns,
            column_types=dict.fromkeys(columns, pa.binary()),
            null_values=[""],
            strings_can_be_null=True,
            quoted_strings_can_be_null=False,
        ),
    )
    return table, bad


def _header(head: bytes, delimiter: str) -> list[str]:
    """The column names of a CSV file."""
    line = _LINE_END.split(head.removeprefix(_BYTE_ORDER_MARK), maxsplit=1)[0]
    try:
        text = line.decode(errors="replace")
        names = next(csv.reader([text], delimiter=delimiter, strict=True), None)
    except csv.Error:
        names = None
    if not names:
        raise UnsupportedMediaError("Expected a header with the names of the columns, found none.")
    return names


def _columns(names: list[str], rules: Rules) -> list[str]:
    """The columns that are read; the message names none that is there, which may be a user id."""
    fields = rules.fields
    wanted = [fields.user_id, fields.op, fields.day, fields.ts, fields.event_id, *rules.dimensions]
    found = [name for name in dict.fromkeys([*wanted, "metadata"]) if name in names]
    if fields.user_id not in found or not {fields.day, fields.ts} & set(found):
        raise UnsupportedMediaError(
            f"Expected the columns {fields.user_id} and {fields.day} (or {fields.ts}), found"
            f" {len(names)} columns without them; name the columns that hold them."
        )
    twice = [name for name in found if names.count(name) > 1]
    if twice:
        raise UnsupportedMediaError(f"Expected the column {twice[0]} once, found it twice.")
    return found


def _read_parquet(source: Source, rules: Rules, start: Place) -> Iterator[Chunk]:
    from pyarrow.parquet import ParquetFile

    with (
        _seekable(source) as seekable,
        ParquetFile(
            seekable,
            pre_buffer=False,
            buffer_size=_PARQUET_BUFFER_BYTES,
            coerce_int96_timestamp_unit=OLD_UNIT,
        ) as file,
    ):
        columns = _columns(file.schema_arrow.names, rules)
        rows = max(file.metadata.num_rows, 1)
        batches = _parquet_batches(file, columns, start.row)
        for number, (row, batch) in enumerate(batches, start=start.chunk):
            end = Place(number + 1, row + batch.num_rows)
            places = np.arange(row, end.row, dtype=np.int64)
            moments = with_moments(batch, file.schema)
            decoded = decode_table(moments, rules=rules, row_index=places)
            done = source.bytes_total * end.row // rows
            yield Chunk(number, decoded, end, done, source.bytes_total)


def _parquet_batches(file: Any, columns: list[str], first_row: int) -> Iterator[tuple[int, Any]]:
    """The rows from one on, at most `CHUNK_ROWS` at a time, each time with the first of them.

    Small row groups are read together; those before the first row are not read.
    """
    row = 0
    for groups, size in _row_groups(file.metadata):
        if row + size <= first_row:
            row += size
        elif size <= CHUNK_ROWS:
            yield row, file.read_row_groups(groups, columns=columns, use_threads=False)
            row += size
        else:
            for batch in file.iter_batches(
                CHUNK_ROWS, row_groups=groups, columns=columns, use_threads=False
            ):
                if row >= first_row:
                    yield row, batch
                row += batch.num_rows


def _row_groups(metadata: Any) -> Iterator[tuple[list[int], int]]:
    """Neighboring row groups of at most `CHUNK_ROWS` together, or a larger one, and their rows.

    Those without rows are left out: there is no place to go on at behind them alone.
    """
    groups: list[int] = []
    rows = 0
    for group in range(metadata.num_row_groups):
        size = metadata.row_group(group).num_rows
        if size == 0:
            continue
        if groups and rows + size > CHUNK_ROWS:
            yield groups, rows
            groups, rows = [], 0
        groups.append(group)
        rows += size
    if groups:
        yield groups, rows


def _seekable(source: Source) -> Any:
    """A file for a format that is read from its end; unpacked into memory if need be."""
    stream, _ = source.stream()
    if source.compression is None:
        return stream
    unpacked = bytearray()
    with stream:
        while content := stream.read(CHUNK_BYTES):
            unpacked += content
            if len(unpacked) > PARQUET_UNPACKED_BYTES_MAX:
                raise TooLargeError(
                    f"Expected at most {PARQUET_UNPACKED_BYTES_MAX} bytes of Parquet inside"
                    f" {source.compression}, found more; unpack the file: Parquet is compressed"
                    " inside."
                )
    return pa.BufferReader(unpacked)


def _moved(decoded: _Read, row: int) -> _Read:
    """The same with rejections that start at a row."""
    if row == 0 or not decoded.rejected:
        return decoded
    return replace(decoded, rejected=[one.moved(row) for one in decoded.rejected])
