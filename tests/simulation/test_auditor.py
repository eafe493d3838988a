"""The auditor turns red: each kind of loss, planted on purpose, is found and named."""

import json
import sqlite3
from collections.abc import Callable
from contextlib import closing
from dataclasses import replace
from fractions import Fraction
from pathlib import Path
from typing import Any

import pytest

from simulation.auditor import (
    Books,
    Lane,
    Question,
    Witness,
    changed_bodies,
    faults_of,
    ledger_problems,
)
from simulation.ledger_cases import open_ledger, spend
from simulation.workload import LABELS, Batch, Erasure, Item, Shape, Step, steps

LAST = 739_690
SHAPE = Shape(users=20, days=10, last=LAST, batch=12, erasures=0.05, resent=0.1, refused=0.1)
QUESTIONS = [
    *(Question(day, day) for day in range(LAST - 9, LAST + 1)),
    Question(LAST - 6, LAST),
    *(Question(LAST - 6, LAST, label) for label in LABELS),
]


def item(user: str, op: str, day: int = LAST) -> Item:
    """One event without an id."""
    return Item(user, op == "+", (day,), None, None, None, {})


class Honest:
    """A service that does what it should: books of its own, and answers from them."""

    def __init__(self) -> None:
        self.books = Books()

    def take(self, step: Step) -> dict[str, Any]:
        """One request."""
        outcome: dict[str, Any] = dict(self.books.take(step))
        if isinstance(step, Batch):
            refused = [(at, one.code) for at, one in enumerate(step.items) if one.code]
            outcome["late"] = 0
            outcome["rejected"] = [{"index": at, "code": code} for at, code in refused]
        return outcome

    def counts(self) -> dict[Question, int]:
        """What it would show."""
        return {
            asked: self.books.count(asked.first, asked.last, label=asked.label)
            for asked in QUESTIONS
        }


def run(
    sequence: list[Step], service: Honest, *, lost: frozenset[int] = frozenset()
) -> tuple[Witness, list[str]]:
    """Sends steps; of the `lost` ones the first answer does not come. Gives what is found."""
    lane = Lane()
    witness = Witness([lane])
    problems: list[str] = []
    for number, step in enumerate(sequence):
        lane.sends(step)
        if number in lost:
            service.take(step)
            lane.breaks()
            problems += witness.settle(service.counts())
            lane.sends(step)
        lane.hears(service.take(step))
        problems += witness.settle(service.counts())
    return witness, problems


def sequence_of(seed: int, length: int = 40) -> list[Step]:
    """The first steps of a seeded stream."""
    stream = steps(seed, 0, SHAPE)
    return [next(stream) for _ in range(length)]


@pytest.mark.parametrize("seed", range(5))
def test_nothing_is_found_where_nothing_is_wrong(seed: int) -> None:
    """A service that does what it should passes, also where answers are lost on the way."""
    witness, problems = run(sequence_of(seed), Honest(), lost=frozenset(range(3, 40, 7)))

    outcomes = witness.outcomes()
    assert [] == problems
    assert outcomes.pop("received") == sum(outcomes.values())


def test_a_step_in_flight_may_be_taken_or_not() -> None:
    """Where no answer came both outcomes pass, and the retry must agree with what was seen."""
    first, second = Batch("a", (item("u", "+"),)), Batch("b", (item("u", "-"),))
    for taken in (False, True):
        lane, service = Lane(), Honest()
        lane.sends(first)
        lane.hears(service.take(first))
        lane.sends(second)
        lane.breaks()
        if taken:
            service.take(second)
        assert [] == Witness([lane]).settle(service.counts())
        assert taken is lane.taken


def test_a_retry_that_contradicts_what_was_seen_is_found() -> None:
    """Counts showed that the batch was taken, so to take it once more is doubling."""
    batch = Batch("a", (item("u", "+"),))
    lane, service = Lane(), Honest()
    lane.sends(batch)
    service.take(batch)
    lane.breaks()
    assert [] == Witness([lane]).settle(service.counts())

    lane.hears(Honest().take(batch))

    assert 1 == len(Witness([lane]).problems())


class Dropping(Honest):
    """Acknowledges a batch that it does not keep."""

    def take(self, step: Step) -> dict[str, Any]:
        """One request; the third is forgotten."""
        kept = self.books.copy()
        answer = super().take(step)
        if isinstance(step, Batch) and step.batch_id.endswith("-3"):
            self.books = kept
        return answer


class Doubling(Honest):
    """Applies a batch once more after the next one."""

    last: Batch | None = None

    def take(self, step: Step) -> dict[str, Any]:
        """One request, and again the one before it."""
        answer = super().take(step)
        if self.last is not None:
            self.books.take(replace(self.last, batch_id=f"{self.last.batch_id} again"))
        self.last = step if isinstance(step, Batch) else None
        return answer


class Forgetful(Honest):
    """Does not know a batch id again."""

    def take(self, step: Step) -> dict[str, Any]:
        """One request."""
        self.books.batch_ids.clear()
        return super().take(step)


class Keeping(Honest):
    """Acknowledges an erasure and keeps the user."""

    def take(self, step: Step) -> dict[str, Any]:
        """One request."""
        if not isinstance(step, Erasure):
            return super().take(step)
        kept = self.books.copy()
        answer = super().take(step)
        self.books = kept
        return answer


class Mislabeling(Honest):
    """Lets the newest label win."""

    def take(self, step: Step) -> dict[str, Any]:
        """One request."""
        if isinstance(step, Batch):
            for one in step.items:
                if one.label is not None:
                    self.books.labels = {
                        name: label
                        for name, label in self.books.labels.items()
                        if name[0] != one.user
                    }
        return super().take(step)


@pytest.mark.parametrize("bug", [Dropping, Forgetful, Keeping, Mislabeling])
def test_a_planted_bug_is_found(bug: Callable[[], Honest]) -> None:
    """A service that loses, doubles or keeps what it must not is found in a seeded stream."""
    _, problems = run(sequence_of(3), bug())

    assert problems


def test_a_batch_that_is_applied_again_later_is_found() -> None:
    """A batch that comes back after its events were taken out again shows in the counts."""
    came, went = Batch("a", (item("u", "+"),)), Batch("b", (item("u", "-"),))

    _, problems = run([came, went], Doubling())

    assert ["counts fit no outcome"] == [one[:21] for one in problems]


def test_numbers_that_do_not_add_up_are_found() -> None:
    """An answer whose outcomes are fewer than what was received is named, with the batch."""
    batch = Batch("a", (item("u", "+"), item("v", "+")))
    answer = {**Honest().take(batch), "accepted": 1}

    (problem,) = faults_of(batch, answer)

    assert problem.startswith("a: the outcomes do not add up")


def test_a_rejection_of_another_item_is_found() -> None:
    """Each rejection has the place and the code of the item that cannot be taken."""
    broken = replace(item("u", "*"), code="unknown_op")
    batch = Batch("a", (item("u", "+"), broken))
    answer = Honest().take(batch)
    answer["rejected"][0]["index"] = 0

    assert 1 == len(faults_of(batch, answer))


def test_a_release_that_changes_or_goes_is_found() -> None:
    """What was published stays, byte for byte."""
    known = {"a": {"release_id": "a", "estimate": 1}, "b": {"release_id": "b", "estimate": 2}}
    found = [{"release_id": "a", "estimate": 3}, {"release_id": "c", "estimate": 4}]

    problems = changed_bodies(known, found)

    assert ["a: the release changed", "b: the release is gone"] == sorted(
        one[:22] for one in problems
    )


LEDGER_BUGS = {
    "a charge without a release": "DELETE FROM releases "
    "WHERE seq = (SELECT max(seq) FROM releases)",
    "a release without a charge": "DELETE FROM charges WHERE seq = (SELECT max(seq) FROM charges)",
    "spent 3 of 14/5": None,
    "charged 2 times": "INSERT INTO charges SELECT 900, plan_id, budget_id, dp_event, "
    "neighboring_relation, at FROM charges LIMIT 1",
    "not numbered": "DELETE FROM entries WHERE seq = 3",
}


@pytest.mark.parametrize("found", LEDGER_BUGS)
def test_a_planted_ledger_bug_is_found(tmp_path: Path, found: str) -> None:
    """Charges without releases, releases without charges, overspending: each is named."""
    ledger = open_ledger(tmp_path)
    for number in range(10):
        spend(ledger, f"plan-{number}")
    ledger.close()
    file = _unprotected_copy(tmp_path)
    cap = Fraction(14, 5) if LEDGER_BUGS[found] is None else Fraction(3)
    assert [] == ledger_problems(file, caps={"dau": Fraction(3)})

    with closing(sqlite3.connect(file)) as database:
        database.execute(LEDGER_BUGS[found] or "SELECT 1")
        database.commit()
    problems = ledger_problems(file, caps={"dau": cap})

    assert any(found in one for one in problems), json.dumps(problems)


def _unprotected_copy(folder: Path) -> Path:
    """The tables of a ledger without what keeps them from being changed."""
    (source,) = folder.rglob("ledger.sqlite")
    copy = folder / "copy.sqlite"
    with closing(sqlite3.connect(source)) as good, closing(sqlite3.connect(copy)) as made:
        tables = good.execute(
            "SELECT name FROM sqlite_master WHERE type = 'table' AND name NOT LIKE 'sqlite_%'"
        ).fetchall()
        for (table,) in tables:
            rows = good.execute(f"SELECT * FROM {table}")
            columns = ", ".join(column[0] for column in rows.description)
            marks = ", ".join("?" for _ in rows.description)
            made.execute(f"CREATE TABLE {table} ({columns})")
            made.executemany(f"INSERT INTO {table} VALUES ({marks})", rows)
        made.commit()
    return copy
