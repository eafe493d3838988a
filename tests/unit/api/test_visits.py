"""Visits of browsers: login, sessions in cookies, forms of this service alone, and the way out."""

import datetime as dt
import re
from collections.abc import Iterator

import httpx
import pytest

from dpdau.api.visits import (
    FORM_BYTES_MAX,
    FORM_COOKIE,
    PLAIN_COOKIE,
    SECURE_COOKIE,
    safe_target,
)
from dpdau.app import App
from dpdau.domain import Scope
from dpdau.telemetry import Metrics
from in_process import key_of, refusal, service
from products import API_KEY, NOW

ORIGIN = {"Origin": "http://127.0.0.1"}
HTTPS = {"Origin": "https://127.0.0.1", "X-Forwarded-Proto": "https"}


def token_of(answer: httpx.Response) -> str:
    """What a form of a page carries."""
    found = re.search(r'name="form_token" value="([^"]+)"', answer.text)
    assert found is not None
    return found[1]


def log_in(http: httpx.Client, key: str = API_KEY, path: str = "/login") -> httpx.Response:
    """Sends the form of the login page."""
    fields = {"api_key": key, "form_token": token_of(http.get(path))}
    return http.post(path, data=fields, headers=ORIGIN)


@pytest.fixture
def visitor(app: App) -> Iterator[httpx.Client]:
    """A browser without a key."""
    with service(app, key=None) as client:
        yield client


def test_a_page_asks_to_log_in(visitor: httpx.Client) -> None:
    """A browser is sent to the login, and from there to where it was going."""
    answer = visitor.get("/pages/budget?month=2026-02")
    assert (303, "/login?next=%2Fpages%2Fbudget%3Fmonth%3D2026-02") == (
        answer.status_code,
        answer.headers["location"],
    )

    entered = log_in(visitor, path=answer.headers["location"])

    assert (303, "/pages/budget?month=2026-02") == (
        entered.status_code,
        entered.headers["location"],
    )
    assert 200 == visitor.get("/pages/budget").status_code


@pytest.mark.parametrize("path", ["/pages/budget.json", "/pages/budget.csv", "/pages/live"])
def test_programs_are_refused(visitor: httpx.Client, path: str) -> None:
    """What is no page for people answers without a session with a problem document."""
    assert (401, "not_authenticated") == refusal(visitor.get(path))


def test_the_cookie_holds_no_key_and_is_for_this_site_alone(visitor: httpx.Client) -> None:
    """HttpOnly, SameSite=Strict, twelve hours, the whole site, and nothing of the API key."""
    set_cookie = log_in(visitor).headers["set-cookie"]

    assert set_cookie.startswith(f"{PLAIN_COOKIE}=bootstrap.")
    for part in ("HttpOnly", "Max-Age=43200", "Path=/", "SameSite=strict"):
        assert part in set_cookie
    assert "Secure" not in set_cookie and "Domain" not in set_cookie
    assert API_KEY not in set_cookie


def test_over_https_the_cookie_is_bound_to_it(visitor: httpx.Client) -> None:
    """Its name has the prefix, it is secure, and one that came over http is not taken there."""
    plain = log_in(visitor).headers["set-cookie"]
    page = visitor.get("/login", headers={"X-Forwarded-Proto": "https"})
    fields = {"api_key": API_KEY, "form_token": token_of(page)}
    kept = page.headers["set-cookie"].partition(";")[0]
    entered = visitor.post("/login", data=fields, headers={**HTTPS, "Cookie": kept})

    assert entered.headers["set-cookie"].startswith(f"{SECURE_COOKIE}=bootstrap.")
    assert "Secure" in entered.headers["set-cookie"]
    visitor.cookies.clear()
    stale = {"X-Forwarded-Proto": "https", "Cookie": plain.partition(";")[0]}
    assert 303 == visitor.get("/", headers=stale).status_code


@pytest.mark.parametrize(("key", "status"), [("", 401), ("a-guess", 401), ("x" * 600, 401)])
def test_a_wrong_key_is_told(visitor: httpx.Client, key: str, status: int) -> None:
    """The form comes again, with the reason, and without what was typed."""
    answer = log_in(visitor, key)

    assert status == answer.status_code
    assert "Expected a valid API key." in answer.text
    assert not key or key not in answer.text
    assert 303 == visitor.get("/").status_code


def test_a_key_without_the_scope_does_not_enter(app: App, visitor: httpx.Client) -> None:
    """A key that only sends events sees nothing."""
    answer = log_in(visitor, key_of(app, Scope.INGEST)["X-API-Key"])

    assert 403 == answer.status_code
    assert "scope read" in answer.text


def test_login_counts_in_the_window_of_the_key(app: App) -> None:
    """Guessing is as slow as on every other route."""
    with service(app, key=None, rate_limit="4/minute") as visitor:
        statuses = [log_in(visitor, "wrong").status_code for _ in range(2)]
        assert (429, "rate_limited") == refusal(visitor.get("/login"))

    assert [401, 401] == statuses


def test_a_revoked_key_is_out_at_once(app: App, visitor: httpx.Client) -> None:
    """The next request of its session asks to log in."""
    key_id, key = app.ledger.keys.create("readers", [Scope.READ], None)
    log_in(visitor, key)
    assert 200 == visitor.get("/pages/budget").status_code

    app.ledger.keys.revoke(key_id)

    assert 303 == visitor.get("/pages/budget").status_code


@pytest.mark.parametrize(
    "headers",
    [
        {"Origin": "https://elsewhere.example"},
        {"Origin": "null"},
        {},
        {**ORIGIN, "Sec-Fetch-Site": "cross-site"},
        {**ORIGIN, "Sec-Fetch-Site": "same-site"},
    ],
)
def test_a_form_of_another_site_is_refused(
    app: App, visitor: httpx.Client, headers: dict[str, str]
) -> None:
    """Also with the right token: nothing is opened, erased or logged out."""
    log_in(visitor)
    token = token_of(visitor.get("/pages/erasures"))
    for path in ("/pages/erasures", "/pages/plans", "/logout"):
        fields = {"form_token": token, "user_id": "u1", "month": "2026-03"}
        assert 403 == visitor.post(path, data=fields, headers=headers).status_code

    assert 200 == visitor.get("/pages/erasures").status_code
    assert [] == visitor.get("/pages/erasures.json").json()["erasures"]


@pytest.mark.parametrize("broken", ["http://[", "//[::1"])
def test_what_is_no_address_is_refused_and_breaks_nothing(app: App, broken: str) -> None:
    """As a target, an origin or a host, with a key and without: no failure of the service."""
    with service(app, key=None) as visitor:
        asked = visitor.get("/login", params={"next": broken})
        fields = {"api_key": API_KEY, "form_token": token_of(asked)}
        sent = visitor.post("/login", data=fields, headers={"Origin": broken})
        gone_on = visitor.post(
            "/login", params={"next": broken}, data=fields, headers={"Origin": "http://127.0.0.1"}
        )
        named = visitor.get("/pages/budget", headers={"Host": "["})
    with service(app, key=None, no_auth=True) as nobody:
        refused = nobody.get("/version", headers={"Origin": broken})

    assert [200, 403, 303] == [one.status_code for one in (asked, sent, gone_on)]
    assert "/" == gone_on.headers["location"]
    assert named.status_code < 500
    assert (401, "not_authenticated") == refusal(refused)


def test_the_first_login_behind_a_silent_proxy(visitor: httpx.Client) -> None:
    """A proxy that ends TLS and does not say so: only the form shows that the browser speaks https.

    The session then is bound to https; a form of another site is refused as ever.
    """
    fields = {"api_key": API_KEY, "form_token": token_of(visitor.get("/login"))}
    foreign = visitor.post("/login", data=fields, headers={"Origin": "https://elsewhere.example"})
    entered = visitor.post("/login", data=fields, headers={"Origin": "https://127.0.0.1"})
    set_cookie = entered.headers["set-cookie"]
    inside = visitor.get("/", headers={"Cookie": set_cookie.partition(";")[0]})

    assert [403, 303, 200] == [one.status_code for one in (foreign, entered, inside)]
    assert set_cookie.startswith(f"{SECURE_COOKIE}=bootstrap.")


def test_a_session_and_its_key_share_one_window(app: App) -> None:
    """What the one has used up the other does not have."""
    _, key = app.ledger.keys.create("readers", [Scope.READ], None, rate_limit="5/minute")
    with service(app, key=None) as visitor:
        log_in(visitor, key)
        by_session = [visitor.get("/pages/budget.json").status_code for _ in range(2)]
        header = {"X-API-Key": key}
        by_key = [visitor.get("/pages/budget.json", headers=header).status_code for _ in range(3)]
        after = visitor.get("/pages/budget.json")

    assert [200, 200] == by_session
    assert [200, 200, 429] == by_key
    assert (429, "rate_limited") == refusal(after)


def test_a_login_writes_what_a_request_with_the_key_writes(app: App, visitor: httpx.Client) -> None:
    """The hour of the key's last use, and no entry of the audit log; a guess is counted alone."""
    app.metrics = Metrics()
    key_id, key = app.ledger.keys.create("readers", [Scope.READ], None)
    before = app.ledger.audit_log(NOW - dt.timedelta(days=1))
    with service(app, key=None) as visitor:
        log_in(visitor, "a-guess")
        log_in(visitor, key)
    app.callers.write_uses()
    found = app.ledger.keys.find(key_id)
    counted = app.metrics.registry.get_sample_value(
        "dpdau_refusals_total", {"code": "not_authenticated"}
    )

    assert before == app.ledger.audit_log(NOW - dt.timedelta(days=1))
    assert found is not None and found.last_used is not None
    assert 1 == counted


@pytest.mark.parametrize("token", ["", "wrong"])
def test_a_form_without_its_token_is_refused(visitor: httpx.Client, token: str) -> None:
    """Also from this site; and one of the session of nobody is not one of somebody."""
    stranger = token_of(visitor.get("/login"))
    log_in(visitor)

    for found in (token, stranger):
        fields = {"form_token": found, "user_id": "u1"}
        assert 403 == visitor.post("/pages/erasures", data=fields, headers=ORIGIN).status_code
    fields = {"form_token": token, "api_key": API_KEY}
    visitor.cookies.clear()
    assert 403 == visitor.post("/login", data=fields, headers=ORIGIN).status_code


def test_a_form_behind_a_proxy_is_known_by_the_name_outside(visitor: httpx.Client) -> None:
    """A proxy may ask under a name of its own; the browser's word counts first."""
    log_in(visitor)
    token = token_of(visitor.get("/pages/erasures"))
    for headers in (
        {"Origin": "https://numbers.example", "X-Forwarded-Host": "numbers.example"},
        {"Origin": "https://numbers.example", "Sec-Fetch-Site": "same-origin"},
    ):
        cookies = {"Cookie": f"{PLAIN_COOKIE}={visitor.cookies[PLAIN_COOKIE]}"}
        fields = {"form_token": token, "user_id": ""}
        answer = visitor.post("/pages/erasures", data=fields, headers={**headers, **cookies})
        assert answer.status_code in (303, 422)


def test_what_is_no_form_is_refused(visitor: httpx.Client) -> None:
    """Another type, broken fields, too many bytes."""
    log_in(visitor)
    kind = {"Content-Type": "application/x-www-form-urlencoded"}
    statuses = [
        visitor.post("/pages/erasures", json={}, headers=ORIGIN).status_code,
        visitor.post("/pages/erasures", content="&&", headers={**ORIGIN, **kind}).status_code,
        visitor.post("/pages/erasures", content=b"a=%ff", headers={**ORIGIN, **kind}).status_code,
        visitor.post(
            "/pages/erasures", content=b"a" * (FORM_BYTES_MAX + 1), headers={**ORIGIN, **kind}
        ).status_code,
    ]

    assert [415, 422, 422, 413] == statuses


def test_a_link_from_elsewhere_leads_in_and_ends_no_session(visitor: httpx.Client) -> None:
    """A strict cookie is not sent then: the page asks again by itself, and then it is."""
    log_in(visitor)
    elsewhere = {"Sec-Fetch-Site": "cross-site"}
    kept = dict(visitor.cookies)
    visitor.cookies.clear()

    bounced = visitor.get("/pages/budget?month=2026-02", headers=elsewhere)
    asked = visitor.get("/login", headers=elsewhere)

    assert 200 == bounced.status_code
    assert 'content="0;url=/pages/budget?month=2026-02"' in bounced.text
    assert "set-cookie" not in bounced.headers
    assert asked.headers["set-cookie"].startswith(f"{FORM_COOKIE}=anonymous.")
    assert (
        200
        == visitor.get(
            "/pages/budget", headers={"Cookie": f"{PLAIN_COOKIE}={kept[PLAIN_COOKIE]}"}
        ).status_code
    )


def test_logging_out_ends_the_session_of_the_browser(visitor: httpx.Client) -> None:
    """The cookie goes, a copy of it is worth nothing, and the next page asks to log in; who is in
    needs no login page."""
    log_in(visitor)
    kept = visitor.cookies[PLAIN_COOKIE]
    assert 303 == visitor.get("/login").status_code
    token = token_of(visitor.get("/"))

    answer = visitor.post("/logout", data={"form_token": token}, headers=ORIGIN)

    assert (303, "/login") == (answer.status_code, answer.headers["location"])
    assert 'dpdau_session=""' in answer.headers["set-cookie"]
    assert 303 == visitor.get("/").status_code
    copied = {"Cookie": f"{PLAIN_COOKIE}={kept}"}
    assert 401 == visitor.get("/pages/budget.json", headers=copied).status_code


def test_without_keys_nobody_logs_in_and_forms_are_of_this_site(app: App) -> None:
    """Pages open by themselves, and a form still needs its token."""
    with service(app, key=None, no_auth=True) as visitor:
        page = visitor.get("/pages/erasures")
        assert 200 == page.status_code
        assert "Log out" not in page.text
        fields = {"user_id": "u1", "sure": "yes"}
        refused = visitor.post("/pages/erasures", data=fields, headers=ORIGIN)
        done = visitor.post(
            "/pages/erasures", data={**fields, "form_token": token_of(page)}, headers=ORIGIN
        )

    assert [403, 303] == [refused.status_code, done.status_code]


@pytest.mark.parametrize(
    ("asked", "target"),
    [
        ("/", "/"),
        ("/pages/plans?month=2026-04&epsilon=1.5", "/pages/plans?month=2026-04&epsilon=1.5"),
        ("", "/"),
        ("//elsewhere.example", "/"),
        ("https://elsewhere.example/pages/plans", "/"),
        ("/\\elsewhere.example", "/"),
        ("/pages/../logout", "/"),
        ("/pages/plans\r\nSet-Cookie: a=b", "/"),
        ("/users/u1", "/"),
        ("javascript:alert(1)", "/"),
        ("http://[", "/"),
        ("//[x", "/"),
    ],
)
def test_only_pages_of_this_service_are_gone_on_to(asked: str, target: str) -> None:
    """Whatever the address says."""
    assert target == safe_target(asked)
