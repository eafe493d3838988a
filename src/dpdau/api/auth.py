"""Who asks, may they, and not too often: API keys, scopes and rate limits.

Order for every route: the client address's rate (429), the key (401), the key's rate (429), the
scope (403). Only then is a parameter or a body looked at.
"""

import threading
import time
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from typing import Annotated, Final
from urllib.parse import SplitResult, urlsplit

from fastapi import Request, Security
from fastapi.security import APIKeyHeader
from starlette.concurrency import run_in_threadpool
from starlette.types import Scope as ASGIScope

from dpdau.app import App
from dpdau.app.admission import (
    NO_AUTH_CALLER,
    KnownCallers,
    Rate,
    RateLimiter,
    bucket_of,
    is_loopback,
    require_scope,
    window_of,
)
from dpdau.domain import Caller, Scope, act_as
from dpdau.errors import NotAuthenticatedError

TRAFFIC_SCOPE_KEY: Final = "dpdau.traffic"
KEY_HEADER: Final = APIKeyHeader(
    name="X-API-Key",
    scheme_name="ApiKey",
    description="An API key with the scope of the route; `admin` implies every scope.",
    auto_error=False,
)
_FOREIGN_SITES: Final = frozenset({"cross-site", "same-site"})

Guard = Callable[..., Awaitable[Caller]]


@dataclass(slots=True)
class Traffic:
    """What is known about one request, for its access-log line and its headers."""

    caller: str | None = None
    rate: Rate | None = None


class Gate:
    """Turns the key of a request into a caller, and refuses it in the documented order.

    Guarantee: a key that is revoked or expires stops to work soon; see `KnownCallers`.
    """

    def __init__(
        self,
        app: App,
        limiters: Mapping[str, RateLimiter],
        *,
        no_auth: bool,
        warm_up: Callable[[], None] | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._app = app
        self._warm_up = warm_up
        self._limiters = limiters
        self._no_auth = no_auth
        self._known = KnownCallers(clock)

    async def admit(self, scope: ASGIScope, key: str | None) -> Caller:
        """The caller of a request.

        Raises:
            NotAuthenticatedError: No valid key; under `no_auth`, a request that a foreign web page
                could have sent.
            RateLimitedError: The key's window is used up.
        """
        if self._no_auth:
            _require_local(Request(scope))
            caller = NO_AUTH_CALLER
        else:
            bucket = bucket_of(key)
            if key is None or bucket is None:
                raise NotAuthenticatedError("Expected a valid API key in X-API-Key.")
            caller = await self._caller(key, bucket)
        self.count(scope, caller)
        return caller

    def count(self, scope: ASGIScope, caller: Caller) -> None:
        """Counts a request of a caller that is known, in the one window of its key.

        Raises:
            RateLimitedError: The window is used up.
        """
        traffic: Traffic = scope[TRAFFIC_SCOPE_KEY]
        traffic.caller = caller.name
        act_as(caller.actor)
        limiter = limiter_of(self._limiters, scope)
        traffic.rate = limiter.take("key", window_of(caller), caller.rate_limit)
        traffic.rate.require()

    def note_reader(self) -> None:
        """At the first request that is not of events, loads what releases need, on a thread.

        Not at the start: it takes 90 MB, and a service may only take events for a long time.
        """
        if self._warm_up is not None:
            threading.Thread(target=self._warm_up, daemon=True).start()
            self._warm_up = None

    async def _caller(self, key: str, bucket: str) -> Caller:
        """Whose key it is; looked up in the ledger unless it was a moment ago."""
        known = self._known.find(bucket)
        if known is not None:
            return known
        was_known, until = self._known.drop(bucket), self._known.asking()
        if was_known and self._app.is_quick:
            # One that was valid is looked up here: a thread would wait for this one.
            caller = self._app.authenticate(key)
        else:
            caller = await run_in_threadpool(self._app.authenticate, key)
        self._known.note(bucket, caller, until)
        return caller


def limiter_of(limiters: Mapping[str, RateLimiter], scope: ASGIScope) -> RateLimiter:
    """The limiter of the route that a request asks for; that of "" for all but a few."""
    return limiters.get(scope["path"]) or limiters[""]


def requires(scope: Scope | None) -> Guard:
    """The dependency that lets a caller with a scope pass; None asks for any valid key."""

    async def guard(
        request: Request, key: Annotated[str | None, Security(KEY_HEADER)] = None
    ) -> Caller:
        gate: Gate = request.app.state.gate
        caller = await gate.admit(request.scope, key)
        require_scope(caller, scope)
        gate.note_reader()
        return caller

    return guard


def parts_of(address: str) -> SplitResult:
    """The parts of an address that somebody sent; all of them empty where it is none.

    Example:
        >>> parts_of("http://[").hostname, parts_of("https://numbers.example").hostname
        (None, 'numbers.example')
    """
    try:
        return urlsplit(address)
    except ValueError:
        return urlsplit("")


def _require_local(request: Request) -> None:
    """Without keys, a web page must not be able to spend: not by its origin, not by rebinding.

    Raises:
        NotAuthenticatedError: The `Host` is not a loopback name, or the browser says by `Origin`
            or `Sec-Fetch-Site` that the request was made by another site.
    """
    host = request.url.hostname or ""
    site = request.headers.get("sec-fetch-site", "")
    origin = request.headers.get("origin")
    foreign = origin is not None and not is_loopback(parts_of(origin).hostname or "")
    if foreign or not is_loopback(host) or site in _FOREIGN_SITES:
        raise NotAuthenticatedError(
            "Expected a request from this machine itself, as the service asks for no key."
        )
