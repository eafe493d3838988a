"""Senders, releases and kills at random: what was acknowledged is there, once.

The short form runs with the suite. `DPDAU_SEED` replays one seed; `DPDAU_SOAK=EVENTS` goes on until
that many events were acknowledged, with a kill about every `EVENTS / 220` of them.
"""

import datetime as dt
import os
import random
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass, field, replace
from fractions import Fraction
from pathlib import Path

import pytest

from products import NOW
from simulation.auditor import (
    Auditor,
    Lane,
    Question,
    Witness,
    changed_bodies,
    ledger_problems,
)
from simulation.served import POLL_SECONDS, Caller, Service, service
from simulation.workload import LABELS, Erasure, Shape, Step, steps

pytestmark = pytest.mark.slow

SEED = int(os.environ.get("DPDAU_SEED", "20260315"))
SOAK_EVENTS = int(os.environ.get("DPDAU_SOAK", "0"))
SENDERS = 4
SHORT_KILLS = 2
SHORT_EVENTS = 400
"""Acknowledged events between two kills, on average."""
SOAK_KILLS = 220
ROTATIONS_MAX = 30
"""After more days the batch ids of the first ones may be forgotten."""
LAST = NOW.date().toordinal()
DAYS = 20
EPSILON_DAU = Fraction(3, 10)
CAP_DAU = Fraction(3)
REFUSALS = {429, 503}


@dataclass
class Sender:
    """One thread that sends its steps in order, each until it is answered."""

    lane: Lane
    stream: Iterator[Step]
    receipts: dict[str, str] = field(default_factory=dict)
    acknowledged: int = 0

    def run(self, port: int, paused: threading.Event) -> None:
        """Sends until told to pause, or until the service is gone."""
        with closing(Caller(port)) as caller:
            while not paused.is_set():
                step = self.lane.open or next(self.stream)
                self.lane.sends(step)
                try:
                    answer = caller.take(step)
                except OSError:
                    self.lane.breaks()
                    return
                if answer.status in REFUSALS:
                    continue
                if answer.status != 202:
                    self.lane.problems.append(f"{answer.status}: {answer.body[:500]!r}")
                    return
                self.lane.hears(answer.json)
                if isinstance(step, Erasure):
                    self.receipts[answer.json["erasure_id"]] = answer.json["done_at"]
                else:
                    self.acknowledged += answer.json["received"]


@dataclass
class Simulation:
    """A service, its senders, and what they know."""

    service: Service
    seed: int
    shape: Shape
    senders: list[Sender] = field(init=False)
    known: dict[str, object] = field(default_factory=dict)
    budget: Auditor = field(default_factory=lambda: Auditor(cap=CAP_DAU))
    kills: int = 0

    def __post_init__(self) -> None:
        self.drawn = random.Random(self.seed)
        self.senders = [
            Sender(Lane(), steps(self.seed, number, self.shape)) for number in range(SENDERS)
        ]
        self.witness = Witness([sender.lane for sender in self.senders])

    @property
    def acknowledged(self) -> int:
        """Events whose request was answered, also those that were sent again."""
        return sum(sender.acknowledged for sender in self.senders)

    @property
    def erasures(self) -> int:
        """Erasures that were answered."""
        return sum(len(sender.receipts) for sender in self.senders)

    def round(self, events: int, *, kill: bool) -> None:
        """Starts the service, looks at everything, sends, and ends the service somewhere."""
        self.service.start()
        self.check()
        self.buy()
        paused = threading.Event()
        threads = [
            threading.Thread(target=sender.run, args=(self.service.port, paused))
            for sender in self.senders
        ]
        for thread in threads:
            thread.start()
        goal = self.acknowledged + events
        while self.acknowledged < goal and any(thread.is_alive() for thread in threads):
            time.sleep(POLL_SECONDS / 10)
        if kill:
            self.service.kill()
            self.kills += 1
        paused.set()
        for thread in threads:
            thread.join()
        if not kill:
            assert 0 == self.service.stop()

    def check(self) -> None:
        """Everything that was acknowledged is there, once, and the ledger is sound."""
        self.check_counts()
        released = self.service.releases()
        problems = changed_bodies(self.known, released)
        self.known = {one["release_id"]: one for one in released}
        for sender in self.senders:
            for erasure_id, done_at in list(sender.receipts.items())[-3:]:
                answer = self.service.ask("GET", f"/erasures/{erasure_id}")
                if (200, done_at) != (answer.status, answer.json.get("done_at")):
                    problems.append(f"erasure {erasure_id}: {answer.status} {answer.body!r}")
        assert [] == problems, self.replay()

    def check_counts(self) -> None:
        """The counts are those of what was acknowledged, and the books of the ledger are right."""
        problems = self.witness.settle(self.service.counts(self.questions()))
        problems += ledger_problems(self.service.ledger, caps={"dau": CAP_DAU})
        assert [] == problems, self.replay()

    def questions(self) -> Sequence[Question]:
        """Every day, and some windows with their labels."""
        days = range(LAST - DAYS + 1, LAST + 1)
        windows = [(LAST, 7), (LAST - self.drawn.randrange(DAYS), 7), (LAST, DAYS)]
        return [
            *(Question(day, day) for day in days),
            *(Question(end - days + 1, end) for end, days in windows),
            *(Question(end - 6, end, label) for end, _ in windows[:1] for label in LABELS),
        ]

    def buy(self) -> None:
        """Asks for a number of a closed day, perhaps once more; the ledger says yes or no."""
        day = LAST - 2 - self.drawn.randrange(3)
        fresh = self.drawn.random() < 0.5
        path = f"/dau/{dt.date.fromordinal(day)}{'?fresh=true' if fresh else ''}"
        stored = [
            one for one in self.known.values() if one["day"] == dt.date.fromordinal(day).isoformat()
        ]
        answer = self.service.ask("GET", path)
        if stored and not fresh:
            assert 200 == answer.status, self.replay()
            assert answer.json["release_id"] in {one["release_id"] for one in stored}
            return
        name = f"{len(self.budget.taken)}"
        expected = 200 if self.budget.must_take(name, EPSILON_DAU) else 429
        assert expected == answer.status, (answer.body, self.replay())
        if expected == 200:
            counted = sum(lane.books.active[day] for lane in self.witness.lanes)
            if all(sender.lane.open is None for sender in self.senders):
                assert counted == answer.json["estimate"], self.replay()
            released = self.service.releases()
            self.known = {one["release_id"]: one for one in released}

    def replay(self) -> str:
        """How to run this again."""
        soak = f"DPDAU_SOAK={SOAK_EVENTS} " if SOAK_EVENTS else ""
        return (
            f"seed {self.seed}, after {self.kills} kills and {self.acknowledged} events; replay "
            f"with: DPDAU_SEED={self.seed} {soak}pytest tests/simulation/test_simulation.py"
        )


def simulate(root: Path, shape: Shape, *, events: int, kills: int, rotating: bool) -> Simulation:
    """Rounds that end with a kill, and a last one that ends in order.

    With `rotating` a day passes before each round, up to `ROTATIONS_MAX` of them, and each makes a
    new pseudonym key. An event id is not known under a new key, so none is sent then.
    """
    changes = {"HASH_SALT_ROTATION_DAYS": 1} if rotating else {}
    if rotating:
        shape = replace(shape, identified=0.0)
    with service(root, **changes) as one:
        run = Simulation(one, SEED, shape)
        while run.kills < kills or run.acknowledged < events:
            if rotating:
                one.set_clock(NOW + dt.timedelta(days=min(run.kills, ROTATIONS_MAX)))
            run.round(max(1, int(events / kills * run.drawn.uniform(0.1, 1.9))), kill=True)
        run.round(shape.batch, kill=False)
        run.check_counts()
    return run


SHORT = Shape(users=60, days=DAYS, last=LAST, batch=30, erasures=0.05, resent=0.05)
LONG = Shape(users=1500, days=DAYS, last=LAST, batch=500)


@pytest.mark.parametrize("rotating", [False, True])
def test_acknowledged_events_survive_kills(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], rotating: bool
) -> None:
    """Through kills at random times no event is lost or doubled, and no number without charge."""
    shape, events, kills = SHORT, SHORT_KILLS * SHORT_EVENTS, SHORT_KILLS
    if SOAK_EVENTS:
        shape, events, kills = LONG, SOAK_EVENTS, SOAK_KILLS
    run = simulate(tmp_path, shape, events=events, kills=kills, rotating=rotating)

    outcomes = run.witness.outcomes()
    if SOAK_EVENTS:
        with capsys.disabled():
            sys.stdout.write(f"\n{run.kills} kills, {run.erasures} erasures, {outcomes}\n")
    received = outcomes.pop("received")
    assert received == sum(outcomes.values()), run.replay()
    assert all(outcomes.values()), run.replay()
    assert run.erasures, run.replay()
    assert [] == run.witness.problems(), run.replay()
