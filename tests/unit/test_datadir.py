"""The data directory: permissions, and one owner at a time."""

import errno
import os
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


@pytest.mark.skipif(not Path("/proc/locks").exists(), reason="the system tells of no locks")
def test_the_process_that_has_a_directory_is_named(tmp_path: Path) -> None:
    """Whoever waits is told for whom: a service, or each of some commands; nobody else."""
    one, other = DataDir(tmp_path / "one").create(), DataDir(tmp_path / "other").create()
    owner, user = one.own("http://127.0.0.1:8000"), other.use()
    found = []
    for folder in (one, other):
        with pytest.raises(DataDirInUseError, match=rf"\(process {os.getpid()}\)") as refused:
            folder.own()
        found.append(refused.value.facts["processes"])
    owner.close()
    user.close()

    assert [[os.getpid()], [os.getpid()]] == found


def test_a_place_that_cannot_be_written_is_one_error(tmp_path: Path) -> None:
    """A file where the folder should be is refused with one clear error."""
    (tmp_path / "data").write_text("a file")

    with pytest.raises(StoreUnavailableError):
        DataDir(tmp_path / "data").create()


def test_an_owner_on_a_full_disk_is_unavailable(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A directory whose owner cannot be written down is not owned, and is free afterwards."""
    folder = DataDir(tmp_path).create()

    def full(*_: object) -> int:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with monkeypatch.context() as disk:
        disk.setattr(os, "pwrite", full)
        with pytest.raises(StoreUnavailableError, match="No space left"):
            folder.own("http://127.0.0.1:8000")

    folder.own("http://127.0.0.1:8000").close()


def test_a_hold_is_given_back_on_a_disk_that_refuses(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where the file of the hold cannot be emptied, the hold is given back all the same."""
    folder = DataDir(tmp_path).create()
    owner = folder.own("http://127.0.0.1:8000")

    def refused(*_: object) -> None:
        raise OSError(errno.EROFS, os.strerror(errno.EROFS))

    with monkeypatch.context() as disk:
        disk.setattr(os, "ftruncate", refused)
        owner.close()

    folder.own("http://127.0.0.1:9000").close()
