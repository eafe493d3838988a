"""Whether the service can write, for probes that anybody may ask as often as they like."""

import threading
import time
from collections.abc import Callable
from typing import Final, Protocol

from dpdau.errors import DpdauError
from dpdau.telemetry import log, place_of

READY_SECONDS: Final = 1.0
PROOF_SECONDS_MAX: Final = 10.0
"""A proof that takes longer is none: the service is not ready until it ends."""
KNOWN_SECONDS_MAX: Final = 30.0
"""How old an answer may be that others hear while a proof runs; older, it is as good as none."""
WAITING_MAX: Final = 4
"""Who may wait for a proof where no answer is known; others hear that it is not ready."""
_LOG = log("app")


class Provable(Protocol):
    """What can prove that it writes."""

    def check_ready(self) -> None:
        """Raises where it cannot."""


class Readiness:
    """Proves that the product can write, and remembers the outcome for `READY_SECONDS`.

    Guarantee: however many ask at once, and through whichever front, one proof runs at a time and
    at most one starts in `READY_SECONDS`, because a proof writes durably and the probe asks for no
    key. While it runs, others have the answer before it, if that is at most `KNOWN_SECONDS_MAX`
    old; else at most `WAITING_MAX` wait.

    Args:
        product: What proves itself.
        clock: Seconds that never go back.
    """

    def __init__(self, product: Provable, *, clock: Callable[[], float] = time.monotonic) -> None:
        self._product = product
        self._clock = clock
        self._changed = threading.Condition()
        self._known: bool | None = None
        self._known_at = -float("inf")
        self._cause = ""
        self._proving_since: float | None = None
        self._waiting = 0

    def known(self) -> bool | None:
        """What can be said without a proof and without a wait; None asks for `check`."""
        with self._changed:
            return self._answer()

    def check(self) -> bool:
        """Whether the store and the ledger could write a moment ago."""
        with self._changed:
            answer = self._answer()
            if answer is not None:
                return answer
            if self._proving_since is not None:
                return self._next_answer()
            self._proving_since = self._clock()
        is_ready = False
        try:
            is_ready = self._prove()
        finally:
            with self._changed:
                self._known, self._proving_since = is_ready, None
                self._known_at = self._clock()
                self._changed.notify_all()
        return is_ready

    @property
    def cause(self) -> str:
        """The code of the error that the last proof ended with; empty where it had none."""
        return self._cause

    def _answer(self) -> bool | None:
        now, since = self._clock(), self._proving_since
        if since is not None and now - since > PROOF_SECONDS_MAX:
            return False
        age = now - self._known_at
        is_known = age < READY_SECONDS if since is None else age <= KNOWN_SECONDS_MAX
        return self._known if is_known else None

    def _next_answer(self) -> bool:
        """The outcome of the proof that runs; under the lock, which the wait gives back."""
        if self._waiting >= WAITING_MAX:
            return False
        self._waiting += 1
        has_ended = self._changed.wait_for(lambda: self._proving_since is None, PROOF_SECONDS_MAX)
        self._waiting -= 1
        return has_ended and bool(self._known)

    def _prove(self) -> bool:
        """Why it cannot write is for the operator's log alone: it may name files."""
        try:
            self._product.check_ready()
        except DpdauError as error:
            _LOG.error("not ready", code=error.code, detail=error.message)
            self._cause = error.code
            return False
        except Exception as error:  # noqa: BLE001 - a probe is answered, whatever is broken.
            _LOG.error("not ready", **place_of(error))
            self._cause = ""
            return False
        self._cause = ""
        return True
