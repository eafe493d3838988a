"""Calls whose first message does not come: each holds a thread of the pool, so they are ended."""

import threading
import time
from collections.abc import Callable, Iterator
from typing import Any, Final, TypeVar

FIRST_MESSAGE_SECONDS: Final = 10.0
_LOOK_SECONDS: Final = 1.0
_Message = TypeVar("_Message")


class Patience:
    """Ends a call that has sent nothing for `seconds`; looks once in a while.

    Args:
        seconds: How long a call may take to send its first message.
        clock: Seconds that never go back.
    """

    def __init__(
        self,
        seconds: float = FIRST_MESSAGE_SECONDS,
        *,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._seconds = seconds
        self._clock = clock
        self._lock = threading.Lock()
        self._silent: dict[object, tuple[Any, float]] = {}
        self._is_over = threading.Event()

    def start(self) -> None:
        """Begins to look, on a thread."""
        threading.Thread(target=self._look_again, name="rpc-patience", daemon=True).start()

    def stop(self) -> None:
        """Looks no more."""
        self._is_over.set()

    def messages(self, requests: Iterator[_Message], context: Any) -> Iterator[_Message]:
        """The messages of a call; the first one has to come in time."""
        mark = object()
        with self._lock:
            self._silent[mark] = (context, self._clock() + self._seconds)
        try:
            first = next(requests, None)
        finally:
            with self._lock:
                del self._silent[mark]
        if first is not None:
            yield first
            yield from requests

    def end_the_silent(self) -> None:
        """Ends the calls whose time is over; reading from them raises in the thread they hold."""
        now = self._clock()
        with self._lock:
            over = [context for context, until in self._silent.values() if now >= until]
        for context in over:
            context.cancel()

    def _look_again(self) -> None:
        while not self._is_over.wait(_LOOK_SECONDS):
            self.end_the_silent()
