"""The route of growth: its parameters, its refusals in order, and its answer."""

import json
from pathlib import Path

import pytest

from dpdau.domain import Scope
from in_process import service
from products import DAY, NOW, event, product, send

END = DAY.isoformat()


def test_growth_is_answered_with_cells_and_totals(tmp_path: Path) -> None:
    """The numbers of the verb, and the second time the same ones at no cost."""
    with product(tmp_path) as app, service(app) as http:
        send(app, [event("a"), event("b")])
        first, second = (http.get("/growth", params={"end": END}).json() for _ in range(2))
        expected = json.loads(json.dumps(app.growth(DAY).to_json()))

    assert {**first, "replayed": True} == second == expected
    assert (2, 2, 0) == tuple(first[name]["estimate"] for name in ("new", "current", "previous"))


@pytest.mark.parametrize(
    ("params", "status", "code"),
    [
        ({}, 422, "invalid_plan"),
        ({"end": "march"}, 422, "invalid_plan"),
        ({"end": END, "window": 65}, 422, "invalid_plan"),
        ({"end": END, "segment": "platform=ios"}, 422, "invalid_plan"),
        ({"end": NOW.date().isoformat(), "window": 0}, 422, "invalid_plan"),
        ({"end": NOW.date().isoformat()}, 409, "not_ready"),
        ({"end": END}, 429, "budget_exhausted"),
    ],
)
def test_refusals_come_in_their_order(
    tmp_path: Path, params: dict[str, str | int], status: int, code: str
) -> None:
    """The shape before the day, the day before the budget; there are no segments."""
    with product(tmp_path, MAU_BUDGET_TOTAL=0.3) as app, service(app) as http:
        answer = http.get("/growth", params=params)

    assert (status, code) == (answer.status_code, answer.json()["code"])


def test_growth_asks_for_the_scope_that_spends(tmp_path: Path) -> None:
    """A key that may only read buys nothing, and finds nothing out."""
    with product(tmp_path) as app:
        _, key = app.ledger.keys.create("reader", [Scope.READ], None, actor="tests")
        with service(app, key=key) as http:
            answer = http.get("/growth", params={"end": "march"})

        assert (403, 0) == (answer.status_code, app.budget("mau", DAY).release_count)
