"""What a Parquet file says of itself: its footer, and the headers of its pages.

The library believes the header of a page, not the footer, and the footer may say less. The footer
is read here as well, because the library's own view of a column ends the process where it is odd.

Source:
    Apache Parquet format 2.11, `parquet.thrift` (`FileMetaData`, `PageHeader`); Thrift compact
    protocol.
"""

from collections.abc import Iterator
from typing import Any, Final, NamedTuple

FOOTER_BYTES_MAX: Final = 2 << 20
_MAGIC: Final = b"PAR1"
_DEPTH_MAX: Final = 12
_VARINT_BYTES_MAX: Final = 10
_STRUCT: Final = 12
_V1, _DICTIONARY, _V2 = 5, 7, 8
"""Fields of a header: what a page is, with its number of values."""


class Column(NamedTuple):
    """A column of a row group: its name, its number of values, and where its pages lie."""

    path: tuple[bytes, ...]
    values: int
    start: int
    end: int


class RowGroup(NamedTuple):
    """Rows of a file."""

    rows: int
    columns: list[Column]


def row_groups(body: bytes) -> list[RowGroup]:
    """The row groups of a file, from its footer.

    Raises:
        ValueError, LookupError, AttributeError, TypeError: There is no sound footer.
    """
    if len(body) < 2 * len(_MAGIC) + 4 or not body.endswith(_MAGIC):
        raise ValueError
    size = int.from_bytes(body[-8:-4], "little")
    start = len(body) - 8 - size
    if size > FOOTER_BYTES_MAX or start < len(_MAGIC):
        raise ValueError
    return [
        RowGroup(_whole(group[3]), [_column(one[3]) for one in group[1]])
        for group in _Compact(body, start).record(0).get(4, [])
    ]


def _column(fields: dict[int, Any]) -> Column:
    """A column from its metadata."""
    start = _whole(fields[9])
    if 11 in fields:
        start = min(start, _whole(fields[11]) or start)
    return Column(tuple(fields[3]), _whole(fields[5]), start, start + _whole(fields[7]))


class PageHeader(NamedTuple):
    """What the header of a page says; a dictionary has no values here."""

    unpacked_bytes: int
    values: int
    encoding: int


def page_headers(body: bytes, start: int, end: int) -> Iterator[PageHeader]:
    """The headers of the pages between two places, one after the other.

    Raises:
        ValueError, IndexError, AttributeError: There is something else, or a page goes beyond the
            end, or a dictionary has more values than bytes.
    """
    if not 0 <= start <= end <= len(body):
        raise ValueError
    while start < end:
        reader = _Compact(body, start)
        fields = reader.record(0)
        unpacked, packed = fields.get(2), fields.get(3)
        if not (isinstance(unpacked, int) and isinstance(packed, int)) or min(unpacked, packed) < 0:
            raise ValueError
        start = reader.at + packed
        if start > end:
            raise ValueError
        if _DICTIONARY in fields and _whole(fields[_DICTIONARY].get(1, 0)) > unpacked:
            raise ValueError
        found = [fields[one] for one in (_V1, _V2) if one in fields]
        values = [_whole(one.get(1, 0)) for one in found]
        encodings = [_whole(one.get(2 if _V1 in fields else 4, 0)) for one in found]
        yield PageHeader(unpacked, sum(values), max(encodings, default=0))


def _whole(number: Any) -> int:
    if not isinstance(number, int) or number < 0:
        raise ValueError
    return number


class _Compact:
    """Reads the compact protocol: records as field id → value, of which the last one counts."""

    def __init__(self, data: bytes, at: int) -> None:
        self._data = data
        self.at = at

    def record(self, depth: int) -> dict[int, Any]:
        """A record, up to its stop."""
        if depth > _DEPTH_MAX:
            raise ValueError
        fields: dict[int, Any] = {}
        field = 0
        while kind := self._byte():
            field = field + (kind >> 4) if kind >> 4 else self._number()
            fields[field] = self._value(kind & 15, depth)
        return fields

    def _value(self, kind: int, depth: int, *, listed: bool = False) -> Any:
        """A value of a type; a map is a list of its keys and values."""
        if kind in (1, 2):
            return self._byte() == 1 if listed else kind == 1
        if kind == 3:
            return self._byte()
        if kind in (4, 5, 6):
            return self._number()
        if kind in (7, 8):
            return self._bytes(8 if kind == 7 else self._varint())
        if kind in (9, 10):
            head = self._byte()
            size = head >> 4 if head >> 4 != 15 else self._varint()
            return self._all([head & 15], size, depth)
        if kind == 11:
            size = self._varint()
            kinds = self._byte() if size else 0
            return self._all([kinds >> 4, kinds & 15], size, depth)
        if kind == _STRUCT:
            return self.record(depth + 1)
        raise ValueError

    def _all(self, kinds: list[int], size: int, depth: int) -> list[Any]:
        """The items of a list or map; each takes a byte at least."""
        if size > len(self._data) - self.at or depth > _DEPTH_MAX:
            raise ValueError
        return [self._value(kind, depth + 1, listed=True) for _ in range(size) for kind in kinds]

    def _bytes(self, size: int) -> bytes:
        found = self._data[self.at : self.at + size]
        self.at += size
        if len(found) < size:
            raise ValueError
        return found

    def _byte(self) -> int:
        found = self._data[self.at]
        self.at += 1
        return found

    def _varint(self) -> int:
        number = 0
        for place in range(_VARINT_BYTES_MAX):
            found = self._byte()
            number |= (found & 0x7F) << (7 * place)
            if found < 0x80:
                return number
        raise ValueError

    def _number(self) -> int:
        number = self._varint()
        return (number >> 1) ^ -(number & 1)
