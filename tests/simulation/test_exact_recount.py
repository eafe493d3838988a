"""`dpdau exact` against a recount with plain dictionaries, for every day and every window."""

import csv
import datetime as dt
import json
import random
from collections import Counter, defaultdict
from pathlib import Path

import pytest

from dpdau.cli.root import run
from dpdau.domain import WINDOW_DAYS_MAX
from simulation.test_real_data import Pair, cdnow_pairs, nycflights_pairs

SEED = 20260101


def recount(pairs: set[Pair], window_days: int) -> list[int]:
    """Distinct users of each trailing window, by a rolling tally of who is inside."""
    active: dict[dt.date, list[str]] = defaultdict(list)
    for user, day in pairs:
        active[day].append(user)
    first, last = min(active), max(active)
    inside: Counter[str] = Counter()
    counts = []
    for offset in range((last - first).days + 1):
        day = first + dt.timedelta(days=offset)
        inside.update(active.get(day, ()))
        for user in active.get(day - dt.timedelta(days=window_days), ()):
            inside[user] -= 1
            if not inside[user]:
                del inside[user]
        counts.append(len(inside))
    return counts


@pytest.mark.slow
@pytest.mark.parametrize("pairs_of", [cdnow_pairs, nycflights_pairs])
def test_every_day_and_window_of_real_data(
    pairs_of, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """After a shuffled arrival, `exact` gives the recount for each day and each of 64 windows."""
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

    for window_days in range(1, WINDOW_DAYS_MAX + 1):
        capsys.readouterr()
        words = ["--from", first.isoformat(), "--to", last.isoformat(), "--json"]
        assert 0 == run(["exact", "--metrics", "mau", "--window", str(window_days), *words])
        shown = json.loads(capsys.readouterr().out)
        assert recount(pairs, window_days) == [row["exact"] for row in shown], window_days
