"""The verbs as exchanges: which requests each makes, and how it reads their answers.

The one source of both clients. Each function here becomes a method of `Client` and of `AsyncClient`
with this signature and docstring; its first parameter is the client.
"""

import datetime as dt
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Final, Protocol

import msgspec

from dpdau.client.calls import Call, Exchange, path_segment
from dpdau.domain import (
    Answer,
    BudgetBlock,
    ErasureReceipt,
    GrowthAnswer,
    Metric,
    MonthQuote,
    MonthStatus,
    Quote,
    Segment,
    SeriesView,
    Window,
)
from dpdau.ingest.batch import REJECTIONS_KEPT_MAX, IngestReport
from dpdau.ingest.decoded import DecodedTable
from dpdau.ingest.event import (
    EVENTS_MAX,
    Decoded,
    RawEvent,
    Rejection,
    RejectionCode,
    wire_of,
)

PART_BYTES_MAX: Final = 24 << 20
_ENCODER: Final = msgspec.json.Encoder()
_DRY_RUN: Final = {"dry_run": "true"}


class NamesBatches(Protocol):
    """What a verb needs of the client that runs it."""

    def new_batch_id(self) -> str:
        """An id that no other batch has."""


def ingest(
    self: NamesBatches, decoded: Decoded | DecodedTable, *, batch_id: str | None = None
) -> Exchange[IngestReport]:
    """See `app.Verbs.ingest`.

    A batch over `PART_BYTES_MAX` or `EVENTS_MAX` is sent in parts. The id of a part is that of
    the batch and the places of its first and last event, so sending the batch again changes
    nothing. Without a `batch_id` the client draws one, for this call: a part that is sent again
    because its answer got lost is taken once, and then counts as `duplicate`. What this side
    rejected already stays in the report under its own index.
    """
    places = _places_of(decoded)
    name = self.new_batch_id() if batch_id is None else batch_id
    counts = dict.fromkeys(("accepted", "duplicate", "late", "rejected_count"), 0)
    counts["rejected_count"] = len(decoded.rejected)
    rejected = list(decoded.rejected)
    for part, body in _parts(decoded.events):
        ends = f".{places[part[0]]}-{places[part[-1]]}" if len(part) < len(places) else ""
        answer = yield lines_call(body, f"{name}{ends}")
        for kind in counts:
            counts[kind] += answer[kind]
        first = part[0]
        rejected += [_rejection_of(one, places[first + one["index"]]) for one in answer["rejected"]]
    rejected.sort(key=lambda one: one.index)
    return IngestReport(
        received=decoded.received, **counts, rejected=tuple(rejected[:REJECTIONS_KEPT_MAX])
    )


def price(
    self: object,
    metric: Metric,
    day: dt.date,
    *,
    window_days: int | None = None,
    segment: Segment | None = None,
    fresh: bool = False,
) -> Exchange[Quote]:
    """See `app.Verbs.price`."""
    body = {
        "metric": metric.value,
        "day": day.isoformat(),
        "window": window_days,
        "segment": None if segment is None else str(segment),
        "fresh": fresh,
    }
    return _quote_of((yield Call("POST", "/plans", _DRY_RUN, json=body)))


def release(
    self: object,
    metric: Metric,
    day: dt.date,
    *,
    window_days: int | None = None,
    segment: Segment | None = None,
    fresh: bool = False,
) -> Exchange[Answer]:
    """See `app.Verbs.release`. A `fresh` one is not asked for again where its answer got lost."""
    params = _query(window=window_days, segment=segment)
    if fresh:
        params["fresh"] = "true"
    path = f"/dau/{day.isoformat()}" if metric is Metric.DAU else f"/{metric.value}"
    if metric is not Metric.DAU:
        params["end"] = day.isoformat()
    return Answer.from_json((yield Call("GET", path, params, repeatable=not fresh)))


def growth(
    self: object, day: dt.date, *, window_days: int | None = None, fresh: bool = False
) -> Exchange[GrowthAnswer]:
    """See `app.Verbs.growth`. A `fresh` one is not asked for again where its answer got lost."""
    params = {"end": day.isoformat(), **_query(window=window_days)}
    if fresh:
        params["fresh"] = "true"
    return GrowthAnswer.from_json((yield Call("GET", "/growth", params, repeatable=not fresh)))


def series(
    self: object,
    metrics: Sequence[Metric],
    first: dt.date,
    last: dt.date,
    *,
    segment: Segment | None = None,
    view: SeriesView = SeriesView.RAW,
) -> Exchange[list[Answer]]:
    """See `app.Verbs.series`."""
    params = {
        "metrics": ",".join(metric.value for metric in metrics),
        "from": first.isoformat(),
        "to": last.isoformat(),
        "view": view.value,
        **_query(segment=segment),
    }
    body = yield Call("GET", "/series", params)
    return [Answer.from_json(one) for one in body["releases"]]


def price_month(self: object, month: str) -> Exchange[MonthQuote]:
    """See `app.Verbs.price_month`."""
    return MonthQuote.from_json((yield Call("POST", "/plans", _DRY_RUN, json={"month": month})))


def open_month(self: object, month: str) -> Exchange[MonthStatus]:
    """See `app.Verbs.open_month`."""
    return MonthStatus.from_json((yield Call("POST", "/plans", json={"month": month})))


def month(self: object, month: str) -> Exchange[MonthStatus]:
    """See `app.Verbs.month`."""
    return MonthStatus.from_json((yield Call("GET", f"/plans/{path_segment(month)}")))


def budget(self: object, metric: str, day: dt.date | None = None) -> Exchange[BudgetBlock]:
    """See `app.Verbs.budget`."""
    path = f"/budget/{path_segment(metric)}"
    return BudgetBlock.from_json((yield Call("GET", path, _query(day=day))))


def erase(self: object, user_id: str) -> Exchange[ErasureReceipt]:
    """See `app.Verbs.erase`."""
    return ErasureReceipt.from_json((yield Call("DELETE", f"/users/{path_segment(user_id)}")))


def erasure(self: object, erasure_id: str) -> Exchange[ErasureReceipt]:
    """See `app.Verbs.erasure`."""
    return ErasureReceipt.from_json((yield Call("GET", f"/erasures/{path_segment(erasure_id)}")))


def lines_call(body: bytes, batch_id: str) -> Call:
    """The request that takes in the events of an NDJSON body under an id."""
    headers = {"Content-Type": "application/x-ndjson", "Idempotency-Key": batch_id}
    return Call("POST", "/events", content=body, headers=headers)


def report_of(body: Mapping[str, Any]) -> IngestReport:
    """What became of the events of one body."""
    return IngestReport(
        received=body["received"],
        accepted=body["accepted"],
        duplicate=body["duplicate"],
        late=body["late"],
        rejected=tuple(_rejection_of(one, one["index"]) for one in body["rejected"]),
        rejected_count=body["rejected_count"],
    )


def _query(**values: object) -> dict[str, str]:
    """The parameters that are given, as text."""
    return {name: str(value) for name, value in values.items() if value is not None}


def _parts(events: Sequence[RawEvent]) -> Iterator[tuple[range, bytes]]:
    """NDJSON bodies that the service takes, each with the numbers of its events."""
    first, body = 0, bytearray()
    for number, event in enumerate(events):
        line = _ENCODER.encode(wire_of(event))
        full = len(body) + len(line) >= PART_BYTES_MAX or number - first >= EVENTS_MAX
        if body and full:
            yield range(first, number), bytes(body)
            first, body = number, bytearray()
        body += line
        body += b"\n"
    if body:
        yield range(first, len(events)), bytes(body)


def _places_of(decoded: Decoded | DecodedTable) -> list[int]:
    """The index, among the items received, of each event that is sent."""
    refused = {one.index for one in decoded.rejected}
    places = [index for index in range(decoded.received) if index not in refused]
    assert len(places) + len(refused) == decoded.received, "an index counts from the batch's start"
    return places


def _rejection_of(body: Mapping[str, Any], index: int) -> Rejection:
    """A rejection that the service told, under an index of the sender."""
    return Rejection(
        index=index,
        code=RejectionCode(body["code"]),
        field=body["field"],
        message=body["message"],
    )


def _quote_of(body: Mapping[str, Any]) -> Quote:
    segment = body["segment"]
    return Quote(
        metric=Metric(body["metric"]),
        window=Window(dt.date.fromisoformat(body["day"]), int(body["window_days"])),
        segment=None if segment is None else Segment.parse(segment),
        mechanism=body["mechanism"],
        epsilon=float(body["epsilon"]),
        delta=float(body["delta"]),
        noise_stddev=float(body["noise_stddev"]),
        half_width_95=int(body["half_width_95"]),
        affordable=bool(body["affordable"]),
        budget=BudgetBlock.from_json(body["budget"]),
    )
