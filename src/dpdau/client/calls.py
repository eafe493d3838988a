"""What goes over the wire, without a wire: one request, and what its answer means.

Nothing here opens a connection, sleeps or asks for the time, so the blocking and the asyncio client
read the same answers in the same way.
"""

import gzip
from collections.abc import Generator, Mapping
from dataclasses import dataclass, field
from email.utils import parsedate_to_datetime
from typing import Any, Final, TypeAlias, TypeVar
from urllib.parse import quote

import httpx

from dpdau.errors import (
    BudgetExhaustedError,
    DpdauError,
    ServiceUnreachableError,
    error_class,
)

__all__ = [
    "UNREADABLE",
    "Call",
    "Exchange",
    "Refusal",
    "meaning_of",
    "no_answer",
    "path_segment",
    "resumed",
]

UNREADABLE: Final = (LookupError, TypeError, ValueError, AttributeError, AssertionError)
"""What the reading of a body raises that is none of this service."""
GZIP_BYTES_MIN: Final = 8 << 10
_GZIP_LEVEL: Final = 1
_T = TypeVar("_T")
_RESERVED: Final = frozenset({"type", "title", "status", "code", "detail"})
_TOO_MANY_REQUESTS: Final = 429
_UNAVAILABLE: Final = 503
_NOT_FOR_NOW: Final = frozenset({408, 425, 502, 504, _UNAVAILABLE})
_NOT_CONNECTED: Final = (httpx.ConnectError, httpx.ConnectTimeout, httpx.PoolTimeout)


@dataclass(frozen=True, slots=True)
class Call:
    """One request.

    Args:
        repeatable: Whether the service takes it once however often it comes, so that it may be sent
            again where nobody knows whether it arrived.
    """

    method: str
    path: str = field(repr=False)
    params: Mapping[str, str] = field(default_factory=dict, repr=False)
    json: Mapping[str, Any] | None = field(default=None, repr=False)
    content: bytes | None = field(default=None, repr=False)
    headers: Mapping[str, str] = field(default_factory=dict)
    repeatable: bool = True

    def options(self) -> dict[str, Any]:
        """What the HTTP library is given besides method and path; large bodies go as gzip."""
        options: dict[str, Any] = {"params": self.params, "headers": dict(self.headers)}
        if self.json is not None:
            options["json"] = self.json
        if self.content is not None:
            large = len(self.content) >= GZIP_BYTES_MIN
            content = gzip.compress(self.content, _GZIP_LEVEL, mtime=0) if large else self.content
            options["content"] = content
            if large:
                options["headers"]["Content-Encoding"] = "gzip"
        return options


Exchange: TypeAlias = Generator[Call, Any, _T]
"""A verb as the requests it makes: yields each, is sent the body of its answer, returns."""


@dataclass(frozen=True, slots=True)
class Refusal:
    """Why a request has no result.

    Args:
        error: What the caller is told where it stays so.
        may_repeat: Whether the same request may be sent again.
        retry_after_seconds: How long the service asks to wait, where it does.
        http_status: Of the answer; None where there was none.
    """

    error: DpdauError
    may_repeat: bool
    retry_after_seconds: float | None = None
    http_status: int | None = None


def meaning_of(call: Call, answer: httpx.Response, url: str) -> "dict[str, Any] | Refusal":
    """The body of an answer of the service, or why it is none.

    Edge cases:
        | answer | sent again |
        |---|---|
        | 429, but not `budget_exhausted` | yes: it was turned away before it was looked at |
        | 408, 425, 502, 503, 504 | where the call is repeatable |
        | anything else | no |
    """
    try:
        body = answer.json()
    except ValueError:
        body = None
    if answer.is_success and isinstance(body, dict):
        return body
    status = answer.status_code
    error = _error_of(status, body, url)
    turned_away = status == _TOO_MANY_REQUESTS and not isinstance(error, BudgetExhaustedError)
    return Refusal(
        error,
        may_repeat=turned_away or (call.repeatable and status in _NOT_FOR_NOW),
        retry_after_seconds=_retry_after(answer.headers),
        http_status=status,
    )


def no_answer(call: Call, error: httpx.HTTPError, url: str) -> Refusal:
    """What a failed transport means.

    The request of a transport error has a path with an id in it: only its kind is told.
    """
    host = httpx.URL(url).host
    told = ServiceUnreachableError(
        f"Expected an answer from {host}, found none ({type(error).__name__}).", url=url
    )
    never_sent = isinstance(error, _NOT_CONNECTED)
    torn = isinstance(error, httpx.TransportError) and not isinstance(
        error, httpx.UnsupportedProtocol
    )
    return Refusal(told, may_repeat=never_sent or (torn and call.repeatable))


def resumed(exchange: Exchange[_T], body: Mapping[str, Any], url: str) -> Call:
    """The next request of a verb, now that the body of an answer is there.

    Raises:
        StopIteration: There is none; it has the result.
        ServiceUnreachableError: The body is none of this service.
    """
    try:
        return exchange.send(body)
    except UNREADABLE:
        pass
    raise ServiceUnreachableError("Expected an answer of dpdau, found another one.", url=url)


def path_segment(text: str) -> str:
    """A path segment that no URL library rewrites: `..` would otherwise climb."""
    return quote(text, safe="", errors="surrogatepass").replace(".", "%2E")


def _error_of(status: int, body: Any, url: str) -> DpdauError:
    """The error that a problem document stands for."""
    leaf = error_class(str(body.get("code"))) if isinstance(body, Mapping) else None
    if leaf is None:
        return ServiceUnreachableError(
            f"Expected an answer of dpdau, found status {status}.", url=url, http_status=status
        )
    facts = {name: value for name, value in body.items() if name not in _RESERVED}
    error = leaf(str(body.get("detail")))
    error.facts = facts
    return error


def _retry_after(headers: httpx.Headers) -> float | None:
    """The seconds of `Retry-After`.

    Where it is a date, the answer's own `Date` is now: the clocks of two machines may differ.
    """
    given = headers.get("Retry-After", "").strip()
    if given.isdecimal():
        return float(given)
    try:
        until, now = parsedate_to_datetime(given), parsedate_to_datetime(headers.get("Date", ""))
        return max(0.0, (until - now).total_seconds())
    except (ValueError, TypeError, OverflowError):
        return None
