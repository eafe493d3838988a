"""Who may reach a service, and how often: what every front asks before anything else."""

import hashlib
import ipaddress
import math
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from typing import Final

from limits import parse

from dpdau.domain import Caller, Scope
from dpdau.errors import InvalidSettingError, NotAuthorizedError, RateLimitedError

RATE_LIMIT: Final = "1000/second"
INGEST_RATE_LIMIT: Final = "20000/second"
"""What takes events has windows of its own: what holds it back is the queue."""
WINDOWS_MAX: Final = 100_000
"""Windows that are kept at once, of all addresses and keys."""
KNOWN_SECONDS: Final = 0.5
"""How long a key that was looked up is known; a revoked one is refused after that at the latest."""
KNOWN_KEYS_MAX: Final = 1024
API_KEY_LENGTH_MAX: Final = 512
NO_AUTH_CALLER: Final = Caller("no-auth", frozenset(Scope))
"""Who asks where no key is asked for."""


@dataclass(frozen=True, slots=True)
class Rate:
    """One window after a request was counted: what it allows, what is left, when it ends."""

    kind: str
    limit: int
    remaining: int
    reset_seconds: int
    exceeded: bool

    def headers(self) -> tuple[tuple[bytes, bytes], ...]:
        """The `RateLimit-*` headers as they are sent."""
        return (
            (b"ratelimit-limit", b"%d" % self.limit),
            (b"ratelimit-remaining", b"%d" % self.remaining),
            (b"ratelimit-reset", b"%d" % self.reset_seconds),
        )

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


class RateLimiter:
    """Fixed windows in memory: one for each client address and one for each key.

    A window begins with its first request. It is kept here, and not by a library, because it is
    asked twice for every event that is sent by itself.

    Args:
        limit: As `1000/second`.
        clock: Seconds that never go back.
    """

    def __init__(self, limit: str, *, clock: Callable[[], float] = time.monotonic) -> None:
        self._amount, self._seconds = _parsed(limit)
        self._clock = clock
        self._lock = threading.Lock()
        self._windows: dict[tuple[str, str], tuple[float, int]] = {}

    def take(self, kind: str, name: str, limit: str | None = None) -> Rate:
        """Counts one request of an `address` or a `key`; any thread may ask.

        Args:
            kind: What is counted.
            name: Which one.
            limit: What holds for this one, if that is another limit.
        """
        now, window = self._clock(), (kind, name)
        amount, seconds = (self._amount, self._seconds) if limit is None else _parsed(limit)
        with self._lock:
            end, taken = self._windows.get(window, (now, 0))
            if end <= now:
                self._make_room(now)
                self._windows.pop(window, None)
                end, taken = now + seconds, 0
            self._windows[window] = (end, taken + 1)
        return Rate(
            kind=kind,
            limit=amount,
            remaining=max(amount - taken - 1, 0),
            reset_seconds=min(max(math.ceil(end - now), 1), seconds),
            exceeded=taken >= amount,
        )

    def _make_room(self, now: float) -> None:
        """Drops windows that are over; where there are too many others, the oldest ones."""
        if len(self._windows) >= WINDOWS_MAX:
            self._windows = {one: known for one, known in self._windows.items() if known[0] > now}
            for one in list(self._windows)[: len(self._windows) - WINDOWS_MAX // 2]:
                del self._windows[one]


@lru_cache(maxsize=KNOWN_KEYS_MAX)
def _parsed(limit: str) -> tuple[int, int]:
    """How many in how many seconds."""
    item = parse(limit)
    return item.amount, item.get_expiry()


class KnownCallers:
    """Whose a key is, for a moment after it was looked up; shared by the fronts.

    Guarantee: a caller is known for `KNOWN_SECONDS` at most, so a key that is revoked or expires
    stops to work within that time. Only keys that are valid are known, `KNOWN_KEYS_MAX` of them.

    Args:
        clock: Seconds that never go back.
    """

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._lock = threading.Lock()
        self._known: dict[str, tuple[Caller, float]] = {}

    def __len__(self) -> int:
        return len(self._known)

    def find(self, bucket: str) -> Caller | None:
        """The caller of a key, where it was looked up a moment ago."""
        known = self._known.get(bucket)
        return known[0] if known is not None and self._clock() < known[1] else None

    def drop(self, bucket: str) -> bool:
        """Forgets a key; whether it was known."""
        return self._known.pop(bucket, None) is not None

    def asking(self) -> float:
        """When a key that is looked up now has to be looked up again."""
        return self._clock() + KNOWN_SECONDS

    def note(self, bucket: str, caller: Caller, until: float) -> None:
        """Knows a key that was found valid."""
        with self._lock:
            if len(self._known) >= KNOWN_KEYS_MAX:
                self._known.clear()
            self._known[bucket] = (caller, until)


def bucket_of(key: str | None) -> str | None:
    """A name for a key that is none, for its window and its caller; None where it cannot be one."""
    if key is None or len(key) > API_KEY_LENGTH_MAX or not key.isascii():
        return None
    return hashlib.blake2b(key.encode(), digest_size=16).hexdigest()


def window_of(caller: Caller) -> str:
    """The name of the window in which requests of a key are counted, however it was shown."""
    return caller.key_id or caller.name


def require_scope(caller: Caller, scope: Scope | None) -> None:
    """Refuses a caller without a scope; None asks for none.

    Raises:
        NotAuthorizedError: The key lacks it.
    """
    if scope is not None and not caller.may(scope):
        raise NotAuthorizedError(f"Expected a key with the scope {scope.value}.", scope=scope.value)


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
