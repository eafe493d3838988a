"""Files of events: NDJSON, CSV and Parquet, plain or in gzip or zstd, in chunks of bounded memory.

Chunks of the same file are cut at the same places every time, so `batch.ingest` with the `position`
of a chunk stores each of them once, however often the reading is killed and begun again.
"""

import contextlib
import csv
import io
import shutil
import tempfile
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from enum import StrEnum
from pathlib import Path
from typing import Any, Final

import msgspec
import numpy as np
import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet
from numpy.typing import NDArray

from dpdau.domain import Op
from dpdau.errors import NotFoundError, TooLargeError, UnsupportedMediaError
from dpdau.ingest import rules as faults
from dpdau.ingest.columns import DecodedTable, decode_table
from dpdau.ingest.event import EVENTS_MAX, Decoded, Form, decode
from dpdau.ingest.rules import Rejection, Rules

__all__ = ["Chunk", "FileFormat", "read"]

CHUNK_BYTES: Final = 8 << 20
CHUNK_ROWS: Final = 500_000
HEADER_BYTES_MAX: Final = 1 << 20
_PARQUET_BUFFER_BYTES: Final = 1 << 20

_PARQUET_MAGIC: Final = b"PAR1"
_COMPRESSIONS: Final = {b"\x1f\x8b": "gzip", b"\x28\xb5\x2f\xfd": "zstd"}
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

    position: int
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
        | NDJSON whose first object has no `op` | an object without `op` is a `+` |
        | a CSV row with too many or too few columns | one rejection, `bad_row` |
        | cut off or damaged | the chunks before the damage, then one error |

    Raises:
        NotFoundError: There is no such file, or it may not be read.
        UnsupportedMediaError: The format is not known, a column is missing, or the file is damaged;
            raised where the reading meets it.
        TooLargeError: One line is longer than a chunk.
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
        done = chunk.position + 1
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
    row, position, known = 0, 0, False
    with stream:
        for piece in _lines(stream, chunk_bytes):
            if position == 0:
                _refuse_array(piece)
            if not known:
                known, rules = _with_op(piece, rules)
            decoded = _moved(decode(piece, Form.NDJSON, rules=rules), row)
            row += decoded.received
            yield Chunk(position, decoded, min(tell(), source.bytes_total), source.bytes_total)
            position += 1


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
        yield from _halved(rest + whole + newline)
        rest = tail
    if rest:
        yield rest


def _halved(lines: bytes) -> Iterator[bytes]:
    """The same lines in pieces that `decode` takes."""
    if lines.count(b"\n") <= EVENTS_MAX:
        yield lines
        return
    middle = lines.index(b"\n", len(lines) // 2) + 1
    yield from _halved(lines[:middle])
    yield from _halved(lines[middle:])


def _refuse_array(piece: bytes) -> None:
    if piece.lstrip(b"\xef\xbb\xbf \t\r\n").startswith(b"["):
        raise UnsupportedMediaError("Expected one event on each line, found a JSON array.")


def _with_op(piece: bytes, rules: Rules) -> tuple[bool, Rules]:
    """Whether a piece has an object, and the rules that follow from the first one.

    Where it has no `op`, what has none is a `+`.
    """
    for line in piece.split(b"\n"):
        try:
            item = msgspec.json.decode(line)
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
            continue
        if isinstance(item, dict):
            has_op = rules.fields.op in item
            return True, rules if has_op else replace(rules, op_default=Op.ADD)
    return False, rules


def _read_csv(source: _Source, rules: Rules, delimiter: str, chunk_bytes: int) -> Iterator[Chunk]:
    head = source.head()
    names = _header(head, delimiter)
    if "metadata" in names:
        raise UnsupportedMediaError(
            "Expected a column for each dimension and a row for each removed day in CSV, found the"
            " column metadata."
        )
    columns = _columns(names, rules)
    if b"\n" not in head and b"\r" not in head:
        return
    bad: list[int] = []

    def skip(row: Any) -> str:
        # The library counts the header as row 1.
        bad.append(row.number - 2)
        return "skip"

    stream, tell = source.stream()
    with stream:
        reader = pa.csv.open_csv(
            stream,
            read_options=pa.csv.ReadOptions(use_threads=False, block_size=chunk_bytes),
            parse_options=pa.csv.ParseOptions(
                delimiter=delimiter, newlines_in_values=True, invalid_row_handler=skip
            ),
            convert_options=pa.csv.ConvertOptions(
                include_columns=columns,
                column_types=dict.fromkeys(columns, pa.binary()),
                null_values=[""],
                strings_can_be_null=True,
                quoted_strings_can_be_null=False,
            ),
        )
        row, position, seen = 0, 0, 0
        for batch in reader:
            places, used = _places(batch.num_rows, row, np.array(bad[seen:], dtype=np.int64))
            lost, seen = bad[seen : seen + used], seen + used
            row += batch.num_rows + used
            for decoded in _tables(batch, rules, places, lost):
                yield Chunk(position, decoded, min(tell(), source.bytes_total), source.bytes_total)
                position += 1
    if bad[seen:]:
        lost = bad[seen:]
        rejected = [Rejection.of(one, faults.BAD_ROW) for one in lost]
        decoded = Decoded([], rejected, len(lost))
        yield Chunk(position, decoded, source.bytes_total, source.bytes_total)


def _places(n: int, row: int, bad: NDArray[np.int64]) -> tuple[NDArray[np.int64], int]:
    """The places of n good rows from `row` on, and how many bad rows lie before their end.

    The reader runs ahead, so `bad` (increasing) may also name rows of later batches.
    """
    good_before = bad - row - np.arange(bad.size)
    rank = np.arange(n, dtype=np.int64)
    places = row + rank + np.searchsorted(good_before, rank, side="right")
    return places, int(np.searchsorted(good_before, n, side="right"))


def _tables(
    batch: Any, rules: Rules, places: NDArray[np.int64], lost: list[int]
) -> Iterator[Decoded | DecodedTable]:
    """A record batch in pieces that are not too long; lost rows go with the first."""
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
    text = head.decode("utf-8-sig", errors="replace")
    try:
        names = next(csv.reader(io.StringIO(text, newline=""), delimiter=delimiter), None)
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
        row, position = 0, 0
        for batch in file.iter_batches(batch_size=CHUNK_ROWS, columns=columns):
            places = np.arange(row, row + batch.num_rows, dtype=np.int64)
            row += batch.num_rows
            for decoded in _tables(batch, rules, places, []):
                done = source.bytes_total * row // rows
                yield Chunk(position, decoded, done, source.bytes_total)
                position += 1


def _seekable(source: _Source) -> Any:
    """A file for a format that is read from its end; unpacked if need be, without a name."""
    stream, _ = source.stream()
    if source.compression is None:
        return stream
    with contextlib.ExitStack() as stack:
        unpacked = stack.enter_context(tempfile.TemporaryFile())
        with stream:
            shutil.copyfileobj(stream, unpacked, CHUNK_BYTES)
        unpacked.seek(0)
        stack.pop_all()
    return unpacked


def _moved(decoded: Decoded, row: int) -> Decoded:
    """The same with rejections that start at a row."""
    if row == 0 or not decoded.rejected:
        return decoded
    return replace(
        decoded, rejected=[replace(one, index=one.index + row) for one in decoded.rejected]
    )
