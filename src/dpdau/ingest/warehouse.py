"""Events that lie where an engine can be asked about them, counted for one month where they are.

`ENGINE://…?table=NAME` names a table of a warehouse; what stands before `?table=` is the engine's
own URL as Ibis and the engine read it. What a Spark reaches is in `ingest.warehouse_spark`. The
heavy work is the engine's: a page of numbers comes back, and nothing is written, here or there.
"""

import importlib
import ipaddress
import threading
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final, Protocol, TypeVar
from urllib.parse import SplitResult, parse_qsl, unquote, urlsplit

from dpdau.errors import (
    DpdauError,
    InvalidSettingError,
    NotFoundError,
    TooLargeError,
    UnsupportedMediaError,
    WarehouseUnavailableError,
)
from dpdau.ingest.event_file import Counted
from dpdau.ingest.event_tables import MonthSpan
from dpdau.ingest.rules import Rules
from dpdau.ingest.warehouse_query import EventsQuery, table_of, taken_and_refused

__all__ = ["Connected", "Place", "TableAddress", "Warehouse"]

T = TypeVar("T")
Connected = tuple[Any, Callable[[], object] | None]
"""A backend of Ibis, and what ends its running query, for another thread, if there is such."""

CONNECT_SECONDS: Final = 30
TLS_MODES: Final = ("require", "verify-ca", "verify-full")
_ENGINES: Final = {
    "duckdb": "duckdb",
    "postgres": "postgres",
    "postgresql": "postgres",
    "pyspark": "pyspark",
    "bigquery": "bigquery",
    "snowflake": "snowflake",
    "clickhouse": "clickhouse",
}
# The roots of what each engine's own libraries raise.
_ERRORS: Final[dict[str, tuple[str, ...]]] = {
    "duckdb": ("duckdb:Error",),
    "postgres": ("psycopg:Error",),
    "bigquery": (
        "google.api_core.exceptions:GoogleAPIError",
        "google.auth.exceptions:GoogleAuthError",
    ),
    "snowflake": ("snowflake.connector.errors:Error",),
    "clickhouse": ("clickhouse_connect.driver.exceptions:ClickHouseError",),
}
_NOT_FOUND: Final = frozenset({"TableNotFound", "UndefinedTable", "InvalidSchemaName"})
_DUCKDB: Final[dict[str, str | bool | int | float | list[str]]] = {
    # What an interrupted query leaves in such a folder would be ids of users.
    "temp_directory": "",
    "autoinstall_known_extensions": "false",
}


class Place(Protocol):
    """Where events lie, and who can be asked about them."""

    @property
    def engine(self) -> str:
        """The engine, as Ibis calls it."""

    @property
    def name(self) -> str:
        """What they are called, to be shown."""

    def errors(self) -> tuple[type[Exception], ...]:
        """What the engine's own libraries raise; it may quote rows, or the address.

        Raises:
            InvalidSettingError: One is not installed.
        """

    def connected(self) -> AbstractContextManager[Connected]:
        """A connection for as long as it is asked."""

    def events(self, backend: Any) -> Any:
        """The events, as a table of Ibis."""

    def failure(self, error: Exception) -> DpdauError:
        """What an error of the engine means, in words that quote nothing of it."""


@dataclass(frozen=True, slots=True)
class TableAddress:
    """Where a table is; its words are never shown, for they may hold a password.

    Args:
        engine: The engine, as Ibis calls it.
        url: The engine's own URL, without the table.
        table: The name, perhaps after a schema and a catalog.
    """

    engine: str
    url: str = field(repr=False)
    table: tuple[str, ...]

    @classmethod
    def parse(cls, text: str) -> "TableAddress":
        """Reads `ENGINE://…?table=NAME`.

        Raises:
            InvalidSettingError: It has another form, or would send the counts over a network
                without TLS.
        """
        parts, query = None, []
        with suppress(ValueError):
            parts = urlsplit(text)
            query = parse_qsl(parts.query, keep_blank_values=True)
        names = [value for key, value in query if key == "table"]
        engine = None if parts is None else _ENGINES.get(parts.scheme)
        if parts is None or engine is None or len(names) != 1:
            raise InvalidSettingError(
                "Expected --events as ENGINE://…?table=NAME with an engine of"
                f" {', '.join(_ENGINES)}, found something else."
            )
        table = tuple(names[0].split("."))
        if not 1 <= len(table) <= 3 or not all(table):
            raise InvalidSettingError(
                "Expected table=NAME, SCHEMA.NAME or CATALOG.SCHEMA.NAME, found something else."
            )
        # As they came: encoded again, a blank would be a plus, which libpq takes for itself.
        kept = [one for one in parts.query.split("&") if unquote(one.partition("=")[0]) != "table"]
        # Not by `urlunsplit`, which takes the slashes of a socket's address for nothing.
        url = "?".join(filter(None, (text.partition("?")[0], "&".join(kept))))
        address = cls(engine, url, table)
        address.require_tls(parts, {key: value for key, value in query if key != "table"})
        return address

    @property
    def name(self) -> str:
        """The name of the table, without the address."""
        return f"the table {'.'.join(self.table)}"

    @property
    def path(self) -> Path:
        """The file of a DuckDB database: `duckdb:///absolute` or `duckdb://relative`."""
        parts = urlsplit(self.url)
        return Path(unquote(parts.netloc + parts.path))

    def require_tls(self, parts: SplitResult, options: dict[str, str]) -> None:
        """Refuses an address whose answers would be readable on the way.

        Raises:
            InvalidSettingError: It names another machine and does not ask for TLS.
        """
        if self.engine == "postgres":
            hosts = [parts.hostname or "", *options.get("host", "").split(",")]
            hosts += [*(parts.netloc.rpartition("@")[2]).split(",")]
            hosts += options.get("hostaddr", "").split(",")
            safe = all(_is_here(_without_port(one)) for one in hosts)
            if not safe and options.get("sslmode") not in TLS_MODES:
                raise InvalidSettingError(
                    "Expected sslmode=require, verify-ca or verify-full for a Postgres on another"
                    " machine, found none of them: the exact counts would be readable on the way."
                )
        # Ibis takes any option of the driver, and does not hand `secure` on to it.
        if self.engine == "clickhouse" and (options or not _is_here(parts.hostname or "")):
            raise InvalidSettingError(
                "Expected a ClickHouse on this machine, without options, as through a tunnel;"
                " found another: the exact counts could be readable on the way."
            )
        if options.get("protocol", "").lower() == "http" and self.engine == "snowflake":
            raise InvalidSettingError("Expected a Snowflake over HTTPS, found protocol=http.")

    def errors(self) -> tuple[type[Exception], ...]:
        """See `Place.errors`."""
        modules = (text.partition(":") for text in _ERRORS[self.engine])
        return tuple(getattr(loaded(name, self.engine), root) for name, _, root in modules)

    def connected(self) -> AbstractContextManager[Connected]:
        """See `Place.connected`."""
        if self.engine == "duckdb":
            return _duckdb(self.path)
        if self.engine == "postgres":
            return _postgres(self.url)
        return _other(self.url)

    def events(self, backend: Any) -> Any:
        """See `Place.events`."""
        return table_at(backend, self.table)

    def failure(self, error: Exception) -> DpdauError:
        """See `Place.failure`."""
        name = type(error).__name__
        if name in _NOT_FOUND:
            return not_there(self)
        if name == "OutOfMemoryException":
            return TooLargeError(
                "Expected a table whose users fit the memory of this machine, found a larger one;"
                " nothing is spilled to a disk."
            )
        return gave_up(self, name)


class Warehouse:
    """The events of one place, to be counted once; the counts are those of `EventsQuery`.

    Guarantee: all that is read of a Postgres is one state of it, in a transaction that can only
    read; the own tables of a DuckDB file cannot change meanwhile. No row of a table is fetched.
    """

    def __init__(
        self, place: Place, *, rules: Rules, span: MonthSpan, order: str | None = None
    ) -> None:
        self._place, self._rules, self._span, self._order = place, rules, span, order
        self._stopped = threading.Event()
        self._interrupt: Callable[[], object] | None = None
        self._received: int | None = None

    def count(self) -> Counted:
        """Asks the engine.

        Raises:
            NotFoundError: There is no such file or table.
            UnsupportedMediaError: A column is missing or of another type, or it was stopped.
            InvalidSettingError: The rows have to be in an order, and no column says which; or the
                libraries for the engine are not installed.
            TooLargeError: A DuckDB needs more memory than there is.
            WarehouseUnavailableError: The engine cannot be reached, refuses, or gave up.
        """
        return self._asked(self._count)

    def sql(self) -> list[str]:
        """The two queries that `count` runs, in the words of the engine; raises what it does."""
        return self._asked(
            lambda backend: [
                str(backend.compile(one, pretty=True)) for one in self._expressions(backend)
            ]
        )

    def progress(self) -> tuple[float, int]:
        """The share that is done, 0 or 1, and how many rows that is; for another thread."""
        return (0.0, 0) if self._received is None else (1.0, self._received)

    def stop(self) -> None:
        """Ends the counting with an error; for another thread."""
        self._stopped.set()
        interrupt = self._interrupt
        if interrupt is not None:
            # The connection may end at any moment.
            with suppress(*self._errors()):
                interrupt()

    def _count(self, backend: Any) -> Counted:
        survey, counts = self._expressions(backend)
        received, refused = taken_and_refused(_rows(backend, survey))
        table = table_of(_rows(backend, counts), self._span)
        self._received = received
        return Counted(table, received, (), sum(count for _, count in refused), refused)

    def _expressions(self, backend: Any) -> tuple[Any, Any]:
        query = EventsQuery(
            self._place.events(backend),
            rules=self._rules,
            span=self._span,
            order=self._order,
            dialect=self._place.engine,
        )
        return query.survey(), query.counts()

    def _asked(self, work: Callable[[Any], T]) -> T:
        """What a piece of work with the engine gives.

        What its library raises ends here: it may quote rows, or the address with its password.
        """
        if self._stopped.is_set():
            raise self._was_stopped()
        errors = self._errors()
        try:
            with self._place.connected() as (backend, self._interrupt):
                return work(backend)
        except errors as error:
            failure = self._place.failure(error)
        finally:
            self._interrupt = None
        if self._stopped.is_set():
            raise self._was_stopped()
        raise failure

    def _was_stopped(self) -> UnsupportedMediaError:
        return UnsupportedMediaError(f"Stopped reading {self._place.name}; nothing was charged.")

    def _errors(self) -> tuple[type[Exception], ...]:
        """What the libraries raise.

        Raises:
            InvalidSettingError: One is not installed.
        """
        ibis = loaded("ibis.common.exceptions", self._place.engine)
        # A table that is not there is no error of Ibis by its class.
        return ibis.IbisError, ibis.TableNotFound, *self._place.errors()


def not_there(place: Place) -> NotFoundError:
    """That an engine has no such table, or no such files."""
    return NotFoundError(f"Expected {place.name}, found none of that name.")


def gave_up(place: Place, failed: str) -> WarehouseUnavailableError:
    """That an engine has an error, of that name."""
    return WarehouseUnavailableError(
        f"Expected an answer of the {place.engine} with {place.name}, found the error {failed};"
        " nothing was charged."
    )


def table_at(backend: Any, names: tuple[str, ...]) -> Any:
    """A table by its name, perhaps after a schema and a catalog."""
    *schema, name = names
    where = tuple(schema) if len(schema) > 1 else "".join(schema) or None
    return backend.table(name, database=where)


def loaded(module: str, engine: str) -> Any:
    """A library that only warehouses need.

    Raises:
        InvalidSettingError: It is not installed.
    """
    try:
        return importlib.import_module(module)
    except ImportError:
        pass
    own = {"duckdb": "warehouse", "postgres": "warehouse", "pyspark": "spark"}.get(engine)
    wanted = f"ibis-framework[{engine}]" if own is None else f"dp-dau-mau[{own}]"
    raise InvalidSettingError(
        f"Expected the libraries for a {engine} warehouse, found no {module.partition('.')[0]};"
        f" get it with: pip install '{wanted}'"
    )


def _rows(backend: Any, expression: Any) -> list[dict[str, Any]]:
    """The few rows of an aggregate."""
    rows: list[dict[str, Any]] = backend.to_pyarrow(expression).to_pylist()
    return rows


@contextmanager
def _duckdb(path: Path) -> Iterator[Connected]:
    """A DuckDB file, which nobody can change meanwhile."""
    import duckdb
    import ibis  # type: ignore[import-untyped]

    if not path.is_file():
        raise NotFoundError(f"Expected a DuckDB file at {path}, found none.")
    connection = duckdb.connect(str(path), read_only=True, config=_DUCKDB)
    try:
        yield ibis.duckdb.from_connection(connection), connection.interrupt
    finally:
        connection.close()


@contextmanager
def _postgres(url: str) -> Iterator[Connected]:
    """A Postgres, in one transaction that sees one state and can only read."""
    import ibis
    import psycopg

    words = psycopg.conninfo.make_conninfo(url, fallback_application_name="dpdau")
    if "connect_timeout" not in psycopg.conninfo.conninfo_to_dict(url):
        words = psycopg.conninfo.make_conninfo(words, connect_timeout=CONNECT_SECONDS)
    with psycopg.connect(words, autocommit=True) as held:
        # A service file or the environment may have named another host.
        if not held.pgconn.ssl_in_use and not _is_here(held.info.hostaddr or held.info.host):
            raise InvalidSettingError(
                "Expected TLS to a Postgres on another machine, found a connection without it;"
                " add sslmode=verify-full."
            )
        held.read_only = True
        held.isolation_level = psycopg.IsolationLevel.REPEATABLE_READ
        backend = ibis.postgres.from_connection(held)
        with held.transaction():
            yield backend, held.cancel


@contextmanager
def _other(url: str) -> Iterator[Connected]:
    """Any other engine, as Ibis connects to it."""
    import ibis

    try:
        backend = ibis.connect(url)
    except (ValueError, TypeError):
        # Its text may repeat a part of the address.
        raise InvalidSettingError(
            "Expected an --events address that Ibis can read, found another one."
        ) from None
    try:
        yield backend, None
    finally:
        backend.disconnect()


def _without_port(host: str) -> str:
    """A host of a list of `host:port`."""
    if host.startswith("["):
        return host[1:].partition("]")[0]
    return host.partition(":")[0] if host.count(":") == 1 else host


def _is_here(host: str) -> bool:
    """Whether a host is this machine: a socket, or the loopback."""
    host = unquote(host)
    if not host or host[0] in "/@" or host.lower() == "localhost":
        return True
    with suppress(ValueError):
        return ipaddress.ip_address(host).is_loopback
    return False
