"""Bodies that are tables: an Arrow IPC stream or a Parquet file, from senders nobody has to trust.

A small body can claim to be a large table: by its row counts, by compressed buffers and pages, by
one long value of a dictionary that many rows refer to. So what a body says of itself is read
first, in its own metadata and in the header of each buffer and page, and only what is within the
limit is unpacked. The tables are flat: a column for each dimension, a row for each removed day.
"""

import contextlib
import struct
from collections.abc import Iterator
from typing import Any, Final

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from dpdau.errors import InvalidEventError, TooLargeError, UnsupportedMediaError
from dpdau.ingest.arrow_messages import unpacked_sizes
from dpdau.ingest.columns import decode_table
from dpdau.ingest.decoded import DecodedTable, TableForm
from dpdau.ingest.event import EVENTS_MAX, Decoded
from dpdau.ingest.parquet_moments import OLD_UNIT, with_moments
from dpdau.ingest.parquet_pages import PageHeader, RowGroup, page_headers, row_groups
from dpdau.ingest.rules import Rules

__all__ = ["decode_table_body"]

_METADATA: Final = "metadata"
_PAGES_MAX: Final = 10_000
_THRIFT_ITEMS_MAX: Final = 100_000
_DELTA_BYTE_ARRAY: Final = 7
"""Each value repeats a part of the one before: what it unpacks to is nowhere said."""
_VIEW_BYTES: Final = 16
_BROKEN: Final = (
    pa.ArrowException,
    OSError,
    ValueError,
    OverflowError,
    LookupError,
    AttributeError,
    TypeError,
    struct.error,
)
"""What the library and the readers of headers raise for bytes that are no table."""


def decode_table_body(
    body: bytes, form: TableForm, *, rules: Rules, unpacked_bytes_max: int
) -> Decoded | DecodedTable:
    """Reads the events of a table.

    Guarantee: no more than a few times `unpacked_bytes_max` bytes are held for it, whatever the
    body says; and no message repeats anything of the body. Otherwise as `columns.decode_table`.

    Raises:
        InvalidEventError: The body is not of the form, or broken.
        TooLargeError: There are more than `EVENTS_MAX` rows or more bytes than the limit.
        UnsupportedMediaError: A column is missing, occurs twice or has a type that is not read.
    """
    read = _arrow if form is TableForm.ARROW else _parquet
    # The library's own error ends here: it may quote the body, and a body holds user ids.
    try:
        table = read(body, rules, unpacked_bytes_max)
    except _BROKEN:
        table = None
    if table is None:
        raise InvalidEventError(f"Expected a whole {form}, found a body that is broken.")
    decoded: Decoded | DecodedTable | None = None
    with contextlib.suppress(pa.ArrowException, OverflowError):
        decoded = decode_table(table, rules=rules)
    if decoded is None:
        raise InvalidEventError(f"Expected values within range, found others in the {form}.")
    return decoded


def _arrow(body: bytes, rules: Rules, bytes_max: int) -> Any:
    """The wanted columns of an Arrow stream, checked."""
    rows = unpacked = 0
    for message in unpacked_sizes(body):
        rows += message.rows
        unpacked += message.bytes
        _check_rows(rows)
        _check_bytes(unpacked, bytes_max)
    with pa.ipc.open_stream(pa.BufferReader(body)) as reader:
        schema = reader.schema
    wanted = list(_wanted(schema, rules))
    options = pa.ipc.IpcReadOptions(use_threads=False, included_fields=wanted)
    with pa.ipc.open_stream(pa.BufferReader(body), options=options) as reader:
        batches = list(reader)
        chosen = reader.schema
    for batch in batches:
        # Offsets into the body are the sender's; nothing may follow them unchecked.
        batch.validate(full=True)
        for column in batch.columns:
            _check_bytes(_plain_bytes(column), bytes_max)
    return pa.Table.from_batches(batches, chosen)


def _parquet(body: bytes, rules: Rules, bytes_max: int) -> Any:
    """The wanted columns of a Parquet file, checked."""
    # Here, because it takes 17 MB of memory, and a service may never be sent one.
    from pyarrow import parquet

    limits = {
        "thrift_string_size_limit": len(body) + 1,
        "thrift_container_size_limit": _THRIFT_ITEMS_MAX,
    }
    groups = row_groups(body)
    _check_rows(sum(group.rows for group in groups))
    with parquet.ParquetFile(pa.BufferReader(body), **limits) as file:
        schema = file.schema_arrow
    wanted = [schema.names[place] for place in _wanted(schema, rules)]
    _check_pages(body, groups, {(name.encode(),) for name in wanted}, bytes_max)
    strings = [name for name in wanted if _is_bytes(schema.field(name).type)]
    # Read as dictionaries, so that one long value is not written out for each row.
    options = {
        "pre_buffer": False,
        "read_dictionary": strings,
        "coerce_int96_timestamp_unit": OLD_UNIT,
    }
    with parquet.ParquetFile(pa.BufferReader(body), **limits, **options) as file:
        table = with_moments(file.read(columns=wanted, use_threads=False), file.schema)
    table.validate(full=True)
    for column in table.columns:
        _check_bytes(sum(_plain_bytes(chunk) for chunk in column.chunks), bytes_max)
    return table


def _wanted(schema: Any, rules: Rules) -> Iterator[int]:
    """The places of the columns that are read; refuses those whose type is not."""
    fields = rules.fields
    names = {fields.user_id, fields.op, fields.day, fields.ts, fields.event_id, *rules.dimensions}
    found: set[str] = set()
    for place, field in enumerate(schema):
        if field.name == _METADATA:
            raise UnsupportedMediaError(
                "Expected a column for each dimension and a row for each removed day, found the "
                "column metadata."
            )
        if field.name not in names:
            continue
        if field.name in found:
            raise UnsupportedMediaError(f"Expected the column {field.name} once, found it twice.")
        if not _is_read(field.type):
            raise UnsupportedMediaError(
                f"Expected strings, whole numbers, dates or timestamps in the column {field.name}, "
                "found another type."
            )
        found.add(field.name)
        yield place
    if fields.user_id not in found:
        raise UnsupportedMediaError(f"Expected a column {fields.user_id}, found none of that name.")


def _is_read(kind: Any) -> bool:
    """Whether a type is flat and of a known size, or a dictionary of strings."""
    types = pa.types
    if types.is_dictionary(kind):
        return _is_bytes(kind.value_type)
    return bool(
        _is_bytes(kind)
        or types.is_string_view(kind)
        or types.is_binary_view(kind)
        or types.is_integer(kind)
        or types.is_date(kind)
        or types.is_timestamp(kind)
        or types.is_null(kind)
    )


def _is_bytes(kind: Any) -> bool:
    types = pa.types
    return bool(
        types.is_string(kind)
        or types.is_large_string(kind)
        or types.is_binary(kind)
        or types.is_large_binary(kind)
    )


def _plain_bytes(column: Any) -> int:
    """What a checked column takes when each row has its value by itself."""
    kind = column.type
    if pa.types.is_dictionary(kind):
        sizes = pc.binary_length(column.dictionary.cast(pa.large_binary()))
        total = pc.sum(sizes.take(column.indices)).as_py()
        return int(total or 0)
    if pa.types.is_string_view(kind) or pa.types.is_binary_view(kind):
        views = np.frombuffer(column.buffers()[1], dtype="<i4").reshape(-1, _VIEW_BYTES // 4)
        here = views[column.offset : column.offset + len(column), 0]
        valid = column.is_valid().to_numpy(zero_copy_only=False)
        return int(here[valid].sum(dtype=np.int64))
    return 0


def _check_pages(
    body: bytes, groups: list[RowGroup], wanted: set[tuple[bytes, ...]], bytes_max: int
) -> None:
    """Looks at the header of each page of the wanted columns before any is unpacked."""
    unpacked = pages = 0
    for group in groups:
        for column in group.columns:
            if column.path not in wanted:
                continue
            values = 0
            for header in page_headers(body, column.start, column.end):
                pages += 1
                unpacked += header.unpacked_bytes
                values += header.values
                _check_bytes(unpacked, bytes_max)
                _check_page(header, pages)
            _check_rows(max(values, column.values))


def _check_page(header: PageHeader, pages: int) -> None:
    if pages > _PAGES_MAX:
        raise TooLargeError(f"Expected at most {_PAGES_MAX} pages in a Parquet file, found more.")
    if header.encoding == _DELTA_BYTE_ARRAY:
        raise UnsupportedMediaError(
            "Expected a Parquet file without the encoding DELTA_BYTE_ARRAY, found it."
        )


def _check_rows(rows: int) -> None:
    if rows > EVENTS_MAX:
        raise TooLargeError(f"Expected at most {EVENTS_MAX} rows, found {rows}.")


def _check_bytes(unpacked: int, bytes_max: int) -> None:
    if unpacked > bytes_max:
        raise TooLargeError(
            f"Expected a table of at most {bytes_max} bytes when unpacked, found more.",
            bytes_max=bytes_max,
        )
