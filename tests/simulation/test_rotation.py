"""Real data through the product while its pseudonym keys change: nobody is counted twice or lost.

The clock follows the days of the data, so keys are made, moved from and destroyed on the way. The
counts are compared with a recount by plain sets that knows no key, day by day.
"""

import datetime as dt
import functools
import random
import secrets
import statistics
from collections import defaultdict
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from dpdau.activity import folding
from dpdau.activity.turnstile import Turnstile
from dpdau.app import App
from dpdau.app import erasures as erasing
from dpdau.domain import Event, Metric, Op, day_number
from dpdau.errors import InvalidPlanError
from dpdau.ingest import datasets, rules
from dpdau.ingest.decoded import DecodedTable
from dpdau.ingest.event import decode_objects
from dpdau.pseudonym import Keyring, Overlap
from products import ZeroNoise, event, product_settings
from stores import folder_in_memory

SEED = 20260401
WINDOWS = {Metric.DAU: 1, Metric.WAU: 7, Metric.MAU: 30}
NOON = dt.time(12, tzinfo=dt.UTC)
ONE_DAY = dt.timedelta(days=1)
NEVER = 3650
LATER = rules.Rules(dt.date(2020, 1, 1))

Days = dict[dt.date, list[str]]


@functools.cache
def active_days(name: str) -> Days:
    """Who was active on each day of a real data set."""
    reader = {"cdnow": datasets.read_cdnow, "nycflights": datasets.read_nycflights}[name]
    active: dict[dt.date, set[str]] = defaultdict(set)
    for chunk in reader(rules=LATER):
        assert isinstance(chunk.decoded, DecodedTable)
        users = np.array([one.decode() for one in chunk.decoded.user_ids.to_pylist()])
        for day in np.unique(chunk.decoded.day).tolist():
            who = users[np.unique(chunk.decoded.user[chunk.decoded.day == day])]
            active[dt.date(1970, 1, 1) + day * ONE_DAY] |= set(who.tolist())
    return {day: sorted(active[day]) for day in sorted(active)}


def sample(name: str, days: int = 130) -> Days:
    """The first days of a data set; of the aircraft, which fly all the time, one in eight."""
    kept = list(active_days(name).items())[:days]
    if name == "cdnow":
        return dict(kept)
    return {day: [who for who in users if ord(who[-1]) % 8 == 0] for day, users in kept}


@dataclass
class Clock:
    """A clock that is set."""

    now: dt.datetime

    def __call__(self) -> dt.datetime:
        """The time."""
        return self.now

    def noon(self, day: dt.date) -> None:
        """Sets it to the noon of a day."""
        self.now = dt.datetime.combine(day, NOON)


@contextmanager
def product_at(root: Path, day: dt.date, **changes: object) -> Iterator[tuple[App, Clock]]:
    """A product that has its directory to itself, as a service has, and its clock."""
    clock = Clock(dt.datetime.combine(day, NOON))
    opened = App.open(
        product_settings(root, **changes),
        clock=clock,
        noise=ZeroNoise(),
        serve_at="http://127.0.0.1:1",
        reported=False,
    )
    with opened.closing() as app:
        yield app, clock


@pytest.fixture
def folder(tmp_path: Path) -> Iterator[Path]:
    """A folder in memory where the system has one."""
    with folder_in_memory(otherwise=tmp_path) as found:
        yield found


@dataclass
class Run:
    """What one run over a data set did, and what has to come out of it.

    `written` has the key under which each user's rows lie, and `tied` the days that lie there: an
    event under a new key takes them along, unless their key is destroyed by then.
    """

    active: dict[dt.date, set[str]] = field(default_factory=lambda: defaultdict(set))
    written: dict[str, int] = field(default_factory=dict)
    tied: dict[str, set[dt.date]] = field(default_factory=lambda: defaultdict(set))
    rejected: int = 0
    keys_made: int = 0
    keys_destroyed: int = 0
    live_keys_max: int = 0
    problems: list[str] = field(default_factory=list)

    def take(self, who: str, day: dt.date, keys: tuple[int, ...], op: str = "+") -> None:
        """One event that was accepted under some live keys."""
        if self.written.get(who) not in keys:
            self.tied[who].clear()
        self.written[who] = keys[0]
        if op == "+":
            self.active[day].add(who)
            self.tied[who].add(day)
        elif day in self.tied[who]:
            self.active[day].discard(who)

    def windows(self, first: dt.date, last: dt.date) -> dict[Metric, list[int]]:
        """The recount."""
        days = [first + back * ONE_DAY for back in range((last - first).days + 1)]
        none: set[str] = set()
        return {
            metric: [
                len(none.union(*(self.active.get(t - back * ONE_DAY, none) for back in range(w))))
                for t in days
            ]
            for metric, w in WINDOWS.items()
        }

    def daily_salted(self, last: dt.date) -> int:
        """The MAU of a counter whose users have another name every day."""
        return sum(len(self.active.get(last - back * ONE_DAY, ())) for back in range(30))


def drive(root: Path, days: Days, distance: int, *, disturbed: bool) -> Run:
    """Sends each day on its day, with retractions and erasures; checks the counts at the end.

    Retractions are for days of the past, on time and late; erasures are of anyone, seen long ago or
    not. Both fall on days on which the user's rows lie under an older key.
    """
    seeded, run = random.Random(SEED), Run()
    first, last = min(days), max(days)
    known: list[str] = []
    with product_at(root, first, HASH_SALT_ROTATION_DAYS=distance) as (app, clock):
        for offset in range((last - first).days + 1):
            day = first + offset * ONE_DAY
            clock.noon(day)
            events = [event(who, day) for who in days.get(day, [])]
            names = app.keys.pseudonymizer().epoch_ids
            run.live_keys_max = max(run.live_keys_max, len(names))
            for who in days.get(day, []):
                run.take(who, day, names)
            known += days.get(day, [])[:3]
            if disturbed and offset % 3 == 0 and known:
                for who in seeded.sample(known, min(4, len(known))):
                    back = max(first, day - seeded.choice([0, 1, 2, 2, 2]) * ONE_DAY)
                    events.append(event(who, back, "-"))
                    run.take(who, back, names, op="-")
            report = app.ingest(decode_objects(events, rules=app.rules()))
            run.rejected += report.rejected_count
            if disturbed and offset % 5 == 4:
                erase(app, run, seeded.choice(known))
        counted = app.exact(WINDOWS, first, last, reason="test")
        log = app.ledger.audit_log(limit=5000)
    actions = [one.action for one in log]
    run.keys_made, run.keys_destroyed = (
        actions.count("key_rotated"),
        actions.count("key_destroyed"),
    )
    expected = run.windows(first, last)
    run.problems += [
        f"{metric} differs on {sum(ours != theirs)} days"
        for metric in WINDOWS
        if (ours := counted[metric]).tolist() != (theirs := np.array(expected[metric])).tolist()
    ]
    return run


def erase(app: App, run: Run, who: str) -> None:
    """Erases a user: what can be tied to them goes, and nothing is left under any live key."""
    app.erase(who)
    if app._store.forget(app.keys.pseudonymizer().one(who)):
        run.problems.append("an erasure leaves days under a live key")
    if run.written.get(who) in app.keys.pseudonymizer().epoch_ids:
        for day in run.tied[who]:
            run.active[day].discard(who)
    run.tied[who].clear()


@pytest.mark.parametrize("distance", [1, 7, 30, NEVER])
@pytest.mark.parametrize("name", ["cdnow", "nycflights"])
def test_counts_over_rotations_are_those_without(name: str, distance: int, folder: Path) -> None:
    """DAU, WAU and MAU of every day are exact, with retractions and erasures on the way."""
    run = drive(folder, sample(name), distance, disturbed=True)

    assert [] == run.problems, f"seed {SEED}"
    assert 0 == run.rejected
    assert distance == NEVER or run.keys_destroyed > 0
    assert run.live_keys_max == (1 if distance == NEVER else -(-67 // distance) + 1)


@pytest.mark.parametrize(
    ("name", "inflation"), [("cdnow", 1.27), ("nycflights", 6.57)], ids=["cdnow", "nycflights"]
)
def test_a_name_for_every_day_would_inflate(name: str, inflation: float) -> None:
    """The MAU of a counter with daily names, over what is true, on the median day: not 1.000."""
    run = Run()
    for day, users in active_days(name).items():
        run.active[day] = set(users)
    first, last = min(run.active) + 29 * ONE_DAY, max(run.active)
    true = run.windows(first, last)[Metric.MAU]
    shown = [run.daily_salted(first + back * ONE_DAY) for back in range(len(true))]

    assert inflation == round(statistics.median(np.array(shown) / np.array(true)), 2)


def too_early(patch: pytest.MonkeyPatch) -> None:
    """A key is destroyed weeks before its overlap is over, and the cut-off says nothing of it."""
    patch.setattr(Overlap, "ends", lambda _self, newer: newer.effective + 9 * ONE_DAY)
    patch.setattr(Overlap, "cutoff", lambda _self, newer: newer.effective)


def rows_stay(patch: pytest.MonkeyPatch) -> None:
    """Rows under an old name are not moved."""
    patch.setattr(folding.rotation, "moves", lambda *_: {})


def newest_only(patch: pytest.MonkeyPatch) -> None:
    """An erased user is looked for under the newest key alone."""
    real = erasing.erasure.erase

    def erase_one(store: object, pseudonyms: tuple[int, ...], **more: object) -> object:
        return real(store, pseudonyms[:1], **more)

    patch.setattr(erasing.erasure, "erase", erase_one)


@pytest.mark.parametrize(
    ("bug", "problem"),
    [
        (too_early, "mau differs"),
        (rows_stay, "mau differs"),
        (newest_only, "an erasure leaves days under a live key"),
    ],
)
def test_each_planted_bug_is_found(
    folder: Path,
    monkeypatch: pytest.MonkeyPatch,
    bug: Callable[[pytest.MonkeyPatch], None],
    problem: str,
) -> None:
    """Each mistake turns the check red, for the right reason."""
    bug(monkeypatch)
    run = drive(folder, sample("nycflights", 60), 7, disturbed=True)

    assert any(one.startswith(problem) for one in run.problems), run.problems


def planned(root: Path, distance: int) -> list[tuple[str, dt.date, int]]:
    """What month plans publish, without noise, of users who come late, are erased, and return."""
    seeded, first = random.Random(SEED), dt.date(2026, 1, 1)
    changes = {"HASH_SALT_ROTATION_DAYS": distance, "RELEASE_POLICY": "plan"}
    with product_at(root, first, **changes) as (app, clock):
        for offset in range(75):
            day = first + offset * ONE_DAY
            clock.noon(day)
            app.take_due()
            events = [
                event(f"u{who}", max(first, day - late * ONE_DAY), op)
                for who in range(30)
                if seeded.random() < 0.2
                for late, op in [seeded.choice([(0, "+"), (0, "+"), (3, "+"), (2, "-"), (5, "-")])]
            ]
            app.ingest(decode_objects(events, rules=app.rules()))
            if offset % 2:
                app.erase(f"u{seeded.randrange(30)}")
        found = app.series(list(WINDOWS), first, first + 80 * ONE_DAY)
    return [(one.release.metric, one.release.window.end, one.release.estimate) for one in found]


def test_plans_publish_the_same_over_rotations(folder: Path) -> None:
    """Fixed days, held bits and tombstones go along under every new name."""
    without = planned(folder / "without", NEVER)

    assert without == planned(folder / "daily", 1)
    assert without == planned(folder / "now and then", 9)
    assert 3 * (31 + 28 + 14) == len(without)
    assert len({estimate for *_, estimate in without}) > 10


Arrival = tuple[int, str, int, str]
"""When it comes, of whom, how late it is, and what it does."""
ARRIVALS = st.lists(
    st.tuples(
        st.integers(0, 160),
        st.sampled_from("abc"),
        st.sampled_from([-1, 0, 0, 0, 1, 2, 3, 30, 66, 67, 90]),
        st.sampled_from("++-"),
    ),
    min_size=1,
    max_size=25,
)


@given(arrivals=ARRIVALS, distance=st.sampled_from([1, 5, 30, 64, 90]))
@settings(
    max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
def test_any_stream_counts_as_without_rotation(
    folder: Path, arrivals: list[Arrival], distance: int
) -> None:
    """What is accepted folds to the same counts, in every window that can be asked for."""
    first, state = dt.date(2026, 1, 1), Turnstile()
    root = folder / secrets.token_hex(8)
    with product_at(root, first, HASH_SALT_ROTATION_DAYS=distance) as (app, clock):
        for offset, who, late, op in sorted(arrivals, key=lambda one: one[0]):
            clock.noon(first + offset * ONE_DAY)
            day = clock().date() - late * ONE_DAY
            report = app.ingest(decode_objects([event(who, day, op)], rules=app.rules()))
            assert report.rejected_count == (day < app.keys.pseudonymizer().first_day)
            if not report.rejected_count:
                state.update(Event(ord(who), Op(op), day_number(day)))
        span = {"first": first - 95 * ONE_DAY, "last": first + 225 * ONE_DAY}
        ours = app._store.counts(**span, window_days=(1, 7, 30, 64))

    assert state.counts(**span, window_days=(1, 7, 30, 64)).tolist() == ours.tolist()


def names_in_a_window(root: Path, old: tuple[int, int], new: tuple[int, int]) -> int:
    """How often one user counts who comes before a rotation, and again after its old key is gone.

    Both are (day of arrival, how far the event's day is from the border): days of arrival count
    from that of the rotation and from that of the destruction, event days from the day after the
    rotation, and from the cut-off.
    """
    rotation = dt.date(2026, 4, 11)
    clock = Clock(dt.datetime.combine(rotation, NOON))
    settings_ = product_settings(root, HASH_SALT_ROTATION_DAYS=100)

    def send(app: App, arrival: dt.date, day: dt.date) -> None:
        clock.noon(arrival)
        app.ingest(decode_objects([event("ada", day)], rules=app.rules()))

    clock.noon(rotation - 100 * ONE_DAY)
    # A command that began before the rotation and goes on after it keeps its key.
    with App.open(settings_, clock=clock, noise=ZeroNoise(), reported=False).closing() as app:
        send(app, rotation + old[0] * ONE_DAY, rotation + (1 + old[1]) * ONE_DAY)
    with product_at(root, rotation, HASH_SALT_ROTATION_DAYS=100) as (app, clock):
        app.take_due()
        clock.noon(rotation + (1 + 64 + 2) * ONE_DAY)
        app.take_due()
        send(
            app,
            rotation + (1 + 64 + 2 + new[0]) * ONE_DAY,
            rotation + (1 + 64 + new[1]) * ONE_DAY,
        )
        span = {"first": rotation - 3 * ONE_DAY, "last": rotation + 140 * ONE_DAY}
        counted = app._store.counts(**span, window_days=(1, 7, 30, 63, 64))
        assert (2,) == app.keys.pseudonymizer().epoch_ids
    return int(counted.max())


@given(
    old=st.tuples(st.integers(-2, 0), st.integers(-3, 0)),
    new=st.tuples(st.integers(0, 2), st.integers(-3, 3)),
)
@settings(
    max_examples=20, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
def test_one_user_moves_a_window_by_one_at_most(
    folder: Path, old: tuple[int, int], new: tuple[int, int]
) -> None:
    """Whatever days around the rotation, the cut-off and the destruction the events are of."""
    assert 2 > names_in_a_window(folder / secrets.token_hex(8), old, new)


def ignored(patch: pytest.MonkeyPatch) -> None:
    """Events before the cut-off are taken."""
    patch.setattr(Keyring, "first_day", dt.date.min)


def a_day_too_early(patch: pytest.MonkeyPatch) -> None:
    """The cut-off is one day before its place."""
    real = Overlap.cutoff
    patch.setattr(Overlap, "cutoff", lambda self, newer: real(self, newer) - ONE_DAY)


@pytest.mark.parametrize("bug", [ignored, a_day_too_early])
def test_the_cutoff_is_where_it_has_to_be(
    folder: Path, monkeypatch: pytest.MonkeyPatch, bug: Callable[[pytest.MonkeyPatch], None]
) -> None:
    """On the very border one user counts once, and with the cut-off elsewhere twice."""
    assert 1 == names_in_a_window(folder / "right", (0, 0), (0, -1))
    with monkeypatch.context() as patch:
        bug(patch)
        assert 2 == names_in_a_window(folder / "wrong", (0, 0), (0, -1))


def test_growth_over_a_destroyed_key_is_refused(folder: Path) -> None:
    """Two windows that reach over the gap are refused, and nothing is charged; others are not."""
    first = dt.date(2026, 1, 1)
    with product_at(folder, first, HASH_SALT_ROTATION_DAYS=5, MAU_BUDGET_TOTAL=9.5) as (app, clock):
        for offset in range(80):
            clock.noon(first + offset * ONE_DAY)
            app.take_due()
        spent = app.budget("mau", first + 70 * ONE_DAY).epsilon_spent
        with pytest.raises(InvalidPlanError, match="a key was destroyed"):
            app.growth(first + 77 * ONE_DAY, window_days=40)
        after = app.budget("mau", first + 70 * ONE_DAY).epsilon_spent
        cells = app.growth(first + 77 * ONE_DAY, window_days=32).cells

    assert (spent, 4) == (after, len(cells))
