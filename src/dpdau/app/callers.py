"""Who sends a request."""

import datetime as dt
import hmac

from pydantic import SecretStr

from dpdau.domain import Caller, Scope
from dpdau.errors import NotAuthenticatedError
from dpdau.ledger.keys import ApiKeys


def identify(
    text: str | None, *, bootstrap: SecretStr | None, keys: ApiKeys, now: dt.datetime
) -> Caller:
    """Who an API key belongs to, and what it may do.

    Raises:
        NotAuthenticatedError: No key, or one that is unknown, expired or revoked.
    """
    if text and bootstrap is not None:
        expected = bootstrap.get_secret_value().encode()
        if hmac.compare_digest(text.encode(), expected):
            return Caller("bootstrap", frozenset(Scope))
    known = keys.authenticate(text, now) if text else None
    if known is None:
        raise NotAuthenticatedError("Expected a valid API key in X-API-Key.")
    return Caller(known.label, known.scopes)
