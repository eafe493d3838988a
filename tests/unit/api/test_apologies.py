"""Refusals as a browser shows them: words on a page, and a problem document for programs."""

from collections.abc import Iterator

import httpx
import pytest

from dpdau.api.apologies import prefers_page
from dpdau.api.rendering import CONTENT_SECURITY_POLICY
from dpdau.app import App
from in_process import refusal, service

BROWSER = {"Accept": "text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8"}


@pytest.fixture
def browser(app: App) -> Iterator[httpx.Client]:
    """A client that asks for pages, with the bootstrap key."""
    with service(app) as client:
        client.headers.update(BROWSER)
        yield client


def is_apology(answer: httpx.Response, status: int, words: str) -> bool:
    """Whether an answer is a page with the policy of pages that says why."""
    policies = answer.headers.get_list("content-security-policy")
    return (
        status == answer.status_code
        and answer.headers["content-type"].startswith("text/html")
        and [CONTENT_SECURITY_POLICY] == policies
        and len(answer.content) == int(answer.headers["content-length"])
        and words in answer.text
    )


def test_a_browser_is_told_in_words(browser: httpx.Client) -> None:
    """What is not there, what is not done so, and a form of another site."""
    assert is_apology(browser.get("/nowhere"), 404, "There is no such route.")
    assert is_apology(browser.put("/"), 405, "The route does not take this method.")
    del browser.headers["x-api-key"]
    page = browser.get("/login")
    entered = browser.post(
        "/login",
        data={
            "api_key": "the-key-of-nobody",
            "form_token": page.text.partition('form_token" value="')[2].partition('"')[0],
        },
        headers={"Origin": "http://127.0.0.1"},
    )
    assert 401 == entered.status_code


def test_a_used_up_window_is_a_page_and_says_when(app: App) -> None:
    """With `Retry-After` and the policy, at the address and at the key."""
    with service(app, rate_limit="1/minute") as client:
        client.get("/version")
        answer = client.get("/", headers=BROWSER)
        program = client.get("/")

    assert is_apology(answer, 429, "retry in")
    assert "60" == answer.headers["retry-after"]
    assert (429, "rate_limited") == refusal(program)


def test_a_bug_on_a_page_is_a_page(
    browser: httpx.Client, app: App, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It shows nothing of what went wrong."""

    def fail(*_: object) -> None:
        raise RuntimeError("a secret")

    monkeypatch.setattr("dpdau.api.screens.SHEETS", {"overview": (fail, None)})

    answer = browser.get("/")

    assert is_apology(answer, 500, "the failure was logged")
    assert "secret" not in answer.text


def test_a_form_of_another_site_is_refused_with_a_page(app: App) -> None:
    """Also where nothing but a refusal is shown."""
    with service(app, key=None, no_auth=True) as client:
        answer = client.post("/logout", data={"form_token": "x"}, headers=BROWSER)

    assert is_apology(answer, 403, "found one of another site")


@pytest.mark.parametrize("path", ["/budget/yau", "/pages/budget.json?month=0", "/erasures/none"])
def test_programs_and_other_routes_have_documents(browser: httpx.Client, path: str) -> None:
    """Whatever they say they prefer."""
    assert refusal(browser.get(path))[0] in (404, 422)


@pytest.mark.parametrize(
    ("accept", "prefers"),
    [
        (BROWSER["Accept"], True),
        ("TEXT/HTML", True),
        ("text/html;q=0.5, application/json", False),
        ("text/html, application/json", False),
        ("application/problem+json;q=0.2, text/html;q=0.3", True),
        ("text/html;q=much", False),
        ("text/html;q=0", False),
        ("*/*", False),
        ("", False),
    ],
)
def test_a_page_is_for_those_who_prefer_it(accept: str, prefers: bool) -> None:
    """By the weights of the header; programs that say nothing get documents."""
    assert prefers == prefers_page(accept)


@pytest.mark.parametrize("path", ["/version", "/metrics", "/budget/yau", "/nowhere", "/healthz"])
def test_what_is_no_page_may_load_nothing(browser: httpx.Client, path: str) -> None:
    """Every answer has one policy."""
    policies = browser.get(path, headers={"Accept": "*/*"}).headers.get_list(
        "content-security-policy"
    )

    assert ["default-src 'none'; frame-ancestors 'none'"] == policies
