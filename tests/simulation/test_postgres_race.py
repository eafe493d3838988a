"""Several replicas, several clients each, on one ledger in Postgres: the cap is never exceeded."""

import json
import os
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from fractions import Fraction
from pathlib import Path

import psycopg
import pytest
from sqlalchemy import Connection

from components import postgres_server
from dpdau.errors import LedgerConflictError
from dpdau.ledger import Ledger
from dpdau.ledger.dialect import Access
from dpdau.ledger.postgres import Postgres
from simulation.ledger_cases import (
    POSTGRES,
    Ticking,
    budget,
    empty_schema,
    mark_of,
    release,
    request,
    spend,
    sql,
)

pytestmark = [pytest.mark.slow, POSTGRES]

REPLICAS = 2
CLIENTS = 8
LEVELS = ["read committed", "serializable"]


@pytest.fixture(scope="module")
def server() -> Iterator[str]:
    """A server of its own."""
    with postgres_server() as url:
        yield url


@pytest.fixture(params=LEVELS)
def url(server: str, request: pytest.FixtureRequest) -> str:
    """A database without tables, whose transactions have one of the levels unless they say so."""
    level = request.param.replace(" ", "%5C%20")
    url = f"{empty_schema(server)}%20-cdefault_transaction_isolation%3D{level}"
    assert [(request.param,)] == sql(url, "SHOW transaction_isolation")
    return url


def opened(url: str, folder: Path) -> Ledger:
    """The ledger, as one more replica."""
    return Ledger(url, mark_path=mark_of(folder), clock=Ticking())


class Replica:
    """A process that speaks `postgres_process`."""

    def __init__(self, folder: Path) -> None:
        tests = Path(__file__).parents[1]
        path = os.pathsep.join([str(tests), os.environ.get("PYTHONPATH", "")])
        self.process = subprocess.Popen(
            [sys.executable, Path(__file__).with_name("postgres_process.py"), str(folder)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env={**os.environ, "PYTHONPATH": path},
        )

    def tell(self, **command: object) -> None:
        """Sends one line."""
        assert self.process.stdin is not None
        self.process.stdin.write(json.dumps(command) + "\n")
        self.process.stdin.flush()

    def hear(self) -> object:
        """Waits for one line."""
        assert self.process.stdout is not None
        return json.loads(self.process.stdout.readline())

    def close(self) -> None:
        """Ends the process."""
        with self.process:
            self.process.kill()


@pytest.fixture(scope="module")
def replicas(tmp_path_factory: pytest.TempPathFactory) -> Iterator[list[Replica]]:
    """Processes with a folder each."""
    started = [Replica(tmp_path_factory.mktemp("replica")) for _ in range(REPLICAS)]
    try:
        yield started
    finally:
        for one in started:
            one.close()


def race(url: str, replicas: list[Replica], *, tries: int) -> Counter[str]:
    """Lets all clients of all replicas ask at the same time; gives how their tries ended.

    They start while the ledger is held, and it is let go when every one of them is waiting.
    """
    for one in replicas:
        one.tell(url=url, round=str(hash(url)), clients=CLIENTS, tries=tries)
    assert 1 == len({str(one.hear()) for one in replicas})
    with psycopg.connect(url.replace("+psycopg", "")) as gate:
        gate.execute("LOCK TABLE identity IN EXCLUSIVE MODE")
        for one in replicas:
            one.tell()
        waiting = "SELECT application_name FROM pg_stat_activity WHERE wait_event_type = 'Lock'"
        deadline = time.monotonic() + 60
        while sql(url, waiting) != [("dpdau step",)] * (REPLICAS * CLIENTS):
            assert time.monotonic() < deadline, "not every client came to wait"
    ended: Counter[str] = Counter()
    for one in replicas:
        ended.update(one.hear())  # type: ignore[arg-type]
    return ended


def test_last_affordable_release_is_charged_once(
    url: str, tmp_path: Path, replicas: list[Replica]
) -> None:
    """Of sixteen clients of two replicas that ask for the last affordable release, one gets it."""
    ledger = opened(url, tmp_path)
    for number in range(9):
        spend(ledger, f"before-{number}")

    ended = race(url, replicas, tries=1)

    state, report = ledger.budget_state(budget()), ledger.verify()
    ledger.close()
    assert {"sold": 1, "budget_exhausted": 15} == ended
    assert Fraction(3) == state.spent.epsilon
    assert (10, 10, ()) == (report.charges, report.releases, report.problems)


def test_the_cap_is_sold_and_no_more(url: str, tmp_path: Path, replicas: list[Replica]) -> None:
    """Of 128 tries of sixteen clients the ten that fit are sold, and none fails otherwise."""
    ledger = opened(url, tmp_path)

    ended = race(url, replicas, tries=8)

    state, report = ledger.budget_state(budget()), ledger.verify()
    ledger.close()
    assert {"sold": 10, "budget_exhausted": 118} == ended
    assert Fraction(3) == state.spent.epsilon
    assert (10, 10, ()) == (report.charges, report.releases, report.problems)


def test_the_chain_alone_keeps_the_cap(
    url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without the lock writers get in each other's way, and still nothing is sold twice."""
    ledger = opened(url, tmp_path)

    def lockless(_self: Postgres, connection: Connection, name: str, access: Access) -> None:
        connection.exec_driver_sql(f"SET LOCAL application_name = 'dpdau {name}'")

    monkeypatch.setattr(Postgres, "begin", lockless)

    def ask(plan_id: str) -> str:
        try:
            ledger.step(request(plan_id, held=budget(cap="6")), lambda: release(plan_id))
        except LedgerConflictError:
            return "conflict"
        return "sold"

    with ThreadPoolExecutor(CLIENTS) as threads:
        ended = Counter(threads.map(ask, [f"plan-{one % 20}" for one in range(60)]))
    monkeypatch.undo()

    state, report = ledger.budget_state(budget()), ledger.verify()
    ledger.close()
    assert ended["conflict"] > 0
    assert state.spent.epsilon == Fraction("0.3") * report.charges <= 6
    assert (report.charges, ()) == (report.releases, report.problems)
