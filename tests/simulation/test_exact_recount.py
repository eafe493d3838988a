"""Exact counts against a recount with plain dictionaries, for every day and every window."""

import csv
import datetime as dt
import json
import random
from collections import defaultdict
from itertools import accumulate
from pathlib import Path

import pytest

from dpdau.cli.root import run
from dpdau.cli.session import local_app
from dpdau.domain import WINDOW_DAYS_MAX, Metric
from simulation.test_real_data import Pair, cdnow_pairs, nycflights_pairs

SEED = 20260101
ONE_DAY = dt.timedelta(days=1)
SHOWN = (1, 7, 30, WINDOW_DAYS_MAX)
"""Windows that are asked for at the command line too."""


def recount(pairs: set[Pair]) -> list[list[int]]:
    """Distinct users of each trailing window of each day.

    Who is in a window is who was last active as many days ago, or fewer, as the window is long.
    """
    active: dict[str, list[dt.date]] = defaultdict(list)
    for user, day in sorted(pairs):
        active[user].append(day)
    first, last = min(day for _, day in pairs), max(day for _, day in pairs)
    ages = [[0] * WINDOW_DAYS_MAX for _ in range((last - first).days + 1)]
    for days in active.values():
        for day, following in zip(days, [*days[1:], last + ONE_DAY], strict=True):
            for age in range(min((following - day).days, WINDOW_DAYS_MAX)):
                ages[(day - first).days + age][age] += 1
    return [list(column) for column in zip(*map(accumulate, ages), strict=True)]


@pytest.mark.slow
@pytest.mark.parametrize("pairs_of", [cdnow_pairs, nycflights_pairs])
def test_every_day_and_window_of_real_data(
    pairs_of, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """After a shuffled arrival, each day has the exact counts of the recount for 64 windows."""
    monkeypatch.chdir(tmp_path)
    rows = list(pairs_of())
    random.Random(SEED).shuffle(rows)
    with Path("shuffled.csv").open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["user_id", "day"])
        writer.writerows((user, day.isoformat()) for user, day in rows)
    assert 0 == run(["init"])
    assert 0 == run(["ingest", "--from", "shuffled.csv"])
    pairs = set(rows)
    first, last = min(day for _, day in pairs), max(day for _, day in pairs)

    expected = recount(pairs)

    with local_app(read_only=True) as app:
        for window_days, counts in enumerate(expected, start=1):
            table = app.exact({Metric.MAU: window_days}, first, last, reason="a recount")
            assert counts == table[Metric.MAU].tolist(), window_days
    for window_days in SHOWN:
        capsys.readouterr()
        words = ["--from", first.isoformat(), "--to", last.isoformat(), "--json"]
        assert 0 == run(["exact", "--metrics", "mau", "--window", str(window_days), *words])
        shown = json.loads(capsys.readouterr().out)
        assert expected[window_days - 1] == [row["exact"] for row in shown], window_days
