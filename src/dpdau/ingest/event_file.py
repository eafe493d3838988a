"""Exact counts of a month from a file of events, without a store: in, counted, and gone.

A Parquet file of plain columns is counted where it lies. Every other file goes through `files.read`
chunk by chunk into the same tables, so that it means what it means to `ingest`; so does a Parquet
file that turns out to be less plain than it looked.
"""

import stat
import threading
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, Self

import numpy as np
from numpy.typing import NDArray

from dpdau.domain import Op, day_number
from dpdau.errors import NotFoundError, UnsupportedMediaError
from dpdau.ingest.event_tables import EventTables, MonthSpan, UnreadableError, months
from dpdau.ingest.plain_parquet import PlainParquet
from dpdau.ingest.rules import Fault, Rejection, Rules

if TYPE_CHECKING:
    from dpdau.ingest.decoded import DecodedTable
    from dpdau.ingest.event import Decoded
    from dpdau.ingest.files import Chunk

__all__ = ["Counted", "EventFile", "MonthSpan"]

FORMATS: Final = ("ndjson", "csv", "parquet")
REJECTIONS_KEPT_MAX: Final = 1_000
_PARQUET_MAGIC: Final = b"PAR1"
_PARQUET_SUFFIXES: Final = (".parquet", ".pq")
_PATTERN_SIGNS: Final = frozenset("*?[]{}")
_FOLD_SHARE: Final = 0.6
"""The first of the two passes takes about so much of the time."""


@dataclass(frozen=True, slots=True)
class Counted:
    """What a file or a table adds up to. Private.

    Shapes and units:
        table: (days, 1 + segments, windows) int64 users: everyone, then each segment.
        received: all its rows = what counted + `rejected_count`.
        rejected: the first `REJECTIONS_KEPT_MAX` rows that were not taken, where rows have places.
        refused: how many rows have each fault, where they have none.
    """

    table: NDArray[np.int64]
    received: int
    rejected: tuple[Rejection, ...]
    rejected_count: int
    refused: tuple[tuple[Fault, int], ...] = ()

    def __repr__(self) -> str:
        return "Counted(<private>)"


@dataclass(slots=True)
class _Seen:
    """How far a file was read, and what of it was not taken."""

    received: int = 0
    rejected: list[Rejection] = field(default_factory=list)
    rejected_count: int = 0

    def reject(self, rejections: Sequence[Rejection], count: int) -> None:
        """Notes rows that were not taken; only the first ones are kept."""
        self.rejected += rejections[: REJECTIONS_KEPT_MAX - len(self.rejected)]
        self.rejected_count += count


class EventFile:
    """One file of events, to be counted once.

    Guarantee: the counts are those of a store that took in this file alone and then opened the
    month: the same rows are rejected, of events with one `event_id` the first counts, for each
    (user, day) pair the last event in the order of the file decides, and with segments each user
    has the first label that a `+` gave in the latest month that has one, up to this month and
    within the look-back. So
    the file gives each user one set of days, and over the days of the month what one user adds to
    the counts is a member of `ContributionClass(T, windows, daily=True)`, in everyone and in one
    segment or in none.

    Raises:
        NotFoundError: There is no such file, it may not be read, or it is a pipe.
        UnsupportedMediaError: The format is not known.
    """

    def __init__(
        self, path: Path, *, rules: Rules, span: MonthSpan, file_format: str | None = None
    ) -> None:
        if file_format not in (None, *FORMATS):
            raise UnsupportedMediaError(
                f"Expected a format of {', '.join(FORMATS)}, found {file_format!r}."
            )
        self._path, self._rules, self._span, self._format = path, rules, span, file_format
        self._magic = _first_bytes(path)
        self._tables: EventTables | None = None
        self._done, self._rows, self._weight, self._shown = 0.0, 0, 0.0, 0.0
        self._stopped = threading.Event()

    @property
    def span(self) -> MonthSpan:
        """What is counted."""
        return self._span

    def count(self) -> Counted:
        """Reads the file and counts.

        Raises:
            UnsupportedMediaError: A column is missing, or the file is damaged or changes meanwhile.
            TooLargeError: The memory does not hold what has to be kept of its users.
        """
        if self._may_be_plain():
            try:
                return self._count_plain()
            except UnreadableError:
                # Only the other reader can tell damage from what is merely unusual.
                self._check_stopped()
        return self._count_chunks()

    def progress(self) -> tuple[float, int]:
        """The share that is done, 0..1, and how many rows that is; for another thread."""
        tables, weight = self._tables, self._weight
        within = 0.0 if tables is None or not weight else weight * tables.share_done()
        # A pass has several statements, and each counts from 0.
        self._shown = share = max(self._shown, min(self._done + within, 1.0))
        return share, round(share * self._rows) if weight else self._rows

    def stop(self) -> None:
        """Ends the counting with an error; for another thread."""
        self._stopped.set()
        tables = self._tables
        if tables is not None:
            tables.interrupt()

    def _may_be_plain(self) -> bool:
        """Whether the file is Parquet, and its path names it and no other."""
        suffixed = self._path.suffix.lower() in _PARQUET_SUFFIXES
        parquet = self._format == "parquet" or (self._format is None and suffixed)
        return (
            parquet
            and self._magic == _PARQUET_MAGIC
            and not _PATTERN_SIGNS & set(str(self._path.absolute()))
        )

    def _count_plain(self) -> Counted:
        """Counts a Parquet file where it lies.

        Raises:
            UnreadableError: It has columns that only the other reader knows, or it is damaged.
        """
        before = _version(self._path)
        tables = self._begin()
        try:
            plain = PlainParquet.of(tables, self._path.absolute(), self._rules)
            tables.expect(plain.rows)
            clean = plain.looks_clean()
            self._rows, self._weight = plain.rows, _FOLD_SHARE
            plain.expose(sound_only=not clean)
            tables.fold()
            if clean and plain.has_bad_users():
                clean = False
                plain.expose(sound_only=True)
                tables.fold()
            seen = _Seen(received=plain.rows)
            if not clean:
                seen.reject(*plain.rejections(REJECTIONS_KEPT_MAX))
            self._done, self._weight = _FOLD_SHARE, 1 - _FOLD_SHARE
            tables.resolve()
            counted = self._result(tables, seen)
            # It was opened several times: two versions of it are no month of anybody.
            if _version(self._path) != before:
                raise UnsupportedMediaError(
                    f"Expected {self._path.name} to stay as it is while it is read, found it"
                    " changed; nothing was charged."
                )
            return counted
        finally:
            self._end(tables)

    def _count_chunks(self) -> Counted:
        """Counts any file, read chunk by chunk."""
        from dpdau.ingest import files

        chosen = None if self._format is None else files.FileFormat(self._format)
        tables = self._begin()
        try:
            return self._fill(tables, files.read(self._path, rules=self._rules, file_format=chosen))
        except UnreadableError:
            self._check_stopped()
        finally:
            self._end(tables)
        raise AssertionError("the tables take whatever the readers give")

    def _fill(self, tables: EventTables, chunks: "Iterator[Chunk]") -> Counted:
        """Puts the events of chunks into tables, and counts them."""
        tables.make()
        seen, order = _Seen(), 0
        for chunk in chunks:
            self._check_stopped()
            decoded = chunk.decoded
            rows = _Rows.of(decoded, self._span.dimension)
            rows.put(tables, first_item=seen.received, first_order=order)
            order += len(rows.day)
            seen.received += decoded.received
            seen.reject(decoded.rejected, len(decoded.rejected))
            self._done = chunk.bytes_done / max(chunk.bytes_total, 1)
            self._rows = seen.received
        tables.settle()
        tables.fold()
        tables.resolve()
        return self._result(tables, seen)

    def _result(self, tables: EventTables, seen: _Seen) -> Counted:
        table = tables.counts()
        self._check_stopped()
        self._done, self._weight = 1.0, 0.0
        return Counted(table, seen.received, tuple(seen.rejected), seen.rejected_count)

    def _begin(self) -> EventTables:
        self._check_stopped()
        self._done, self._rows, self._weight, self._shown = 0.0, 0, 0.0, 0.0
        self._tables = EventTables(self._span, self._path.absolute())
        return self._tables

    def _end(self, tables: EventTables) -> None:
        self._tables = None
        tables.close()

    def _check_stopped(self) -> None:
        if self._stopped.is_set():
            raise UnsupportedMediaError(f"Stopped reading {self._path.name}; nothing was charged.")


@dataclass(frozen=True, slots=True)
class _Rows:
    """The rows of a chunk in arrival order: one for each event and day that it touches.

    Shapes and units:
        users: the distinct ids, binary; user: (n,) an index into them.
        item: (n,) the place of the row's event among those of the chunk.
        day: (n,) int32 day numbers; add: (n,) bool.
        event_ids: (n,) binary with nulls, or None where there are none; labels likewise, of text.
    """

    users: Any
    user: NDArray[np.intp]
    item: NDArray[np.int64]
    day: NDArray[np.int32]
    add: NDArray[np.bool_]
    event_ids: Any
    labels: Any

    @classmethod
    def of(cls, decoded: "Decoded | DecodedTable", dimension: str | None) -> Self:
        """The rows of what a reader made, with the labels of one dimension."""
        from dpdau.ingest.decoded import DecodedTable

        if isinstance(decoded, DecodedTable):
            return cls._of_table(decoded, dimension)
        return cls._of_events(decoded, dimension)

    @classmethod
    def _of_table(cls, decoded: "DecodedTable", dimension: str | None) -> Self:
        import pyarrow as pa

        labels = None
        held = None if dimension is None else decoded.labels.get(dimension)
        if held is not None and held.values:
            codes = pa.array(held.codes, mask=held.codes < 0)
            labels = pa.array(held.values, pa.string()).take(codes)
        return cls(
            users=decoded.user_ids,
            user=decoded.user,
            item=np.arange(len(decoded.user), dtype=np.int64),
            day=decoded.day,
            add=decoded.add,
            event_ids=decoded.event_ids,
            labels=labels,
        )

    @classmethod
    def _of_events(cls, decoded: "Decoded", dimension: str | None) -> Self:
        import pyarrow as pa

        places: dict[str, int] = {}
        rows = [
            (
                places.setdefault(one.user_id, len(places)),
                item,
                day_number(day),
                one.op is Op.ADD,
                one.event_id,
                None if dimension is None else one.labels.get(dimension),
            )
            for item, one in enumerate(decoded.events)
            for day in one.days or (one.day,)
        ]
        user, item, day, add, event_ids, labels = zip(*rows, strict=True) if rows else [()] * 6
        named = any(one is not None for one in event_ids)
        labeled = any(one is not None for one in labels)
        return cls(
            users=pa.array([one.encode() for one in places], pa.binary()),
            user=np.array(user, dtype=np.intp),
            item=np.array(item, dtype=np.int64),
            day=np.array(day, dtype=np.int32),
            add=np.array(add, dtype=np.bool_),
            event_ids=pa.array(event_ids, pa.string()) if named else None,
            labels=pa.array(labels, pa.string()) if labeled else None,
        )

    def put(self, tables: EventTables, *, first_item: int, first_order: int) -> None:
        """Adds the rows to the tables: those with an event id apart, for the days of any window."""
        span = tables.span
        start, last = day_number(span.start), day_number(span.last)
        anonymous = np.ones(len(self.day), dtype=np.bool_)
        if self.event_ids is not None:
            anonymous = self.event_ids.is_null().to_numpy(zero_copy_only=False)
        order = np.arange(first_order, first_order + len(self.day), dtype=np.int64)
        kept = np.flatnonzero(anonymous & (self.day >= start) & (self.day <= last))
        if kept.size:
            day = (self.day[kept] - start).astype(np.uint16)
            tables.add(
                "events",
                {"u": self._users(kept), "d": day, "add": self.add[kept], "ord": order[kept]},
            )
        if self.labels is not None:
            since = day_number(span.labels_from)
            held = self.labels.is_valid().to_numpy(zero_copy_only=False)
            held &= self.add & (self.day >= since) & (self.day <= last)
            kept = np.flatnonzero(anonymous & held)
            if kept.size:
                columns = {"month": months(self.day[kept]), "label": self.labels.take(kept)}
                tables.add("labels", {"u": self._users(kept), **columns, "ord": order[kept]})
        kept = np.flatnonzero(~anonymous)
        if kept.size:
            labels = {} if self.labels is None else {"label": self.labels.take(kept)}
            tables.add(
                "identified",
                {
                    "u": self._users(kept),
                    "event_id": self.event_ids.take(kept),
                    "item": self.item[kept] + first_item,
                    "day": self.day[kept],
                    "add": self.add[kept],
                    **labels,
                    "ord": order[kept],
                },
            )

    def _users(self, kept: NDArray[np.intp]) -> Any:
        """The ids of some rows."""
        return self.users.take(self.user[kept])


def _first_bytes(path: Path) -> bytes:
    """The first bytes of a file, which must be there."""
    try:
        # A pipe gives its bytes once, and the readers open a file more than once.
        if not stat.S_ISREG(path.stat().st_mode):
            found = f"the folder {path}" if path.is_dir() else f"something else at {path}"
            raise NotFoundError(f"Expected a file, found {found}.")
        str(path.absolute()).encode()
        with path.open("rb") as file:
            return file.read(len(_PARQUET_MAGIC))
    except OSError as error:
        reason = error.strerror
    except UnicodeEncodeError:
        raise NotFoundError(f"Expected a path in UTF-8, found {str(path)!a}.") from None
    raise NotFoundError(f"Expected a file that can be read at {path}, found: {reason}.")


def _version(path: Path) -> tuple[int, ...] | None:
    """What changes when a file is replaced or written to; None where it is gone."""
    try:
        held = path.stat()
    except OSError:
        return None
    return held.st_dev, held.st_ino, held.st_size, held.st_mtime_ns
