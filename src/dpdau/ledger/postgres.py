"""The ledger on Postgres, shared by several replicas.

A writing transaction first takes `LOCK TABLE identity IN EXCLUSIVE MODE`: the one row of that table
is the first link of the chain, so who holds it holds the ledger. Readers are not held up by it.
Why this is right:

- Every writing transaction appends to one chain, so each must come after the one before it,
  whatever budget it charges. One lock on the chain is enough, and one lock cannot deadlock.
- `LOCK TABLE` takes no snapshot. The first statement after it does, so it sees everything that
  earlier holders committed, at READ COMMITTED and at SERIALIZABLE alike, and nothing has to be
  repeated. A `SELECT … FOR UPDATE` would at SERIALIZABLE keep the snapshot from before the wait.
- Should somebody write without the lock, two successors of one link still cannot both be
  committed: `seq` is the primary key of the chain. The loser is repeated from its start.
- Below all of it, `balances` has a CHECK that no budget is overspent, on a sum that the database
  itself adds up.

Source: PostgreSQL 18 documentation, 13.2 (isolation levels) and LOCK ("a transaction's view of data
is frozen when its first SELECT or data modification statement begins").
"""

from typing import Any, Final

from sqlalchemy import Connection, Engine, create_engine, exc

from dpdau.errors import (
    InvalidPlanError,
    InvalidSettingError,
    LedgerConflictError,
    LedgerCorruptError,
    LedgerUnavailableError,
)
from dpdau.ledger.dialect import Access, Trouble
from dpdau.ledger.places import ledger_url

POOL_SIZE: Final = 8
POOL_OVERFLOW: Final = 8
CONNECT_TIMEOUT_SECONDS: Final = 10
PATIENCE: Final[dict[str, Any]] = {
    "connect_timeout": CONNECT_TIMEOUT_SECONDS,
    "keepalives": 1,
    "keepalives_idle": 30,
    "keepalives_interval": 10,
    "keepalives_count": 3,
    "tcp_user_timeout": 60_000,
}
"""When a server that does not answer counts as gone; what the URL says comes before it."""
COPY_IDLE_SECONDS_MAX: Final = 3600.0
"""How long the source of a copy or a backup may wait while that is written and audited."""

_SCHEMA_LOCK: Final = 0x6470646175
"""Advisory, for what runs before there is a table to lock: "dpdau" as a number."""
_REPEAT: Final = frozenset({"40001", "40P01"})
_LOCK_TIMEOUT: Final = "55P03"
_STATEMENT_TIMEOUT: Final = "57014"
_UNIQUE: Final = "23505"
_DAMAGE: Final = frozenset({"XX001", "XX002", "42P01", "42703"})
"""Damaged pages; and a table or column that is missing, because the statements never change."""
_OUTAGE_CLASSES: Final = frozenset({"", "08", "25", "28", "3D", "53", "57", "58", "F0", "XX"})
_NO_PERMISSION: Final = "42501"
_COPIES: Final = frozenset({"copy_out", "backup"})
_WRONG_OPTION: Final = ("invalid connection option", "bad value for", "invalid integer value")
# Off would answer before a commit is durable; what is more than on stays.
_DURABLE: Final = (
    "SELECT set_config('synchronous_commit', 'on', true) "
    "WHERE current_setting('synchronous_commit') = 'off'"
)


class Postgres:
    """A database on a server.

    Args:
        url: `postgresql+psycopg://…`, with any option that libpq takes.
        lock_timeout_seconds: How long a transaction waits for another writer.
        statement_timeout_seconds: How long one statement may take.
    """

    def __init__(
        self, url: str, *, lock_timeout_seconds: float, statement_timeout_seconds: float
    ) -> None:
        self._url = ledger_url(url)
        # Errors go to callers, who need not know where the database is and who uses it.
        self.place = "Postgres"
        self._where = self._url.set(query={}).render_as_string(hide_password=True)
        self._lock_timeout_seconds = lock_timeout_seconds
        # For one transaction alone, because a connection may come from a pooler.
        self._limits = (
            f"SET LOCAL lock_timeout = {_milliseconds(lock_timeout_seconds)}; "
            f"SET LOCAL statement_timeout = {_milliseconds(statement_timeout_seconds)}; "
        )
        # A process that stands still in the middle of a transaction would hold the lock for ever.
        self._idle_seconds_max = statement_timeout_seconds

    def make_engine(self) -> Engine:
        """See `Dialect`; a connection is tried before it is used.

        Raises:
            InvalidSettingError: The driver is not installed, or an option is none of libpq.
        """
        patience = {name: one for name, one in PATIENCE.items() if name not in self._url.query}
        try:
            engine = create_engine(
                self._url,
                connect_args={
                    **patience,
                    "application_name": "dpdau",
                    # Whatever the URL says: a charge and its release are one transaction.
                    "autocommit": False,
                },
                hide_parameters=True,
                pool_size=POOL_SIZE,
                max_overflow=POOL_OVERFLOW,
                pool_timeout=self._lock_timeout_seconds,
                pool_pre_ping=True,
            )
        except ImportError as error:
            raise InvalidSettingError(
                "Expected the driver of Postgres for this ledger URL, found none: install the "
                "extra `postgres`, as in `pip install 'dp-dau-mau[postgres]'`."
            ) from error
        except exc.ArgumentError:
            raise _wrong_options() from None
        _require_options(engine)
        return engine

    def begin(self, connection: Connection, name: str, access: Access) -> None:
        """Names the transaction, limits it, and takes its lock or its snapshot, in one round."""
        assert name.isidentifier(), "it is put into a statement"
        idle = COPY_IDLE_SECONDS_MAX if name in _COPIES else self._idle_seconds_max
        named = (
            f"SET LOCAL application_name = 'dpdau {name}'; {self._limits}"
            f"SET LOCAL idle_in_transaction_session_timeout = {_milliseconds(idle)}; "
        )
        match access:
            case "read":
                level = "SET TRANSACTION ISOLATION LEVEL REPEATABLE READ READ ONLY; "
                connection.exec_driver_sql(level + named)
            case "write":
                lock = "LOCK TABLE identity IN EXCLUSIVE MODE; "
                connection.exec_driver_sql(named + lock + _DURABLE)
            case "schema":
                # What follows the wait must see the tables that somebody made during it.
                level = "SET TRANSACTION ISOLATION LEVEL READ COMMITTED; "
                lock = f"SELECT pg_advisory_xact_lock({_SCHEMA_LOCK}); "
                connection.exec_driver_sql(level + named + lock + _DURABLE)

    def translate(self, name: str, error: Exception) -> Trouble | None:
        """See `Dialect`."""
        cause = error.orig if isinstance(error, exc.DBAPIError) else error
        state = getattr(cause, "sqlstate", None) or ""
        found = (str(cause).strip() or "no answer").splitlines()[0]
        if state in _REPEAT or (state == _UNIQUE and "pk_entries" in str(cause)):
            message = "Expected to write to the ledger, found other writers in between each time."
            return Trouble(LedgerConflictError(message, transaction=name), again=True)
        if state == _LOCK_TIMEOUT:
            message = "Expected to write to the ledger, found another writer holding it for too"
            return Trouble(LedgerConflictError(f"{message} long.", transaction=name))
        if state in _DAMAGE:
            self._log(name, state, found)
            message = "Expected a sound ledger in Postgres, found damage or missing tables"
            return Trouble(LedgerCorruptError(f"{message}; see the log.", transaction=name))
        if isinstance(error, exc.DataError) and "NUL" in found:
            return Trouble(InvalidPlanError("Expected text without NUL characters, found one."))
        if not state and _is_wrong_option(found):
            self._log(name, state, found)
            return Trouble(_wrong_options())
        if state in (_STATEMENT_TIMEOUT, _NO_PERMISSION) or (
            isinstance(error, exc.OperationalError | exc.InterfaceError | exc.InternalError)
            and state[:2] in _OUTAGE_CLASSES
        ):
            self._log(name, state, found)
            why = "a statement timeout" if state == _STATEMENT_TIMEOUT else "that it cannot be now"
            message = (
                f"Expected to read and write the ledger in Postgres, found {why}; see the log."
            )
            return Trouble(LedgerUnavailableError(message, transaction=name))
        return None

    def _log(self, name: str, state: str, found: str) -> None:
        """What the database said, for the operator alone: it names hosts and users."""
        # Loaded where there is something to say: a ledger in a file never needs it.
        from dpdau.telemetry import log

        log("ledger").error(
            "database", transaction=name, where=self._where, state=state, found=found
        )


def _require_options(engine: Engine) -> None:
    """Refuses a URL with an option that libpq does not have."""
    from psycopg import Error, conninfo

    _, options = engine.dialect.create_connect_args(engine.url)
    try:
        conninfo.make_conninfo(**{name: one for name, one in options.items() if name != "context"})
    except Error:
        raise _wrong_options() from None


def _is_wrong_option(found: str) -> bool:
    """Whether a connection failed before it was tried, by what was asked of it."""
    said = found.removeprefix("connection is bad: ")
    return (
        said.startswith(_WRONG_OPTION)
        or any(f": {one}" in said for one in _WRONG_OPTION)
        or (said.startswith("invalid ") and " value: " in said)
    )


def _wrong_options() -> InvalidSettingError:
    return InvalidSettingError(
        "Expected options of libpq with values that it takes in the ledger URL, found others."
    )


def _milliseconds(seconds: float) -> int:
    """At least one: 0 would mean no limit."""
    return max(1, round(seconds * 1000))
