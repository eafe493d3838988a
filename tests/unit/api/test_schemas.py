"""The documented shapes are the shapes of the nouns."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from pydantic import BaseModel, ValidationError

from dpdau.api.schemas import (
    AnswerShape,
    BudgetShape,
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
            (ReceiptShape, http.delete("/users/u").json()),
            (ReleaseShape, app.release(Metric.DAU, DAY).release.to_json()),
        ]

    for shape, body in bodies:
        read = shape.model_validate(body)
        optional = {name for name, field in shape.model_fields.items() if not field.is_required()}
        assert set(body) == set(type(read).model_fields) - optional


@pytest.mark.parametrize(
    "change",
    [
        lambda body: {**body, "metric": "yau"},
        lambda body: {**body, "window": 65},
        lambda body: {**body, "segment": "platform"},
        lambda body: {**body, "fresh": True},
        lambda body: {"metric": body["metric"]},
    ],
)
def test_a_plan_request_is_checked(change: Callable[[dict[str, Any]], dict[str, Any]]) -> None:
    """A wrong, unknown or missing field of a plan request is refused."""
    body = {"metric": "mau", "day": "2026-03-10", "window": 28}
    PlanRequest.model_validate(body)

    with pytest.raises(ValidationError):
        PlanRequest.model_validate(change(body))
