"""Who asks, may they, and not too often: API keys, scopes and rate limits.

Order for every route: the client address's rate (429), the key (401), the key's rate (429), the
scope (403). Only then is a parameter or a body looked at.
"""

import hashlib
import ipaddress
import math
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Annotated, Final
from urllib.parse import urlsplit

from fastapi import Request, Security
from fastapi.security import APIKeyHeader
from limits import RateLimitItem, parse
from limits.storage import MemoryStorage
from limits.strategies import FixedWindowRateLimiter
from starlette.concurrency import run_in_threadpool

from dpdau.app import App, system_clock
from dpdau.domain import Caller, Scope
from dpdau.errors import (
    InvalidSettingError,
    NotAuthenticatedError,
    NotAuthorizedError,
    RateLimitedError,
)

RATE_LIMIT: Final = "1000/second"
API_KEY_LENGTH_MAX: Final = 512
TRAFFIC_SCOPE_KEY: Final = "dpdau.traffic"
KEY_HEADER: Final = APIKeyHeader(
    name="X-API-Key",
    scheme_name="ApiKey",
    description="An API key with the scope of the route; `admin` implies every scope.",
    auto_error=False,
)
_NO_AUTH_CALLER: Final = Caller("no-auth", frozenset(Scope))
_FOREIGN_SITES: Final = frozenset({"cross-site", "same-site"})

Guard = Callable[..., Awaitable[Caller]]


@dataclass(frozen=True, slots=True)
class Rate:
    """One window after a request was counted: what it allows, what is left, when it ends."""

    kind: str
    limit: int
    remaining: int
    reset_seconds: int
    exceeded: bool

    def headers(self) -> dict[str, str]:
        """The `RateLimit-*` headers."""
        return {
            "RateLimit-Limit": str(self.limit),
            "RateLimit-Remaining": str(self.remaining),
            "RateLimit-Reset": str(self.reset_seconds),
        }

    def require(self) -> None:
        """Refuses the request where the window is used up.

        Raises:
            RateLimitedError: It is; carries `retry_after_seconds`.
        """
        if self.exceeded:
            raise RateLimitedError(
                f"Expected at most {self.limit} requests in one window of this {self.kind}; "
                f"retry in {self.reset_seconds} s.",
                retry_after_seconds=self.reset_seconds,
            )


@dataclass(slots=True)
class Traffic:
    """What is known about one request, for its access-log line and its headers."""

    caller: str | None = None
    rate: Rate | None = None


class RateLimiter:
    """Fixed windows in memory: one for each client address and one for each key."""

    def __init__(self, limit: str) -> None:
        self._item: RateLimitItem = parse(limit)
        self._limiter = FixedWindowRateLimiter(MemoryStorage())

    def take(self, kind: str, name: str) -> Rate:
        """Counts one request of an `address` or a `key`."""
        allowed = self._limiter.hit(self._item, kind, name)
        stats = self._limiter.get_window_stats(self._item, kind, name)
        left = math.ceil(stats.reset_time - system_clock().timestamp())
        return Rate(
            kind=kind,
            limit=self._item.amount,
            remaining=max(stats.remaining, 0),
            reset_seconds=min(max(left, 1), self._item.get_expiry()),
            exceeded=not allowed,
        )


class Gate:
    """Turns the key of a request into a caller, and refuses it in the documented order."""

    def __init__(self, app: App, limiter: RateLimiter, *, no_auth: bool) -> None:
        self._app = app
        self._limiter = limiter
        self._no_auth = no_auth

    async def admit(self, request: Request, key: str | None) -> Caller:
        """The caller of a request.

        Raises:
            NotAuthenticatedError: No valid key; under `no_auth`, a request that a foreign web page
                could have sent.
            RateLimitedError: The key's window is used up.
        """
        if self._no_auth:
            _require_local(request)
            caller, bucket = _NO_AUTH_CALLER, "none"
        elif key is None or len(key) > API_KEY_LENGTH_MAX or not key.isascii():
            raise NotAuthenticatedError("Expected a valid API key in X-API-Key.")
        else:
            caller = await run_in_threadpool(self._app.authenticate, key)
            bucket = hashlib.blake2b(key.encode(), digest_size=16).hexdigest()
        traffic: Traffic = request.scope[TRAFFIC_SCOPE_KEY]
        traffic.caller = caller.name
        traffic.rate = self._limiter.take("key", bucket)
        traffic.rate.require()
        return caller


def requires(scope: Scope | None) -> Guard:
    """The dependency that lets a caller with a scope pass; None asks for any valid key."""

    async def guard(
        request: Request, key: Annotated[str | None, Security(KEY_HEADER)] = None
    ) -> Caller:
        gate: Gate = request.app.state.gate
        caller = await gate.admit(request, key)
        if scope is not None and not caller.may(scope):
            raise NotAuthorizedError(
                f"Expected a key with the scope {scope.value}.", scope=scope.value
            )
        return caller

    return guard


def is_loopback(host: str) -> bool:
    """Whether only this machine can reach an address.

    Example:
        >>> is_loopback("127.0.0.1"), is_loopback("0.0.0.0")
        (True, False)
    """
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return False


def require_loopback(host: str, *, no_auth: bool, unsafe_debug: bool) -> None:
    """Refuses to bind what must stay on this machine to an address that others can reach.

    Raises:
        InvalidSettingError: One of the flags is on and the host is not loopback.
    """
    for flag, on in (("--no-auth", no_auth), ("--unsafe-debug", unsafe_debug)):
        if on and not is_loopback(host):
            raise InvalidSettingError(f"Expected a loopback host with {flag}, found {host!r}.")


def _require_local(request: Request) -> None:
    """Without keys, a web page must not be able to spend: not by its origin, not by rebinding.

    Raises:
        NotAuthenticatedError: The `Host` is not a loopback name, or the browser says by `Origin`
            or `Sec-Fetch-Site` that the request was made by another site.
    """
    host = request.url.hostname or ""
    site = request.headers.get("sec-fetch-site", "")
    origin = request.headers.get("origin")
    foreign = origin is not None and not is_loopback(urlsplit(origin).hostname or "")
    if foreign or not is_loopback(host) or site in _FOREIGN_SITES:
        raise NotAuthenticatedError(
            "Expected a request from this machine itself, as the service asks for no key."
        )
