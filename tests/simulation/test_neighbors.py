"""Files with and without one user: no count moves by more than that user."""

import datetime as dt
import json
import tempfile
from pathlib import Path

import numpy as np
from hypothesis import example, given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from dpdau.activity.embedded import EmbeddedStore
from dpdau.ingest.batch import ingest
from dpdau.ingest.files import read
from dpdau.ingest.rules import Rules
from dpdau.pseudonym import EpochKey, Pseudonymizer

NOW = dt.datetime(2026, 3, 1, tzinfo=dt.UTC)
RULES = Rules(NOW.date())
FIRST = dt.date(2026, 2, 1)
LAST = FIRST + dt.timedelta(days=9)
USERS = Pseudonymizer([EpochKey(1, b"k" * 32)])
LEAVING = "alice"
SMALL_CHUNK_BYTES = 150

# A row: user, op (None: the field is not there), day after the first, and what is odd about it.
Row = tuple[str, str | None, int, str]
ROWS = st.tuples(
    st.sampled_from([LEAVING, "b1", "b2", "b3"]),
    st.sampled_from(["+", "-", "+", None]),
    st.integers(0, 3),
    st.sampled_from(["", "", "", "quote", "cut", "mark"]),
)
# A reading: which file, under its name or without one, in small chunks or one.
READINGS = st.tuples(st.integers(0, 2), st.booleans(), st.booleans())


def ndjson(row: Row) -> str:
    """One line."""
    user, op, day, odd = row
    fields = {"user_id": user, "op": op, "day": (FIRST + dt.timedelta(days=day)).isoformat()}
    line = json.dumps({name: value for name, value in fields.items() if value is not None})
    return {"": line, "quote": f'"{line}', "cut": line[:-1], "mark": f"\ufeff{line}"}[odd]


def csv(row: Row) -> str:
    """One line behind the header `user_id,op,day`."""
    user, op, day, odd = row
    line = f"{user},{op or ''},{(FIRST + dt.timedelta(days=day)).isoformat()}"
    return {"": line, "quote": f'"{line}', "cut": f'{line},"', "mark": f"\ufeff{line}"}[odd]


def counted(
    files: list[list[Row]], readings: list[tuple[int, bool, bool]], form: str
) -> NDArray[np.int64]:
    """The counts of every day after the files were read."""
    with tempfile.TemporaryDirectory() as folder:
        paths = []
        for number, rows in enumerate(files):
            lines = [ndjson(row) for row in rows]
            if form == "csv":
                lines = ["user_id,op,day", *map(csv, rows)]
            paths.append(Path(folder) / f"{number}.{form}")
            paths[-1].write_text("\n".join(lines), encoding="utf-8")
        store = EmbeddedStore(Path(folder) / "activity", clock=lambda: NOW)
        for number, named, small in readings:
            size = SMALL_CHUNK_BYTES if small else 1 << 20
            name = f"{number}-{small}" if named else None
            for chunk in read(paths[number], rules=RULES, chunk_bytes=size):
                batch_id = None if name is None else f"{name}:{chunk.number}"
                ingest(chunk.decoded, store=store, pseudonymizer=USERS, batch_id=batch_id)
        counts = store.counts(first=FIRST, last=LAST, window_days=(1, 7))
        store.close()
    return counts


def without(files: list[list[Row]], form: str) -> list[list[Row]]:
    """The same files, had the user never been there."""
    return [[row for row in rows if not _is_leaving(row, form)] for rows in files]


def _is_leaving(row: Row, form: str) -> bool:
    """Whether a row is the user's; behind a byte order mark, CSV has another user's id."""
    user, _, _, odd = row
    return user == LEAVING and not (form == "csv" and odd == "mark")


B: list[Row] = [(f"b{number}", "+", 0, "") for number in (1, 2, 3)]
GONE: list[Row] = [(user, "-", day, odd) for user, _, day, odd in B]
VISITS: list[Row] = [(user, None, day, odd) for user, _, day, odd in B]
ALL = [(number, False, False) for number in range(3)]


@example([[*B, (LEAVING, "+", 0, "")], GONE, B], ALL, "csv")
@example([B, GONE, B], ALL, "ndjson")
@example([[(LEAVING, "+", 0, ""), (LEAVING, "+", 0, "mark")], [], []], ALL, "csv")
@example([[(LEAVING, "+", 0, ""), *VISITS], [], []], ALL, "ndjson")
@example([[(LEAVING, "+", 0, "quote"), *B], [], []], ALL, "csv")
@example([[(LEAVING, "+", 0, "cut"), *B], [], []], ALL, "csv")
@given(
    st.lists(st.lists(ROWS, max_size=12), min_size=3, max_size=3),
    st.lists(READINGS, max_size=7),
    st.sampled_from(["ndjson", "csv"]),
)
@settings(max_examples=80, deadline=None)
def test_one_user_moves_no_count_by_more_than_one(
    files: list[list[Row]], readings: list[tuple[int, bool, bool]], form: str
) -> None:
    """Whatever is sent, in what order, under names or without, whole or in chunks.

    A name stands for one content: a file in chunks of one size.
    """
    moved = counted(files, readings, form) - counted(without(files, form), readings, form)

    assert np.abs(moved).max() <= 1
