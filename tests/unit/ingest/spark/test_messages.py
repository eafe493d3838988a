"""Messages as executors read them: in the order of each partition, each once."""

import datetime as dt
import json
from collections.abc import Mapping
from typing import Any

import msgspec
import pyarrow as pa
import pytest

from dpdau.errors import StoreUnavailableError
from dpdau.ingest.rules import Rules
from dpdau.ingest.spark import messages
from dpdau.ingest.spark.messages import rows_of_messages
from dpdau.ingest.spark.recipe import NOTE, Recipe, Tally
from dpdau.pseudonym import EpochKey

RECIPE = Recipe((EpochKey(1, b"k" * 32),), dt.date.min, Rules(dt.date(2026, 3, 15)))
_KINDS = pa.schema(
    [
        ("value", pa.binary()),
        ("partition", pa.int32()),
        ("offset", pa.int64()),
        ("timestamp_ms", pa.int64()),
    ]
)


def event(user: str, op: str = "+", day: str = "2026-03-10") -> bytes:
    """One event."""
    return json.dumps({"user_id": user, "op": op, "day": day}).encode()


def made(
    *batches: list[tuple[bytes | None, int, int, int]], after: Mapping[int, int] | None = None
) -> tuple[list[dict[str, Any]], list[dict[str, Any]], Tally]:
    """The rows of events, those of poison, and the tally of a task."""
    arrived = [
        pa.RecordBatch.from_arrays(
            [
                pa.array([row[place] for row in batch], kind.type)
                for place, kind in enumerate(_KINDS)
            ],
            schema=_KINDS,
        )
        for batch in batches
    ]
    found = list(rows_of_messages(RECIPE, after or {}, arrived))
    rows = [row for one in found for row in one.to_pylist()]
    assert [None] * (len(rows) - 1) == [row[NOTE] for row in rows[:-1]]
    events = [row for row in rows if row["event"] is not None]
    poison = [row for row in rows if row["poison_reason"] is not None]
    return events, poison, msgspec.json.decode(rows[-1][NOTE], type=Tally)


def test_events_are_numbered_in_the_order_of_their_partition() -> None:
    """Over several batches and partitions, numbers rise within a partition and are distinct."""
    first = [(event(f"u{place}"), place % 2, place // 2, 1_000 - place) for place in range(10)]
    second = [(event("u0", "-"), 0, 5, 900), (event("u0"), 0, 6, 950)]

    events, _, tally = made(first, second)
    numbers = [row["event"] for row in events]
    of_one = [row["event"] for row in events if row["pseudonym"] == events[0]["pseudonym"]]

    assert (12, 12) == (len(set(numbers)), tally.taken)
    assert sorted(of_one) == of_one and [True, False, True] == [
        row["add"] for row in events if row["event"] in of_one
    ]
    assert ({0: 6, 1: 4}, 900) == (tally.ends, tally.oldest_ms)


def test_what_is_stored_already_is_passed_over() -> None:
    """Messages at or before the stored offset of their partition give no rows and no ends."""
    some = [(event("a"), 0, 4, 1), (event("b"), 0, 5, 2), (event("c"), 1, 5, 3)]

    events, _, tally = made(some, after={0: 4, 1: 5})

    assert (1, 1, {0: 5}, 2) == (len(events), tally.received, tally.ends, tally.oldest_ms)


def test_poison_is_told_with_its_place_and_reason() -> None:
    """What cannot be taken names its message and the events in it; what is good is a row."""
    mixed = b'{"events": [' + event("a") + b", " + event("") + b"]}"
    some = [(mixed, 3, 7, 1), (b"\x00", 3, 8, 1), (None, 3, 9, 1), (event("b"), 3, 10, 1)]

    events, poison, tally = made(some)

    assert [(3, 7, "bad_user_id", "1"), (3, 8, "bad_json", "0"), (3, 9, "bad_json", "0")] == [
        tuple(row[name] for name in row if name.startswith("poison_")) for row in poison
    ]
    assert (2, 5, {"bad_user_id": 1, "bad_json": 2}) == (len(events), tally.received, tally.codes)
    assert {3: 10} == tally.ends


def test_tallies_of_tasks_add_up() -> None:
    """The whole is the sum, the furthest end and the oldest message."""
    _, _, one = made([(event("a"), 0, 4, 7), (b"", 1, 2, 9)])
    _, _, other = made([(event("a"), 0, 3, 5), (b"", 1, 8, 9)])

    whole = Tally() + one + other

    assert (4, 2, {"bad_json": 2}, {0: 4, 1: 8}, 5) == (
        whole.received,
        whole.taken,
        whole.codes,
        whole.ends,
        whole.oldest_ms,
    )


def test_no_error_quotes_an_event(monkeypatch: pytest.MonkeyPatch) -> None:
    """What Spark will log of a bug in a task is the name of the error."""

    def broken(*_: object, **__: object) -> None:
        raise ValueError("canary-user")

    monkeypatch.setattr(messages, "read", broken)
    with pytest.raises(StoreUnavailableError) as caught:
        made([(event("canary-user"), 0, 0, 0)])

    assert "canary" not in str(caught.value) and "ValueError" in caught.value.message
    assert caught.value.__context__ is None
    assert "k" * 32 not in repr(RECIPE)
