"""Who sends a request, and when each key was last used."""

import datetime as dt
import hmac
import threading
from contextlib import suppress
from typing import Final

from pydantic import SecretStr

from dpdau.domain import Caller, Clock, Scope
from dpdau.errors import DpdauError, NotAuthenticatedError
from dpdau.ledger.keys import ApiKeys, KeyInfo

BOOTSTRAP_CALLER: Final = Caller("bootstrap", frozenset(Scope))
"""Who has `SERVICE_API_KEY`."""


class Callers:
    """Turns API keys into callers, and notes the hour in which each was used.

    Guarantee: to look a key up writes nothing. The hour is kept here, and `write_uses` writes it
    down: one small write for each key and hour, whatever is asked.

    Args:
        bootstrap: The key that is not stored, if there is one.
        keys: The stored keys.
        clock: What time it is.
    """

    def __init__(self, bootstrap: SecretStr | None, keys: ApiKeys, clock: Clock) -> None:
        self._bootstrap = None if bootstrap is None else bootstrap.get_secret_value().encode()
        self._keys = keys
        self._clock = clock
        self._lock = threading.Lock()
        self._noted: dict[str, dt.datetime] = {}
        self._pending: dict[str, dt.datetime] = {}

    def identify(self, text: str | None) -> Caller:
        """Who an API key belongs to, and what it may do.

        Raises:
            NotAuthenticatedError: No key, or one that is unknown, expired or revoked.
        """
        if not text:
            raise NotAuthenticatedError("Expected a valid API key in X-API-Key.")
        if self._bootstrap and hmac.compare_digest(text.encode(), self._bootstrap):
            return BOOTSTRAP_CALLER
        now = self._clock()
        known = self._keys.authenticate(text, now)
        if known is None:
            raise NotAuthenticatedError("Expected a valid API key in X-API-Key.")
        return self._used(known, now)

    def again(self, key_id: str) -> Caller | None:
        """The caller that has a stored key, for who has shown it before; None if it ended."""
        now, known = self._clock(), self._keys.find(key_id)
        return self._used(known, now) if known is not None and known.is_live(now) else None

    def write_uses(self) -> None:
        """Writes down which keys were used since the last time.

        Raises:
            DpdauError: The ledger cannot be written; they are written the next time.
        """
        with self._lock:
            pending, self._pending = self._pending, {}
        if not pending:
            return
        try:
            self._keys.note_uses(pending)
        except DpdauError:
            with self._lock:
                self._pending = pending | self._pending
            raise

    def close(self) -> None:
        """Writes down what is left; a ledger that takes no more writes keeps nobody from ending."""
        with suppress(DpdauError):
            self.write_uses()

    def _used(self, known: KeyInfo, now: dt.datetime) -> Caller:
        self._note(known.key_id, now.replace(minute=0, second=0, microsecond=0))
        return caller_of(known)

    def _note(self, key_id: str, hour: dt.datetime) -> None:
        if self._noted.get(key_id) != hour:
            with self._lock:
                self._noted[key_id] = self._pending[key_id] = hour


def caller_of(info: KeyInfo) -> Caller:
    """The caller that has a stored key."""
    return Caller(info.label, info.scopes, info.key_id, info.rate_limit)
