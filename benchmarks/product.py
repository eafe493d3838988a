"""What the product does inside one process, measured there; each prints one JSON object.

python -m benchmarks.product step USERS      a day of a month plan after its events are in
python -m benchmarks.product counts USERS    30 DAU and 30 MAU, beside a bare numpy pass
python -m benchmarks.product races RELEASES  concurrent releases against one cap
"""

import base64
import datetime as dt
import json
import os
import resource
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, Final, TypeVar

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from benchmarks.measure import spread
from dpdau.activity.embedded import EmbeddedStore
from dpdau.activity.masks import days_mask
from dpdau.app import App
from dpdau.domain import EventBatch, Metric, day_date, day_number
from dpdau.errors import BudgetExhaustedError
from dpdau.ingest.columns import decode_table
from dpdau.settings import Settings

FIRST: Final = dt.date(2026, 1, 15)
MONTH: Final = "2026-02"
MONTH_BEGINS: Final = dt.date(2026, 2, 1)
NOW: Final = dt.datetime(2026, 3, 20, tzinfo=dt.UTC)
ACTIVE: Final = 0.2
SEED: Final = 7
_BATCH_ROWS: Final = 500_000
_DAYS_MEASURED: Final = 12
_COUNT_ROUNDS: Final = 5
_SEGMENTS: Final = (0, 4, 16)
_YEAR_DAYS: Final = 365

_Answer = TypeVar("_Answer")


def open_app(folder: Path, **values: Any) -> App:
    """The product over a fresh data directory, at a fixed moment."""
    secret = "b64:" + base64.b64encode(bytes(range(48))).decode()
    settings = Settings(DATA_DIR=folder, HASH_SALT_SECRET=secret, **values)
    return App.open(settings, clock=lambda: NOW, reported=False)


def batches(users: NDArray[np.uint64], day: dt.date) -> Iterator[EventBatch]:
    """The events of some pseudonymous users on a day."""
    for start in range(0, len(users), _BATCH_ROWS):
        some = users[start : start + _BATCH_ROWS]
        n = len(some)
        yield EventBatch(
            events=n,
            pseudonym=some,
            aliases=np.zeros((0, n), dtype=np.uint64),
            day=np.full(n, day_number(day), dtype=np.int32),
            add=np.ones(n, dtype=np.bool_),
            event_index=np.arange(n, dtype=np.int32),
            event_id=np.zeros(n, dtype=np.uint64),
        )


class Population:
    """Users of whom a fifth is active on a day, at random."""

    def __init__(self, users: int) -> None:
        self._random = np.random.default_rng(SEED)
        self.everyone = np.unique(self._random.integers(1, 2**64, users, dtype=np.uint64))

    def on_a_day(self) -> NDArray[np.bool_]:
        """(users,) who is active on the next day."""
        return self._random.random(len(self.everyone)) < ACTIVE


def step(users: int, segments: int = 0) -> dict[str, Any]:
    """A day of a month plan: fixed, counted, made noisy, recorded, durable; DAU, WAU and MAU."""
    people = Population(users)
    values = [f"platform=p{number}" for number in range(segments)]
    settings = {"DIMENSIONS": "platform", "PLAN_SEGMENTS": ",".join(values)} if segments else {}
    with tempfile.TemporaryDirectory() as name, open_app(Path(name), **settings).closing() as app:

        def take_in(day: dt.date) -> None:
            who = people.everyone[people.on_a_day()]
            for start in range(0, len(who), _BATCH_ROWS):
                some = who[start : start + _BATCH_ROWS]
                columns = {"user_id": pa.array(some), "day": pa.array([day] * len(some))}
                if segments:
                    names = pa.array([f"p{number}" for number in range(segments + 1)])
                    places = pa.array((some % np.uint64(segments + 1)).astype(np.int32))
                    columns["platform"] = pa.DictionaryArray.from_arrays(places, names)
                app.ingest(decode_table(pa.table(columns), rules=app.rules()))

        for offset in range((MONTH_BEGINS - FIRST).days):
            take_in(FIRST + dt.timedelta(offset))
        opened, _ = _timed(lambda: app.open_month(MONTH))
        seconds = []
        for offset in range(_DAYS_MEASURED):
            day = MONTH_BEGINS + dt.timedelta(offset)
            take_in(day)
            taken, _ = _timed(lambda day=day: app.release(Metric.MAU, day))
            seconds.append(taken)
        assert len(app.series(list(Metric), MONTH_BEGINS, day)) == 3 * _DAYS_MEASURED
    return {
        "users": users,
        "segments": segments,
        "open_seconds": round(opened, 3),
        "first_day_seconds": round(seconds[0], 4),
        "day_seconds": spread(seconds[1:], 4),
    }


def counts(users: int) -> dict[str, Any]:
    """All exact DAU and MAU of 30 days, warm, and the bytes of a user and page on the disk.

    Beside it, the least that numpy must do for them: the masks of two pages lie joined in memory,
    and each window is one pass over them.
    """
    people = Population(users)
    # Forty days in one page of 64 and twenty in the next, so that windows reach over the edge.
    page = -(-day_number(FIRST) // 64)
    first, last = page * 64 - 10, page * 64 + 19
    low, high = (np.zeros(len(people.everyone), dtype=np.uint64) for _ in range(2))
    with tempfile.TemporaryDirectory() as name:
        root = Path(name) / "activity"
        store = EmbeddedStore(root, clock=lambda: NOW)
        for number in range(first - 30, last + 1):
            active = people.on_a_day()
            masks = high if number >= page * 64 else low
            masks |= active.astype(np.uint64) << np.uint64(number % 64)
            for batch in batches(people.everyone[active], day_date(number)):
                store.apply(batch)
        store.close()
        store = EmbeddedStore(root, clock=lambda: NOW)
        range_of = {"first": day_date(first), "last": day_date(last), "window_days": [1, 30]}
        cold, table = _timed(lambda: store.counts(**range_of))

        def bare() -> NDArray[np.int64]:
            return np.array(
                [
                    [
                        np.count_nonzero(
                            (high & days_mask(page, end - days + 1, end))
                            | (low & days_mask(page - 1, end - days + 1, end))
                        )
                        for end in range(first, last + 1)
                    ]
                    for days in (1, 30)
                ]
            )

        assert (table == bare()).all()
        # In turn, so that both meet the same machine.
        rounds = [
            (_timed(lambda: store.counts(**range_of))[0], _timed(bare)[0])
            for _ in range(_COUNT_ROUNDS)
        ]
        rows, size = store.stats().rows, store.stats().bytes_on_disk
        store.close()
    own, other = ([one[place] for one in rounds] for place in (0, 1))
    return {
        "users": users,
        "cold_seconds": round(cold, 3),
        "warm_seconds": spread(own),
        "bare_numpy_seconds": spread(other),
        "ratio": round(float(np.median(own) / np.median(other)), 2),
        "rows": rows,
        "bytes_per_user_and_page": round(size / rows, 2),
    }


def segments(users: int) -> dict[str, Any]:
    """A day of a month plan with more and more segments."""
    return {"by_segments": [step(users, number) for number in _SEGMENTS]}


def days(users: int) -> dict[str, Any]:
    """Counts of one month and of the whole year, over a year of activity."""
    people = Population(users)
    first = day_number(dt.date(2025, 1, 1))
    with tempfile.TemporaryDirectory() as name:
        store = EmbeddedStore(Path(name) / "activity", clock=lambda: NOW)
        for number in range(first, first + _YEAR_DAYS):
            for batch in batches(people.everyone[people.on_a_day()], day_date(number)):
                store.apply(batch)
        last = day_date(first + _YEAR_DAYS - 1)
        found = []
        for length in (30, _YEAR_DAYS - 30):
            start = last - dt.timedelta(length - 1)
            seconds = [
                _timed(
                    lambda start=start: store.counts(first=start, last=last, window_days=[1, 30])
                )[0]
                for _ in range(_COUNT_ROUNDS + 1)
            ]
            found.append({"days": length, "warm_seconds": spread(seconds[1:])})
        stats = store.stats()
        store.close()
    return {"users": users, "by_days": found, "rows": stats.rows, "bytes": stats.bytes_on_disk}


def races(releases: int) -> dict[str, Any]:
    """Releases from many threads against one cap: never over, never under by more than one."""
    with tempfile.TemporaryDirectory() as name:
        app = open_app(Path(name), RELEASE_POLICY="on_demand")
        with app.closing():

            def one(_number: int) -> bool:
                try:
                    # Of two that come at once, one may be given what the other has bought.
                    return not app.release(Metric.DAU, MONTH_BEGINS, fresh=True).replayed
                except BudgetExhaustedError:
                    return False

            began = time.perf_counter()
            with ThreadPoolExecutor(32) as pool:
                bought = sum(pool.map(one, range(releases)))
            seconds = time.perf_counter() - began
            block = app.budget("dau", MONTH_BEGINS)
    return {
        "asked": releases,
        "bought": bought,
        "seconds": round(seconds, 2),
        "epsilon_cap": block.epsilon_cap,
        "epsilon_spent": block.epsilon_spent,
    }


def _timed(question: Callable[[], _Answer]) -> tuple[float, _Answer]:
    """Seconds, and the answer."""
    began = time.perf_counter()
    answer = question()
    return time.perf_counter() - began, answer


KINDS: Final[dict[str, Callable[[int], dict[str, Any]]]] = {
    "step": step,
    "counts": counts,
    "races": races,
    "segments": segments,
    "days": days,
}


def main(kind: str, size: int) -> None:
    """Runs one measurement."""
    found = KINDS[kind](size)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / 1e6
    print(json.dumps({**found, "peak_mb": round(peak), "load": round(os.getloadavg()[0], 2)}))


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]))
