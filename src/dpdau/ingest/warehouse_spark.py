"""Events that a Spark reaches: a table that it knows, or Parquet files that its executors see.

They are counted by the query that every warehouse is asked, so that a month has one meaning; Spark
has only to read the rows.
"""

import uuid
from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final, Self
from urllib.parse import parse_qsl, unquote, urlsplit

from dpdau.activity.spark import session
from dpdau.errors import DpdauError, InvalidSettingError, NotFoundError, UnsupportedMediaError
from dpdau.ingest.warehouse import (
    Connected,
    Place,
    TableAddress,
    gave_up,
    loaded,
    not_there,
    table_at,
)

__all__ = ["SparkFiles", "SparkTable"]

DEFAULT_MASTER: Final = "local[*]"
PATTERN_SIGNS: Final = frozenset("*?[]{}")
_PARQUET_MAGIC: Final = b"PAR1"
_ABSENT: Final = "dpdau_absent"
_WAREHOUSE: Final = "spark.sql.warehouse.dir"
_NOT_FOUND: Final = frozenset(
    {"PATH_NOT_FOUND", "TABLE_OR_VIEW_NOT_FOUND", "SCHEMA_NOT_FOUND", "TableNotFound"}
)
# The last one is the word of Sail.
_NOT_READ: Final = frozenset(
    {
        "CANNOT_MERGE_SCHEMAS",
        "PARQUET_TYPE_ILLEGAL",
        "PARQUET_TYPE_NOT_RECOGNIZED",
        "PARQUET_TYPE_NOT_SUPPORTED",
        "UnsupportedOperationException",
    }
)


@dataclass(frozen=True, slots=True, kw_only=True)
class _OnSpark:
    """What is the same of all that a Spark reaches; its address may hold a token."""

    master: str = field(repr=False)
    options: Mapping[str, str] = field(repr=False, default_factory=dict)

    @property
    def engine(self) -> str:
        """See `Place.engine`."""
        return "pyspark"

    def errors(self) -> tuple[type[Exception], ...]:
        """See `Place.errors`."""
        loaded("pyspark", self.engine)
        # Ibis has no word for some types of Spark, and says so with this one.
        return *session.errors(), NotImplementedError

    def connected(self) -> AbstractContextManager[Connected]:
        """See `Place.connected`."""
        return _connected(self.master, self.options)

    def failure(self: Place, error: Exception) -> DpdauError:
        """See `Place.failure`."""
        name = session.word_of(error)
        if name in _NOT_FOUND:
            return not_there(self)
        if name in _NOT_READ:
            return UnsupportedMediaError(
                f"Expected {self.name} with one type for each column, timestamps in microseconds"
                f" and no column twice, found what this Spark does not read ({name});"
                " `dpdau ingest` reads it file by file."
            )
        return gave_up(self, name)


@dataclass(frozen=True, slots=True, kw_only=True)
class SparkTable(_OnSpark):
    """A table of the catalog of a Spark."""

    table: tuple[str, ...]

    @classmethod
    def of(
        cls, address: TableAddress, *, master: str | None = None, options: Mapping[str, str]
    ) -> Self:
        """What `pyspark:///warehouse/folder?option=value&table=NAME` says, on some Spark.

        As Ibis reads it: the path is the folder of the warehouse, and options are those of Spark.

        Raises:
            InvalidSettingError: The address is one of another engine, or there is no such master.
        """
        if address.engine != "pyspark":
            raise InvalidSettingError(
                "Expected --events as pyspark://?table=NAME with --engine, found another engine."
            )
        parts = urlsplit(address.url)
        own = dict(parse_qsl(parts.query))
        if parts.path.strip("/"):
            own[_WAREHOUSE] = str(Path(unquote(parts.path[1:])).absolute())
        named = own.pop("spark.master", DEFAULT_MASTER)
        chosen = named if master is None else master
        session.check_master(chosen)
        return cls(master=chosen, options={**options, **own}, table=address.table)

    @property
    def name(self) -> str:
        """See `Place.name`."""
        return f"the table {'.'.join(self.table)}"

    def events(self, backend: Any) -> Any:
        """See `Place.events`."""
        return _with_zones(backend, table_at(backend, self.table))


@dataclass(frozen=True, slots=True, kw_only=True)
class SparkFiles(_OnSpark):
    """A Parquet file, or a folder of them, as the executors see it: `path`, or a URL of Hadoop.

    Columns that are in some of the files only are null in the others, and the folders of a
    partitioned data set are columns as Spark has it, which none of the files may have too.
    """

    path: str

    @classmethod
    def of(
        cls, path: str, *, master: str, options: Mapping[str, str], file_format: str | None = None
    ) -> Self:
        """Files at a path; one that is here is taken from where it is here.

        Raises:
            UnsupportedMediaError: They are not Parquet; only that means the same to Spark.
            NotFoundError: The path is a pattern.
            InvalidSettingError: There is no such master.
        """
        session.check_master(master)
        if PATTERN_SIGNS & set(path):
            raise NotFoundError(
                f"Expected a path without any of {' '.join(sorted(PATTERN_SIGNS))}, which are a"
                " pattern to Spark; found one with them."
            )
        if file_format not in (None, "parquet") or _is_other_file(Path(path)):
            raise UnsupportedMediaError(
                "Expected Parquet with --engine, found another format, which Spark would read in"
                " its own way; `dpdau release --from` without --engine reads it, and so does"
                " `dpdau ingest`."
            )
        here = Path(path)
        return cls(
            master=master,
            options=options,
            path=str(here.absolute()) if here.exists() else path,
        )

    @property
    def name(self) -> str:
        """See `Place.name`."""
        return f"the files at {Path(self.path).name}"

    def events(self, backend: Any) -> Any:
        """See `Place.events`.

        Raises:
            UnsupportedMediaError: There is a column `metadata`, which a file's reader would read,
                or one that the names of folders have too, which Spark would take from there.
        """
        spark = backend._session
        # A file of an older form must not hide the op that a newer one has.
        found = spark.read.option("mergeSchema", "true").parquet(self.path)
        if "metadata" in found.columns:
            raise UnsupportedMediaError(
                "Expected columns without metadata with --engine, found it; dimensions have to be"
                " columns of their own."
            )
        twice = self._columns_twice(spark)
        if twice:
            raise UnsupportedMediaError(
                f"Expected the column {twice[0]} in the files or in the names of their folders,"
                " found it in both; rename the folders, or leave it out of the files."
            )
        view = f"dpdau_{uuid.uuid4().hex}"
        found.createTempView(view)
        return _with_zones(backend, backend.table(view))

    def _columns_twice(self, spark: Any) -> list[str]:
        """The columns of folders that files have as well, which Spark reads without a word."""
        # A column that no file has; those behind it are the folders'.
        folders = spark.read.schema(f"{_ABSENT} boolean").parquet(self.path).columns[1:]
        if not folders:
            return []
        files = spark.read.option("mergeSchema", "true").option("recursiveFileLookup", "true")
        own = {one.lower() for one in files.parquet(self.path).columns}
        return [one for one in folders if one.lower() in own]


@contextmanager
def _connected(master: str, options: Mapping[str, str]) -> Iterator[Connected]:
    """A session of a Spark, and the end of it."""
    import ibis  # type: ignore[import-untyped]

    spark = session.connect(master, options=options)
    try:
        yield ibis.pyspark.connect(spark), spark.interruptAll
    finally:
        with suppress(*session.errors()):
            spark.stop()


def _with_zones(backend: Any, table: Any) -> Any:
    """A table in which moments are moments: Ibis takes both timestamps of Spark for local ones."""
    from pyspark.sql.types import TimestampType

    schema = backend.raw_sql(backend.compile(table)).schema
    moments = [one.name for one in schema if isinstance(one.dataType, TimestampType)]
    return table.cast(dict.fromkeys(moments, "timestamp('UTC')"))


def _is_other_file(path: Path) -> bool:
    """Whether there is a file here, and it does not begin as Parquet does."""
    with suppress(OSError):
        if path.is_file():
            with path.open("rb") as file:
                return file.read(len(_PARQUET_MAGIC)) != _PARQUET_MAGIC
    return False
