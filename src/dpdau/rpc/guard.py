"""Who calls, may they, and not too often: the order of HTTP, before a message is read."""

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final, Self
from urllib.parse import unquote

from dpdau.app import App
from dpdau.app.admission import (
    NO_AUTH_CALLER,
    KnownCallers,
    RateLimiter,
    bucket_of,
    require_scope,
    window_of,
)
from dpdau.domain import Caller, Scope, act_as
from dpdau.errors import NotAuthenticatedError

KEY_METADATA: Final = "x-api-key"


@dataclass(frozen=True, slots=True)
class Visitor:
    """Where a call comes from, and the key that it carries."""

    address: str
    key: str | None

    @classmethod
    def of(cls, context: Any) -> Self:
        """The visitor of a call."""
        return cls(address_of(context.peer()), key_of(context.invocation_metadata()))

    def __repr__(self) -> str:
        return "Visitor(<private>)"


def address_of(peer: str) -> str:
    """The address of a peer as HTTP names it, so that both have one window.

    Example:
        >>> address_of("ipv4:127.0.0.1:50123"), address_of("ipv6:%5B::1%5D:50123")
        ('127.0.0.1', '::1')
    """
    address, _, _ = unquote(peer).partition(":")[2].rpartition(":")
    return address.strip("[]") or "local"


def key_of(metadata: Any) -> str | None:
    """The API key of a call; where the name comes twice, the first one counts."""
    return next((value for name, value in metadata if name == KEY_METADATA), None)


class Guard:
    """Turns the key of a call into a caller, and refuses it in the documented order.

    Guarantee: a stream asks for each message, so a key that is revoked or expires stops to work
    soon; see `KnownCallers`.
    """

    def __init__(
        self, app: App, *, no_auth: bool, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._app = app
        self._no_auth = no_auth
        self._known = KnownCallers(clock)

    def admit(self, visitor: Visitor, scope: Scope | None, limiter: RateLimiter) -> Caller:
        """The caller of one message.

        Raises:
            RateLimitedError: The window of the address or of the key is used up.
            NotAuthenticatedError: No valid key.
            NotAuthorizedError: The key lacks the scope.
        """
        limiter.take("address", visitor.address).require()
        caller = self.caller(visitor.key)
        limiter.take("key", window_of(caller), caller.rate_limit).require()
        require_scope(caller, scope)
        act_as(caller.actor)
        return caller

    def caller(self, key: str | None) -> Caller:
        """Whose key it is; looked up unless it was a moment ago.

        Raises:
            NotAuthenticatedError: No valid key.
        """
        if self._no_auth:
            return NO_AUTH_CALLER
        bucket = bucket_of(key)
        if bucket is None:
            raise NotAuthenticatedError(f"Expected a valid API key in {KEY_METADATA}.")
        caller = self._known.find(bucket)
        if caller is None:
            self._known.drop(bucket)
            until = self._known.asking()
            caller = self._app.authenticate(key)
            self._known.note(bucket, caller, until)
        return caller
