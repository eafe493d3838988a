"""What the OpenAPI document says of bodies, refusals and scopes."""

from typing import Any

import httpx
import pytest

from dpdau.api.openapi import REFUSALS, refusals


@pytest.fixture(scope="module")
def document(keyless_http: httpx.Client) -> dict[str, Any]:
    """The document as it is served."""
    return keyless_http.get("/openapi.json").json()


def test_every_reference_leads_somewhere(document: dict[str, Any]) -> None:
    """No `$ref` dangles, also where a body is read by hand."""
    known = {f"#/components/schemas/{name}" for name in document["components"]["schemas"]}

    def refs(node: Any) -> set[str]:
        if isinstance(node, dict):
            own = {node["$ref"]} if isinstance(node.get("$ref"), str) else set()
            return own.union(*(refs(value) for value in node.values()))
        return set().union(*(refs(one) for one in node)) if isinstance(node, list) else set()

    assert set() == refs(document) - known


def test_every_refusal_is_a_problem_document(document: dict[str, Any]) -> None:
    """No operation documents the framework's own error shape."""
    for methods in document["paths"].values():
        for operation in methods.values():
            for status, answer in operation["responses"].items():
                if int(status) >= 400:
                    assert ["application/problem+json"] == list(answer["content"])
    assert "HTTPValidationError" not in document["components"]["schemas"]


def test_every_guarded_route_documents_its_key(document: dict[str, Any]) -> None:
    """A route has a scope and the key's scheme, or neither."""
    for path, methods in document["paths"].items():
        for operation in methods.values():
            guarded = path not in ("/healthz", "/readyz")
            assert guarded == ("x-required-scope" in operation)
            assert ([{"ApiKey": []}] if guarded else None) == operation.get("security")


def test_every_field_of_an_answer_is_described(document: dict[str, Any]) -> None:
    """The shapes of releases, budgets and ingest answers say what each number is."""
    shapes = document["components"]["schemas"]
    for name in ("AnswerShape", "BudgetShape", "IngestShape", "ReceiptShape", "RejectionShape"):
        for field, schema in shapes[name]["properties"].items():
            assert schema.get("description") or "$ref" in schema, f"{name}.{field}"


def test_refusals_are_worded_once() -> None:
    """Each status has one description."""
    assert sorted(REFUSALS) == list(refusals(*REFUSALS))
