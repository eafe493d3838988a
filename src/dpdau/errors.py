"""Every error a caller can meet, as one tree.

```text
DpdauError
├── InvalidInputError              the caller can mend the request
│   ├── InvalidEventError          one item of a batch
│   ├── InvalidPlanError           a release or plan that cannot be promised
│   ├── InvalidSettingError        a setting that is unknown, malformed or out of range
│   ├── UnsupportedMechanismError  a mechanism or cost that nothing here can account for
│   ├── UnsupportedMediaError      a body or file format that is not read
│   ├── TooLargeError              a body, batch or file over its limit
│   └── NotFoundError              a receipt, key or plan that is not there
├── NotAuthenticatedError          no API key, or one that is unknown, expired or revoked
├── NotAuthorizedError             the API key lacks the scope
├── BudgetExhaustedError           the charge does not fit the budget; nothing was charged
├── RateLimitedError               too many requests; retry later
├── OverloadedError                more events at once than can wait; retry later
├── ReleaseNotReadyError           the day has not closed
├── UnavailableError               retry later
│   ├── StoreUnavailableError      the activity store cannot write
│   ├── LedgerConflictError        another writer held the ledger for too long
│   ├── LedgerUnavailableError     the ledger cannot be read or written
│   ├── BrokerUnavailableError     Kafka did not take what it was given, or did not answer
│   ├── ServiceUnreachableError    the service did not answer
│   ├── DataDirInUseError          a running service owns the data directory
│   ├── SpoolFullError             the sender's spool has no room; the event was not taken
│   ├── SpoolUnavailableError      the sender's spool is in use, closed, or cannot be written
│   └── WarehouseUnavailableError  the warehouse cannot be reached, refuses, or gave up
└── IntegrityError                 stop: what is stored contradicts itself
    ├── LedgerCorruptError         the hash chain or the high-water mark does not match
    ├── StoreCorruptError          a checksum or an authentication tag does not match
    ├── SecretMismatchError        the secret is not the one the data was written under
    ├── TopicMismatchError         the Kafka topic does not go on where it was left
    ├── CardMismatchError          a privacy card is not what was signed
    └── SchemaVersionError         written by a newer version
```

Each leaf has a stable `code`, carries its facts as attributes, and has one row in `OUTCOMES`, the
table from which HTTP, gRPC and the command line take their status.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from http import HTTPStatus
from typing import Any, ClassVar, Final


class DpdauError(Exception):
    """The root: anything a caller can cause or meet.

    Args:
        message: What was expected and what was found; never a private value.
        facts: JSON-ready facts, shown beside the message by every front.
    """

    code: ClassVar[str] = "error"

    def __init__(self, message: str, **facts: object) -> None:
        super().__init__(message)
        self.message = message
        self.facts = facts


class InvalidInputError(DpdauError):
    """The caller can mend the request."""

    code = "invalid_input"


class InvalidEventError(InvalidInputError):
    """One item of a batch cannot be taken; the rest of the batch is."""

    code = "invalid_event"


class InvalidPlanError(InvalidInputError):
    """A release or plan that cannot be promised: unknown metric, window or segment."""

    code = "invalid_plan"


class InvalidSettingError(InvalidInputError):
    """A setting that is unknown, malformed or out of range."""

    code = "invalid_setting"


class UnsupportedMechanismError(InvalidInputError):
    """A mechanism or cost that nothing here can account for."""

    code = "unsupported_mechanism"


class UnsupportedMediaError(InvalidInputError):
    """A body or file format that is not read."""

    code = "unsupported_media"


class TooLargeError(InvalidInputError):
    """A body, batch or file over its limit."""

    code = "too_large"


class NotFoundError(InvalidInputError):
    """A receipt, key or plan that is not there."""

    code = "not_found"


class NotAuthenticatedError(DpdauError):
    """No API key, or one that is unknown, expired or revoked."""

    code = "not_authenticated"


class NotAuthorizedError(DpdauError):
    """The API key lacks the scope."""

    code = "not_authorized"


class BudgetExhaustedError(DpdauError):
    """The charge does not fit the budget; nothing was charged."""

    code = "budget_exhausted"


class RateLimitedError(DpdauError):
    """Too many requests; retry after `retry_after_seconds`."""

    code = "rate_limited"


class OverloadedError(DpdauError):
    """More events at once than can wait to be written; retry after `retry_after_seconds`."""

    code = "overloaded"


class ReleaseNotReadyError(DpdauError):
    """The day has not closed."""

    code = "not_ready"


class UnavailableError(DpdauError):
    """A part that is needed cannot be reached; retry later."""

    code = "unavailable"


class StoreUnavailableError(UnavailableError):
    """The activity store cannot write."""

    code = "store_unavailable"


class LedgerConflictError(UnavailableError):
    """Another writer held the ledger for too long."""

    code = "ledger_conflict"


class LedgerUnavailableError(UnavailableError):
    """The ledger cannot be read or written: no space, no permission, a failing disk."""

    code = "ledger_unavailable"


class BrokerUnavailableError(UnavailableError):
    """Kafka did not take what it was given, or did not answer."""

    code = "broker_unavailable"


class ServiceUnreachableError(UnavailableError):
    """The service did not answer."""

    code = "service_unreachable"


class DataDirInUseError(UnavailableError):
    """A running service owns the data directory."""

    code = "data_dir_in_use"


class SpoolFullError(UnavailableError):
    """The sender's spool has no room; the event was not taken."""

    code = "spool_full"


class SpoolUnavailableError(UnavailableError):
    """The sender's spool is in use by another process, closed, or cannot be written."""

    code = "spool_unavailable"


class WarehouseUnavailableError(UnavailableError):
    """The warehouse with the events cannot be reached, refuses, or gave up the query."""

    code = "warehouse_unavailable"


class IntegrityError(DpdauError):
    """What is stored contradicts itself; stop and look."""

    code = "integrity"


class LedgerCorruptError(IntegrityError):
    """The hash chain or the high-water mark does not match."""

    code = "ledger_corrupt"


class StoreCorruptError(IntegrityError):
    """A checksum or an authentication tag does not match."""

    code = "store_corrupt"


class SecretMismatchError(IntegrityError):
    """The secret is not the one the data was written under."""

    code = "secret_mismatch"


class TopicMismatchError(IntegrityError):
    """The Kafka topic does not go on where it was left: messages are gone, or it is another one."""

    code = "topic_mismatch"


class CardMismatchError(IntegrityError):
    """A privacy card is not what was signed, or not by that key."""

    code = "card_mismatch"


class SchemaVersionError(IntegrityError):
    """Written by a newer version than this one."""

    code = "schema_version"


@dataclass(frozen=True, slots=True)
class Outcome:
    """What each front answers for one error: HTTP status, gRPC code name, exit code."""

    http_status: int
    grpc_code: str
    exit_code: int


RETRY_AFTER_SECONDS: Final = 1
"""When a part that could not be reached may be asked again."""
OUTCOMES: dict[type[DpdauError], Outcome] = {
    InvalidEventError: Outcome(422, "INVALID_ARGUMENT", 2),
    InvalidPlanError: Outcome(422, "INVALID_ARGUMENT", 2),
    InvalidSettingError: Outcome(500, "FAILED_PRECONDITION", 2),
    UnsupportedMechanismError: Outcome(422, "INVALID_ARGUMENT", 2),
    UnsupportedMediaError: Outcome(415, "INVALID_ARGUMENT", 2),
    TooLargeError: Outcome(413, "INVALID_ARGUMENT", 2),
    NotFoundError: Outcome(404, "NOT_FOUND", 2),
    NotAuthenticatedError: Outcome(401, "UNAUTHENTICATED", 2),
    NotAuthorizedError: Outcome(403, "PERMISSION_DENIED", 2),
    BudgetExhaustedError: Outcome(429, "RESOURCE_EXHAUSTED", 3),
    RateLimitedError: Outcome(429, "RESOURCE_EXHAUSTED", 5),
    OverloadedError: Outcome(429, "RESOURCE_EXHAUSTED", 5),
    ReleaseNotReadyError: Outcome(409, "FAILED_PRECONDITION", 4),
    StoreUnavailableError: Outcome(503, "UNAVAILABLE", 5),
    LedgerConflictError: Outcome(503, "UNAVAILABLE", 5),
    LedgerUnavailableError: Outcome(503, "UNAVAILABLE", 5),
    BrokerUnavailableError: Outcome(503, "UNAVAILABLE", 5),
    ServiceUnreachableError: Outcome(503, "UNAVAILABLE", 5),
    DataDirInUseError: Outcome(503, "UNAVAILABLE", 5),
    SpoolFullError: Outcome(503, "UNAVAILABLE", 5),
    SpoolUnavailableError: Outcome(503, "UNAVAILABLE", 5),
    WarehouseUnavailableError: Outcome(503, "UNAVAILABLE", 5),
    LedgerCorruptError: Outcome(500, "DATA_LOSS", 6),
    StoreCorruptError: Outcome(500, "DATA_LOSS", 6),
    SecretMismatchError: Outcome(500, "FAILED_PRECONDITION", 6),
    TopicMismatchError: Outcome(500, "DATA_LOSS", 6),
    CardMismatchError: Outcome(422, "DATA_LOSS", 6),
    SchemaVersionError: Outcome(500, "FAILED_PRECONDITION", 6),
}


def outcome(error: DpdauError) -> Outcome:
    """The row of `OUTCOMES` for an error; a leaf without a row is a bug.

    Example:
        >>> outcome(BudgetExhaustedError("spent")).exit_code
        3
    """
    return OUTCOMES[type(error)]


def problem_document(
    *, status: int, code: str, detail: str, facts: Mapping[str, Any] | None = None
) -> dict[str, Any]:
    """A problem document (RFC 9457); a fact never replaces a member of the standard.

    Example:
        >>> problem_document(status=404, code="not_found", detail="…", facts={"code": "x"})["code"]
        'not_found'
    """
    standard = {
        "type": f"urn:dpdau:problem:{code}",
        "title": HTTPStatus(status).phrase,
        "status": status,
        "code": code,
        "detail": detail,
    }
    return {
        **standard,
        **{name: one for name, one in (facts or {}).items() if name not in standard},
    }


def retry_after_seconds(error: DpdauError) -> int | None:
    """When a refused request may be repeated; None where that would change nothing."""
    if isinstance(error, RateLimitedError | OverloadedError):
        return int(str(error.facts["retry_after_seconds"]))
    return RETRY_AFTER_SECONDS if outcome(error).http_status == 503 else None


def error_class(code: str) -> type[DpdauError] | None:
    """The leaf that owns a `code`, or None; a client uses it to raise what the service raised."""
    return next((leaf for leaf in OUTCOMES if leaf.code == code), None)
