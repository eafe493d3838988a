"""The background sender against a real service, where both of them are killed.

Half of the stream are users who come once, the others are turned on and off many times: the final
state is right only if every event arrived, in order, and no batch was applied again after a later
one.
"""

import random
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest

from client_faults import EVENTS, SOON, Faulty, event_of
from dpdau.client import Client, SenderLimits
from dpdau.domain import Metric
from products import API_KEY, DAY, product

TESTS = Path(__file__).parents[1]
SEED = 20260315
KILLS = 4
WAIT = 60.0

SERVICE = """
import sys
from pathlib import Path
from products import product
from dpdau.api.server import serve
from dpdau.telemetry import configure_logs

with product(Path(sys.argv[1])) as app:
    configure_logs()
    serve(app, host="127.0.0.1", port=int(sys.argv[2]))
"""
SENDER = """
import sys
from pathlib import Path
import httpx
from client_faults import EVENTS, SOON, Faulty, event_of
from dpdau.client import Client, SenderLimits
from products import API_KEY

url, folder, seed = sys.argv[1], Path(sys.argv[2]), int(sys.argv[3])
start, stop = int(sys.argv[4]), int(sys.argv[5])
way = Faulty(httpx.HTTPTransport(), seed)
limits = SenderLimits(batch_events_max=20, batch_seconds=0.001, close_seconds=60)
with (
    Client(url, API_KEY, retry=SOON, transport=way) as client,
    client.sender(folder, limits=limits) as sender,
):
    for number in range(start, stop):
        sender.send(event_of(number))
        print(number, flush=True)
    if stop < EVENTS:
        sys.stdin.read()
"""


def expected_users() -> int:
    """How many users are on after the last event."""
    last = {event_of(number)["user_id"]: event_of(number)["op"] for number in range(EVENTS)}
    return list(last.values()).count("+")


def found_users(root: Path) -> int:
    """How many the product counts, after the service has ended."""
    with product(root) as app:
        return app.release(Metric.DAU, DAY).release.estimate


class Service:
    """A service in a process of its own, always at the same address."""

    def __init__(self, root: Path) -> None:
        with socket.create_server(("127.0.0.1", 0)) as free:
            self._port = free.getsockname()[1]
        self.url = f"http://127.0.0.1:{self._port}"
        self._root = root
        self.start()

    def start(self) -> None:
        """Starts it, and waits until it answers."""
        self.process = python(SERVICE, str(self._root), str(self._port), stderr=subprocess.PIPE)
        assert self.process.stderr is not None
        assert any('"serving"' in line for line in self.process.stderr)

    def stop(self, number: signal.Signals) -> None:
        """Ends it, by its own will or not."""
        self.process.send_signal(number)
        self.process.communicate(timeout=WAIT)


def python(code: str, *arguments: str, **options: Any) -> subprocess.Popen[str]:
    """A Python process with the tests' modules."""
    return subprocess.Popen(
        [sys.executable, "-c", code, *arguments],
        text=True,
        env={"PYTHONPATH": str(TESTS), "PYTHONWARNINGS": "error", "PATH": ""},
        **options,
    )


@pytest.fixture
def service(tmp_path: Path) -> Iterator[Service]:
    """A service, ended in any case."""
    one = Service(tmp_path / "product")
    try:
        yield one
    finally:
        if one.process.poll() is None:
            one.stop(signal.SIGKILL)


@pytest.mark.slow
def test_a_service_that_goes_away_loses_nothing(tmp_path: Path, service: Service) -> None:
    """It is killed, stopped and started again under a sender whose connections break."""
    limits = SenderLimits(batch_events_max=20, batch_seconds=0.001)
    way = Faulty(httpx.HTTPTransport(), SEED)
    with (
        Client(service.url, API_KEY, retry=SOON, transport=way) as client,
        client.sender(tmp_path / "spool", limits=limits) as sender,
    ):
        for number in range(EVENTS):
            sender.send(event_of(number))
            if number == EVENTS // 4:
                service.stop(signal.SIGKILL)
            elif number == EVENTS // 2:
                service.start()
                assert sender.flush(WAIT)
            elif number == 3 * EVENTS // 4:
                service.stop(signal.SIGTERM)
                assert not sender.flush(0.01)
        service.start()
        assert sender.flush(WAIT)
        stats = sender.stats()
    service.stop(signal.SIGTERM)

    assert EVENTS == stats.accepted + stats.duplicate
    assert (0, 0) == (stats.rejected, stats.set_aside)
    assert way.counts["torn"] > 0
    assert expected_users() == found_users(tmp_path / "product")


@pytest.mark.slow
def test_a_sender_that_is_killed_loses_nothing(tmp_path: Path, service: Service) -> None:
    """After each `kill -9` the next process sends what the last one took, before its own events."""
    seeded, spool, start, share = random.Random(SEED), tmp_path / "spool", 0, EVENTS // (KILLS + 1)
    for kill in range(KILLS):
        with sending_from(service, spool, SEED + kill, start, start + share) as child:
            assert child.stdout is not None
            lines = [child.stdout.readline() for _ in range(seeded.randint(1, share))]
            child.kill()
            lines += child.stdout.read().splitlines(keepends=True)
        start = 1 + max(int(line) for line in lines if line.endswith("\n"))
    with sending_from(service, spool, SEED + KILLS, start, EVENTS) as child:
        child.communicate(timeout=WAIT)
    service.stop(signal.SIGTERM)

    assert 0 == child.returncode
    assert [] == list(spool.glob("*.batch"))
    assert expected_users() == found_users(tmp_path / "product"), f"seed {SEED}"


@contextmanager
def sending_from(
    service: Service, spool: Path, seed: int, start: int, stop: int, code: str = SENDER
) -> Iterator[subprocess.Popen[str]]:
    """A process that sends a part of the stream, and then waits; ended in any case."""
    arguments = [service.url, str(spool), str(seed), str(start), str(stop)]
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
    with python(code, *arguments, **pipes) as child:
        try:
            yield child
        finally:
            child.kill()


@pytest.mark.slow
def test_the_end_of_the_interpreter_sends_what_is_left(tmp_path: Path, service: Service) -> None:
    """A program that neither flushes nor closes has sent everything when it is over."""
    code = SENDER.replace("with (", "client, sender = (").replace(
        """    Client(url, API_KEY, retry=SOON, transport=way) as client,
    client.sender(folder, limits=limits) as sender,
):""",
        """    made := Client(url, API_KEY, retry=SOON, transport=way),
    made.sender(folder, limits=limits),
)
if True:""",
    )
    spool = tmp_path / "spool"
    with sending_from(service, spool, SEED, 0, EVENTS, code) as child:
        child.communicate(timeout=WAIT)
        assert 0 == child.returncode
    service.stop(signal.SIGTERM)

    assert [] == list(spool.glob("*.batch"))
    assert expected_users() == found_users(tmp_path / "product")
