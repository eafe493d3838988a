"""A sender and its spool: full, shared, forked, failing, and left for the next one."""

import os
import threading
from pathlib import Path
from typing import Any

import httpx
import pytest

from client_faults import AT_ONCE
from dpdau.client import (
    BatchSummary,
    Client,
    SenderLimits,
)
from dpdau.client.spool import Spool
from dpdau.errors import (
    DpdauError,
    InvalidEventError,
    SpoolFullError,
    SpoolUnavailableError,
    TooLargeError,
)
from products import event
from sending import LONG, WAIT, Service, sending

CANARY = "canary-user-c0de"


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
