"""A gRPC service over an app on a free port of loopback, and the verbs through it."""

import datetime as dt
import json
import queue
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import grpc

from dpdau.app import App
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
from dpdau.errors import DpdauError, error_class
from dpdau.ingest.batch import IngestReport
from dpdau.ingest.event import Rejection, RejectionCode
from dpdau.rpc.problems import PROBLEM_KEY
from dpdau.rpc.server import RpcServer
from dpdau.rpc.v1 import dpdau_pb2 as v1
from dpdau.rpc.v1.dpdau_pb2_grpc import DpdauStub
from products import API_KEY

KEY = (("x-api-key", API_KEY),)
SECONDS_MAX = 30.0
OPS = {"+": v1.OP_ADD, "-": v1.OP_REMOVE}


class Sender:
    """Requests of a stream that are sent when the test says so."""

    def __init__(self) -> None:
        self.queue: queue.SimpleQueue[object] = queue.SimpleQueue()

    def __iter__(self) -> Iterator[object]:
        while (one := self.queue.get()) is not None:
            yield one


@contextmanager
def rpc_server(app: App, **options: Any) -> Iterator[tuple[RpcServer, grpc.Channel]]:
    """A service and a channel to it."""
    server = RpcServer(app, host="127.0.0.1", port=0, **options)
    local = [("grpc.use_local_subchannel_pool", 1)]
    with grpc.insecure_channel(f"127.0.0.1:{server.port}", options=local) as channel:
        try:
            yield server, channel
        finally:
            server.close()


@contextmanager
def rpc_service(app: App, **options: Any) -> Iterator[DpdauStub]:
    """The methods of a service."""
    with rpc_server(app, **options) as (_, channel):
        yield DpdauStub(channel)


def message(event: dict[str, Any]) -> v1.Event:
    """An event as a message, with an operation that is not known where its sign is none."""
    texts = {name: event[name] for name in ("user_id", "day", "ts", "event_id") if name in event}
    metadata = dict(event.get("metadata", {}))
    days = metadata.pop("days", ())
    op = OPS.get(event["op"], 9) if "op" in event else v1.OP_UNSPECIFIED
    return v1.Event(**texts, op=op, metadata=metadata, days=days)


def listed(events: Sequence[dict[str, Any]], batch_id: str | None = None) -> v1.IngestRequest:
    """A request with events one by one."""
    events_of = v1.EventList(events=map(message, events))
    return v1.IngestRequest(list=events_of, batch_id=batch_id)


def problem_of(error: grpc.RpcError) -> dict[str, Any]:
    """The problem document of a call that was refused."""
    trailing = dict(error.trailing_metadata())
    document: dict[str, Any] = json.loads(trailing[PROBLEM_KEY])
    return document


def body_of(found: Any) -> dict[str, Any]:
    """A message as the JSON object that it was made of."""
    body: dict[str, Any] = {}
    for field in found.DESCRIPTOR.fields:
        value = getattr(found, field.name)
        if field.is_repeated:
            value = list(value) if field.message_type is None else list(map(_item, value))
        elif field.has_presence and not found.HasField(field.name):
            value = None
        elif field.message_type is not None:
            value = body_of(value)
        body[field.name] = value
    return body


def report_of(reply: v1.IngestReply) -> IngestReport:
    """A reply as the noun."""
    body = body_of(reply)
    body.pop("ingested")
    rejected = [
        Rejection(one["index"], RejectionCode(one["code"]), one["field"], one["message"])
        for one in body.pop("rejected")
    ]
    return IngestReport(**body, rejected=tuple(rejected))


class RpcVerbs:
    """The verbs through gRPC; events are sent as they were written."""

    def __init__(self, stub: DpdauStub, events: Sequence[dict[str, Any]]) -> None:
        self._stub = stub
        self._events = events

    def ingest(self, decoded: object, *, batch_id: str | None = None) -> IngestReport:
        """See `Verbs`."""
        replies = self._stub.Ingest(iter([listed(self._events, batch_id)]), metadata=KEY)
        return report_of(next(replies))

    def price(self, metric: Metric, day: dt.date, **more: Any) -> Quote:
        """See `Verbs`."""
        body = self._asked("Price", self._release_request(metric, day, **more))
        return Quote(
            metric=metric,
            window=Window(dt.date.fromisoformat(body["day"]), body["window_days"]),
            segment=None if body["segment"] is None else Segment.parse(body["segment"]),
            budget=BudgetBlock.from_json(body["budget"]),
            **{
                name: body[name]
                for name in (
                    "mechanism",
                    "epsilon",
                    "delta",
                    "noise_stddev",
                    "half_width_95",
                    "affordable",
                )
            },
        )

    def release(self, metric: Metric, day: dt.date, **more: Any) -> Answer:
        """See `Verbs`."""
        return _answer(self._asked("Release", self._release_request(metric, day, **more)))

    def growth(
        self, day: dt.date, *, window_days: int | None = None, fresh: bool = False
    ) -> GrowthAnswer:
        """See `Verbs`."""
        asked = v1.GrowthRequest(day=day.isoformat(), window=window_days, fresh=fresh)
        return GrowthAnswer.from_json(self._asked("Growth", asked))

    def series(
        self,
        metrics: Sequence[Metric],
        first: dt.date,
        last: dt.date,
        *,
        segment: Segment | None = None,
        view: SeriesView = SeriesView.RAW,
    ) -> list[Answer]:
        """See `Verbs`."""
        asked = v1.SeriesRequest(
            metrics=[metric.value for metric in metrics],
            first=first.isoformat(),
            last=last.isoformat(),
            segment=None if segment is None else str(segment),
            view=view.value,
        )
        with _translated():
            found = self._stub.Series(asked, metadata=KEY, timeout=SECONDS_MAX)
            return [_answer(body_of(one)) for one in found]
        raise AssertionError("unreachable")

    def price_month(self, month: str) -> MonthQuote:
        """See `Verbs`."""
        return MonthQuote.from_json(self._asked("PriceMonth", v1.MonthRequest(month=month)))

    def open_month(self, month: str) -> MonthStatus:
        """See `Verbs`."""
        return MonthStatus.from_json(self._asked("OpenMonth", v1.MonthRequest(month=month)))

    def month(self, month: str) -> MonthStatus:
        """See `Verbs`."""
        return MonthStatus.from_json(self._asked("Month", v1.MonthRequest(month=month)))

    def budget(self, metric: str, day: dt.date | None = None) -> BudgetBlock:
        """See `Verbs`."""
        asked = v1.BudgetRequest(metric=metric, day=None if day is None else day.isoformat())
        return BudgetBlock.from_json(self._asked("Budget", asked))

    def erase(self, user_id: str) -> ErasureReceipt:
        """See `Verbs`."""
        return ErasureReceipt.from_json(self._asked("Erase", v1.EraseRequest(user_id=user_id)))

    def erasure(self, erasure_id: str) -> ErasureReceipt:
        """See `Verbs`."""
        asked = v1.ErasureRequest(erasure_id=erasure_id)
        return ErasureReceipt.from_json(self._asked("Erasure", asked))

    def _asked(self, method: str, request: Any) -> dict[str, Any]:
        with _translated():
            return body_of(getattr(self._stub, method)(request, metadata=KEY, timeout=SECONDS_MAX))
        raise AssertionError("unreachable")

    def _release_request(
        self,
        metric: Metric,
        day: dt.date,
        *,
        window_days: int | None = None,
        segment: Segment | None = None,
        fresh: bool = False,
    ) -> v1.ReleaseRequest:
        return v1.ReleaseRequest(
            metric=metric.value,
            day=day.isoformat(),
            window=window_days,
            segment=None if segment is None else str(segment),
            fresh=fresh,
        )


@contextmanager
def _translated() -> Iterator[None]:
    """Raises what the service raised."""
    try:
        yield
    except grpc.RpcError as error:
        document = problem_of(error)
        leaf = error_class(document["code"])
        assert leaf is not None, document
        standard = {"type", "title", "status", "code", "detail"}
        facts = {name: one for name, one in document.items() if name not in standard}
        raised: DpdauError = leaf(document["detail"], **facts)
        raise raised from None


def _item(one: Any) -> Any:
    if isinstance(one, v1.OrderEpsilon):
        return [one.order, one.epsilon]
    return body_of(one)


def _answer(body: dict[str, Any]) -> Answer:
    return Answer.from_json({**body["release"], **body})
