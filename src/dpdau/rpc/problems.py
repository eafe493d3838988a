"""Every refusal as a status and the problem document that HTTP answers, from `errors.OUTCOMES`."""

from http import HTTPStatus
from typing import Any, Final, NamedTuple

import grpc
import msgspec

from dpdau.errors import (
    DpdauError,
    IntegrityError,
    outcome,
    problem_document,
    retry_after_seconds,
)
from dpdau.telemetry import Metrics, log, place_of

PROBLEM_KEY: Final = "dpdau-problem-bin"
RETRY_KEY: Final = "grpc-retry-pushback-ms"
INTERNAL_CODE: Final = "internal"
_LOG = log("rpc")


class Refusal(NamedTuple):
    """How a call ends that is refused."""

    status: Any
    detail: str
    trailing: tuple[tuple[str, str | bytes], ...]


class Refusals:
    """Turns what was raised into a refusal, and counts it by code.

    Guarantee: a refusal repeats nothing that the caller sent.
    """

    def __init__(self, metrics: Metrics) -> None:
        self._metrics = metrics

    def of(self, error: DpdauError) -> Refusal:
        """The refusal of an error of the product."""
        self._metrics.refusals.labels(error.code).inc()
        if isinstance(error, IntegrityError):
            _LOG.error("integrity", code=error.code, detail=error.message)
        known = outcome(error)
        document = problem_document(
            status=known.http_status, code=error.code, detail=error.message, facts=error.facts
        )
        wait = retry_after_seconds(error)
        retry = () if wait is None else ((RETRY_KEY, str(wait * 1000)),)
        status = grpc.StatusCode[known.grpc_code]
        return Refusal(status, error.message, (_problem(document), *retry))

    def of_bug(self, error: Exception, method: str) -> Refusal:
        """What a bug shows: nothing of what went wrong."""
        self._metrics.refusals.labels(INTERNAL_CODE).inc()
        _LOG.error("failed", method=method, **place_of(error))
        detail = "The service failed; the failure was logged."
        document = problem_document(
            status=HTTPStatus.INTERNAL_SERVER_ERROR, code=INTERNAL_CODE, detail=detail
        )
        return Refusal(grpc.StatusCode.INTERNAL, detail, (_problem(document),))


def _problem(document: dict[str, Any]) -> tuple[str, bytes]:
    """The document as trailing metadata."""
    return PROBLEM_KEY, msgspec.json.encode(document)
