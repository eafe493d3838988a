"""A running service whose disk, clock, connections or neighbors fail: clear errors, no loss."""

import datetime as dt
import json
import random
import signal
import threading
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from fractions import Fraction
from itertools import chain
from pathlib import Path

import pytest

from products import NOW
from simulation.auditor import Lane, Question, Witness, changed_bodies, ledger_problems
from simulation.faults import cut, small_disk
from simulation.served import NO_LIMIT, Answer, Caller, Service, service, until
from simulation.workload import LABELS, Batch, Shape, steps

pytestmark = [pytest.mark.slow, pytest.mark.xdist_group("faults")]

SEED = 20260315
LAST = NOW.date().toordinal()
DAYS = 20
SHAPE = Shape(users=30, days=DAYS, last=LAST, batch=40, erasures=0.0, resent=0.0)
CLOSED = dt.date.fromordinal(LAST - 3)
QUESTIONS = [
    *(Question(day, day) for day in range(LAST - DAYS + 1, LAST + 1)),
    Question(LAST - 6, LAST),
    *(Question(LAST - 6, LAST, label) for label in LABELS),
]
RELEASES = 1000
SENDERS = 20
CAP_DAU = Fraction(3)
LOG_BYTES_MAX = 4096
"""Enough for the log of a start that fails, and too little for a database."""
AFFORDABLE = 10
"""How many numbers of 3/10 fit under the cap of 3."""


class Sender:
    """Sends the steps of a workload one by one and knows what must be there."""

    def __init__(self, one: Service) -> None:
        self.service = one
        self.lane = Lane()
        self.stream = steps(SEED, len(one.lanes), SHAPE)
        one.lanes.append(self.lane)

    def batch(self) -> Batch:
        """The next batch, which is the open one where there is one."""
        step = self.lane.open or next(self.stream)
        assert isinstance(step, Batch)
        self.lane.sends(step)
        return step

    def send(self, expected: int = 202) -> Answer:
        """Sends the next batch; hears what the service should answer."""
        step = self.batch()
        with closing(Caller(self.service.port)) as caller:
            answer = caller.take(step)
        assert expected == answer.status, answer.body
        if expected == 202:
            self.lane.hears(answer.json)
        return answer

    def check(self) -> None:
        """Everything that was acknowledged is there, once, and the ledger is sound."""
        problems = Witness(self.service.lanes).settle(self.service.counts(QUESTIONS))
        problems += ledger_problems(self.service.ledger, caps={"dau": CAP_DAU})
        assert [] == problems


@pytest.fixture(scope="module")
def one(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    """A running service; each test leaves it as it should be."""
    with service(tmp_path_factory.mktemp("one")) as running:
        running.start()
        yield running
        assert 0 == running.stop()


def bought(one: Service, query: str = "") -> dict[str, object]:
    """A number, stored or new."""
    answer = one.ask("GET", f"/dau/{CLOSED}{query}")
    assert 200 == answer.status, answer.body
    body: dict[str, object] = answer.json
    return body


def test_a_full_disk_is_an_error_until_there_is_space(tmp_path: Path) -> None:
    """With no space left writes are refused with 503, reads go on, and space is all it takes."""
    with (
        small_disk(tmp_path / "disk") as disk,
        service(tmp_path / "one", data=disk.folder / "data") as one,
    ):
        one.start()
        sender = Sender(one)
        for _ in range(3):
            sender.send()
        stored = bought(one)

        disk.fill(one)
        refused = until(lambda: _refused(sender), "the disk to be full")
        unready = until(lambda: _status(one, "/readyz") == 503, "the service to notice")
        charge = one.ask("GET", f"/dau/{CLOSED}?fresh=true")
        again = one.ask("GET", f"/dau/{CLOSED}")
        shown = one.ask("GET", f"/series?metrics=dau&from={CLOSED}&to={CLOSED}")
        disk.free(one)

        assert (503, "store_unavailable") == (refused.status, refused.json["code"])
        assert int(refused.headers["Retry-After"]) >= 1
        assert unready
        assert 503 == charge.status, charge.body
        assert (200, stored["release_id"]) == (again.status, again.json["release_id"])
        assert [stored["release_id"]] == [row["release_id"] for row in shown.json["releases"]]

        until(lambda: _status(one, "/readyz") == 200, "the service to be ready again")
        sender.send()
        sender.send()
        bought(one, "?fresh=true")
        sender.check()
        assert 0 == one.stop()


def test_a_disk_that_refuses_writes_leaves_reads(one: Service) -> None:
    """Where every write fails the service is not ready, and still answers what is stored."""
    sender = Sender(one)
    sender.send()
    stored = bought(one)
    spent = one.ask("GET", f"/budget/dau?day={CLOSED}").json
    one.limit_writes(0)

    refused = sender.send(expected=503)
    ready = until(lambda: _status(one, "/readyz") == 503, "the service to notice")
    alive = _status(one, "/healthz")
    charge = one.ask("GET", f"/dau/{CLOSED}?fresh=true")
    again = one.ask("GET", f"/dau/{CLOSED}")
    budget = one.ask("GET", f"/budget/dau?day={CLOSED}")
    erased = one.ask("DELETE", "/users/user-0-1")
    one.limit_writes(NO_LIMIT)

    assert "store_unavailable" == refused.json["code"]
    assert ready
    assert 200 == alive
    assert {503} == {charge.status, erased.status}
    assert (200, stored["release_id"]) == (again.status, again.json["release_id"])
    assert (200, spent["epsilon_spent"]) == (budget.status, budget.json["epsilon_spent"])
    until(lambda: _status(one, "/readyz") == 200, "the service to be ready again")
    sender.send()
    sender.check()


def test_a_start_without_space_is_refused(tmp_path: Path) -> None:
    """A service that cannot write does not start: one line and exit code 5; later it does."""
    with (
        small_disk(tmp_path / "disk") as disk,
        service(tmp_path / "one", data=disk.folder / "data") as one,
    ):
        if disk.mounted:
            disk.fill(one)
        limit = NO_LIMIT if disk.mounted else LOG_BYTES_MAX
        code = one.spawn("serve", "--port", "8765", file_bytes_max=limit).wait(timeout=60)
        assert 5 == code, one.log
        assert "unavailable]" in one.log
        assert "Traceback" not in one.log

        disk.free(one)
        one.start()
        Sender(one).send()
        assert 0 == one.stop()


@pytest.mark.parametrize("sent", ["half", "all"])
def test_torn_requests_are_taken_once(one: Service, sent: str) -> None:
    """A request whose connection broke is taken whole or not at all, and once after a retry."""
    sender = Sender(one)
    sender.send()
    for _ in range(6):
        step = sender.batch()
        body = json.dumps(step.bodies()).encode()
        cut(
            one,
            "/events",
            body,
            sent=len(body) // 2 if sent == "half" else len(body),
            key=step.batch_id,
        )
        sender.lane.breaks()
        sender.send()
    sender.check()


def test_batches_that_come_again_out_of_order_change_nothing(one: Service) -> None:
    """A batch that is sent again after later ones is a duplicate, and counts stay."""
    sender = Sender(one)
    sent = []
    for _ in range(8):
        sent.append(sender.batch())
        sender.send()
    with closing(Caller(one.port)) as caller:
        for step in random.Random(SEED).sample(sent, len(sent)):
            sender.lane.sends(step)
            answer = caller.take(step)
            sender.lane.hears(answer.json)
            assert 0 == answer.json["accepted"] + answer.json["late"]
    sender.check()


def test_the_second_service_on_a_directory_is_refused(one: Service) -> None:
    """It ends with code 5 and names the first one, which goes on."""
    sender = Sender(one)
    sender.send()

    second = one.spawn("serve", "--port", str(one.port + 1))
    code = second.wait(timeout=60)
    sender.send()

    assert 5 == code
    assert f"in use by the service at {one.url}" in one.log
    assert "data_dir_in_use" in one.log
    sender.check()


def test_a_clock_that_jumps_changes_no_release(tmp_path: Path) -> None:
    """Forward and back: counts stay, releases stay, what is not closed is refused, keys go on."""
    with service(tmp_path, RELEASE_POLICY="plan", HASH_SALT_ROTATION_DAYS=10) as one:
        one.start()
        sender = Sender(one)
        known: dict[str, object] = {}
        for days in (0, 25, 12, 40, 0):
            one.set_clock(NOW + dt.timedelta(days=days))
            for _ in range(2):
                sender.send()
            answer = one.ask("GET", f"/dau/{NOW.date() + dt.timedelta(days=days - 3)}")
            assert 200 == answer.status, answer.body
            open_day = one.ask("GET", f"/dau/{NOW.date() + dt.timedelta(days=days)}")
            assert open_day.status in (200, 409), open_day.body
            released = one.releases()
            assert [] == changed_bodies(known, released)
            known = {str(row["release_id"]): row for row in released}
            sender.check()
        one.kill()
        one.set_clock(NOW - dt.timedelta(days=1))
        one.start()
        sender.send()
        sender.check()
        assert [] == changed_bodies(known, one.releases())


def test_sigterm_under_load_loses_nothing(one: Service) -> None:
    """What was answered is there, nothing is answered after the end, and the exit code is 0."""
    senders = [Sender(one) for _ in range(4)]

    def run(sender: Sender) -> None:
        with closing(Caller(one.port)) as caller:
            while True:
                step = sender.batch()
                try:
                    answer = caller.take(step)
                except OSError:
                    sender.lane.breaks()
                    return
                if answer.status == 202:
                    sender.lane.hears(answer.json)

    threads = [threading.Thread(target=run, args=(sender,)) for sender in senders]
    for thread in threads:
        thread.start()
    heard = lambda: sum(sender.lane.heard["received"] for sender in senders)  # noqa: E731
    until(lambda: heard() > 1000, "some batches to be answered")
    code = one.stop(signal.SIGTERM)
    for thread in threads:
        thread.join()

    assert 0 == code, one.log[-2000:]
    one.start()
    senders[0].check()
    for sender in senders:
        sender.send()
    senders[0].check()


def test_a_thousand_releases_at_once_fill_the_cap(one: Service) -> None:
    """Of 1,000 requests for a new number as many are sold as the cap holds, to one release."""
    Sender(one).send()
    before = {row["release_id"] for row in one.releases()}
    callers = [Caller(one.port) for _ in range(SENDERS)]

    def buy(caller: Caller) -> list[str]:
        heard = []
        for _ in range(RELEASES // SENDERS):
            answer = caller.ask("GET", f"/dau/{CLOSED}?fresh=true")
            heard.append(answer.json["release_id" if answer.status == 200 else "code"])
        caller.close()
        return heard

    with ThreadPoolExecutor(SENDERS) as threads:
        answers = Counter(chain.from_iterable(threads.map(buy, callers)))

    refusals = answers.pop("budget_exhausted")
    released = {row["release_id"] for row in one.releases()} - before
    budget = one.ask("GET", f"/budget/dau?day={CLOSED}").json
    assert RELEASES == refusals + sum(answers.values())
    # Those who ask at the same moment may be given one and the same new number.
    assert released == set(answers)
    assert AFFORDABLE == len(released | before)
    assert (3.0, 0.0) == (budget["epsilon_spent"], budget["epsilon_remaining"])
    assert [] == ledger_problems(one.ledger, caps={"dau": CAP_DAU})


def _refused(sender: Sender) -> Answer | None:
    """Sends until the service says no; what it took it has."""
    step = sender.batch()
    with closing(Caller(sender.service.port)) as caller:
        answer = caller.take(step)
    if answer.status == 202:
        sender.lane.hears(answer.json)
        return None
    return answer


def _status(one: Service, path: str) -> int:
    return one.ask("GET", path).status
