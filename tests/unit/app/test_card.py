"""The statement of a month: what is in it, what it costs, and the key that signs it."""

import datetime as dt
import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from dpdau.app import App
from dpdau.app.card import issue, statement_of
from dpdau.app.signed_card import Card, CardKey
from dpdau.datadir import DataDir
from dpdau.domain import Metric, Segment
from dpdau.errors import (
    CardMismatchError,
    LedgerCorruptError,
    NotFoundError,
    StoreCorruptError,
    UnsupportedMediaError,
)
from products import event, product, send

MONTH = "2026-02"
LAST = dt.date(2026, 2, 28)


@pytest.fixture(scope="module")
def planned(tmp_path_factory: pytest.TempPathFactory) -> Iterator[App]:
    """A product whose plan of February is taken, under the default terms."""
    with product(tmp_path_factory.mktemp("card"), RELEASE_POLICY="plan") as app:
        send(app, [event(f"u{n}", LAST - dt.timedelta(days=n % 20)) for n in range(137)])
        app.release(Metric.MAU, LAST)
        yield app


def test_a_month_plan_is_stated_as_the_guarantee_does(planned: App) -> None:
    """The figures are those of the table in docs/guarantee.md, which a test computes."""
    told = statement_of(planned, MONTH)
    (plan,) = told["budgets"]

    assert {"epsilon": 3.0, "delta": 1e-6} == plan["month"] == told["together"]["month"]
    assert 6.52 < plan["one_replaced"]["epsilon"] <= 6.53
    assert {"epsilon": 36.0, "delta": 1.2e-5} == plan["year_added"]
    assert 12.44 < plan["year_rho_added"]["epsilon"] <= 12.45
    assert (84, 28, 28) == tuple(
        told["published"][name] for name in ("numbers", "days", "days_of_month")
    )
    assert [("dau", 1, 28), ("wau", 7, 28), ("mau", 30, 28)] == [
        (one["metric"], one["window_days"], one["numbers"]) for one in told["published"]["series"]
    ]
    assert ["dau", "wau", "mau"] == [one["budget"] for one in told["not_charged_yet"]]
    assert planned.ledger.verify().head_hash == told["ledger"]["head_hash"]


def test_a_statement_has_no_count(planned: App) -> None:
    """137 users were active; neither that nor any released number is in it."""
    told = json.dumps({**statement_of(planned, MONTH), "ledger": None, "published": None})

    assert "137" not in told
    assert "estimate" not in json.dumps(statement_of(planned, MONTH))


def test_all_budgets_add_up(tmp_path: Path) -> None:
    """DAU costs what it costs; replacing a user doubles ρ of MAU, for growth moves two cells."""
    with product(tmp_path) as app:
        send(app, [event("a", LAST)])
        for metric in Metric:
            app.release(metric, LAST)
        told = statement_of(app, MONTH)
    by_name = {one["budget"]: one for one in told["budgets"]}
    replaced = {name: one["one_replaced"]["epsilon"] for name, one in by_name.items()}

    assert ["dau", "wau", "mau"] == list(by_name)
    assert (3.0, 3.5) == (replaced["dau"], replaced["wau"])
    assert 5.157956024 == replaced["mau"]
    together = told["together"]
    assert 1e-6 == together["month"]["delta"]
    assert 3.0 + 3.5 < together["month"]["epsilon"] < 3.0 + 3.5 + 3.5
    # Never less for a replaced user than for one who is added or removed.
    assert together["one_replaced"]["epsilon"] > together["month"]["epsilon"]
    assert 1.2e-5 == together["year_added"]["delta"]
    assert {"epsilon": 36.0, "delta": 0.0} == by_name["dau"]["year_rho_added"]
    assert ["discrete_laplace"] == by_name["dau"]["mechanisms"]
    assert 0.3 == by_name["dau"]["epsilon_charged"]
    assert ["plan"] == [one["budget"] for one in told["not_charged_yet"]]


def test_a_grant_is_in_the_figures(tmp_path: Path) -> None:
    """Two allowances are what two allowances compose to."""
    with product(tmp_path, DIMENSIONS="platform") as app:
        send(app, [event("a", LAST, metadata={"platform": "ios"})])
        app.release(Metric.DAU, LAST, segment=Segment("platform", "ios"))
        app.grant("dau", LAST, reason="tests", grant_id="one")
        (dau,) = statement_of(app, MONTH)["budgets"]

    assert (2, 6.0) == (dau["allowances"], dau["month"]["epsilon"])


def test_a_month_without_charges_has_no_card(planned: App) -> None:
    """It is refused, with the command that shows why, and no key is made for it."""
    with pytest.raises(NotFoundError, match="dpdau budget all --day 2026-01-01"):
        issue(planned, "2026-01")


def test_no_card_from_a_ledger_that_is_not_sound(
    planned: App, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The chain is verified before anything is stated."""
    import dataclasses

    from dpdau.ledger import Finding, Ledger

    report = planned.ledger.verify()
    broken = dataclasses.replace(report, findings=(Finding("x", "Broken."),), finding_count=1)
    monkeypatch.setattr(Ledger, "verify", lambda _self: broken)
    with pytest.raises(LedgerCorruptError, match="Broken"):
        statement_of(planned, MONTH)


def test_the_key_is_made_once_and_is_its_owners_alone(planned: App) -> None:
    """0600, noted in the audit log, and the same for every card."""
    first, second = issue(planned, MONTH), issue(planned, MONTH)
    path = DataDir(planned.settings.DATA_DIR).card_key
    noted = [one for one in planned.ledger.audit_log() if one.action == "card_key_created"]

    assert 0o600 == path.stat().st_mode & 0o777
    assert first.public_key == second.public_key == CardKey.open(path).public
    assert [first.public_key] == [one.facts["public_key"] for one in noted]
    first.check_signature()


def test_a_key_is_not_replaced_without_a_word(planned: App) -> None:
    """Where the ledger names another key, missing or not, only `new_key` goes on; it is noted."""
    path = DataDir(planned.settings.DATA_DIR).card_key
    first = issue(planned, MONTH).public_key
    path.unlink()
    with pytest.raises(StoreCorruptError, match="--new-key"):
        issue(planned, MONTH)
    assert not path.exists()
    assert CardKey.create(path)
    with pytest.raises(StoreCorruptError, match="--new-key"):
        issue(planned, MONTH)

    second = issue(planned, MONTH, new_key=True).public_key

    assert first != second == issue(planned, MONTH).public_key
    noted = [one for one in planned.ledger.audit_log() if one.action == "card_key_created"]
    assert [first, second] == [one.facts["public_key"] for one in noted]


def test_the_live_counter_is_named_where_it_is_on(tmp_path: Path) -> None:
    """What it may still cost is told beside the other budgets."""
    with product(tmp_path, LIVE_EPSILON="0.5") as app:
        send(app, [event("a", LAST)])
        app.release(Metric.DAU, LAST)
        told = statement_of(app, MONTH)

    assert ["plan", "wau", "mau", "live"] == [one["budget"] for one in told["not_charged_yet"]]


@pytest.mark.parametrize("name", ["statement", "public_key", "signature"])
def test_a_changed_part_breaks_the_signature(planned: App, name: str) -> None:
    """A statement, a key and a signature stand together or not at all."""
    body = issue(planned, MONTH).to_json()
    other = {
        "statement": {**body["statement"], "month": "2026-03"},
        "public_key": body["public_key"][:-4] + "AAA=",
        "signature": "AAAA" + body["signature"][4:],
    }
    with pytest.raises(CardMismatchError):
        Card.from_json({**body, name: other[name]}).check_signature()
    with pytest.raises(UnsupportedMediaError):
        Card.from_json({**body, name: None})
