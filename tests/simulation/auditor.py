"""Auditors of their own: plain fractions, dictionaries and sets beside what the product says.

They share no meaning with the product: what an event does is written down here once more, in the
words of the contract, and the ledger is read as the tables of a database.
"""

import datetime as dt
import itertools
import json
import sqlite3
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, field
from fractions import Fraction
from pathlib import Path
from typing import Any

from simulation.workload import Batch, Item, Step


@dataclass
class Auditor:
    """The expected state of one budget: the cap of an allowance, and what was taken."""

    cap: Fraction
    allowances: int = 1
    taken: dict[str, Fraction] = field(default_factory=dict)

    def grant(self) -> None:
        """One more allowance."""
        self.allowances += 1

    def must_take(self, plan_id: str, cost: Fraction) -> bool:
        """Whether a request must be answered; remembers it if so."""
        if plan_id in self.taken:
            return True
        left = self.cap * self.allowances
        for one in self.taken.values():
            left -= one
        if cost > left:
            return False
        self.taken[plan_id] = cost
        return True


@dataclass
class Books:
    """Who was active when, after the steps that were taken, as sets."""

    days: dict[str, set[int]] = field(default_factory=dict)
    labels: dict[tuple[str, int], str] = field(default_factory=dict)
    event_ids: set[tuple[str, str]] = field(default_factory=set)
    batch_ids: set[str] = field(default_factory=set)
    active: Counter[int] = field(default_factory=Counter)

    def copy(self) -> "Books":
        """The same books, to try a step on."""
        return Books(
            {user: set(days) for user, days in self.days.items()},
            dict(self.labels),
            set(self.event_ids),
            set(self.batch_ids),
            Counter(self.active),
        )

    def take(self, step: Step) -> dict[str, int]:
        """What a step does, and which answer it must have had."""
        if not isinstance(step, Batch):
            return {"days_touched": len(self._forget(step.user))}
        rejected = sum(one.code is not None for one in step.items)
        sound = [one for one in step.items if one.code is None]
        if step.batch_id in self.batch_ids:
            return _answer(step, rejected=rejected, duplicate=len(sound))
        if sound:
            self.batch_ids.add(step.batch_id)
        duplicate = 0
        for item in sound:
            if item.event_id is not None:
                name = (item.user, item.event_id)
                if name in self.event_ids:
                    duplicate += 1
                    continue
                self.event_ids.add(name)
            self._apply(item)
        return _answer(step, rejected=rejected, duplicate=duplicate)

    def count(self, first: int, last: int, *, label: str | None = None) -> int:
        """How many users were active on a day of a range, of one label or of any."""
        wanted = set(range(first, last + 1))
        return sum(
            any(
                label is None or self.labels.get((user, month_of(day))) == label
                for day in days & wanted
            )
            for user, days in self.days.items()
        )

    def _apply(self, item: Item) -> None:
        held = self.days.setdefault(item.user, set())
        for day in item.days:
            if item.add and item.label is not None:
                self.labels.setdefault((item.user, month_of(day)), item.label)
            if item.add and day not in held:
                held.add(day)
                self.active[day] += 1
            elif not item.add and day in held:
                held.remove(day)
                self.active[day] -= 1

    def _forget(self, user: str) -> set[int]:
        gone = self.days.pop(user, set())
        self.active.subtract(gone)
        self.labels = {name: label for name, label in self.labels.items() if name[0] != user}
        return gone


@dataclass(frozen=True)
class Question:
    """A range of days, and a label or everyone."""

    first: int
    last: int
    label: str | None = None


@dataclass
class Lane:
    """One sender and the users that are its own: what it sent, and what it heard.

    `open` is the step that was not answered. A refusal says that it was not taken. Where an answer
    did not come, `taken` is None: it was taken or not, until the counts show which.
    """

    books: Books = field(default_factory=Books)
    open: Step | None = None
    taken: bool | None = False
    heard: Counter[str] = field(default_factory=Counter)
    problems: list[str] = field(default_factory=list)

    def sends(self, step: Step) -> None:
        """A request goes out; the step that was not answered goes before any other."""
        assert self.open in (None, step)
        if self.open is None:
            self.open, self.taken = step, False

    def breaks(self) -> None:
        """No answer came."""
        if not self.taken:
            self.taken = None

    def hears(self, answer: Mapping[str, Any]) -> None:
        """An answer came: what it says must follow from what was taken before."""
        step, taken = self.open, self.taken
        assert step is not None
        self.open = None
        before = self.books.copy() if taken is not False else self.books
        allowed = [self.books.take(step)]
        if taken is not False:
            before.take(step)
            again = before.take(step)
            allowed = [again] if taken else [*allowed, again]
        if isinstance(step, Batch):
            self.problems += faults_of(step, answer)
            self.heard.update({name: int(answer[name]) for name in OUTCOMES})
            shown = {name: int(answer[name]) for name in OUTCOMES}
            shown["accepted"] += shown.pop("late")
        else:
            shown = {"days_touched": int(answer["days_touched"])}
        if shown not in allowed:
            self.problems.append(f"{name_of(step)}: expected one of {allowed}, heard {shown}")


@dataclass
class Witness:
    """All senders of one service."""

    lanes: list[Lane]

    def settle(self, found: Mapping[Question, int]) -> list[str]:
        """Compares counts with what was acknowledged, where each open step is taken or not.

        Remembers of each open step which of the two it was, if the counts tell.
        """
        states = [self._states(lane) for lane in self.lanes]
        counted = [
            {taken: [_count(books, asked) for asked in found] for taken, books in one.items()}
            for one in states
        ]
        fitting = [
            chosen
            for chosen in itertools.product(*states)
            if list(found.values())
            == [
                sum(column)
                for column in zip(
                    *(counted[place][taken] for place, taken in enumerate(chosen)), strict=True
                )
            ]
        ]
        for place, lane in enumerate(self.lanes):
            seen = {chosen[place] for chosen in fitting}
            if lane.open is not None and len(seen) == 1:
                lane.taken = seen.pop()
        if fitting:
            return self.problems()
        wrong = [
            f"{asked}: expected one of {sorted(possible)}, found {value}"
            for asked, value in found.items()
            if value not in (possible := _possible(states, asked))
        ]
        return [*self.problems(), f"counts fit no outcome of the open steps; {wrong}"]

    def problems(self) -> list[str]:
        """What was wrong with the answers."""
        return [problem for lane in self.lanes for problem in lane.problems]

    def outcomes(self) -> dict[str, int]:
        """The sums of all answers."""
        total: Counter[str] = Counter()
        for lane in self.lanes:
            total.update(lane.heard)
        return {name: total[name] for name in OUTCOMES}

    @staticmethod
    def _states(lane: Lane) -> dict[bool, Books]:
        """The books of a lane without and with its open step, as far as it is not known."""
        if lane.open is None or lane.taken is False:
            return {False: lane.books}
        after = lane.books.copy()
        after.take(lane.open)
        return {True: after} if lane.taken else {False: lane.books, True: after}


def _possible(states: Sequence[Mapping[bool, Books]], asked: Question) -> set[int]:
    """What the answer to one question may be."""
    each = [[_count(books, asked) for books in one.values()] for one in states]
    return {sum(chosen) for chosen in itertools.product(*each)}


OUTCOMES = ("received", "accepted", "duplicate", "late", "rejected_count")


def month_of(day: int) -> int:
    """The month of a day as one number; days are proleptic ordinals."""
    one = dt.date.fromordinal(day)
    return one.year * 12 + one.month


def faults_of(step: Batch, answer: Mapping[str, Any]) -> list[str]:
    """What is wrong with the numbers of one answer to a batch, whatever was taken before."""
    problems = []
    taken = answer["accepted"] + answer["duplicate"] + answer["late"]
    if answer["received"] != taken + answer["rejected_count"]:
        problems.append(f"{name_of(step)}: the outcomes do not add up: {dict(answer)}")
    expected = [(at, one.code) for at, one in enumerate(step.items) if one.code is not None]
    found = [(one["index"], one["code"]) for one in answer["rejected"]]
    if expected != found:
        problems.append(f"{name_of(step)}: expected rejections {expected}, heard {found}")
    return problems


def name_of(step: Step) -> str:
    """How a step is called in a finding."""
    return step.batch_id if isinstance(step, Batch) else f"erase {step.user}"


def ledger_problems(path: Path, *, caps: Mapping[str, Fraction]) -> list[str]:
    """What is wrong with a ledger, read as the tables of a database.

    Args:
        path: Its file.
        caps: For each metric whose charges add up as pure epsilons, the cap of a month.
    """
    address = f"{path.resolve().as_uri()}?mode=ro"
    with closing(sqlite3.connect(address, uri=True)) as database:
        plans = dict(database.execute("SELECT plan_id, kind FROM plans"))
        charged = Counter(name for (name,) in database.execute("SELECT plan_id FROM charges"))
        released = database.execute(
            "SELECT plan_id, group_concat(step) FROM (SELECT * FROM releases ORDER BY step) "
            "GROUP BY plan_id"
        ).fetchall()
        spending = database.execute(
            "SELECT budgets.budget_id, budgets.metric, charges.dp_event FROM charges "
            "JOIN budgets ON budgets.budget_id = charges.budget_id"
        ).fetchall()
        grants = Counter(name for (name,) in database.execute("SELECT budget_id FROM grants"))
        sequence = [seq for (seq,) in database.execute("SELECT seq FROM entries ORDER BY seq")]
    problems = [f"{name}: charged {times} times" for name, times in charged.items() if times != 1]
    problems += [f"{name}: a plan without a charge" for name in plans.keys() - charged.keys()]
    steps = {name: [int(one) for one in text.split(",")] for name, text in released}
    problems += [f"{name}: a release without a charge" for name in steps.keys() - charged.keys()]
    for name, kind in plans.items():
        taken = steps.get(name, [])
        if kind in ("single", "growth") and not taken:
            problems.append(f"{name}: a charge without a release")
        if taken != list(range(len(taken))) and kind != "live":
            problems.append(f"{name}: releases of steps {taken}, not one after the other")
    if sequence != list(range(1, len(sequence) + 1)):
        problems.append("the entries are not numbered one after the other")
    return [*problems, *_over_cap(spending, grants, caps)]


def _over_cap(
    spending: Iterable[tuple[str, str, str]],
    grants: Mapping[str, int],
    caps: Mapping[str, Fraction],
) -> list[str]:
    """The budgets of pure charges that hold more than their cap and their grants."""
    spent: dict[tuple[str, str], Fraction] = {}
    for budget_id, metric, event in spending:
        if metric in caps:
            name = (budget_id, metric)
            spent[name] = spent.get(name, Fraction(0)) + _pure_epsilon(json.loads(event))
    return [
        f"{budget_id}: spent {total} of {caps[metric] * (1 + grants.get(budget_id, 0))}"
        for (budget_id, metric), total in spent.items()
        if total > caps[metric] * (1 + grants.get(budget_id, 0))
    ]


def _pure_epsilon(event: Mapping[str, Any]) -> Fraction:
    """The epsilon of a charge that has no delta."""
    return Fraction(event["epsilon"]) * int(event["count"])


def _answer(step: Batch, *, rejected: int, duplicate: int) -> dict[str, int]:
    """The numbers of an answer; late events count as accepted here."""
    return {
        "received": len(step.items),
        "accepted": len(step.items) - rejected - duplicate,
        "duplicate": duplicate,
        "rejected_count": rejected,
    }


def _count(books: Books, asked: Question) -> int:
    if asked.first == asked.last and asked.label is None:
        return books.active[asked.first]
    return books.count(asked.first, asked.last, label=asked.label)


def changed_bodies(known: Mapping[str, Any], found: Sequence[Mapping[str, Any]]) -> list[str]:
    """Releases that were seen before and are gone, or are not what they were."""
    now = {one["release_id"]: dict(one) for one in found}
    gone = [f"{name}: the release is gone" for name in known.keys() - now.keys()]
    return gone + [
        f"{name}: the release changed from {body} to {now[name]}"
        for name, body in known.items()
        if name in now and now[name] != body
    ]
