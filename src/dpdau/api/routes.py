"""The routes of the service: HTTP words for the verbs of `app`, and nothing else.

Order of refusals on every route: 429 for the address, 401, 429 for the key, 403, 413 and 415 for
the body, 422 for the shape, 409 while a day is open, 429 for the budget; 503 whenever a part that
is needed cannot write. The routes that take events are in `ingest`.
"""

import csv
import datetime as dt
import io
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Annotated, Any, Final, Literal
from urllib.parse import unquote_to_bytes, urlencode

from fastapi import APIRouter, Depends, Query, Request
from fastapi.responses import JSONResponse, Response
from pydantic import ValidationError
from pydantic_core import from_json
from starlette.concurrency import run_in_threadpool
from starlette.exceptions import HTTPException

from dpdau import __version__
from dpdau.api.bodies import PLAN_FORMS, BodyReader, form_of
from dpdau.api.openapi import BODY_STATUSES, body_of, guarded, ref, refusals
from dpdau.api.problems import question_error
from dpdau.api.readiness import ReadinessProbe
from dpdau.api.schemas import (
    AnswerShape,
    BudgetQuery,
    BudgetShape,
    Day,
    MonthQuoteShape,
    MonthRequest,
    MonthStatusShape,
    PageQuery,
    PlanPageShape,
    PlanRequest,
    PlansQuery,
    QuoteShape,
    ReceiptShape,
    ReleasePageShape,
    ReleaseQuery,
    SeriesQuery,
    SeriesShape,
    StatusShape,
    VersionShape,
    WindowQuery,
)
from dpdau.app import App
from dpdau.domain import Answer, Metric, Scope, Segment
from dpdau.errors import RETRY_AFTER_SECONDS, InvalidEventError, InvalidPlanError

CSV_COLUMNS: Final = (
    "metric",
    "day",
    "window_days",
    "window_start",
    "window_end",
    "timezone",
    "segment",
    "estimate",
    "lower_95",
    "upper_95",
    "noise_stddev",
    "epsilon_used",
    "delta",
    "mechanism",
    "sketch_impl",
    "released_at",
    "release_id",
    "status",
    "version",
)
_RELEASE_STATUSES: Final = (409, 422)
router = APIRouter()


async def product(request: Request) -> App:
    """The product behind this service."""
    app: App = request.app.state.product
    return app


async def plan_body(request: Request) -> bytes:
    """The body of a plan request, read before the query is looked at."""
    form_of(request.headers, PLAN_FORMS)
    bodies: BodyReader = request.app.state.bodies
    with bodies.holding() as hold:
        return await bodies.read(request.scope, request.headers, request.receive, hold)


BudgetName = Literal["dau", "wau", "mau", "plan", "live"]
Product = Annotated[App, Depends(product)]


@router.delete(
    "/users/{user_id:path}",
    status_code=202,
    response_model=ReceiptShape,
    summary="Erase a user: every pair, under every live key.",
    **guarded(Scope.ERASE, 422),
)
def erase_user(request: Request, user_id: str, app: Product) -> Response:
    """Takes out everything of one user and answers with the receipt."""
    return JSONResponse(app.erase(_exact_user_id(request, user_id)).to_json(), status_code=202)


@router.get(
    "/erasures/{erasure_id}",
    response_model=ReceiptShape,
    summary="The receipt of an erasure.",
    **guarded(Scope.ERASE, 404, 422),
)
def get_erasure(erasure_id: str, app: Product) -> Response:
    """The receipt of an erasure."""
    return JSONResponse(app.erasure(erasure_id).to_json())


@router.get(
    "/dau/{day}",
    response_model=AnswerShape,
    summary="Distinct users active on a day: one release.",
    **guarded(Scope.RELEASE, *_RELEASE_STATUSES),
)
async def get_dau(
    request: Request, day: Day, query: Annotated[ReleaseQuery, Query()], app: Product
) -> Response:
    """The stored number at no cost, or a new one with its charge."""
    return await _release(request, app, Metric.DAU, day, query)


@router.get(
    "/wau",
    response_model=AnswerShape,
    summary="Distinct users active in the 7 days that end at a day: one release.",
    **guarded(Scope.RELEASE, *_RELEASE_STATUSES),
)
async def get_wau(
    request: Request, query: Annotated[WindowQuery, Query()], app: Product
) -> Response:
    """The stored number at no cost, or a new one with its charge."""
    return await _release(request, app, Metric.WAU, query.end, query)


@router.get(
    "/mau",
    response_model=AnswerShape,
    summary="Distinct users active in the window that ends at a day: one release.",
    **guarded(Scope.RELEASE, *_RELEASE_STATUSES),
)
async def get_mau(
    request: Request, query: Annotated[WindowQuery, Query()], app: Product
) -> Response:
    """The stored number at no cost, or a new one with its charge."""
    return await _release(request, app, Metric.MAU, query.end, query)


async def _release(
    request: Request, app: App, metric: Metric, day: dt.date, query: ReleaseQuery
) -> Response:
    """The shared body of the three routes."""
    segment, window = segment_of(app, query.segment), query.window
    # What is stored is read here: in a thread it would wait for this one again and again.
    answer = None if query.fresh else app.stored(metric, day, window_days=window, segment=segment)
    if answer is None:
        answer = await run_in_threadpool(
            app.release, metric, day, window_days=window, segment=segment, fresh=query.fresh
        )
    return JSONResponse(_shown(request, answer))


_CSV_RESPONSE: Final = {
    200: {
        "description": "What is released, as JSON or CSV.",
        "content": {"text/csv": {"schema": {"type": "string"}}},
    }
}
_SERIES_OPTIONS: Final = guarded(Scope.READ, 422)


@router.get(
    "/series",
    response_model=SeriesShape,
    summary="What is released in a range of days; never spends.",
    **{**_SERIES_OPTIONS, "responses": {**_CSV_RESPONSE, **_SERIES_OPTIONS["responses"]}},
)
def get_series(request: Request, query: Annotated[SeriesQuery, Query()], app: Product) -> Response:
    """Released numbers in day order, for charts."""
    answers = app.series(
        _metrics(query.metrics),
        query.first,
        query.last,
        segment=segment_of(app, query.segment),
        view=query.view,
    )
    rows = [_shown(request, answer) for answer in answers]
    if query.format == "csv":
        return Response(csv_text(CSV_COLUMNS, rows), media_type="text/csv")
    return JSONResponse({"releases": rows})


@router.get(
    "/budget/{metric}",
    response_model=BudgetShape,
    summary="The budget of a metric, the month plan or the live counter, for the month of a day.",
    **guarded(Scope.READ, 404, 422),
)
def get_budget(
    metric: BudgetName, query: Annotated[BudgetQuery, Query()], app: Product
) -> Response:
    """What the month's budget holds and what was spent."""
    return JSONResponse(app.budget(metric, query.day).to_json())


@router.get(
    "/releases",
    response_model=ReleasePageShape,
    summary="The log of releases, oldest first, in pages.",
    **guarded(Scope.READ, 422),
)
def get_releases(query: Annotated[PageQuery, Query()], app: Product) -> Response:
    """One page; the `Link` header leads to the next."""
    rows, following = app.releases(after=query.after, limit=query.limit)
    body = {"releases": [one.to_json() for one in rows], "next": following}
    return JSONResponse(body, headers=_link("/releases", following, query.limit))


@router.get(
    "/plans",
    response_model=PlanPageShape,
    summary="The opened plans with their charges, oldest first, in pages.",
    **guarded(Scope.READ, 422),
)
def get_plans(query: Annotated[PageQuery, Query()], app: Product) -> Response:
    """One page; the `Link` header leads to the next."""
    rows, following = app.plans(after=query.after, limit=query.limit)
    return JSONResponse(
        {"plans": rows, "next": following}, headers=_link("/plans", following, query.limit)
    )


_PLAN_OPTIONS: Final = guarded(
    Scope.RELEASE,
    *BODY_STATUSES,
    *_RELEASE_STATUSES,
    requestBody=body_of({"application/json": {"anyOf": [ref("MonthRequest"), ref("PlanRequest")]}}),
)
_PRICED_RESPONSE: Final = {
    200: {"description": "The price, with `dry_run`.", "model": MonthQuoteShape | QuoteShape}
}


@router.post(
    "/plans",
    status_code=201,
    response_model=MonthStatusShape | AnswerShape,
    summary="Open the plan of a month, or take one release; with dry_run, price it.",
    **{**_PLAN_OPTIONS, "responses": {**_PRICED_RESPONSE, **_PLAN_OPTIONS["responses"]}},
)
def post_plan(
    request: Request,
    body: Annotated[bytes, Depends(plan_body)],
    query: Annotated[PlansQuery, Query()],
    app: Product,
) -> Response:
    """Error bars and cost before buying; the open plan, or the number and its charge, after."""
    asked = _plan_request(body)
    if isinstance(asked, MonthRequest):
        if query.dry_run:
            return JSONResponse(app.price_month(asked.month).to_json())
        return JSONResponse(app.open_month(asked.month).to_json(), status_code=201)
    segment = segment_of(app, asked.segment)
    if query.dry_run:
        quote = app.price(
            asked.metric, asked.day, window_days=asked.window, segment=segment, fresh=asked.fresh
        )
        return JSONResponse(quote.to_json())
    answer = app.release(
        asked.metric, asked.day, window_days=asked.window, segment=segment, fresh=asked.fresh
    )
    return JSONResponse(_shown(request, answer), status_code=201)


@router.get(
    "/plans/{month}",
    response_model=MonthStatusShape,
    summary="The open plan of a month, and how far it has come.",
    **guarded(Scope.READ, 404, 422),
)
def get_month(month: str, app: Product) -> Response:
    """The state of a month plan."""
    return JSONResponse(app.month(month).to_json())


@router.get("/version", response_model=VersionShape, summary="The version.", **guarded(None))
async def get_version() -> Response:
    """The version of the service."""
    return JSONResponse({"name": "dpdau", "version": __version__})


@router.get("/healthz", response_model=StatusShape, summary="Alive.", responses=refusals(500))
async def get_healthz() -> Response:
    """Answers while the process serves."""
    return JSONResponse({"status": "ok"})


@router.get(
    "/readyz",
    response_model=StatusShape,
    summary="Can write.",
    responses=refusals(429, 500, 503),
)
async def get_readyz(request: Request) -> Response:
    """Says whether the store and the ledger can write, and nothing of why not."""
    readiness: ReadinessProbe = request.app.state.readiness
    if not await readiness.check():
        raise HTTPException(503, headers={"Retry-After": str(RETRY_AFTER_SECONDS)})
    return JSONResponse({"status": "ok"})


def _shown(request: Request, answer: Answer) -> dict[str, Any]:
    """An answer as JSON; the exact value leaves only where the service was started for it."""
    if not request.app.state.unsafe_debug:
        answer = replace(answer, exact_value=None)
    return answer.to_json()


def segment_of(app: App, text: str | None) -> Segment | None:
    """Reads a segment whose form was checked; the refusal does not repeat what was asked for.

    Raises:
        InvalidPlanError: The dimension is not declared.
    """
    if text is None:
        return None
    segment = Segment.parse(text)
    known = app.settings.DIMENSIONS
    if segment.dimension not in known:
        raise InvalidPlanError(
            f"Expected a segment of a declared dimension ({', '.join(known) or 'there is none'})."
        )
    return segment


def _metrics(text: str) -> list[Metric]:
    """Reads a comma-separated list; each metric once."""
    try:
        return list(dict.fromkeys(Metric(part.strip()) for part in text.split(",")))
    except ValueError:
        raise InvalidPlanError(f"Expected metrics of {', '.join(Metric)}.") from None


def _plan_request(body: bytes) -> PlanRequest | MonthRequest:
    """Reads the body of `POST /plans`: a month plan where it names a month.

    Raises:
        InvalidPlanError: It is not of the shape; names the fields and not their values.
    """
    try:
        found = from_json(body)
    except ValueError:
        found = None
    shape = MonthRequest if isinstance(found, dict) and "month" in found else PlanRequest
    try:
        return shape.model_validate_json(body)
    except ValidationError as error:
        refused = question_error(error.errors(include_url=False, include_input=False))
    raise refused


def _exact_user_id(request: Request, user_id: str) -> str:
    """The id of the path, byte for byte: a server decodes broken UTF-8 to another id.

    Raises:
        InvalidEventError: The bytes of the path are not UTF-8.
    """
    raw: bytes | None = request.scope.get("raw_path")
    try:
        if raw is not None:
            unquote_to_bytes(raw).decode()
        user_id.encode()
    except UnicodeError:
        raise InvalidEventError("Expected a user id in UTF-8.", field="user_id") from None
    return user_id


def _link(path: str, following: str | None, limit: int) -> dict[str, str]:
    """The `Link` header of a page that is not the last."""
    if following is None:
        return {}
    query = urlencode({"after": following, "limit": limit})
    return {"Link": f'<{path}?{query}>; rel="next"'}


def csv_text(columns: Sequence[str], rows: Sequence[Mapping[str, Any]]) -> str:
    """Rows as CSV with a header; what has no column is left out."""
    out = io.StringIO(newline="")
    writer = csv.DictWriter(out, columns, extrasaction="ignore", lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return out.getvalue()
