"""The OpenAPI document: a snapshot of it, and a service that keeps to it.

Write the snapshot anew with `WRITE_OPENAPI=1 pytest tests/surface/test_openapi.py`.
"""

import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
import schemathesis
from hypothesis import HealthCheck, Phase, given, settings
from schemathesis import GenerationMode
from schemathesis.checks import not_a_server_error
from schemathesis.specs.openapi.checks import (
    content_type_conformance,
    response_headers_conformance,
    response_schema_conformance,
    status_code_conformance,
)

from dpdau.settings import Settings
from in_process import service
from products import API_KEY, DAY, event, product, send

SNAPSHOT = Path(__file__).with_name("openapi.json")
WRITES_SNAPSHOT = os.environ.get("WRITE_OPENAPI") == "1"
EXAMPLES = 10
CHECKS = [
    not_a_server_error,
    status_code_conformance,
    content_type_conformance,
    response_headers_conformance,
    response_schema_conformance,
]


@pytest.fixture(scope="module")
def http(tmp_path_factory: pytest.TempPathFactory) -> Iterator[httpx.Client]:
    """A client of a service over a product with a few events and a large budget."""
    with pytest.MonkeyPatch.context() as patch:
        for name in [name for name in os.environ if name in Settings.model_fields]:
            patch.delenv(name)
        root = tmp_path_factory.mktemp("openapi")
        with product(root, DIMENSIONS="platform", DAU_BUDGET_TOTAL=40) as app:
            send(app, [event(f"u{number}") for number in range(3)])
            with service(app, max_body_bytes=100_000) as client:
                client.get(f"/dau/{DAY.isoformat()}")
                yield client


@pytest.fixture(scope="module")
def document(http: httpx.Client) -> dict[str, Any]:
    """The document as it is served."""
    return http.get("/openapi.json").json()


def test_the_document_is_the_snapshot(document: dict[str, Any]) -> None:
    """A change of the public surface shows in the diff of one file."""
    if WRITES_SNAPSHOT:
        text = json.dumps(document, indent=1, ensure_ascii=False, sort_keys=True)
        SNAPSHOT.write_text(text + "\n", "utf-8")

    assert json.loads(SNAPSHOT.read_text("utf-8")) == document


def cases() -> list[tuple[str, str, GenerationMode]]:
    """The operations of the snapshot; wrong data only where an operation takes any."""
    paths = json.loads(SNAPSHOT.read_text("utf-8"))["paths"] if SNAPSHOT.exists() else {}
    return [
        (path, method, mode)
        for path, methods in paths.items()
        for method, operation in methods.items()
        for mode in (GenerationMode.POSITIVE, GenerationMode.NEGATIVE)
        if mode is GenerationMode.POSITIVE
        or {"parameters", "requestBody", "security"} & set(operation)
    ]


@pytest.mark.parametrize(("path", "method", "mode"), cases())
def test_the_service_keeps_to_the_document(
    http: httpx.Client, document: dict[str, Any], path: str, method: str, mode: GenerationMode
) -> None:
    """Whatever is sent, status, headers, media type and body are among the documented ones."""
    operation = schemathesis.openapi.from_dict(document)[path][method.upper()]

    @given(case=operation.as_strategy(generation_mode=mode))
    @settings(
        max_examples=EXAMPLES,
        deadline=None,
        derandomize=True,
        database=None,
        phases=[Phase.generate],
        suppress_health_check=list(HealthCheck),
    )
    def check(case: Any) -> None:
        sent = case.as_transport_kwargs(base_url="http://127.0.0.1")
        sent.pop("cookies", None)
        body = sent.pop("data", None)
        sent["headers"]["X-API-Key"] = API_KEY
        request = http.build_request(**sent, content=body)
        case.validate_response(http.send(request), checks=CHECKS)

    check()
