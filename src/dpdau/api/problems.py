"""Every refusal as one problem document (RFC 9457), from the table over `errors`.

A document holds `type, title, status, code, detail` and the facts of the error. It never repeats
what the caller sent: a path, a query or a body may hold a user id.
"""

import re
from collections.abc import Mapping, Sequence
from http import HTTPStatus
from typing import Any, Final

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from pydantic import ValidationError
from pydantic_core import ErrorDetails
from starlette.exceptions import HTTPException

from dpdau.errors import (
    DpdauError,
    InvalidPlanError,
    NotAuthenticatedError,
    UnavailableError,
    outcome,
    problem_document,
    retry_after_seconds,
)
from dpdau.telemetry import Metrics, log

PROBLEM_MEDIA_TYPE: Final = "application/problem+json"
INTERNAL_CODE: Final = "internal"
_FIELD_ERRORS_MAX: Final = 20
_LOG = log("api")


class Problem(JSONResponse):
    """A problem document as a response."""

    media_type = PROBLEM_MEDIA_TYPE


def problem(
    *,
    status: int,
    code: str,
    detail: str,
    facts: Mapping[str, Any] | None = None,
    headers: Mapping[str, str] | None = None,
) -> Problem:
    """One problem document; a fact never replaces a member of the standard."""
    body = problem_document(status=status, code=code, detail=detail, facts=facts)
    return Problem(body, status_code=status, headers=headers)


def problem_of(error: DpdauError) -> Problem:
    """The document of an error of the product, with its status from `errors.OUTCOMES`.

    Edge cases:
        | error | besides |
        |---|---|
        | rate limited | `Retry-After` is the time to the end of the window |
        | overloaded | `Retry-After` is when there may be room |
        | 503 | `Retry-After` is `RETRY_AFTER_SECONDS` |
        | 401 | `WWW-Authenticate` names the scheme |
        | 500 | the integrity failure is named, as an operator has to act on it |
    """
    status = outcome(error).http_status
    headers: dict[str, str] = {}
    wait = retry_after_seconds(error)
    if wait is not None:
        headers["Retry-After"] = str(wait)
    elif isinstance(error, NotAuthenticatedError):
        headers["WWW-Authenticate"] = "APIKey"
    return problem(
        status=status, code=error.code, detail=error.message, facts=error.facts, headers=headers
    )


def problem_of_status(status: int, *, headers: Mapping[str, str] | None = None) -> Problem:
    """What a refusal below the product shows: nothing but the meaning of its status."""
    detail = _HTTP_DETAILS.get(status, HTTPStatus(status).phrase)
    return problem(status=status, code=_code_of(status), detail=detail, headers=headers)


def internal_problem() -> Problem:
    """What a bug shows: nothing of what went wrong."""
    return problem(
        status=500, code=INTERNAL_CODE, detail="The service failed; the failure was logged."
    )


def question_error(errors: Sequence[ErrorDetails]) -> InvalidPlanError:
    """Wrong or unknown parameters as one error that names each known field and never its value."""
    fields = [_field_error(one) for one in errors[:_FIELD_ERRORS_MAX]]
    first = f"{fields[0]['field']}: {fields[0]['message']}" if fields else "unreadable"
    return InvalidPlanError(f"Expected a valid request, found {first}.", errors=fields)


def _field_error(error: ErrorDetails) -> dict[str, str]:
    """Where a fault is and what was expected; the name of an unknown field is the sender's."""
    place, message = error["loc"], error["msg"]
    if error["type"] == "extra_forbidden":
        place, message = place[:-1], "There is a field that is not known here"
    return {"field": ".".join(str(part) for part in place) or "body", "message": message}


class Refusals:
    """Turns what was raised into a problem document, and counts it by code."""

    def __init__(self, metrics: Metrics) -> None:
        self._metrics = metrics

    def of(self, error: DpdauError) -> Problem:
        """The document of an error of the product."""
        self._metrics.refusals.labels(error.code).inc()
        if outcome(error).exit_code == _INTEGRITY_EXIT_CODE:
            _LOG.error("integrity", code=error.code, detail=error.message)
        return problem_of(error)

    def of_http(self, error: HTTPException) -> Problem:
        """The document of a refusal below the product."""
        self._metrics.refusals.labels(_code_of(error.status_code)).inc()
        return problem_of_status(error.status_code, headers=error.headers)


def install(api: FastAPI, refusals: Refusals) -> None:
    """Answers every refusal of the service with a problem document, and counts it by code."""

    async def on_error(request: Request, error: Exception) -> Problem:
        assert isinstance(error, DpdauError)
        return refusals.of(error)

    async def on_invalid(request: Request, error: Exception) -> Problem:
        assert isinstance(error, RequestValidationError | ValidationError)
        return refusals.of(question_error(list(error.errors())))

    async def on_http(request: Request, error: Exception) -> Problem:
        assert isinstance(error, HTTPException)
        return refusals.of_http(error)

    async def on_bug(request: Request, error: Exception) -> Problem:
        # The framework raises it again, for the outermost layer to log.
        return internal_problem()

    api.add_exception_handler(Exception, on_bug)
    api.add_exception_handler(DpdauError, on_error)
    api.add_exception_handler(RequestValidationError, on_invalid)
    api.add_exception_handler(HTTPException, on_http)


_INTEGRITY_EXIT_CODE: Final = 6
_HTTP_DETAILS: Final = {
    400: "Expected a request in HTTP/1.1.",
    404: "There is no such route.",
    405: "The route does not take this method.",
    408: "The body did not arrive in time.",
    431: "The head of the request is too large.",
    503: "The service cannot write now.",
}


def _code_of(status: int) -> str:
    """The code of a refusal by the framework: its phrase in the form of the other codes."""
    if status == HTTPStatus.SERVICE_UNAVAILABLE:
        return UnavailableError.code
    return re.sub(r"[^a-z]+", "_", HTTPStatus(status).phrase.lower())
