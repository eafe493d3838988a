"""Hostile streams through the real store, user by user: each stays in the class, and under Δ².

Every user has segment values of their own, so one store tells what each of them contributes. No
noise is added, and every check is in integers.
"""

import datetime as dt
import functools
import itertools
import random
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest

from dpdau.activity import folding, months, rotation, upkeep
from dpdau.activity.change import StoreLimits
from dpdau.activity.counting import window_keys
from dpdau.activity.embedded import EmbeddedStore
from dpdau.activity.held import HELD
from dpdau.activity.labels import LABELS
from dpdau.activity.masks import page_of
from dpdau.activity.month_view import MonthView
from dpdau.activity.runs import Rows
from dpdau.domain import Event, Metric, Op, Segment, day_number
from dpdau.mechanisms.matrix.classes import ContributionClass
from dpdau.mechanisms.matrix.strategies import shipped
from stores import folder_in_memory
from strategies import LabeledEvent, batch

SEED = 20260201
MONTH, FIRST, HORIZON = "2026-02", dt.date(2026, 2, 1), 28
WINDOWS = (7, 30, 1)
METRICS = (Metric.WAU, Metric.MAU, Metric.DAU)
USERS, MUTANT_USERS = 300, 80
ROTATIONS = (6, 15)
PURGE_DAY = 20
NOW = dt.datetime(2026, 3, 1, tzinfo=dt.UTC)
LIMITS = StoreLimits(direct_rows_min=600, pending_commits_max=40, part_rows_min=6000)


@dataclass(frozen=True)
class Act:
    """One thing that one user does on one day of the stream."""

    user: int
    what: str
    offset: int


@pytest.fixture
def folder(tmp_path: Path) -> Iterator[Path]:
    """A folder in memory where the system has one."""
    with folder_in_memory(otherwise=tmp_path) as found:
        yield found


def acts(user: int, today: int, seeded: random.Random) -> list[Act]:
    """What a user does on one day; one kind of user in eight does only the worst of one kind."""
    kind = user % 8
    if kind == 0:
        # Yesterday comes, goes and comes again, after it was fixed; the user is on and off it.
        whats = ["late plus", "late minus"] if today % 2 else ["late minus"]
        return [Act(user, what, today - 1) for what in whats]
    if kind == 1:
        # Active and taken back every few days, so that runs would get as short as they can.
        return [Act(user, "plus", today)] if today % 3 == 0 else [Act(user, "all back", today)]
    if kind == 2:
        # Erased and back again, day after day.
        return [Act(user, ("plus", "erase", "plus")[today % 3], today)]
    found = []
    for _ in range(seeded.choice([0, 0, 1, 1, 2, 4])):
        what = seeded.choice(["plus"] * 4 + ["late plus", "late minus"] * 3 + ["minus", "all back"])
        if seeded.random() < 0.012:
            what = "erase"
        late = max(-32, today - seeded.choice([1, 1, 2, 5, 7, 8, 20, 31]))
        found.append(Act(user, what, late if what.startswith("late") else today))
    return found


class Stream:
    """Drives one store through a month, and remembers what each user contributed."""

    def __init__(self, root: Path, users: int) -> None:
        self.store = EmbeddedStore(root, clock=lambda: NOW, limits=LIMITS)
        self._users = users
        self._epoch = 0
        self._seeded = random.Random(SEED)
        self._segments = [
            Segment("who", _label(user, tag)) for user in range(users) for tag in "ab"
        ]
        self.everyone = np.zeros((HORIZON, len(WINDOWS)), dtype=np.int64)
        self.series = np.zeros((2 * users, HORIZON, len(WINDOWS)), dtype=np.int64)

    def run(self) -> "Stream":
        """The days before the month, then each day of it, fixed and counted at its end."""
        for offset in range(-32, 0, 3):
            some = [user for user in range(self._users) if self._seeded.random() < 0.1]
            self._send([Act(user, "plus", offset) for user in some])
        self.store.open_month(MONTH, lookback_days=30, dimensions=["who"])
        for today in range(HORIZON):
            self._epoch += today in ROTATIONS
            todo = [act for user in range(self._users) for act in acts(user, today, self._seeded)]
            self._seeded.shuffle(todo)
            self._send(todo)
            if today == PURGE_DAY:
                self.store.purge_before(FIRST + dt.timedelta(days=today))
            day = FIRST + dt.timedelta(days=today)
            self.store.freeze(MONTH, day)
            table = self.store.contributions(
                MONTH, day, window_days=WINDOWS, segments=self._segments
            )
            self.everyone[today], self.series[:, today] = table[0], table[1:]
        self.store.close()
        return self

    def _send(self, todo: list[Act]) -> None:
        """Events go in batches; erasures cut them."""
        cut = sorted({0, len(todo), *(self._seeded.randint(0, len(todo)) for _ in range(4))})
        for start, stop in itertools.pairwise(cut):
            some = todo[start:stop]
            gone = sorted({act.user for act in some if act.what == "erase"})
            before = [one for act in some if act.user not in gone for one in self._events(act)]
            after = [one for act in some if act.user in gone for one in self._events(act)]
            self.store.apply(batch(before, alias=self._older))
            if gone:
                live = range(self._epoch + 1)
                self.store.forget([_name(user, epoch) for user in gone for epoch in live])
            self.store.apply(batch(after, alias=self._older))

    def _events(self, act: Act) -> list[LabeledEvent]:
        """The events of an act; the label of a user changes with the month."""
        who = _name(act.user, self._epoch)
        if act.what == "erase":
            return []
        if act.what == "all back":
            days = range(max(act.offset - 30, -32), act.offset + 1)
            return [(Event(who, Op.REMOVE, day_number(FIRST) + one), {}) for one in days]
        op = Op.ADD if act.what.endswith("plus") else Op.REMOVE
        label = _label(act.user, "a" if act.offset < 0 else "b")
        return [(Event(who, op, day_number(FIRST) + act.offset), {"who": label})]

    def _older(self, name: int) -> list[int]:
        """The same user under the older keys, newest first."""
        user = (name >> 8) & 0xFFFF
        return [_name(user, epoch) for epoch in range(self._epoch)][::-1]


def _name(user: int, epoch: int) -> int:
    """A pseudonym that spreads over the parts and says whose it is."""
    return (user * 7 + epoch * 5) % 16 << 60 | user << 8 | epoch


def _label(user: int, tag: str) -> str:
    """One of the two values that only this user has."""
    return f"{user}-{tag}"


def problems(stream: Stream) -> list[str]:
    """What is wrong with the contributions of the users, in words; nothing if all is well."""
    whole, part = stream.series[::2] + stream.series[1::2], stream.series
    found = []
    if not (stream.everyone == whole.sum(axis=0)).all():
        found.append("a user is in no segment or in two")
    if (part[::2].any(axis=(1, 2)) & part[1::2].any(axis=(1, 2))).any():
        found.append("a user changed the segment")
    vectors = np.unique(whole.reshape(len(whole), -1), axis=0)
    if vectors.max() > 1:
        found.append("a user counts more than once")
        return found
    strategy = shipped(HORIZON, 30).strategy
    assert METRICS == strategy.metrics
    image = strategy.matrix.astype(object) @ vectors.T.astype(object)
    if int((image * image).sum(axis=0).max()) > strategy.sensitivity_squared:
        found.append("a user moves the releases by more than the sensitivity")
    contribution, members = _class()
    bits = vectors.reshape(-1, HORIZON, 3).astype(np.uint8)
    windows, daily = bits[:, :, :2].reshape(len(bits), -1), bits[:, :, 2]
    listed = [row.tobytes() in members for row in np.packbits(windows, axis=1)]
    if not all(listed) or not contribution.possible(windows, daily).all():
        found.append("a user left the class")
    return found


@functools.cache
def _class() -> tuple[ContributionClass, frozenset[bytes]]:
    """The class, and its series as packed bits."""
    contribution = ContributionClass(HORIZON, (7, 30), daily=True, erasure=True)
    packed = np.packbits(contribution.series(), axis=1)
    return contribution, frozenset(row.tobytes() for row in packed)


def test_every_user_stays_in_the_class(folder: Path) -> None:
    """Late, taken back, erased, back again, renamed, in every order: |A v|² ≤ Δ², in the class."""
    stream = Stream(folder, USERS).run()
    whole = stream.series[::2] + stream.series[1::2]

    assert [] == problems(stream), f"seed {SEED}"
    # The streams are worth something: many different series, erased ones and both kinds of label.
    assert len({row.tobytes() for row in whole}) > USERS // 2
    assert (whole[:, :-1, 1].any(axis=1) & ~whole[:, -1, 1].astype(bool)).sum() > USERS // 10
    assert stream.series[::2].any(axis=(1, 2)).sum() > USERS // 10
    assert stream.series[1::2].any(axis=(1, 2)).sum() > USERS // 10


def late_not_held(patch: pytest.MonkeyPatch) -> None:
    """Late events change days that were fixed."""
    patch.setattr(folding, "has_late", lambda *_: False)


def no_tombstone(patch: pytest.MonkeyPatch) -> None:
    """An erased user who comes back counts again."""
    patch.setattr(upkeep, "tombstones", lambda *_: {})


def tombstone_lost(patch: pytest.MonkeyPatch) -> None:
    """A rotation does not move what is held."""
    real = rotation.moves
    patch.setattr(folding.rotation, "moves", lambda *some: {**real(*some), HELD: {}})


def not_sticky(patch: pytest.MonkeyPatch) -> None:
    """Each day gives every user the label of the day."""

    class Restless(MonthView):
        def _newcomers(self, part: int, day: int) -> np.ndarray:
            first = day - 30 + 1
            pages = range(page_of(first), page_of(day) + 1)
            return window_keys({page: self._page(part, page) for page in pages}, first, day)

        def plan_labels(self, day: int, dimensions: list[int]) -> dict[int, Rows]:
            # A code of -(c) - 2 says: forget the value, then it is c.
            fixed = super().plan_labels(day, dimensions)
            return {group: Rows(rows.key, (-rows.values[0] - 2,)) for group, rows in fixed.items()}

    assert LABELS.columns[0][1] == "<i4"
    patch.setattr(months, "MonthView", Restless)


def purged_too_early(patch: pytest.MonkeyPatch) -> None:
    """Retention takes the days that the month still counts."""
    real = upkeep.dropping_days, upkeep.stale_days
    first = day_number(FIRST) + PURGE_DAY
    patch.setattr(upkeep, "dropping_days", lambda _day: real[0](first))
    patch.setattr(upkeep, "stale_days", lambda _day: real[1](first))


@pytest.mark.parametrize(
    ("bug", "problem"),
    [
        (late_not_held, "a user moves the releases by more than the sensitivity"),
        (no_tombstone, "a user moves the releases by more than the sensitivity"),
        (tombstone_lost, "a user left the class"),
        (not_sticky, "a user changed the segment"),
        (purged_too_early, "a user moves the releases by more than the sensitivity"),
    ],
)
def test_each_planted_bug_is_found(
    folder: Path,
    monkeypatch: pytest.MonkeyPatch,
    bug: Callable[[pytest.MonkeyPatch], None],
    problem: str,
) -> None:
    """Each mistake that would break the promise turns the check red, for the right reason."""
    bug(monkeypatch)

    assert problem in problems(Stream(folder, MUTANT_USERS).run())


def test_the_mutants_differ_only_by_their_bug(folder: Path) -> None:
    """The smaller streams are clean without a bug, so that it is the bug that is found."""
    assert [] == problems(Stream(folder, MUTANT_USERS).run())
