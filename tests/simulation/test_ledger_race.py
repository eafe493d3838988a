"""Several real processes on one ledger, and processes that die at the worst moment."""

import json
import os
import signal
import sqlite3
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, closing
from fractions import Fraction
from pathlib import Path
from typing import Any

import pytest

from simulation.ledger_cases import (
    DAY_STEPS,
    DIGEST,
    budget,
    file_of,
    mark_body,
    open_ledger,
    open_request,
    raw_rows,
    release,
    request,
    spend,
)

# Eight processes are started once, and not once a worker.
pytestmark = [pytest.mark.slow, pytest.mark.xdist_group("ledger race")]

PROCESSES = 8


class Worker:
    """One process that speaks `ledger_process`."""

    def __init__(self) -> None:
        tests = Path(__file__).parents[1]
        path = os.pathsep.join([str(tests), os.environ.get("PYTHONPATH", "")])
        self.process = subprocess.Popen(
            [sys.executable, Path(__file__).with_name("ledger_process.py")],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env={**os.environ, "PYTHONPATH": path},
        )

    def tell(self, **command: Any) -> None:
        """Sends one command."""
        assert self.process.stdin is not None
        self.process.stdin.write(json.dumps(command) + "\n")
        self.process.stdin.flush()

    def hear(self) -> dict[str, Any]:
        """Waits for one answer."""
        assert self.process.stdout is not None
        answer: dict[str, Any] = json.loads(self.process.stdout.readline())
        return answer

    def close(self) -> int:
        """Ends the process and gives its exit status."""
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        with ExitStack() as stack:
            stack.callback(self.process.stdout.close)
            stack.callback(self.process.wait)
            self.process.stdin.close()
        return self.process.returncode


@pytest.fixture(scope="module")
def workers() -> Iterator[list[Worker]]:
    """Eight processes with everything imported."""
    started = [Worker() for _ in range(PROCESSES)]
    try:
        yield started
    finally:
        statuses = [worker.close() for worker in started]
        assert [0] * PROCESSES == statuses


def ask_at_once(
    folder: Path, workers: list[Worker], plan_ids: list[str], *, do: str = "step"
) -> list[dict[str, Any]]:
    """Lets every process ask while the ledger is held, then lets go: all of them are waiting."""
    for worker in workers:
        worker.tell(do="open", folder=str(folder))
    assert len({worker.hear()["opened"] for worker in workers}) == 1
    with closing(sqlite3.connect(file_of(folder), isolation_level=None)) as gate:
        gate.execute("BEGIN IMMEDIATE")
        for place, (worker, plan_id) in enumerate(zip(workers, plan_ids, strict=True)):
            worker.tell(do=do, plan_id=plan_id, estimate=place)
        assert plan_ids == [worker.hear()["asking"] for worker in workers]
        gate.execute("COMMIT")
    return [worker.hear() for worker in workers]


def test_last_affordable_release_is_charged_once(tmp_path: Path, workers: list[Worker]) -> None:
    """Of eight processes that ask for the last affordable release, one gets it."""
    ledger = open_ledger(tmp_path)
    for number in range(9):
        spend(ledger, f"before-{number}")

    answers = ask_at_once(tmp_path, workers, [f"last-{place}" for place in range(PROCESSES)])

    state, report = ledger.budget_state(budget()), ledger.verify()
    ledger.close()
    assert {"budget_exhausted": 7, None: 1} == Counter(one.get("error") for one in answers)
    assert Fraction(3) == state.spent.epsilon
    assert (10, 10) == (report.charges, report.releases)
    assert () == report.problems


def test_a_thousand_requests_of_two_processes_fill_the_cap(
    tmp_path: Path, workers: list[Worker]
) -> None:
    """Of 1,000 requests that two processes make at once the cap's ten are sold, and no more."""
    ledger = open_ledger(tmp_path)
    two = workers[:2]

    def ask(place: int) -> list[dict[str, Any]]:
        heard = []
        for number in range(500):
            two[place].tell(do="step", plan_id=f"plan-{place}-{number}", estimate=number)
            two[place].hear()
            heard.append(two[place].hear())
        return heard

    for worker in two:
        worker.tell(do="open", folder=str(tmp_path))
    assert 1 == len({worker.hear()["opened"] for worker in two})
    with ThreadPoolExecutor(2) as threads:
        answers = [one for heard in threads.map(ask, range(2)) for one in heard]

    state, report = ledger.budget_state(budget()), ledger.verify()
    ledger.close()
    assert {"budget_exhausted": 990, None: 10} == Counter(one.get("error") for one in answers)
    assert Fraction(3) == state.spent.epsilon
    assert (10, 10) == (report.charges, report.releases)
    assert () == report.problems


def test_same_step_is_answered_with_the_same_bytes(tmp_path: Path, workers: list[Worker]) -> None:
    """Eight processes that ask for one step get one number, for one charge."""
    ledger = open_ledger(tmp_path)

    answers = ask_at_once(tmp_path, workers, ["same"] * PROCESSES)

    report = ledger.verify()
    ledger.close()
    assert {False: 1, True: 7} == Counter(one["replayed"] for one in answers)
    assert 1 == len({one["body"] for one in answers})
    assert (1, 1) == (report.charges, report.releases)
    assert () == report.problems


def test_a_month_plan_is_charged_once(tmp_path: Path, workers: list[Worker]) -> None:
    """Of eight processes that open one month plan, one charges it, and one makes its day."""
    ledger = open_ledger(tmp_path)

    opened = ask_at_once(tmp_path, workers, ["plan"] * PROCESSES, do="open_plan")
    ledger.commit_noise("plan", DIGEST)
    days = ask_at_once(tmp_path, workers, ["plan"] * PROCESSES, do="take_day")

    report = ledger.verify()
    ledger.close()
    assert {True: 1, False: 7} == Counter(one["opened"] for one in opened)
    assert {False: 1, True: 7} == Counter(one["replayed"] for one in days)
    assert 1 == len({one["body"] for one in days})
    assert (1, DAY_STEPS) == (report.charges, report.releases)
    assert () == report.problems


def test_threads_open_a_month_plan_once(tmp_path: Path) -> None:
    """Eight threads of one process charge one plan once."""
    ledger = open_ledger(tmp_path)
    with ThreadPoolExecutor(PROCESSES) as threads:
        opened = list(threads.map(ledger.open_plan, [open_request()] * PROCESSES))
    report = ledger.verify()
    ledger.close()

    assert {True: 1, False: 7} == Counter(opened)
    assert (1, ()) == (report.charges, report.problems)


def test_eight_processes_make_one_ledger(tmp_path: Path, workers: list[Worker]) -> None:
    """Processes that find no ledger create one together, with one identity."""
    for worker in workers:
        worker.tell(do="open", folder=str(tmp_path))

    identities = {worker.hear()["opened"] for worker in workers}

    assert 1 == len(identities)
    assert [(1,)] == raw_rows(tmp_path, "SELECT count(*) FROM entries")


def crash(folder: Path, where: str) -> int:
    """Lets a process of its own die in a step; gives its exit status."""
    worker = Worker()
    worker.tell(do="open", folder=str(folder))
    worker.hear()
    worker.tell(do="step", plan_id="crashed", estimate=1, crash=where)
    assert "crashed" == worker.hear()["asking"]
    worker.process.wait()
    return worker.close()


def test_death_inside_the_step_leaves_nothing(tmp_path: Path) -> None:
    """A process that dies while the number is made leaves no charge and no release."""
    status = crash(tmp_path, "inside")

    ledger = open_ledger(tmp_path)
    state, report = ledger.budget_state(budget()), ledger.verify()
    _, replayed = ledger.step(request("crashed"), lambda: release("crashed"))
    ledger.close()
    assert -signal.SIGKILL == status
    assert (None, 0, 0) == (state.opened_at, report.charges, report.releases)
    assert () == report.problems
    assert not replayed


def test_death_before_the_mark_keeps_the_release(tmp_path: Path) -> None:
    """A process that dies after the commit has spent; the next start moves the mark."""
    status = crash(tmp_path, "before mark")
    marked_before = mark_body(tmp_path)["seq"]

    ledger = open_ledger(tmp_path)
    marked_after = mark_body(tmp_path)["seq"]
    made, replayed = ledger.step(request("crashed"), lambda: release("crashed"))
    report = ledger.verify()
    ledger.close()
    assert -signal.SIGKILL == status
    assert (1, report.entries) == (marked_before, marked_after)
    assert (True, 1) == (replayed, made.estimate)
    assert (1, 1) == (report.charges, report.releases)
    assert () == report.problems
