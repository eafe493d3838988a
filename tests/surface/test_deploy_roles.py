"""The roles of compose.yaml, as real processes on one ledger in Postgres and one topic of Kafka."""

import datetime as dt
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest
import yaml

from components import kafka_protocol_broker, make_topics, postgres_server
from dpdau.settings import Settings, load
from products import product_settings
from simulation.auditor import Question
from simulation.served import Answer, Caller, exact, free_port, until

FILE = Path(__file__).parents[2] / "compose.yaml"
TOPICS = {"dpdau-events": 8, "dpdau-events-dead": 1}
DAY = dt.date(2020, 1, 5)
USERS = 40


class Role:
    """One service of compose.yaml: its command and environment, with addresses of this machine."""

    def __init__(self, root: Path, name: str, addresses: dict[str, str]) -> None:
        one = yaml.safe_load(FILE.read_text("utf-8"))["services"][name]
        self.data = root / name
        self.url = addresses["SERVICE_DATABASE_URL"]
        self.port = free_port()
        local = {"0.0.0.0": "127.0.0.1", "8000": str(self.port)}
        command = one.get("command", ["serve", "--port", "8000"])
        settings = {**one["environment"], **addresses, "DATA_DIR": str(self.data)}
        kept = {key: text for key, text in os.environ.items() if key not in Settings.model_fields}
        self._log = root / f"{name}.log"
        with self._log.open("wb") as log:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "dpdau", *(local.get(part, part) for part in command)],
                cwd=root,
                env={**kept, **settings},
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
            )

    @property
    def log(self) -> str:
        """What it said so far."""
        return self._log.read_text("utf-8")

    def ask(self, method: str, path: str, body: Any = None) -> Answer:
        """One request."""
        caller = Caller(self.port)
        try:
            return caller.ask(method, path, body)
        finally:
            caller.close()

    def is_ready(self) -> bool:
        """Whether it can take events and write."""
        assert self.process.poll() is None, self.log
        try:
            return self.ask("GET", "/readyz").status == 200
        except OSError:
            return False

    def stop(self) -> int:
        """Its exit code after SIGTERM."""
        self.process.send_signal(signal.SIGTERM)
        return self.process.wait(60)

    def end(self) -> None:
        """Ends it in any case."""
        self.process.kill()
        self.process.wait()


@pytest.fixture
def roles(tmp_path: Path) -> Iterator[dict[str, Role]]:
    """A writer and a front, ready."""
    with ExitStack() as held:
        broker = held.enter_context(kafka_protocol_broker())
        make_topics(broker, TOPICS)
        addresses = {
            "SERVICE_DATABASE_URL": held.enter_context(postgres_server()),
            "KAFKA_BOOTSTRAP_SERVERS": broker,
            # The first member of a group waits for half of it.
            "KAFKA_OPTIONS": "session.timeout.ms=2000,heartbeat.interval.ms=200",
        }
        product_settings(tmp_path)
        found = {}
        for name in ("writer", "front"):
            found[name] = Role(tmp_path, name, addresses)
            held.callback(found[name].end)
        for name, role in found.items():
            until(role.is_ready, name)
        yield found


def counted(role: Role, root: Path) -> int:
    """The exact count of the day in the store of a role."""
    asked = Question(label=None, first=DAY.toordinal(), last=DAY.toordinal())
    settings = load(root / "dpdau.toml", DATA_DIR=role.data, SERVICE_DATABASE_URL=role.url)
    return exact(settings, [asked])[asked]


@pytest.mark.slow
def test_each_role_does_what_the_guide_says(roles: dict[str, Role], tmp_path: Path) -> None:
    """A front takes events and answers with what is released; the writer alone makes numbers."""
    writer, front = roles["writer"], roles["front"]
    events = [{"user_id": f"u{one}", "op": "+", "day": DAY.isoformat()} for one in range(USERS)]
    number = f"/dau/{DAY}"

    assert 202 == front.ask("POST", "/events", events).status, front.log
    until(lambda: counted(writer, tmp_path) == USERS, "the events in the writer's store")
    refused = [
        front.ask("GET", number),
        front.ask("POST", "/plans", {"month": f"{DAY:%Y-%m}"}),
        front.ask("DELETE", "/users/u0"),
    ]
    before = writer.ask("GET", f"/budget/dau?day={DAY}").json["epsilon_spent"]
    made, replayed = writer.ask("GET", number), front.ask("GET", number)
    after = front.ask("GET", f"/budget/dau?day={DAY}").json["epsilon_spent"]

    assert [(503, "store_unavailable")] * 3 == [
        (answer.status, answer.json["code"]) for answer in refused
    ], front.log
    assert 0 == before
    assert (200, False) == (made.status, made.json["replayed"])
    assert (200, True) == (replayed.status, replayed.json["replayed"])
    assert made.json["release_id"] == replayed.json["release_id"]
    assert made.json["epsilon_used"] == after
    assert 202 == writer.ask("DELETE", "/users/u0").status, writer.log
    assert 0 == counted(front, tmp_path)
    assert [0, 0] == [front.stop(), writer.stop()]
