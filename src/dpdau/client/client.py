"""The typed client: the verbs of the product over HTTP, with the product's own errors.

A refusal of the service is raised as the same leaf of `errors` that the service raised, so a caller
cannot tell whether the product is in its process or behind a URL.
"""

import datetime as dt
import logging
from collections.abc import Iterator, Mapping, Sequence
from types import TracebackType
from typing import Any, Final, Self
from urllib.parse import quote

import httpx
import msgspec

from dpdau import __version__
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
from dpdau.errors import DpdauError, ServiceUnreachableError, error_class
from dpdau.ingest.batch import REJECTIONS_KEPT_MAX, IngestReport
from dpdau.ingest.columns import DecodedTable
from dpdau.ingest.event import EVENTS_MAX, Decoded, RawEvent, Rejection, RejectionCode

TIMEOUT_SECONDS: Final = 30.0
PART_BYTES_MAX: Final = 24 << 20
_RESERVED: Final = frozenset({"type", "title", "status", "code", "detail"})
_ENCODER: Final = msgspec.json.Encoder()


class Client:
    """The verbs of a service. Close it, or use it as a context manager.

    Args:
        url: Where the service is, as `http://host:port`.
        api_key: A key with the scopes of what will be asked; None for a service without keys.
        timeout: Seconds for each of connecting, sending and waiting for the answer.
        transport: Another way to the service, for tests.
    """

    def __init__(
        self,
        url: str,
        api_key: str | None = None,
        *,
        timeout: float = TIMEOUT_SECONDS,
        transport: httpx.BaseTransport | None = None,
    ) -> None:
        _keep_ids_out_of_logs()
        headers = {"User-Agent": f"dpdau/{__version__}", "Accept": "application/json"}
        if api_key is not None:
            headers["X-API-Key"] = api_key
        try:
            self._http = httpx.Client(
                base_url=url, headers=headers, timeout=timeout, transport=transport
            )
        except (httpx.InvalidURL, UnicodeEncodeError, ValueError):
            raise ServiceUnreachableError(
                "Expected an http(s) URL and an API key in ASCII, found something else."
            ) from None
        where = self._http.base_url
        self._where = f"{where.scheme}://{where.netloc.decode('ascii', 'replace')}"

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def close(self) -> None:
        """Closes the connections; may be called twice."""
        self._http.close()

    def ingest(
        self, decoded: Decoded | DecodedTable, *, batch_id: str | None = None
    ) -> IngestReport:
        """See `app.Verbs.ingest`.

        A batch over `PART_BYTES_MAX` or `EVENTS_MAX` is sent in parts. The id of a part is that of
        the batch and the places of its first and last event, so sending the batch again changes
        nothing. What this side rejected already stays in the report under its own index.
        """
        places = _places_of(decoded)
        counts = dict.fromkeys(("accepted", "duplicate", "late", "rejected_count"), 0)
        counts["rejected_count"] = len(decoded.rejected)
        rejected = list(decoded.rejected)
        for part, body in _parts(decoded.events):
            headers = {"Content-Type": "application/x-ndjson"}
            if batch_id is not None:
                ends = f".{places[part[0]]}-{places[part[-1]]}" if len(part) < len(places) else ""
                headers["Idempotency-Key"] = f"{batch_id}{ends}"
            answer = self._ask("POST", "/events", content=body, headers=headers)
            for name in counts:
                counts[name] += answer[name]
            first = part[0]
            rejected += [_rejection_of(one, places, first) for one in answer["rejected"]]
        rejected.sort(key=lambda one: one.index)
        return IngestReport(
            received=decoded.received, **counts, rejected=tuple(rejected[:REJECTIONS_KEPT_MAX])
        )

    def price(
        self,
        metric: Metric,
        day: dt.date,
        *,
        window_days: int | None = None,
        segment: Segment | None = None,
        fresh: bool = False,
    ) -> Quote:
        """See `app.Verbs.price`."""
        body = {
            "metric": metric.value,
            "day": day.isoformat(),
            "window": window_days,
            "segment": None if segment is None else str(segment),
            "fresh": fresh,
        }
        return _quote_of(self._ask("POST", "/plans", params={"dry_run": "true"}, json=body))

    def release(
        self,
        metric: Metric,
        day: dt.date,
        *,
        window_days: int | None = None,
        segment: Segment | None = None,
        fresh: bool = False,
    ) -> Answer:
        """See `app.Verbs.release`."""
        params = _query(window=window_days, segment=segment)
        if fresh:
            params["fresh"] = "true"
        path = f"/dau/{day.isoformat()}" if metric is Metric.DAU else f"/{metric.value}"
        if metric is not Metric.DAU:
            params["end"] = day.isoformat()
        return Answer.from_json(self._ask("GET", path, params=params))

    def growth(
        self, day: dt.date, *, window_days: int | None = None, fresh: bool = False
    ) -> GrowthAnswer:
        """See `app.Verbs.growth`."""
        params = {"end": day.isoformat(), **_query(window=window_days)}
        if fresh:
            params["fresh"] = "true"
        return GrowthAnswer.from_json(self._ask("GET", "/growth", params=params))

    def series(
        self,
        metrics: Sequence[Metric],
        first: dt.date,
        last: dt.date,
        *,
        segment: Segment | None = None,
        view: SeriesView = SeriesView.RAW,
    ) -> list[Answer]:
        """See `app.Verbs.series`."""
        params = {
            "metrics": ",".join(metric.value for metric in metrics),
            "from": first.isoformat(),
            "to": last.isoformat(),
            "view": view.value,
            **_query(segment=segment),
        }
        body = self._ask("GET", "/series", params=params)
        return [Answer.from_json(one) for one in body["releases"]]

    def price_month(self, month: str) -> MonthQuote:
        """See `app.Verbs.price_month`."""
        asked, dry = {"month": month}, {"dry_run": "true"}
        return MonthQuote.from_json(self._ask("POST", "/plans", params=dry, json=asked))

    def open_month(self, month: str) -> MonthStatus:
        """See `app.Verbs.open_month`."""
        return MonthStatus.from_json(self._ask("POST", "/plans", json={"month": month}))

    def month(self, month: str) -> MonthStatus:
        """See `app.Verbs.month`."""
        return MonthStatus.from_json(self._ask("GET", f"/plans/{_segment_of_path(month)}"))

    def budget(self, metric: str, day: dt.date | None = None) -> BudgetBlock:
        """See `app.Verbs.budget`."""
        path = f"/budget/{_segment_of_path(metric)}"
        return BudgetBlock.from_json(self._ask("GET", path, params=_query(day=day)))

    def erase(self, user_id: str) -> ErasureReceipt:
        """See `app.Verbs.erase`."""
        return _receipt_of(self._ask("DELETE", f"/users/{_segment_of_path(user_id)}"))

    def erasure(self, erasure_id: str) -> ErasureReceipt:
        """See `app.Verbs.erasure`."""
        return _receipt_of(self._ask("GET", f"/erasures/{_segment_of_path(erasure_id)}"))

    def _ask(self, method: str, path: str, **options: Any) -> Any:
        """One request; the body of its answer.

        Raises:
            DpdauError: What the service raised.
            ServiceUnreachableError: No answer, or one that is not of this service.
        """
        try:
            answer = self._http.request(method, path, **options)
        except httpx.HTTPError as error:
            # The request of a transport error has a path with an id in it: only its kind is told.
            raise ServiceUnreachableError(
                f"Expected an answer from {self._http.base_url.host}, found none "
                f"({type(error).__name__}).",
                url=self._where,
            ) from None
        try:
            body = answer.json()
        except ValueError:
            body = None
        if answer.is_success and isinstance(body, dict):
            return body
        raise _error_of(answer.status_code, body, self._where)


def _error_of(status: int, body: Any, url: str) -> DpdauError:
    """The error that a problem document stands for."""
    leaf = error_class(str(body.get("code"))) if isinstance(body, Mapping) else None
    if leaf is None:
        return ServiceUnreachableError(
            f"Expected an answer of dpdau, found status {status}.", url=url, http_status=status
        )
    facts = {name: value for name, value in body.items() if name not in _RESERVED}
    return leaf(str(body.get("detail")), **facts)


def _query(**values: object) -> dict[str, str]:
    """The parameters that are given, as text."""
    return {name: str(value) for name, value in values.items() if value is not None}


def _segment_of_path(text: str) -> str:
    """A path segment that no URL library rewrites: `..` would otherwise climb."""
    return quote(text, safe="", errors="surrogatepass").replace(".", "%2E")


def _parts(events: Sequence[RawEvent]) -> Iterator[tuple[range, bytes]]:
    """NDJSON bodies that the service takes, each with the numbers of its events."""
    first, body = 0, bytearray()
    for number, event in enumerate(events):
        line = _ENCODER.encode(_wire(event))
        full = len(body) + len(line) >= PART_BYTES_MAX or number - first >= EVENTS_MAX
        if body and full:
            yield range(first, number), bytes(body)
            first, body = number, bytearray()
        body += line
        body += b"\n"
    if body:
        yield range(first, len(events)), bytes(body)


def _wire(event: RawEvent) -> dict[str, object]:
    """An event as it is sent."""
    body: dict[str, object] = {"user_id": event.user_id, "op": event.op, "day": event.day}
    if event.event_id is not None:
        body["event_id"] = event.event_id
    if event.labels or event.days:
        body["metadata"] = {**event.labels, **({"days": event.days} if event.days else {})}
    return body


def _places_of(decoded: Decoded | DecodedTable) -> list[int]:
    """The index, among the items received, of each event that is sent."""
    refused = {one.index for one in decoded.rejected}
    return [index for index in range(decoded.received) if index not in refused]


def _rejection_of(body: Mapping[str, Any], places: Sequence[int], first: int) -> Rejection:
    """A rejection of the part that begins with a number, with its index in the whole batch."""
    return Rejection(
        index=places[first + body["index"]],
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


def _receipt_of(body: Mapping[str, Any]) -> ErasureReceipt:
    return ErasureReceipt(
        erasure_id=body["erasure_id"],
        days_touched=int(body["days_touched"]),
        done_at=dt.datetime.fromisoformat(body["done_at"]),
    )


class _NoPaths(logging.Filter):
    """Drops the request lines of the HTTP library: their URL can hold a user id."""

    def filter(self, record: logging.LogRecord) -> bool:
        return record.levelno > logging.INFO


def _keep_ids_out_of_logs() -> None:
    """Filters the HTTP library's own logger, once."""
    logger = logging.getLogger("httpx")
    if not any(isinstance(one, _NoPaths) for one in logger.filters):
        logger.addFilter(_NoPaths())
