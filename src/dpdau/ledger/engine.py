"""The database behind the ledger, and the one way to run a transaction."""

import os
import sqlite3
import threading
import time
from collections.abc import Callable
from contextlib import nullcontext
from typing import TYPE_CHECKING, Final, TypeVar

from sqlalchemy import Connection, exc

from dpdau.errors import (
    DpdauError,
    InvalidSettingError,
    LedgerConflictError,
    LedgerUnavailableError,
)
from dpdau.ledger.dialect import ATTEMPTS_MAX, Access, Dialect
from dpdau.ledger.places import ledger_file, make_private_folder
from dpdau.ledger.postgres import Postgres
from dpdau.ledger.sqlite import Sqlite

if TYPE_CHECKING:
    from dpdau.telemetry import Metrics

T = TypeVar("T")

STATEMENT_TIMEOUT_SECONDS: Final = 60.0


class Database:
    """A pool of connections and the one way to use them.

    Args:
        url: `sqlite:///PATH` or `postgresql+psycopg://…`.
        busy_timeout_seconds: How long `run` waits for another writer.
        statement_timeout_seconds: How long one statement may take on a server.
        metrics: Counts and times the transactions, where somebody reads it.

    Raises:
        InvalidSettingError: The URL is not one of a ledger, or its driver is not installed.
    """

    def __init__(
        self,
        url: str,
        *,
        busy_timeout_seconds: float,
        statement_timeout_seconds: float = STATEMENT_TIMEOUT_SECONDS,
        metrics: "Metrics | None" = None,
    ) -> None:
        self.path = ledger_file(url)
        self._dialect: Dialect = (
            Sqlite(url, lock_timeout_seconds=busy_timeout_seconds)
            if self.path is not None
            else Postgres(
                url,
                lock_timeout_seconds=busy_timeout_seconds,
                statement_timeout_seconds=statement_timeout_seconds,
            )
        )
        self.place = self._dialect.place
        self._inside = threading.local()
        self._metrics = metrics
        self._engine = self._dialect.make_engine()

    @property
    def dialect_name(self) -> str:
        """`sqlite` or `postgresql`."""
        return self._engine.dialect.name

    def create_file(self) -> None:
        """Makes the file if it is missing: 0600, in folders of 0700, and durable by name.

        A database on a server is made by whoever looks after the server.

        Raises:
            LedgerUnavailableError: It cannot be made.
        """
        self._make_file(os.O_CREAT | os.O_RDWR)

    def create_new_file(self) -> None:
        """As `create_file`, for a file that is not there: of all who try at once, one makes it.

        Raises:
            InvalidSettingError: It is there.
            LedgerUnavailableError: It cannot be made.
        """
        self._make_file(os.O_CREAT | os.O_EXCL | os.O_RDWR)

    def _make_file(self, flags: int) -> None:
        if self.path is None:
            return
        try:
            make_private_folder(self.path.parent)
            os.close(os.open(self.path, flags, 0o600))
            folder = os.open(self.path.parent, os.O_RDONLY)
            try:
                os.fsync(folder)
            finally:
                os.close(folder)
        except OSError as error:
            if isinstance(error, FileExistsError) and os.path.lexists(self.path):
                raise InvalidSettingError(
                    f"Expected a new file for the ledger, found one at {self.path}."
                ) from error
            raise LedgerUnavailableError(
                f"Expected to create the ledger, found {error.strerror}.", path=str(self.path)
            ) from error

    def run(
        self,
        name: str,
        work: Callable[[Connection], T],
        *,
        write: bool = True,
        schema: bool = False,
    ) -> T:
        """Runs one transaction: commits when `work` returns, rolls back when it raises.

        A transaction that meets another writer is run again from its start, at most
        `ATTEMPTS_MAX` times, so `work` must be safe to repeat.

        Args:
            name: What the transaction is for, as shown in an error, in the metrics, and by a
                server to whoever asks what is running.
            work: The statements. It must not open another transaction on this database.
            write: False takes a read snapshot and never waits for a writer.
            schema: True where `work` changes the tables, which may not be there yet.

        Raises:
            LedgerConflictError: Another writer held the ledger for too long; nothing was written.
            LedgerCorruptError: The database is not sound.
            LedgerUnavailableError: It cannot be read or written. Where the connection broke while
                the transaction was committed, it is there as a whole or not at all.
        """
        assert not getattr(self._inside, "name", None), "a transaction inside a transaction"
        access: Access = "schema" if schema else "write" if write else "read"
        started, outcome = time.perf_counter(), "failed"
        try:
            with nullcontext() if self._metrics is None else self._metrics.span(f"ledger {name}"):
                result = self._repeated(name, work, access)
            outcome = "done"
            return result
        except DpdauError as error:
            outcome = error.code
            raise
        finally:
            if self._metrics is not None:
                self._metrics.transacted(name, outcome, time.perf_counter() - started)

    def close(self) -> None:
        """Closes every connection; may be called twice."""
        self._engine.dispose()

    def _repeated(self, name: str, work: Callable[[Connection], T], access: Access) -> T:
        """One transaction, in as many attempts as it needs and may have."""
        for attempt in range(1, ATTEMPTS_MAX + 1):
            try:
                return self._attempt(name, work, access)
            except exc.TimeoutError as error:
                raise LedgerConflictError(
                    "Expected a free connection to the ledger, found none in time.",
                    transaction=name,
                ) from error
            except (exc.DBAPIError, sqlite3.Error) as error:
                trouble = self._dialect.translate(name, error)
                if trouble is None:
                    raise
                if not trouble.again or attempt == ATTEMPTS_MAX:
                    raise trouble.error from error
        raise AssertionError("the last attempt returns or raises")

    def _attempt(self, name: str, work: Callable[[Connection], T], access: Access) -> T:
        """One try of one transaction."""
        with self._engine.connect() as connection:
            self._inside.name = name
            try:
                with connection.begin():
                    self._dialect.begin(connection, name, access)
                    return work(connection)
            finally:
                self._inside.name = None
