"""The methods of `dpdau.v1.Dpdau`: gRPC words for the verbs of `app`, and nothing else.

Order of refusals on every method: RESOURCE_EXHAUSTED for the address, UNAUTHENTICATED,
RESOURCE_EXHAUSTED for the key, PERMISSION_DENIED, and only then is the message read.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import Any, Final

from dpdau import __version__
from dpdau.app import App
from dpdau.domain import Answer, Metric, Scope, Segment, SeriesView, month_days, parse_day
from dpdau.errors import InvalidPlanError
from dpdau.rpc.messages import answer_of, message_of
from dpdau.rpc.v1 import dpdau_pb2 as v1

SERVICE: Final = "dpdau.v1.Dpdau"
INGEST: Final = "Ingest"
_SEGMENT_LENGTH_MAX: Final = 256


@dataclass(frozen=True, slots=True)
class Desk:
    """What the methods ask: the product, and whether its exact values may leave."""

    app: App
    unsafe_debug: bool

    def shown(self, answer: Answer) -> v1.Answer:
        """An answer; the exact value leaves only where the service was started for it."""
        return answer_of(answer if self.unsafe_debug else replace(answer, exact_value=None))


@dataclass(frozen=True, slots=True)
class Method:
    """One method with one request: its scope, the form of its request, and what it answers."""

    scope: Scope | None
    request: Any
    answers: Callable[[Desk, Any], Iterator[Any]]


def _version(desk: Desk, asked: v1.VersionRequest) -> Iterator[v1.VersionReply]:
    yield v1.VersionReply(name="dpdau", version=__version__)


def _release(desk: Desk, asked: v1.ReleaseRequest) -> Iterator[v1.Answer]:
    yield desk.shown(
        desk.app.release(
            _metric(asked.metric),
            parse_day(asked.day),
            window_days=_window(asked),
            segment=_segment(desk, asked),
            fresh=asked.fresh,
        )
    )


def _price(desk: Desk, asked: v1.ReleaseRequest) -> Iterator[v1.Quote]:
    quote = desk.app.price(
        _metric(asked.metric),
        parse_day(asked.day),
        window_days=_window(asked),
        segment=_segment(desk, asked),
        fresh=asked.fresh,
    )
    yield message_of(v1.Quote, quote.to_json())


def _growth(desk: Desk, asked: v1.GrowthRequest) -> Iterator[v1.GrowthAnswer]:
    answer = desk.app.growth(parse_day(asked.day), window_days=_window(asked), fresh=asked.fresh)
    yield message_of(v1.GrowthAnswer, answer.to_json())


def _series(desk: Desk, asked: v1.SeriesRequest) -> Iterator[v1.Answer]:
    metrics = list(dict.fromkeys(map(_metric, asked.metrics))) or list(Metric)
    answers = desk.app.series(
        metrics,
        parse_day(asked.first),
        parse_day(asked.last),
        segment=_segment(desk, asked),
        view=_view(asked),
    )
    return map(desk.shown, answers)


def _budget(desk: Desk, asked: v1.BudgetRequest) -> Iterator[v1.BudgetBlock]:
    day = parse_day(asked.day) if asked.HasField("day") else None
    yield message_of(v1.BudgetBlock, desk.app.budget(asked.metric, day).to_json())


def _price_month(desk: Desk, asked: v1.MonthRequest) -> Iterator[v1.MonthQuote]:
    yield message_of(v1.MonthQuote, desk.app.price_month(_named(asked)).to_json())


def _open_month(desk: Desk, asked: v1.MonthRequest) -> Iterator[v1.MonthStatus]:
    yield message_of(v1.MonthStatus, desk.app.open_month(_named(asked)).to_json())


def _month(desk: Desk, asked: v1.MonthRequest) -> Iterator[v1.MonthStatus]:
    yield message_of(v1.MonthStatus, desk.app.month(_named(asked)).to_json())


def _erase(desk: Desk, asked: v1.EraseRequest) -> Iterator[v1.ErasureReceipt]:
    yield message_of(v1.ErasureReceipt, desk.app.erase(asked.user_id).to_json())


def _erasure(desk: Desk, asked: v1.ErasureRequest) -> Iterator[v1.ErasureReceipt]:
    yield message_of(v1.ErasureReceipt, desk.app.erasure(asked.erasure_id).to_json())


METHODS: Final = {
    "Version": Method(None, v1.VersionRequest, _version),
    "Release": Method(Scope.RELEASE, v1.ReleaseRequest, _release),
    "Price": Method(Scope.RELEASE, v1.ReleaseRequest, _price),
    "Growth": Method(Scope.RELEASE, v1.GrowthRequest, _growth),
    "Series": Method(Scope.READ, v1.SeriesRequest, _series),
    "Budget": Method(Scope.READ, v1.BudgetRequest, _budget),
    "PriceMonth": Method(Scope.RELEASE, v1.MonthRequest, _price_month),
    "OpenMonth": Method(Scope.RELEASE, v1.MonthRequest, _open_month),
    "Month": Method(Scope.READ, v1.MonthRequest, _month),
    "Erase": Method(Scope.ERASE, v1.EraseRequest, _erase),
    "Erasure": Method(Scope.ERASE, v1.ErasureRequest, _erasure),
}
"""Every method but `Ingest`, which has many requests."""


def _metric(name: str) -> Metric:
    if name not in set(Metric):
        raise InvalidPlanError(f"Expected a metric of {', '.join(Metric)}.")
    return Metric(name)


def _named(asked: v1.MonthRequest) -> str:
    """The month that is asked for; what is none is not repeated."""
    month_days(asked.month)
    return asked.month


def _view(asked: v1.SeriesRequest) -> SeriesView:
    if not asked.HasField("view"):
        return SeriesView.RAW
    if asked.view not in set(SeriesView):
        raise InvalidPlanError(f"Expected a view of {', '.join(SeriesView)}.")
    return SeriesView(asked.view)


def _window(asked: v1.ReleaseRequest | v1.GrowthRequest) -> int | None:
    return asked.window if asked.HasField("window") else None


def _segment(desk: Desk, asked: v1.ReleaseRequest | v1.SeriesRequest) -> Segment | None:
    """The segment that is asked for; the refusal does not repeat it.

    Raises:
        InvalidPlanError: It is of another form, or of a dimension that is not declared.
    """
    if not asked.HasField("segment"):
        return None
    dimension, _, value = asked.segment.partition("=")
    known = desk.app.settings.DIMENSIONS
    if dimension not in known or not value or len(asked.segment) > _SEGMENT_LENGTH_MAX:
        raise InvalidPlanError(
            "Expected a segment dimension=value of a declared dimension "
            f"({', '.join(known) or 'there is none'})."
        )
    return Segment(dimension, value)
