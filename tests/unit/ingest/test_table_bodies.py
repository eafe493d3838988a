"""Tables from senders nobody has to trust: the same events as in files, and no bomb goes off."""

import datetime as dt
import io
import resource
import struct
from collections.abc import Callable
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from dpdau.domain import Op
from dpdau.errors import DpdauError, InvalidEventError, TooLargeError, UnsupportedMediaError
from dpdau.ingest.columns import decode_table
from dpdau.ingest.decoded import TableForm
from dpdau.ingest.event import EVENTS_MAX
from dpdau.ingest.rules import Rules
from dpdau.ingest.table_bodies import decode_table_body

TODAY = dt.date(2026, 3, 15)
RULES = Rules(TODAY, dimensions=("platform",))
BYTES_MAX = 1 << 20
CANARY = "canary-user-77aa"

Pack = Callable[..., bytes]


def arrow(table: pa.Table, compression: str | None = None) -> bytes:
    """A table as an Arrow stream."""
    sink = io.BytesIO()
    options = pa.ipc.IpcWriteOptions(compression=compression)
    with pa.ipc.new_stream(sink, table.schema, options=options) as writer:
        writer.write_table(table)
    return sink.getvalue()


def parquet(table: pa.Table, compression: str | None = None, **options: Any) -> bytes:
    """A table as a Parquet file."""
    sink = io.BytesIO()
    pq.write_table(table, sink, compression=compression or "none", **options)
    return sink.getvalue()


FORMS: list[tuple[TableForm, Pack]] = [(TableForm.ARROW, arrow), (TableForm.PARQUET, parquet)]
forms = pytest.mark.parametrize(("form", "pack"), FORMS)


def read(body: bytes, form: TableForm, bytes_max: int = BYTES_MAX, rules: Rules = RULES) -> Any:
    """What is read of a body."""
    return decode_table_body(body, form, rules=rules, unpacked_bytes_max=bytes_max)


def outcome(body: bytes, form: TableForm) -> Any:
    """What is read of a body, or the error of the product."""
    try:
        return read(body, form)
    except DpdauError as error:
        return error


def table_of(n: int = 50, **more: Any) -> pa.Table:
    """A flat table of events."""
    columns = {
        "user_id": [f"{CANARY}-{one % 9}" for one in range(n)],
        "op": ["-" if one % 5 == 0 else "+" for one in range(n)],
        "day": [dt.date(2026, 3, 1 + one % 14) for one in range(n)],
        "platform": ["web" if one % 2 else None for one in range(n)],
        "note": ["not kept"] * n,
        **more,
    }
    return pa.table({name: values for name, values in columns.items() if values is not None})


@forms
@pytest.mark.parametrize("compression", [None, "zstd", "lz4"])
def test_the_same_events_as_in_a_table(form: TableForm, pack: Pack, compression: str) -> None:
    """A body holds what its table holds, compressed inside or not, in one batch or many."""
    table = pa.concat_tables([table_of(30), table_of(7, platform=["tv"] * 7)])
    expected = decode_table(table, rules=RULES)
    found = read(pack(table, compression), form)

    assert (37, []) == (found.received, list(found.rejected))
    assert list(expected.events) == list(found.events)


@forms
@pytest.mark.parametrize(
    "kind",
    [
        pa.string(),
        pa.large_string(),
        pa.binary(),
        pa.dictionary(pa.int8(), pa.string()),
        pa.string_view(),
    ],
)
def test_every_type_of_strings(form: TableForm, pack: Pack, kind: pa.DataType) -> None:
    """However a library writes strings, they are read; faults of rows are rows that are refused."""
    values = pa.array(["a", "b" * 257, None, "a"], pa.string())
    if pa.types.is_dictionary(kind):
        values = values.dictionary_encode().cast(kind)
    table = pa.table({"user_id": values.cast(kind), "day": ["2026-03-10"] * 4})
    found = read(pack(table), form)

    assert ["a", "a"] == [one.user_id for one in found.events]
    assert [1, 2] == [one.index for one in found.rejected]
    assert {Op.ADD} == {one.op for one in found.events}


@forms
@pytest.mark.parametrize(
    "table",
    [
        table_of(user_id=None),
        table_of(day=None),
        table_of(metadata=[{"platform": "web"}] * 50),
        table_of(user_id=[[CANARY]] * 50),
        table_of(platform=[1.5] * 50),
        table_of(user_id=pa.array([b"x" * 16] * 50, pa.binary(16))),
        pa.table([["u"], ["v"], ["2026-03-10"]], names=["user_id", "user_id", "day"]),
    ],
    ids=["no user", "no day", "metadata", "nested", "floats", "fixed size", "twice"],
)
def test_other_columns_are_refused(form: TableForm, pack: Pack, table: pa.Table) -> None:
    """A column that is missing, nested, there twice or of another type is one clear error."""
    with pytest.raises(UnsupportedMediaError) as caught:
        read(pack(table), form)

    assert CANARY not in caught.value.message


@forms
def test_too_many_rows(form: TableForm, pack: Pack) -> None:
    """The rows are counted before any is unpacked."""
    users = pa.array(["u"] * (EVENTS_MAX + 1)).dictionary_encode()
    with pytest.raises(TooLargeError):
        read(pack(pa.table({"user_id": users}), "zstd"), form)


@forms
@pytest.mark.parametrize("compression", ["zstd", "lz4"])
def test_a_compressed_bomb(form: TableForm, pack: Pack, compression: str) -> None:
    """What unpacks to more than the limit is refused, and takes no memory for it."""
    table = pa.table({"user_id": pa.array(["x" * (100 << 20)]), "day": ["2026-03-10"]})
    body = pack(table, compression)
    assert len(body) < BYTES_MAX
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with pytest.raises(TooLargeError):
        read(body, form)

    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 50_000


def dictionary_bomb(n: int = 100_000) -> pa.Table:
    """One long value that every row refers to."""
    users = pa.DictionaryArray.from_arrays(
        pa.array(np.zeros(n, dtype=np.int8)), pa.array(["x" * 100_000])
    )
    return pa.table({"user_id": users, "day": pa.array([TODAY] * n)})


@forms
def test_a_dictionary_bomb(form: TableForm, pack: Pack) -> None:
    """A value counts as often as rows refer to it."""
    with pytest.raises(TooLargeError):
        read(pack(dictionary_bomb(), "zstd"), form)


def test_a_bomb_of_views() -> None:
    """The same with views, which share their bytes too."""
    view = struct.pack("<iiii", 100_000, struct.unpack("<i", b"xxxx")[0], 0, 0)
    n = 100_000
    users = pa.Array.from_buffers(
        pa.binary_view(), n, [None, pa.py_buffer(view * n), pa.py_buffer(b"x" * 100_000)]
    )
    body = arrow(pa.table({"user_id": users, "day": pa.array([TODAY] * n)}))
    with pytest.raises(TooLargeError):
        read(body, TableForm.ARROW, bytes_max=4 << 20)


def test_a_bomb_of_prefixes() -> None:
    """An encoding whose values repeat a part of the one before is not unpacked."""
    table = table_of().select(["user_id", "day"])
    body = parquet(
        table, column_encoding={"user_id": "DELTA_BYTE_ARRAY", "day": "PLAIN"}, use_dictionary=False
    )
    with pytest.raises(UnsupportedMediaError):
        read(body, TableForm.PARQUET)


@forms
def test_a_column_that_is_not_read_is_not_unpacked(form: TableForm, pack: Pack) -> None:
    """A broken value in a column that nobody asked for costs nothing."""
    table = table_of(note=["x" * 2000] * 50)
    assert 50 == read(pack(table), form, bytes_max=200_000).received


@forms
@settings(max_examples=60, suppress_health_check=list(HealthCheck), deadline=None)
@given(data=st.data())
def test_a_broken_body_is_one_clear_error(form: TableForm, pack: Pack, data: st.DataObject) -> None:
    """Whatever bytes are changed, cut off or put in: an error of the product that quotes nothing,
    or a table of events within the limits."""
    compression = data.draw(st.sampled_from([None, "zstd", "lz4"]))
    body = bytearray(pack(table_of(), compression))
    for _ in range(data.draw(st.integers(1, 4))):
        at = data.draw(st.integers(0, len(body) - 1))
        kind = data.draw(st.sampled_from(["flip", "huge", "cut", "insert"]))
        if kind == "flip":
            body[at] = data.draw(st.integers(0, 255))
        elif kind == "huge":
            body[at : at + 8] = data.draw(
                st.sampled_from([b"\xff" * 8, b"\xff\xff\xff\x7f", b"\xff" * 7 + b"\x7f"])
            )
        elif kind == "cut":
            del body[at : at + data.draw(st.integers(1, 200))]
        else:
            body[at:at] = data.draw(st.binary(max_size=20))
        if not body:
            break
    found = outcome(bytes(body), form)
    if isinstance(found, DpdauError):
        assert CANARY not in f"{found.message}{found.facts}"
        assert found.__cause__ is None
        assert isinstance(found, InvalidEventError | TooLargeError | UnsupportedMediaError)
    else:
        assert found.received <= EVENTS_MAX


@forms
@given(body=st.binary(max_size=200))
def test_bytes_that_are_no_table(form: TableForm, pack: Pack, body: bytes) -> None:
    """Random bytes are a broken body, or none at all."""
    with pytest.raises((InvalidEventError, UnsupportedMediaError)):
        read(body, form)
