"""A table of events in a warehouse that is already there, counted for one month where it lies.

`ENGINE://…?table=NAME` names it; what stands before `?table=` is the engine's own URL as Ibis and
the engine read it. The heavy work is the warehouse's: a page of numbers comes back, and nothing is
written, here or there.
"""

import importlib
import ipaddress
import threading
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final, TypeVar
from urllib.parse import SplitResult, parse_qsl, unquote, urlsplit

from dpdau.errors import (
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

__all__ = ["TableAddress", "Warehouse"]

T = TypeVar("T")

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
# The root of what each engine's own library raises.
_ERRORS: Final = {
    "duckdb": "duckdb:Error",
    "postgres": "psycopg:Error",
    "pyspark": "pyspark.errors:PySparkException",
    "bigquery": "google.api_core.exceptions:GoogleAPIError",
    "snowflake": "snowflake.connector.errors:Error",
    "clickhouse": "clickhouse_connect.driver.exceptions:ClickHouseError",
}
_DUCKDB: Final[dict[str, str | bool | int | float | list[str]]] = {
    # What an interrupted query leaves in such a folder would be ids of users.
    "temp_directory": "",
    "autoinstall_known_extensions": "false",
}


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


class Warehouse:
    """One table of events, to be counted once; its counts are those of `EventsQuery`.

    Guarantee: all that is read of a Postgres is one state of it, in a transaction that can only
    read; the own tables of a DuckDB file cannot change meanwhile. No row of a table is fetched.
    """

    def __init__(
        self, address: TableAddress, *, rules: Rules, span: MonthSpan, order: str | None = None
    ) -> None:
        self._address, self._rules, self._span, self._order = address, rules, span, order
        self._stopped = threading.Event()
        self._interrupt: Callable[[], object] | None = None
        self._received: int | None = None

    def count(self) -> Counted:
        """Asks the warehouse.

        Raises:
            NotFoundError: There is no such database file or table.
            UnsupportedMediaError: A column is missing or of another type, or it was stopped.
            InvalidSettingError: The rows have to be in an order, and no column says which; or the
                libraries for the engine are not installed.
            TooLargeError: A DuckDB needs more memory than there is.
            WarehouseUnavailableError: It cannot be reached, refuses, or gave up.
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
        *schema, name = self._address.table
        where = tuple(schema) if len(schema) > 1 else "".join(schema) or None
        query = EventsQuery(
            backend.table(name, database=where),
            rules=self._rules,
            span=self._span,
            order=self._order,
            dialect=self._address.engine,
        )
        return query.survey(), query.counts()

    def _asked(self, work: Callable[[Any], T]) -> T:
        """What a piece of work with the warehouse gives.

        What its library raises ends here: it may quote rows, or the address with its password.
        """
        if self._stopped.is_set():
            raise self._was_stopped()
        errors, failed, missing = self._errors(), None, False
        try:
            with self._connected() as (backend, self._interrupt):
                return work(backend)
        except errors as error:
            failed = type(error).__name__
            missing = failed in ("TableNotFound", "UndefinedTable", "InvalidSchemaName")
        finally:
            self._interrupt = None
        if self._stopped.is_set():
            raise self._was_stopped()
        if missing:
            raise NotFoundError(
                f"Expected a table {'.'.join(self._address.table)}, found none of that name."
            )
        if failed == "OutOfMemoryException":
            raise TooLargeError(
                "Expected a table whose users fit the memory of this machine, found a larger one;"
                " nothing is spilled to a disk."
            )
        raise WarehouseUnavailableError(
            f"Expected an answer of the {self._address.engine} with the table, found the error"
            f" {failed}; nothing was charged."
        )

    def _was_stopped(self) -> UnsupportedMediaError:
        return UnsupportedMediaError("Stopped reading the table; nothing was charged.")

    def _errors(self) -> tuple[type[Exception], ...]:
        """What the libraries raise.

        Raises:
            InvalidSettingError: One is not installed.
        """
        engine = self._address.engine
        found: list[type[Exception]] = []
        for text in (
            "ibis.common.exceptions:IbisError",
            "ibis.common.exceptions:TableNotFound",
            _ERRORS[engine],
        ):
            module, _, name = text.partition(":")
            loaded = _loaded(module, engine)
            found.append(getattr(loaded, name))
        return tuple(found)

    def _connected(self) -> AbstractContextManager[tuple[Any, Callable[[], object] | None]]:
        if self._address.engine == "duckdb":
            return _duckdb(self._address.path)
        if self._address.engine == "postgres":
            return _postgres(self._address.url)
        return _other(self._address.url)


def _rows(backend: Any, expression: Any) -> list[dict[str, Any]]:
    """The few rows of an aggregate."""
    rows: list[dict[str, Any]] = backend.to_pyarrow(expression).to_pylist()
    return rows


def _loaded(module: str, engine: str) -> Any:
    """A library that only warehouses need."""
    try:
        return importlib.import_module(module)
    except ImportError:
        pass
    extra = "dp-dau-mau[warehouse]" if engine in ("duckdb", "postgres") else ""
    raise InvalidSettingError(
        f"Expected the libraries for a {engine} warehouse, found no {module.partition('.')[0]};"
        f" get it with: pip install '{extra or f'ibis-framework[{engine}]'}'"
    )


@contextmanager
def _duckdb(path: Path) -> Iterator[tuple[Any, Callable[[], object] | None]]:
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
def _postgres(url: str) -> Iterator[tuple[Any, Callable[[], object] | None]]:
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
def _other(url: str) -> Iterator[tuple[Any, Callable[[], object] | None]]:
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
