"""What every ledger promises, whatever database is behind it."""

import datetime as dt
from collections.abc import Callable
from dataclasses import replace
from fractions import Fraction
from pathlib import Path

import pytest
from sqlalchemy import create_engine, exc, text

from dpdau.accounting.budget import Cost
from dpdau.accounting.calibration import rho_cap
from dpdau.domain import GROWTH, Metric, Release, Scope, Segment, Window
from dpdau.errors import (
    BudgetExhaustedError,
    InvalidPlanError,
    LedgerUnavailableError,
)
from dpdau.ledger import Ledger, release_to_json, steps
from dpdau.ledger.tables import APPEND_ONLY
from simulation.ledger_cases import (
    DAY,
    NOW,
    budget,
    gaussian,
    growth_releases,
    growth_request,
    laplace,
    mark_of,
    open_month,
    release,
    request,
    spend,
    zcdp_budget,
)

Opener = Callable[[], Ledger]


def test_step_charges_and_stores(ledger: Ledger) -> None:
    """A first step gives the number that was made, and its budget shows the charge."""
    made, replayed = ledger.step(request(), lambda: release())

    state = ledger.budget_state(budget())
    assert (release(), False) == (made, replayed)
    assert (laplace(),) == state.events
    assert Cost(Fraction("0.3"), Fraction(0), Fraction("0.045")) == state.spent
    assert Cost(Fraction(3), Fraction(0), Fraction(0)) == state.cap
    assert Fraction("2.7") == state.remaining.epsilon
    assert (1, 1) == (state.release_count, state.allowances)


def test_step_is_replayed_as_stored(ledger: Ledger) -> None:
    """A second request gives the same bytes, makes no number and costs nothing."""
    first, _ = ledger.step(request(), lambda: release(estimate=7))

    second, replayed = ledger.step(request(), lambda: pytest.fail("made a second number"))

    assert replayed
    assert release_to_json(first) == release_to_json(second)
    assert Fraction("0.3") == ledger.budget_state(budget()).spent.epsilon


def test_refusal_comes_before_the_count_and_leaves_nothing(ledger: Ledger) -> None:
    """A charge that does not fit is refused with the budget block; no number is made."""
    spend(ledger, "first", epsilon="2.9")
    entries = ledger.verify().entries

    with pytest.raises(BudgetExhaustedError) as refused:
        ledger.step(request("second"), lambda: pytest.fail("read the count"))

    assert {
        "metric": "dau",
        "period": "2026-02",
        "filter": "basic",
        "allowances": 1,
        "cap": {"epsilon": 3.0, "delta": 0.0},
        "spent": {"epsilon": 2.9, "delta": 0.0},
        "remaining": {"epsilon": 0.1, "delta": 0.0},
        "requested": {"epsilon": 0.3, "delta": 0.0},
    } == refused.value.facts["budget"]
    assert entries == ledger.verify().entries


def test_refused_first_charge_does_not_open_the_budget(ledger: Ledger) -> None:
    """A refusal rolls back everything, the opening of the budget too."""
    with pytest.raises(BudgetExhaustedError):
        spend(ledger, "too much", epsilon="3.1")

    assert () == ledger.states()
    assert 1 == ledger.verify().entries


def test_failed_number_leaves_no_charge(ledger: Ledger) -> None:
    """What the maker of the number raises goes through, and the charge is taken back."""

    def fail() -> Release:
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        ledger.step(request(), fail)

    assert () == ledger.states()
    _, replayed = ledger.step(request(), lambda: release())
    assert not replayed


def test_growth_is_charged_once_and_stored_whole(ledger: Ledger) -> None:
    """One charge, four releases in one transaction, which are replayed as they were stored."""
    made, replayed = ledger.take_growth(growth_request(), growth_releases)
    again = ledger.take_growth(growth_request(), lambda: pytest.fail("made more numbers"))

    state = ledger.budget_state(zcdp_budget())
    assert (tuple(growth_releases()), False) == (made, replayed)
    assert (made, True) == again
    assert ((gaussian(),), 4) == (state.events, state.release_count)
    newest = ledger.series(GROWTH, DAY, DAY)
    assert made == tuple(newest)
    assert [1, 1, 1, 1] == [ledger.editions(figure, Window(DAY, 30)) for figure in GROWTH]


def test_growth_that_is_not_whole_leaves_nothing(ledger: Ledger) -> None:
    """Fewer or more releases than were paid for, or of two days, roll back the charge."""
    four = growth_releases()
    other_day = replace(four[3], window=Window(DAY + dt.timedelta(days=1), 30))

    for wrong in (four[:3], [*four, four[0]], [*four[:3], other_day]):
        with pytest.raises(AssertionError):
            ledger.take_growth(growth_request(), lambda wrong=wrong: wrong)

    assert () == ledger.states()
    assert 1 == ledger.verify().entries


def test_growth_that_does_not_fit_is_refused_before_the_counts(ledger: Ledger) -> None:
    """The budget refuses it as any charge, and nothing is read."""
    dear = gaussian(sigma="1")
    with pytest.raises(BudgetExhaustedError) as refused:
        ledger.take_growth(growth_request(event=dear), lambda: pytest.fail("read the counts"))

    assert {"rho": 0.5} == refused.value.facts["budget"]["requested"]  # type: ignore[index]
    assert () == ledger.states()


def test_a_plan_is_of_one_kind(ledger: Ledger) -> None:
    """An id that was used for another kind of plan is refused."""
    held, event = zcdp_budget(), gaussian()
    ledger.step(request("one", held=held, event=event), lambda: release("one"))
    ledger.take_growth(growth_request("two"), lambda: growth_releases("two"))

    with pytest.raises(InvalidPlanError, match="kind"):
        ledger.take_growth(growth_request("one"), lambda: pytest.fail("made numbers"))
    with pytest.raises(InvalidPlanError, match="kind"):
        ledger.step(request("two", held=held, event=event), lambda: pytest.fail("made one"))
    with pytest.raises(InvalidPlanError, match="kind"):
        ledger.take_day("two", 4, lambda: pytest.fail("made a day"))


def test_exact_cap_is_reached(ledger: Ledger) -> None:
    """Ten charges of 0.3 fit 3.0 exactly, and the eleventh does not: no rounding in between."""
    for number in range(10):
        spend(ledger, f"plan-{number}")

    with pytest.raises(BudgetExhaustedError):
        spend(ledger, "plan-10")
    assert Fraction(0) == ledger.budget_state(budget()).remaining.epsilon


def test_zcdp_budget_adds_up_rho(ledger: Ledger) -> None:
    """A zCDP budget takes Gaussian charges while Σ ρ ≤ the tight cap, and not one more."""
    held, event = zcdp_budget(cap="1"), gaussian(sigma="10")
    affordable = int(rho_cap(Fraction(1), Fraction("1e-6")) / event.rho)

    for number in range(affordable):
        name = f"plan-{number}"
        ledger.step(request(name, held=held, event=event), lambda name=name: release(name))
    with pytest.raises(BudgetExhaustedError) as refused:
        ledger.step(request("last", held=held, event=event), lambda: release("last"))

    state = ledger.budget_state(held)
    assert affordable * event.rho == state.spent.rho
    assert state.cap.rho - state.spent.rho == state.remaining.rho
    assert {"rho": 0.005} == refused.value.facts["budget"]["requested"]  # type: ignore[index]


def test_open_budget_keeps_its_caps(ledger: Ledger) -> None:
    """A later setting changes neither the cap nor the filter of an open budget."""
    spend(ledger, "first", epsilon="2.8")

    with pytest.raises(BudgetExhaustedError):
        spend(ledger, "second", held=budget(cap="100"))

    state = ledger.budget_state(budget(cap="100"))
    assert Fraction(3) == state.budget.epsilon
    assert state.opened_at is not None
    assert state.opened_at > NOW


def test_unopened_budget_is_shown_as_it_would_open(ledger: Ledger) -> None:
    """Asking for the state of a budget does not open it."""
    state = ledger.budget_state(zcdp_budget())

    assert (zcdp_budget(), None, ()) == (state.budget, state.opened_at, state.events)
    assert state.cap == state.remaining
    assert () == ledger.states()


def test_charge_touches_its_own_budget_only(ledger: Ledger) -> None:
    """Metrics and months are charged apart."""
    march = budget(period="2026-03")
    mau = budget(Metric.MAU)
    spend(ledger, "a", epsilon="3")
    spend(ledger, "b", epsilon="3", held=march)
    spend(ledger, "c", epsilon="3", held=mau)

    assert ["dau:2026-02", "mau:2026-02", "dau:2026-03"] == [
        one.budget.budget_id for one in ledger.states()
    ]
    assert ["dau:2026-03"] == [one.budget.budget_id for one in ledger.states("2026-03")]


def test_grant_adds_an_allowance_and_keeps_the_spending(ledger: Ledger) -> None:
    """A grant allows as much again; what was spent stays visible, and the grant is audited."""
    spend(ledger, "first", epsilon="3")

    allowances = ledger.grant("dau", "2026-02", actor="ada", reason="board meeting")

    spend(ledger, "second", epsilon="3")
    with pytest.raises(BudgetExhaustedError):
        spend(ledger, "third", epsilon="0.1")
    state = ledger.budget_state(budget())
    assert (2, 2) == (allowances, state.allowances)
    assert (Fraction(6), Fraction(6)) == (state.cap.epsilon, state.spent.epsilon)
    assert [("ada", "budget_granted", "board meeting")] == [
        (one.actor, one.action, one.facts["reason"]) for one in ledger.audit_log()
    ]


def test_a_grant_that_comes_again_is_granted_once(ledger: Ledger) -> None:
    """One name is one grant, of one budget; without a name, or with another, it is another."""
    odd = 'ε "%_\\'
    again = [
        ledger.grant("dau", "2026-02", actor="ada", reason="board", grant_id=name)
        for name in ("one", "one", "on", odd, odd, "", "")
    ]

    assert [2, 2, 3, 4, 4, 5, 6] == again
    assert 5 == len(ledger.audit_log())
    with pytest.raises(InvalidPlanError, match="another budget"):
        ledger.grant("wau", "2026-02", actor="ada", reason="board", grant_id="one")
    with pytest.raises(InvalidPlanError, match="grant id of at most"):
        ledger.grant("dau", "2026-02", actor="ada", reason="board", grant_id="x" * 129)


def test_grant_may_come_before_the_budget_opens(ledger: Ledger) -> None:
    """An allowance that was granted early counts once the budget opens."""
    ledger.grant("dau", "2026-02", actor="ada", reason="early")

    assert Fraction(6) == ledger.budget_state(budget()).cap.epsilon
    spend(ledger, "first", epsilon="6")


def test_one_plan_id_belongs_to_one_budget(ledger: Ledger) -> None:
    """An id that comes again under another budget is refused, not answered with a wrong number."""
    spend(ledger, "plan")

    with pytest.raises(InvalidPlanError, match="under budget dau:2026-02"):
        spend(ledger, "plan", held=budget(Metric.MAU))


def test_plan_has_one_step(ledger: Ledger) -> None:
    """A second step of a plan with one step is refused."""
    with pytest.raises(InvalidPlanError, match="step 0"):
        ledger.step(replace(request(), step=1), lambda: pytest.fail("made a number"))


def test_a_release_must_be_the_one_asked_for(ledger: Ledger) -> None:
    """A number of another plan is a bug, and rolls the charge back."""
    with pytest.raises(AssertionError, match="names its plan"):
        ledger.step(request("asked"), lambda: release("other"))

    assert () == ledger.states()


def test_the_maker_of_a_number_cannot_use_the_ledger(ledger: Ledger) -> None:
    """A transaction inside the transaction is a bug that shows at once instead of a deadlock."""

    def nested() -> Release:
        ledger.states()
        return release()

    with pytest.raises(AssertionError, match="transaction inside a transaction"):
        ledger.step(request(), nested)


def test_releases_are_paged_in_order(ledger: Ledger) -> None:
    """Pages join into the whole log, each with the cursor of the next."""
    names = [f"plan-{number}" for number in range(5)]
    for name in names:
        spend(ledger, name)

    seen, after, sizes = [], None, []
    while True:
        page, after = ledger.releases(after=after, limit=2)
        seen += [one.plan_id for one in page]
        sizes.append(len(page))
        if after is None:
            break

    assert (names, [2, 2, 1]) == (seen, sizes)


def test_plans_are_listed_with_their_charges(ledger: Ledger) -> None:
    """A reader can redo the arithmetic of each charge."""
    ledger.step(request("a"), lambda: release("a"))
    spend(ledger, "b")

    first, after = ledger.plans(limit=1)
    rest, end = ledger.plans(after=after)

    assert (["a"], ["b"], None) == (
        [p["plan_id"] for p in first],
        [p["plan_id"] for p in rest],
        end,
    )
    assert {"edition": 0, "metric": "dau"} == first[0]["plan"]
    assert {
        "dp_event": {"kind": "discrete_laplace", "epsilon": "3/10", "count": 1},
        "neighboring_relation": "add_or_remove_one",
    } == first[0]["charge"]


def test_questions_are_found_by_window_and_segment(ledger: Ledger) -> None:
    """The newest answer of exactly this question is found, and its answers are counted."""
    ios = Segment("platform", "ios")
    for name, made in {
        "a": release("a", estimate=1),
        "b": release("b", estimate=2),
        "c": release("c", segment=ios, estimate=3),
        "d": release("d", window_days=7, estimate=4),
    }.items():
        ledger.step(request(name), lambda made=made: made)

    window = Window(DAY, 1)
    found, found_ios = (ledger.find_release(Metric.DAU, window, one) for one in (None, ios))

    assert (2, 1) == (ledger.editions(Metric.DAU, window), ledger.editions(Metric.DAU, window, ios))
    assert found is not None
    assert found_ios is not None
    assert (2, 3) == (found.estimate, found_ios.estimate)
    assert ledger.find_release(Metric.WAU, window) is None
    assert ledger.find_release(Metric.DAU, Window(DAY, 2)) is None


def test_series_gives_the_newest_of_each_day(ledger: Ledger) -> None:
    """A series has one release for each metric, window and day, of one population."""
    later = DAY + dt.timedelta(days=1)
    ios = Segment("platform", "ios")
    for name, made in {
        "a": release("a", day=later),
        "b": release("b"),
        "c": release("c", metric=Metric.MAU, window_days=30),
        "d": release("d", metric=Metric.MAU, window_days=28),
        "e": release("e"),
        "f": release("f", segment=ios),
        "g": release("g", day=later + dt.timedelta(days=1)),
    }.items():
        ledger.step(request(name), lambda made=made: made)

    metrics = [Metric.DAU, Metric.MAU]

    assert ["e", "d", "c", "a"] == [one.plan_id for one in ledger.series(metrics, DAY, later)]
    assert ["f"] == [one.plan_id for one in ledger.series(metrics, DAY, later, ios)]
    assert [] == ledger.series([], DAY, later)


def test_a_grant_has_a_reason(ledger: Ledger) -> None:
    """A grant without a reason is refused and leaves no trace."""
    for reason in ("", "  "):
        with pytest.raises(InvalidPlanError):
            ledger.grant("dau", "2026-01", actor="operator", reason=reason)

    assert () == ledger.audit_log()


def test_audit_log_keeps_facts_from_an_instant_on(ledger: Ledger) -> None:
    """Audit rows come back in order with their facts; `since` leaves out earlier ones."""
    ledger.audit_event("operator", "exact_read", {"metrics": ["dau"], "rows": 3})
    ledger.audit_event("operator", "erase", {"erasure_id": "e-1"})

    first, second = ledger.audit_log()

    assert {"metrics": ["dau"], "rows": 3} == first.facts
    assert (second,) == ledger.audit_log(second.at)
    assert ("erase", {"erasure_id": "e-1"}) == (second.action, second.to_json()["facts"])


def test_reopened_ledger_goes_on(opener: Opener) -> None:
    """What was spent, said, granted and made is there after a restart, with the same identity."""
    first = opener()
    spend(first, "a", epsilon="2.9")
    key_id, key = first.keys.create("ci", [Scope.READ], None)
    first.close()

    second = opener()
    with pytest.raises(BudgetExhaustedError):
        spend(second, "b")
    known = second.keys.authenticate(key, NOW)
    _, replayed = second.step(request("a"), lambda: release("a"))
    report = second.verify()
    second.close()

    assert first.ledger_id == second.ledger_id == report.ledger_id
    assert known is not None
    assert (key_id, True, ()) == (known.key_id, replayed, report.problems)


def test_ledger_is_writable(ledger: Ledger) -> None:
    """The probe passes, again and again, and is no entry."""
    ledger.check_writable()
    ledger.check_writable()

    assert 1 == ledger.verify().entries


def test_mark_that_cannot_move_stops_the_probe(ledger: Ledger, tmp_path: Path) -> None:
    """A service that cannot move the mark is not ready."""
    mark_of(tmp_path).with_suffix(".json.tmp").mkdir()

    with pytest.raises(LedgerUnavailableError, match="high-water mark"):
        ledger.check_writable()


@pytest.mark.parametrize("change", ["UPDATE {} SET seq = seq + 100", "DELETE FROM {}"])
def test_database_refuses_changes(ledger: Ledger, url: str, change: str) -> None:
    """No row of an append-only table can be changed or taken out, whoever is connected."""
    spend(ledger, "a")
    open_month(ledger)
    ledger.grant("dau", "2026-02", actor="ada", reason="more")
    key_id, _ = ledger.keys.create("ci", [Scope.READ], None, rate_limit="5/day")
    ledger.keys.rotate(key_id, overlap=dt.timedelta(days=1))
    ledger.keys.revoke(key_id)
    engine = create_engine(url)
    try:
        for table in APPEND_ONLY:
            with engine.connect() as connection:
                before = connection.execute(text(f"SELECT count(*) FROM {table}")).scalar_one()
                with pytest.raises(exc.DBAPIError, match=f"append-only: {table}"):
                    connection.execute(text(change.format(table)))
            assert before > 0, table
    finally:
        engine.dispose()


def test_no_budget_is_overspent_by_a_wrong_decision(
    ledger: Ledger, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where the product lets a charge through that does not fit, the database refuses it."""
    spend(ledger, "first", epsilon="2.9")
    ledger.step(request("plan-2", held=zcdp_budget(), event=gaussian()), lambda: release("plan-2"))
    ledger.grant("dau", "2026-02", actor="ada", reason="more")
    spend(ledger, "second", epsilon="3.1")
    monkeypatch.setattr(steps, "fits", lambda *_: True)

    for held, event in ((budget(), laplace("1/1000000")), (zcdp_budget(), gaussian("1"))):
        with pytest.raises(exc.IntegrityError, match="ck_balances_spent"):
            ledger.step(request("third", held=held, event=event), lambda: release("third"))

    assert 2 == ledger.budget_state(budget()).release_count


def test_thirds_of_a_budget_fit(ledger: Ledger) -> None:
    """What adds up to the cap exactly is not refused because of a rounding."""
    for number in range(3):
        spend(ledger, f"third-{number}", epsilon="1/3", held=budget(cap="1"))

    assert Fraction(0) == ledger.budget_state(budget(cap="1")).remaining.epsilon


def test_pages_have_limits_and_cursors_of_their_own(ledger: Ledger) -> None:
    """A cursor that no page gave is refused; a page without a limit is a bug."""
    with pytest.raises(InvalidPlanError, match="cursor"):
        ledger.releases(after="1; DROP TABLE releases")
    with pytest.raises(AssertionError, match="limit"):
        ledger.plans(limit=0)
