"""Which Parquet files of a lake are the store: a table of the manifest, where there is a lake."""

import dataclasses
import sqlite3
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final, Protocol

from dpdau.errors import InvalidSettingError

_LAKE: Final = "lake"
_SCHEMA: Final = """
CREATE TABLE lake_files (
    name TEXT PRIMARY KEY, kind TEXT NOT NULL, seq INTEGER NOT NULL, part INTEGER NOT NULL,
    rows INTEGER NOT NULL, size INTEGER NOT NULL,
    group_min INTEGER NOT NULL, group_max INTEGER NOT NULL, day_min INTEGER, day_max INTEGER
) STRICT
"""


class LakeFolder(Protocol):
    """Where the data of a manifest lies, if not beside it."""

    @property
    def id(self) -> str:
        """The id of the manifest whose lake it is; empty where it is nobody's yet."""

    def claim(self, lake: str) -> None:
        """Makes it the lake of the manifest with an id, unless it is another one's already."""


@dataclass(frozen=True, slots=True)
class LakeFile:
    """A file that is part of the store; a larger `seq` is newer.

    Attributes:
        name: Its place in the lake.
        kind: The table whose rows it holds.
        seq: The commit of all its rows.
        part: Which pseudonyms it holds, or -1 where it is not cut by them.
        rows: How many rows it holds.
        size: Its bytes.
        group_min: The least group of its rows; what a group is depends on the table.
        group_max: The greatest one.
        day_min: The first day of its rows, or None where they have none.
        day_max: The last one.
    """

    name: str
    kind: str
    seq: int
    part: int
    rows: int
    size: int
    group_min: int
    group_max: int
    day_min: int | None
    day_max: int | None

    def has_groups(self, groups: range) -> bool:
        """Whether it may hold a row of some groups."""
        return groups.start <= self.group_max and self.group_min < groups.stop

    def has_days(self, days: range) -> bool:
        """Whether it may hold a row of some days."""
        if self.day_min is None or self.day_max is None:
            return True
        return days.start <= self.day_max and self.day_min < days.stop


class LakeTable:
    """The lake of a manifest, over its connection."""

    def __init__(self, db: sqlite3.Connection) -> None:
        self._db = db

    def create(self, lake: str | None) -> None:
        """Makes the table for a lake with an id, in the transaction that makes the manifest."""
        if lake is not None:
            self._db.execute(_SCHEMA)
            self._db.execute("INSERT INTO meta VALUES (?, ?)", (_LAKE, lake.encode()))

    @property
    def id(self) -> str | None:
        """The id under which a lake is this manifest's, or None where it has none."""
        row = self._db.execute("SELECT value FROM meta WHERE name = ?", (_LAKE,)).fetchone()
        return None if row is None else bytes(row[0]).decode()

    def check(self, lake: str | None) -> None:
        """Refuses a manifest whose data is not where it is looked for.

        Raises:
            InvalidSettingError: It is in another lake, or in one and not in the folder, or the
                other way round.
        """
        found = self.id
        if found != lake:
            places = ("its own folder", "the lake that it was made with", "another lake")
            where = places[0] if found is None else places[1] if lake is None else places[2]
            raise InvalidSettingError(
                "Expected the data of the activity store where it is looked for, found that it is"
                f" in {where}; nothing was changed.",
                setting="LAKE_DIR",
            )

    def files(self) -> list[LakeFile]:
        """All files, oldest first."""
        rows = self._db.execute("SELECT * FROM lake_files ORDER BY seq, name")
        return [LakeFile(*row) for row in rows]

    def names(self) -> set[str]:
        """The names of all files."""
        return {str(name) for (name,) in self._db.execute("SELECT name FROM lake_files")}

    def add(self, files: Iterable[LakeFile]) -> None:
        """Names finished files."""
        self._db.executemany(
            "INSERT INTO lake_files VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
            [dataclasses.astuple(one) for one in files],
        )

    def drop(self, files: Iterable[LakeFile]) -> None:
        """Forgets files."""
        self._db.executemany(
            "DELETE FROM lake_files WHERE name = ?", [(one.name,) for one in files]
        )
