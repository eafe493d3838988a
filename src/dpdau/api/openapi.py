"""What the OpenAPI document says beyond what the framework derives by itself.

Bodies are read by hand and refusals are problem documents, so both are described here, once.
"""

from collections.abc import Sequence
from typing import Any, Final

from fastapi import Depends, FastAPI
from fastapi.openapi.utils import get_openapi
from pydantic.json_schema import models_json_schema
from starlette.routing import BaseRoute

from dpdau import __version__
from dpdau.api.auth import requires
from dpdau.api.problems import PROBLEM_MEDIA_TYPE
from dpdau.api.schemas import EventEnvelope, EventShape, MonthRequest, PlanRequest, ProblemShape
from dpdau.domain import Scope

REFUSALS: Final = {
    401: "No API key, or one that is unknown, expired or revoked.",
    403: "The key lacks the scope.",
    404: "Nothing is there under that id.",
    408: "The body did not arrive in time.",
    409: "`not_ready`: the day has not closed.",
    413: "The body is too large, as sent or decompressed.",
    415: "The content type or encoding is not read.",
    422: "The shape of the request is wrong, or it asks for what cannot be promised.",
    429: "`rate_limited` or `overloaded`, with Retry-After; `budget_exhausted`, with the budget.",
    500: "`internal`, or an integrity failure that needs an operator.",
    503: "A part that is needed cannot be reached or written; with Retry-After.",
}
BODY_STATUSES: Final = (408, 413, 415, 422)
_HAND_READ: Final = (EventEnvelope, EventShape, MonthRequest, PlanRequest, ProblemShape)
_REF: Final = "#/components/schemas/{model}"
_SUMMARY: Final = "Differentially private daily, weekly and monthly active-user counts."
_DESCRIPTION: Final = (
    "Every refusal is a problem document (RFC 9457) with a stable `code`. Counts are in users; "
    "ε and δ are what the ledger shows as charged. Times are RFC 3339 in UTC, days are dates in "
    "the `timezone` of the answer."
)


def guarded(scope: Scope | None, *statuses: int, **extra: Any) -> dict[str, Any]:
    """Options of a route that asks for a key with a scope (None: any valid key)."""
    shown = {401, 429, 500, 503, *statuses} | (set() if scope is None else {403})
    return {
        "dependencies": [Depends(requires(scope))],
        "responses": refusals(*shown),
        "openapi_extra": {"x-required-scope": "any" if scope is None else scope.value, **extra},
    }


def refusals(*statuses: int) -> dict[int | str, dict[str, Any]]:
    """The problem documents of these statuses."""
    content = {PROBLEM_MEDIA_TYPE: {"schema": {"$ref": _REF.format(model="ProblemShape")}}}
    return {
        status: {"description": REFUSALS[status], "content": content} for status in sorted(statuses)
    }


def body_of(media: dict[str, dict[str, Any]]) -> dict[str, Any]:
    """A required body: media type → schema."""
    content = {name: {"schema": schema} for name, schema in media.items()}
    return {"required": True, "content": content}


def ref(model: str) -> dict[str, Any]:
    """A reference to one of the shapes."""
    return {"$ref": _REF.format(model=model)}


def install(api: FastAPI, *, declared: Sequence[BaseRoute]) -> None:
    """Adds to the document of a service what the framework does not serve by itself.

    Args:
        api: The service.
        declared: Routes that a layer in front of the framework serves.
    """

    def openapi() -> dict[str, Any]:
        if api.openapi_schema is None:
            api.openapi_schema = _document([*declared, *api.routes])
        return api.openapi_schema

    api.openapi = openapi  # type: ignore[method-assign]


def _document(routes: Sequence[BaseRoute]) -> dict[str, Any]:
    document: dict[str, Any] = get_openapi(
        title="dpdau",
        version=__version__,
        summary=_SUMMARY,
        description=_DESCRIPTION,
        routes=routes,
    )
    _, shapes = models_json_schema(
        [(model, "validation") for model in _HAND_READ], ref_template=_REF
    )
    known = document["components"]["schemas"]
    known |= {name: shape for name, shape in shapes["$defs"].items() if name not in known}
    for name in ("HTTPValidationError", "ValidationError"):
        known.pop(name, None)
    document["components"]["schemas"] = dict(sorted(known.items()))
    return document
