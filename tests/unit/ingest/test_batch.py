"""Making batches: pseudonyms for ids, rows for days, and the arithmetic of outcomes."""

import datetime as dt
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from dpdau.activity.store import Applied
from dpdau.domain import Event, EventBatch, Op, day_number
from dpdau.errors import TooLargeError
from dpdau.ingest import batch as batches
from dpdau.ingest.batch import IngestReport, build, events_of, from_arrow, ingest
from dpdau.ingest.columns import decode_table
from dpdau.ingest.event import Decoded, RawEvent, decode_objects
from dpdau.ingest.rules import NO_OP, Rejection, RejectionCode, Rules
from dpdau.pseudonym import EpochKey, Pseudonymizer

RULES = Rules(dt.date(2026, 3, 1), dimensions=("platform", "country"))
NEW, OLD = EpochKey(2, b"n" * 32), EpochKey(1, b"o" * 32)
USERS = Pseudonymizer([NEW, OLD])
FEB_1 = day_number(dt.date(2026, 2, 1))
CANARY = "canary-c0ffee42"

ROWS = st.lists(
    st.fixed_dictionaries(
        {
            "user_id": st.sampled_from(["a", "b", "c", "", None]),
            "op": st.sampled_from(["+", "+", "-", "?"]),
            "day": st.sampled_from(["2026-02-01", "2026-02-28", "2026-04-01", "x"]),
            "event_id": st.sampled_from(["e1", "e2", None]),
            "platform": st.sampled_from(["ios", "web", "", None]),
        }
    ),
    max_size=12,
)


class Store:
    """The part of a store that `ingest` uses; remembers what was applied."""

    def __init__(self, late: int = 0) -> None:
        self.batches: list[EventBatch] = []
        self._late = late

    def apply(self, batch: EventBatch) -> Applied:
        """Counts a batch id that was seen as duplicate."""
        known = {one.batch_id for one in self.batches} - {None}
        if batch.batch_id in known:
            return Applied(0, batch.events, 0)
        self.batches.append(batch)
        return Applied(batch.events - self._late, 0, self._late)


def read(*items: dict[str, Any]) -> Decoded:
    """Items as decoded events."""
    good = {"user_id": "u", "op": "+", "day": "2026-02-01"}
    return decode_objects([{**good, **item} for item in items], rules=RULES)


def columns_of(batch: EventBatch) -> dict[str, Any]:
    """A batch as plain values, its labels by value."""
    plain = {
        name: getattr(batch, name).tolist()
        for name in ("pseudonym", "aliases", "day", "add", "event_index", "event_id")
    }
    labels = {
        name: [None if code < 0 else one.values[code] for code in one.codes.tolist()]
        for name, one in batch.labels.items()
    }
    return plain | labels


def test_an_event_becomes_a_row_under_every_live_key() -> None:
    """The newest key names the row, the older one is an alias."""
    batch = build(read({"user_id": "x"}, {"user_id": "y", "op": "-"}), USERS)

    assert [USERS.one("x")[0], USERS.one("y")[0]] == batch.pseudonym.tolist()
    assert [[USERS.one("x")[1], USERS.one("y")[1]]] == batch.aliases.tolist()
    assert [FEB_1, FEB_1] == batch.day.tolist()
    assert [True, False] == batch.add.tolist()
    assert [0, 1] == batch.event_index.tolist()
    assert [0, 0] == batch.event_id.tolist()
    assert (2, None, {}) == (batch.events, batch.batch_id, batch.offsets)


def test_a_removal_of_several_days_becomes_several_rows_of_one_event() -> None:
    """Its rows keep the order of its days and share its ordinal, its id and its labels."""
    days = ["2026-02-03", "2026-01-01"]
    batch = build(
        read({}, {"op": "-", "event_id": "e", "metadata": {"days": days, "platform": "tv"}}, {}),
        USERS,
        dimensions=("platform",),
    )

    assert [FEB_1, FEB_1 + 2, FEB_1 - 31, FEB_1] == batch.day.tolist()
    assert [0, 1, 1, 2] == batch.event_index.tolist()
    assert [True, False, False, True] == batch.add.tolist()
    assert [None, "tv", "tv", None] == columns_of(batch)["platform"]
    hashed = USERS.event_ids(["e"], batch.pseudonym[1:2])
    assert [0, int(hashed[0]), 0] == batch.event_id.tolist()
    assert (3, (1, 4)) == (batch.events, batch.aliases.shape)


def test_every_declared_dimension_has_labels() -> None:
    """A dimension that no row carries is there all the same, with no values."""
    batch = build(read({}, {"metadata": {"platform": "ios"}}), USERS, dimensions=RULES.dimensions)

    assert ([None, "ios"], [None, None]) == (
        columns_of(batch)["platform"],
        columns_of(batch)["country"],
    )
    assert ((), ("ios",)) == (batch.labels["country"].values, batch.labels["platform"].values)


def test_the_rows_of_a_batch_are_events() -> None:
    """What a fold over single events takes is what a store takes."""
    batch = build(read({}, {"op": "-", "event_id": "e"}), USERS)
    user = USERS.one("u")[0]
    hashed = int(USERS.event_ids(["e"], np.array([user], np.uint64))[0])

    assert [Event(user, Op.ADD, FEB_1), Event(user, Op.REMOVE, FEB_1, hashed)] == events_of(batch)


def test_a_batch_id_and_offsets_go_along() -> None:
    """The sender's id and the source's offsets are stored with the rows."""
    batch = build(read({}), USERS, batch_id="b", offsets={"topic-0": 7})

    assert (USERS.batch_ids("b")[0], {"topic-0": 7}) == (batch.batch_id, batch.offsets)


@given(ROWS)
def test_columns_and_single_events_make_the_same_batch(rows: list[dict[str, Any]]) -> None:
    """Whichever reader was used, the store is given the same."""
    schema = pa.schema([(name, pa.string()) for name in (*ROWS_COLUMNS,)])
    items = [
        {name: row[name] for name in ("user_id", "op", "day", "event_id")}
        | {"metadata": {"platform": row["platform"]}}
        for row in rows
    ]
    single = decode_objects(items, rules=RULES)
    batch, rejected = from_arrow(pa.Table.from_pylist(rows, schema), USERS, rules=RULES)

    assert columns_of(build(single, USERS, dimensions=RULES.dimensions)) == columns_of(batch)
    assert [one.index for one in single.rejected] == [one.index for one in rejected]


ROWS_COLUMNS = ("user_id", "op", "day", "event_id", "platform")


@given(ROWS, st.integers(0, 3))
def test_received_is_always_the_sum_of_the_outcomes(rows: list[dict[str, Any]], late: int) -> None:
    """received = accepted + duplicate + late + rejected, for a batch, its repetition, and both."""
    decoded = decode_objects(rows, rules=RULES)
    store = Store(min(late, len(decoded.events)))
    reports = [ingest(decoded, store=store, pseudonymizer=USERS, batch_id="b") for _ in "12"]  # type: ignore[arg-type]

    for report in (*reports, reports[0] + reports[1]):
        assert report.received == sum(report.outcomes().values())
    assert len(rows) == reports[0].received == reports[1].received
    assert len(decoded.events) == reports[0].accepted + reports[0].late
    assert len(decoded.events) == reports[1].duplicate
    assert tuple(decoded.rejected) == reports[0].rejected


def test_a_batch_of_rejections_alone_does_not_reach_the_store() -> None:
    """There is nothing to make durable."""
    store = Store()
    report = ingest(read({"op": "?"}), store=store, pseudonymizer=USERS)  # type: ignore[arg-type]

    assert ([], 1, 1) == (store.batches, report.received, report.rejected_count)


def test_offsets_are_stored_even_where_every_event_was_rejected() -> None:
    """A source is not read again from before a stretch of bad events."""
    store = Store()
    ingest(read({"op": "?"}), store=store, pseudonymizer=USERS, offsets={"t": 4})  # type: ignore[arg-type]

    assert [{"t": 4}] == [one.offsets for one in store.batches]


def test_a_report_that_does_not_add_up_is_a_bug() -> None:
    """The identity is asserted, not hoped for."""
    with pytest.raises(AssertionError):
        IngestReport(received=3, accepted=1, duplicate=1)


def test_a_sum_of_reports_keeps_the_first_rejections_and_counts_all(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A file of any number of bad rows gives a report of bounded size."""
    monkeypatch.setattr(batches, "REJECTIONS_KEPT_MAX", 3)
    one = IngestReport.of(2, Applied(0, 0, 0), [Rejection.of(place, NO_OP) for place in (0, 1)])
    total = one + one + one

    assert (6, 3, {"rejected": 6}) == (
        total.received,
        len(total.rejected),
        {name: count for name, count in total.outcomes().items() if count},
    )


def test_too_many_rows_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    """Rows are counted, not events: one `-` may touch many days."""
    monkeypatch.setattr(batches, "BATCH_ROWS_MAX", 2)
    many = {"op": "-", "metadata": {"days": ["2026-01-01", "2026-01-02", "2026-01-03"]}}

    assert 2 == build(read({}, {}), USERS).events
    with pytest.raises(TooLargeError):
        build(read(many), USERS)
    with pytest.raises(TooLargeError):
        build(read({}, {}, {}), USERS)
    with pytest.raises(TooLargeError):
        build(
            decode_table(pa.table({"user_id": ["a"] * 3, "day": ["2026-01-01"] * 3}), rules=RULES),
            USERS,
        )


def test_the_same_events_sent_again_without_an_id_are_applied_again() -> None:
    """No id is made from content: one user's event would decide whether others' are taken."""
    store = Store()
    reports = [ingest(read({}), store=store, pseudonymizer=USERS) for _ in "12"]  # type: ignore[arg-type]

    assert [(1, 0), (1, 0)] == [(one.accepted, one.duplicate) for one in reports]
    assert [None, None] == [one.batch_id for one in store.batches]


def test_an_answer_lists_the_first_rejections_and_counts_all() -> None:
    """A body of bad items does not become an answer many times its size."""
    decoded = read(*({"op": "?"} for _ in range(1_500)))
    report = ingest(decoded, store=Store(), pseudonymizer=USERS)  # type: ignore[arg-type]
    body = report.to_json()

    assert (1_500, 1_500) == (body["received"], body["rejected_count"])
    assert list(range(1_000)) == [one["index"] for one in body["rejected"]]


def test_nothing_shows_an_id() -> None:
    """A batch and a report of a unique user show nothing of the user."""
    decoded = read({"user_id": CANARY, "event_id": CANARY}, {"user_id": CANARY, "op": CANARY})
    batch = build(decoded, USERS)
    report = ingest(decoded, store=Store(), pseudonymizer=USERS)  # type: ignore[arg-type]

    assert CANARY not in f"{batch!r} {columns_of(batch)} {report!r} {decoded!r}"
    assert [RejectionCode.UNKNOWN_OP] == [one.code for one in report.rejected]


def test_a_raw_event_is_a_value() -> None:
    """Events compare by their fields, whatever made them."""
    assert RawEvent("u", Op.ADD, dt.date(2026, 2, 1)) == read({}).events[0]
    assert np.uint64 == build(read({}), USERS).pseudonym.dtype
