"""Ways to a service that fail: requests that are lost, answers that are lost, refusals for now."""

import asyncio
import random
from collections import Counter
from collections.abc import Callable
from typing import Any

import httpx

from dpdau.api.problems import problem_of
from dpdau.client import Retry
from dpdau.errors import RateLimitedError, StoreUnavailableError
from products import event

AT_ONCE = Retry(first_wait_seconds=0, wait_seconds_max=0)
SOON = Retry(first_wait_seconds=0.01, wait_seconds_max=0.05)
EVENTS = 1_000
USERS = 40
FAULTS = ("none", "lost", "torn", "busy", "away")


def event_of(number: int) -> dict[str, Any]:
    """One event of a stream that shows what is missing and what is out of order.

    Every other event is of a user who comes once; between them other users are turned on and off in
    turn, and who of them ends on differs.
    """
    if number % 2:
        return event(f"once-{number}")
    turn, user = divmod(number // 2, USERS)
    return event(f"user-{user}", op="+" if (turn + user // 3) % 2 else "-")


def answer_of(error: Any) -> httpx.Response:
    """A refusal as the service words it, which asks for no wait."""
    document = problem_of(error)
    headers = {**document.headers, "Retry-After": "0"}
    return httpx.Response(document.status_code, headers=headers, content=document.body)


class Faulty(httpx.BaseTransport):
    """Passes requests on, but for seeded faults on about half of them; counts what it did.

    `lost` never arrives; of `torn` the answer is lost; `busy` is 429 and `away` is 503, before the
    request is looked at.
    """

    def __init__(self, way: httpx.BaseTransport, seed: int) -> None:
        self._way = way
        self._random = random.Random(seed)
        self.counts: Counter[str] = Counter()

    def handle_request(self, request: httpx.Request) -> httpx.Response:
        """One request."""
        fault = self._random.choices(FAULTS, (4, 1, 1, 1, 1))[0]
        self.counts[fault] += 1
        if fault == "lost":
            raise httpx.WriteError("the connection broke", request=request)
        if fault == "busy":
            return answer_of(RateLimitedError("Expected fewer.", retry_after_seconds=0))
        if fault == "away":
            return answer_of(StoreUnavailableError("Expected a disk that can be written."))
        answer = self._way.handle_request(request)
        if fault == "torn":
            answer.close()
            raise httpx.ReadError("the connection broke", request=request)
        return answer

    def close(self) -> None:
        """Ends the way behind it."""
        self._way.close()


class Awaited(httpx.AsyncBaseTransport):
    """A blocking way for the asyncio client, on a thread."""

    def __init__(self, way: httpx.BaseTransport) -> None:
        self._way = way

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        """One request."""
        return await asyncio.to_thread(self._way.handle_request, request)


def scripted(*answers: httpx.Response | Exception) -> tuple[httpx.MockTransport, list[Any]]:
    """A way that gives these answers in turn, and the requests it got."""
    left, asked = list(answers), []

    def answer(request: httpx.Request) -> httpx.Response:
        asked.append(request)
        one = left.pop(0)
        if isinstance(one, Exception):
            raise one
        return one

    return httpx.MockTransport(answer), asked


class ManualTime:
    """A clock that only moves when something waits, and what was waited."""

    def __init__(self) -> None:
        self.now = 0.0
        self.waits: list[float] = []

    def sleep(self, seconds: float) -> None:
        """Waits at once."""
        self.waits.append(seconds)
        self.now += seconds

    async def sleep_async(self, seconds: float) -> None:
        """Waits at once."""
        self.sleep(seconds)

    def retry(self, fraction: Callable[[], float] = lambda: 0.5, **limits: Any) -> Retry:
        """A policy on this clock."""
        return Retry(
            **limits,
            fraction=fraction,
            monotonic=lambda: self.now,
            sleep=self.sleep,
            sleep_async=self.sleep_async,
        )
