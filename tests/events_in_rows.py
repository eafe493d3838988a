"""Events as a reader gives them: good ones, and items that are none."""

import datetime as dt

from dpdau.ingest.event import Decoded, decode_objects
from dpdau.ingest.rules import Rules

TODAY = dt.date(2026, 3, 15)


def events(count: int, *, bad: int = 0) -> Decoded:
    """Some events, and some items that are none."""
    good = [{"user_id": f"u{one}", "op": "+", "day": "2026-03-10"} for one in range(count)]
    return decode_objects([*good, *[{}] * bad], rules=Rules(TODAY))
