"""The database behind the ledger: one file, and one way to run a transaction.

SQLite in WAL with `synchronous=FULL`: a committed charge survives a power cut. A writing
transaction starts with `BEGIN IMMEDIATE`, so it never reads a state that another writer is about to
change.
"""

import os
import sqlite3
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final, TypeVar

from sqlalchemy import Connection, create_engine, event, exc, make_url

from dpdau.errors import (
    DpdauError,
    InvalidSettingError,
    LedgerConflictError,
    LedgerCorruptError,
    LedgerUnavailableError,
)

T = TypeVar("T")

ATTEMPTS_MAX: Final = 3
POOL_SIZE: Final = 8
POOL_OVERFLOW: Final = 56

_BUSY: Final = frozenset({sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED})
_CORRUPT: Final = frozenset({sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB})
_OUTAGE: Final = frozenset(
    {
        sqlite3.SQLITE_CANTOPEN,
        sqlite3.SQLITE_FULL,
        sqlite3.SQLITE_IOERR,
        sqlite3.SQLITE_NOMEM,
        sqlite3.SQLITE_PERM,
        sqlite3.SQLITE_PROTOCOL,
        sqlite3.SQLITE_READONLY,
    }
)
_WRITE_OPTION: Final = "dpdau_write"


def ledger_path(url: str) -> Path:
    """The file that a ledger URL names.

    Raises:
        InvalidSettingError: The URL is not `sqlite:///PATH`. A ledger in memory would forget what
            it spent, so it is refused.
    """
    try:
        parsed = make_url(url)
    except exc.ArgumentError as error:
        raise InvalidSettingError(
            "Expected a ledger URL as sqlite:///PATH, found one that cannot be parsed."
        ) from error
    # The URL may hold a password, so only its dialect is shown.
    if parsed.get_backend_name() != "sqlite" or parsed.database in (None, "", ":memory:"):
        raise InvalidSettingError(
            "Expected a ledger URL as sqlite:///PATH, found a URL of "
            f"{parsed.get_backend_name()!r} that names no file here."
        )
    if parsed.query:
        raise InvalidSettingError(
            "Expected a ledger URL as sqlite:///PATH, found one with options."
        )
    return Path(str(parsed.database))


def make_private_folder(folder: Path) -> None:
    """Makes a folder and its missing parents, each 0700."""
    if folder.is_dir():
        return
    make_private_folder(folder.parent)
    folder.mkdir(mode=0o700, exist_ok=True)


class Database:
    """A pool of connections and the one way to use them.

    Args:
        url: `sqlite:///PATH`.
        busy_timeout_seconds: How long `run` waits in all for another writer.
    """

    def __init__(self, url: str, *, busy_timeout_seconds: float) -> None:
        self.path = ledger_path(url)
        self._inside = threading.local()
        self._engine = create_engine(
            url,
            connect_args={
                "timeout": busy_timeout_seconds / ATTEMPTS_MAX,
                "check_same_thread": False,
            },
            pool_size=POOL_SIZE,
            max_overflow=POOL_OVERFLOW,
            pool_timeout=busy_timeout_seconds,
        )
        event.listen(self._engine, "connect", _configure_connection)
        event.listen(self._engine, "begin", _begin)

    def create_file(self) -> None:
        """Makes the file if it is missing: 0600, in folders of 0700, and durable by name.

        Raises:
            LedgerUnavailableError: It cannot be made.
        """
        try:
            make_private_folder(self.path.parent)
            os.close(os.open(self.path, os.O_CREAT | os.O_RDWR, 0o600))
            folder = os.open(self.path.parent, os.O_RDONLY)
            try:
                os.fsync(folder)
            finally:
                os.close(folder)
        except OSError as error:
            raise LedgerUnavailableError(
                f"Expected to create the ledger, found {error.strerror}.", path=str(self.path)
            ) from error

    def run(self, name: str, work: Callable[[Connection], T], *, write: bool = True) -> T:
        """Runs one transaction: commits when `work` returns, rolls back when it raises.

        A transaction that meets another writer is run again from its start, at most
        `ATTEMPTS_MAX` times, so `work` must be safe to repeat.

        Args:
            name: What the transaction is for, as shown in an error.
            work: The statements. It must not open another transaction on this database.
            write: False takes a read snapshot and never waits for a writer.

        Raises:
            LedgerConflictError: Another writer held the ledger for too long; nothing was written.
            LedgerCorruptError: The file is not a sound database.
            LedgerUnavailableError: The file cannot be read or written.
        """
        assert not getattr(self._inside, "name", None), "a transaction inside a transaction"
        for attempt in range(1, ATTEMPTS_MAX + 1):
            try:
                return self._attempt(name, work, write=write)
            except (exc.DBAPIError, exc.TimeoutError, sqlite3.Error) as error:
                translated = self._translate(name, error)
                if translated is None:
                    raise
                busy = isinstance(translated, LedgerConflictError)
                if not busy or attempt == ATTEMPTS_MAX:
                    raise translated from error
        raise AssertionError("the last attempt returns or raises")

    def close(self) -> None:
        """Closes every connection; may be called twice."""
        self._engine.dispose()

    def _attempt(self, name: str, work: Callable[[Connection], T], *, write: bool) -> T:
        """One try of one transaction."""
        with self._engine.connect() as connection:
            connection.execution_options(**{_WRITE_OPTION: write})
            self._inside.name = name
            try:
                with connection.begin():
                    return work(connection)
            finally:
                self._inside.name = None

    def _translate(self, name: str, error: Exception) -> DpdauError | None:
        """The error of ours that a foreign one means; None where only a bug can cause it."""
        if isinstance(error, exc.TimeoutError):
            return LedgerConflictError(
                "Expected a free connection to the ledger, found none in time.", transaction=name
            )
        cause = error.orig if isinstance(error, exc.DBAPIError) else error
        # An extended code keeps its primary code in the low byte (sqlite.org/rescode.html).
        code = getattr(cause, "sqlite_errorcode", sqlite3.SQLITE_OK) & 0xFF
        if code in _BUSY:
            return LedgerConflictError(
                "Expected to write to the ledger, found another writer holding it for too long.",
                transaction=name,
            )
        if code in _CORRUPT or _shows_damage(cause, code):
            return LedgerCorruptError(
                f"Expected a sound ledger file, found: {cause}. Put the newest good copy back "
                "with `dpdau restore`.",
                transaction=name,
                path=str(self.path),
            )
        if code in _OUTAGE:
            return LedgerUnavailableError(
                f"Expected to read and write the ledger, found: {cause}.",
                transaction=name,
                path=str(self.path),
            )
        return None


def _shows_damage(cause: BaseException | None, code: int) -> bool:
    """Whether an error without a code of its own can only come from a damaged file."""
    if not isinstance(cause, sqlite3.OperationalError):
        return False
    # The driver itself raises without a code, for a text that is not UTF-8. The statements here
    # never change, so a table or column that is missing was taken out of the file.
    missing = code == sqlite3.SQLITE_ERROR and str(cause).startswith("no such ")
    return code == sqlite3.SQLITE_OK or missing


def _configure_connection(connection: Any, _record: object) -> None:
    """Durable, strict, and with transactions under our control, on every new connection."""
    # None stops the driver from opening transactions of its own; `_begin` opens them.
    connection.isolation_level = None
    (mode,) = connection.execute("PRAGMA journal_mode=WAL").fetchone()
    assert mode == "wal", "the ledger needs write-ahead logging"
    connection.execute("PRAGMA synchronous=FULL")
    connection.execute("PRAGMA foreign_keys=ON")
    # Without it, INSERT OR REPLACE deletes a row without firing the append-only trigger.
    connection.execute("PRAGMA recursive_triggers=ON")


def _begin(connection: Connection) -> None:
    """Takes the write lock before the first read of a writing transaction."""
    write = connection.get_execution_options()[_WRITE_OPTION]
    connection.exec_driver_sql("BEGIN IMMEDIATE" if write else "BEGIN")
