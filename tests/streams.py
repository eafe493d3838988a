"""A seeded stream of events with removals, and what it adds up to."""

import datetime as dt
import random
from collections.abc import Sequence
from pathlib import Path

from dpdau.activity.embedded import EmbeddedStore
from products import NOW

FIRST = dt.date(2026, 3, 2)
DAYS = 12
ENDS = [FIRST + dt.timedelta(days=day) for day in range(DAYS + 6)]
WINDOWS = (1, 7)


def stream(seed: int, rows: int, users: int = 150) -> list[dict[str, str]]:
    """Additions and removals of a few users, so that the order decides; each has an id."""
    seeded = random.Random(seed)
    return [
        {
            "user_id": f"u{seeded.randrange(users)}",
            "op": seeded.choice("++-"),
            "day": (FIRST + dt.timedelta(days=seeded.randrange(DAYS))).isoformat(),
            "event_id": f"e{row}",
        }
        for row in range(rows)
    ]


def recount(rows: Sequence[dict[str, str]]) -> list[list[int]]:
    """What the rows mean: for each user and day the last one decides."""
    last = {(row["user_id"], row["day"]): row["op"] for row in rows}
    active = {pair for pair, op in last.items() if op == "+"}
    return [
        [
            len({user for user, day in active if first <= dt.date.fromisoformat(day) <= end})
            for end in ENDS
            for first in [end - dt.timedelta(days=window - 1)]
        ]
        for window in WINDOWS
    ]


def counts(data: Path) -> list[list[int]]:
    """What the store of a data directory counts."""
    store = EmbeddedStore(data / "activity", clock=lambda: NOW, read_only=True)
    table = store.counts(first=ENDS[0], last=ENDS[-1], window_days=WINDOWS)
    store.close()
    found: list[list[int]] = table.tolist()
    return found
