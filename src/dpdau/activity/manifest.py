"""The SQLite manifest: which files are the store, and everything that is small.

One transaction moves the store from one complete state to the next: it names finished files and
never waits for them. Values of dimensions, sources, batch ids and day states are kept in the
clear, also under a store key; rows about people are sealed before they come here.
"""

import contextlib
import dataclasses
import datetime as dt
import json
import os
import sqlite3
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from dpdau.activity.held import PlanMonth
from dpdau.activity.lake_table import LakeTable
from dpdau.activity.memory import Memory
from dpdau.activity.receipts import RECEIPTS_SCHEMA, RECEIPTS_VERSION, ReceiptTable
from dpdau.activity.sealing import Sealer
from dpdau.activity.segments import SegmentFile
from dpdau.activity.today import LIVE_SCHEMA, LIVE_VERSION, LiveTable
from dpdau.domain import day_number
from dpdau.errors import (
    SchemaVersionError,
    SecretMismatchError,
    StoreCorruptError,
    StoreUnavailableError,
)

SCHEMA_VERSION: Final = RECEIPTS_VERSION
UNSPLIT: Final = -1
"""The part of a file that holds one commit and is not yet cut by key."""
_BUSY_TIMEOUT_SECONDS: Final = 5.0
_KEY_CHECK: Final = "key check"
_SCHEMA: Final = """
CREATE TABLE meta (name TEXT PRIMARY KEY, value BLOB NOT NULL) STRICT;
CREATE TABLE segments (
    name TEXT PRIMARY KEY, kind TEXT NOT NULL, part INTEGER NOT NULL, seq INTEGER NOT NULL,
    rows INTEGER NOT NULL, size INTEGER NOT NULL,
    group_min INTEGER NOT NULL, group_max INTEGER NOT NULL,
    UNIQUE (kind, part, seq)
) STRICT;
CREATE TABLE pending (
    kind TEXT NOT NULL, seq INTEGER NOT NULL, rows INTEGER NOT NULL, payload BLOB NOT NULL,
    PRIMARY KEY (kind, seq)
) STRICT;
CREATE TABLE batches (batch_id TEXT PRIMARY KEY, applied_on INTEGER NOT NULL) STRICT;
CREATE INDEX batches_applied_on ON batches (applied_on);
CREATE TABLE offsets (source TEXT PRIMARY KEY, value INTEGER NOT NULL) STRICT;
CREATE TABLE closed_days (day INTEGER PRIMARY KEY) STRICT;
CREATE TABLE dimensions (id INTEGER PRIMARY KEY, name TEXT NOT NULL UNIQUE) STRICT;
CREATE TABLE dimension_values (
    dimension INTEGER NOT NULL REFERENCES dimensions, code INTEGER NOT NULL, value TEXT NOT NULL,
    PRIMARY KEY (dimension, code), UNIQUE (dimension, value)
) STRICT;
CREATE TABLE erasures (
    erasure_id TEXT PRIMARY KEY, days_touched INTEGER NOT NULL, done_at TEXT NOT NULL
) STRICT;
"""
_MONTHS_VERSION: Final = 2
_MONTHS_SCHEMA: Final = """
CREATE TABLE plan_months (
    month INTEGER PRIMARY KEY, lookback_days INTEGER NOT NULL, dimensions TEXT NOT NULL,
    frozen_through INTEGER, ended INTEGER NOT NULL
) STRICT;
CREATE TABLE month_secrets (
    month INTEGER PRIMARY KEY REFERENCES plan_months, body BLOB NOT NULL
) STRICT;
"""
_LATER: Final = (
    (_MONTHS_VERSION, _MONTHS_SCHEMA),
    (LIVE_VERSION, LIVE_SCHEMA),
    (RECEIPTS_VERSION, RECEIPTS_SCHEMA),
)
"""What each version after the first added."""


@dataclass(frozen=True, slots=True)
class SegmentRef:
    """A file that is part of the store; a larger `seq` is newer."""

    kind: str
    part: int
    seq: int
    file: SegmentFile


@dataclass(frozen=True, slots=True)
class PendingRef:
    """A small commit that lives in the manifest."""

    kind: str
    seq: int
    rows: int


class Manifest:
    """One connection to the manifest; the caller keeps it to one thread at a time."""

    def __init__(self, path: Path, sealer: Sealer, *, read_only: bool) -> None:
        mode = "ro" if read_only else "rw"
        self._db = sqlite3.connect(
            f"{path.resolve().as_uri()}?mode={mode}",
            uri=True,
            timeout=_BUSY_TIMEOUT_SECONDS,
            isolation_level=None,
            check_same_thread=False,
        )
        self._version = 0
        self._memory = Memory(on=not read_only)
        self.live: Final = LiveTable(self._db)
        self.receipts: Final = ReceiptTable(self._db)
        self.lake: Final = LakeTable(self._db)
        try:
            self._db.execute("PRAGMA synchronous = FULL")
            # Freed pages are overwritten, so that what is forgotten is not left in the file.
            self._db.execute("PRAGMA secure_delete = ON")
            self._db.execute("PRAGMA foreign_keys = ON")
            self._check(sealer)
            if not read_only:
                self._migrate()
        except BaseException:
            self._db.close()
            raise

    @staticmethod
    def create(path: Path, sealer: Sealer, *, lake: str | None = None) -> None:
        """Makes an empty manifest, complete or not at all; one caller at a time."""
        os.close(os.open(path, os.O_WRONLY | os.O_CREAT, 0o600))
        db = sqlite3.connect(path, isolation_level=None)
        try:
            db.execute("PRAGMA journal_mode = WAL")
            db.execute("PRAGMA synchronous = FULL")
            db.execute("BEGIN IMMEDIATE")
            for statement in (_SCHEMA + "".join(text for _, text in _LATER)).split(";\n"):
                db.execute(statement)
            db.execute("INSERT INTO meta VALUES ('seq', ?)", (b"0",))
            check = sealer.for_file(_KEY_CHECK).seal(b"dpdau", _KEY_CHECK)
            db.execute("INSERT INTO meta VALUES ('key_check', ?)", (check,))
            LakeTable(db).create(lake)
            db.execute(f"PRAGMA user_version = {SCHEMA_VERSION}")
            db.execute("COMMIT")
        finally:
            db.close()

    @staticmethod
    def exists(path: Path) -> bool:
        """Whether a complete manifest is there."""
        if not path.exists():
            return False
        db = sqlite3.connect(f"{path.resolve().as_uri()}?mode=ro", uri=True)
        try:
            return bool(db.execute("PRAGMA user_version").fetchone()[0])
        finally:
            db.close()

    def close(self) -> None:
        """Closes the connection; may be called twice."""
        self._db.close()

    @contextlib.contextmanager
    def writing(self, *, only_adds: bool = False) -> Iterator[None]:
        """One durable transaction: all of it or nothing.

        Args:
            only_adds: It adds rows, batches and offsets alone; then what is remembered stays.
        """
        if not only_adds:
            self._memory.clear()
        self._db.execute("BEGIN IMMEDIATE")
        try:
            yield
            self._db.execute("COMMIT")
        except BaseException:
            self._memory.clear()
            if self._db.in_transaction:
                self._db.execute("ROLLBACK")
            raise
        if not only_adds:
            self._memory.clear()

    @contextlib.contextmanager
    def reading(self) -> Iterator[None]:
        """One consistent view."""
        self._db.execute("BEGIN")
        try:
            yield
        finally:
            self._db.execute("ROLLBACK")

    def truncate_log(self) -> None:
        """Empties the write-ahead log, so that no deleted row is left in it.

        Raises:
            StoreUnavailableError: A reader held it for too long.
        """
        busy, _log, _done = self._db.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()
        if busy:
            raise StoreUnavailableError(
                "Expected to empty the write-ahead log, found a reader that still uses it; retry."
            )

    def damage(self) -> list[str]:
        """What the database finds wrong with its own file."""
        found = [str(row[0]) for row in self._db.execute("PRAGMA integrity_check")]
        return [] if found == ["ok"] else [f"manifest.sqlite: {one}" for one in found]

    def segments(self) -> list[SegmentRef]:
        """All files, oldest first."""
        rows = self._db.execute(
            "SELECT kind, part, seq, name, rows, size, group_min, group_max"
            " FROM segments ORDER BY seq"
        )
        return [SegmentRef(kind, part, seq, SegmentFile(*rest)) for kind, part, seq, *rest in rows]

    def pending(self) -> list[PendingRef]:
        """All small commits, oldest first."""
        rows = self._db.execute("SELECT kind, seq, rows FROM pending ORDER BY seq")
        return [PendingRef(*row) for row in rows]

    def payload(self, ref: PendingRef) -> bytes:
        """The sealed rows of a small commit."""
        row = self._db.execute(
            "SELECT payload FROM pending WHERE kind = ? AND seq = ?", (ref.kind, ref.seq)
        ).fetchone()
        assert row is not None, "a payload is read in the transaction that listed it"
        return bytes(row[0])

    def take_seq(self) -> int:
        """The next commit number; numbers are never used twice."""
        seq = self.last_seq() + 1
        self._db.execute("UPDATE meta SET value = ? WHERE name = 'seq'", (b"%d" % seq,))
        self._memory.put(("seq",), seq)
        return seq

    def last_seq(self) -> int:
        """The newest commit number."""
        return self._memory.get(("seq",), self._read_seq)

    def _read_seq(self) -> int:
        # A commit that only adds is in `pending` alone; what takes it out of there has a number.
        row = self._db.execute(
            "SELECT max((SELECT CAST(value AS INTEGER) FROM meta WHERE name = 'seq'),"
            " (SELECT coalesce(max(seq), 0) FROM pending))"
        ).fetchone()
        return int(row[0])

    def live_day(self) -> int | None:
        """The day number that is live now, or None."""
        return self._memory.get(("live",), self.live.day)

    def add_segment(self, ref: SegmentRef) -> None:
        """Names a finished file."""
        file = ref.file
        self._db.execute(
            "INSERT INTO segments (kind, part, seq, name, rows, size, group_min, group_max)"
            " VALUES (?, ?, ?, ?, ?, ?, ?, ?)",
            (ref.kind, ref.part, ref.seq, *dataclasses.astuple(file)),
        )

    def drop_segments(self, names: Iterable[str]) -> None:
        """Forgets files."""
        self._db.executemany("DELETE FROM segments WHERE name = ?", [(name,) for name in names])

    def add_pending(self, ref: PendingRef, payload: bytes) -> None:
        """Stores a small commit."""
        self._db.execute(
            "INSERT INTO pending VALUES (?, ?, ?, ?)", (ref.kind, ref.seq, ref.rows, payload)
        )

    def append(self, commit: Sequence[tuple[PendingRef, bytes]]) -> None:
        """Stores a small commit that takes a new number and changes nothing else; durable.

        One statement is one transaction, and lets the other threads of the process run once: with
        a statement for each of its steps, a commit would wait for them as many times.
        """
        values = ", ".join(["(?, ?, ?, ?)"] * len(commit))
        row = [cell for ref, body in commit for cell in (ref.kind, ref.seq, ref.rows, body)]
        self._db.execute(f"INSERT INTO pending VALUES {values}", row)  # noqa: S608
        self._memory.put(("seq",), max(ref.seq for ref, _body in commit))

    def drop_pending(self, refs: Iterable[PendingRef]) -> None:
        """Removes small commits."""
        seqs: dict[str, list[int]] = {}
        for one in refs:
            seqs.setdefault(one.kind, []).append(one.seq)
        # One statement lets the other threads of the process run once, and not for each commit.
        for kind, some in seqs.items():
            self._db.execute(
                "DELETE FROM pending WHERE kind = ? AND seq IN (SELECT value FROM json_each(?))",
                (kind, json.dumps(some)),
            )

    def batch_applied(self, batch_id: str) -> bool:
        """Whether this batch was applied before."""
        found = self._db.execute("SELECT 1 FROM batches WHERE batch_id = ?", (batch_id,))
        return found.fetchone() is not None

    def add_batch(self, batch_id: str, on: dt.date) -> None:
        """Remembers an applied batch."""
        self._db.execute("INSERT INTO batches VALUES (?, ?)", (batch_id, day_number(on)))

    def prune_batches(self, before: dt.date) -> None:
        """Forgets batches applied before a day."""
        self._db.execute("DELETE FROM batches WHERE applied_on < ?", (day_number(before),))

    def set_offsets(self, offsets: Mapping[str, int]) -> None:
        """Stores the last offset of each source; a negative one forgets the source."""
        self._db.executemany(
            "DELETE FROM offsets WHERE source = ?",
            [(source,) for source, value in offsets.items() if value < 0],
        )
        self._db.executemany(
            "INSERT INTO offsets VALUES (?, ?)"
            " ON CONFLICT (source) DO UPDATE SET value = excluded.value",
            [(source, value) for source, value in offsets.items() if value >= 0],
        )

    def offset(self, source: str) -> int | None:
        """The last offset of a source, or None."""
        row = self._db.execute("SELECT value FROM offsets WHERE source = ?", (source,)).fetchone()
        return None if row is None else int(row[0])

    def close_day(self, day: int) -> None:
        """Marks a day as released."""
        self._db.execute("INSERT OR IGNORE INTO closed_days VALUES (?)", (day,))

    def has_closed_days(self) -> bool:
        """Whether any day is marked as released."""
        return self._db.execute("SELECT 1 FROM closed_days LIMIT 1").fetchone() is not None

    def closed_days(self, first: int, last: int) -> list[int]:
        """The released day numbers of a range."""

        def ask() -> list[int]:
            rows = self._db.execute(
                "SELECT day FROM closed_days WHERE day BETWEEN ? AND ?", (first, last)
            )
            return [int(day) for (day,) in rows]

        return self._memory.get(("closed", first, last), ask)

    def dimensions(self) -> dict[str, int]:
        """Dimension → id."""

        def ask() -> dict[str, int]:
            return {name: int(id_) for id_, name in self._db.execute("SELECT * FROM dimensions")}

        return dict(self._memory.get(("dimensions",), ask))

    def values(self, dimension: int) -> list[str]:
        """The values of a dimension, sorted."""
        rows = self._db.execute(
            "SELECT value FROM dimension_values WHERE dimension = ? ORDER BY value", (dimension,)
        )
        return [value for (value,) in rows]

    def value_code(self, dimension: int, value: str) -> int | None:
        """The code of one value, or None."""

        def ask() -> int | None:
            row = self._db.execute(
                "SELECT code FROM dimension_values WHERE dimension = ? AND value = ?",
                (dimension, value),
            ).fetchone()
            return None if row is None else int(row[0])

        return self._memory.get(("value", dimension, value), ask)

    def next_code(self, dimension: int) -> int:
        """The code for the next new value; codes count from 0 and none is ever dropped."""

        def ask() -> int:
            row = self._db.execute(
                "SELECT max(code) FROM dimension_values WHERE dimension = ?", (dimension,)
            ).fetchone()
            return 0 if row[0] is None else int(row[0]) + 1

        return self._memory.get(("next", dimension), ask)

    def add_dimension(self, dimension: int, name: str) -> None:
        """Adds a dimension."""
        self._memory.clear()
        self._db.execute("INSERT INTO dimensions VALUES (?, ?)", (dimension, name))

    def add_value(self, dimension: int, code: int, value: str) -> None:
        """Adds a value of a dimension."""
        self._memory.clear()
        self._db.execute("INSERT INTO dimension_values VALUES (?, ?, ?)", (dimension, code, value))

    def open_months(self) -> list[PlanMonth]:
        """The months that were opened and not ended, oldest first."""

        def ask() -> list[PlanMonth]:
            if not self._has_months():
                return []
            rows = self._db.execute("SELECT * FROM plan_months WHERE NOT ended ORDER BY month")
            return [_plan_month(row) for row in rows]

        return self._memory.get(("months",), ask)

    def month(self, month: int) -> PlanMonth | None:
        """A month that was ever opened, or None."""
        if not self._has_months():
            return None
        found = self._db.execute("SELECT * FROM plan_months WHERE month = ?", (month,))
        row = found.fetchone()
        return None if row is None else _plan_month(row)

    def put_month(self, month: PlanMonth) -> None:
        """Stores a month, in place of what was known of it."""
        first, last = (month.month, month.lookback_days), (month.frozen_through, month.ended)
        self._db.execute(
            "INSERT INTO plan_months VALUES (?, ?, ?, ?, ?) ON CONFLICT (month) DO UPDATE"
            " SET frozen_through = excluded.frozen_through, ended = excluded.ended",
            (*first, json.dumps(month.dimensions), *last),
        )

    def drop_month(self, month: int) -> None:
        """Forgets that a month was opened."""
        self._db.execute("DELETE FROM plan_months WHERE month = ?", (month,))

    def secret(self, month: int) -> bytes | None:
        """The sealed secret of a month, or None."""
        if not self._has_months():
            return None
        found = self._db.execute("SELECT body FROM month_secrets WHERE month = ?", (month,))
        row = found.fetchone()
        return None if row is None else bytes(row[0])

    def add_secret(self, month: int, body: bytes) -> None:
        """Stores the sealed secret of a month."""
        self._db.execute("INSERT INTO month_secrets VALUES (?, ?)", (month, body))

    def drop_secret(self, month: int) -> None:
        """Removes the secret of a month."""
        self._db.execute("DELETE FROM month_secrets WHERE month = ?", (month,))

    def probe(self, moment: dt.datetime) -> None:
        """Writes a row that says when a write was last proven."""
        self._db.execute(
            "INSERT INTO meta VALUES ('probed_at', ?)"
            " ON CONFLICT (name) DO UPDATE SET value = excluded.value",
            (moment.isoformat().encode(),),
        )

    def _read_version(self) -> int:
        """The schema that the file has now."""
        return int(self._db.execute("PRAGMA user_version").fetchone()[0])

    def _has_months(self) -> bool:
        """Whether the file knows months; the writer may bring it up to date while others read."""
        if self._version < _MONTHS_VERSION:
            self._version = self._read_version()
        return self._version >= _MONTHS_VERSION

    def _migrate(self) -> None:
        """Brings an older file up to date; the caller is the only writer."""
        if self._read_version() == SCHEMA_VERSION:
            return
        missing = [text for version, text in _LATER if version > self._read_version()]
        with self.writing():
            for statement in "".join(missing).split(";\n"):
                self._db.execute(statement)
            self._db.execute(f"PRAGMA user_version = {SCHEMA_VERSION}")
        self._version = SCHEMA_VERSION

    def _check(self, sealer: Sealer) -> None:
        """Refuses a newer schema and another store key."""
        version = self._version = self._read_version()
        if version > SCHEMA_VERSION:
            raise SchemaVersionError(
                f"Expected activity schema {SCHEMA_VERSION} or older, found {version}.",
                expected=SCHEMA_VERSION,
                found=version,
            )
        row = self._db.execute("SELECT value FROM meta WHERE name = 'key_check'").fetchone()
        try:
            sealer.for_file(_KEY_CHECK).open(bytes(row[0]), _KEY_CHECK)
        except StoreCorruptError:
            expected = "the store key" if sealer.keyed else "the absence of a store key"
            raise SecretMismatchError(
                f"Expected {expected} to match the activity store, found that it was written"
                " under another choice."
            ) from None


def _plan_month(row: tuple[Any, ...]) -> PlanMonth:
    """A row of `plan_months`."""
    month, lookback_days, dimensions, frozen_through, ended = row
    return PlanMonth(
        month, lookback_days, tuple(json.loads(dimensions)), frozen_through, bool(ended)
    )
