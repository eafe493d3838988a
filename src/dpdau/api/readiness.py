"""Whether the service can write, for a probe that anybody may ask as often as they like."""

import asyncio
import time
from collections.abc import Callable
from typing import Final

from starlette.concurrency import run_in_threadpool

from dpdau.app import App
from dpdau.errors import DpdauError
from dpdau.telemetry import log

READY_SECONDS: Final = 1.0
_LOG = log("api")


class Readiness:
    """Proves that the product can write, and remembers the outcome for `READY_SECONDS`.

    Guarantee: however many ask at once, one proof runs at a time and at most one starts in
    `READY_SECONDS`, because a proof writes durably and the probe asks for no key.
    """

    def __init__(self, app: App, *, clock: Callable[[], float] = time.monotonic) -> None:
        self._app = app
        self._clock = clock
        self._lock = asyncio.Lock()
        self._known_until = -float("inf")
        self._is_ready = False

    async def check(self) -> bool:
        """Whether the store and the ledger could write within the last `READY_SECONDS`."""
        async with self._lock:
            if self._clock() >= self._known_until:
                self._is_ready = await run_in_threadpool(self._prove)
                self._known_until = self._clock() + READY_SECONDS
            return self._is_ready

    def _prove(self) -> bool:
        """Why it cannot write is for the operator's log alone: it may name files."""
        try:
            self._app.check_ready()
        except DpdauError as error:
            _LOG.error("not ready", code=error.code, detail=error.message)
            return False
        return True
