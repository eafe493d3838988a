"""Synthetic activity: seeded `+` and `-` streams with the sizes and the malice that tests need.

Each user u is active on a day with probability p_u, independently. `delete_rate` of the users take
all of their days out again with later `-` events, one for each day. The patterns make that worse:

| pattern | who is deleted | when | flips |
|---|---|---|---|
| `random` | anyone | after a random day, from which on the user is gone | none |
| `top` | the most active users | as `random` | none |
| `end` | anyone | all in one burst after the last day | none |
| `flip` | anyone | as `random` | every pair goes in, out and in again on its day |
| `adversarial` | the most active users | as `end`, the most active first | theirs, as in `flip` |
"""

import datetime as dt
import os
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Any, Final

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv
import pyarrow.parquet
from numpy.typing import NDArray

from dpdau.domain import day_number
from dpdau.errors import InvalidSettingError, UnsupportedMediaError

__all__ = ["SCHEMA", "BetaActivity", "Pattern", "generate", "user_id", "write"]

USERS_MAX: Final = 200_000_000
DAYS_MAX: Final = 3_660
ROWS_PER_BATCH: Final = 500_000
SCHEMA: Final = pa.schema([("user_id", pa.string()), ("op", pa.string()), ("day", pa.date32())])

_PAGE_DAYS: Final = 64
_HEX: Final = np.frombuffer(b"0123456789abcdef", dtype=np.uint8)
_ID_BYTES: Final = 17
_NEVER: Final = -1


@dataclass(frozen=True, slots=True)
class BetaActivity:
    """p_u ~ Beta(a, b): most users rarely come, some come nearly daily."""

    a: float = 0.5
    b: float = 5.0


class Pattern(StrEnum):
    """Who is deleted, when, and what else goes in and out; see the module's table."""

    RANDOM = "random"
    TOP = "top"
    END = "end"
    FLIP = "flip"
    ADVERSARIAL = "adversarial"

    @property
    def chooses_top(self) -> bool:
        """Whether the most active users are deleted."""
        return self in {Pattern.TOP, Pattern.ADVERSARIAL}

    @property
    def waits_for_end(self) -> bool:
        """Whether all deletions come after the last day."""
        return self in {Pattern.END, Pattern.ADVERSARIAL}


def generate(
    users: int,
    days: int,
    start: dt.date,
    *,
    p_active: BetaActivity | float = BetaActivity(),
    delete_rate: float = 0.0,
    pattern: Pattern = Pattern.RANDOM,
    seed: int,
) -> Iterator[pa.RecordBatch]:
    """A stream of events in arrival order, as batches of `SCHEMA`.

    Guarantee: the same arguments give the same rows (under one version of numpy). At the end of the
    stream no deleted user has an active day, and all others have exactly the days that were put in.
    Memory is some tens of bytes a user, whatever the number of rows.

    Raises:
        InvalidSettingError: A size or rate is out of range.

    Example:
        >>> stream = generate(10, 3, dt.date(2026, 1, 1), p_active=1.0, seed=1)
        >>> sum(batch.num_rows for batch in stream)
        30
    """
    _check(users=users, days=days, p_active=p_active, delete_rate=delete_rate)
    return _stream(users, days, start, p_active, delete_rate, pattern, seed)


def user_id(index: int, seed: int) -> str:
    """The id of the user of an index: distinct, of one length, and in no order."""
    return str(_user_ids(np.array([index], dtype=np.int64), seed)[0])


def write(
    path: Path,
    batches: Iterable[pa.RecordBatch],
    *,
    on_rows: Callable[[int], None] | None = None,
) -> int:
    """Writes a stream to Parquet, NDJSON or CSV, the last two plain or in gzip or zstd.

    The file appears under its name when it is complete.

    Args:
        path: Where to; its suffix says the format: .parquet, .ndjson or .csv, with .gz or .zst.
        batches: What `generate` gives.
        on_rows: Is told the number of rows after each batch.

    Returns:
        The number of rows.

    Raises:
        UnsupportedMediaError: The suffix names no format that is written.
    """
    sink = _sink(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    draft = path.with_name(f".{path.name}.{os.getpid()}.draft")
    rows = 0
    try:
        with sink(draft) as put:
            for batch in batches:
                put(batch)
                rows += batch.num_rows
                if on_rows is not None:
                    on_rows(rows)
        draft.replace(path)
    finally:
        draft.unlink(missing_ok=True)
    return rows


def _check(*, users: int, days: int, p_active: BetaActivity | float, delete_rate: float) -> None:
    """Refuses sizes and rates out of range."""
    if isinstance(p_active, BetaActivity):
        active = p_active.a > 0 and p_active.b > 0
    else:
        active = 0.0 <= p_active <= 1.0
    rules = (
        (1 <= users <= USERS_MAX, f"1..{USERS_MAX} users", users),
        (1 <= days <= DAYS_MAX, f"1..{DAYS_MAX} days", days),
        (active, "an activity of 0..1, or a Beta law with positive parameters", p_active),
        (0.0 <= delete_rate <= 1.0, "a delete rate of 0..1", delete_rate),
    )
    for holds, expected, found in rules:
        if not holds:
            raise InvalidSettingError(f"Expected {expected}, found {found}.")


def _stream(
    users: int,
    days: int,
    start: dt.date,
    p_active: BetaActivity | float,
    delete_rate: float,
    pattern: Pattern,
    seed: int,
) -> Iterator[pa.RecordBatch]:
    rng = np.random.Generator(np.random.PCG64(seed))
    if isinstance(p_active, BetaActivity):
        activity = rng.beta(p_active.a, p_active.b, users).astype(np.float32)
    else:
        activity = np.full(users, p_active, dtype=np.float32)
    deleted = _Deletions(rng, activity, days, delete_rate, pattern)
    first = day_number(start)
    for day in range(days):
        active = np.flatnonzero(rng.random(users, dtype=np.float32) < activity)
        active = rng.permutation(deleted.note(active, day))
        flipped = deleted.flippers(active)
        yield from _rows(active, day, first, seed, add=True)
        yield from _rows(flipped, day, first, seed, add=False)
        yield from _rows(flipped, day, first, seed, add=True)
        for who, when in deleted.due(day):
            yield from _rows(who, when, first, seed, add=False)


class _Deletions:
    """Which users are deleted and when, and the days on which they were active until then."""

    def __init__(
        self,
        rng: np.random.Generator,
        activity: NDArray[np.float32],
        days: int,
        rate: float,
        pattern: Pattern,
    ) -> None:
        count = round(rate * activity.size)
        # With ties in the activity the choice is still a random one.
        shuffled = rng.permutation(activity.size)
        if pattern.chooses_top:
            shuffled = shuffled[np.argsort(-activity[shuffled], kind="stable")]
        self._users = shuffled[:count]
        self._place = np.full(activity.size, _NEVER, dtype=np.int32)
        self._place[self._users] = np.arange(count, dtype=np.int32)
        self._pattern, self._rng, self._days = pattern, rng, days
        self._last = rng.integers(0, days, count)
        if pattern.waits_for_end:
            self._last[:] = days - 1
        self._seen = np.zeros((count, -(-days // _PAGE_DAYS)), dtype=np.uint64)

    def note(self, active: NDArray[np.intp], day: int) -> NDArray[np.intp]:
        """Drops users who are gone by a day, and remembers the day for those to be deleted."""
        place = self._place[active]
        mine = place != _NEVER
        gone = np.zeros(active.size, dtype=np.bool_)
        gone[mine] = self._last[place[mine]] < day
        here = place[mine & ~gone]
        self._seen[here, day // _PAGE_DAYS] |= np.uint64(1) << np.uint64(day % _PAGE_DAYS)
        return active[~gone]

    def flippers(self, active: NDArray[np.intp]) -> NDArray[np.intp]:
        """Those of the active users whose pair goes out and in again."""
        flips: NDArray[np.bool_] = np.full(active.size, self._pattern is Pattern.FLIP)
        if self._pattern is Pattern.ADVERSARIAL:
            flips = self._place[active] != _NEVER
        return active[flips]

    def due(self, day: int) -> Iterator[tuple[NDArray[np.intp], NDArray[np.int64]]]:
        """(user, day) pairs of the deletions after a day, in arrival order."""
        due = np.flatnonzero(self._last == day)
        if not self._pattern.chooses_top:
            due = self._rng.permutation(due)
        step = max(1, ROWS_PER_BATCH // self._days)
        shifts = np.arange(_PAGE_DAYS, dtype=np.uint64)
        for start in range(0, due.size, step):
            part = due[start : start + step]
            bits = (self._seen[part][:, :, None] >> shifts) & np.uint64(1)
            who, when = np.nonzero(bits.reshape(part.size, -1))
            yield self._users[part[who]], when


def _rows(
    who: NDArray[np.intp], day: "int | NDArray[np.int64]", first: int, seed: int, *, add: bool
) -> Iterator[pa.RecordBatch]:
    """Events of one kind as batches."""
    for start in range(0, who.size, ROWS_PER_BATCH):
        part = who[start : start + ROWS_PER_BATCH]
        numbers = np.empty(part.size, dtype=np.int32)
        numbers[:] = first + (day if isinstance(day, int) else day[start : start + ROWS_PER_BATCH])
        op = np.full(part.size, ord("+" if add else "-"), dtype=np.uint8)
        yield pa.RecordBatch.from_arrays(
            [
                _user_ids(part, seed),
                _fixed_width(op.reshape(-1, 1)),
                pa.Array.from_buffers(pa.date32(), part.size, [None, pa.py_buffer(numbers)]),
            ],
            schema=SCHEMA,
        )


def _user_ids(index: NDArray[np.int64], seed: int) -> Any:
    """`u` and 16 hexadecimal digits for each index; distinct, as the mixing is a bijection."""
    mixed = _mix(_mix(np.array([seed], dtype=np.int64).astype(np.uint64)) + index.astype(np.uint64))
    digits = mixed.astype(">u8").view(np.uint8).reshape(-1, 8)
    text = np.empty((index.size, _ID_BYTES), dtype=np.uint8)
    text[:, 0] = ord("u")
    text[:, 1::2] = _HEX[digits >> 4]
    text[:, 2::2] = _HEX[digits & 15]
    return _fixed_width(text)


def _mix(value: NDArray[np.uint64]) -> NDArray[np.uint64]:
    """The finalizer of splitmix64."""
    value = value + np.uint64(0x9E3779B97F4A7C15)
    value = (value ^ (value >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    value = (value ^ (value >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return value ^ (value >> np.uint64(31))


def _fixed_width(text: NDArray[np.uint8]) -> Any:
    """Strings of one length, (n, width) bytes, as an Arrow array."""
    n, width = text.shape
    offsets = np.arange(0, (n + 1) * width, width, dtype=np.int32)
    return pa.Array.from_buffers(
        pa.string(), n, [None, pa.py_buffer(offsets), pa.py_buffer(np.ascontiguousarray(text))]
    )


_Put = Callable[[pa.RecordBatch], None]


def _sink(path: Path) -> Any:
    """The writer for a suffix: a context manager that gives a function to put batches with."""
    suffixes = [one.lower() for one in path.suffixes]
    compression = {".gz": "gzip", ".zst": "zstd"}.get(suffixes[-1]) if suffixes else None
    kind = "".join(suffixes[-2:-1] if compression else suffixes[-1:])
    if kind == ".parquet" and compression is None:
        return _ParquetSink
    if kind in {".ndjson", ".jsonl", ".csv"}:
        header = b"user_id,op,day\n" if kind == ".csv" else b""
        parts = ("", ",", ",", "\n") if kind == ".csv" else _JSON_PARTS
        return lambda draft: _TextSink(draft, compression, header, parts)
    raise UnsupportedMediaError(
        f"Expected a file name in .parquet, .ndjson or .csv (and .gz or .zst), found {path.name}."
    )


_JSON_PARTS: Final = ('{"user_id":"', '","op":"', '","day":"', '"}\n')


class _ParquetSink:
    """Parquet, in zstd."""

    def __init__(self, draft: Path) -> None:
        self._writer = pa.parquet.ParquetWriter(
            draft, SCHEMA, compression="zstd", use_dictionary=["op", "day"]
        )

    def __enter__(self) -> _Put:
        put: _Put = self._writer.write_batch
        return put

    def __exit__(self, *_: object) -> None:
        self._writer.close()


class _TextSink:
    """Lines of text around the three values of a row, none of which needs quoting."""

    def __init__(
        self, draft: Path, compression: str | None, header: bytes, parts: tuple[str, ...]
    ) -> None:
        self._stream = pa.output_stream(str(draft), compression=compression)
        self._stream.write(header)
        self._parts = parts

    def __enter__(self) -> _Put:
        return self._put

    def __exit__(self, *_: object) -> None:
        self._stream.close()

    def _put(self, batch: pa.RecordBatch) -> None:
        before, second, third, after = self._parts
        lines = pc.binary_join_element_wise(
            before,
            batch.column(0),
            second,
            batch.column(1),
            third,
            batch.column(2).cast(pa.string()),
            after,
            "",
        )
        _, _, data = lines.buffers()
        self._stream.write(data)
