"""The events of one file as tables of an in-memory DuckDB, and the month that they add up to.

Whatever the source, there is one relation `rows (u, d, add, ord)`: who, which day of the span, put
in or taken out, and the place in arrival order. A Parquet file of plain columns is that relation
as it lies on the disk; events that were read by other means are put into tables first.

The database has no file and may not open any but the one it is given. It never spills: a user id
is never written to a disk, so what does not fit the memory is refused.
"""

import datetime as dt
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, TypeVar

import _duckdb as engine
import numpy as np
from numpy.typing import NDArray

from dpdau.domain import Segment, day_number, month_days
from dpdau.errors import TooLargeError

T = TypeVar("T")

WORD_DAYS: Final = 64
ROWS_OF_A_THREAD: Final = 4_000_000
_CONFIG: Final[dict[str, str | bool | int | float | list[str]]] = {
    "autoinstall_known_extensions": "false",
    "autoload_known_extensions": "false",
    "allow_persistent_secrets": "false",
    "enable_external_file_cache": "false",
    "preserve_insertion_order": "false",
    # What one pass needed goes back to the system before the next one begins.
    "allocator_flush_threshold": "1MB",
    "allocator_bulk_deallocation_flush_threshold": "1MB",
    "temp_directory": "",
}
_TABLES: Final = """
    create table events (u blob, d usmallint, add boolean, ord bigint);
    create table labels (u blob, month integer, label varchar, ord bigint);
    create table identified (
        u blob, event_id blob, item bigint, day integer, add boolean, label varchar, ord bigint
    );
    create view rows as from events;
"""


class UnreadableError(Exception):
    """The database could not read what it was given; carries nothing, for that may be quoted."""


@dataclass(frozen=True, slots=True)
class MonthSpan:
    """What is counted of a file: each day of a month, in trailing windows, for some segments.

    Args:
        month: YYYY-MM.
        windows: Days of each window, 1..64.
        segments: Values of at most one dimension, beside everyone.
    """

    month: str
    windows: tuple[int, ...]
    segments: tuple[Segment, ...] = ()

    def __post_init__(self) -> None:
        assert self.windows and all(1 <= days <= WORD_DAYS for days in self.windows)
        assert len({one.dimension for one in self.segments}) <= 1

    @property
    def dimension(self) -> str | None:
        """The dimension of the segments, if there are any."""
        return self.segments[0].dimension if self.segments else None

    @property
    def first(self) -> dt.date:
        """The first day of the month."""
        return month_days(self.month)[0]

    @property
    def last(self) -> dt.date:
        """The last day of the month, and of the span."""
        return month_days(self.month)[1]

    @property
    def start(self) -> dt.date:
        """The first day that any window touches: day 0 of the span."""
        return self.first - dt.timedelta(days=max(self.windows) - 1)

    @property
    def labels_from(self) -> dt.date:
        """The first day whose label may be a user's: that of the calendar month of `start`."""
        return self.start.replace(day=1)

    @property
    def words(self) -> int:
        """64-bit words that hold one bit for each day of the span."""
        return (self.last - self.start).days // WORD_DAYS + 1


class EventTables:
    """One database over one file, for as long as it is read.

    Guarantee: `counts` are those of the set of (user, day) pairs in which, for each pair, the last
    row in the order of `ord` decides. Adding or removing all rows of one user adds to or takes from
    every count what that user's own set of days gives, and changes nothing else.
    """

    def __init__(self, span: MonthSpan, path: Path) -> None:
        self.span = span
        self._connection = engine.connect(":memory:", config=_CONFIG)
        # It counts how far a statement is only where it believes that it draws a bar.
        self.execute("set enable_progress_bar = true; set enable_progress_bar_print = false")
        self.execute("set progress_bar_time = 0")
        self.execute(f"set allowed_paths = [{text(str(path))}]")
        self.execute("set enable_external_access = false")

    def execute(self, statement: str) -> list[tuple[Any, ...]]:
        """Runs a statement, and gives its rows.

        Raises:
            UnreadableError, TooLargeError: What `guarded` says.
        """
        return guarded(lambda: self._connection.execute(statement).fetchall())

    def select(self, statement: str) -> dict[str, NDArray[Any]]:
        """Runs a query, and gives its columns. Raises what `execute` does."""
        return guarded(lambda: self._connection.execute(statement).fetchnumpy())

    def arrow(self, statement: str) -> Any:
        """Runs a query, and gives an Arrow table. Raises what `execute` does."""
        import duckdb  # noqa: F401 - what the engine needs to speak Arrow

        return guarded(lambda: self._connection.sql(statement).to_arrow_table())

    def expect(self, rows: int) -> None:
        """Takes no more threads than so many rows are worth: each costs memory of its own."""
        (threads,) = self.execute("select current_setting('threads')::integer")[0]
        self.execute(f"set threads = {min(threads, 1 + rows // ROWS_OF_A_THREAD)}")

    def make(self) -> None:
        """Makes empty tables, for events that are added."""
        self.execute(_TABLES)

    def add(self, target: str, columns: dict[str, Any]) -> None:
        """Puts Arrow or numpy columns into one of the tables that `make` made."""
        import duckdb  # noqa: F401 - what the engine needs to speak Arrow
        import pyarrow as pa

        added = pa.table(columns)
        names = ", ".join(added.column_names)
        self._connection.register("added", added)
        self.execute(f"insert into {target} ({names}) select {names} from added")  # noqa: S608
        self._connection.unregister("added")

    def settle(self) -> None:
        """Takes the events with an id into the others: of those with one id the first counts."""
        if not self.execute("select 1 from identified limit 1"):
            return
        span, day = self.span, f"(day - {day_number(self.span.start)})"
        self.execute(
            "create temp table firsts as"
            " select u, event_id, min(item) as item from identified group by u, event_id"
        )
        self.execute(
            f"insert into events select u, {day}, add, ord"  # noqa: S608
            " from identified semi join firsts using (u, event_id, item)"
            f" where day between {day_number(span.start)} and {day_number(span.last)}"
        )
        month = "(year(date '1970-01-01' + day) * 12 + month(date '1970-01-01' + day))"
        self.execute(
            f"insert into labels select u, {month}, label, ord"  # noqa: S608
            " from identified semi join firsts using (u, event_id, item)"
            " where add and label is not null"
            f" and day between {day_number(span.labels_from)} and {day_number(span.last)}"
        )
        self.execute("drop table identified")

    def fold(self) -> None:
        """Adds up who was put in on which days, and lists what was taken out: the first pass."""
        self.execute(
            f"create or replace temp table people as select u, {self._bits()}"  # noqa: S608
            " from rows where add group by u"
        )
        self.execute(
            "create or replace temp table pairs as select distinct u, d from rows where not add"
        )

    def resolve(self) -> None:
        """Finds the days that were taken out last: the second pass, of which few pairs remain."""
        self.execute(
            "create temp table settled as select u, d, arg_max(add, ord) as add"
            " from rows semi join pairs using (u, d) group by u, d"
        )
        self.execute(
            f"create temp table gone as select u, {self._bits()}"  # noqa: S608
            " from settled where not add group by u"
        )
        self.execute("drop table pairs; drop table settled")

    def counts(self) -> NDArray[np.int64]:
        """Users of each window. Private.

        Returns:
            (days, 1 + len(segments), len(windows)) int64: everyone, then each segment.
        """
        words = [
            f"people.w{word} & ~coalesce(gone.w{word}, 0) as w{word}"
            for word in range(self.span.words)
        ]
        code, joined = "0", ""
        if self.span.segments:
            values = ", ".join(text(one.value) for one in self.span.segments)
            # Not found is 0: the rest, and those without a label.
            code = f"coalesce(list_position([{values}], label), 0)"
            joined = " left join chosen using (u)"
            self._choose_labels()
        columns = self.select(
            f"select {', '.join(words)}, {code}::usmallint as code"  # noqa: S608
            f" from people left join gone using (u){joined}"
        )
        return _counted(self.span, columns)

    def close(self) -> None:
        """Frees everything."""
        self._connection.close()

    def interrupt(self) -> None:
        """Ends the running statement, if there is one; for another thread."""
        # It may be closed at any moment.
        with suppress(engine.ConnectionException):
            self._connection.interrupt()

    def share_done(self) -> float:
        """How far the running statement is, 0..1, and 0 where none is; for another thread."""
        with suppress(engine.ConnectionException):
            return min(max(float(self._connection.query_progress()) / 100, 0.0), 1.0)
        return 0.0

    def _bits(self) -> str:
        """The words of the days of some rows, as columns w0, w1."""
        words = range(self.span.words)
        if len(words) == 1:
            return "bit_or(1::ubigint << d) as w0"
        return ", ".join(
            f"coalesce(bit_or(1::ubigint << (d & 63)) filter (d >> 6 = {word}), 0) as w{word}"
            for word in words
        )

    def _choose_labels(self) -> None:
        """One label for each user: the first one of the latest month that has one."""
        self.execute(
            "create temp table chosen as select u, arg_max(label, month) as label from"
            " (select u, month, arg_min(label, ord) as label from labels group by u, month)"
            " group by u"
        )


def guarded(work: Callable[[], T]) -> T:
    """What a piece of work with the database gives; its own errors end here, they may quote rows.

    Raises:
        UnreadableError: It could not read what it was given.
        TooLargeError: The memory does not hold it.
    """
    try:
        return work()
    except engine.OutOfMemoryException:
        full = True
    except engine.Error:
        full = False
    if full:
        raise TooLargeError(
            "Expected a file whose users fit the memory of this machine, found a larger one."
            " `dpdau ingest` takes files of any size."
        )
    raise UnreadableError


def text(content: str) -> str:
    """A string as an SQL literal."""
    return "'" + content.replace("'", "''") + "'"


def name(content: str) -> str:
    """A column name as an SQL identifier."""
    return '"' + content.replace('"', '""') + '"'


def months(day: NDArray[np.int32]) -> NDArray[np.int32]:
    """The month, year · 12 + month, of each day number."""
    since = day.astype("datetime64[D]").astype("datetime64[M]").astype(np.int32)
    return since + np.int32(1970 * 12 + 1)


def _counted(span: MonthSpan, columns: dict[str, NDArray[Any]]) -> NDArray[np.int64]:
    """The counts of every day, window and segment from the days of each user."""
    words: Sequence[NDArray[np.uint64]] = [columns[f"w{word}"] for word in range(span.words)]
    code = columns["code"]
    lookback = max(span.windows)
    days = (span.last - span.first).days + 1
    table = np.zeros((days, 1 + len(span.segments), len(span.windows)), dtype=np.int64)
    for day in range(days):
        for place, window in enumerate(span.windows):
            mask = ((1 << window) - 1) << (lookback + day - window)
            inside = np.zeros(len(code), dtype=np.bool_)
            for word, held in enumerate(words):
                part = mask >> (WORD_DAYS * word) & (2**WORD_DAYS - 1)
                if part:
                    inside |= (held & np.uint64(part)) != 0
            table[day, 0, place] = np.count_nonzero(inside)
            if span.segments:
                found = np.bincount(code[inside], minlength=1 + len(span.segments))
                table[day, 1:, place] = found[1:]
    return table
