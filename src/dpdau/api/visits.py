"""Who looks at a page: a browser with a session, or a program with an API key.

A session is a signed cookie that no script reads and that no other site has sent. Every form holds
a token of its session beside that, and comes from a page of this service or is refused.
"""

from dataclasses import dataclass
from typing import Final
from urllib.parse import parse_qsl, quote

from fastapi import FastAPI, Request
from fastapi.responses import RedirectResponse, Response
from starlette.concurrency import run_in_threadpool

from dpdau.api import rendering
from dpdau.api.auth import Gate, parts_of
from dpdau.api.bodies import BodyReader, form_of
from dpdau.app import App
from dpdau.app.sessions import ANONYMOUS_SECONDS, SESSION_SECONDS, Sessions
from dpdau.domain import Caller
from dpdau.errors import InvalidPlanError, NotAuthenticatedError, NotAuthorizedError

PLAIN_COOKIE: Final = "dpdau_session"
FORM_COOKIE: Final = "dpdau_form"
"""Beside the session, for forms of those who have none: a link from elsewhere ends no session."""
_SECURE: Final = "__Host-"
"""Before the name of a cookie that a browser takes over https only, from this host alone."""
SECURE_COOKIE: Final = f"{_SECURE}{PLAIN_COOKIE}"
FORM_BYTES_MAX: Final = 16 << 10
FORM_FIELDS_MAX: Final = 16
FORM_TOKEN: Final = "form_token"  # noqa: S105 - the name of a field.
_FORMS: Final = {"application/x-www-form-urlencoded": None}
_HTTPS: Final = "https"
_FIRST_PAGE: Final = "/"
_ELSEWHERE: Final = "cross-site"


class LoginNeededError(Exception):
    """A browser without a session asked for a page."""


@dataclass(frozen=True, slots=True)
class Visit:
    """One request of somebody who may look.

    Attributes:
        caller: Whom the session or the key belongs to.
        session: The session of a browser; None where the request has a key of its own.
        place: The cookie that the session is in.
        form_token: What forms of the page carry.
        is_new: Whether the session has to be sent with the answer.
        can_leave: Whether there is something to log out of.
    """

    caller: Caller
    session: str | None = None
    place: str = PLAIN_COOKIE
    form_token: str = ""
    is_new: bool = False
    can_leave: bool = False


class Visits:
    """Turns requests of browsers into visits.

    Args:
        app: The product.
        gate: What lets API keys pass.
        no_auth: Whether nobody is asked for a key.
    """

    def __init__(self, app: App, gate: Gate, *, no_auth: bool) -> None:
        self._app = app
        self._gate = gate
        self._no_auth = no_auth
        self._sessions = Sessions(app)
        self._forms = BodyReader(FORM_BYTES_MAX)

    async def of(self, request: Request) -> Visit | None:
        """Who asks; None where a browser has to log in first.

        Raises:
            NotAuthenticatedError: The request has an API key, and it is not valid.
            RateLimitedError: The window of the key or the session is used up.
        """
        key = request.headers.get("x-api-key")
        if key is not None or self._no_auth:
            caller = await self._gate.admit(request.scope, key)
            return self._keyless(request, caller) if self._no_auth else Visit(caller)
        place, text = _kept(request, PLAIN_COOKIE)
        if text is None:
            return None
        if self._app.is_quick:
            known = self._sessions.resume(text, place=place)
        else:
            known = await run_in_threadpool(self._sessions.resume, text, place=place)
        if known is None:
            return None
        self._gate.count(request.scope, known)
        return Visit(known, text, place, self._sessions.form_token(text), can_leave=True)

    def stranger(self, request: Request) -> Visit:
        """Somebody who is about to log in: the session of nobody that the form needs."""
        place, text = _kept(request, FORM_COOKIE)
        is_new = text is None or not self._sessions.is_anonymous(text, place=place)
        if is_new or text is None:
            text = self._sessions.anonymous(place=place)
        token = self._sessions.form_token(text)
        return Visit(Caller("", frozenset()), text, place, token, is_new=is_new)

    async def enter(self, request: Request, key: str) -> Visit:
        """Begins the session of an API key.

        Raises:
            NotAuthenticatedError, RateLimitedError: As on every other route.
        """
        caller = await self._gate.admit(request.scope, key)
        place = _place(request, PLAIN_COOKIE)
        text = await run_in_threadpool(self._sessions.begin, key, place=place)
        return Visit(caller, text, place, is_new=True, can_leave=True)

    async def form(self, request: Request, visit: Visit) -> dict[str, str]:
        """The fields of a form that a page of this visit sent.

        Raises:
            NotAuthorizedError: Another site sent it, or it was made for another session.
            UnsupportedMediaError, TooLargeError, InvalidPlanError: It is no form.
        """
        if visit.session is not None and not _is_own(request):
            raise NotAuthorizedError("Expected a form of this service, found one of another site.")
        form_of(request.headers, _FORMS)
        with self._forms.holding() as hold:
            body = await self._forms.read(request.scope, request.headers, request.receive, hold)
        try:
            fields = dict(
                parse_qsl(
                    body.decode(),
                    keep_blank_values=True,
                    strict_parsing=True,
                    errors="strict",
                    max_num_fields=FORM_FIELDS_MAX,
                )
            )
        except ValueError:
            raise InvalidPlanError("Expected the fields of a form.") from None
        found = fields.pop(FORM_TOKEN, "")
        if visit.session is not None and not self._sessions.is_form_token(
            visit.session, found, place=visit.place
        ):
            raise NotAuthorizedError("Expected a form of this session; load the page again.")
        return fields

    def end(self, visit: Visit) -> None:
        """Ends the session of a visit, wherever else its cookie may be."""
        self._sessions.end(visit.session, place=visit.place)

    def _keyless(self, request: Request, caller: Caller) -> Visit:
        """A visit where nobody logs in; its forms still are of one browser."""
        made = self.stranger(request)
        return Visit(caller, made.session, made.place, made.form_token, is_new=made.is_new)


def keep(answer: Response, visit: Visit) -> Response:
    """An answer that has the browser keep the session of a visit, if that is new."""
    if visit.is_new and visit.session is not None:
        answer.set_cookie(
            visit.place,
            visit.session,
            max_age=SESSION_SECONDS if visit.can_leave else ANONYMOUS_SECONDS,
            path="/",
            secure=visit.place.startswith(_SECURE),
            httponly=True,
            samesite="strict",
        )
    return answer


def leave(answer: Response) -> Response:
    """An answer that has the browser forget every session."""
    for place in (PLAIN_COOKIE, SECURE_COOKIE):
        answer.delete_cookie(
            place, path="/", secure=place == SECURE_COOKIE, httponly=True, samesite="strict"
        )
    return answer


async def visit(request: Request) -> Visit:
    """Who asks for a page; a browser without a session is shown the way to one.

    Raises:
        LoginNeededError: A browser has to log in first.
        NotAuthenticatedError: The same for what is no page.
    """
    visits: Visits = request.app.state.visits
    found = await visits.of(request)
    if found is not None:
        gate: Gate = request.app.state.gate
        gate.note_reader()
        return found
    if request.url.path.endswith((".json", ".csv", "/live")):
        raise NotAuthenticatedError("Expected a valid API key in X-API-Key, or a session.")
    raise LoginNeededError


def safe_target(text: str) -> str:
    """A page of this service to go on to; the first one where the text is none.

    Example:
        >>> safe_target("/pages/budget?month=2026-02"), safe_target("//elsewhere.example/")
        ('/pages/budget?month=2026-02', '/')
    """
    parts = parts_of(text)
    is_page = parts.path == _FIRST_PAGE or (
        parts.path.startswith("/pages/") and parts.path.removeprefix("/pages/").isalpha()
    )
    if parts.scheme or parts.netloc or not is_page or not text.isascii():
        return _FIRST_PAGE
    return parts.path + (f"?{quote(parts.query, safe='=&%+:.-')}" if parts.query else "")


def install(api: FastAPI) -> None:
    """Sends browsers that have to log in to the page for it."""

    async def on_login_needed(request: Request, error: Exception) -> Response:
        asked = request.url.path + (f"?{request.url.query}" if request.url.query else "")
        target = safe_target(asked)
        if request.headers.get("sec-fetch-site") == _ELSEWHERE and request.method == "GET":
            # A browser sends a strict cookie once the page itself asks again.
            return rendering.page("again.html", target=target)
        query = "" if target == _FIRST_PAGE else f"?next={quote(target, safe='')}"
        return RedirectResponse(f"/login{query}", status_code=303)

    api.add_exception_handler(LoginNeededError, on_login_needed)


def _place(request: Request, name: str) -> str:
    """Where a browser keeps a session of its own."""
    return f"{_SECURE}{name}" if _is_https(request) else name


def _kept(request: Request, name: str) -> tuple[str, str | None]:
    """A cookie and its place: over https only what came over https.

    But for the session of nobody: behind a proxy that does not say so, only the form itself shows
    that the browser speaks https, when the cookie is there already.
    """
    secure = f"{_SECURE}{name}"
    place = secure if secure in request.cookies else _place(request, name)
    if name == FORM_COOKIE and request.method == "POST" and place not in request.cookies:
        place = name
    return place, request.cookies.get(place)


def _is_https(request: Request) -> bool:
    """Whether the browser speaks https, to this service or to the proxy in front of it.

    A header that claims it makes the cookie stricter and nothing else.
    """
    told = request.headers.get("x-forwarded-proto", "").partition(",")[0].strip()
    origin = parts_of(request.headers.get("origin", ""))
    schemes = {request.url.scheme, told, origin.scheme if origin.netloc in _hosts(request) else ""}
    return _HTTPS in schemes


def _is_own(request: Request) -> bool:
    """Whether the browser says that a page of this service sent the request."""
    site = request.headers.get("sec-fetch-site")
    if site is not None:
        return site == "same-origin"
    return parts_of(request.headers.get("origin", "")).netloc in _hosts(request)


def _hosts(request: Request) -> set[str]:
    """The names under which the browser may know this service."""
    return {request.headers.get(one, "") for one in ("host", "x-forwarded-host")} - {""}
