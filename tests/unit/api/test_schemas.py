"""The documented shapes are the shapes of the nouns."""

import datetime as dt
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from pydantic import BaseModel, TypeAdapter, ValidationError

from dpdau.api.schemas import (
    AnswerShape,
    BudgetShape,
    Day,
    GrowthShape,
    GrowthTotalShape,
    IngestShape,
    PlanRequest,
    QuoteShape,
    ReceiptShape,
    ReleaseShape,
)
from dpdau.domain import Metric
from in_process import service
from products import DAY, event, product


def test_the_shapes_are_what_is_sent(tmp_path: Path) -> None:
    """Every field that is sent is documented, and every documented one is sent."""
    day = DAY.isoformat()
    asked = {"metric": "wau", "day": day}
    with product(tmp_path) as app, service(app) as http:
        bodies: list[tuple[type[BaseModel], dict[str, Any]]] = [
            (IngestShape, http.post("/event", json={"event": event("u")}).json()),
            (AnswerShape, http.get(f"/dau/{day}").json()),
            (BudgetShape, http.get("/budget/mau").json()),
            (QuoteShape, http.post("/plans?dry_run=1", json=asked).json()),
            (GrowthShape, http.get("/growth", params={"end": day}).json()),
            (ReceiptShape, http.delete("/users/u").json()),
            (ReleaseShape, app.release(Metric.DAU, DAY).release.to_json()),
        ]

    growth = bodies[4][1]
    bodies += [(ReleaseShape, growth["churned"]), (GrowthTotalShape, growth["current"])]
    for shape, body in bodies:
        read = shape.model_validate(body)
        optional = {name for name, field in shape.model_fields.items() if not field.is_required()}
        assert set(body) == set(type(read).model_fields) - optional


@pytest.mark.parametrize(
    "change",
    [
        lambda body: {**body, "metric": "yau"},
        lambda body: {**body, "window": 65},
        lambda body: {**body, "window": "28"},
        lambda body: {**body, "window": True},
        lambda body: {**body, "segment": "platform"},
        lambda body: {**body, "fresh": "yes"},
        lambda body: {"metric": body["metric"]},
    ],
)
def test_a_plan_request_is_checked(change: Callable[[dict[str, Any]], dict[str, Any]]) -> None:
    """A wrong, unknown or missing field of a plan request is refused."""
    body = {"metric": "mau", "day": "2026-03-10", "window": 28}
    PlanRequest.model_validate(body)

    with pytest.raises(ValidationError):
        PlanRequest.model_validate(change(body))


@pytest.mark.parametrize(
    "value",
    [
        0,
        1793491200,
        1793491200.0,
        True,
        None,
        "0",
        "1793491200",
        "2026-3-10",
        "20260310",
        "2026-W11-2",
        " 2026-03-10",
        "2026-03-10\n",
        "2026-03-10T00:00:00Z",
        "2026-02-30",
        "0000-01-01",
        "٢٠٢٦-٠٣-١٠",
        dt.datetime(2026, 3, 10, tzinfo=dt.UTC),
    ],
)
def test_a_day_is_a_text_of_one_form(value: object) -> None:
    """Only YYYY-MM-DD is a day; the refusal says so and does not repeat what was sent."""
    with pytest.raises(ValidationError) as caught:
        TypeAdapter(Day).validate_python(value)

    assert ["Expected a day as YYYY-MM-DD"] == [one["msg"] for one in caught.value.errors()]


def test_a_day_in_its_form_is_read() -> None:
    """Years have four digits, also the first ones."""
    days = [TypeAdapter(Day).validate_python(text) for text in ("2026-03-10", "0001-01-01")]

    assert [dt.date(2026, 3, 10), dt.date(1, 1, 1)] == days
