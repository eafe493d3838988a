"""The asyncio sender does what the blocking one does."""

import asyncio
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from client_faults import AT_ONCE, Awaited, Faulty
from dpdau.app import App
from dpdau.client import (
    AsyncClient,
    AsyncSender,
    Sender,
    SenderLimits,
    SenderStats,
)
from dpdau.domain import Metric
from dpdau.errors import (
    SpoolFullError,
    SpoolUnavailableError,
)
from in_process import transport
from products import API_KEY, DAY, event, product
from sending import LONG, WAIT, Service, sending

CANARY = "canary-user-c0de"


@pytest.fixture
def app(tmp_path: Path) -> Iterator[App]:
    """A product."""
    with product(tmp_path / "product") as opened:
        yield opened


def test_the_awaited_sender_does_the_same(app: App, tmp_path: Path) -> None:
    """In a task of the event loop: faults waited out, rejections told, room waited for."""
    told: list[int] = []
    limits = SenderLimits(batch_events_max=10, spool_bytes_max=4_000, batch_bytes_max=2_000)

    async def main(way: httpx.BaseTransport) -> SenderStats:
        awaited = Awaited(Faulty(way, 1))
        async with AsyncClient(
            "http://127.0.0.1", API_KEY, retry=AT_ONCE, transport=awaited
        ) as client:
            sender = client.sender(
                tmp_path / "spool",
                limits=SenderLimits(**{**vars_of(limits), "full_wait_seconds": WAIT}),
                on_rejected=lambda _, rejected: told.append(len(rejected)),
            )
            for number in range(200):
                await sender.send(event(f"user-{number % 50}"))
            await sender.send_many([event(""), event("last")])
            assert await sender.flush(WAIT)
            await sender.close()
            with pytest.raises(SpoolUnavailableError, match="closed"):
                await sender.send(event("x"))
            return sender.stats()

    with transport(app) as way:
        stats = asyncio.run(main(way))

    assert 201 == stats.accepted + stats.duplicate
    assert (1, [1]) == (stats.rejected, told)
    assert 51 == app.release(Metric.DAU, DAY).release.estimate
    assert [] == list((tmp_path / "spool").glob("*.batch"))


def test_the_awaited_sender_leaves_what_it_cannot_send(tmp_path: Path) -> None:
    """A full spool raises, a flush in vain says so, and the next sender has the rest."""
    service = Service()
    away = httpx.MockTransport(lambda _: httpx.Response(503, headers={"Retry-After": "60"}))
    limits = SenderLimits(
        batch_events_max=1, spool_bytes_max=300, batch_bytes_max=200, batch_seconds=LONG
    )

    taken: list[int] = []

    async def fill(sender: AsyncSender) -> None:
        for number in range(10):
            await sender.send(event(f"user-{number}"))
            taken.append(number)

    async def main() -> None:
        async with (
            AsyncClient("http://s", retry=AT_ONCE, transport=away) as client,
            client.sender(tmp_path / "spool", limits=limits) as sender,
        ):
            with pytest.raises(SpoolFullError):
                await fill(sender)
            assert not await sender.flush(0.01)
            await sender.close(timeout=0.01)

    asyncio.run(main())
    with sending(service, tmp_path / "spool", batch_events_max=1):
        pass

    assert [[f"user-{number}"] for number in taken] == service.users()
    assert taken


def test_an_awaited_sender_needs_a_loop(tmp_path: Path) -> None:
    """Without one it does not take the folder."""
    folder = tmp_path / "spool"
    client = AsyncClient("http://s")
    with pytest.raises(RuntimeError):
        client.sender(folder)

    async def main() -> None:
        await client.sender(folder).close()
        await client.close()

    asyncio.run(main())


def test_a_close_that_is_cancelled_ends_the_sender(tmp_path: Path) -> None:
    """Nothing goes on in the background, and the folder is free; the event waits in it."""
    folder, limits = tmp_path / "spool", SenderLimits(batch_seconds=0.001)

    async def main() -> None:
        asked = asyncio.Event()

        async def never(request: httpx.Request) -> httpx.Response:
            asked.set()
            await asyncio.Event().wait()
            raise AssertionError

        client = AsyncClient("http://s", transport=httpx.MockTransport(never))
        sender = client.sender(folder, limits=limits)
        await sender.send(event("a"))
        await asked.wait()
        closing = asyncio.create_task(client.close())
        await asyncio.sleep(0)
        closing.cancel()
        await asyncio.wait([closing])

        assert sender._task.done()
        assert client._http.is_closed

    asyncio.run(main())
    service = Service()
    with sending(service, folder):
        pass

    assert [["a"]] == service.users()


def test_an_awaited_flush_ends_with_the_task(tmp_path: Path) -> None:
    """Where a bug ended it, nobody waits for ever."""

    def broken(request: httpx.Request) -> httpx.Response:
        raise RuntimeError("a bug")

    async def main() -> None:
        client = AsyncClient("http://s", transport=httpx.MockTransport(broken))
        sender = client.sender(tmp_path / "spool")
        await sender.send(event("a"))
        assert not await asyncio.wait_for(sender.flush(), WAIT)
        with pytest.raises(SpoolUnavailableError):
            await sender.send(event("b"))
        await client.close()
        assert isinstance(sender._task.exception(), RuntimeError)

    asyncio.run(main())


def vars_of(limits: SenderLimits) -> dict[str, Any]:
    """Limits as options."""
    return {name: getattr(limits, name) for name in limits.__slots__}


def test_both_senders_have_the_same_surface() -> None:
    """Names and documentation are the same, blocking and awaited."""

    def surface(kind: type) -> dict[str, str | None]:
        return {name: one.__doc__ for name, one in vars(kind).items() if not name.startswith("_")}

    assert set(surface(Sender)) == set(surface(AsyncSender))
    for name in ("send", "send_many", "flush", "stats"):
        assert surface(Sender)[name] == surface(AsyncSender)[name]
