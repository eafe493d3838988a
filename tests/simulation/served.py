"""A real `dpdau serve` in a process of its own, and senders that speak HTTP to it."""

import datetime as dt
import http.client
import json
import os
import resource
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import quote

from dpdau.app import App
from dpdau.domain import Metric, Segment
from dpdau.settings import Settings, load
from products import API_KEY, NOW, product_settings
from simulation.auditor import Lane, Question
from simulation.workload import DIMENSION, Batch, Step

TESTS = Path(__file__).parents[1]
POLL_SECONDS = 0.02
POLLS_MAX = 3000
ANSWER_SECONDS_MAX = 60
NO_LIMIT = resource.RLIM_INFINITY


def until(condition: Any, what: str) -> Any:
    """Waits for something, a bounded time; gives what the condition gave."""
    for _ in range(POLLS_MAX):
        found = condition()
        if found:
            return found
        time.sleep(POLL_SECONDS)
    raise AssertionError(f"waited in vain for {what}")


class Answer:
    """The answer to one request."""

    def __init__(self, status: int, headers: Any, body: bytes) -> None:
        self.status = status
        self.headers = headers
        self.body = body

    @property
    def json(self) -> Any:
        """The body."""
        return json.loads(self.body)


class Caller:
    """One connection to a service, kept open as long as it works."""

    def __init__(self, port: int) -> None:
        self._connection = http.client.HTTPConnection("127.0.0.1", port, timeout=ANSWER_SECONDS_MAX)

    def ask(self, method: str, path: str, body: Any = None, **headers: str) -> Answer:
        """One request.

        Raises:
            OSError: The answer did not come.
        """
        sent = {"X-API-Key": API_KEY, **headers}
        content = None
        if body is not None:
            content = json.dumps(body).encode()
            sent["Content-Type"] = "application/json"
        try:
            self._connection.request(method, path, content, sent)
            with self._connection.getresponse() as got:
                return Answer(got.status, got.headers, got.read())
        except http.client.HTTPException as error:
            self._connection.close()
            raise ConnectionError(f"no whole answer: {error!r}") from error
        except OSError:
            self._connection.close()
            raise

    def take(self, step: Step) -> Answer:
        """Sends one step of a workload."""
        if isinstance(step, Batch):
            return self.ask("POST", "/events", step.bodies(), **{"Idempotency-Key": step.batch_id})
        return self.ask("DELETE", f"/users/{quote(step.user, safe='')}")

    def close(self) -> None:
        """Ends the connection."""
        self._connection.close()


class Service:
    """One data directory with its settings, and the service on it, which may die and come back.

    `lanes` are what all its senders know.

    Args:
        root: Where settings and clock lie.
        data: `DATA_DIR`; a folder under `root` unless given.
        **changes: Settings.
    """

    def __init__(self, root: Path, *, data: Path | None = None, **changes: Any) -> None:
        self.root = root
        self.data = data or root / "data"
        product_settings(root, DIMENSIONS=DIMENSION, DATA_DIR=str(self.data), **changes)
        self._clock = root / "clock"
        self.set_clock(NOW)
        self.port = 0
        self.process: subprocess.Popen[bytes] | None = None
        self._log = root / "service.log"
        self._spawned: list[subprocess.Popen[bytes]] = []
        self.lanes: list[Lane] = []

    @property
    def url(self) -> str:
        """Where it is."""
        return f"http://127.0.0.1:{self.port}"

    @property
    def log(self) -> str:
        """What it logged so far."""
        return self._log.read_text() if self._log.exists() else ""

    @property
    def ledger(self) -> Path:
        """The file of the ledger."""
        return self.data / "ledgers" / "ledger.sqlite"

    def set_clock(self, now: dt.datetime) -> None:
        """What time it is for the service from now on."""
        draft = self._clock.with_name("clock.new")
        draft.write_text(now.isoformat())
        draft.replace(self._clock)

    def spawn(self, *arguments: str, file_bytes_max: int = NO_LIMIT) -> subprocess.Popen[bytes]:
        """A process of the command line in this deployment; it is ended with it.

        With a limit, no file that it writes grows over that size, not even its log.
        """
        with self._log.open("ab") as log, _files_limited(file_bytes_max):
            process = subprocess.Popen(
                [
                    sys.executable,
                    Path(__file__).with_name("service_process.py"),
                    self._clock,
                    *arguments,
                ],
                cwd=self.root,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=log,
                env=_environment(),
            )
        self._spawned.append(process)
        return process

    def start(self, *arguments: str) -> None:
        """Starts the service; returns once it answers."""
        self.port = free_port()
        self.process = self.spawn("serve", "--port", str(self.port), *arguments)
        until(self._answers, "the service to answer")

    def kill(self) -> None:
        """Ends it as a power cut would."""
        assert self.process is not None
        self.process.kill()
        assert -signal.SIGKILL == self.process.wait(), self.log[-2000:]

    def stop(self, number: signal.Signals = signal.SIGTERM) -> int:
        """Tells it to end, and gives its exit code."""
        assert self.process is not None
        self.process.send_signal(number)
        return self.process.wait(timeout=ANSWER_SECONDS_MAX)

    def end(self) -> None:
        """Ends it in any case."""
        for process in self._spawned:
            process.kill()
            process.wait()

    def limit_writes(self, size: int) -> None:
        """Lets no file of the running service grow over a size: a write beyond it fails."""
        assert self.process is not None
        resource.prlimit(self.process.pid, resource.RLIMIT_FSIZE, (size, resource.RLIM_INFINITY))

    def ask(self, method: str, path: str, body: Any = None, **headers: str) -> Answer:
        """One request on a connection of its own."""
        with closing(Caller(self.port)) as caller:
            return caller.ask(method, path, body, **headers)

    def counts(self, questions: Sequence[Question]) -> dict[Question, int]:
        """Exact counts, as `dpdau exact` reads them beside the service."""
        return exact(load(self.root / "dpdau.toml"), questions)

    def releases(self) -> list[dict[str, Any]]:
        """Everything that is released."""
        found: list[dict[str, Any]] = []
        path = "/releases?limit=1000"
        while path:
            page = self.ask("GET", path).json
            found += page["releases"]
            path = page["next"] and f"/releases?limit=1000&after={quote(page['next'])}"
        return found

    def _answers(self) -> bool:
        assert self.process is not None
        code = self.process.poll()
        assert code is None, f"the service ended with {code}:\n{self.log[-4000:]}"
        try:
            return self.ask("GET", "/healthz").status == 200
        except OSError:
            return False


@contextmanager
def service(root: Path, **options: Any) -> Iterator[Service]:
    """A deployment whose service, if one was started, is ended in any case."""
    one = Service(root, **options)
    try:
        yield one
    finally:
        one.end()


def exact(settings: Settings, questions: Sequence[Question]) -> dict[Question, int]:
    """Exact counts of a data directory, beside whoever writes it."""
    first, last = (
        dt.date.fromordinal(chosen(one.last for one in questions)) for chosen in (min, max)
    )
    lengths = sorted({one.last - one.first + 1 for one in questions})
    windows = dict(zip(Metric, lengths, strict=False))
    assert len(windows) == len(lengths), "one metric for each length"
    opened = App.open(settings, clock=lambda: NOW, read_only=True, reported=False)
    with opened.closing() as app:
        tables = {
            label: app.exact(
                windows,
                first,
                last,
                segment=None if label is None else Segment(DIMENSION, label),
                reason="the test compares",
            )
            for label in {one.label for one in questions}
        }
    metric_of = {length: metric for metric, length in windows.items()}
    return {
        one: int(
            tables[one.label][metric_of[one.last - one.first + 1]][one.last - first.toordinal()]
        )
        for one in questions
    }


def free_port() -> int:
    """A port that nobody listens on."""
    with closing(socket.create_server(("127.0.0.1", 0))) as listener:
        port: int = listener.getsockname()[1]
        return port


def _limit_files(pid: int, size: int) -> None:
    """Lets no file grow over a size in a process; 0 is this one."""
    resource.prlimit(pid, resource.RLIMIT_FSIZE, (size, resource.RLIM_INFINITY))


@contextmanager
def _files_limited(size: int) -> Iterator[None]:
    """The same for this process and what it starts meanwhile."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


def _environment() -> dict[str, str]:
    """The environment of this process without settings, and where the tests' modules are."""
    kept = {name: text for name, text in os.environ.items() if name not in Settings.model_fields}
    path = os.pathsep.join([str(TESTS), kept.get("PYTHONPATH", "")])
    return {**kept, "PYTHONPATH": path}
