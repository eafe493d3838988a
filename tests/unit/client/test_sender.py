"""Sending in the background: in order, once, and with nothing lost in silence."""

import asyncio
import json
import logging
import math
import os
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest

from client_faults import AT_ONCE, Awaited, Faulty, answer_of
from dpdau.app import App
from dpdau.client import (
    AsyncClient,
    AsyncSender,
    BatchSummary,
    Client,
    RejectedEvent,
    Sender,
    SenderLimits,
    SenderStats,
)
from dpdau.client.spool import Spool
from dpdau.domain import Metric
from dpdau.errors import (
    DpdauError,
    InvalidEventError,
    InvalidSettingError,
    SpoolFullError,
    SpoolUnavailableError,
    TooLargeError,
)
from in_process import transport
from products import API_KEY, DAY, event, product

CANARY = "canary-user-c0de"
LONG = 600.0
WAIT = 30.0


@pytest.fixture
def app(tmp_path: Path) -> Iterator[App]:
    """A product."""
    with product(tmp_path / "product") as opened:
        yield opened


class Service:
    """A service that is scripted: it takes each batch, or answers what it is told to."""

    def __init__(self) -> None:
        self.batches: list[tuple[str, list[dict[str, Any]]]] = []
        self.refuse: Callable[[int], httpx.Response | Exception | None] = lambda _: None
        self.asked = 0
        self.may_answer = threading.Event()
        self.may_answer.set()
        self.was_asked = threading.Event()

    def __call__(self, request: httpx.Request) -> httpx.Response:
        """One request."""
        self.asked += 1
        self.was_asked.set()
        self.may_answer.wait()
        refusal = self.refuse(self.asked)
        if isinstance(refusal, Exception):
            raise refusal
        if refusal is not None:
            return refusal
        events = [json.loads(line) for line in request.content.split(b"\n")]
        self.batches.append((request.headers["Idempotency-Key"], events))
        counts = {"received": len(events), "accepted": len(events), "duplicate": 0, "late": 0}
        return httpx.Response(202, json={**counts, "rejected": [], "rejected_count": 0})

    def users(self) -> list[list[str]]:
        """The users of each batch."""
        return [[one["user_id"] for one in events] for _, events in self.batches]


@contextmanager
def sending(
    service: Service, folder: Path, *, on_error: Any = None, **limits: Any
) -> Iterator[Sender]:
    """A sender to a scripted service; batches wait long unless told otherwise."""
    way = httpx.MockTransport(service)
    chosen = SenderLimits(**{"batch_seconds": LONG, "close_seconds": WAIT, **limits})
    with (
        Client("http://service.test", retry=AT_ONCE, transport=way) as client,
        client.sender(folder, limits=chosen, on_error=on_error) as sender,
    ):
        yield sender


def test_events_go_in_batches_and_in_order(tmp_path: Path) -> None:
    """A batch is sent when it is full, and the rest at the flush."""
    service = Service()
    with sending(service, tmp_path / "spool", batch_events_max=2) as sender:
        for name in "abcde":
            sender.send(event(name))
        assert sender.flush(WAIT)

        assert [["a", "b"], ["c", "d"], ["e"]] == service.users()
        assert SenderStats(accepted=5) == sender.stats()
    assert 3 == len({key for key, _ in service.batches})


def test_a_batch_goes_when_it_is_old(tmp_path: Path) -> None:
    """Without a flush an event waits for `batch_seconds` at most."""
    service = Service()
    with sending(service, tmp_path / "spool", batch_seconds=0.001) as sender:
        sender.send(event("a"))
        assert service.was_asked.wait(WAIT)

    assert [["a"]] == service.users()


def test_a_removal_counts_each_of_its_days(tmp_path: Path) -> None:
    """A batch with many days is sent before it touches more than it may."""
    service = Service()
    days = [DAY.isoformat()] * 3
    with sending(service, tmp_path / "spool", batch_events_max=4) as sender:
        sender.send_many([event(one, op="-", metadata={"days": days}) for one in "ab"])

    assert [["a"], ["b"]] == service.users()


def test_close_sends_what_is_left(tmp_path: Path) -> None:
    """Leaving the client closes its senders, in order."""
    service = Service()
    limits = SenderLimits(batch_seconds=LONG)
    with Client("http://service.test", transport=httpx.MockTransport(service)) as client:
        sender = client.sender(tmp_path / "spool", limits=limits)
        sender.send(event("a"))

    assert [["a"]] == service.users()
    sender.close()
    with pytest.raises(SpoolUnavailableError, match="closed"):
        sender.send(event("b"))


def test_what_is_not_sent_stays_for_the_next_one(tmp_path: Path) -> None:
    """A close in vain leaves the batch, and the next sender sends it under the same id."""
    service = Service()
    keys: list[str] = []

    def torn(request: httpx.Request) -> httpx.Response:
        keys.append(request.headers["Idempotency-Key"])
        raise httpx.ReadError("torn")

    folder = tmp_path / "spool"
    limits = SenderLimits(batch_seconds=LONG)
    with Client("http://s", retry=AT_ONCE, transport=httpx.MockTransport(torn)) as client:
        sender = client.sender(folder, limits=limits)
        sender.send_many([event("a"), event("b")])
        assert not sender.flush(0.05)
        sender.close(timeout=0.0)
        sender._thread.join(WAIT)
    with sending(service, folder) as sender:
        sender.send(event("c"))

    assert [["a", "b"], ["c"]] == service.users()
    assert {keys[0]} == set(keys) == {service.batches[0][0]}


@pytest.mark.parametrize(
    "refusal",
    [
        httpx.Response(429, headers={"Retry-After": "0"}, json={"code": "rate_limited"}),
        httpx.Response(503),
        httpx.Response(500),
        httpx.Response(401, json={"code": "not_authenticated", "detail": "No."}),
        httpx.Response(403),
        httpx.Response(404),
        httpx.Response(302),
        httpx.Response(200, text="welcome"),
        httpx.Response(200, json={"status": "ok"}),
        httpx.Response(
            202,
            json={
                "received": 9,
                "accepted": 9,
                "duplicate": 0,
                "late": 0,
                "rejected": [],
                "rejected_count": 0,
            },
        ),
        httpx.ConnectError("refused"),
        httpx.ReadTimeout("slow"),
    ],
)
def test_a_service_that_is_away_is_waited_for(tmp_path: Path, refusal: Any) -> None:
    """Whatever is not the fault of the batch is tried again, in order, and told once in a row."""
    service, told = Service(), []
    service.refuse = lambda turn: refusal if turn <= 4 else None

    def on_error(summary: BatchSummary, error: DpdauError) -> None:
        told.append((summary.events, summary.set_aside, error.code))

    with sending(service, tmp_path / "spool", on_error=on_error, batch_events_max=1) as sender:
        sender.send_many([event("a"), event("b")])
        assert sender.flush(WAIT)

    assert [["a"], ["b"]] == service.users()
    assert 6 == service.asked
    assert [(1, None)] == [one[:2] for one in told]


@pytest.mark.parametrize("status", [400, 413, 415, 422])
def test_what_can_never_be_sent_is_set_aside(tmp_path: Path, status: int) -> None:
    """The batch goes to a file that can be mended, is told and counted; the next one is sent."""
    service, told = Service(), []
    service.refuse = lambda turn: httpx.Response(status) if turn == 1 else None

    def on_error(summary: BatchSummary, error: DpdauError) -> None:
        told.append((summary, error))

    with sending(service, tmp_path / "spool", on_error=on_error, batch_events_max=2) as sender:
        sender.send_many([event("a"), event("b"), event("c")])
        assert sender.flush(WAIT)
        assert SenderStats(accepted=1, set_aside=2) == sender.stats()

    ((summary, error),) = told
    assert summary.set_aside is not None
    found = [json.loads(line) for line in summary.set_aside.read_text().splitlines()]
    assert [event("a"), event("b")] == found
    assert [["c"]] == service.users()
    assert "service_unreachable" == error.code


def test_rejected_events_are_told_with_what_was_sent(app: App, tmp_path: Path) -> None:
    """What the service rejects of a batch that it takes is given back to the application."""
    told: list[tuple[BatchSummary, list[RejectedEvent]]] = []
    with (
        transport(app) as way,
        Client("http://127.0.0.1", API_KEY, transport=way) as client,
        client.sender(
            tmp_path / "spool", on_rejected=lambda *one: told.append((one[0], list(one[1])))
        ) as sender,
    ):
        sender.send_many([event("a"), {"user_id": CANARY, "op": "?"}, event("b")])
        assert sender.flush(WAIT)
        assert SenderStats(accepted=2, rejected=1) == sender.stats()

    ((summary, (rejected,)),) = told
    assert 3 == summary.events
    assert (1, "unknown_op") == (rejected.rejection.index, rejected.rejection.code.value)
    assert CANARY == json.loads(rejected.event)["user_id"]
    assert CANARY not in repr(told)


def test_a_callback_that_fails_does_not_end_the_sending(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Its error is logged by its kind alone, as its words may hold an id."""
    caplog.set_level(logging.DEBUG)
    service = Service()
    service.refuse = lambda turn: httpx.Response(422) if turn == 1 else None

    def on_error(summary: BatchSummary, error: DpdauError) -> None:
        raise ValueError(CANARY)

    with sending(service, tmp_path / "spool", on_error=on_error, batch_events_max=1) as sender:
        sender.send_many([event(CANARY), event("b")])

    assert [["b"]] == service.users()
    assert CANARY not in caplog.text


def test_a_full_spool_raises(tmp_path: Path) -> None:
    """Nothing is dropped in silence: the caller is told that the event was not taken."""
    service = Service()
    service.may_answer.clear()
    options = {"spool_bytes_max": 400, "batch_bytes_max": 200, "batch_events_max": 1}
    with sending(service, tmp_path / "spool", **options) as sender:
        taken: list[int] = []

        def fill() -> None:
            for number in range(10):
                sender.send(event(f"{CANARY}-{number}"))
                taken.append(number)

        with pytest.raises(SpoolFullError) as caught:
            fill()
        service.may_answer.set()
        assert sender.flush(WAIT)
        sender.send(event("after"))

    assert 0 < len(taken) < 10
    assert len(taken) + 1 == len(service.batches)
    assert CANARY not in f"{caught.value}{caught.value.facts}"


def test_a_full_spool_waits_where_it_is_told_to(tmp_path: Path) -> None:
    """With `full_wait_seconds` the call returns when there is room again."""
    service = Service()
    service.may_answer.clear()
    options = {
        "spool_bytes_max": 400,
        "batch_bytes_max": 200,
        "batch_events_max": 1,
        "full_wait_seconds": WAIT,
    }
    with sending(service, tmp_path / "spool", **options) as sender:
        caller = threading.Thread(
            target=lambda: [sender.send(event(f"user-{number}")) for number in range(20)]
        )
        caller.start()
        assert service.was_asked.wait(WAIT)
        service.may_answer.set()
        caller.join(WAIT)
        assert sender.flush(WAIT)

    assert [[f"user-{number}"] for number in range(20)] == service.users()


@pytest.mark.parametrize("wrong", [{"user_id": object()}, {"user_id": "\ud800"}, "text", 7])
def test_an_event_that_is_no_json(tmp_path: Path, wrong: Any) -> None:
    """It is refused at the call, and none of the call is taken."""
    service = Service()
    with sending(service, tmp_path / "spool") as sender:
        with pytest.raises(InvalidEventError):
            sender.send_many([event("a"), wrong])
        with pytest.raises(TooLargeError):
            sender.send({"user_id": "x" * (1 << 20)})

    assert [] == service.users()


@pytest.mark.parametrize(
    "wrong",
    [
        {"batch_events_max": 0},
        {"batch_events_max": 1001},
        {"batch_bytes_max": 2 << 20, "spool_bytes_max": 1 << 20},
        {"batch_seconds": 0},
        {"close_seconds": -1},
        {"batch_seconds": math.inf},
        {"full_wait_seconds": math.inf},
        {"close_seconds": math.nan},
    ],
)
def test_limits_that_mean_nothing(wrong: dict[str, Any]) -> None:
    """Limits out of their range are refused."""
    with pytest.raises(InvalidSettingError):
        SenderLimits(**wrong)


def test_two_senders_on_one_folder(tmp_path: Path) -> None:
    """The second is refused."""
    service = Service()
    with (
        sending(service, tmp_path / "spool"),
        pytest.raises(SpoolUnavailableError, match="in use"),
        sending(service, tmp_path / "spool"),
    ):
        pass


@pytest.mark.filterwarnings("ignore:This process:DeprecationWarning")
def test_a_forked_process_cannot_use_it(tmp_path: Path) -> None:
    """Its sends are refused and its close does nothing; the owner goes on."""
    service = Service()
    with sending(service, tmp_path / "spool") as sender:
        sender.send(event("a"))
        reader, writer = os.pipe()
        # The child leaves by _exit at once: of the threads of this process it has none.
        child = os.fork()
        if child == 0:
            try:
                sender.close()
                sender.send(event("b"))
            except SpoolUnavailableError as error:
                os.write(writer, error.message.encode())
            finally:
                os._exit(0)
        os.close(writer)
        os.waitpid(child, 0)
        with open(reader) as said:
            assert "forked" in said.read()

    assert [["a"]] == service.users()


def test_a_disk_that_fails_is_waited_out(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What cannot be read or deleted now is tried again, and told."""
    service, told = Service(), []
    failures = [OSError(5, f"no {CANARY}"), OSError(5, "no")]
    unlink = Path.unlink

    def fails_first(path: Path, missing_ok: bool = False) -> None:
        if failures:
            raise failures.pop()
        unlink(path, missing_ok)

    def on_error(summary: BatchSummary, error: DpdauError) -> None:
        told.append(error.code)

    with sending(service, tmp_path / "spool", on_error=on_error) as sender:
        monkeypatch.setattr(Path, "unlink", fails_first)
        sender.send(event("a"))
        assert sender.flush(WAIT)
        monkeypatch.undo()

    assert ["spool_unavailable"] == told
    assert [["a"]] == service.users()
    assert [] == list((tmp_path / "spool").glob("*.batch"))


@pytest.mark.parametrize("seed", range(3))
def test_every_event_is_counted_once_over_a_way_that_fails(
    app: App, tmp_path: Path, seed: int
) -> None:
    """Lost and torn requests, 429 and 503: all arrive, in order, nothing twice."""
    with transport(app) as way:
        faulty = Faulty(way, seed)
        with (
            Client("http://127.0.0.1", API_KEY, retry=AT_ONCE, transport=faulty) as client,
            client.sender(tmp_path / "spool", limits=SenderLimits(batch_events_max=7)) as sender,
        ):
            for number in range(200):
                sender.send(event(f"user-{number % 50}", op="-" if number % 2 else "+"))
            assert sender.flush(WAIT)
            stats = sender.stats()

    assert 200 == stats.accepted + stats.duplicate
    assert stats.duplicate > 0
    # The last event of a user decides: those with an even number end with a +.
    assert 25 == app.release(Metric.DAU, DAY).release.estimate


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


def test_what_waits_for_a_service_is_synced(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """After each failed attempt what is in the spool is made to outlast a power failure."""
    service, synced = Service(), []
    service.refuse = lambda turn: httpx.Response(503) if turn <= 3 else None
    sync = Spool.sync

    def noted(spool: Spool) -> None:
        synced.append(service.asked)
        sync(spool)

    monkeypatch.setattr(Spool, "sync", noted)
    with sending(service, tmp_path / "spool") as sender:
        sender.send(event("a"))
        assert sender.flush(WAIT)

    assert [1, 2, 3] == synced


@pytest.mark.parametrize("is_async", [False, True])
def test_a_sender_without_work_sleeps(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, is_async: bool
) -> None:
    """It looks for work when there is something new, and not again and again."""
    service, looks, head = Service(), [], Spool.head

    def noted(spool: Spool, *, seal_open: bool) -> Any:
        looks.append(seal_open)
        return head(spool, seal_open=seal_open)

    async def send() -> None:
        limits = SenderLimits(batch_seconds=LONG)
        way = httpx.MockTransport(service)
        async with (
            AsyncClient("http://s", transport=way) as client,
            client.sender(tmp_path / "spool", limits=limits) as sender,
        ):
            for number in range(100):
                await sender.send(event(f"user-{number}"))
            assert await sender.flush(WAIT)

    monkeypatch.setattr(Spool, "head", noted)
    if is_async:
        asyncio.run(send())
    else:
        with sending(service, tmp_path / "spool") as sender:
            for number in range(100):
                sender.send(event(f"user-{number}"))
            assert sender.flush(WAIT)

    assert 100 == len(service.users()[0])
    assert len(looks) <= 6


def test_a_callback_does_not_wait_for_itself(tmp_path: Path) -> None:
    """What it flushes, sends or closes is done when it has returned."""
    service, found, returned = Service(), [], threading.Event()
    service.refuse = lambda turn: httpx.Response(422) if turn == 1 else None
    sender: Sender

    def on_error(summary: BatchSummary, error: DpdauError) -> None:
        sender.send(event("b"))
        found.append(sender.flush())
        with pytest.raises(SpoolFullError):
            sender.send_many([event("c")] * 100)
        found.append(sender.flush(WAIT))
        returned.set()

    limits = {"batch_events_max": 1, "spool_bytes_max": 800, "batch_bytes_max": 400}
    with sending(
        service, tmp_path / "spool", on_error=on_error, full_wait_seconds=LONG, **limits
    ) as sender:
        sender.send(event("a"))
        assert returned.wait(WAIT)

    assert [False, False] == found
    assert [["b"]] == service.users()


@pytest.mark.parametrize("index", [-1, 1, None])
def test_a_rejection_of_no_event_is_no_report(tmp_path: Path, index: int | None) -> None:
    """An answer that names an event that was not sent does not end the sending."""
    service = Service()
    one = {"index": index, "code": "bad_json", "field": None, "message": "No."}
    counts = {"received": 1, "accepted": 0, "duplicate": 0, "late": 0}
    body = {**counts, "rejected": [one], "rejected_count": 1}
    service.refuse = lambda turn: httpx.Response(202, json=body) if turn == 1 else None
    way = httpx.MockTransport(service)
    with (
        Client("http://s", retry=AT_ONCE, transport=way) as client,
        client.sender(tmp_path / "spool", on_rejected=lambda *_: None) as sender,
    ):
        sender.send(event("a"))
        assert sender.flush(WAIT)

    assert [["a"]] == service.users()


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


def test_both_senders_have_the_same_surface() -> None:
    """Names and documentation are the same, blocking and awaited."""

    def surface(kind: type) -> dict[str, str | None]:
        return {name: one.__doc__ for name, one in vars(kind).items() if not name.startswith("_")}

    assert set(surface(Sender)) == set(surface(AsyncSender))
    for name in ("send", "send_many", "flush", "stats"):
        assert surface(Sender)[name] == surface(AsyncSender)[name]


def vars_of(limits: SenderLimits) -> dict[str, Any]:
    """Limits as options."""
    return {name: getattr(limits, name) for name in limits.__slots__}


def test_no_id_is_shown(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """Neither logs nor reprs nor errors hold what is sent."""
    caplog.set_level(logging.DEBUG)
    service, told = Service(), []
    service.refuse = lambda turn: answer_of(InvalidEventError("No.")) if turn == 2 else None

    def on_error(summary: BatchSummary, error: DpdauError) -> None:
        told.append((summary, error, error.facts))

    with sending(service, tmp_path / "spool", on_error=on_error, batch_events_max=1) as sender:
        sender.send_many([event(CANARY), event(CANARY)])
        assert sender.flush(WAIT)
        assert CANARY not in f"{sender!r}{sender.stats()!r}{sender._outbox.spool!r}"

    assert 1 == len(told)
    assert CANARY not in f"{told!r}{caplog.text}"
