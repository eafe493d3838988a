"""Counting a file where it lies, or through the readers: which, and what ends it."""

import datetime as dt
import os
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet
import pytest

from dpdau.domain import Op
from dpdau.errors import NotFoundError, TooLargeError, UnsupportedMediaError
from dpdau.ingest import event_tables
from dpdau.ingest.event_file import Counted, EventFile, MonthSpan
from dpdau.ingest.event_tables import EventTables, engine
from dpdau.ingest.rules import Fields, Rules

SPAN = MonthSpan("2026-02", (1,))
RULES = Rules(today=dt.date(2026, 4, 2))
DAY = dt.date(2026, 2, 1)


def table(**columns: Any) -> pa.Table:
    """Three events of the first day."""
    plain = {"user_id": ["a", "b", "a"], "day": pa.array([DAY] * 3, pa.date32())}
    return pa.table(plain | columns)


def count(path: Path, rules: Rules = RULES, **more: Any) -> tuple[int, Counted]:
    """The users of the first day, and all that was counted."""
    found = EventFile(path, rules=rules, span=SPAN, **more).count()
    return int(found.table[0, 0, 0]), found


@pytest.fixture
def roads(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Which ways were taken to the end."""
    taken: list[str] = []
    for name in ("_count_plain", "_count_chunks"):
        way = getattr(EventFile, name)

        def noted(self: EventFile, way: Any = way, name: str = name) -> Counted:
            found: Counted = way(self)
            taken.append(name)
            return found

        monkeypatch.setattr(EventFile, name, noted)
    return taken


@pytest.mark.parametrize(
    ("columns", "road"),
    [
        ({}, "_count_plain"),
        ({"op": ["+", "+", "+"]}, "_count_plain"),
        ({"user_id": pa.array([1, 2, 1], pa.int64())}, "_count_plain"),
        ({"other": [1, 2, 3]}, "_count_plain"),
        ({"event_id": ["1", "2", "3"]}, "_count_chunks"),
        ({"ts": pa.array([None] * 3, pa.timestamp("s"))}, "_count_chunks"),
        ({"user_id": pa.array([b"a", b"b", b"a"])}, "_count_chunks"),
        ({"file_row_number": [9, 9, 9]}, "_count_chunks"),
        ({"DAY": ["x", "y", "z"]}, "_count_chunks"),
    ],
)
def test_plain_columns_are_counted_where_they_lie(
    tmp_path: Path, roads: list[str], columns: dict[str, Any], road: str
) -> None:
    """All else goes through the readers of `ingest`, and both count the same two users."""
    pa.parquet.write_table(table(**columns), tmp_path / "e.parquet")
    users, found = count(tmp_path / "e.parquet")
    assert (2, [road], 3, 0) == (users, roads, found.received, found.rejected_count)


def test_a_path_that_looks_like_a_pattern_is_one_file(tmp_path: Path, roads: list[str]) -> None:
    """Signs that the engine would expand name the file that has them, and no other."""
    for name in ("e[1].parquet", "e1.parquet", "it's.parquet"):
        pa.parquet.write_table(table().slice(0, 1 if "[" in name else 3), tmp_path / name)
    assert [1, 2, 2] == [
        count(tmp_path / name)[0] for name in ("e[1].parquet", "e1.parquet", "it's.parquet")
    ]
    assert ["_count_chunks", "_count_plain", "_count_plain"] == roads


def test_the_rules_name_the_columns_and_the_missing_op(tmp_path: Path) -> None:
    """Fields of other names are found by their exact case, and a missing op is what is said."""
    renamed = table(op=["+", None, None]).rename_columns(['who "x"', "When", "What"])
    pa.parquet.write_table(renamed, tmp_path / "e.parquet")
    fields = Fields(user_id='who "x"', day="When", op="What")
    refusing = Rules(today=RULES.today, fields=fields)
    removing = Rules(today=RULES.today, fields=fields, op_default=Op.REMOVE)
    adding = Rules(today=RULES.today, fields=fields, op_default=Op.ADD)

    found = [count(tmp_path / "e.parquet", rules) for rules in (refusing, removing, adding)]
    assert [1, 0, 2] == [users for users, _ in found]
    assert [2, 0, 0] == [one.rejected_count for _, one in found]
    wrong = Rules(today=RULES.today, fields=Fields(user_id='who "x"', day="when", op="What"))
    with pytest.raises(UnsupportedMediaError):
        count(tmp_path / "e.parquet", wrong)


def test_a_column_that_occurs_twice_is_refused(tmp_path: Path) -> None:
    """Neither way picks one of the two."""
    twice = pa.Table.from_arrays(
        [pa.array(["a"]), pa.array(["b"]), pa.array([DAY])], names=["user_id", "user_id", "day"]
    )
    pa.parquet.write_table(twice, tmp_path / "e.parquet")
    with pytest.raises(UnsupportedMediaError, match="twice"):
        count(tmp_path / "e.parquet")


def test_what_is_no_file_is_said(tmp_path: Path) -> None:
    """A missing file, a folder and an unknown format have each their error."""
    for path in (tmp_path / "none.parquet", tmp_path):
        with pytest.raises(NotFoundError):
            EventFile(path, rules=RULES, span=SPAN)
    with pytest.raises(UnsupportedMediaError, match="ndjson, csv, parquet"):
        EventFile(tmp_path, rules=RULES, span=SPAN, file_format="xml")


def test_a_file_that_does_not_fit_the_memory_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is never put on a disk, and the error names nobody."""
    many = pa.table({"user_id": [f"user-{n}" for n in range(200_000)], "day": [DAY] * 200_000})
    pa.parquet.write_table(many, tmp_path / "e.parquet")
    monkeypatch.setitem(event_tables._CONFIG, "memory_limit", "8MB")
    with pytest.raises(TooLargeError) as caught:
        count(tmp_path / "e.parquet")
    assert "user-" not in str(caught.value) and caught.value.__context__ is None


def test_the_engine_opens_no_other_file(tmp_path: Path) -> None:
    """Not even one that SQL names: the database may read the one file it is for."""
    for name in ("e.parquet", "f.parquet"):
        pa.parquet.write_table(table(), tmp_path / name)
    tables = EventTables(SPAN, tmp_path / "e.parquet")
    with pytest.raises(event_tables.UnreadableError):
        tables.execute(f"select * from read_parquet('{tmp_path / 'f.parquet'}')")
    with pytest.raises(event_tables.UnreadableError):
        tables.execute(f"copy (select 1) to '{tmp_path / 'out.csv'}'")
    settings = dict(
        tables.execute(
            "select name, value from duckdb_settings() where name in"
            " ('temp_directory', 'autoload_known_extensions', 'autoinstall_known_extensions')"
        )
    )
    tables.close()
    assert {"", "false"} == set(settings.values()) and len(settings) == 3


@pytest.mark.parametrize("how", ["written", "replaced", "gone"])
def test_a_file_that_changes_while_it_is_read_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, how: str
) -> None:
    """The passes would see two versions of it, and add up what neither says."""
    path, other = tmp_path / "e.parquet", tmp_path / "other.parquet"
    pa.parquet.write_table(table(op=["+", "+", "+"]), path)
    pa.parquet.write_table(table(op=["-", "-", "+"], user_id=["x", "y", "z"]), other)
    counts = EventTables.counts

    def changing(self: EventTables) -> Any:
        if how == "written":
            path.write_bytes(other.read_bytes())
        elif how == "replaced":
            other.replace(path)
        else:
            path.unlink()
        return counts(self)

    monkeypatch.setattr(EventTables, "counts", changing)
    with pytest.raises(UnsupportedMediaError, match="changed; nothing was charged"):
        count(path)


def test_a_pipe_is_refused(tmp_path: Path) -> None:
    """Its bytes come once, and a look at the first ones would take them away."""
    pipe = tmp_path / "e.ndjson"
    os.mkfifo(pipe)
    held = os.open(pipe, os.O_RDWR)
    os.write(held, b'{"user_id": "a", "op": "+", "day": "2026-02-01"}\n')
    with pytest.raises(NotFoundError, match="Expected a file"):
        EventFile(pipe, rules=RULES, span=SPAN)
    os.close(held)


def test_a_path_that_is_not_utf8_is_refused(tmp_path: Path) -> None:
    """The engine cannot name it."""
    path = tmp_path / os.fsdecode(b"e\xff.ndjson")
    path.write_bytes(b'{"user_id": "a", "op": "+", "day": "2026-02-01"}\n')
    with pytest.raises(NotFoundError, match="UTF-8"):
        count(path)


def test_who_looks_or_stops_after_the_end_is_not_told_off(tmp_path: Path) -> None:
    """Another thread may ask just when the tables are closed."""
    tables = EventTables(SPAN, tmp_path / "e.parquet")
    tables.close()
    tables.interrupt()
    assert 0.0 == tables.share_done()


def test_a_stop_ends_the_counting(tmp_path: Path) -> None:
    """Before it begins, or in the middle of a statement."""
    pa.parquet.write_table(table(), tmp_path / "e.parquet")
    file = EventFile(tmp_path / "e.parquet", rules=RULES, span=SPAN)
    file.stop()
    with pytest.raises(UnsupportedMediaError, match="nothing was charged"):
        file.count()


def test_a_stop_in_a_statement_is_no_damage(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What the engine says of an interrupt is not taken for a file that cannot be read."""
    pa.parquet.write_table(table(), tmp_path / "e.parquet")
    file = EventFile(tmp_path / "e.parquet", rules=RULES, span=SPAN)

    def interrupted(self: EventTables) -> None:
        file.stop()

        def raising() -> None:
            raise engine.InterruptException

        event_tables.guarded(raising)

    monkeypatch.setattr(EventTables, "fold", interrupted)
    with pytest.raises(UnsupportedMediaError, match="Stopped"):
        file.count()


def test_progress_goes_from_nothing_to_all(tmp_path: Path) -> None:
    """At the end the share is 1 and the rows are those of the file."""
    pa.parquet.write_table(table(), tmp_path / "e.pq")
    (tmp_path / "e.csv").write_text("user_id,day\na,2026-02-01\nb,2026-02-01\n")
    for name, rows in (("e.pq", 3), ("e.csv", 2)):
        file = EventFile(tmp_path / name, rules=RULES, span=SPAN)
        before = file.progress()
        file.count()
        assert (0.0, 0) == before
        assert (1.0, rows) == file.progress()
