"""Small ledgers, budgets, requests and releases for the tests of the ledger."""

import datetime as dt
import json
import secrets
import sqlite3
import tempfile
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import replace
from fractions import Fraction
from pathlib import Path

import pytest

from dpdau.accounting.budget import Budget, FilterName
from dpdau.accounting.events import (
    Charge,
    DiscreteGaussianEvent,
    DiscreteLaplaceEvent,
    DpEvent,
    LatticeGaussianEvent,
)
from dpdau.domain import GROWTH, Metric, NeighboringRelation, Release, Segment, Window
from dpdau.ledger import Ledger, OpenRequest, StepRequest

NOW = dt.datetime(2026, 3, 1, 12, 0, 0, 250, tzinfo=dt.UTC)
DAY = dt.date(2026, 2, 3)
MEMORY = Path("/dev/shm")
DIGEST = "5a" * 32
POSTGRES = pytest.mark.xdist_group("postgres")
"""One worker starts the server once."""
DAY_STEPS = 3
"""Releases of one day of a small month plan."""


class Ticking:
    """A clock that moves one second forward each time it is read."""

    def __init__(self, now: dt.datetime = NOW) -> None:
        self.now = now

    def __call__(self) -> dt.datetime:
        self.now += dt.timedelta(seconds=1)
        return self.now


@contextmanager
def folder_in_memory() -> Iterator[Path]:
    """A folder that is gone afterwards, in memory where the machine has such a place."""
    place = MEMORY if MEMORY.is_dir() else None
    with tempfile.TemporaryDirectory(prefix="ledger-", dir=place) as name:
        yield Path(name)


def url_of(folder: Path) -> str:
    """The ledger under a folder."""
    return f"sqlite:///{file_of(folder)}"


def empty_schema(server: str) -> str:
    """A schema of its own on a Postgres server, as a database without tables."""
    name = f"ledger_{secrets.token_hex(8)}"
    sql(server, f"CREATE SCHEMA {name}")
    return f"{server}?options=-csearch_path%3D{name}"


def sql(url: str, *statements: str) -> list[tuple[object, ...]]:
    """Runs statements on Postgres behind the ledger's back; gives the rows of the last one."""
    import psycopg

    with psycopg.connect(url.replace("+psycopg", ""), autocommit=True) as connection:
        for statement in statements:
            cursor = connection.execute(statement)
        return cursor.fetchall() if cursor.description else []


def file_of(folder: Path) -> Path:
    """The ledger's file under a folder."""
    return folder / "ledgers" / "ledger.sqlite"


def mark_of(folder: Path) -> Path:
    """The mark under a folder, outside the ledger's own."""
    return folder / "ledger.mark.json"


def open_ledger(folder: Path, *, busy_timeout_seconds: float = 30) -> Ledger:
    """The ledger under a folder, made if it is missing."""
    return Ledger(
        url_of(folder),
        mark_path=mark_of(folder),
        clock=Ticking(),
        busy_timeout_seconds=busy_timeout_seconds,
    )


def laplace(epsilon: str = "0.3") -> DiscreteLaplaceEvent:
    """A pure event."""
    return DiscreteLaplaceEvent(epsilon=Fraction(epsilon))


def gaussian(sigma: str = "10", epsilon: str = "10") -> DiscreteGaussianEvent:
    """A Gaussian event of sensitivity 1."""
    return DiscreteGaussianEvent(
        sigma=Fraction(sigma), sensitivity=1, epsilon=Fraction(epsilon), delta=Fraction("1e-6")
    )


def budget(
    metric: Metric = Metric.DAU,
    period: str = "2026-02",
    *,
    cap: str = "3",
    filter_name: FilterName = FilterName.BASIC,
    delta: str = "0",
) -> Budget:
    """A budget as the settings would open it."""
    return Budget(
        budget_id=f"{metric.value}:{period}",
        metric=metric.value,
        period=period,
        filter_name=filter_name,
        epsilon=Fraction(cap),
        delta=Fraction(delta),
    )


def zcdp_budget(metric: Metric = Metric.MAU, period: str = "2026-02", *, cap: str = "3") -> Budget:
    """A budget that adds up ρ."""
    return budget(metric, period, cap=cap, filter_name=FilterName.ZCDP, delta="1e-6")


def request(
    plan_id: str = "plan-1", *, held: Budget | None = None, event: DpEvent | None = None
) -> StepRequest:
    """The only step of a plan."""
    held = held or budget()
    return StepRequest(
        plan_id=plan_id,
        step=0,
        plan_body={"metric": held.metric, "edition": 0},
        budget=held,
        charge=Charge(held.budget_id, event or laplace(), NeighboringRelation.ADD_OR_REMOVE_ONE),
    )


def release(
    plan_id: str = "plan-1",
    *,
    metric: Metric = Metric.DAU,
    day: dt.date = DAY,
    window_days: int = 1,
    segment: Segment | None = None,
    estimate: int = 120,
) -> Release:
    """A number of a plan."""
    return Release(
        release_id=f"rel-{plan_id}",
        plan_id=plan_id,
        step=0,
        metric=metric,
        window=Window(day, window_days),
        segment=segment,
        timezone="UTC",
        estimate=estimate,
        lower_95=estimate - 12,
        upper_95=estimate + 12,
        noise_stddev=4.714045207910317,
        mechanism="discrete_laplace",
        sketch_impl="exact",
        epsilon=0.3,
        delta=0.0,
        status="final",
        version="0.0.0",
        released_at=NOW,
    )


def lattice(scale: str = "10") -> LatticeGaussianEvent:
    """The event of a month plan whose user reaches two mechanisms: ρ = 1/scale²."""
    return LatticeGaussianEvent(
        sensitivity_squared=1,
        scales=(Fraction(scale),) * 2,
        epsilon=Fraction(10),
        delta=Fraction("1e-6"),
    )


def plan_budget(period: str = "2026-02", *, cap: str = "3") -> Budget:
    """The budget of a month's plan."""
    return Budget(
        budget_id=f"plan:{period}",
        metric="plan",
        period=period,
        filter_name=FilterName.ZCDP,
        epsilon=Fraction(cap),
        delta=Fraction("1e-6"),
    )


def open_request(
    plan_id: str = "plan-2026-02",
    *,
    held: Budget | None = None,
    event: DpEvent | None = None,
    days: int = 4,
) -> OpenRequest:
    """A month plan of a few days."""
    held = held or plan_budget()
    return OpenRequest(
        plan_id=plan_id,
        plan_body={"month": held.period, "releases": days * DAY_STEPS},
        budget=held,
        charge=Charge(held.budget_id, event or lattice(), NeighboringRelation.ADD_OR_REMOVE_ONE),
    )


def day_releases(
    plan_id: str = "plan-2026-02", index: int = 0, *, estimate: int = 120
) -> list[Release]:
    """The numbers of one day of a month plan; `index` counts from 0."""
    windows = {Metric.WAU: 7, Metric.MAU: 30, Metric.DAU: 1}
    first = index * DAY_STEPS
    return [
        replace(
            release(
                plan_id,
                metric=metric,
                day=DAY + dt.timedelta(days=index),
                window_days=days,
                estimate=estimate,
            ),
            release_id=f"rel-{plan_id}-{step}",
            step=step,
        )
        for step, (metric, days) in enumerate(windows.items(), start=first)
    ]


def take(
    ledger: Ledger, index: int, plan_id: str = "plan-2026-02", *, estimate: int = 120
) -> tuple[tuple[Release, ...], bool]:
    """Takes one day of a month plan."""
    return ledger.take_day(
        plan_id,
        index * DAY_STEPS,
        lambda: day_releases(plan_id, index, estimate=estimate),
    )


def open_month(ledger: Ledger, plan_id: str = "plan-2026-02", *, days: int = 0) -> None:
    """Opens a month plan, commits to its noise and takes its first days."""
    ledger.open_plan(open_request(plan_id))
    ledger.commit_noise(plan_id, DIGEST)
    for index in range(days):
        take(ledger, index, plan_id)


def growth_request(
    plan_id: str = "growth-1", *, held: Budget | None = None, event: DpEvent | None = None
) -> OpenRequest:
    """A growth plan."""
    held = held or zcdp_budget()
    return OpenRequest(
        plan_id=plan_id,
        plan_body={"window_days": 30, "releases": len(GROWTH)},
        budget=held,
        charge=Charge(held.budget_id, event or gaussian(), NeighboringRelation.ADD_OR_REMOVE_ONE),
    )


def growth_releases(plan_id: str = "growth-1", *, estimate: int = 120) -> list[Release]:
    """The numbers of a growth plan."""
    one = release(plan_id, window_days=30, estimate=estimate)
    return [
        replace(one, release_id=f"rel-{plan_id}-{step}", step=step, metric=figure)
        for step, figure in enumerate(GROWTH)
    ]


def spend(
    ledger: Ledger, plan_id: str, *, epsilon: str = "0.3", held: Budget | None = None
) -> Release:
    """Takes the step of one pure plan."""
    asked = request(plan_id, held=held, event=laplace(epsilon))
    made, _ = ledger.step(asked, lambda: release(plan_id))
    return made


def raw_sql(folder: Path, *statements: str) -> None:
    """Changes the file behind the ledger's back: triggers and foreign keys off."""
    with closing(sqlite3.connect(file_of(folder))) as connection:
        triggers = connection.execute("SELECT name FROM sqlite_master WHERE type = 'trigger'")
        for (name,) in triggers.fetchall():
            connection.execute(f"DROP TRIGGER {name}")
        for statement in statements:
            connection.execute(statement)
        connection.commit()


def raw_rows(folder: Path, query: str) -> list[tuple[object, ...]]:
    """Reads the file behind the ledger's back."""
    with closing(sqlite3.connect(file_of(folder))) as connection:
        return connection.execute(query).fetchall()


def mark_body(folder: Path) -> dict[str, object]:
    """The mark as it is on disk."""
    body: dict[str, object] = json.loads(mark_of(folder).read_bytes())
    return body
