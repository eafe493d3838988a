"""The scenario, run by Locust: batched ingest, and reads of what is published, beside each other.

Each user makes `REQUESTS_A_SECOND` at most, nine of ten of them writes. What is measured begins
when all users have started.
"""

import datetime as dt
import itertools
import json
import os
import secrets
from email.utils import parsedate_to_datetime
from pathlib import Path
from typing import Any

from locust import FastHttpUser, constant_throughput, events, task
from locust.env import Environment

from load.events import Stream
from load.options import Options
from load.service import DEMO_DAY

OPTIONS = Options.of()
REQUESTS_A_SECOND = 25
WRITE = "write: POST /events"
READ = "read: "
START = "start: GET /version"
KEY = {"X-API-Key": OPTIONS.api_key or ""}
DEMO_MONTH = {"from": "1997-03-01", "to": DEMO_DAY}
IS_OWN = bool(os.environ.get("LOAD_IS_OWN"))
RUN = secrets.token_hex(8)
SENDERS = itertools.count()


class Measured:
    """Every request since all users run, and the events that were acknowledged."""

    def __init__(self) -> None:
        self.clear()

    def clear(self) -> None:
        """Begins anew."""
        self.times_ms: dict[str, list[float]] = {"write": [], "read": []}
        self.errors = {"write": 0, "read": 0}
        self.events = 0
        self.first_seconds: float | None = None
        self.last_seconds = 0.0

    def note(self, name: str, start: float, time_ms: float, *, failed: bool) -> None:
        """One request that ended."""
        kind = "write" if name == WRITE else "read"
        self.times_ms[kind].append(time_ms)
        self.errors[kind] += failed
        self.first_seconds = start if self.first_seconds is None else self.first_seconds
        self.last_seconds = max(self.last_seconds, start + time_ms / 1000)

    def to_json(self) -> dict[str, Any]:
        """All of it."""
        return {
            "times_ms": self.times_ms,
            "errors": self.errors,
            "seconds": self.last_seconds - (self.first_seconds or 0.0),
            "events": self.events,
        }


MEASURED = Measured()


@events.spawning_complete.add_listener
def begin(user_count: int, **_: Any) -> None:
    """All users run: what came before was warming up."""
    MEASURED.clear()


@events.request.add_listener
def note(name: str, response_time: float, exception: object, start_time: float, **_: Any) -> None:
    """Keeps each request of the scenario."""
    if name != START:
        MEASURED.note(name, start_time, response_time, failed=exception is not None)


@events.quitting.add_listener
def write(environment: Environment, **_: Any) -> None:
    """Hands the figures to the process that started this one."""
    Path(OPTIONS.reports, "measured.json").write_text(json.dumps(MEASURED.to_json()))


class Application(FastHttpUser):
    """A backend that sends its events in batches, and now and then looks at the numbers."""

    wait_time = constant_throughput(REQUESTS_A_SECOND)

    def on_start(self) -> None:
        """Takes the day from the service, whose clock is the one that counts."""
        answer = self.client.get("/version", name=START)
        now = parsedate_to_datetime(answer.headers["Date"])
        self.sender = next(SENDERS)
        self.today = now.astimezone(dt.UTC).date()
        self.stream = Stream(OPTIONS.seed, self.sender, self.today)
        self.turn = itertools.count()

    @task(27)
    def ingest(self) -> None:
        """One batch; an answer that does not account for each event is an error."""
        headers = {
            **KEY,
            "Content-Type": "application/x-ndjson",
            "Idempotency-Key": f"load-{RUN}-{self.sender}-{next(self.turn)}",
        }
        body = self.stream.batch(OPTIONS.batch)
        with self.client.post(
            "/events", data=body, headers=headers, name=WRITE, catch_response=True
        ) as answer:
            if answer.status_code != 202:
                answer.failure(f"status {answer.status_code}")
                return
            told = answer.json()
            if told["ingested"] != OPTIONS.batch:
                answer.failure("not every event was taken")
                return
            MEASURED.events += told["ingested"]

    @task(1)
    def release(self) -> None:
        """A number that is stored: only the service of this test has one that is known."""
        if IS_OWN:
            self.read("/mau", end=DEMO_DAY)
        else:
            self.read("/releases", limit="10")

    @task(1)
    def series(self) -> None:
        """A month of numbers; never spends."""
        month = DEMO_MONTH if IS_OWN else {"from": str(self.today), "to": str(self.today)}
        self.read("/series", metrics="dau,wau,mau", **month)

    @task(1)
    def budget(self) -> None:
        """What is left; never spends."""
        self.read("/budget/plan", **({"day": DEMO_DAY} if IS_OWN else {}))

    def read(self, path: str, **query: str) -> None:
        """One read; any status but 200 is an error."""
        asked = "&".join(f"{name}={value}" for name, value in query.items())
        self.client.get(f"{path}?{asked}", headers=KEY, name=f"{READ}GET {path}")
