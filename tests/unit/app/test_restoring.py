"""The way back: nothing is refunded, no noise is used twice, and what is lost is named."""

import datetime as dt
import errno
import shutil
import stat
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import pytest

from dpdau.activity import erasure
from dpdau.app import App, back_up, restore_all
from dpdau.app.restoring import RestoreReport
from dpdau.app.wiring import secret_of
from dpdau.datadir import DataDir
from dpdau.domain import ErasureReceipt, Metric
from dpdau.errors import (
    DataDirInUseError,
    InvalidPlanError,
    InvalidSettingError,
    LedgerCorruptError,
    StoreCorruptError,
    StoreUnavailableError,
)
from dpdau.plan import month_plan_id
from dpdau.pseudonym import Keyring
from products import event, product, product_settings, send

NOW = dt.datetime(2026, 3, 1, 12, tzinfo=dt.UTC)
PLANNED = {"RELEASE_POLICY": "plan"}
MONTH = "2026-02"
SOURCE = "copy"


def day(number: int) -> dt.date:
    """A day of the month."""
    return dt.date(2026, 2, number)


def copy_of(app: App, root: Path, name: str = SOURCE) -> None:
    """Backs everything up."""
    back_up(DataDir(root / "data"), app.ledger, root / name, clock=lambda: NOW)


def bring_back(root: Path, *, accept_older: bool = False, name: str = SOURCE) -> RestoreReport:
    """Restores a backup."""
    return restore_all(
        product_settings(root, **PLANNED),
        root / name,
        reason="new disk",
        accept_older=accept_older,
        clock=lambda: NOW,
    )


def planned(root: Path) -> AbstractContextManager[App]:
    """The product, whose plan of the month may be open."""
    return product(root, now=NOW, **PLANNED)


def test_the_newest_backup_comes_back_whole_and_its_plan_goes_on(tmp_path: Path) -> None:
    """Where the ledger proves that nothing happened since, all is as it was: no flag, no loss."""
    with planned(tmp_path) as app:
        send(app, [event("a", day(1)), event("b", day(2))])
        app.release(Metric.DAU, day(3))
        copy_of(app, tmp_path)
    shutil.rmtree(tmp_path / "data" / "activity")
    shutil.rmtree(tmp_path / "data" / "keyring")

    found = bring_back(tmp_path)
    with planned(tmp_path) as app:
        again = app.release(Metric.MAU, day(9)).release.estimate
        actions = [one.action for one in app.ledger.audit_log()]
    assert (True, True, ()) == (found.unchanged, found.keeps_ledger, found.abandoned)
    assert 2 == again
    assert "activity_restored" in actions


def test_an_older_backup_is_refused_and_names_who_comes_back(tmp_path: Path) -> None:
    """Erasures since then are listed; only by name of the option it is restored, and recorded."""
    with planned(tmp_path) as app:
        send(app, [event("a", day(1)), event("gone", day(1))])
        copy_of(app, tmp_path)
        erasure_id = app.erase("gone").erasure_id
    with pytest.raises(InvalidSettingError, match=erasure_id):
        bring_back(tmp_path)
    with planned(tmp_path) as app:
        assert 1 == _users(app)

    found = bring_back(tmp_path, accept_older=True)
    assert (False, (erasure_id,)) == (found.unchanged, found.erasures_since)
    with planned(tmp_path) as app:
        assert 2 == _users(app)
        (entry,) = [one for one in app.ledger.audit_log() if one.action == "activity_restored"]
        assert [erasure_id] == entry.facts["erasures_since"]
        app.erase("gone")
        assert 1 == _users(app)


def test_a_plan_whose_days_went_on_is_given_up(tmp_path: Path) -> None:
    """Older activity under a newer ledger: the plan's noise is never added to other counts."""
    with planned(tmp_path) as app:
        send(app, [event("a", day(1))])
        app.release(Metric.DAU, day(2))
        copy_of(app, tmp_path)
        app.release(Metric.DAU, day(5))
    found = bring_back(tmp_path, accept_older=True)

    assert (True, (MONTH,)) == (found.keeps_ledger, found.abandoned)
    with planned(tmp_path) as app:
        assert app.month(MONTH).abandoned
        assert 5 == app.month(MONTH).days_taken
        assert None is app._store.secret(MONTH)
        on_demand = app.release(Metric.DAU, day(6)).release
    assert month_plan_id(MONTH) != on_demand.plan_id


def test_a_plan_whose_next_day_was_fixed_but_not_taken_is_given_up(tmp_path: Path) -> None:
    """Who was erased before the fixed day was taken would be in, out and in again."""
    with planned(tmp_path) as app:
        send(app, [event("a", day(1)), event("gone", day(1))])
        app.release(Metric.DAU, day(2))
        app._store.freeze(MONTH, day(3))
        copy_of(app, tmp_path)
        app.erase("gone")
        assert 1 == app.release(Metric.MAU, day(3)).release.estimate
    found = bring_back(tmp_path, accept_older=True)

    assert ((MONTH,), (month_plan_id(MONTH),)) == (found.abandoned, found.plans_since)


def test_a_plan_without_a_later_day_goes_on_under_a_newer_ledger(tmp_path: Path) -> None:
    """Where the ledger shows that no day was taken since, no noise can be used twice."""
    with planned(tmp_path) as app:
        send(app, [event("a", day(1))])
        app.release(Metric.DAU, day(2))
        copy_of(app, tmp_path)
        app.erase("a")
    found = bring_back(tmp_path, accept_older=True)

    assert () == found.abandoned
    with planned(tmp_path) as app:
        assert day(3) == app.release(Metric.DAU, day(3)).release.window.end


def test_on_a_new_machine_open_plans_are_given_up(tmp_path: Path) -> None:
    """Nothing shows how many days were published since, so no further day takes that noise."""
    with planned(tmp_path / "old") as app:
        send(app, [event("a", day(1))])
        app.release(Metric.DAU, day(2))
        copy_of(app, tmp_path / "old")
    (tmp_path / "new").mkdir()
    shutil.copytree(tmp_path / "old" / SOURCE, tmp_path / "new" / SOURCE)
    with pytest.raises(InvalidSettingError, match="no newer ledger is here"):
        bring_back(tmp_path / "new")
    found = bring_back(tmp_path / "new", accept_older=True)

    assert (False, (MONTH,)) == (found.keeps_ledger, found.abandoned)
    with planned(tmp_path / "new") as app:
        assert 1 == app.release(Metric.DAU, day(1)).release.estimate
        assert app.month(MONTH).abandoned
        with pytest.raises(InvalidPlanError):
            app._store.open_month(MONTH, lookback_days=30)


def test_an_older_ledger_is_refused(tmp_path: Path) -> None:
    """With the newer ledger lost and its mark there, a refund is refused, flag or not."""
    with planned(tmp_path) as app:
        copy_of(app, tmp_path)
        app.release(Metric.DAU, day(2))
    (tmp_path / "data" / "ledgers" / "ledger.sqlite").unlink()

    with pytest.raises(LedgerCorruptError):
        bring_back(tmp_path, accept_older=True)


def test_the_keys_that_are_here_stay(tmp_path: Path) -> None:
    """A keyring that is newer than the backup is kept, so that no destroyed key comes back."""
    with planned(tmp_path) as app:
        copy_of(app, tmp_path)
    keyring = tmp_path / "data" / "keyring" / "keyring.json"
    before = keyring.stat().st_ino
    bring_back(tmp_path)
    assert before == keyring.stat().st_ino


def test_another_keyring_is_refused(tmp_path: Path) -> None:
    """A backup whose keys the keyring here does not know would rename every user."""
    with planned(tmp_path) as app:
        copy_of(app, tmp_path)
    with product(tmp_path / "other", now=NOW - dt.timedelta(days=1), **PLANNED):
        pass
    theirs, mine = (root / "data" / "keyring" for root in (tmp_path / "other", tmp_path))
    shutil.copy(theirs / "keyring.json", mine / "keyring.json")

    with pytest.raises(StoreCorruptError, match="keyring"):
        bring_back(tmp_path)


def test_a_plan_for_the_next_key_is_no_key(tmp_path: Path) -> None:
    """Planned anew since the backup, it renames nobody; in use since then only there, it does."""
    file = tmp_path / "data" / "keyring" / "keyring.json"

    def plan(days: int) -> None:
        settings = product_settings(tmp_path, **PLANNED)
        with App.open(settings, clock=lambda: NOW, alone=True).closing() as app:
            app.keys.plan(NOW.date() + dt.timedelta(days=days))

    plan(5)
    only_planned = file.read_bytes()
    with planned(tmp_path) as app:
        copy_of(app, tmp_path, "before")
    plan(7)
    bring_back(tmp_path, name="before", accept_older=True)
    file.write_bytes(only_planned)
    with product(tmp_path, now=NOW + dt.timedelta(days=5), serve_at="here", **PLANNED) as app:
        copy_of(app, tmp_path, "after")
    file.write_bytes(only_planned)

    with pytest.raises(StoreCorruptError, match="keyring"):
        bring_back(tmp_path, name="after", accept_older=True)


def test_a_directory_in_use_is_left_alone(tmp_path: Path) -> None:
    """A restore needs the data directory to itself; checking a backup does not."""
    with planned(tmp_path) as app:
        copy_of(app, tmp_path)
        with pytest.raises(DataDirInUseError):
            bring_back(tmp_path)
        settings = product_settings(tmp_path, **PLANNED)
        assert restore_all(settings, tmp_path / SOURCE, reason="", verify_only=True).unchanged


def _users(app: App) -> int:
    """How many users were active on the first day."""
    (counts,) = app.exact({Metric.DAU: 1}, day(1), day(1), reason="test").values()
    return int(counts[0])


def test_on_a_new_machine_the_live_noise_is_gone(tmp_path: Path) -> None:
    """A live plan takes no further tick from a copy: its noise is destroyed with the restore."""
    live = {"LIVE_EPSILON": 1.0, "LIVE_TICKS": 4}
    start = dt.datetime(2026, 2, 27, tzinfo=dt.UTC)
    with product(tmp_path / "old", now=start + dt.timedelta(hours=1), **live) as app:
        send(app, [event("a", start.date())])
        app.take_due()
    with product(tmp_path / "old", now=start + dt.timedelta(hours=6), **live) as app:
        assert 1 == app.take_due()
        copy_of(app, tmp_path / "old")
    (tmp_path / "new").mkdir()
    shutil.copytree(tmp_path / "old" / SOURCE, tmp_path / "new" / SOURCE)
    bring_back(tmp_path / "new", accept_older=True)

    with product(tmp_path / "new", now=start + dt.timedelta(hours=12), **live) as app:
        assert None is app._store.live.secret("2026-02")
        with pytest.raises(StoreCorruptError, match="noise"):
            app.take_due()
    with product(tmp_path / "old", now=start + dt.timedelta(hours=12), **live) as app:
        assert 1 == app.take_due()


def test_who_was_being_erased_while_it_was_made_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A copy taken between the record of an erasure and the erasure holds the user, and says so."""
    erase = erasure.erase

    def copied_first(*place: Any, **how: Any) -> ErasureReceipt:
        copy_of(app, tmp_path)
        return erase(*place, **how)

    with planned(tmp_path) as app:
        send(app, [event("a", day(1)), event("gone", day(1)), event("before", day(1))])
        app.erase("before")
        with monkeypatch.context() as patch:
            patch.setattr(erasure, "erase", copied_first)
            erasure_id = app.erase("gone").erasure_id
    with pytest.raises(InvalidSettingError, match=f"being erased.*\n.*{erasure_id}"):
        bring_back(tmp_path)

    found = bring_back(tmp_path, accept_older=True)
    assert (True, (erasure_id,)) == (found.unchanged, found.erasures_since)
    with planned(tmp_path) as app:
        assert 2 == _users(app)
        app.erase("gone")
        copy_of(app, tmp_path, "newest")
    assert () == bring_back(tmp_path, name="newest").erasures_since
    assert erasure_id in bring_back(tmp_path, accept_older=True).erasures_since


def test_what_is_brought_back_is_private(tmp_path: Path) -> None:
    """Whatever carried the backup here may have opened it to everybody."""
    with planned(tmp_path) as app:
        send(app, [event(f"user-{number}", day(1)) for number in range(20_000)])
        copy_of(app, tmp_path)
    for path in (tmp_path / SOURCE, *(tmp_path / SOURCE).rglob("*")):
        path.chmod(0o755 if path.is_dir() else 0o644)
    shutil.rmtree(tmp_path / "data")
    bring_back(tmp_path, accept_older=True)

    names = {path.name for path in (tmp_path / "data").rglob("*") if _is_open(path)}
    assert set() == names


def _is_open(path: Path) -> bool:
    """Whether somebody else may look at it."""
    return bool(stat.S_IMODE(path.stat().st_mode) & 0o077)


def test_a_restore_that_was_cut_short_is_run_again_as_it_was(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its own entries in the ledger are no reason to ask for more; and what it replaced is gone."""
    with planned(tmp_path) as app:
        send(app, [event("a", day(1))])
        copy_of(app, tmp_path)
        assert 1 == _users(app)
        copy_of(app, tmp_path, "newest")
    folder, remove = DataDir(tmp_path / "data"), shutil.rmtree

    def fail(path: Path, *, ignore_errors: bool = False) -> None:
        if not ignore_errors:
            raise OSError(errno.EIO, "broken")
        remove(path, ignore_errors=True)

    with monkeypatch.context() as patch:
        patch.setattr("dpdau.app.restoring.shutil.rmtree", fail)
        with pytest.raises(StoreUnavailableError, match="broken"):
            bring_back(tmp_path, name="newest")
    assert (folder.stage / "replaced").exists()
    with pytest.raises(StoreCorruptError, match="cut short"), planned(tmp_path):
        pass
    with pytest.raises(InvalidSettingError, match="newest backup"):
        bring_back(tmp_path)

    bring_back(tmp_path, name="newest")
    assert not folder.stage.exists()
    with planned(tmp_path) as app:
        assert 1 == _users(app)


def test_a_full_disk_is_no_bug_and_leaves_the_old_state(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It can be tried again; until then the product opens as it was."""
    with planned(tmp_path) as app:
        send(app, [event("a", day(1))])
        copy_of(app, tmp_path)

    def fail(*_place: Any, **_how: Any) -> None:
        raise OSError(errno.ENOSPC, "full")

    with monkeypatch.context() as patch:
        patch.setattr("dpdau.app.restoring.shutil.copytree", fail)
        with pytest.raises(StoreUnavailableError, match="full"):
            bring_back(tmp_path)
    with planned(tmp_path) as app:
        assert 1 == _users(app)


def test_a_key_that_was_planned_anew_is_no_other_keyring(tmp_path: Path) -> None:
    """A planned key names nobody: a backup with another one than here comes back."""
    settings = product_settings(tmp_path, **PLANNED)
    with planned(tmp_path):
        pass
    for number, name in ((9, SOURCE), (10, "other")):
        keyring = Keyring.open(tmp_path / "data" / "keyring", secret_of(settings))
        later = NOW + dt.timedelta(minutes=number)
        keyring.rotated(dt.date(2026, 3, number), created_at=later).save(
            tmp_path / "data" / "keyring"
        )
        with planned(tmp_path) as app:
            copy_of(app, tmp_path, name)

    assert bring_back(tmp_path, accept_older=True).keeps_ledger
