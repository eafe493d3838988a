"""Backups of everything: what is in them, and that they are whole or not there."""

import json
import stat
from pathlib import Path

import pytest

from dpdau.app import back_up
from dpdau.app.backups import check, remove_leftovers
from dpdau.datadir import DataDir
from dpdau.errors import InvalidSettingError, SecretMismatchError, StoreUnavailableError
from products import NOW, event, product, product_settings, send


def test_a_backup_has_everything_but_the_secret(tmp_path: Path) -> None:
    """Ledger, keyring and activity, private, listed with checksums; the parts fit together."""
    folder = DataDir(tmp_path / "data")
    moved: list[tuple[int, int]] = []
    with product(tmp_path) as app:
        send(app, [event(f"user-{number}") for number in range(20_000)])
        report = back_up(
            folder, app.ledger, tmp_path / "copy", clock=lambda: NOW,
            moved=lambda done, total: moved.append((done, total)),
        )  # fmt: skip
        entries = app.ledger.verify().entries

    listed = json.loads((tmp_path / "copy" / "backup.json").read_text())["files"]
    assert {"ledger.sqlite", "keyring/keyring.json", "activity/manifest.sqlite"} < listed.keys()
    assert (entries, len(listed)) == (report.entries, report.files)
    assert moved[-1][0] == moved[-1][1] > 0
    for path in (tmp_path / "copy").rglob("*"):
        assert 0 == stat.S_IMODE(path.stat().st_mode) & 0o077
    found = check(product_settings(tmp_path), folder, tmp_path / "copy")
    assert (report, entries) == (found.report, found.ledger.entries)
    assert {*listed, "backup.json"} == {
        path.relative_to(tmp_path / "copy").as_posix()
        for path in (tmp_path / "copy").rglob("*")
        if path.is_file()
    }


def test_a_backup_replaces_nothing(tmp_path: Path) -> None:
    """A target that exists is refused; one that cannot be made leaves nothing."""
    folder = DataDir(tmp_path / "data")
    with product(tmp_path) as app:
        (tmp_path / "taken").mkdir()
        with pytest.raises(InvalidSettingError):
            back_up(folder, app.ledger, tmp_path / "taken", clock=lambda: NOW)
        (tmp_path / "file").write_text("")
        with pytest.raises(StoreUnavailableError):
            back_up(folder, app.ledger, tmp_path / "file" / "copy", clock=lambda: NOW)


def test_another_secret_does_not_fit(tmp_path: Path) -> None:
    """A backup is checked under the secret that it was made under."""
    folder = DataDir(tmp_path / "data")
    with product(tmp_path) as app:
        back_up(folder, app.ledger, tmp_path / "copy", clock=lambda: NOW)
    other = product_settings(tmp_path, HASH_SALT_SECRET="b64:" + "QUJDREVGR0hJSktMTU5PUFFS" * 2)
    with pytest.raises(SecretMismatchError):
        check(other, folder, tmp_path / "copy")


def test_leftovers_go_but_what_is_being_made_stays(tmp_path: Path) -> None:
    """An unfinished folder that nobody fills is removed; a stage behind its note is kept."""
    folder = DataDir(tmp_path / "data").create()
    dead = folder.backups / "all-1.partial"
    for path in (dead, folder.stage):
        path.mkdir(parents=True)
        (path / "rows").write_bytes(b"left")
    folder.restoring.write_text("{}")

    assert ["backups/all-1.partial"] == remove_leftovers(folder)
    folder.restoring.unlink()
    assert ["restore"] == remove_leftovers(folder)
    assert [] == remove_leftovers(folder)
