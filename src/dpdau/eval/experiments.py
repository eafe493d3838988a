"""The experiment: months of synthetic and real activity through the product's own verbs.

Each task is one workload at one level of ε. It opens an app in a folder of its own, under a clock
that is moved day by day; sends the day's events; removes those who ask; lets the day end; reads the
exact counts; and releases. What a number is compared with is the exact count at the moment of its
release. Data come from seeds. Noise never does: it is the product's own.
"""

import datetime as dt
import functools
import multiprocessing
import tempfile
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import dataclass
from decimal import Decimal
from fractions import Fraction
from pathlib import Path
from statistics import median
from typing import Any, Final, TypeVar

import numpy as np
from numpy.typing import NDArray

from dpdau.app import App
from dpdau.domain import Answer, Clock, Metric
from dpdau.eval.grid import Experiment, Level, Task
from dpdau.eval.methods import MAU_DAYS, Estimates, Method, from_counts, ignoring_removals
from dpdau.eval.streams import Kind, MonthStream, Removal
from dpdau.ingest.columns import decode_table
from dpdau.mechanisms.sampling import NoiseSource, OpenDPNoise

__all__ = ["OpenApp", "run"]

WINDOWS: Final = {Metric.DAU: 1, Metric.WAU: 7, Metric.MAU: MAU_DAYS}
ON_DEMAND: Final = (Metric.DAU, Metric.MAU)
BUDGET: Final = Decimal(50)
"""A monthly cap that every day's release fits; what they cost in truth is in the results."""
_NOON: Final = dt.time(12, tzinfo=dt.UTC)
_MIDNIGHT: Final = dt.time(tzinfo=dt.UTC)
_DAY: Final = dt.timedelta(days=1)

Done = TypeVar("Done")
OpenApp = Callable[[Path, Clock, Mapping[str, Any]], App]
"""Opens an app in a new folder, under a clock, with these settings and defaults for the others."""
Timer = Callable[[], float]
"""Seconds since some moment."""


def run(
    experiment: Experiment,
    *,
    seed: int,
    open_app: OpenApp,
    timer: Timer,
    workers: int = 1,
    on_done: Callable[[int, int], None] | None = None,
) -> list[dict[str, Any]]:
    """Runs every task and returns its outcome, in the order of the grid.

    Args:
        experiment: The grid.
        seed: The seed of the first stream of each configuration; noise has none.
        open_app: How an app is opened; with several workers, a function of a module.
        timer: What throughput and latency are measured with; as `open_app`.
        workers: Processes that share the tasks; 1 runs them in this one.
        on_done: Is told how many tasks are done, and of how many.
    """
    tasks = experiment.tasks(seed)
    work = functools.partial(_run_task, open_app=open_app, timer=timer)
    found: dict[int, dict[str, Any]] = {}
    for place, outcome in _shared_out(work, tasks, workers):
        found[place] = outcome
        if on_done is not None:
            on_done(len(found), len(tasks))
    return [found[place] for place in range(len(tasks))]


def _shared_out(
    work: Callable[[Task], dict[str, Any]], tasks: list[Task], workers: int
) -> Iterator[tuple[int, dict[str, Any]]]:
    """(place, outcome) of each task as it gets done; the longest are begun first."""
    order = sorted(range(len(tasks)), key=lambda place: -_work(tasks[place]))
    if workers == 1:
        yield from ((place, work(tasks[place])) for place in order)
        return
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(workers, mp_context=context) as pool:
        pending = {pool.submit(work, tasks[place]): place for place in order}
        for done in as_completed(pending):
            yield pending[done], done.result()


def _work(task: Task) -> float:
    """About how long a task takes, in erasures."""
    return task.workload.erasures + task.workload.users / 500


class _MovedClock:
    """A clock that shows what it was set to."""

    def __init__(self, now: dt.datetime) -> None:
        self.now = now

    def __call__(self) -> dt.datetime:
        return self.now


@dataclass(slots=True)
class _Spent:
    """Rows, and where the seconds went."""

    rows: int
    ingest: float
    erase: list[float]
    open_plan: list[float]
    step: list[float]
    read: list[float]
    on_demand: list[float]

    @classmethod
    def nothing(cls) -> "_Spent":
        return cls(0, 0.0, [], [], [], [], [])

    def to_json(self) -> dict[str, float | None]:
        """Events a second, and medians in milliseconds; None where there were none."""
        of = {
            "erase_ms": self.erase,
            "plan_open_ms": self.open_plan,
            "plan_step_ms": self.step,
            "plan_read_ms": self.read,
            "on_demand_ms": self.on_demand,
        }
        rate = self.rows / self.ingest if self.ingest else None
        medians = {name: 1e3 * median(part) if part else None for name, part in of.items()}
        return {"events": self.rows, "events_per_second": rate, **medians}


def _run_task(task: Task, *, open_app: OpenApp, timer: Timer) -> dict[str, Any]:
    """One workload at one level, as rows for the results."""
    stream = task.workload.stream()
    month = _Month(stream, task.workload.removal, task, timer)
    with tempfile.TemporaryDirectory(prefix="dpdau-eval-") as root:
        clock = _MovedClock(month.noon(0))
        values = _settings(task.level, task.delta)
        with open_app(Path(root) / "removed", clock, values).closing() as app:
            exact, estimates = month.released(app, clock)
        outcome: dict[str, Any] = {
            **task.workload.to_json(),
            "first": stream.first.isoformat(),
            "level": task.level.plan,
            "removed_users": sum(part.size for part in stream.removed),
            "exact": {metric.value: counts.tolist() for metric, counts in exact.items()},
            "ignored": None,
            "timing": month.spent.to_json(),
        }
        if task.totals:
            clock.now = month.noon(0)
            with open_app(Path(root) / "ignored", clock, values).closing() as app:
                ignored = month.without_removals(app, clock)
            outcome["ignored"] = {name.value: part.tolist() for name, part in ignored.items()}
            noise, delta = OpenDPNoise(), Fraction(task.delta)
            estimates += _on_counts(task, exact, ignored, delta, noise)
    outcome["estimates"] = [_row(one) for one in estimates]
    return outcome


def _on_counts(
    task: Task,
    exact: Mapping[Metric, NDArray[np.int64]],
    ignored: Mapping[Metric, NDArray[np.int64]],
    delta: Fraction,
    noise: NoiseSource,
) -> list[Estimates]:
    """The methods that stand on exact counts, at every total."""
    made: list[Estimates] = []
    for total in task.totals:
        made += from_counts(exact, Fraction(total), delta, noise)
        made += ignoring_removals(ignored, Fraction(total), delta, noise)
    return made


def _settings(level: Level, delta: str) -> dict[str, Any]:
    """The settings of the app: days close at midnight, and every budget has room."""
    return {
        "RELEASE_POLICY": "plan",
        "PLAN_EPSILON": Decimal(level.plan),
        "PLAN_DELTA": Decimal(delta),
        "EPSILON_DAU": Decimal(level.dau),
        "EPSILON_MAU": Decimal(level.mau),
        "DELTA": Decimal(delta),
        "DAU_BUDGET_TOTAL": BUDGET,
        "MAU_BUDGET_TOTAL": BUDGET,
        "MAU_WINDOW_DAYS": MAU_DAYS,
        "GRACE_HOURS": 0,
    }


def _row(one: Estimates) -> dict[str, Any]:
    return {
        "method": one.method.value,
        "metric": one.metric.value,
        "setting": one.setting,
        "epsilon": one.epsilon,
        "delta": one.delta,
        "numbers": one.numbers,
        "values": one.values.tolist(),
        "half_widths": one.half_widths.tolist(),
    }


class _Month:
    """One month of one stream, taken through an app day by day."""

    def __init__(self, stream: MonthStream, removal: Removal, task: Task, timer: Timer) -> None:
        self.spent = _Spent.nothing()
        self._stream, self._removal, self._task, self._timer = stream, removal, task, timer
        self._answers: dict[tuple[Method, Metric], list[Answer]] = {}

    def noon(self, day: int) -> dt.datetime:
        """Noon of a day, when its events arrive."""
        return dt.datetime.combine(self._stream.first + day * _DAY, _NOON)

    def released(
        self, app: App, clock: _MovedClock
    ) -> tuple[dict[Metric, NDArray[np.int64]], list[Estimates]]:
        """Exact counts as they were when released, and what was released."""
        exact: dict[Metric, list[int]] = {metric: [] for metric in WINDOWS}
        for place in range(self._stream.days):
            day = self._stream.first + place * _DAY
            self._arrive(app, clock, place)
            self._remove(app, place)
            clock.now = dt.datetime.combine(day + _DAY, _MIDNIGHT)
            for metric, counts in app.exact(WINDOWS, day, day, reason="experiment").items():
                exact[metric].append(int(counts[0]))
            self._release(app, day, first=place == 0)
        spent = {metric: app.budget(metric.value, self._stream.first) for metric in ON_DEMAND}
        made = [
            self._estimates(
                Method.PLAN,
                metric,
                float(self._task.level.plan),
                (float(self._task.level.plan), float(self._task.delta)),
                self._stream.days * len(WINDOWS),
            )
            for metric in WINDOWS
        ]
        made += [
            self._estimates(
                Method.ON_DEMAND,
                metric,
                float(self._task.level.dau if metric is Metric.DAU else self._task.level.mau),
                (block.epsilon_spent, block.delta),
                self._stream.days,
            )
            for metric, block in spent.items()
        ]
        return {metric: np.array(counts) for metric, counts in exact.items()}, made

    def without_removals(self, app: App, clock: _MovedClock) -> dict[Metric, NDArray[np.int64]]:
        """Exact counts of a product that takes the events and carries out no removal."""
        for place in range(self._stream.days):
            self._arrive(app, clock, place)
        last = self._stream.first + (self._stream.days - 1) * _DAY
        return app.exact(WINDOWS, self._stream.first, last, reason="experiment")

    def _arrive(self, app: App, clock: _MovedClock, place: int) -> None:
        """Sends the events of a day."""
        clock.now = self.noon(place)
        self._ingest(app, self._stream.arrivals(place))

    def _ingest(self, app: App, rows: Any) -> None:
        began = self._timer()
        report = app.ingest(decode_table(rows, rules=app.rules()))
        self.spent.ingest += self._timer() - began
        self.spent.rows += rows.num_rows
        assert report.rejected_count == 0, "the streams are well formed"

    def _remove(self, app: App, place: int) -> None:
        """Carries out the removals at the end of a day."""
        if self._removal.kind is Kind.RETRACT:
            self._ingest(app, self._stream.retractions(place))
            return
        for name in self._stream.names(place):
            self._timed(self.spent.erase, functools.partial(app.erase, name))

    def _release(self, app: App, day: dt.date, *, first: bool) -> None:
        """The day's numbers of the plan, and those on demand."""
        # The first number of a day takes the plan's step; the others are read from it.
        took = self.spent.open_plan if first else self.spent.step
        for metric in WINDOWS:
            answer = self._timed(took, functools.partial(app.release, metric, day))
            self._answers.setdefault((Method.PLAN, metric), []).append(answer)
            took = self.spent.read
        took = self.spent.on_demand
        for metric in ON_DEMAND:
            answer = self._timed(took, functools.partial(app.release, metric, day, fresh=True))
            self._answers.setdefault((Method.ON_DEMAND, metric), []).append(answer)

    def _timed(self, took: list[float], act: Callable[[], Done]) -> Done:
        began = self._timer()
        done = act()
        took.append(self._timer() - began)
        return done

    def _estimates(
        self,
        method: Method,
        metric: Metric,
        setting: float,
        cost: tuple[float, float],
        numbers: int,
    ) -> Estimates:
        """A method's releases as columns."""
        releases = [answer.release for answer in self._answers[method, metric]]
        return Estimates(
            method,
            metric,
            setting=setting,
            epsilon=cost[0],
            delta=cost[1],
            numbers=numbers,
            values=np.array([one.estimate for one in releases]),
            half_widths=np.array([one.upper_95 - one.estimate for one in releases]),
        )
