"""The typed clients: the verbs of the product over HTTP, with the product's own errors.

A refusal of the service is raised as the same leaf of `errors` that the service raised, so a caller
cannot tell whether the product is in its process or behind a URL. `Client` blocks, `AsyncClient` is
awaited; what they ask and how they read the answers is `client.verbs`.
"""

import asyncio
import functools
import logging
import secrets
from collections.abc import Callable, Coroutine
from pathlib import Path
from types import TracebackType
from typing import Any, Concatenate, Final, ParamSpec, Self, TypeVar

import httpx

from dpdau import __version__
from dpdau.client import verbs
from dpdau.client.calls import Call, Exchange, Refusal, meaning_of, no_answer, resumed
from dpdau.client.outbox import OnError, OnRejected, SenderLimits
from dpdau.client.retry import Retry
from dpdau.client.sender import AsyncSender, Sender
from dpdau.errors import ServiceUnreachableError

TIMEOUT_SECONDS: Final = 30.0
_BATCH_ID_BYTES: Final = 16
_P = ParamSpec("_P")
_T = TypeVar("_T")


class _Base:
    """What both clients know of their service."""

    def __init__(self, url: str, api_key: str | None, timeout: float, retry: Retry) -> None:
        _keep_ids_out_of_logs()
        headers = {"User-Agent": f"dpdau/{__version__}", "Accept": "application/json"}
        if api_key is not None:
            headers["X-API-Key"] = api_key
        self._retry = retry
        self._options: dict[str, Any] = {"base_url": url, "headers": headers, "timeout": timeout}

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self._where!r})"

    def _open(self, make: Callable[..., _T]) -> _T:
        """The HTTP library's client.

        Raises:
            ServiceUnreachableError: The URL or the key can be none.
        """
        try:
            where = httpx.URL(self._options["base_url"])
            self._where = f"{where.scheme}://{where.netloc.decode('ascii', 'replace')}"
            return make(**self._options)
        except (httpx.InvalidURL, UnicodeEncodeError, ValueError):
            raise ServiceUnreachableError(
                "Expected an http(s) URL and an API key in ASCII, found something else."
            ) from None

    def new_batch_id(self) -> str:
        """An id that no other batch has."""
        return secrets.token_hex(_BATCH_ID_BYTES)


def _blocking(
    verb: Callable[Concatenate[_Base, _P], Exchange[_T]],
) -> "Callable[Concatenate[Client, _P], _T]":
    """A verb as a method that blocks."""

    @functools.wraps(verb)
    def method(self: "Client", /, *args: _P.args, **options: _P.kwargs) -> _T:
        exchange = verb(self, *args, **options)
        try:
            call = next(exchange)
            while True:
                call = resumed(exchange, self._ask(call), self._where)
        except StopIteration as done:
            result: _T = done.value
            return result

    return method


def _awaited(
    verb: Callable[Concatenate[_Base, _P], Exchange[_T]],
) -> "Callable[Concatenate[AsyncClient, _P], Coroutine[Any, Any, _T]]":
    """A verb as a method that is awaited."""

    @functools.wraps(verb)
    async def method(self: "AsyncClient", /, *args: _P.args, **options: _P.kwargs) -> _T:
        exchange = verb(self, *args, **options)
        try:
            call = next(exchange)
            while True:
                call = resumed(exchange, await self._ask(call), self._where)
        except StopIteration as done:
            result: _T = done.value
            return result

    return method


class Client(_Base):
    """The verbs of a service. Close it, or use it as a context manager; threads may share it.

    Args:
        url: Where the service is, as `http://host:port`.
        api_key: A key with the scopes of what will be asked; None for a service without keys.
        timeout: Seconds for each of connecting, sending and waiting for the answer.
        retry: How often and how long a request is tried.
        transport: Another way to the service, for tests.
    """

    def __init__(
        self,
        url: str,
        api_key: str | None = None,
        *,
        timeout: float = TIMEOUT_SECONDS,
        retry: Retry | None = None,
        transport: httpx.BaseTransport | None = None,
    ) -> None:
        super().__init__(url, api_key, timeout, retry or Retry())
        self._http = self._open(functools.partial(httpx.Client, transport=transport))
        self._senders: list[Sender] = []

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    ingest = _blocking(verbs.ingest)
    price = _blocking(verbs.price)
    release = _blocking(verbs.release)
    growth = _blocking(verbs.growth)
    series = _blocking(verbs.series)
    price_month = _blocking(verbs.price_month)
    open_month = _blocking(verbs.open_month)
    month = _blocking(verbs.month)
    budget = _blocking(verbs.budget)
    erase = _blocking(verbs.erase)
    erasure = _blocking(verbs.erasure)

    def sender(
        self,
        folder: Path,
        *,
        limits: SenderLimits | None = None,
        on_error: OnError | None = None,
        on_rejected: OnRejected | None = None,
    ) -> Sender:
        """Sends events in the background, through a spool on disk; see `Sender`."""
        made = Sender(
            self.attempt,
            folder,
            limits=limits or SenderLimits(),
            retry=self._retry,
            new_batch_id=self.new_batch_id,
            on_error=on_error,
            on_rejected=on_rejected,
        )
        self._senders.append(made)
        return made

    def close(self) -> None:
        """Closes the senders and the connections; may be called twice."""
        while self._senders:
            self._senders.pop().close()
        self._http.close()

    def attempt(self, call: Call) -> dict[str, Any] | Refusal:
        """One request: the body of its answer, or why there is none."""
        try:
            answer = self._http.request(call.method, call.path, **call.options())
        except httpx.HTTPError as error:
            return no_answer(call, error, self._where)
        return meaning_of(call, answer, self._where)

    def _ask(self, call: Call) -> dict[str, Any]:
        """One request, again where that may help.

        Raises:
            DpdauError: What the service raised.
            ServiceUnreachableError: No answer, or one that is not of this service.
        """
        attempts = self._retry.begin()
        while True:
            found = self.attempt(call)
            if not isinstance(found, Refusal):
                return found
            wait = attempts.wait_after(found)
            if wait is None:
                raise found.error
            self._retry.sleep(wait)


class AsyncClient(_Base):
    """The verbs of a service, awaited. Close it, or use it as an asynchronous context manager.

    Args:
        url: Where the service is, as `http://host:port`.
        api_key: A key with the scopes of what will be asked; None for a service without keys.
        timeout: Seconds for each of connecting, sending and waiting for the answer.
        retry: How often and how long a request is tried.
        transport: Another way to the service, for tests.
    """

    def __init__(
        self,
        url: str,
        api_key: str | None = None,
        *,
        timeout: float = TIMEOUT_SECONDS,
        retry: Retry | None = None,
        transport: httpx.AsyncBaseTransport | None = None,
    ) -> None:
        super().__init__(url, api_key, timeout, retry or Retry())
        self._http = self._open(functools.partial(httpx.AsyncClient, transport=transport))
        self._senders: list[AsyncSender] = []

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        await self.close()

    ingest = _awaited(verbs.ingest)
    price = _awaited(verbs.price)
    release = _awaited(verbs.release)
    growth = _awaited(verbs.growth)
    series = _awaited(verbs.series)
    price_month = _awaited(verbs.price_month)
    open_month = _awaited(verbs.open_month)
    month = _awaited(verbs.month)
    budget = _awaited(verbs.budget)
    erase = _awaited(verbs.erase)
    erasure = _awaited(verbs.erasure)

    def sender(
        self,
        folder: Path,
        *,
        limits: SenderLimits | None = None,
        on_error: OnError | None = None,
        on_rejected: OnRejected | None = None,
    ) -> AsyncSender:
        """Sends events in the background, through a spool on disk; see `AsyncSender`."""
        made = AsyncSender(
            self.attempt,
            folder,
            limits=limits or SenderLimits(),
            retry=self._retry,
            new_batch_id=self.new_batch_id,
            on_error=on_error,
            on_rejected=on_rejected,
        )
        self._senders.append(made)
        return made

    async def close(self) -> None:
        """Closes the senders and the connections; may be called twice."""
        try:
            while self._senders:
                await self._senders.pop().close()
        finally:
            await self._http.aclose()

    async def attempt(self, call: Call) -> dict[str, Any] | Refusal:
        """One request: the body of its answer, or why there is none."""
        try:
            # Compressing a large body would hold the event loop.
            options = await asyncio.to_thread(call.options) if call.content else call.options()
            answer = await self._http.request(call.method, call.path, **options)
        except httpx.HTTPError as error:
            return no_answer(call, error, self._where)
        return meaning_of(call, answer, self._where)

    async def _ask(self, call: Call) -> dict[str, Any]:
        """One request, again where that may help.

        Raises:
            DpdauError: What the service raised.
            ServiceUnreachableError: No answer, or one that is not of this service.
        """
        attempts = self._retry.begin()
        while True:
            found = await self.attempt(call)
            if not isinstance(found, Refusal):
                return found
            wait = attempts.wait_after(found)
            if wait is None:
                raise found.error
            await self._retry.sleep_async(wait)


class _NoPaths(logging.Filter):
    """Drops the request lines of the HTTP library: their URL can hold a user id."""

    def filter(self, record: logging.LogRecord) -> bool:
        return record.levelno > logging.INFO


def _keep_ids_out_of_logs() -> None:
    """Filters the HTTP library's own logger, once."""
    logger = logging.getLogger("httpx")
    if not any(isinstance(one, _NoPaths) for one in logger.filters):
        logger.addFilter(_NoPaths())
