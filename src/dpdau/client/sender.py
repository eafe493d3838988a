"""Sending in the background: by a thread, or by a task of an event loop."""

import asyncio
import atexit
import threading
from collections.abc import Awaitable, Callable, Iterable, Mapping
from pathlib import Path
from types import TracebackType
from typing import Any, Self, TypeAlias

from dpdau.client.calls import Call, Refusal
from dpdau.client.outbox import (
    Lines,
    OnError,
    OnRejected,
    Outbox,
    Pause,
    SenderLimits,
    SenderStats,
    Step,
)
from dpdau.client.retry import Retry
from dpdau.errors import SpoolFullError, SpoolUnavailableError

__all__ = ["AsyncSender", "Sender"]

_Found: TypeAlias = "dict[str, Any] | Refusal"
_NAME = "dpdau-sender"


class Sender:
    """Takes events at once and sends them in batches from a thread; made by `Client.sender`.

    Guarantee: an event whose `send` returned reaches the service or is told to `on_error` or
    `on_rejected`, and the service takes it once: also where the service is away, an answer gets
    lost, or this process is killed and a sender is opened on the folder again. Events arrive in
    the order of the calls.

    A batch that the service can never take (400, 413, 415, 422) is set aside in the folder as
    NDJSON. Every other failure is waited out; `on_error` hears of the first in a row. Both
    callbacks run in the thread, so what they call here does not wait for what it has to do.

    At the end of the interpreter it is closed, which takes `close_seconds` at most; what is left
    stays in the folder for the next one. A process that was forked from its owner cannot use it.

    Raises:
        SpoolUnavailableError: The folder is in use by another sender, or cannot be written.
    """

    def __init__(
        self,
        attempt: Callable[[Call], _Found],
        folder: Path,
        *,
        limits: SenderLimits,
        retry: Retry,
        new_batch_id: Callable[[], str],
        on_error: OnError | None = None,
        on_rejected: OnRejected | None = None,
    ) -> None:
        self._attempt = attempt
        self._outbox = Outbox(
            folder,
            limits=limits,
            retry=retry,
            new_batch_id=new_batch_id,
            on_error=on_error,
            on_rejected=on_rejected,
        )
        self._changed = threading.Condition()
        self._is_new = False
        self._is_closed = False
        self._thread = threading.Thread(target=self._work, name=_NAME, daemon=True)
        self._thread.start()
        atexit.register(self.close)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def send(self, event: Mapping[str, object]) -> None:
        """Takes one event, as `send_many` does."""
        self.send_many((event,))

    def send_many(self, events: Iterable[Mapping[str, object]]) -> None:
        """Takes events, in the form that the service reads; they outlive this process.

        Raises:
            SpoolFullError: There is no room, also after `full_wait_seconds`.
            SpoolUnavailableError: The sender is closed, belongs to the process before a fork, or
                its folder cannot be written.
            InvalidEventError: JSON cannot hold one of the events.
            TooLargeError: One is larger than a batch may be.

        Where the disk is the cause, the fact `taken` says how many of the events are in all the
        same; otherwise none is.
        """
        outbox = self._outbox
        outbox.spool.check_process()
        put = _Put(outbox, outbox.lines(events), may_wait=not self._is_own_thread())
        with self._changed:
            try:
                while not put.try_once(is_closed=self._is_closed):
                    self._changed.wait(put.left_seconds())
            finally:
                if put.is_new:
                    self._wake()

    def flush(self, timeout: float | None = None) -> bool:
        """Sends what was taken before; whether all of it has left the spool within `timeout`.

        Without a `timeout` it waits as long as the service is away.
        """
        self._outbox.spool.check_process()
        if self._is_own_thread():
            timeout = 0.0
        with self._changed:
            number = self._outbox.flush()
            self._wake()
            return self._changed.wait_for(
                lambda: self._outbox.spool.is_done(number) or not self._thread.is_alive(), timeout
            ) and self._outbox.spool.is_done(number)

    def close(self, timeout: float | None = None) -> None:
        """Sends what is left within `timeout` (`close_seconds`) and ends; may be called twice.

        What is not sent by then stays in the spool. A request that is still under way then ends
        by itself, and the folder is free after it.
        """
        if self._outbox.spool.is_forked():
            return
        with self._changed:
            if self._is_closed:
                return
            self._is_closed = True
        seconds = self._outbox.limits.close_seconds if timeout is None else timeout
        end = self._outbox.monotonic() + seconds
        self.flush(seconds)
        self._outbox.stop()
        with self._changed:
            self._wake()
        if not self._is_own_thread():
            self._thread.join(max(0.0, end - self._outbox.monotonic()))
        atexit.unregister(self.close)

    def stats(self) -> SenderStats:
        """What became of the events so far."""
        return self._outbox.stats()

    def _is_own_thread(self) -> bool:
        """Whether a callback asks: what it would wait for cannot happen before it returns."""
        return threading.current_thread() is self._thread

    def _wake(self) -> None:
        """Has the thread look again; called with the condition held."""
        self._is_new = True
        self._changed.notify_all()

    def _work(self) -> None:
        """The thread."""
        steps = self._outbox.steps()
        try:
            step = next(steps)
            while True:
                result = self._done(step)
                with self._changed:
                    self._changed.notify_all()
                step = steps.send(result)
        except StopIteration:
            pass
        finally:
            self._outbox.spool.close()
            with self._changed:
                self._changed.notify_all()

    def _done(self, step: Step) -> Any:
        """The result of one step."""
        if isinstance(step, Call):
            return self._attempt(step)
        if not isinstance(step, Pause):
            return step()
        with self._changed:
            self._changed.wait_for(lambda: self._is_new, step.seconds)
            self._is_new = False
        return None


class AsyncSender:
    """Takes events at once and sends them in batches from a task; made by `AsyncClient.sender`.

    Everything is as with `Sender`, but that the callbacks run in the event loop, and that nothing
    is sent after the loop has ended: use it as an asynchronous context manager, or close it.

    Raises:
        SpoolUnavailableError: The folder is in use by another sender, or cannot be written.
    """

    def __init__(
        self,
        attempt: Callable[[Call], Awaitable[_Found]],
        folder: Path,
        *,
        limits: SenderLimits,
        retry: Retry,
        new_batch_id: Callable[[], str],
        on_error: OnError | None = None,
        on_rejected: OnRejected | None = None,
    ) -> None:
        # Without a loop there is no sender, and the folder must not be taken.
        loop = asyncio.get_running_loop()
        self._attempt = attempt
        self._outbox = Outbox(
            folder,
            limits=limits,
            retry=retry,
            new_batch_id=new_batch_id,
            on_error=on_error,
            on_rejected=on_rejected,
        )
        self._changed = asyncio.Condition()
        self._is_new = False
        self._is_closed = False
        self._task = loop.create_task(self._work(), name=_NAME)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        await self.close()

    async def send(self, event: Mapping[str, object]) -> None:
        """Takes one event, as `send_many` does."""
        await self.send_many((event,))

    async def send_many(self, events: Iterable[Mapping[str, object]]) -> None:
        """Takes events, in the form that the service reads; they outlive this process.

        Raises:
            SpoolFullError: There is no room, also after `full_wait_seconds`.
            SpoolUnavailableError: The sender is closed, belongs to the process before a fork, or
                its folder cannot be written.
            InvalidEventError: JSON cannot hold one of the events.
            TooLargeError: One is larger than a batch may be.

        Where the disk is the cause, the fact `taken` says how many of the events are in all the
        same; otherwise none is.
        """
        outbox = self._outbox
        outbox.spool.check_process()
        put = _Put(outbox, outbox.lines(events), may_wait=True)
        async with self._changed:
            try:
                while not put.try_once(is_closed=self._is_closed):
                    await self._wait(put.left_seconds())
            finally:
                if put.is_new:
                    self._wake()

    async def flush(self, timeout: float | None = None) -> bool:
        """Sends what was taken before; whether all of it has left the spool within `timeout`.

        Without a `timeout` it waits as long as the service is away.
        """
        self._outbox.spool.check_process()
        end = None if timeout is None else self._outbox.monotonic() + timeout
        async with self._changed:
            number = self._outbox.flush()
            self._wake()
            while not self._outbox.spool.is_done(number) and not self._task.done():
                left = None if end is None else end - self._outbox.monotonic()
                if left is not None and left <= 0:
                    break
                await self._wait(left)
        return self._outbox.spool.is_done(number)

    async def close(self, timeout: float | None = None) -> None:
        """Sends what is left within `timeout` (`close_seconds`) and ends; may be called twice.

        What is not sent by then stays in the spool.
        """
        if self._outbox.spool.is_forked() or self._is_closed:
            return
        self._is_closed = True
        seconds = self._outbox.limits.close_seconds if timeout is None else timeout
        end = self._outbox.monotonic() + seconds
        try:
            await self.flush(seconds)
            self._outbox.stop()
            async with self._changed:
                self._wake()
            await asyncio.wait([self._task], timeout=max(0.0, end - self._outbox.monotonic()))
        finally:
            # Also where this was cancelled: nothing else would end the task.
            self._task.cancel()
            await asyncio.wait([self._task])

    def stats(self) -> SenderStats:
        """What became of the events so far."""
        return self._outbox.stats()

    def _wake(self) -> None:
        """Has the task look again; called with the condition held."""
        self._is_new = True
        self._changed.notify_all()

    async def _wait(self, seconds: float | None) -> None:
        """Waits for a change; called with the condition held."""
        try:
            async with asyncio.timeout(seconds):
                await self._changed.wait()
        except TimeoutError:
            pass

    async def _work(self) -> None:
        """The task."""
        steps = self._outbox.steps()
        try:
            step = next(steps)
            while True:
                result = await self._done(step)
                async with self._changed:
                    self._changed.notify_all()
                step = steps.send(result)
        except StopIteration:
            pass
        finally:
            self._outbox.spool.close()
            async with self._changed:
                self._changed.notify_all()

    async def _done(self, step: Step) -> Any:
        """The result of one step."""
        if isinstance(step, Call):
            return await self._attempt(step)
        if not isinstance(step, Pause):
            return await asyncio.to_thread(step)
        async with self._changed:
            if not self._is_new:
                await self._wait(step.seconds)
            self._is_new = False
        return None


class _Put:
    """Events on their way into the spool, which may have to wait for room."""

    def __init__(self, outbox: Outbox, lines: Lines, *, may_wait: bool) -> None:
        self._outbox = outbox
        self._lines = lines
        self._taken = 0
        self._end = outbox.monotonic() + (outbox.limits.full_wait_seconds if may_wait else 0.0)
        self.is_new = False

    def left_seconds(self) -> float:
        """How long it may still wait."""
        return max(0.0, self._end - self._outbox.monotonic())

    def try_once(self, *, is_closed: bool) -> bool:
        """Whether all events are in the spool.

        Raises:
            SpoolFullError: There is no room, and no time left to wait for it.
            SpoolUnavailableError: The sender is closed, or the spool cannot be written.
        """
        if is_closed:
            raise SpoolUnavailableError("Expected an open sender, found one that is closed.")
        try:
            self.is_new |= self._outbox.spool.append(self._lines[self._taken :])
        except (SpoolFullError, SpoolUnavailableError) as error:
            taken = error.facts.get("taken", 0)
            assert isinstance(taken, int)
            self.is_new |= taken > 0
            self._taken += taken
            if isinstance(error, SpoolUnavailableError) or self.left_seconds() <= 0:
                error.facts["taken"] = self._taken
                raise
            return False
        return True
