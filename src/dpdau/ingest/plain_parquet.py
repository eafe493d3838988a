"""A Parquet file with nothing but a user, a day and perhaps an op in it, as it lies on the disk.

What is taken of it is written in SQL, so that the rows need not be read by anything else first;
`sound` below is what `columns.decode_table` accepts, and the rows that it refuses are given to that
function to be worded.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Final, Self

from dpdau.domain import Op
from dpdau.ingest.event_tables import EventTables, UnreadableError, name, text
from dpdau.ingest.rules import USER_ID_BYTES_MAX, Rejection, Rules

_TEXT: Final = "VARCHAR"
_INTEGERS: Final = frozenset(
    {"TINYINT", "SMALLINT", "INTEGER", "BIGINT", "UTINYINT", "USMALLINT", "UINTEGER", "UBIGINT"}
)
_ROW_NUMBER: Final = "file_row_number"


@dataclass(frozen=True, slots=True)
class PlainParquet:
    """Such a file, in a database that may open it.

    Args:
        source: The SQL of all its rows, with their number.
        rows: How many there are.
        columns: Those that are read.
        user_is_text: Or else an integer, which stands for its digits.
        op: The SQL of the op, where none is given as the rules say.
    """

    tables: EventTables
    rules: Rules
    source: str
    rows: int
    columns: tuple[str, ...]
    user_is_text: bool
    op: str

    @classmethod
    def of(cls, tables: EventTables, path: Path, rules: Rules) -> Self:
        """Looks at the columns of a file.

        Raises:
            UnreadableError: There are others that matter, or they have other types.
        """
        file, fields = text(str(path)), rules.fields
        source = f"read_parquet({file}, hive_partitioning = false, file_row_number = true)"
        schema = tables.execute(f"select name from parquet_schema({file})")  # noqa: S608
        # The database takes names that differ in case for one.
        held = [str(one).lower() for (one,) in schema]
        types = {str(row[0]): str(row[1]) for row in tables.execute(f"describe from {source}")}
        others = {fields.ts, fields.event_id, "metadata", _ROW_NUMBER, *rules.dimensions}
        columns = [fields.user_id, fields.day]
        if fields.op.lower() in held:
            columns.append(fields.op)
        user_type = types.get(fields.user_id)
        plain = (
            not {one.lower() for one in others} & set(held)
            and all(held.count(one.lower()) == 1 for one in columns)
            and len({one.lower() for one in columns}) == len(columns)
            and (user_type == _TEXT or user_type in _INTEGERS)
            and types.get(fields.day) == "DATE"
            and all(types.get(one) == _TEXT for one in columns[2:])
        )
        if not plain:
            raise UnreadableError
        default = rules.op_default
        op = text(Op.REMOVE if default is Op.REMOVE else Op.ADD)
        if columns[2:]:
            op = name(fields.op) if default is None else f"coalesce({name(fields.op)}, {op})"
        ((rows,),) = tables.execute(f"select count(*) from {source}")  # noqa: S608
        return cls(tables, rules, source, int(rows), tuple(columns), user_type == _TEXT, op)

    def looks_clean(self) -> bool:
        """Whether no row has a fault but, perhaps, in the user ids that `fold` reads anyway."""
        ((sound,),) = self.tables.execute(
            f"select count(*) from {self.source} where {self._sound_event}"  # noqa: S608
        )
        return int(sound) == self.rows and not self._has_bad_users_outside()

    def expose(self, *, sound_only: bool) -> None:
        """Makes the relation `rows` of the days of any window, or of the sound rows among them."""
        start = self.tables.span.start.isoformat()
        where = f"{self._inside} and {self._sound}" if sound_only else self._inside
        self.tables.execute(
            f"create or replace view rows as select {self._user} as u,"  # noqa: S608
            f" ({self._day} - date '{start}')::ubigint as d, ({self.op} = '+') as add,"
            f" {_ROW_NUMBER} as ord from {self.source} where {where}"
        )

    def has_bad_users(self) -> bool:
        """Whether a user that `fold` found is none."""
        sound = f"coalesce({self._sound_user('u')}, false)"
        return any(
            self.tables.execute(f"select 1 from {table} where not {sound} limit 1")  # noqa: S608
            for table in ("people", "pairs")
        )

    def rejections(self, kept_max: int) -> tuple[tuple[Rejection, ...], int]:
        """The first rows that are not taken, and how many there are.

        Raises:
            UnreadableError: The other reader would take one of them.
        """
        from dpdau.ingest.columns import decode_table

        bad = f"from {self.source} where not coalesce({self._sound}, false)"
        ((count,),) = self.tables.execute(f"select count(*) {bad}")
        columns = ", ".join(name(one) for one in self.columns)
        rows = self.tables.arrow(
            f"select {_ROW_NUMBER}, {columns} {bad} order by {_ROW_NUMBER} limit {kept_max}"
        )
        places = rows.column(_ROW_NUMBER).to_numpy()
        found = decode_table(rows.drop([_ROW_NUMBER]), rules=self.rules, row_index=places)
        if len(found.rejected) != rows.num_rows:
            raise UnreadableError
        return tuple(found.rejected), int(count)

    def _has_bad_users_outside(self) -> bool:
        """Whether a row of a day that no window touches has a user id that is none."""
        span, sound = self.tables.span, f"coalesce({self._sound_user(self._user)}, false)"
        # One side at a time: such a condition is pushed into the scan, and skips whole row groups.
        sides = (f"< date '{span.start.isoformat()}'", f"> date '{span.last.isoformat()}'")
        return any(
            self.tables.execute(
                f"select 1 from {self.source}"  # noqa: S608
                f" where {self._day} {side} and not {sound} limit 1"
            )
            for side in sides
        )

    @property
    def _user(self) -> str:
        return name(self.columns[0])

    @property
    def _day(self) -> str:
        return name(self.columns[1])

    @property
    def _inside(self) -> str:
        """The days that a window touches."""
        span = self.tables.span
        start, last = span.start.isoformat(), span.last.isoformat()
        return f"{self._day} between date '{start}' and date '{last}'"

    @property
    def _sound_event(self) -> str:
        """A row whose op and day are taken."""
        first, last = self.rules.first_day.isoformat(), self.rules.last_day.isoformat()
        days = f"{self._day} between date '{first}' and date '{last}'"
        return f"({self.op} in ('+', '-') and {days})"

    @property
    def _sound(self) -> str:
        """A row that is taken."""
        return f"({self._sound_user(self._user)} and {self._sound_event})"

    def _sound_user(self, user: str) -> str:
        """A user id that is taken."""
        if not self.user_is_text:
            return f"{user} is not null"
        return f"strlen({user}) between 1 and {USER_ID_BYTES_MAX}"
