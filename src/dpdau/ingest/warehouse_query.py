"""The one query over a table of events, in Ibis expressions, for whichever engine holds the table.

| column | types |
|---|---|
| user | text, integers, UUIDs; an integer or a UUID stands for its text |
| day | dates; timestamps, of which the date counts, in `TIMEZONE` where they have a zone |
| ts | timestamps; they count where `day` is missing or null |
| op, dimensions | text |
| event_id | text, integers, UUIDs |
| order | integers, decimals, timestamps |

What engines disagree about is left out: there are no bits, no arrays, no time zones, no nulls that
come out of an aggregate or a window, and text is compared by its bytes, whatever its collation is.
"""

import datetime as dt
import functools
import itertools
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from dpdau.domain import Op
from dpdau.errors import InvalidSettingError, UnsupportedMediaError
from dpdau.ingest import rules as faults
from dpdau.ingest.event_tables import MonthSpan
from dpdau.ingest.rules import Fault, Fields, RejectionCode, Rules
from dpdau.ingest.zone_days import day_starts

NO_ORDER: Final = Fault(
    RejectionCode.MISSING_FIELD, "order", "Expected a value in the column of the order."
)
_DAY: Final = dt.timedelta(days=1)
# The faults of rows, in the order in which they are looked for; 0 is none.
_FAULTS: Final[tuple[Fault | None, ...]] = (
    None,
    faults.NO_USER_ID,
    faults.BAD_USER_ID,
    faults.NO_OP,
    faults.UNKNOWN_OP,
    faults.NO_DAY,
    faults.BAD_DAY,
    faults.FUTURE_DAY,
    faults.TOO_OLD,
    faults.BAD_EVENT_ID,
    faults.BAD_LABEL,
    NO_ORDER,
)
_TEXT: Final = ("string",)
_IDS: Final = ("string", "integer", "uuid")
_ORDERS: Final = ("integer", "decimal", "timestamp")
_TIMES: Final = ("timestamp",)
_DAYS: Final = ("date", "timestamp")


class EventsQuery:
    """What is asked of one table: how many rows are sound, and how many users each window has.

    Args:
        table: An Ibis table.
        rules: What is taken.
        span: What is counted.
        order: The column that says which of two rows came first, or None.
        dialect: The engine, as Ibis calls it.

    Guarantee: `counts` are those of `EventFile` for a file with these rows in the order of the
    column: the same rows are taken, of events with one `event_id` the first counts, for each (user,
    day) pair the last row decides, and a user has one label. Of two rows with one place in the
    order a `-` is the later one. Only numbers of users come back, and numbers of rows.

    Raises:
        UnsupportedMediaError: A column is missing, or has a type that is not read.
        InvalidSettingError: The rows have to be in an order, and no column says which.
    """

    def __init__(
        self, table: Any, *, rules: Rules, span: MonthSpan, order: str | None, dialect: str
    ) -> None:
        self._table, self._rules, self._span, self._dialect = table, rules, span, dialect
        fields, plain = rules.fields, Fields()
        self._user = self._column(fields.user_id, _IDS, needed=True)
        self._op = self._column(fields.op, _TEXT, needed=fields.op != plain.op)
        self._day = self._column(fields.day, _DAYS, needed=fields.day != plain.day)
        self._ts = self._column(fields.ts, _TIMES, needed=fields.ts != plain.ts)
        self._event_id = self._column(fields.event_id, _IDS)
        self._order = None if order is None else self._column(order, _ORDERS, needed=True)
        self._labels = {
            one: self._column(one, _TEXT, needed=one == span.dimension) for one in rules.dimensions
        }
        if self._day is None and self._ts is None:
            raise UnsupportedMediaError(
                f"Expected a column {fields.day} or {fields.ts}, found neither."
            )
        why = self._needs_order()
        if self._order is None and why is not None:
            raise InvalidSettingError(
                f"Expected --order with a column that says which row came first, found none; {why}."
            )
        named = (self._user, self._op, self._day, self._ts, self._event_id, self._order)
        read = dict.fromkeys(one for one in (*named, *self._labels.values()) if one is not None)
        self._table = table.select(*read)

    def survey(self) -> Any:
        """An expression: how many rows the table has of each fault, as (fault, rows)."""
        named = self._table.select(fault=self._fault(self._table))
        return named.group_by("fault").aggregate(rows=named.count())

    def counts(self) -> Any:
        """An expression: users of each day and window, a row for each part.

        Part 0 is who is in none of the segments. A pair of a user and an active day holds from that
        day to the next one of the user, so that a user is in a window where the last active day at
        its end is not before its start: nobody is counted twice.
        """
        import ibis  # type: ignore[import-untyped]

        span, beyond = self._span, self._offset_of(self._span.last + _DAY)
        pairs = self._pairs()
        following = pairs.day.lead(1, default=ibis.literal(beyond, "int32"))
        held = pairs.mutate(until=following.over(group_by=pairs.user, order_by=pairs.day))
        if span.segments:
            parts = self._parts()
            held = held.left_join(parts, held.user == parts.who)
            held = held.mutate(part=ibis.coalesce(held.part, 0))
        else:
            held = held.mutate(part=0)
        tally = held.group_by("part", "day", "until").aggregate(people=held.count())
        sums = {}
        for name, day, window in _cells(span):
            at = self._offset_of(day)
            inside = (tally.day > at - window) & (tally.day <= at) & (tally.until > at)
            sums[name] = ibis.ifelse(inside, tally.people, 0).sum()
        return tally.group_by("part").aggregate(**sums)

    def _rows(self, first: dt.date) -> Any:
        """The rows that are taken, from a day to the last of the span, with the table's columns."""
        import ibis

        table, last = self._table, self._span.last
        taken = self._fault(table) == 0
        if self._event_id is None:
            return table.filter(self._within(table, first, last) & taken)
        found = table.filter(taken)
        ids = [self._exact(found[one]) for one in (self._user, self._event_id)]
        rank = ibis.row_number().over(group_by=ids, order_by=self._arrival(found))
        found = found.mutate(rank_of_id=rank)
        found = found.filter(found[self._event_id].isnull() | (found.rank_of_id == 0))
        return found.filter(self._within(found, first, last))

    def _arrival(self, rows: Any) -> list[Any]:
        """What says which of some rows came first: at one place in the order a `+` did.

        What is alike in that too is told apart by all that is counted of a row, nulls behind, so
        that every engine takes the same one whatever order they lie in.
        """
        import ibis

        counted = (self._day, self._ts, *self._labels.values())
        is_later = ibis.ifelse(self._adds(rows), 0, 1)
        told_apart = [
            key
            for one in filter(None, counted)
            # Engines disagree about where nulls lie, and not all have words for it in a window.
            for key in (ibis.ifelse(rows[one].isnull(), 1, 0), self._exact(rows[one]))
        ]
        return [rows[self._order], is_later, *told_apart]

    def _pairs(self) -> Any:
        """Users and the days of the span, from its start, on which they are active at the end."""
        rows = self._rows(self._span.start)
        columns = {"user": self._exact(rows[self._user]), "day": self._offset(rows)}
        if self._op is None:
            adds = self._rules.op_default is not Op.REMOVE
            return (rows if adds else rows.limit(0)).select(**columns).distinct()
        rows = rows.select(**columns, adds=self._adds(rows), place=rows[self._order])
        last = rows.group_by("user", "day").aggregate(
            puts=rows.count(where=rows.adds),
            takes=rows.count(where=~rows.adds),
            put_at=rows.place.max(where=rows.adds),
            taken_at=rows.place.max(where=~rows.adds),
        )
        kept = (last.puts > 0) & ((last.takes == 0) | (last.put_at > last.taken_at))
        return last.filter(kept).select("user", "day")

    def _parts(self) -> Any:
        """Users and their segment: that of the first label of the latest month that has one."""
        import ibis

        assert self._span.dimension is not None
        rows = self._rows(self._span.labels_from)
        label = rows[self._labels[self._span.dimension]]
        rows = rows.filter(label.notnull() & self._adds(rows))
        months = [self._span.labels_from]
        while months[-1] <= self._span.last:
            months.append((months[-1] + 31 * _DAY).replace(day=1))
        within = [
            (self._within(rows, one, after - _DAY), place)
            for place, (one, after) in enumerate(itertools.pairwise(months))
        ]
        label = self._exact(rows[self._labels[self._span.dimension]])
        rows = rows.select(
            who=self._exact(rows[self._user]),
            month=ibis.cases(*within, else_=-1),
            place=rows[self._order],
            label=label,
        )
        ranked = rows.mutate(
            rank=ibis.row_number().over(
                group_by=rows.who, order_by=[rows.month.desc(), rows.place, rows.label]
            )
        )
        first = ranked.filter(ranked["rank"] == 0)
        codes = [
            (first.label == self._exact(ibis.literal(one.value)), code)
            for code, one in enumerate(self._span.segments, start=1)
        ]
        return first.select("who", part=ibis.cases(*codes, else_=0))

    def _fault(self, table: Any) -> Any:
        """The place of a row's first fault in `_FAULTS`."""
        import ibis

        rules, found = self._rules, []
        user = table[self._user]
        found += [(user.isnull(), faults.NO_USER_ID)]
        found += self._unsound(user, faults.USER_ID_BYTES_MAX, faults.BAD_USER_ID)
        if self._op is not None:
            op = table[self._op]
            if rules.op_default is None:
                found += [(op.isnull(), faults.NO_OP)]
            known = (self._exact(op) == self._sign(Op.ADD)) | (
                self._exact(op) == self._sign(Op.REMOVE)
            )
            found += [(op.notnull() & ~known, faults.UNKNOWN_OP)]
        found += [
            (self._without_day(table), faults.NO_DAY),
            (self._before(table, faults.FIRST_DAY), faults.BAD_DAY),
            (~self._before(table, rules.last_day + _DAY), faults.FUTURE_DAY),
        ]
        if rules.first_day > faults.FIRST_DAY:
            found += [(self._before(table, rules.first_day), faults.TOO_OLD)]
        if self._event_id is not None:
            found += self._unsound(
                table[self._event_id], faults.EVENT_ID_BYTES_MAX, faults.BAD_EVENT_ID
            )
        for label in filter(None, self._labels.values()):
            found += self._unsound(table[label], faults.LABEL_BYTES_MAX, faults.BAD_LABEL)
        if self._order is not None:
            found += [(table[self._order].isnull(), NO_ORDER)]
        return ibis.cases(*((when, _FAULTS.index(fault)) for when, fault in found), else_=0)

    def _unsound(self, text: Any, bytes_max: int, fault: Fault) -> list[tuple[Any, Fault]]:
        """Whether a value that is there has not 1..bytes_max bytes of UTF-8."""
        if not text.type().is_string():
            return []
        length = _functions().octet_length(self._exact(text))
        wrong = (length < 1) | (length > bytes_max)
        if self._dialect == "pyspark":
            # It takes whatever bytes a file has for text; the other engines make sure.
            wrong |= ~_functions().is_valid_utf8(text)
        return [(text.notnull() & wrong, fault)]

    def _adds(self, rows: Any) -> Any:
        """Whether a row that is taken puts in."""
        if self._op is None:
            import ibis

            return ibis.literal(self._rules.op_default is not Op.REMOVE)
        is_add = self._exact(rows[self._op]) == self._sign(Op.ADD)
        default = self._rules.op_default
        return is_add if default is None else is_add.fill_null(default is Op.ADD)

    def _sign(self, op: Op) -> Any:
        import ibis

        return self._exact(ibis.literal(op.value))

    def _exact(self, value: Any) -> Any:
        """A value that equals another only where they are the same text, byte for byte.

        A collation may call two ids equal. Then they would be one user with two persons behind it,
        and taking out one of them would change the counts by more than one user does.
        """
        if not value.type().is_string():
            return value
        if self._dialect in ("bigquery", "pyspark"):
            return value.cast("binary")
        known = _functions()
        exact = {
            "duckdb": lambda: known.encode(value),
            "postgres": lambda: known.convert_to(value, "UTF8"),
            "snowflake": lambda: known.to_binary(value, "UTF-8"),
            # Its texts are bytes and know no collation.
            "clickhouse": lambda: value,
        }
        return exact[self._dialect]()

    def _moments(self, table: Any) -> list["_Moments"]:
        """The columns that say the day, the first one that is not null counting."""
        named = [table[one] for one in (self._day, self._ts) if one is not None]
        return [_Moments(one, self._rules.zone, self._span.start) for one in named]

    def _without_day(self, table: Any) -> Any:
        return functools.reduce(
            lambda first, second: first & second,
            [one.column.isnull() for one in self._moments(table)],
        )

    def _before(self, table: Any, day: dt.date) -> Any:
        return _first_there([(one.column, one.before(day)) for one in self._moments(table)])

    def _within(self, table: Any, first: dt.date, last: dt.date) -> Any:
        moments = self._moments(table)
        return _first_there(
            [(one.column, ~one.before(first) & one.before(last + _DAY)) for one in moments]
        )

    def _offset(self, table: Any) -> Any:
        """The day, 0 at the start of the span, of rows that are near it."""
        last = self._span.last
        return _first_there([(one.column, one.offset(last)) for one in self._moments(table)])

    def _offset_of(self, day: dt.date) -> int:
        return (day - self._span.start).days

    def _needs_order(self) -> str | None:
        """What of the table or the question depends on the order of rows."""
        if self._op is not None:
            return f"of one user and day the last value in the column {self._op} decides"
        if self._event_id is not None:
            return f"of rows with one {self._event_id} the first counts"
        if self._span.segments:
            return "the segment of a user is that of the first label"
        return None

    def _column(self, name: str, kinds: tuple[str, ...], *, needed: bool = False) -> str | None:
        """The name of a column that is there, or None.

        Raises:
            UnsupportedMediaError: It is needed and missing, or of another type.
        """
        schema = self._table.schema()
        if name not in schema:
            # Some engines write names in capitals, and an op that is overlooked takes nobody out.
            if name.lower() in {one.lower() for one in schema.names}:
                raise UnsupportedMediaError(
                    f"Expected a column {name}, found one whose name has other capitals; its option"
                    " or a view can name it."
                )
            if needed:
                raise UnsupportedMediaError(
                    f"Expected a column {name} in the table, found none of that name."
                )
            return None
        kind = schema[name]
        if not any(getattr(kind, f"is_{one}")() for one in kinds):
            raise UnsupportedMediaError(
                f"Expected the column {name} of a type among {', '.join(kinds)}, found another;"
                " a view that casts it is enough."
            )
        return name


def taken_and_refused(rows: list[dict[str, Any]]) -> tuple[int, tuple[tuple[Fault, int], ...]]:
    """The result of `survey`: all rows, and those of each fault."""
    found = {int(one["fault"]): int(one["rows"]) for one in rows}
    refused = [
        (fault, found[place]) for place, fault in enumerate(_FAULTS) if fault and place in found
    ]
    return sum(found.values()), tuple(refused)


def table_of(rows: list[dict[str, Any]], span: MonthSpan) -> NDArray[np.int64]:
    """The result of `counts` as (days, 1 + segments, windows): everyone, then each segment."""
    days = (span.last - span.first).days + 1
    table = np.zeros((days, 1 + len(span.segments), len(span.windows)), dtype=np.int64)
    for one in rows:
        part = int(one["part"])
        for name, day, window in _cells(span):
            for place in (place for place, days in enumerate(span.windows) if days == window):
                at, people = (day - span.first).days, int(one[name])
                assert people >= 0
                table[at, 0, place] += people
                if part:
                    table[at, part, place] += people
    return table


def _cells(span: MonthSpan) -> list[tuple[str, dt.date, int]]:
    """The names of the counts of each window, the day on which it ends, and its length."""
    days = [span.first + count * _DAY for count in range((span.last - span.first).days + 1)]
    windows = sorted(set(span.windows))
    return [(f"w{window}_{day:%Y%m%d}", day, window) for day in days for window in windows]


@dataclass(frozen=True, slots=True)
class _Moments:
    """A column of dates or timestamps, read as days: by comparisons, of which all engines agree."""

    column: Any
    zone: dt.tzinfo
    start: dt.date

    def before(self, day: dt.date) -> Any:
        """Whether a day is before another."""
        if not self._zoned:
            return self.column < self._begin(day)
        first, *again = self._turns(day)
        found = self.column < first
        # Where clocks go back over midnight, the day before comes a second time.
        for since, until in zip(again[::2], again[1::2], strict=True):
            found |= (self.column >= since) & (self.column < until)
        return found

    def _turns(self, day: dt.date) -> list[Any]:
        """The moments, ascending, at which it is no longer before a day, and before it again."""
        import ibis

        starts = [(at, one >= day) for at, one in day_starts(self.zone, day, day)]
        return [
            ibis.literal(at, "timestamp('UTC')")
            for (_, was), (at, now) in itertools.pairwise(starts)
            if was != now
        ]

    def offset(self, last: dt.date) -> Any:
        """Days since the start, for days up to the last."""
        import ibis

        if not self._zoned:
            days = self.column if self.column.type().is_date() else self.column.date()
            return days.delta(ibis.literal(self.start, "date"), unit="day").cast("int32")
        starts = day_starts(self.zone, self.start, last)
        return self._stepped([(at, (day - self.start).days) for at, day in starts])

    @property
    def _zoned(self) -> bool:
        kind = self.column.type()
        return bool(kind.is_timestamp() and kind.timezone is not None)

    def _begin(self, day: dt.date) -> Any:
        """The first value of a day, in a column without a zone."""
        import ibis

        if self.column.type().is_date():
            return ibis.literal(day, "date")
        return ibis.literal(dt.datetime.combine(day, dt.time()), "timestamp")

    def _stepped(self, steps: list[tuple[dt.datetime, int]]) -> Any:
        """The value of the last step that is not after a moment, by halves."""
        import ibis

        if len(steps) == 1:
            return ibis.literal(steps[0][1], "int32")
        middle = len(steps) // 2
        at = ibis.literal(steps[middle][0], "timestamp('UTC')")
        return ibis.ifelse(
            self.column < at, self._stepped(steps[:middle]), self._stepped(steps[middle:])
        )


def _first_there(choices: list[tuple[Any, Any]]) -> Any:
    """What goes with the first column that is not null."""
    import ibis

    *others, (_, value) = choices
    for column, instead in reversed(others):
        value = ibis.ifelse(column.notnull(), instead, value)
    return value


@dataclass(frozen=True, slots=True)
class _Functions:
    """Functions of engines for which Ibis has no word."""

    octet_length: Any
    is_valid_utf8: Any
    encode: Any
    convert_to: Any
    to_binary: Any


@functools.cache
def _functions() -> _Functions:
    import ibis

    builtin = ibis.udf.scalar.builtin

    def octet_length(value) -> int: ...  # type: ignore[no-untyped-def, empty-body]
    def is_valid_utf8(value) -> bool: ...  # type: ignore[no-untyped-def, empty-body]
    def encode(value) -> bytes: ...  # type: ignore[no-untyped-def, empty-body]
    def convert_to(value, encoding) -> bytes: ...  # type: ignore[no-untyped-def, empty-body]
    def to_binary(value, encoding) -> bytes: ...  # type: ignore[no-untyped-def, empty-body]

    return _Functions(*map(builtin, (octet_length, is_valid_utf8, encode, convert_to, to_binary)))
