"""Refusals as pages, for people: a browser shows words where a program gets a problem document."""

import json
from http import HTTPStatus
from typing import Final

from starlette.types import Message, Scope, Send

from dpdau.api import rendering
from dpdau.api.problems import PROBLEM_MEDIA_TYPE

_PAGES: Final = frozenset({"/", "/login", "/logout", "/docs"})
_UNDER_PAGES: Final = "/pages/"
_REPLACED: Final = frozenset({b"content-type", b"content-length"})
_JSON: Final = ("application/json", PROBLEM_MEDIA_TYPE)


class ForPeople:
    """Sends the answer to one request, and a problem document to a reader of pages as a page.

    Args:
        scope: The request.
        send: What carries the answer on.
    """

    def __init__(self, scope: Scope, send: Send) -> None:
        self._scope = scope
        self._send = send
        self._held: Message | None = None

    async def __call__(self, message: Message) -> None:
        """Takes one message of the answer."""
        if self._held is None:
            if _is_refusal(message) and _is_page(self._scope, message["status"]):
                self._held = message
            else:
                await self._send(message)
            return
        start, self._held = self._held, None
        detail = json.loads(message["body"])["detail"]
        status = start["status"]
        facts = {"number": status, "title": HTTPStatus(status).phrase, "message": detail}
        page = rendering.page("apology.html", status=status, **facts)
        kept = [one for one in start["headers"] if one[0] not in _REPLACED]
        await self._send({**start, "headers": [*kept, *page.raw_headers]})
        await self._send({**message, "body": page.body})


def prefers_page(accept: str) -> bool:
    """Whether a reader would rather have HTML than JSON.

    Example:
        >>> prefers_page("text/html,*/*;q=0.8"), prefers_page("*/*")
        (True, False)
    """
    weights: dict[str, float] = {}
    for part in accept.split(","):
        kind, _, weight = part.partition(";")
        try:
            weights[kind.strip().lower()] = float(weight.partition("q=")[2] or 1)
        except ValueError:
            return False
    return weights.get("text/html", 0) > max(weights.get(one, 0) for one in _JSON)


def _is_refusal(message: Message) -> bool:
    """Whether an answer begins that is a problem document."""
    if message["type"] != "http.response.start" or message["status"] < HTTPStatus.BAD_REQUEST:
        return False
    return (b"content-type", PROBLEM_MEDIA_TYPE.encode()) in message["headers"]


def _is_page(scope: Scope, status: int) -> bool:
    """Whether somebody with a browser asked for a page, or for what does not exist."""
    path = scope["path"]
    name = path.removeprefix(_UNDER_PAGES)
    is_named = path in _PAGES or (name != path and "." not in name and name != "live")
    is_nowhere = status == HTTPStatus.NOT_FOUND and scope.get("route") is None
    accept = next((value for key, value in scope["headers"] if key == b"accept"), b"")
    return (is_named or is_nowhere) and prefers_page(accept.decode("latin-1"))
