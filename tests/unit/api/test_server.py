"""Starting, refusing to start, and stopping without losing a request."""

import json
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from threading import Thread
from typing import Any

import httpx
import pytest

from dpdau.api.protocol import HEAD_BYTES_MAX
from dpdau.api.server import STUCK_EXIT_CODE, serve
from dpdau.domain import Metric
from dpdau.errors import InvalidSettingError
from products import API_KEY, DAY, event, product

TESTS = Path(__file__).parents[2]
CANARY = "canary-user-19c4"
FLOOD_BYTES = 150 << 20
CHILD = """
import sys
from pathlib import Path
from products import product
from dpdau.activity.embedded import EmbeddedStore
from dpdau.api.server import serve
from dpdau.telemetry import configure_logs

with product(Path(sys.argv[1])) as app:
    apply_many = EmbeddedStore.apply_many

    def applied(*arguments, **options):
        print("in flight", flush=True)
        assert sys.stdin.readline() == "go\\n"
        return apply_many(*arguments, **options)

    EmbeddedStore.apply_many = applied
    configure_logs()
    serve(app, host="127.0.0.1", port=0, drain_seconds=int(sys.argv[2]))
print("ended", flush=True)
"""


class Child:
    """A service in a process of its own, whose ingest waits until it is told to go on."""

    def __init__(self, root: Path, drain_seconds: int) -> None:
        self.process = subprocess.Popen(
            [sys.executable, "-c", CHILD, str(root), str(drain_seconds)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env={"PYTHONPATH": str(TESTS), "PYTHONWARNINGS": "error", "PATH": ""},
        )
        self.logged: list[str] = []
        self.port = int(self.wait_for("serving")["port"])
        self.url = f"http://127.0.0.1:{self.port}"

    def wait_for(self, text: str) -> dict[str, Any]:
        """Reads the log up to the line that has a text."""
        assert self.process.stderr is not None
        for line in self.process.stderr:
            self.logged.append(line)
            if text in line:
                return json.loads(line)
        raise AssertionError(f"no {text!r} in the log:\n{''.join(self.logged)}")

    def send_in_background(self) -> tuple[Thread, list[Any]]:
        """Posts an event; returns once the service has it in its hands."""
        answers: list[Any] = []

        def post() -> None:
            try:
                answers.append(
                    httpx.post(
                        f"{self.url}/event",
                        json={"event": event(CANARY)},
                        headers={"X-API-Key": API_KEY},
                        timeout=30,
                    )
                )
            except httpx.HTTPError as error:
                answers.append(error)

        thread = Thread(target=post)
        thread.start()
        assert self.process.stdout is not None
        assert "in flight\n" == self.process.stdout.readline()
        return thread, answers


@contextmanager
def child(root: Path, *, drain_seconds: int) -> Iterator[Child]:
    """The service, ended in any case."""
    one = Child(root, drain_seconds)
    with one.process:
        try:
            yield one
        finally:
            one.process.kill()


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_request_in_flight_finishes(tmp_path: Path, number: signal.Signals) -> None:
    """After the signal nothing new is accepted, the open request is answered, exit code 0."""
    with child(tmp_path, drain_seconds=20) as one:
        thread, answers = one.send_in_background()
        one.process.send_signal(number)
        one.wait_for("Waiting for connections to close")
        with pytest.raises(ConnectionRefusedError):
            socket.create_connection(("127.0.0.1", one.port))
        out, logged = one.process.communicate("go\n", timeout=30)
        thread.join()

        assert 202 == answers[0].status_code
        assert (0, "ended\n") == (one.process.returncode, out)
        assert '"event": "stopped"' in logged
        assert CANARY not in "".join(one.logged) + logged

    with product(tmp_path) as app:
        assert 1 == app.release(Metric.DAU, DAY).release.estimate


def test_a_request_that_is_stuck_does_not_hold_the_stop(tmp_path: Path) -> None:
    """After the limit the process ends with its own code, and the data directory opens again."""
    with child(tmp_path, drain_seconds=1) as one:
        thread, answers = one.send_in_background()
        one.process.send_signal(signal.SIGTERM)
        assert STUCK_EXIT_CODE == one.process.wait(timeout=30)
        thread.join()

    assert isinstance(answers[0], httpx.HTTPError) or answers[0].status_code == 500
    with product(tmp_path):
        pass


@pytest.mark.parametrize("flag", ["no_auth", "unsafe_debug"])
@pytest.mark.parametrize("host", ["0.0.0.0", "::", "192.0.2.1", "example.org"])
def test_unsafe_flags_refuse_addresses_that_others_reach(flag: str, host: str, shared: Any) -> None:
    """Neither flag starts on an address that is not loopback."""
    with pytest.raises(InvalidSettingError, match="loopback"):
        serve(shared, host=host, port=0, **{flag: True})


def test_an_address_in_use_is_an_error_and_not_an_exit(tmp_path: Path) -> None:
    """A port that is taken raises; the app is closed."""
    with product(tmp_path) as app, socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]

        with pytest.raises(InvalidSettingError, match="can be bound"):
            serve(app, host="127.0.0.1", port=port)


def test_a_head_without_end_is_cut_off(tmp_path: Path) -> None:
    """Over a socket and without a key: 431 at the limit, and a flood ends the connection."""
    with child(tmp_path, drain_seconds=1) as one:
        with socket.create_connection(("127.0.0.1", one.port), timeout=30) as asking:
            start = b"GET /healthz HTTP/1.1\r\nHost: x\r\nX-Long: "
            asking.sendall(start + b"a" * (HEAD_BYTES_MAX - len(start) + 1))
            answer = b"".join(iter(lambda: asking.recv(65536), b""))
        with (
            socket.create_connection(("127.0.0.1", one.port), timeout=30) as asking,
            pytest.raises(ConnectionError),
        ):
            asking.sendall(start + b"a" * FLOOD_BYTES)
        alive = httpx.get(f"{one.url}/healthz")

    assert answer.startswith(b"HTTP/1.1 431 Request Header Fields Too Large\r\n")
    assert "request_header_fields_too_large" == json.loads(answer.partition(b"\r\n\r\n")[2])["code"]
    assert 200 == alive.status_code
