"""The budget block: enforced figures first, reported ones beside them."""

from fractions import Fraction
from pathlib import Path

from dpdau.domain import Metric
from dpdau.ledger.statement import ReportTerms, Statements
from products import DAY, product
from simulation.ledger_cases import open_ledger, open_month, plan_budget

EMPTY = {"epsilon_spent": 0.0, "release_count": 0, "best_rdp_epsilon": 0.0, "pld_epsilon": 0.0}


def test_an_unused_budget_is_all_there(tmp_path: Path) -> None:
    """Before the first charge the cap is what remains, and every report is zero."""
    with product(tmp_path) as app:
        blocks = [app.budget(metric.value, DAY) for metric in Metric]

    assert [(3.0, 0.0), (3.5, 1e-6), (3.5, 1e-6)] == [
        (one.epsilon_cap, one.delta) for one in blocks
    ]
    for one in blocks:
        assert one.epsilon_cap == one.epsilon_remaining
        assert EMPTY.items() <= one.to_json().items()
        assert one.best_rdp_order is None


def test_a_pure_budget_adds_up(tmp_path: Path) -> None:
    """Two DAU releases at 0.3 spend 0.6 of 3.0 under `basic`."""
    with product(tmp_path) as app:
        for back in range(2):
            app.release(Metric.DAU, DAY.replace(day=DAY.day - back))
        block = app.budget("dau", DAY)

    assert ("basic", 0.6, 2.4, 2) == (
        block.filter,
        block.epsilon_spent,
        block.epsilon_remaining,
        block.release_count,
    )
    assert (0.0, 1e-6) == (block.delta, block.reported_delta)
    assert block.pld_epsilon <= 0.6
    assert block.advanced_epsilon <= 0.6
    assert [2, 4, 8, 16, 32] == [order for order, _ in block.rdp_curve]


def test_a_gaussian_budget_spends_rho(tmp_path: Path) -> None:
    """MAU releases add up in ρ: two at 0.5 cost less than 1.0, one exactly 0.5."""
    with product(tmp_path) as app:
        app.release(Metric.MAU, DAY)
        one = app.budget("mau", DAY)
        app.release(Metric.MAU, DAY.replace(day=9))
        two = app.budget("mau", DAY)

    assert ("zcdp", 0.5) == (one.filter, one.epsilon_spent)
    assert 0.5 < two.epsilon_spent < 0.8
    assert two.epsilon_remaining < 3.5 - 0.7 + 1e-9
    assert two.pld_epsilon < two.epsilon_spent


def test_months_have_budgets_of_their_own(tmp_path: Path) -> None:
    """A release is charged to the month of its target day."""
    with product(tmp_path) as app:
        app.release(Metric.DAU, DAY.replace(month=2))
        march, february = app.budget("dau", DAY), app.budget("dau", DAY.replace(month=2))

    assert (0, 1) == (march.release_count, february.release_count)


def test_an_open_budget_keeps_its_cap(tmp_path: Path) -> None:
    """A cap that is raised in the settings does not raise a budget that is open."""
    with product(tmp_path) as app:
        app.release(Metric.DAU, DAY)
    with product(tmp_path, DAU_BUDGET_TOTAL=9.0) as app:
        opened, later = app.budget("dau", DAY), app.budget("dau", DAY.replace(month=2))

    assert (3.0, 9.0) == (opened.epsilon_cap, later.epsilon_cap)


def test_a_plan_budget_is_told_like_the_others(tmp_path: Path) -> None:
    """One charge for all its numbers: spent and reported from ρ, without a loss distribution."""
    terms = ReportTerms(
        delta=Fraction(1, 10**5),
        rdp_orders=(2, 8, 32),
        advanced_delta=Fraction(1, 10**7),
        policy="plan",
    )
    ledger = open_ledger(tmp_path)
    statements = Statements(ledger, terms)
    before = statements.block(plan_budget())
    open_month(ledger, days=2)
    block = statements.block(plan_budget(cap="9"))
    ledger.close()

    assert ("plan", "2026-02", "zcdp", 3.0, 1e-6, "plan") == (
        block.metric,
        block.period,
        block.filter,
        block.epsilon_cap,
        block.delta,
        block.policy,
    )
    assert (0, "0", 3.0) == (before.release_count, before.rho_spent, before.epsilon_remaining)
    assert (6, "1/100", 1e-6) == (block.release_count, block.rho_spent, block.reported_delta)
    assert 0 < block.epsilon_spent < 3
    assert block.epsilon_spent == block.pld_epsilon <= min(cost for _, cost in block.rdp_curve)
    assert 3.0 >= round(block.epsilon_spent + block.epsilon_remaining, 9)
