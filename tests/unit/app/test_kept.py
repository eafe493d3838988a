"""Which backups go, and what never does."""

import datetime as dt
from pathlib import Path

import pytest

from dpdau.app.kept import Rule, name_of
from dpdau.errors import StoreUnavailableError
from products import NOW


def backups(root: Path, *days_old: int, kind: str = "all", encrypted: bool = False) -> list[Path]:
    """Backups of some ages, the first one the newest."""
    found = []
    for days in days_old:
        path = root / name_of(kind, NOW - dt.timedelta(days=days), encrypted=encrypted)
        if kind == "all" and not encrypted:
            path.mkdir(parents=True)
            (path / "backup.json").write_text("{}")
        else:
            path.write_bytes(b"copy")
        found.append(path)
    return found


@pytest.mark.parametrize(
    ("keep", "keep_days", "left"),
    [(1, None, 1), (3, None, 3), (9, None, 4), (None, 2, 3), (None, 0, 1), (2, 30, 2), (9, 1, 2)],
)
@pytest.mark.parametrize(("kind", "encrypted"), [("all", False), ("all", True), ("ledger", False)])
def test_the_oldest_go(
    tmp_path: Path, keep: int | None, keep_days: int | None, left: int, kind: str, encrypted: bool
) -> None:
    """As many as the number says, or as the days say, whichever is less."""
    made = backups(tmp_path, 0, 1, 2, 5, kind=kind, encrypted=encrypted)
    gone = Rule(keep, keep_days).prune(made[0], now=NOW)

    assert made[left:][::-1] == gone
    assert sorted(made[:left]) == sorted(tmp_path.iterdir())


def test_nothing_else_is_touched(tmp_path: Path) -> None:
    """Other kinds, other names, what is no backup, links and what is behind them."""
    newest, _ = backups(tmp_path, 0, 9)
    (outside,) = backups(tmp_path / "outside", 8)
    backups(tmp_path, 9, kind="ledger")
    backups(tmp_path, 8, kind="ledger", encrypted=True)
    (tmp_path / "all-20200101T000000Z.partial").mkdir()
    (tmp_path / "all-20200101T000000Z").mkdir()
    (tmp_path / "all-20201301T000000Z.dpdau").write_text("")
    (tmp_path / "all-before-the-move").mkdir()
    (tmp_path / outside.name).symlink_to(outside)
    (tmp_path / "all-20200102T000000Z.dpdau").symlink_to(outside / "backup.json")
    before = set(tmp_path.rglob("*"))
    (gone,) = Rule(1, 1).prune(newest, now=NOW)

    assert {gone, gone / "backup.json"} == before - set(tmp_path.rglob("*"))
    assert outside.is_dir()


def test_the_one_that_was_just_made_stays_after_the_clock_went_back(tmp_path: Path) -> None:
    """Others look newer than it then; it was verified, and they were not."""
    later, sooner, made = backups(tmp_path, -3, -2, 0)
    assert [sooner] == Rule(2, None).prune(made, now=NOW)
    assert {later, made} == set(tmp_path.iterdir())


def test_what_cannot_be_deleted_is_no_bug(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Half of it has no name of a backup any more."""
    made = backups(tmp_path, 0, 1)

    def fail(_path: Path) -> None:
        raise OSError(5, "broken")

    with monkeypatch.context() as patch:
        patch.setattr("dpdau.app.kept.shutil.rmtree", fail)
        with pytest.raises(StoreUnavailableError, match="broken"):
            Rule(1, None).prune(made[0], now=NOW)
    assert {made[0].name, f"{made[1].name}.partial"} == {one.name for one in tmp_path.iterdir()}
