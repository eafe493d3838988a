"""Work on a data directory that may be cut off at any point, and how to look at what is left."""

import contextlib
import datetime as dt
import functools
import io
import json
import sqlite3
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from dpdau.activity.change import StoreLimits
from dpdau.app import App
from dpdau.cli.root import run
from dpdau.domain import Metric, Scope
from dpdau.errors import StoreUnavailableError
from dpdau.ledger import schema
from products import NOW, event, product, product_settings, send

UNAVAILABLE_CODE = 5
FIRST = dt.date(2026, 2, 20)
LAST = dt.date(2026, 3, 14)
DAYS = (LAST - FIRST).days + 1
USERS = 40
SMALL = (60, 150, 3, 2, 40, 2)
"""Limits so small that a few hundred rows are folded, cut and merged."""


@dataclass(frozen=True)
class Case:
    """One piece of work.

    Attributes:
        prepare: Makes the data directory that the work starts from.
        act: The work; to do it again changes nothing more.
        changes: Settings.
        now: What time it is for the work, and for who looks at it.
        commands: More work, as commands in the folder above the data directory.
    """

    prepare: Callable[[Path], None]
    act: Callable[[App], object]
    changes: dict[str, Any] = field(default_factory=dict)
    now: dt.datetime = NOW
    commands: Callable[[Path], list[str]] = lambda _: []

    @contextmanager
    def open(self, root: Path) -> Iterator[App]:
        """The product as this work uses it."""
        with small_store(), product(root, now=self.now, **self.changes) as app:
            yield app

    def run(self, root: Path) -> None:
        """Does the work.

        Raises:
            StoreUnavailableError: A command ended with the exit code of this error.
        """
        if self.act is not no_act:
            with self.open(root) as app:
                self.act(app)
        product_settings(root, **self.changes)
        for command in self.commands(root):
            code, said = self._run(root, command)
            if code == UNAVAILABLE_CODE:
                raise StoreUnavailableError(said)
            assert code == 0, f"{command}: {code} {said}"

    def _run(self, root: Path, command: str) -> tuple[int, str]:
        """One command; its exit code and what it printed."""
        opened = App.open

        def at_its_time(settings: Any, **options: Any) -> App:
            return opened(settings, **{"clock": lambda: self.now, **options})

        said = io.StringIO()
        App.open = at_its_time  # type: ignore[method-assign, assignment]
        try:
            with (
                small_store(),
                contextlib.chdir(root),
                contextlib.redirect_stdout(said),
                contextlib.redirect_stderr(said),
            ):
                return run(command.split()), said.getvalue()
        finally:
            App.open = opened  # type: ignore[method-assign]


@dataclass(frozen=True)
class State:
    """What is to be seen of a data directory."""

    counts: tuple[tuple[int, ...], ...]
    releases: dict[str, dict[str, Any]]
    charges: int
    problems: tuple[Any, ...]


@contextmanager
def small_store() -> Iterator[None]:
    """Stores that are opened here fold and merge early."""
    make = StoreLimits.__init__
    before = make.__defaults__
    assert before is not None
    make.__defaults__ = (*SMALL, *before[len(SMALL) :])
    try:
        yield
    finally:
        make.__defaults__ = before


def look(case: Case, root: Path) -> State:
    """Starts the product, which mends what it must, and looks around."""
    with case.open(root) as app:
        table = app.exact(
            {Metric.DAU: 1, Metric.WAU: 7, Metric.MAU: 30}, FIRST, LAST, reason="the test looks"
        )
        report = app.ledger.verify()
        released, following = app.releases(after=None, limit=1000)
        assert following is None
        return State(
            counts=tuple(tuple(one.tolist()) for one in table.values()),
            releases={one.release_id: one.to_json() for one in released},
            charges=report.charges,
            problems=report.problems,
        )


def batch(number: int, size: int) -> list[dict[str, Any]]:
    """Seeded events of some of the users, with days that are taken out again."""
    drawn = np.random.default_rng(number)
    made = []
    for _ in range(size):
        day = FIRST + dt.timedelta(days=int(drawn.integers(DAYS)))
        op = "+" if drawn.random() < 0.8 else "-"
        made.append(
            event(
                f"user-{drawn.integers(USERS)}",
                day,
                op,
                event_id=f"{number}-{drawn.integers(1 << 40)}",
                metadata={"platform": "ios"},
            )
        )
    return made


def filled(root: Path, **changes: Any) -> None:
    """A data directory with events, of which some wait and some are in files."""
    with small_store(), product(root, **{**SETTINGS, **changes}) as app:
        for number in range(6):
            send(app, batch(number, 70), batch_id=f"before-{number}")


def with_release(root: Path, **changes: Any) -> None:
    """The same, and a number is released."""
    filled(root, **changes)
    with product(root, **{**SETTINGS, **changes}) as app:
        app.release(Metric.DAU, FIRST)


def with_plan(root: Path) -> None:
    """The same under an open plan of which some days are taken."""
    filled(root, **PLAN)
    with small_store(), product(root, **PLAN) as app:
        app.open_month("2026-03")
        app.release(Metric.DAU, dt.date(2026, 3, 5))


def with_last_days(root: Path) -> None:
    """The same with all days but the last one taken."""
    with_plan(root)
    with small_store(), product(root, now=AFTER_MARCH, **PLAN) as app:
        app.release(Metric.DAU, dt.date(2026, 3, 30))


def with_older_ledger(root: Path) -> None:
    """The ledger is one of the first release."""
    listed, schema.REVISIONS = schema.REVISIONS, schema.REVISIONS[:1]
    try:
        with product(root, **SETTINGS) as app:
            app.ledger.keys.create("before", [Scope.READ], None)
    finally:
        schema.REVISIONS = listed
    with closing(sqlite3.connect(root / "data" / "ledgers" / "ledger.sqlite")) as database:
        assert [("0001",)] == database.execute("SELECT * FROM alembic_version").fetchall()


def nothing(root: Path) -> None:
    """No data directory at all."""
    root.mkdir(exist_ok=True)


def ingest(number: int, size: int) -> Callable[[App], object]:
    """One batch."""
    return lambda app: send(app, batch(number, size), batch_id=f"batch-{number}")


def several(app: App) -> None:
    """Batches that make the store fold, cut and merge."""
    for number in range(50, 56):
        send(app, batch(number, 100), batch_id=f"batch-{number}")


def erase(app: App) -> None:
    """Two users go, unless they are gone."""
    for user in ("user-1", "user-2"):
        app.erase(user)


def no_act(_: App) -> None:
    """For work that is commands alone."""


def backup(root: Path) -> list[str]:
    """A copy of everything, unless it is there, and proof that it can be brought back."""
    copy = root / "data" / "backups" / "copy"
    made = [] if copy.exists() else [f"backup --all --to {copy}"]
    return [*made, f"restore {copy} --verify"]


def with_file(root: Path) -> None:
    """A filled data directory, and a file of events."""
    filled(root)
    lines = [json.dumps(one) for one in batch(70, 400)]
    (root / "events.ndjson").write_text("\n".join(lines))


def with_erased(root: Path) -> None:
    """A filled data directory whose last act was an erasure."""
    filled(root)
    with small_store(), product(root, **SETTINGS) as app:
        app.erase("user-3")


def rotated(app: App) -> None:
    """The key is replaced, and users come back under the new one."""
    assert app.keys.age_days() == 0
    send(app, batch(60, 60), batch_id="batch-60")


SETTINGS: dict[str, Any] = {"DIMENSIONS": "platform"}
PLAN: dict[str, Any] = {**SETTINGS, "RELEASE_POLICY": "plan"}
AFTER_MARCH = dt.datetime(2026, 4, 3, 12, 0, tzinfo=dt.UTC)
AFTER_ROTATION = NOW + dt.timedelta(days=3)
CLOSED = LAST - dt.timedelta(days=2)
CASES: dict[str, Case] = {
    "first start": Case(nothing, ingest(40, 10), SETTINGS),
    "write": Case(filled, ingest(40, 30), SETTINGS),
    "write a file": Case(filled, ingest(40, 120), SETTINGS),
    "fold and merge": Case(filled, several, SETTINGS),
    "charge": Case(with_release, lambda app: app.release(Metric.MAU, CLOSED), SETTINGS),
    "growth": Case(with_release, lambda app: app.growth(CLOSED, window_days=7), SETTINGS),
    "open a plan": Case(
        functools.partial(filled, **PLAN), lambda app: app.open_month("2026-03"), PLAN
    ),
    "step": Case(with_plan, lambda app: app.release(Metric.DAU, CLOSED), PLAN),
    "end a plan": Case(
        with_last_days,
        lambda app: app.release(Metric.MAU, dt.date(2026, 3, 31)),
        PLAN,
        AFTER_MARCH,
    ),
    "erase": Case(filled, erase, SETTINGS),
    "erase under a plan": Case(with_plan, erase, PLAN),
    "backup": Case(with_release, no_act, SETTINGS, commands=backup),
    "bulk": Case(with_file, no_act, SETTINGS, commands=lambda _: ["ingest --from events.ndjson"]),
    "flush": Case(with_erased, no_act, SETTINGS, commands=lambda _: ["flush-deletes --verify"]),
    "migrate": Case(with_older_ledger, lambda app: app.ledger.verify(), SETTINGS),
    "rotate": Case(
        functools.partial(filled, HASH_SALT_ROTATION_DAYS=2),
        rotated,
        {**SETTINGS, "HASH_SALT_ROTATION_DAYS": 2},
        AFTER_ROTATION,
    ),
    "purge": Case(
        filled, ingest(40, 5), {**SETTINGS, "RETENTION_DAYS": 32}, NOW + dt.timedelta(days=20)
    ),
}
