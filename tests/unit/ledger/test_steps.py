"""Plans, their charges and their steps, each in one transaction."""

import json
from collections import Counter
from dataclasses import replace
from pathlib import Path

import pytest

from dpdau.domain import NeighboringRelation, Segment
from dpdau.ledger.canonical import release_to_json
from dpdau.ledger.steps import MONTH, SINGLE, release_columns, releases_promised
from simulation.ledger_cases import (
    DAY_STEPS,
    DIGEST,
    budget,
    open_ledger,
    open_month,
    open_request,
    raw_rows,
    release,
    request,
)


def test_one_step_writes_four_rows_in_order(tmp_path: Path) -> None:
    """Budget, plan, charge and release are entered together, at one instant."""
    ledger = open_ledger(tmp_path)
    ledger.step(request(), lambda: release())
    ledger.close()

    rows = raw_rows(tmp_path, "SELECT kind, ref, at FROM entries WHERE seq > 1 ORDER BY seq")
    assert [
        ("budget", "dau:2026-02"),
        ("plan", "plan-1"),
        ("charge", "plan-1"),
        ("release", "rel-plan-1"),
    ] == [row[:2] for row in rows]
    assert 1 == len({row[2] for row in rows})


def test_stored_rows_say_what_was_asked(tmp_path: Path) -> None:
    """The plan is kept as it was sent, the charge as its event, the release as its bytes."""
    made = release(segment=Segment("platform", "ios"))
    ledger = open_ledger(tmp_path)
    ledger.step(request(), lambda: made)
    ledger.close()

    ((kind, plan),) = raw_rows(tmp_path, "SELECT kind, body FROM plans")
    ((event, relation),) = raw_rows(tmp_path, "SELECT dp_event, neighboring_relation FROM charges")
    ((segment, body),) = raw_rows(tmp_path, "SELECT segment, body FROM releases")
    assert ("single", '{"edition":0,"metric":"dau"}') == (kind, plan)
    assert {"kind": "discrete_laplace", "epsilon": "3/10", "count": 1} == json.loads(str(event))
    assert NeighboringRelation.ADD_OR_REMOVE_ONE.value == relation
    assert ("platform=ios", release_to_json(made).decode()) == (segment, body)


def test_replay_does_not_read_the_terms(tmp_path: Path) -> None:
    """A question that was answered keeps its answer when the terms have changed since."""
    ledger = open_ledger(tmp_path)
    ledger.step(request(), lambda: release())
    later = replace(request(held=budget(cap="9")), plan_body={"edition": 0, "more": True})

    _, replayed = ledger.step(later, lambda: pytest.fail("made a second number"))
    ledger.close()

    assert replayed
    assert [('{"edition":0,"metric":"dau"}',)] == raw_rows(tmp_path, "SELECT body FROM plans")


def test_a_charge_to_another_budget_is_a_bug(tmp_path: Path) -> None:
    """A plan cannot be charged to a budget that is not its own."""
    ledger = open_ledger(tmp_path)
    other = replace(request(), budget=budget(period="2026-03"))
    renamed = request(held=replace(budget(), budget_id="dau"))

    for wrong in (other, renamed):
        with pytest.raises(AssertionError, match="its own budget"):
            ledger.step(wrong, lambda: pytest.fail("made a number"))
    month = replace(open_request(), budget=budget(period="2026-03"))
    with pytest.raises(AssertionError, match="its own budget"):
        ledger.open_plan(month)
    ledger.close()


def test_columns_are_taken_from_the_release() -> None:
    """The whole population has no segment, and the day is the end of the window."""
    columns = release_columns(release(window_days=7))

    assert (None, "2026-02-03", 7) == (columns["segment"], columns["day"], columns["window_days"])


def test_opening_a_month_writes_four_rows(tmp_path: Path) -> None:
    """Budget, plan, charge and who opened it are one; commitment and releases follow later."""
    ledger = open_ledger(tmp_path)
    open_month(ledger, days=1)
    ledger.close()

    rows = raw_rows(tmp_path, "SELECT kind, ref, at FROM entries WHERE seq > 1 ORDER BY seq")
    assert [
        ("budget", "plan:2026-02"),
        ("plan", "plan-2026-02"),
        ("charge", "plan-2026-02"),
        ("audit", "5"),
        ("commitment", "plan-2026-02"),
        *[("release", f"rel-plan-2026-02-{step}") for step in range(DAY_STEPS)],
    ] == [row[:2] for row in rows]
    assert [4, 1, DAY_STEPS] == list(Counter(row[2] for row in rows).values())
    ((kind, digest),) = raw_rows(
        tmp_path, "SELECT kind, digest FROM plans JOIN commitments USING (plan_id)"
    )
    assert ("month", DIGEST) == (kind, digest)


def test_a_month_plan_says_what_it_pays_for(tmp_path: Path) -> None:
    """A month plan without a number of releases is a bug, and nothing is charged."""
    ledger = open_ledger(tmp_path)
    for body in ({"month": "2026-02", "releases": 0}, {"month": "2026-02"}):
        with pytest.raises((AssertionError, KeyError)):
            ledger.open_plan(replace(open_request(), plan_body=body))
    states = ledger.states()
    ledger.close()

    assert () == states


@pytest.mark.parametrize(("kind", "expected"), [(SINGLE, 1), (MONTH, 93)])
def test_what_a_charge_pays_for(kind: str, expected: int) -> None:
    """A single plan has one release, a month plan what its body says."""
    assert expected == releases_promised(kind, {"releases": 93})
