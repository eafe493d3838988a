"""Files of the lake: whole or not there, private, and described as they are."""

import stat
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from dpdau.activity.spark.lake import DAYS, KINDS, SEEN, UNSPLIT, Lake, part_of
from dpdau.errors import StoreUnavailableError


def rows(*keys: int, commit: int = 4) -> pa.Table:
    """Days of some keys."""
    size = len(keys)
    return pa.table(
        {
            "group": [0] * size,
            "key": list(keys),
            "day": list(range(7, 7 + size)),
            "add": [True] * size,
            "commit": [commit] * size,
        },
        schema=DAYS.arrow_schema,
    )


def test_a_file_is_described_as_it_is(tmp_path: Path) -> None:
    """Commit, rows, size and bounds are those of its rows; without a row there is no file."""
    lake = Lake(tmp_path, read_only=False)
    [file] = lake.write(DAYS, rows(1, -1))

    assert (4, UNSPLIT, 2, 0, 0, 7, 8) == (
        file.seq,
        file.part,
        file.rows,
        file.group_min,
        file.group_max,
        file.day_min,
        file.day_max,
    )
    assert (tmp_path / file.name).stat().st_size == file.size
    assert {file.name} == lake.names()
    assert file.size == lake.bytes_on_disk()
    assert [] == lake.write(DAYS, rows())
    [alone] = lake.write(DAYS, rows(-1))
    assert 15 == alone.part == part_of(-1)
    [seen] = lake.write(
        SEEN, pa.table({"group": [1], "key": [2], "commit": [3]}, schema=SEEN.arrow_schema)
    )
    assert (None, None) == (seen.day_min, seen.day_max)


def test_files_of_several_row_groups_have_the_bounds_of_all(tmp_path: Path) -> None:
    """The bounds are over all row groups; files without a row are left out."""
    lake = Lake(tmp_path, read_only=False)
    with lake.staging() as stage:
        (stage / "deep").mkdir(parents=True)
        pq.write_table(rows(1, 2, 3, -1), stage / "deep" / "a.parquet", row_group_size=1)
        pq.write_table(rows(), stage / "b.parquet")
        [file] = lake.take(DAYS, stage)

    assert (7, 10, 4, UNSPLIT) == (file.day_min, file.day_max, file.rows, file.part)
    assert [] == list((tmp_path / "tmp").iterdir())


def test_a_lake_is_private(tmp_path: Path) -> None:
    """Folders are 0700, files 0600."""
    lake = Lake(tmp_path / "lake", read_only=False)
    lake.write(DAYS, rows(1))
    paths = [lake.folder, *lake.folder.rglob("*")]

    assert len(KINDS) + 4 == len(paths)
    for path in paths:
        expected = 0o700 if path.is_dir() else 0o600
        assert expected == stat.S_IMODE(path.stat().st_mode)


def test_a_lake_keeps_its_id(tmp_path: Path) -> None:
    """Opened again it is the same lake; another one is another; there is none to read at first."""
    with pytest.raises(StoreUnavailableError):
        Lake(tmp_path / "a", read_only=True)
    first = Lake(tmp_path / "a", read_only=False)

    assert first.id == Lake(tmp_path / "a", read_only=True).id
    assert first.id != Lake(tmp_path / "b", read_only=False).id


def test_what_was_being_written_goes(tmp_path: Path) -> None:
    """A stage that a crash left is deleted, and what is asked to go; damage is seen."""
    lake = Lake(tmp_path, read_only=False)
    files = [file for key in (1, 2, 3) for file in lake.write(DAYS, rows(key))]
    (tmp_path / "tmp" / "left").mkdir()
    (tmp_path / "tmp" / "left" / "0.parquet").write_bytes(b"half")
    lake.remove([files[0].name, files[0].name])
    (tmp_path / files[1].name).write_bytes(b"cut")
    lake.sync()

    assert [] == list((tmp_path / "tmp").iterdir())
    assert [files[0].name, files[1].name] == lake.damaged(files)
