"""What each message of an Arrow IPC stream unpacks to, from its metadata alone.

The library unpacks a buffer to whatever size its first eight bytes claim. Here the claims are
read before: the few fields of the flatbuffers that say how many rows and bytes there are.

Source:
    Apache Arrow columnar format 1.5: `Message.fbs`, "Encapsulated message format" and
    "Compression"; FlatBuffers internals for tables, vectors and their offsets.
"""

import struct
from collections.abc import Iterator
from typing import Any, Final, NamedTuple

import pyarrow as pa

_DICTIONARY: Final = 2
_RECORDS: Final = 3
_BUFFER_BYTES: Final = 16
_NOT_COMPRESSED: Final = -1


class Unpacked(NamedTuple):
    """What one message holds once it is unpacked; a dictionary has no rows."""

    rows: int
    bytes: int


def unpacked_sizes(body: bytes) -> Iterator[Unpacked]:
    """The size of each batch of records and each dictionary of a stream.

    Raises:
        ArrowException, OSError, ValueError, struct.error: The stream is broken.
    """
    reader = pa.ipc.MessageReader.open_stream(pa.BufferReader(body))
    while True:
        try:
            message = reader.read_next_message()
        except StopIteration:
            return
        found = _sized(_Table.root(memoryview(message.metadata)), message.body)
        if found is not None:
            yield found


def _sized(message: "_Table", body: Any) -> Unpacked | None:
    """The size of one message, or None for one without data."""
    kind, header = message.number(1, "<B"), message.table(2)
    if header is None:
        return None
    if kind == _RECORDS:
        return Unpacked(_counted(header.number(0, "<q")), _buffer_bytes(header, body))
    if kind == _DICTIONARY:
        data = header.table(1)
        return None if data is None else Unpacked(0, _buffer_bytes(data, body))
    return None


def _buffer_bytes(batch: "_Table", body: Any) -> int:
    """The bytes of all buffers of a batch."""
    packed = batch.table(3) is not None
    total = 0
    for at in batch.vector(2, _BUFFER_BYTES):
        offset, length = struct.unpack_from("<qq", batch.data, at)
        size = _counted(length)
        if packed and size:
            (claimed,) = struct.unpack_from("<q", memoryview(body), _counted(offset))
            size = size - 8 if claimed == _NOT_COMPRESSED else _counted(claimed)
        total += size
    return total


class _Table(NamedTuple):
    """A table of a flatbuffer."""

    data: memoryview
    at: int

    @classmethod
    def root(cls, data: memoryview) -> "_Table":
        """The outermost table."""
        return cls(data, struct.unpack_from("<I", data, 0)[0])

    def number(self, field: int, form: str) -> int:
        """A number; 0 where it is left out."""
        at = self._place(field)
        return 0 if at is None else int(struct.unpack_from(form, self.data, at)[0])

    def table(self, field: int) -> "_Table | None":
        """A table that this one refers to."""
        at = self._place(field)
        if at is None:
            return None
        return _Table(self.data, at + struct.unpack_from("<I", self.data, at)[0])

    def vector(self, field: int, size: int) -> range:
        """Where the items of a vector lie."""
        at = self._place(field)
        if at is None:
            return range(0)
        start = at + struct.unpack_from("<I", self.data, at)[0]
        count = struct.unpack_from("<I", self.data, start)[0]
        if start + 4 + count * size > len(self.data):
            raise ValueError
        return range(start + 4, start + 4 + count * size, size)

    def _place(self, field: int) -> int | None:
        """Where a field lies, or None where it is left out."""
        schema = self.at - struct.unpack_from("<i", self.data, self.at)[0]
        if schema < 0 or self.at < 0:
            raise ValueError
        slot = 4 + 2 * field
        if slot >= struct.unpack_from("<H", self.data, schema)[0]:
            return None
        offset = struct.unpack_from("<H", self.data, schema + slot)[0]
        return self.at + offset if offset else None


def _counted(number: int) -> int:
    """A number that a message states.

    Raises:
        ValueError: It is below 0.
    """
    if number < 0:
        raise ValueError
    return number
