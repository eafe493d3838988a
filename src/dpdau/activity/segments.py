"""Immutable files of sorted rows: written once, complete before anyone sees them, checked on read.

```text
head     magic, format version, CRC-32 of both
blocks   for each group: the key column, then each value column that is not all zero, sealed
index    JSON, sealed: kind, groups with row count, digest and block places
tail     offset and length of the index, CRC-32 of both
```

Columns are little-endian. A run that is small enough to live in the manifest has the same bytes.
"""

import contextlib
import json
import os
import secrets
import struct
import threading
import zlib
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from dpdau.activity.column_cache import ColumnCache
from dpdau.activity.runs import Rows, Run, Table, constant
from dpdau.activity.sealing import FileSealer, Sealer, corrupt
from dpdau.errors import SchemaVersionError

FORMAT_VERSION: Final = 1
SUFFIX: Final = ".seg"
_TEMPORARY: Final = ".tmp"
_MAGIC: Final = b"DPDAUSEG"
_HEAD: Final = struct.Struct("<8sII")
_TAIL: Final = struct.Struct("<QII")
_KEY: Final = "key"
_INDEX: Final = "index"
_NAME_BYTES: Final = 16
_FILE_MODE: Final = 0o600
_FOLDER_MODE: Final = 0o700

ReadAt = Callable[[int, int], bytes]
"""(offset, length) → bytes."""


@dataclass(frozen=True, slots=True)
class GroupIndex:
    """Where the blocks of one group lie: column → (offset, length)."""

    rows: int
    digest: int
    blocks: Mapping[str, tuple[int, int]]


@dataclass(frozen=True, slots=True)
class SegmentFile:
    """What the manifest has to know of a written file."""

    name: str
    rows: int
    size: int
    group_min: int
    group_max: int


class SegmentFiles:
    """The folder of segment files, with a bounded cache of checked columns.

    Args:
        folder: Made with mode 0700 when missing.
        sealer: Seals and opens blocks.
        cache_bytes_max: How much memory checked columns may take.
    """

    def __init__(self, folder: Path, sealer: Sealer, cache_bytes_max: int) -> None:
        self._folder = folder
        self._sealer = sealer
        self._lock = threading.Lock()
        self._indexes: dict[str, Mapping[int, GroupIndex]] = {}
        self.cache: Final = ColumnCache(cache_bytes_max)

    def write(self, table: Table, blocks: Iterable[tuple[int, Rows]]) -> SegmentFile | None:
        """Writes groups, in ascending order, to a new file and makes its content durable.

        The name is durable only after `sync`.

        Returns:
            None where there is no row, and then no file.
        """
        name = secrets.token_hex(_NAME_BYTES) + SUFFIX
        final, temporary = self._folder / name, self._folder / (name + _TEMPORARY)
        self._make_folder()
        descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, _FILE_MODE)
        try:
            with open(descriptor, "wb") as sink:
                groups = encode(sink.write, table, blocks, self._sealer.for_file(name))
                size = sink.tell()
                sink.flush()
                os.fsync(sink.fileno())
            if not groups:
                temporary.unlink()
                return None
            temporary.rename(final)
        except BaseException:
            with contextlib.suppress(OSError):
                temporary.unlink(missing_ok=True)
            raise
        rows = sum(one.rows for one in groups.values())
        return SegmentFile(name, rows, size, min(groups), max(groups))

    def sync(self) -> None:
        """Makes the names of written files durable, and that the others are gone."""
        if not self._folder.is_dir():
            return
        descriptor = os.open(self._folder, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)

    def remove(self, names: Iterable[str]) -> None:
        """Deletes files that nothing refers to, and what is cached of them."""
        gone = set(names)
        with self._lock:
            for name in gone:
                self._indexes.pop(name, None)
        self.cache.drop(gone)
        for name in gone:
            (self._folder / name).unlink(missing_ok=True)

    def names(self) -> set[str]:
        """All files of the folder, unfinished ones too."""
        return {one.name for one in self._folder.iterdir()} if self._folder.is_dir() else set()

    def groups(self, table: Table, name: str) -> Mapping[int, GroupIndex]:
        """The index of a file: group → where its blocks lie.

        Raises:
            FileNotFoundError: A merge has replaced the file.
            StoreCorruptError: The file is damaged.
        """
        with self._lock:
            known = self._indexes.get(name)
        if known is None:
            with _reading(self._folder / name) as (read_at, size):
                known = _read_index(read_at, size, table, self._sealer.for_file(name), name)
            with self._lock:
                self._indexes[name] = known
        return known

    def rows(self, table: Table, name: str, group: int, *, cached: bool = True) -> Rows | None:
        """The rows of one group of a file, or None. Raises as `groups` does."""
        if group not in self.groups(table, name):
            return None
        columns = (name_ for name_, _dtype in table.columns)
        return Rows(
            self.keys(table, name, group, cached=cached),
            tuple(self._column(table, name, group, one, cached=cached) for one in columns),
        )

    def keys(
        self, table: Table, name: str, group: int, *, cached: bool = True
    ) -> NDArray[np.uint64]:
        """The key column of one group that the file has. Raises as `groups` does."""
        return self._column(table, name, group, _KEY, cached=cached)

    def run(self, table: Table, name: str) -> Run:
        """A whole file, past the cache. Raises as `groups` does."""
        found = {
            group: self.rows(table, name, group, cached=False) for group in self.groups(table, name)
        }
        return {group: rows for group, rows in found.items() if rows is not None}

    def _column(
        self, table: Table, name: str, group: int, column: str, *, cached: bool
    ) -> NDArray[Any]:
        """One column of one group, from the cache or from the file."""
        place = ((name,), group, column)
        known = self.cache.get(place)
        if known is not None:
            return known[0]
        index = self.groups(table, name)[group]
        if column != _KEY and column not in index.blocks:
            return _read_column(None, table, column, index, (FileSealer(name, None), group))
        with _reading(self._folder / name) as (read_at, _size):
            found = _read_column(
                read_at, table, column, index, (self._sealer.for_file(name), group)
            )
        if cached:
            self.cache.put(place, (found,))
        return found

    def _make_folder(self) -> None:
        """Makes the folder on the first write."""
        self._folder.mkdir(mode=_FOLDER_MODE, exist_ok=True)


def encode(
    write: Callable[[bytes], object],
    table: Table,
    blocks: Iterable[tuple[int, Rows]],
    sealer: FileSealer,
) -> Mapping[int, GroupIndex]:
    """Writes a whole segment through `write`; returns its index."""
    head = _HEAD.pack(_MAGIC, FORMAT_VERSION, 0)[:-4]
    offset = _HEAD.size
    write(head + zlib.crc32(head).to_bytes(4, "little"))
    groups: dict[int, GroupIndex] = {}
    for group, rows in blocks:
        if not len(rows):
            continue
        assert not groups or group > next(reversed(groups)), "groups come in ascending order"
        places: dict[str, tuple[int, int]] = {}
        for (column, dtype), values in zip(
            ((_KEY, "<u8"), *table.columns), (rows.key, *rows.values), strict=True
        ):
            if column != _KEY and not values.any():
                continue
            data = np.ascontiguousarray(values, dtype=dtype).data.cast("B")
            sealed = sealer.seal(data, f"{column}/{group}")
            write(sealed)
            places[column] = (offset, len(sealed))
            offset += len(sealed)
        groups[group] = GroupIndex(len(rows), table.digest(rows), places)
    text = json.dumps(
        {
            "kind": table.kind,
            "groups": [[group, one.rows, one.digest, one.blocks] for group, one in groups.items()],
        }
    )
    sealed = sealer.seal(text.encode(), _INDEX)
    write(sealed)
    tail = _TAIL.pack(offset, len(sealed), 0)[:-4]
    write(tail + zlib.crc32(tail).to_bytes(4, "little"))
    return groups


def decode(payload: bytes, table: Table, sealer: FileSealer, name: str) -> Run:
    """The run that `encode` wrote to memory.

    Raises:
        StoreCorruptError: The payload is damaged.
    """

    def read_at(offset: int, length: int) -> bytes:
        return payload[offset : offset + length]

    run = {}
    for group, index in _read_index(read_at, len(payload), table, sealer, name).items():
        place = (sealer, group)
        run[group] = Rows(
            _read_column(read_at, table, _KEY, index, place),
            tuple(
                _read_column(read_at, table, column, index, place)
                for column, _dtype in table.columns
            ),
        )
    return run


def _read_index(
    read_at: ReadAt, size: int, table: Table, sealer: FileSealer, name: str
) -> Mapping[int, GroupIndex]:
    """Checks the frame of a segment and reads its index."""
    if size < _HEAD.size + _TAIL.size:
        raise corrupt(name, "head")
    head, tail = read_at(0, _HEAD.size), read_at(size - _TAIL.size, _TAIL.size)
    if zlib.crc32(head[:-4]).to_bytes(4, "little") != head[-4:] or head[:8] != _MAGIC:
        raise corrupt(name, "head")
    _magic, version, _crc = _HEAD.unpack(head)
    if version > FORMAT_VERSION:
        raise SchemaVersionError(
            f"Expected segment format {FORMAT_VERSION} or older, found {version} in {name}.",
            expected=FORMAT_VERSION,
            found=version,
        )
    offset, length, _crc = _TAIL.unpack(tail)
    if (
        zlib.crc32(tail[:-4]).to_bytes(4, "little") != tail[-4:]
        or offset + length + _TAIL.size != size
    ):
        raise corrupt(name, "tail")
    found = json.loads(bytes(sealer.open(read_at(offset, length), _INDEX)))
    if found["kind"] != table.kind:
        raise corrupt(name, "kind")
    return {
        group: GroupIndex(
            rows, digest, {column: (start, long) for column, (start, long) in blocks.items()}
        )
        for group, rows, digest, blocks in found["groups"]
    }


def _read_column(
    read_at: ReadAt | None,
    table: Table,
    column: str,
    index: GroupIndex,
    place: tuple[FileSealer, int],
) -> NDArray[Any]:
    """One checked column of a group; a column that was not written is all zero."""
    dtype = np.dtype("<u8" if column == _KEY else dict(table.columns)[column])
    where = index.blocks.get(column)
    if where is None:
        return constant(np.zeros((), dtype=dtype), index.rows)
    assert read_at is not None
    sealer, group = place
    values = np.frombuffer(sealer.open(read_at(*where), f"{column}/{group}"), dtype=dtype)
    assert values.shape == (index.rows,), "an index and its blocks are sealed together"
    return values


@contextlib.contextmanager
def _reading(path: Path) -> Iterator[tuple[ReadAt, int]]:
    """An open file as (read_at, size)."""
    descriptor = os.open(path, os.O_RDONLY)

    def read_at(offset: int, length: int) -> bytes:
        found = os.pread(descriptor, length, offset)
        while len(found) < length and (
            more := os.pread(descriptor, length - len(found), offset + len(found))
        ):
            found += more
        return found

    try:
        yield read_at, os.fstat(descriptor).st_size
    finally:
        os.close(descriptor)
