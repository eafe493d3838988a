"""What every ledger promises about month plans, whatever database is behind it."""

import datetime as dt
from collections.abc import Callable
from dataclasses import replace
from fractions import Fraction

import pytest

from dpdau.domain import Metric, Release, Window
from dpdau.errors import (
    BudgetExhaustedError,
    InvalidPlanError,
    NotFoundError,
    StoreCorruptError,
)
from dpdau.ledger import Ledger, release_to_json
from simulation.ledger_cases import (
    DAY,
    DAY_STEPS,
    DIGEST,
    NOW,
    day_releases,
    gaussian,
    laplace,
    lattice,
    open_month,
    open_request,
    plan_budget,
    release,
    request,
    spend,
    take,
)


def test_a_month_plan_is_charged_once_for_all_its_days(ledger: Ledger) -> None:
    """Opening charges, opening again and taking days do not, and each day is kept as made."""
    opened = [ledger.open_plan(open_request()) for _ in range(2)]
    ledger.commit_noise("plan-2026-02", DIGEST)
    made, replayed = zip(*(take(ledger, index) for index in range(4)), strict=True)

    state, report = ledger.budget_state(plan_budget()), ledger.verify()
    assert ([True, False], (False,) * 4) == (opened, replayed)
    assert made == tuple(tuple(day_releases(index=index)) for index in range(4))
    assert (lattice(),) == state.events
    assert Fraction(1, 100) == state.spent.rho
    assert (1, 12, 12) == (report.charges, report.releases, state.release_count)


def test_a_month_plan_is_found_with_its_progress(ledger: Ledger) -> None:
    """What was sent first, the charge, the commitment and the next step; None if not open."""
    missing = ledger.find_plan("plan-2026-02")
    ledger.open_plan(open_request())
    ledger.open_plan(open_request(days=9, event=lattice("11")))
    fresh = ledger.find_plan("plan-2026-02")
    ledger.commit_noise("plan-2026-02", DIGEST)
    take(ledger, 0)
    later = ledger.find_plan("plan-2026-02")

    assert missing is None
    assert fresh is not None
    assert ("month", {"month": "2026-02", "releases": 12}) == (fresh.kind, fresh.body)
    assert (lattice(), None, 0) == (fresh.event, fresh.commitment, fresh.steps_taken)
    assert fresh.opened_at > NOW
    assert replace(fresh, commitment=DIGEST, steps_taken=3) == later


def test_single_plans_are_found_too(ledger: Ledger) -> None:
    """A plan with one step has taken it."""
    spend(ledger, "a")

    found = ledger.find_plan("a")

    assert found is not None
    assert ("single", laplace(), None, 1) == (
        found.kind,
        found.event,
        found.commitment,
        found.steps_taken,
    )


def test_month_plan_over_its_cap_is_refused_and_leaves_nothing(ledger: Ledger) -> None:
    """A charge that does not fit opens neither the plan nor the budget; a grant makes room."""
    held, event = plan_budget(cap="1"), lattice("8")
    with pytest.raises(BudgetExhaustedError) as refused:
        ledger.open_plan(open_request(held=plan_budget(cap="0.5"), event=event))
    entries = ledger.verify().entries
    opened = ledger.open_plan(open_request(held=held, event=event))
    with pytest.raises(BudgetExhaustedError):
        ledger.open_plan(open_request("plan-b", held=held, event=event))
    ledger.grant("plan", "2026-02", actor="ada", reason="second")

    again = ledger.open_plan(open_request("plan-b", held=held, event=event))
    assert (1, True, True) == (entries, opened, again)
    assert {"metric": "plan", "filter": "zcdp", "requested": {"rho": 0.015625}}.items() <= (
        refused.value.facts["budget"].items()  # type: ignore[attr-defined]
    )
    assert ledger.budget_state(held).spent.rho <= ledger.budget_state(held).cap.rho


def test_a_day_that_was_taken_is_replayed_as_stored(ledger: Ledger) -> None:
    """Asking for a day again gives the same bytes and makes no number, also at the end."""
    open_month(ledger)
    days = [take(ledger, index, estimate=index)[0] for index in range(4)]

    for index, first in enumerate(days):
        again, replayed = ledger.take_day(
            "plan-2026-02", index * DAY_STEPS, lambda: pytest.fail("made a second number")
        )
        assert replayed
        assert [release_to_json(one) for one in first] == [release_to_json(one) for one in again]


@pytest.mark.parametrize("step", [-1, 1, 2, 4, 6, 9, 99])
def test_days_are_taken_in_order(ledger: Ledger, step: int) -> None:
    """Neither a day ahead, nor a step inside a day, nor one before the first makes a number."""
    open_month(ledger, days=1)

    with pytest.raises(InvalidPlanError, match="Expected"):
        ledger.take_day("plan-2026-02", step, lambda: pytest.fail("made a number"))


def test_no_day_is_taken_beyond_what_was_paid(ledger: Ledger) -> None:
    """After the last step there is none, and a day cannot hold more than is left."""
    open_month(ledger, days=4)
    open_month(ledger, "plan-short")
    for index in range(3):
        take(ledger, index, "plan-short")

    with pytest.raises(InvalidPlanError, match="12 that plan plan-2026-02 paid for"):
        take(ledger, 4)
    with pytest.raises(AssertionError, match="what was paid for"):
        ledger.take_day(
            "plan-short",
            9,
            lambda: day_releases("plan-short", 3) + day_releases("plan-short", 4),
        )
    assert () == ledger.unfinished_months()[1:]


def test_no_day_is_taken_before_the_noise_is_committed(ledger: Ledger) -> None:
    """A month plan without a commitment releases nothing."""
    ledger.open_plan(open_request())

    with pytest.raises(InvalidPlanError, match="committed"):
        ledger.take_day("plan-2026-02", 0, lambda: pytest.fail("made a number"))


def test_noise_is_committed_once(ledger: Ledger) -> None:
    """The same digest again changes nothing; another one means that noise was drawn twice."""
    ledger.open_plan(open_request())
    ledger.commit_noise("plan-2026-02", DIGEST)
    entries = ledger.verify().entries
    ledger.commit_noise("plan-2026-02", DIGEST)

    with pytest.raises(StoreCorruptError, match="other noise"):
        ledger.commit_noise("plan-2026-02", DIGEST[::-1])
    with pytest.raises(AssertionError):
        ledger.commit_noise("plan-2026-02", "short")
    assert entries == ledger.verify().entries


def test_month_steps_need_a_month_plan(ledger: Ledger) -> None:
    """Days and commitments of a plan that is not open, or of one number, are refused."""
    spend(ledger, "single")
    for act in (
        lambda name: ledger.commit_noise(name, DIGEST),
        lambda name: ledger.take_day(name, 0, lambda: pytest.fail("made a number")),
    ):
        with pytest.raises(NotFoundError):
            act("missing")
        with pytest.raises(InvalidPlanError, match="kind month"):
            act("single")


def test_one_plan_id_belongs_to_one_kind(ledger: Ledger) -> None:
    """A month plan is not answered with a single one of its name, nor under another budget."""
    ledger.step(request("a", held=plan_budget(), event=gaussian()), lambda: release("a"))
    ledger.open_plan(open_request("b"))

    with pytest.raises(InvalidPlanError, match="kind single"):
        ledger.open_plan(open_request("a"))
    with pytest.raises(InvalidPlanError, match="kind month"):
        ledger.step(request("b", held=plan_budget()), lambda: pytest.fail("made a number"))
    with pytest.raises(InvalidPlanError, match="under budget plan:2026-02"):
        ledger.open_plan(open_request("b", held=plan_budget("2026-03")))


def test_failed_day_leaves_nothing_and_costs_nothing(ledger: Ledger) -> None:
    """What the maker of a day raises goes through; the plan stays charged and the day to come."""
    open_month(ledger, days=1)
    entries = ledger.verify().entries

    def fail() -> list[Release]:
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        ledger.take_day("plan-2026-02", 3, fail)
    assert entries == ledger.verify().entries
    assert not take(ledger, 1)[1]


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        (list, "what was paid for"),
        (lambda: day_releases("other", 0), "names its plan"),
        (lambda: day_releases(index=0)[::-1], "names its step"),
        (lambda: day_releases(index=0)[1:], "names its step"),
        (lambda: [*day_releases(index=0), *day_releases(index=1)], "one day"),
    ],
)
def test_a_day_must_be_the_one_asked_for(
    ledger: Ledger, wrong: Callable[[], list[Release]], said: str
) -> None:
    """Numbers of another plan, step or day are a bug, and roll the day back."""
    open_month(ledger)

    with pytest.raises(AssertionError, match=said):
        ledger.take_day("plan-2026-02", 0, wrong)
    assert 0 == ledger.verify().releases


def test_unfinished_months_are_listed(ledger: Ledger) -> None:
    """A month is unfinished from its opening to its last step, whatever single plans there are."""
    spend(ledger, "single")
    march = open_request("plan-2026-03", held=plan_budget("2026-03"))
    ledger.open_plan(march)
    open_month(ledger, days=3)
    before = ledger.unfinished_months()
    take(ledger, 3)

    assert (("2026-02", "2026-03"), ("2026-03",)) == (before, ledger.unfinished_months())


def test_numbers_of_a_month_plan_are_read_like_all_others(ledger: Ledger) -> None:
    """They are found by question, counted as editions, paged, and the newest of a series."""
    spend(ledger, "before", epsilon="0.1")
    open_month(ledger, days=2)

    found = ledger.find_release(Metric.WAU, Window(DAY, 7))
    daily = ledger.series([Metric.DAU], DAY, DAY + dt.timedelta(days=1))
    page, _ = ledger.releases(metrics=[Metric.MAU])
    plans, _ = ledger.plans()
    assert day_releases()[0] == found
    assert (2, 1) == (
        ledger.editions(Metric.DAU, Window(DAY, 1)),
        ledger.editions(Metric.MAU, Window(DAY, 30)),
    )
    assert [("plan-2026-02", 2), ("plan-2026-02", 5)] == [(one.plan_id, one.step) for one in daily]
    assert [1, 4] == [one.step for one in page]
    assert [("single", "dau:2026-02"), ("month", "plan:2026-02")] == [
        (one["kind"], one["budget_id"]) for one in plans
    ]
    assert "lattice_gaussian" == plans[1]["charge"]["dp_event"]["kind"]
