"""Events of a load test: the same seed and sender give the same events."""

import datetime as dt
import json
import random

USERS = 200_000
DAYS = 7
REMOVALS = 0.02
PLATFORMS = ("ios", "android", "web")


class Stream:
    """The batches of one sender, for the days up to `today`.

    As in real products a few users are much more active than the rest, and most events are of
    today.
    """

    def __init__(self, seed: int, sender: int, today: dt.date) -> None:
        self._random = random.Random(f"{seed}.{sender}")
        self._days = [(today - dt.timedelta(days=back)).isoformat() for back in range(DAYS)]

    def batch(self, size: int) -> bytes:
        """The next events, as NDJSON."""
        draw = self._random.random
        lines = []
        for _ in range(size):
            number = int(USERS * draw() ** 3)
            event = {
                "user_id": f"user-{number}",
                "op": "-" if draw() < REMOVALS else "+",
                "day": self._days[int(DAYS * draw() ** 4)],
                "metadata": {"platform": PLATFORMS[number % len(PLATFORMS)]},
            }
            lines.append(json.dumps(event, separators=(",", ":")))
        return "\n".join(lines).encode()
