"""Rate limits and the service without keys; scopes are tested route by route in `test_routes`."""

import asyncio
import threading

import httpx
import pytest

from dpdau.api import auth
from dpdau.api.auth import Gate
from dpdau.app import App, admission
from dpdau.app.admission import Rate, RateLimiter, is_loopback
from dpdau.domain import Caller, Scope
from dpdau.errors import NotAuthenticatedError, RateLimitedError
from in_process import service
from products import API_KEY


def test_a_window_counts_down_and_then_refuses() -> None:
    """Requests within the limit pass; the next is refused and says when to come again."""
    limiter = RateLimiter("2/hour")

    rates = [limiter.take("key", "one") for _ in range(3)]

    assert [(1, False), (0, False), (0, True)] == [
        (rate.remaining, rate.exceeded) for rate in rates
    ]
    with pytest.raises(RateLimitedError) as caught:
        rates[-1].require()
    assert 3595 <= caught.value.facts["retry_after_seconds"] <= 3600


def test_a_window_ends_and_begins_anew() -> None:
    """A window begins with its first request and lasts its time, whatever comes meanwhile."""
    now = [100.0]
    limiter = RateLimiter("2/minute", clock=lambda: now[0])

    def take() -> tuple[int, int, bool]:
        rate = limiter.take("key", "one")
        return (rate.remaining, rate.reset_seconds, rate.exceeded)

    assert [(1, 60, False), (0, 60, False), (0, 60, True)] == [take() for _ in range(3)]
    now[0] += 59.5
    assert (0, 1, True) == take()
    now[0] += 0.5
    assert (1, 60, False) == take()


def test_a_window_may_have_another_limit() -> None:
    """Less or more than the others, and over another time."""
    now = [0.0]
    limiter = RateLimiter("2/minute", clock=lambda: now[0])

    less = [limiter.take("key", "less", "1/hour").exceeded for _ in range(2)]
    more = [limiter.take("key", "more", "3/second").exceeded for _ in range(4)]
    now[0] += 1
    assert [False, True] == less
    assert [False, False, False, True] == more
    assert (2, 3, False) == (
        (rate := limiter.take("key", "more", "3/second")).remaining,
        rate.limit,
        rate.exceeded,
    )
    assert limiter.take("key", "less", "1/hour").exceeded


def test_windows_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    """Those that are over go first; then the oldest ones."""
    monkeypatch.setattr(admission, "WINDOWS_MAX", 10)
    now = [0.0]
    limiter = RateLimiter("5/minute", clock=lambda: now[0])
    for number in range(10):
        limiter.take("address", f"over-{number}")
    now[0] = 60.0
    for number in range(30):
        assert 4 == limiter.take("address", f"new-{number}").remaining

    assert len(limiter._windows) <= 10
    assert 3 == limiter.take("address", "new-29").remaining
    assert 4 == limiter.take("address", "over-1").remaining


class Asked:
    """An app that counts how often it is asked who somebody is."""

    def __init__(self) -> None:
        self.count = 0
        self.known = {"good"}
        self.is_quick = True

    def authenticate(self, key: str) -> Caller:
        """The caller of a key."""
        self.count += 1
        if key not in self.known:
            raise NotAuthenticatedError("Expected a valid API key in X-API-Key.")
        return Caller(key, frozenset(Scope))


def test_a_caller_is_known_for_a_moment() -> None:
    """A good key is looked up again after its time, a bad one each time; few are kept."""
    asked, now = Asked(), [0.0]
    gate = Gate(
        asked,  # type: ignore[arg-type]
        {"": RateLimiter("1000/second")},
        no_auth=False,
        clock=lambda: now[0],
    )

    async def admit(key: str) -> str:
        scope = {"type": "http", "path": "/x", auth.TRAFFIC_SCOPE_KEY: auth.Traffic()}
        return (await gate.admit(scope, key)).name

    assert ["good"] * 3 == [asyncio.run(admit("good")) for _ in range(3)]
    assert 1 == asked.count
    for _ in range(2):
        with pytest.raises(NotAuthenticatedError):
            asyncio.run(admit("bad"))
    assert 3 == asked.count
    asked.known.clear()
    now[0] += admission.KNOWN_SECONDS
    with pytest.raises(NotAuthenticatedError):
        asyncio.run(admit("good"))
    assert 0 == len(gate._known)
    asked.known = {str(number) for number in range(admission.KNOWN_KEYS_MAX + 5)}
    for one in asked.known:
        asyncio.run(admit(one))
    assert len(gate._known) <= admission.KNOWN_KEYS_MAX


def test_routes_of_events_have_windows_of_their_own(shared: App) -> None:
    """Reading does not use up what events have, and the other way round."""
    with service(shared, rate_limit="2/hour", ingest_rate_limit="3/hour") as http:
        read = [http.get("/version").status_code for _ in range(3)]
        sent = [http.post("/events", json=[]).status_code for _ in range(4)]

    assert [200, 200, 429] == read
    assert [202, 202, 202, 429] == sent


def test_what_releases_need_is_loaded_at_the_first_reader(shared: App) -> None:
    """Not by events, and once."""
    loaded, done = [], threading.Event()

    def warm_up() -> None:
        loaded.append(1)
        done.set()

    with service(shared, warm_up=warm_up) as http:
        http.post("/events", json=[])
        assert not loaded
        for _ in range(3):
            http.get("/version")
        assert done.wait(20)
    assert [1] == loaded


def test_windows_are_apart() -> None:
    """One key's window does not touch another's, nor an address's of the same name."""
    limiter = RateLimiter("1/hour")
    for kind, name in [("key", "a"), ("key", "b"), ("address", "a")]:
        limiter.take(kind, name).require()


def test_the_headers_of_a_rate() -> None:
    """A rate states limit, what is left and the seconds to its end."""
    rate = Rate(kind="key", limit=5, remaining=2, reset_seconds=9, exceeded=False)

    assert {
        b"ratelimit-limit": b"5",
        b"ratelimit-remaining": b"2",
        b"ratelimit-reset": b"9",
    } == dict(rate.headers())


def test_an_address_is_limited_before_its_key_is_looked_at(shared: App) -> None:
    """Requests without a key use up the address's window; then 429 comes before 401."""
    with service(shared, key=None, rate_limit="2/hour") as http:
        answers = [http.get("/budget/dau") for _ in range(3)]
        alive = http.get("/healthz")

    assert [401, 401, 429] == [one.status_code for one in answers]
    assert "rate_limited" == answers[-1].json()["code"]
    assert "application/problem+json" == answers[-1].headers["content-type"]
    assert 3595 <= int(answers[-1].headers["retry-after"]) <= 3600
    assert ["1", "0", "0"] == [one.headers["ratelimit-remaining"] for one in answers]
    assert 200 == alive.status_code


def test_a_key_is_limited_whatever_the_address(shared: App) -> None:
    """A key has one window over all addresses, and the headers then speak of the key's."""
    with service(shared, rate_limit="3/hour") as http:
        transport = http._transport
        statuses = []
        for number in range(4):
            transport._asgi.client = (f"192.0.2.{number}", 1)
            statuses.append(http.get("/version"))

    assert [200, 200, 200, 429] == [one.status_code for one in statuses]
    assert ["2", "1", "0", "0"] == [one.headers["ratelimit-remaining"] for one in statuses]


@pytest.mark.parametrize(
    ("host", "local"),
    [
        ("127.0.0.1", True),
        ("127.8.9.1", True),
        ("::1", True),
        ("[::1]", True),
        ("localhost", True),
        ("0.0.0.0", False),
        ("::", False),
        ("192.168.0.1", False),
        ("example.org", False),
        ("localhost.example.org", False),
    ],
)
def test_what_is_loopback(host: str, local: bool) -> None:
    """Only addresses that other machines cannot reach are."""
    assert local == is_loopback(host)


@pytest.fixture
def open_http(shared: App) -> httpx.Client:
    """A client without a key of a service that asks for none."""
    with service(shared, key=None, no_auth=True) as http:
        yield http


def test_without_keys_everyone_on_this_machine_is_an_admin(open_http: httpx.Client) -> None:
    """`no_auth` lets a local request through."""
    assert 200 == open_http.get("/budget/dau").status_code


@pytest.mark.parametrize(
    "headers",
    [
        {"Host": "rebound.example.org"},
        {"Sec-Fetch-Site": "cross-site"},
        {"Sec-Fetch-Site": "same-site"},
        {"Origin": "http://evil.example"},
        {"Origin": "null"},
    ],
)
def test_without_keys_a_web_page_can_do_nothing(
    open_http: httpx.Client, headers: dict[str, str]
) -> None:
    """A request by another site, or under a name that was bound to loopback, answers 401."""
    answer = open_http.get("/dau/2026-03-10", headers=headers)

    assert (401, "not_authenticated") == (answer.status_code, answer.json()["code"])


def test_a_key_that_is_sent_twice_or_in_the_query_is_no_key(shared: App) -> None:
    """Only the header counts."""
    with service(shared, key=None) as http:
        assert 401 == http.get("/version", params={"X-API-Key": API_KEY}).status_code
