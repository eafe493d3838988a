"""The readiness of the service for coroutines: waiting for a proof holds no thread."""

import asyncio

from starlette.concurrency import run_in_threadpool

from dpdau.app.readiness import Readiness


class ReadinessProbe:
    """Asks `Readiness`; one thread at most is held by all who ask."""

    def __init__(self, readiness: Readiness) -> None:
        self._readiness = readiness
        self._lock = asyncio.Lock()

    @property
    def cause(self) -> str:
        """See `Readiness.cause`."""
        return self._readiness.cause

    async def check(self) -> bool:
        """Whether the store and the ledger could write a moment ago."""
        known = self._readiness.known()
        if known is None:
            async with self._lock:
                known = self._readiness.known()
                if known is None:
                    known = await run_in_threadpool(self._readiness.check)
        return known
