"""Hostile streams through the real store: each user's live series, tick by tick, stays under Δ².

Every user has a store of their own, so its live count is what the user adds. No noise is added,
and every check is in integers.
"""

import datetime as dt
import random
from collections.abc import Callable, Iterator
from functools import cache
from pathlib import Path

import numpy as np
import pytest

from dpdau.activity import folding, rotation, upkeep
from dpdau.activity.embedded import EmbeddedStore
from dpdau.activity.held import HELD
from dpdau.domain import Event, Op, day_number
from dpdau.mechanisms.matrix.lattice import LatticeStrategy
from dpdau.mechanisms.matrix.live import live_strategy
from stores import folder_in_memory
from strategies import batch

SEED = 20260226
FIRST, DAYS, TICKS = dt.date(2026, 2, 26), 2, 12
USERS, MUTANT_USERS = 12, 6
NOW = dt.datetime(2026, 2, 26, tzinfo=dt.UTC)


@pytest.fixture
def folder(tmp_path: Path) -> Iterator[Path]:
    """A folder in memory where the system has one."""
    with folder_in_memory(otherwise=tmp_path) as found:
        yield found


@cache
def strategy() -> LatticeStrategy:
    """The strategy of a day."""
    return live_strategy(TICKS)


def series(root: Path, user: int) -> np.ndarray:
    """(days, ticks) what a user adds to the live counts, who comes and goes at every tick."""
    seeded = random.Random(SEED + user)
    store = EmbeddedStore(root, clock=lambda: NOW)
    found = np.zeros((DAYS, TICKS), dtype=np.int64)
    store.live.open("2026-02")
    epoch = 0
    for number in range(DAYS):
        today = FIRST + dt.timedelta(days=number)
        store.live.begin(today)
        for tick in range(TICKS):
            if user % 3 == 0:
                # On and off, at every tick.
                whats = ["plus"] if tick % 2 == 0 else [("minus", "erase")[user % 2]]
            elif user % 3 == 1:
                # Off at one tick, a new key at the next, and back.
                whats = [["plus"], ["minus"], ["rotate", "plus"]][tick % 3]
            else:
                kinds = ["plus", "plus", "minus", "erase", "rotate", "purge"]
                whats = seeded.choices(kinds, k=seeded.choice([0, 1, 1, 2, 3]))
            for what in whats:
                epoch += what == "rotate"
                if what == "erase":
                    store.forget([_name(user, one) for one in range(epoch + 1)])
                elif what == "purge":
                    store.purge_before(today + dt.timedelta(days=1))
                elif what != "rotate":
                    op = Op.ADD if what == "plus" else Op.REMOVE
                    sent = [Event(_name(user, epoch), op, day_number(today))]
                    older = [_name(user, one) for one in range(epoch)][::-1]
                    store.apply(batch(sent, alias=lambda _name, older=older: older))
            found[number, tick] = store.live.count(today)
    store.close()
    return found


def _name(user: int, epoch: int) -> int:
    """A user's pseudonym under a key."""
    return (user * 7 + epoch * 5) % 16 << 60 | user << 8 | epoch


def problems(found: list[np.ndarray]) -> list[str]:
    """What is wrong with the series of the users, in words; nothing if all is well."""
    told, sensitivity = [], DAYS * strategy().sensitivity_squared
    matrix = strategy().matrix.astype(object)
    for one in found:
        image = matrix @ one.T.astype(object)
        if int((image * image).sum()) > sensitivity:
            told.append("a user moves the ticks by more than the sensitivity")
        steps = np.diff(one, axis=1, prepend=0)
        if one.max(initial=0) > 1 or ((steps > 0).sum(axis=1) > 1).any():
            told.append("a user left the class")
    return sorted(set(told))


def test_every_user_stays_in_the_class(folder: Path) -> None:
    """Come, gone, erased, back and renamed at every tick: 0…0 1…1 0…0 on each day, |A v|² ≤ Δ²."""
    found = [series(folder / str(user), user) for user in range(USERS)]

    assert [] == problems(found), f"seed {SEED}"
    # The streams are worth something: users who left, on both days, and many different series.
    assert len({one.tobytes() for one in found}) > USERS // 3
    assert (np.diff(np.array(found).astype(int), axis=2) < 0).any(axis=2).any(axis=0).all()


def not_held(patch: pytest.MonkeyPatch) -> None:
    """Who is taken out by an event and comes back counts again."""
    patch.setattr(folding, "left_by", lambda *_: {})


def no_tombstone(patch: pytest.MonkeyPatch) -> None:
    """Who is erased and comes back counts again."""
    patch.setattr(upkeep, "out_of", lambda *_: {})


def not_moved(patch: pytest.MonkeyPatch) -> None:
    """A rotation does not move who is out."""
    real = rotation.moves
    patch.setattr(folding.rotation, "moves", lambda *some: {**real(*some), HELD: {}})


@pytest.mark.parametrize("bug", [not_held, no_tombstone, not_moved])
def test_each_planted_bug_is_found(
    folder: Path, monkeypatch: pytest.MonkeyPatch, bug: Callable[[pytest.MonkeyPatch], None]
) -> None:
    """The same check says so when a store lets a user back into the day."""
    bug(monkeypatch)
    found = [series(folder / str(user), user) for user in range(MUTANT_USERS)]

    assert "a user left the class" in problems(found)
    if bug is not not_moved:
        assert "a user moves the ticks by more than the sensitivity" in problems(found)
