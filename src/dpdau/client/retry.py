"""When a request is sent again: full jitter, bounded by attempts and by time."""

import asyncio
import secrets
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Final

from dpdau.client.calls import Refusal
from dpdau.errors import InvalidSettingError

__all__ = ["Attempts", "Retry", "jitter"]

_DOUBLINGS_MAX: Final = 32
_FRACTION_BITS: Final = 53


def jitter() -> float:
    """A random fraction, 0 ≤ x < 1."""
    return secrets.randbits(_FRACTION_BITS) / (1 << _FRACTION_BITS)


@dataclass(frozen=True, slots=True)
class Retry:
    """How often and how long a client tries.

    Args:
        attempts_max: Requests for one call, the first one too; 1 never repeats.
        seconds_max: From the first request on; a wait that would end later is not begun.
        first_wait_seconds: The longest wait before the second request; doubled each time.
        wait_seconds_max: The longest wait at all, unless the service asks for more.
        fraction: Draws 0 ≤ x < 1; a wait is that share of the longest one.
        monotonic: Seconds that never go back.
        sleep: Waits, in the blocking client.
        sleep_async: Waits, in the asyncio client.

    Guarantee: a wait is never shorter than what `Retry-After` asks for.

    Source: full jitter as in M. Brooker, "Exponential Backoff and Jitter" (AWS Architecture Blog,
    2015); on top of a `Retry-After` the wait is jittered by one first wait, so that callers who
    were turned away together do not come back together.
    """

    attempts_max: int = 5
    seconds_max: float = 30.0
    first_wait_seconds: float = 0.1
    wait_seconds_max: float = 10.0
    fraction: Callable[[], float] = jitter
    monotonic: Callable[[], float] = time.monotonic
    sleep: Callable[[float], None] = time.sleep
    sleep_async: Callable[[float], Awaitable[None]] = asyncio.sleep

    def __post_init__(self) -> None:
        if self.attempts_max < 1 or min(self.first_wait_seconds, self.wait_seconds_max) < 0:
            raise InvalidSettingError("Expected at least one attempt and waits of 0 s or more.")

    def wait_seconds(self, attempt: int, refusal: Refusal) -> float:
        """How long to wait after a failed attempt, from 1."""
        asked = refusal.retry_after_seconds
        if asked is not None:
            return asked + self.fraction() * self.first_wait_seconds
        doubled: float = self.first_wait_seconds * 2 ** min(attempt - 1, _DOUBLINGS_MAX)
        return self.fraction() * min(self.wait_seconds_max, doubled)

    def begin(self) -> "Attempts":
        """The attempts of one call."""
        return Attempts(self)


class Attempts:
    """What was tried for one call so far."""

    def __init__(self, retry: Retry) -> None:
        self._retry = retry
        self._made = 0
        self._end = retry.monotonic() + retry.seconds_max

    def wait_after(self, refusal: Refusal) -> float | None:
        """The seconds to wait before the next attempt; None where there is none."""
        self._made += 1
        if not refusal.may_repeat or self._made >= self._retry.attempts_max:
            return None
        wait = self._retry.wait_seconds(self._made, refusal)
        return wait if self._retry.monotonic() + wait <= self._end else None
