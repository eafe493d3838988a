"""The pages of the dashboard, each as HTML, JSON and CSV, and the two forms that change something.

| page | address | also |
|---|---|---|
| overview | `/` | `/pages/overview.json`, `/pages/overview.csv` |
| any other | `/pages/NAME` | `/pages/NAME.json`, `/pages/NAME.csv` |

A page is for a browser with a session or a program with an API key, with the scope `read`. Opening
a plan asks for `release`, erasing for `erase`.
"""

import contextlib
import string
from collections.abc import AsyncIterator, Callable
from typing import Annotated, Any, Final
from urllib.parse import urlencode

from fastapi import APIRouter, Depends, Header, Request
from fastapi.responses import JSONResponse, RedirectResponse, Response
from pydantic import ValidationError
from starlette.concurrency import run_in_threadpool

from dpdau.api import live, promises, rendering
from dpdau.api.asked import Asked, Sheet
from dpdau.api.problems import Refusals, question_error
from dpdau.api.readiness import ReadinessProbe
from dpdau.api.routes import Product, csv_text
from dpdau.api.sheets import SHEETS
from dpdau.api.traffic import PAGE_STREAM_PATH
from dpdau.api.visits import Visit, Visits, keep, leave, safe_target, visit
from dpdau.app import App
from dpdau.app.admission import require_scope
from dpdau.app.showing import Showing
from dpdau.domain import Scope
from dpdau.errors import DpdauError, InvalidPlanError, NotFoundError

NAVIGATION: Final = (
    ("overview", "/", "Overview"),
    ("segments", "/pages/segments", "Segments"),
    ("budget", "/pages/budget", "Budget"),
    ("plans", "/pages/plans", "Plans"),
    ("releases", "/pages/releases", "Releases"),
    ("health", "/pages/health", "Health"),
    ("erasures", "/pages/erasures", "Erasures"),
    ("guarantee", "/pages/guarantee", "Guarantee"),
)
_PATHS: Final = {name: path for name, path, _ in NAVIGATION}
_EXPECTED: Final = {
    "from": "a day as 2026-03-01, not before 1900",
    "to": "a day as 2026-03-31, not after 9998",
    "days": "a number of days from 1 to 3660",
    "view": "raw, consistent or smoothed",
    "segment": "a dimension and a value, as platform=ios",
    "month": "a month as 2026-03, from 1900-01 to 9998-12",
    "epsilon": "a decimal number, as 0.5 or 3",
    "delta": "a small decimal number, as 1e-6",
    "window": "a number of days from 8 to 64",
    "metric": "dau, wau, mau, live, new, retained, resurrected or churned",
    "after": "the cursor of a page before",
    "limit": "a number from 1 to 1000",
    "receipt": "the id of an erasure",
}
"""What each parameter of a page may be, for people."""
_HOST_CHARACTERS: Final = frozenset(f"{string.ascii_letters}{string.digits}.-:[]")
Visitor = Annotated[Visit, Depends(visit)]
_LOOK_AT_SESSION_SECONDS: Final = 5.0
_READ: Final = ["GET", "HEAD"]
router = APIRouter(include_in_schema=False)


@router.api_route("/", methods=_READ)
async def get_overview(request: Request, visitor: Visitor, app: Product) -> Response:
    """The first page: what is released."""
    return await _screen(request, visitor, app, "overview")


@router.api_route("/login", methods=_READ)
async def get_login(request: Request) -> Response:
    """The form for an API key; who has a session goes on."""
    visits: Visits = request.app.state.visits
    target = safe_target(request.query_params.get("next", ""))
    if await visits.of(request) is not None:
        return RedirectResponse(target, status_code=303)
    return _login_page(visits.stranger(request), target)


@router.post("/login")
async def post_login(request: Request) -> Response:
    """Begins a session, which is a cookie; the API key is not kept."""
    visits: Visits = request.app.state.visits
    refusals: Refusals = request.app.state.refusals
    stranger = visits.stranger(request)
    target = safe_target(request.query_params.get("next", ""))
    try:
        fields = await visits.form(request, stranger)
        visitor = await visits.enter(request, fields.get("api_key", "").strip())
        require_scope(visitor.caller, Scope.READ)
    except DpdauError as error:
        refused = refusals.of(error)
        message = error.message.replace(" in X-API-Key", "")
        return _login_page(stranger, target, status=refused.status_code, message=message)
    return keep(RedirectResponse(target, status_code=303), visitor)


@router.post("/logout")
async def post_logout(request: Request, visitor: Visitor) -> Response:
    """Ends the session of this browser."""
    visits: Visits = request.app.state.visits
    await visits.form(request, visitor)
    visits.end(visitor)
    return leave(RedirectResponse("/login", status_code=303))


@router.get(PAGE_STREAM_PATH)
async def get_ticks(
    request: Request,
    visitor: Visitor,
    app: Product,
    last_event_id: Annotated[str | None, Header(alias="Last-Event-ID", max_length=64)] = None,
) -> Response:
    """What `/live` streams, for a session."""
    require_scope(visitor.caller, Scope.READ)
    first = await run_in_threadpool(app.live.since, last_event_id)
    opened: live.Streams = request.app.state.streams
    opened.take()
    texts = live.events(
        app, opened, first, last_event_id, heartbeat_seconds=_LOOK_AT_SESSION_SECONDS
    )
    return live.StreamResponse(_while_valid(request, texts), opened)


@router.api_route("/pages/{name}.json", methods=_READ)
async def get_json(request: Request, name: str, visitor: Visitor, app: Product) -> Response:
    """A page as JSON."""
    sheet = await _sheet(request, visitor, app, name)
    # A range may be long, and the loop has events to take meanwhile.
    return await run_in_threadpool(JSONResponse, sheet.facts, headers=_more(request, sheet))


@router.api_route("/pages/{name}.csv", methods=_READ)
async def get_csv(request: Request, name: str, visitor: Visitor, app: Product) -> Response:
    """A page as CSV."""
    sheet = await _sheet(request, visitor, app, name)
    headers = {
        "Content-Disposition": f'attachment; filename="dpdau-{name}.csv"',
        **_more(request, sheet),
    }
    text = await run_in_threadpool(csv_text, sheet.columns, sheet.rows)
    return Response(text, media_type="text/csv", headers=headers)


@router.api_route("/pages/{name}", methods=_READ)
async def get_page(request: Request, name: str, visitor: Visitor, app: Product) -> Response:
    """A page for people."""
    return await _screen(request, visitor, app, name)


@router.post("/pages/plans")
async def post_plan(request: Request, visitor: Visitor, app: Product) -> Response:
    """Opens the plan of a month, at the price that the button named."""

    def opened(fields: dict[str, str]) -> str:
        require_scope(visitor.caller, Scope.RELEASE)
        month = fields.get("month", "")
        showing: Showing = request.app.state.showing
        price = tuple(promises.exact(one) for one in showing.charge(month))
        if (fields.get("epsilon"), fields.get("delta")) != price:
            raise InvalidPlanError("Expected the price that the plan has now; look at it again.")
        app.open_month(month)
        # The charge is made: days that cannot be taken now are taken by the schedule.
        with contextlib.suppress(DpdauError):
            app.months.catch_up(month)
        return f"{_PATHS['budget']}?{urlencode({'month': month})}"

    return await _done(request, visitor, "plans", opened)


@router.post("/pages/erasures")
async def post_erasure(request: Request, visitor: Visitor, app: Product) -> Response:
    """Erases a user; the receipt is on the page that follows."""

    def erased(fields: dict[str, str]) -> str:
        require_scope(visitor.caller, Scope.ERASE)
        if fields.get("sure") != "yes":
            raise InvalidPlanError("Expected a tick at what cannot be undone.")
        receipt = app.erase(fields.get("user_id", ""))
        return f"{_PATHS['erasures']}?{urlencode({'receipt': receipt.erasure_id})}"

    return await _done(request, visitor, "erasures", erased)


async def _while_valid(request: Request, texts: AsyncIterator[str]) -> AsyncIterator[str]:
    """A stream that ends with its session: at the next tick or heartbeat."""
    visits: Visits = request.app.state.visits
    async for text in texts:
        try:
            visitor = await visits.of(request)
        except DpdauError:
            visitor = None
        if visitor is None:
            return
        yield text


async def _sheet(request: Request, visitor: Visit, app: App, name: str) -> Sheet:
    """The content of a page.

    Raises:
        NotFoundError: There is no such page.
        NotAuthorizedError: The key lacks the scope.
        InvalidPlanError: The query is not one of this page.
    """
    if name not in SHEETS:
        raise NotFoundError("There is no page of this name; the menu has all of them.")
    require_scope(visitor.caller, Scope.READ)
    make, question = SHEETS[name]
    given = {key: value for key, value in request.query_params.items() if value}
    query, refused = None, None
    try:
        query = question.model_validate(given)
    except ValidationError as error:
        refused = _question_refused(error)
    if refused is not None:
        raise refused
    readiness: ReadinessProbe = request.app.state.readiness
    is_ready = await readiness.check() if name == "health" else True
    showing: Showing = request.app.state.showing
    cause = "" if is_ready else readiness.cause
    asked = Asked(app, showing, visitor.caller, is_ready, cause, query)
    return await run_in_threadpool(make, asked)


def _question_refused(error: ValidationError) -> InvalidPlanError:
    """What a page can be asked, in words; never a pattern, and nothing of what was sent."""
    found = question_error(error.errors(include_url=False, include_input=False))
    names = [str(one["loc"][0]) for one in error.errors() if one["loc"]]
    known = [f"{_EXPECTED[name]} in “{name}”" for name in names if name in _EXPECTED]
    message = "The address has a parameter that this page does not know."
    if known:
        message = f"Expected {'; '.join(dict.fromkeys(known))}."
    return InvalidPlanError(message, **found.facts)


async def _screen(request: Request, visitor: Visit, app: App, name: str) -> Response:
    """A page for people, also where it cannot be shown."""
    try:
        sheet = await _sheet(request, visitor, app, name)
    except DpdauError as error:
        return _refused(request, visitor, name, error)
    query = f"?{request.url.query}" if request.url.query else ""
    facts = {"facts": sheet.facts, "query": query, "base": _base(request), **_frame(visitor, name)}
    return keep(await run_in_threadpool(rendering.page, f"{name}.html", **facts), visitor)


async def _done(
    request: Request, visitor: Visit, name: str, act: Callable[[dict[str, str]], str]
) -> Response:
    """Does what a form asks for, then shows the page that tells of it."""
    visits: Visits = request.app.state.visits
    try:
        fields = await visits.form(request, visitor)
        target = await run_in_threadpool(act, fields)
    except DpdauError as error:
        return _refused(request, visitor, name, error)
    return RedirectResponse(target, status_code=303)


def _refused(request: Request, visitor: Visit, name: str, error: DpdauError) -> Response:
    """Why a page cannot be shown, or a form was not followed."""
    refusals: Refusals = request.app.state.refusals
    refused = refusals.of(error)
    facts = {"message": error.message, "code": error.code, **_frame(visitor, name)}
    answer = rendering.page("refused.html", status=refused.status_code, **facts)
    if "retry-after" in refused.headers:
        answer.headers["Retry-After"] = refused.headers["retry-after"]
    return answer


def _base(request: Request) -> str:
    """The address of this service as the browser knows it, for commands to copy."""
    host = request.headers.get("host", "")
    told = request.headers.get("x-forwarded-proto", request.url.scheme)
    scheme = "https" if told.partition(",")[0].strip() == "https" else "http"
    is_plain = host and set(host) <= _HOST_CHARACTERS
    return f"{scheme}://{host if is_plain else 'localhost:8000'}"


def _frame(visitor: Visit, name: str) -> dict[str, Any]:
    """What is around every page."""
    return {
        "name": name,
        "path": _PATHS.get(name, "/"),
        "title": next((title for one, _, title in NAVIGATION if one == name), "Not found"),
        "navigation": NAVIGATION,
        "caller": visitor.caller,
        "can_leave": visitor.can_leave,
        "form_token": visitor.form_token,
    }


def _login_page(stranger: Visit, target: str, *, status: int = 200, message: str = "") -> Response:
    facts = {"form_token": stranger.form_token, "target": target, "message": message}
    return keep(rendering.page("login.html", status=status, **facts), stranger)


def _more(request: Request, sheet: Sheet) -> dict[str, str]:
    """The `Link` header of a page that is not the last."""
    if sheet.following is None:
        return {}
    query = urlencode({**request.query_params, "after": sheet.following})
    return {"Link": f'<{request.url.path}?{query}>; rel="next"'}
