"""Files of events: NDJSON, CSV and Parquet, plain or in gzip or zstd, in chunks of bounded memory.

Chunks of the same file are cut at the same places every time, so a reader that names its batches
after the `number` of the chunk stores each of them once, however often it is killed and begun
again.

A line is an event: in CSV too a quoted value ends on its line, so a quote that somebody forgot
costs its own line and not those behind it.
"""

import csv
import itertools
import re
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from enum import StrEnum
from pathlib import Path
from typing import Any, Final

import numpy as np
import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet
from numpy.typing import NDArray

from dpdau.errors import NotFoundError, TooLargeError, UnsupportedMediaError
from dpdau.ingest import rules as faults
from dpdau.ingest.columns import DecodedTable, decode_table
from dpdau.ingest.event import EVENTS_MAX, Decoded, Form, decode
from dpdau.ingest.rules import Rejection, Rules

__all__ = ["Chunk", "FileFormat", "read"]

CHUNK_BYTES: Final = 8 << 20
CHUNK_ROWS: Final = 500_000
HEADER_BYTES_MAX: Final = 1 << 20
PARQUET_UNPACKED_BYTES_MAX: Final = 256 << 20
_PARQUET_BUFFER_BYTES: Final = 1 << 20

_PARQUET_MAGIC: Final = b"PAR1"
_COMPRESSIONS: Final = {b"\x1f\x8b": "gzip", b"\x28\xb5\x2f\xfd": "zstd"}
_BYTE_ORDER_MARK: Final = b"\xef\xbb\xbf"
_LINE_END: Final = re.compile(rb"\r\n|\r|\n")
_BAD_LINE: Final = b"!"
_COMPRESSED_SUFFIXES: Final = {".gz", ".gzip", ".zst", ".zstd"}


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

    `bytes_done` of `bytes_total` bytes of the file, as it lies on the disk, are behind its end.
    """

    number: int
    decoded: Decoded | DecodedTable
    bytes_done: int
    bytes_total: int


def read(
    path: Path,
    *,
    rules: Rules,
    file_format: FileFormat | None = None,
    delimiter: str | None = None,
    chunk_bytes: int = CHUNK_BYTES,
) -> Iterator[Chunk]:
    """Opens a file of events and reads it chunk by chunk.

    Args:
        path: The file.
        rules: What is taken, and what the fields or columns are called.
        file_format: Its format; by default its suffix says, or its first bytes.
        delimiter: Between the columns of a CSV file: a comma, or a tab in a `.tsv` file.
        chunk_bytes: About how much text becomes one chunk.

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
    source = _open(path)
    kind = file_format or _guess(path, source)
    if kind is FileFormat.NDJSON:
        chunks = _read_ndjson(source, rules, chunk_bytes)
    elif kind is FileFormat.CSV:
        separator = delimiter or ("\t" if ".tsv" in path.suffixes else ",")
        chunks = _read_csv(source, rules, separator, chunk_bytes)
    else:
        chunks = _read_parquet(source, rules)
    return guarded(chunks, path)


def guarded(chunks: Iterator[Chunk], path: Path) -> Iterator[Chunk]:
    """The chunks of a file; a damaged one ends in one clear error.

    The library's own error ends here: it may quote the file, and a file holds user ids.
    """
    done = 0
    while True:
        try:
            chunk = next(chunks, None)
        except (OSError, EOFError, zlib.error, pa.ArrowException, UnicodeDecodeError):
            break
        if chunk is None:
            return
        done = chunk.number + 1
        yield chunk
    raise UnsupportedMediaError(
        f"Expected to read {path.name} to its end, found it cut off or damaged after"
        f" {done} chunks.",
        chunks_read=done,
    )


@dataclass(frozen=True, slots=True)
class _Source:
    """A file and how it is compressed."""

    path: Path
    bytes_total: int
    compression: str | None

    def stream(self) -> tuple[Any, Callable[[], int]]:
        """The bytes inside the compression, and how far the file itself has been read."""
        file = pa.OSFile(str(self.path), "rb")
        if self.compression is None:
            return file, file.tell
        return pa.CompressedInputStream(file, self.compression), file.tell

    def head(self) -> bytes:
        """The first bytes inside the compression."""
        stream, _ = self.stream()
        with stream:
            content: bytes = stream.read(HEADER_BYTES_MAX)
        return content


def _open(path: Path) -> _Source:
    """Looks at the first bytes of a file."""
    if path.is_dir():
        raise NotFoundError(f"Expected a file, found the folder {path}.")
    try:
        with path.open("rb") as file:
            magic = file.read(4)
        size = path.stat().st_size
    except OSError as error:
        raise NotFoundError(
            f"Expected a file that can be read at {path}, found: {error.strerror}."
        ) from None
    found = (name for start, name in _COMPRESSIONS.items() if magic.startswith(start))
    return _Source(path, size, next(found, None))


def _guess(path: Path, source: _Source) -> FileFormat:
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


def _read_ndjson(source: _Source, rules: Rules, chunk_bytes: int) -> Iterator[Chunk]:
    stream, tell = source.stream()
    row = 0
    with stream:
        for number, piece in enumerate(_lines(stream, chunk_bytes)):
            if number == 0:
                _refuse_array(piece)
            decoded = _moved(decode(piece, Form.NDJSON, rules=rules), row)
            row += decoded.received
            yield Chunk(number, decoded, min(tell(), source.bytes_total), source.bytes_total)


def _lines(stream: Any, chunk_bytes: int) -> Iterator[bytes]:
    """Whole lines, about chunk_bytes and at most `EVENTS_MAX` of them at a time."""
    rest = b""
    while content := stream.read(chunk_bytes):
        whole, newline, tail = content.rpartition(b"\n")
        if not newline:
            rest += content
            if len(rest) > chunk_bytes:
                raise TooLargeError(
                    f"Expected lines below {chunk_bytes} bytes, found a longer one."
                )
            continue
        yield from _pieces(rest + whole + newline)
        rest = tail
    if rest:
        yield rest


def _pieces(lines: bytes) -> Iterator[bytes]:
    """The same lines, at most `EVENTS_MAX` at a time."""
    ends = [len(lines)]
    if lines.count(b"\n") > EVENTS_MAX:
        newlines = np.flatnonzero(np.frombuffer(lines, np.uint8) == ord("\n"))
        ends = sorted({*(newlines[EVENTS_MAX - 1 :: EVENTS_MAX] + 1).tolist(), *ends})
    for start, end in itertools.pairwise([0, *ends]):
        yield lines[start:end]


def _refuse_array(piece: bytes) -> None:
    if piece.lstrip(b"\xef\xbb\xbf \t\r\n").startswith(b"["):
        raise UnsupportedMediaError("Expected one event on each line, found a JSON array.")


def _read_csv(source: _Source, rules: Rules, delimiter: str, chunk_bytes: int) -> Iterator[Chunk]:
    head = source.head()
    names = _header(head, delimiter)
    if "metadata" in names:
        raise UnsupportedMediaError(
            "Expected a column for each dimension and a row for each removed day in CSV, found the"
            " column metadata."
        )
    columns = _columns(names, rules)
    broken = _broken_line(delimiter)
    stream, tell = source.stream()
    row, number = 0, 0
    with stream:
        for piece in _without_header(_lines(stream, chunk_bytes)):
            lines = broken.sub(_BAD_LINE, piece) if b'"' in piece else piece
            table, bad = _csv_table(lines, names, columns, delimiter)
            places = np.arange(row, row + table.num_rows + len(bad), dtype=np.int64)
            row += places.size
            lost = places[bad].tolist()
            for decoded in _tables(table, rules, np.delete(places, bad), lost):
                yield Chunk(number, decoded, min(tell(), source.bytes_total), source.bytes_total)
                number += 1


def _without_header(pieces: Iterator[bytes]) -> Iterator[bytes]:
    """The lines behind the first one, which ends as `_header` has it."""
    _, *rest = _LINE_END.split(next(pieces, b""), maxsplit=1)
    yield from rest
    yield from pieces


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
    bad: list[int] = []

    def skip(row: Any) -> str:
        bad.append(row.number - 1)
        return "skip"

    # The blank line keeps the library from dropping a byte order mark that belongs to an id.
    content = b"\n" + lines
    table = pa.csv.read_csv(
        pa.BufferReader(content),
        read_options=pa.csv.ReadOptions(
            use_threads=False, block_size=len(content) + 1, column_names=names
        ),
        parse_options=pa.csv.ParseOptions(delimiter=delimiter, invalid_row_handler=skip),
        convert_options=pa.csv.ConvertOptions(
            include_columns=columns,
            column_types=dict.fromkeys(columns, pa.binary()),
            null_values=[""],
            strings_can_be_null=True,
            quoted_strings_can_be_null=False,
        ),
    )
    return table, bad


def _tables(
    batch: Any, rules: Rules, places: NDArray[np.int64], lost: list[int]
) -> Iterator[Decoded | DecodedTable]:
    """Rows in pieces that are not too long; lost rows go with the first."""
    for start in range(0, max(batch.num_rows, 1), CHUNK_ROWS):
        part = batch.slice(start, CHUNK_ROWS)
        decoded = decode_table(part, rules=rules, row_index=places[start : start + CHUNK_ROWS])
        if lost:
            rejected = [*decoded.rejected, *(Rejection.of(one, faults.BAD_ROW) for one in lost)]
            rejected.sort(key=lambda one: one.index)
            received = decoded.received + len(lost)
            decoded, lost = replace(decoded, rejected=rejected, received=received), []
        yield decoded


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


def _read_parquet(source: _Source, rules: Rules) -> Iterator[Chunk]:
    with (
        _seekable(source) as seekable,
        pa.parquet.ParquetFile(
            seekable, pre_buffer=False, buffer_size=_PARQUET_BUFFER_BYTES
        ) as file,
    ):
        columns = _columns(file.schema_arrow.names, rules)
        rows = max(file.metadata.num_rows, 1)
        row, number = 0, 0
        for batch in file.iter_batches(batch_size=CHUNK_ROWS, columns=columns):
            places = np.arange(row, row + batch.num_rows, dtype=np.int64)
            row += batch.num_rows
            for decoded in _tables(batch, rules, places, []):
                done = source.bytes_total * row // rows
                yield Chunk(number, decoded, done, source.bytes_total)
                number += 1


def _seekable(source: _Source) -> Any:
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


def _moved(decoded: Decoded, row: int) -> Decoded:
    """The same with rejections that start at a row."""
    if row == 0 or not decoded.rejected:
        return decoded
    moved = [
        Rejection(row + one.index, one.code, one.field, one.message) for one in decoded.rejected
    ]
    return replace(decoded, rejected=moved)
