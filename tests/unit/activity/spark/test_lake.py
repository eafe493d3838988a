"""Files of the lake: whole or not there, private, and described as they are."""

import stat
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from dpdau.activity.spark.lake import DAYS, KINDS, SEEN, UNSPLIT, Lake, part_of, uri_of
from dpdau.errors import InvalidSettingError, StoreCorruptError, StoreUnavailableError


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
        [file] = lake.take(DAYS, stage, rows=4)

    assert (7, 10, 4, UNSPLIT) == (file.day_min, file.day_max, file.rows, file.part)
    assert [] == list((tmp_path / "tmp").iterdir())


def test_a_lake_is_private(tmp_path: Path) -> None:
    """Folders are 0700, files 0600."""
    lake = Lake(tmp_path / "lake", read_only=False)
    lake.claim("a" * 24)
    lake.write(DAYS, rows(1))
    paths = [lake.folder, *lake.folder.rglob("*")]

    assert len(KINDS) + 4 == len(paths)
    for path in paths:
        expected = 0o700 if path.is_dir() else 0o600
        assert expected == stat.S_IMODE(path.stat().st_mode)


@pytest.mark.parametrize("rows_written", [3, 5])
def test_a_stage_with_other_rows_is_not_taken(tmp_path: Path, rows_written: int) -> None:
    """Fewer or more than were written, or none at all: it is refused, and nothing is moved."""
    lake = Lake(tmp_path, read_only=False)
    with lake.staging() as stage:
        with pytest.raises(StoreUnavailableError, match="share LAKE_DIR"):
            lake.take(DAYS, stage, rows=rows_written)
        stage.mkdir()
        pq.write_table(rows(1, 2, 3, 4), stage / "a.parquet")
        with pytest.raises(StoreUnavailableError, match="share LAKE_DIR"):
            lake.take(DAYS, stage, rows=rows_written)
        (stage / "b.parquet").write_bytes(b"no Parquet")
        with pytest.raises(StoreUnavailableError, match="ArrowInvalid"):
            lake.take(DAYS, stage, rows=4)

    assert set() == lake.names()


def test_what_another_attempt_wrote_is_not_taken(tmp_path: Path) -> None:
    """Files in folders of Spark's own are no part of what was written."""
    lake = Lake(tmp_path, read_only=False)
    with lake.staging() as stage:
        for name in ("_temporary/0/a.parquet", ".b.parquet", "of_group=0/c.parquet"):
            (stage / name).parent.mkdir(parents=True, exist_ok=True)
            pq.write_table(rows(1, 2), stage / name)

        assert [2] == [one.rows for one in lake.take(DAYS, stage, rows=2)]


def test_a_lake_is_that_of_who_took_it_first(tmp_path: Path) -> None:
    """Its id stays what it was, and is nobody's before; there is none to read at first."""
    with pytest.raises(StoreUnavailableError):
        Lake(tmp_path / "a", read_only=True)
    lake = Lake(tmp_path / "a", read_only=False)
    assert "" == lake.id
    for number in "ab":
        lake.claim(number * 24)

    assert "a" * 24 == lake.id == Lake(tmp_path / "a", read_only=True).id
    assert [] == lake.stages()


@pytest.mark.parametrize("body", ["", "a" * 23, "a" * 24 + "\n", "é" * 24])
def test_an_id_that_is_cut_is_refused(tmp_path: Path, body: str) -> None:
    """A half of an id is no id: the lake is not opened as another one."""
    lake = Lake(tmp_path, read_only=False)
    (tmp_path / "lake.made").write_text(body)

    with pytest.raises(StoreCorruptError, match="Restore it"):
        _ = lake.id


@pytest.mark.parametrize("sign", "%[]{}*?\\#")
def test_a_folder_that_spark_would_take_for_another_is_refused(tmp_path: Path, sign: str) -> None:
    """Each sign that means something in the name of a file for Spark; nothing is made there."""
    folder = tmp_path / f"a{sign}20b"
    with pytest.raises(InvalidSettingError, match="LAKE_DIR"):
        Lake(folder, read_only=False)

    assert not folder.exists()
    assert f"file://{tmp_path}/my lake é" == uri_of(tmp_path / "my lake é")


def test_what_cannot_be_deleted_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """An erasure rests on it, so it is no success."""
    lake = Lake(tmp_path, read_only=False)
    (tmp_path / "tmp" / "left").mkdir()

    def denied(path: Path) -> None:
        raise PermissionError(13, "denied", str(path))

    monkeypatch.setattr("shutil.rmtree", denied)
    with pytest.raises(StoreUnavailableError, match="denied"):
        lake.sync()


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
