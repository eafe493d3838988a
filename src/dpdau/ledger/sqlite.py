"""The ledger in a file.

SQLite in WAL with `synchronous=FULL`: a committed charge survives a power cut. A writing
transaction starts with `BEGIN IMMEDIATE`, so it never reads a state that another writer is about to
change.
"""

import sqlite3
from typing import Any, Final

from sqlalchemy import Connection, Engine, create_engine, event, exc

from dpdau.errors import LedgerConflictError, LedgerCorruptError, LedgerUnavailableError
from dpdau.ledger.dialect import ATTEMPTS_MAX, Access, Trouble
from dpdau.ledger.places import ledger_path

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


class Sqlite:
    """A file, made by `Database.create_file`.

    Args:
        url: `sqlite:///PATH`.
        lock_timeout_seconds: How long a transaction waits in all for another writer.
    """

    def __init__(self, url: str, *, lock_timeout_seconds: float) -> None:
        self.place = str(ledger_path(url))
        self._url = url
        self._lock_timeout_seconds = lock_timeout_seconds

    def make_engine(self) -> Engine:
        """See `Dialect`."""
        engine = create_engine(
            self._url,
            connect_args={
                "timeout": self._lock_timeout_seconds / ATTEMPTS_MAX,
                "check_same_thread": False,
            },
            pool_size=POOL_SIZE,
            max_overflow=POOL_OVERFLOW,
            pool_timeout=self._lock_timeout_seconds,
        )
        event.listen(engine, "connect", _configure_connection)
        return engine

    def begin(self, connection: Connection, name: str, access: Access) -> None:
        """Takes the write lock before the first read of a transaction that is not a read."""
        connection.exec_driver_sql("BEGIN" if access == "read" else "BEGIN IMMEDIATE")

    def translate(self, name: str, error: Exception) -> Trouble | None:
        """See `Dialect`."""
        cause = error.orig if isinstance(error, exc.DBAPIError) else error
        # An extended code keeps its primary code in the low byte (sqlite.org/rescode.html).
        code = getattr(cause, "sqlite_errorcode", sqlite3.SQLITE_OK) & 0xFF
        if code in _BUSY:
            message = "Expected to write to the ledger, found another writer holding it for too"
            return Trouble(LedgerConflictError(f"{message} long.", transaction=name), again=True)
        if code in _CORRUPT or _shows_damage(cause, code):
            return Trouble(
                LedgerCorruptError(
                    f"Expected a sound ledger file, found: {cause}. Put the newest good copy back "
                    "with `dpdau restore`.",
                    transaction=name,
                    path=self.place,
                )
            )
        if code in _OUTAGE:
            return Trouble(
                LedgerUnavailableError(
                    f"Expected to read and write the ledger, found: {cause}.",
                    transaction=name,
                    path=self.place,
                )
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
    # None stops the driver from opening transactions of its own; `Sqlite.begin` opens them.
    connection.isolation_level = None
    (mode,) = connection.execute("PRAGMA journal_mode=WAL").fetchone()
    assert mode == "wal", "the ledger needs write-ahead logging"
    connection.execute("PRAGMA synchronous=FULL")
    connection.execute("PRAGMA foreign_keys=ON")
    # Without it, INSERT OR REPLACE deletes a row without firing the append-only trigger.
    connection.execute("PRAGMA recursive_triggers=ON")
