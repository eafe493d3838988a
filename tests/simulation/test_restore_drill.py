"""The restore drill: into another directory, every number comes back, and nothing is paid again."""

import datetime as dt
import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from numpy import int64
from numpy.typing import NDArray

from components import postgres_server
from dpdau.app import App, back_up, restore_all, restore_ledger, sealed
from dpdau.app.backups import back_up_ledger, opened
from dpdau.datadir import DataDir
from dpdau.domain import Metric
from dpdau.errors import BudgetExhaustedError, LedgerCorruptError
from products import event, product, product_settings, send
from simulation.ledger_cases import POSTGRES, empty_schema

NOW = dt.datetime(2026, 3, 1, 12, tzinfo=dt.UTC)
FIRST = dt.date(2026, 2, 1)
PLANNED = {"RELEASE_POLICY": "plan", "DAU_BUDGET_TOTAL": 0.6}
PASSPHRASE = b"correct horse battery staple"


class NoNoise:
    """A noise source that nobody may ask: a number that comes back is not made anew."""

    def discrete_laplace(self, scale: float, size: int) -> NDArray[int64]:
        """Fails."""
        raise AssertionError("noise was drawn")

    discrete_gaussian = discrete_laplace


@pytest.fixture(params=["sqlite", pytest.param("postgres", marks=POSTGRES)])
def where(request: pytest.FixtureRequest) -> Iterator[dict[str, str]]:
    """Where the ledger is that is backed up."""
    if request.param == "sqlite":
        yield {}
        return
    with postgres_server() as server:
        yield {"SERVICE_DATABASE_URL": empty_schema(server)}


def published(app: App) -> list[bytes]:
    """Every number that was ever released, as bytes."""
    found, after = [], None
    while True:
        page, after = app.releases(after=after, limit=500)
        found += [json.dumps(one.to_json()).encode() for one in page]
        if after is None:
            return found


def spent(app: App) -> list[Any]:
    """What every budget has spent and may spend."""
    return [(one.budget.budget_id, one.budget.allowances, one.spent) for one in app.ledger.states()]


def live_a_month(app: App) -> None:
    """A plan half way through, numbers on demand up to the cap, a grant and an erasure."""
    days = [FIRST + dt.timedelta(days=number) for number in range(6)]
    send(app, [event(f"user-{number}", day) for day in days for number in range(7)])
    app.release(Metric.MAU, days[3])
    for _ in range(2):
        app.release(Metric.DAU, days[0], fresh=True)
    app.release(Metric.WAU, days[1], fresh=True)
    app.grant("wau", FIRST, reason="the board asked")
    app.erase("user-3")


def test_the_drill(where: dict[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Restored elsewhere, all releases are the same bytes, all spending is there, and what was
    spent is refused; the plan, whose later days nobody can know there, is given up."""
    monkeypatch.setattr(sealed, "SCRYPT_LOG_N", 4)
    old, new, copy = tmp_path / "old", tmp_path / "new", tmp_path / "copy.dpdau"
    with product(old, now=NOW, **PLANNED, **where) as app:
        live_a_month(app)
        DataDir(old / "data").card_key.write_bytes(b"signs cards")
        back_up(DataDir(old / "data"), app.ledger, copy, clock=lambda: NOW, passphrase=PASSPHRASE)
        numbers, budgets = published(app), spent(app)
        months = [one.plan_id for one in app.releases(after=None, limit=500)[0]]

    settings = product_settings(new, **PLANNED)
    with opened(DataDir(new / "data").create(), copy, PASSPHRASE) as plain:
        report = restore_all(settings, plain, reason="drill", accept_older=True, clock=lambda: NOW)
    with product(new, now=NOW, noise=NoNoise(), **PLANNED) as app:
        assert app.ledger.verify().ok
        assert (numbers, budgets) == (published(app), spent(app))
        for day, metric in ((FIRST, Metric.DAU), (FIRST + dt.timedelta(days=3), Metric.MAU)):
            answer = app.release(metric, day)
            assert answer.replayed
            assert json.dumps(answer.release.to_json()).encode() in numbers
        with pytest.raises(BudgetExhaustedError):
            app.release(Metric.DAU, FIRST, fresh=True)
        assert app.month("2026-02").abandoned
        assert budgets == spent(app)
    assert b"signs cards" == DataDir(new / "data").card_key.read_bytes()
    assert (("2026-02",), ()) == (report.abandoned, report.erasures_since)
    assert len(set(months)) == 4


def test_no_older_copy_refunds(tmp_path: Path) -> None:
    """Of the ledger alone or of everything: what the mark has seen is not forgotten here."""
    with product(tmp_path, now=NOW, **PLANNED) as app:
        live_a_month(app)
        older, whole = tmp_path / "older.sqlite", tmp_path / "whole"
        back_up_ledger(DataDir(tmp_path / "data"), app.ledger, older)
        back_up(DataDir(tmp_path / "data"), app.ledger, whole, clock=lambda: NOW)
        app.release(Metric.WAU, FIRST, fresh=True)
        newest = tmp_path / "newest.sqlite"
        back_up_ledger(DataDir(tmp_path / "data"), app.ledger, newest)
        numbers, budgets = published(app), spent(app)
    settings = product_settings(tmp_path, **PLANNED)
    shutil.rmtree(tmp_path / "data" / "ledgers")

    for source in (older, whole / "ledger.sqlite"):
        with pytest.raises(LedgerCorruptError, match="no older"):
            restore_ledger(settings, source, reason="drill", verify_only=False)
    with pytest.raises(LedgerCorruptError, match="no older"):
        restore_all(settings, whole, reason="drill", accept_older=True)
    restore_ledger(settings, newest, reason="drill", verify_only=False)
    with product(tmp_path, now=NOW, **PLANNED) as app:
        assert (numbers, budgets) == (published(app), spent(app))
