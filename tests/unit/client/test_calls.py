"""What an answer, or none, means."""

import gzip

import httpx
import pytest

from dpdau.client.calls import GZIP_BYTES_MIN, Call, Refusal, meaning_of, no_answer
from dpdau.errors import BudgetExhaustedError

URL = "http://service.test"
REPEATABLE = Call("GET", "/mau")
ONCE = Call("GET", "/mau", repeatable=False)


def refusal(call: Call, answer: httpx.Response) -> Refusal:
    """What an answer that is no result means."""
    found = meaning_of(call, answer, URL)
    assert isinstance(found, Refusal)
    return found


@pytest.mark.parametrize(
    ("status", "again", "again_once"),
    [
        (408, True, False),
        (425, True, False),
        (429, True, True),
        (502, True, False),
        (503, True, False),
        (504, True, False),
        (200, False, False),
        (302, False, False),
        (400, False, False),
        (401, False, False),
        (404, False, False),
        (409, False, False),
        (500, False, False),
    ],
)
def test_which_answers_are_asked_for_again(status: int, again: bool, again_once: bool) -> None:
    """What was turned away may always come again, the rest only where it is taken once."""
    answer = httpx.Response(status, text="nothing of dpdau")

    assert (again, again_once) == (
        refusal(REPEATABLE, answer).may_repeat,
        refusal(ONCE, answer).may_repeat,
    )


def test_a_spent_budget_is_final() -> None:
    """429 for the budget is not asked for again."""
    found = refusal(REPEATABLE, httpx.Response(429, json={"code": "budget_exhausted"}))

    assert isinstance(found.error, BudgetExhaustedError)
    assert not found.may_repeat


@pytest.mark.parametrize(
    ("kind", "again", "again_once"),
    [
        (httpx.ConnectError, True, True),
        (httpx.ConnectTimeout, True, True),
        (httpx.PoolTimeout, True, True),
        (httpx.ReadError, True, False),
        (httpx.ReadTimeout, True, False),
        (httpx.WriteError, True, False),
        (httpx.RemoteProtocolError, True, False),
        (httpx.UnsupportedProtocol, False, False),
        (httpx.DecodingError, False, False),
    ],
)
def test_which_broken_connections_are_tried_again(
    kind: type[httpx.RequestError], again: bool, again_once: bool
) -> None:
    """What never left may always come again, what may have arrived only where it is taken once."""
    found = [no_answer(call, kind("broken"), URL).may_repeat for call in (REPEATABLE, ONCE)]

    assert [again, again_once] == found


@pytest.mark.parametrize(
    ("headers", "seconds"),
    [
        ({}, None),
        ({"Retry-After": "7"}, 7.0),
        ({"Retry-After": "soon"}, None),
        ({"Retry-After": "-3"}, None),
        ({"Retry-After": "Sun, 15 Mar 2026 12:00:30 GMT"}, None),
        (
            {
                "Retry-After": "Sun, 15 Mar 2026 12:00:30 GMT",
                "Date": "Sun, 15 Mar 2026 12:00:00 GMT",
            },
            30.0,
        ),
        (
            {
                "Retry-After": "Sun, 15 Mar 2026 12:00:00 GMT",
                "Date": "Sun, 15 Mar 2026 12:00:30 GMT",
            },
            0.0,
        ),
        ({"Retry-After": "Sun, 15 Mar 2026 12:00:30 GMT", "Date": "today"}, None),
        ({"Retry-After": "Sun, 15 Mar 2026 12:00:30", "Date": "Sun, 15 Mar 2026 12:00 GMT"}, None),
    ],
)
def test_retry_after_in_seconds_and_as_a_date(
    headers: dict[str, str], seconds: float | None
) -> None:
    """A date is compared with the answer's own Date; what cannot be read does not count."""
    assert seconds == refusal(REPEATABLE, httpx.Response(503, headers=headers)).retry_after_seconds


@pytest.mark.parametrize(("size", "packed"), [(GZIP_BYTES_MIN - 1, False), (GZIP_BYTES_MIN, True)])
def test_gzip_from_the_threshold_on(size: int, packed: bool) -> None:
    """The same content always gives the same bytes."""
    call = Call("POST", "/events", content=b"x" * size, headers={"Idempotency-Key": "k"})
    options = call.options()

    assert packed is ("Content-Encoding" in options["headers"])
    sent = options["content"]
    assert b"x" * size == (gzip.decompress(sent) if packed else sent)
    assert sent == call.options()["content"]
    assert {"Idempotency-Key": "k"} == call.headers
