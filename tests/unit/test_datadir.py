"""The data directory: permissions, and one owner at a time."""

import stat
from pathlib import Path

import pytest

from dpdau.datadir import DataDir
from dpdau.errors import DataDirInUseError, StoreUnavailableError


def test_folders_are_private(tmp_path: Path) -> None:
    """Every folder is 0700 and the lock file 0600."""
    folder = DataDir(tmp_path / "data").create()
    folder.use().close()

    for path in (folder.root, *folder.root.rglob("*")):
        assert 0 == stat.S_IMODE(path.stat().st_mode) & 0o077, path


def test_an_owned_directory_names_its_service(tmp_path: Path) -> None:
    """A command that comes while a service owns the directory is told the service's URL."""
    folder = DataDir(tmp_path).create()
    owner = folder.own("http://127.0.0.1:8000")

    with pytest.raises(DataDirInUseError, match=r"http://127\.0\.0\.1:8000"):
        folder.use()
    with pytest.raises(DataDirInUseError):
        folder.own("http://127.0.0.1:9000")

    owner.close()
    folder.use().close()


def test_commands_share_a_directory(tmp_path: Path) -> None:
    """Two commands may use a directory at once; a service must wait for both."""
    folder = DataDir(tmp_path).create()
    first, second = folder.use(), folder.use()

    with pytest.raises(DataDirInUseError, match="another command"):
        folder.own("http://127.0.0.1:8000")

    first.close()
    second.close()
    second.close()
    folder.own("http://127.0.0.1:8000").close()


def test_a_place_that_cannot_be_written_is_one_error(tmp_path: Path) -> None:
    """A file where the folder should be is refused with one clear error."""
    (tmp_path / "data").write_text("a file")

    with pytest.raises(StoreUnavailableError):
        DataDir(tmp_path / "data").create()
