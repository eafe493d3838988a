"""Random months of plans, single releases, grants and crashes, against an auditor of its own."""

import random
from collections.abc import Callable
from dataclasses import dataclass, field
from fractions import Fraction
from typing import TypeVar

import pytest

from dpdau.accounting.calibration import rho_cap
from dpdau.errors import BudgetExhaustedError, InvalidPlanError, StoreCorruptError
from dpdau.ledger import Ledger, release_to_json
from simulation.auditor import Auditor
from simulation.ledger_cases import (
    DAY_STEPS,
    DIGEST,
    day_releases,
    folder_in_memory,
    gaussian,
    lattice,
    open_ledger,
    open_request,
    plan_budget,
    release,
    request,
)

SEQUENCES = 40
ACTS = 25
DAYS = 4
T = TypeVar("T")


class CrashError(Exception):
    """What a store raises that cannot count now."""


@dataclass
class Player:
    """One random month: what it did, and what the ledger must say."""

    ledger: Ledger
    seed: int
    taken: dict[str, list[list[bytes]]] = field(default_factory=dict)
    committed: set[str] = field(default_factory=set)
    singles: dict[str, bytes] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.rng = random.Random(self.seed)
        self.period = f"{2000 + self.seed // 12}-{self.seed % 12 + 1:02d}"
        self.held = plan_budget(self.period, cap="1")
        self.auditor = Auditor(rho_cap(self.held.epsilon, self.held.delta))

    def play(self) -> None:
        """Acts, one after the other; each is checked at once."""
        acts = [self.open, self.commit, self.day, self.day, self.day, self.step, self.grant]
        for _ in range(ACTS):
            self.rng.choice(acts)()
            self.check()

    def check(self) -> None:
        """The ledger has spent what the auditor says, which is within the cap."""
        state = self.ledger.budget_state(self.held)
        assert sum(self.auditor.taken.values()) == state.spent.rho, f"Player(ledger, {self.seed})"
        assert state.spent.rho <= state.cap.rho
        numbers = len(self.singles) + DAY_STEPS * sum(map(len, self.taken.values()))
        assert numbers == state.release_count

    def open(self) -> None:
        """Opens one of a few plans, at a cost that often does not fit."""
        plan_id = f"plan-{self.period}-{self.rng.randrange(3)}"
        scale = self.rng.randint(8, 40)
        known = plan_id in self.auditor.taken
        expected = self.auditor.must_take(plan_id, Fraction(1, scale**2))
        asked = open_request(plan_id, held=self.held, event=lattice(str(scale)), days=DAYS)
        try:
            opened = self.ledger.open_plan(asked)
        except BudgetExhaustedError:
            assert not expected
            return
        assert (expected, not known) == (True, opened)
        self.taken.setdefault(plan_id, [])

    def commit(self) -> None:
        """Commits to noise, now and then to other noise."""
        if not self.taken:
            return
        plan_id = self.rng.choice(sorted(self.taken))
        digest = self.rng.choice([DIGEST, DIGEST, DIGEST[::-1]])
        if plan_id not in self.committed:
            digest = DIGEST
        try:
            self.ledger.commit_noise(plan_id, digest)
        except StoreCorruptError:
            assert digest != DIGEST
            return
        assert digest == DIGEST
        self.committed.add(plan_id)

    def day(self) -> None:
        """Takes any day: the next, one ahead or one behind; now and then the store fails."""
        if not self.taken:
            return
        plan_id = self.rng.choice(sorted(self.taken))
        days = self.taken[plan_id]
        index = max(0, len(days) + self.rng.choice([-2, -1, 0, 0, 0, 0, 1]))
        estimate = self.rng.randrange(10**6)
        make = self.crashing(lambda: day_releases(plan_id, index, estimate=estimate))
        fresh = index == len(days)
        try:
            made, replayed = self.ledger.take_day(plan_id, index * DAY_STEPS, make)
        except CrashError:
            assert fresh
            return
        except InvalidPlanError:
            assert index > len(days) or (fresh and not self.may_go_on(plan_id))
            return
        bodies = [release_to_json(one) for one in made]
        assert replayed == (index < len(days))
        if replayed:
            assert days[index] == bodies
        else:
            assert fresh
            assert self.may_go_on(plan_id)
            days.append(bodies)

    def may_go_on(self, plan_id: str) -> bool:
        """Whether a plan has a next day that may be taken."""
        return plan_id in self.committed and len(self.taken[plan_id]) < DAYS

    def step(self) -> None:
        """A single release on the same budget; now and then the store fails."""
        plan_id = f"single-{self.period}-{self.rng.randrange(4)}"
        sigma = self.rng.randint(8, 40)
        known, cost = plan_id in self.auditor.taken, Fraction(1, 2 * sigma**2)
        expected = self.auditor.must_take(plan_id, cost)
        estimate = self.rng.randrange(10**6)
        asked = request(plan_id, held=self.held, event=gaussian(sigma=str(sigma)))
        make = self.crashing(lambda: release(plan_id, estimate=estimate))
        try:
            made, replayed = self.ledger.step(asked, make)
        except BudgetExhaustedError:
            assert not expected
            return
        except CrashError:
            assert expected
            assert not known
            del self.auditor.taken[plan_id]
            return
        assert (expected, known) == (True, replayed)
        assert self.singles.setdefault(plan_id, release_to_json(made)) == release_to_json(made)

    def grant(self) -> None:
        """One more allowance, seldom."""
        if self.rng.random() < 0.2:
            self.ledger.grant("plan", self.period, actor="ada", reason="drawn")
            self.auditor.grant()

    def crashing(self, make: Callable[[], T]) -> Callable[[], T]:
        """The maker, or one that fails."""

        def crash() -> T:
            raise CrashError

        return crash if self.rng.random() < 0.2 else make


@pytest.mark.slow
def test_no_sequence_of_plans_and_crashes_passes_its_cap() -> None:
    """Σ ρ is what the auditor took, steps have no gap, and the same step is the same bytes."""
    with folder_in_memory() as folder:
        ledger = open_ledger(folder)
        players = [Player(ledger, seed) for seed in range(SEQUENCES)]
        for player in players:
            player.play()
        report, unfinished = ledger.verify(), ledger.unfinished_months()
        plans = {plan_id: ledger.find_plan(plan_id) for one in players for plan_id in one.taken}
        ledger.close()

    assert () == report.problems
    assert all(plan is not None for plan in plans.values())
    taken = {name: len(days) for one in players for name, days in one.taken.items()}
    assert taken == {
        name: plan.steps_taken // DAY_STEPS for name, plan in plans.items() if plan is not None
    }
    assert sorted(name[5:12] for name, days in taken.items() if days < DAYS) == list(unfinished)
    assert {0, DAYS} <= set(taken.values())


@pytest.mark.parametrize("seed", range(3))
def test_a_month_survives_a_restart_at_any_moment(seed: int) -> None:
    """A ledger that is closed and opened again between any two acts goes on where it was."""
    with folder_in_memory() as folder:
        player = Player(open_ledger(folder), seed)
        for _ in range(6):
            player.rng.choice([player.open, player.commit, player.day, player.step])()
            player.ledger.close()
            player.ledger = open_ledger(folder)
            player.check()
        report = player.ledger.verify()
        player.ledger.close()

    assert () == report.problems
