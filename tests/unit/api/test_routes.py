"""Every route: what it answers, who may ask, and in which order it refuses."""

import csv
import datetime as dt
import gzip
import io
import json
from typing import Any

import httpx
import pyarrow as pa
import pytest

from dpdau import __version__
from dpdau.api.routes import CSV_COLUMNS
from dpdau.app import App
from dpdau.domain import Scope
from in_process import key_of, refusal, service
from products import DAY, event, send

OPEN_DAY = "2026-03-15"
CLOSED_DAY = DAY.isoformat()
BAD_EVENT = "invalid_event"
ROUTES: list[tuple[str, str, Scope | None]] = [
    ("POST", "/event", Scope.INGEST),
    ("POST", "/events", Scope.INGEST),
    ("DELETE", "/users/someone", Scope.ERASE),
    ("GET", "/erasures/some-id", Scope.ERASE),
    ("GET", f"/dau/{CLOSED_DAY}", Scope.RELEASE),
    ("GET", f"/wau?end={CLOSED_DAY}", Scope.RELEASE),
    ("GET", f"/mau?end={CLOSED_DAY}", Scope.RELEASE),
    ("GET", f"/growth?end={CLOSED_DAY}", Scope.RELEASE),
    ("POST", "/plans", Scope.RELEASE),
    ("GET", f"/series?from={CLOSED_DAY}&to={CLOSED_DAY}", Scope.READ),
    ("GET", "/budget/dau", Scope.READ),
    ("GET", "/releases", Scope.READ),
    ("GET", "/plans", Scope.READ),
    ("GET", "/version", None),
]
PUBLIC_PATHS = ["/healthz", "/readyz", "/metrics", "/docs", "/openapi.json", "/login"]


def test_one_event_is_taken(http: httpx.Client) -> None:
    """`{"event": …}` answers 202 with every outcome counted."""
    answer = http.post("/event", json={"event": event("u1")})

    expected = {"ingested": 1, "received": 1, "accepted": 1, "duplicate": 0, "late": 0}
    assert 202 == answer.status_code
    assert {**expected, "rejected": [], "rejected_count": 0} == answer.json()


def test_bad_items_are_named_and_the_rest_is_taken(http: httpx.Client) -> None:
    """Each bad item has its index, code, field and message; received adds up."""
    events = [event("u1"), event(""), event("u2", op="?"), event("u3"), {"op": "+"}]

    body = http.post("/event", json={"events": events}).json()

    assert [(1, "bad_user_id"), (2, "unknown_op"), (4, "missing_field")] == [
        (one["index"], one["code"]) for one in body["rejected"]
    ]
    assert all(one["field"] and one["message"] for one in body["rejected"])
    assert body["received"] == (
        body["accepted"] + body["duplicate"] + body["late"] + body["rejected_count"]
    )


def _zstd(body: bytes) -> bytes:
    return bytes(pa.Codec("zstd").compress(body, asbytes=True))


@pytest.mark.parametrize(
    ("encoding", "pack"),
    [(None, bytes), ("identity", bytes), ("gzip", gzip.compress), ("zstd", _zstd)],
)
@pytest.mark.parametrize("media", ["application/json", "application/x-ndjson; charset=utf-8"])
def test_batches_in_both_forms_and_all_encodings(
    http: httpx.Client, media: str, encoding: str | None, pack: Any
) -> None:
    """A JSON array and NDJSON are taken, plain, gzip and zstd."""
    events = [event("u1"), event("u2")]
    lines = "\n".join(json.dumps(one) for one in events)
    body = json.dumps(events) if media == "application/json" else lines
    headers = {"Content-Type": media} | ({"Content-Encoding": encoding} if encoding else {})

    answer = http.post("/events", content=pack(body.encode()), headers=headers)

    assert (202, 2) == (answer.status_code, answer.json()["accepted"])


def test_a_batch_sent_twice_is_taken_once(http: httpx.Client) -> None:
    """Under the same id the second batch is duplicate."""
    batch = [event("u1"), event("u2")]
    header = {"Idempotency-Key": "batch-1"}

    first = http.post("/events", json=batch, headers=header).json()
    second = http.post("/events", json=batch, headers=header).json()

    assert (2, 0) == (first["accepted"], first["duplicate"])
    assert (0, 2) == (second["accepted"], second["duplicate"])


def test_an_erasure_takes_the_user_out_and_has_a_receipt(app: App, http: httpx.Client) -> None:
    """A user id with a slash, a dot and an accent is erased, and the receipt can be read again."""
    send(app, [event("a/..é"), event("b")])

    receipt = http.delete("/users/a%2F%2E%2E%C3%A9")
    again = http.get(f"/erasures/{receipt.json()['erasure_id']}")

    assert (202, 1) == (receipt.status_code, receipt.json()["days_touched"])
    assert receipt.json() == again.json()
    assert 1 == http.get(f"/dau/{CLOSED_DAY}").json()["estimate"]


def test_an_erasure_of_bytes_that_are_no_text_is_refused(http: httpx.Client) -> None:
    """Broken UTF-8 in the path is not read as another user's id."""
    assert (422, "invalid_event") == refusal(http.delete("/users/%FF%FE"))
    assert (422, "invalid_event") == refusal(http.delete("/users/"))


@pytest.mark.parametrize(
    ("path", "days"),
    [
        (f"/dau/{CLOSED_DAY}", 1),
        (f"/wau?end={CLOSED_DAY}", 7),
        (f"/mau?end={CLOSED_DAY}", 30),
        (f"/mau?end={CLOSED_DAY}&window=28", 28),
    ],
)
def test_a_release_is_given_and_replayed(
    app: App, http: httpx.Client, path: str, days: int
) -> None:
    """The first answer is charged; the second has the same number, is replayed and free."""
    send(app, [event("u1"), event("u2")])

    first, second = http.get(path).json(), http.get(path).json()

    assert (2, days, False, None) == (
        first["estimate"],
        first["window_days"],
        first["replayed"],
        first["exact_value"],
    )
    assert {**first, "replayed": True} == second
    assert first["budget_remaining"] == first["budget"]["epsilon_remaining"]


def test_a_segment_and_a_fresh_number(app: App, http: httpx.Client) -> None:
    """`segment` narrows the count; `fresh` buys another release."""
    send(app, [event("u1", metadata={"platform": "ios"}), event("u2")])
    params = {"segment": "platform=ios"}

    first = http.get(f"/dau/{CLOSED_DAY}", params=params).json()
    fresh = http.get(f"/dau/{CLOSED_DAY}", params={**params, "fresh": "true"}).json()

    assert ("platform=ios", 1) == (first["segment"], first["estimate"])
    assert first["release_id"] != fresh["release_id"]
    assert not fresh["replayed"]


def test_series_gives_released_numbers_only(http: httpx.Client) -> None:
    """Series holds what was released, as JSON and as CSV, and spends nothing."""
    before = DAY - dt.timedelta(days=1)
    released = http.get(f"/dau/{CLOSED_DAY}").json()
    params = {"metrics": "dau,mau", "from": before.isoformat(), "to": CLOSED_DAY}

    as_json = http.get("/series", params=params).json()
    as_csv = http.get("/series", params={**params, "format": "csv"})

    assert [{**released, "replayed": True}] == as_json["releases"]
    assert as_csv.headers["content-type"].startswith("text/csv")
    rows = list(csv.DictReader(io.StringIO(as_csv.text)))
    assert [list(CSV_COLUMNS)] == [list(row) for row in rows]
    assert released["release_id"] == rows[0]["release_id"]


def test_budget_of_a_month(http: httpx.Client) -> None:
    """The block of the month of a day; today's without one."""
    http.get(f"/dau/{CLOSED_DAY}")

    march, january = http.get("/budget/dau").json(), http.get("/budget/dau?day=2026-01-05").json()

    assert ("2026-03", 0.3, 1) == (
        march["period"],
        march["epsilon_spent"],
        march["release_count"],
    )
    assert ("2026-01", 0.0) == (january["period"], january["epsilon_spent"])


@pytest.mark.parametrize(("path", "rows"), [("/releases", "releases"), ("/plans", "plans")])
def test_pages_lead_to_the_next(http: httpx.Client, path: str, rows: str) -> None:
    """Following `Link` gives every row once, oldest first."""
    days = [DAY - dt.timedelta(days=back) for back in range(3)]
    for day in days:
        http.get(f"/dau/{day.isoformat()}")

    seen, where = [], f"{path}?limit=2"
    while where:
        answer = http.get(where)
        seen += answer.json()[rows]
        where = answer.links.get("next", {}).get("url", "")
        assert (answer.json()["next"] is None) == (not where)

    ids = [one.get("plan_id") for one in seen]
    assert 3 == len(set(ids)) == len(ids)


def test_a_plan_is_priced_without_a_charge_and_then_taken(http: httpx.Client) -> None:
    """`dry_run` quotes; without it the release is made at the quoted cost."""
    asked = {"metric": "mau", "day": CLOSED_DAY, "window": 28}

    quote = http.post("/plans", params={"dry_run": "true"}, json=asked)
    between = http.get("/budget/mau").json()
    taken = http.post("/plans", json=asked)

    assert (200, 201) == (quote.status_code, taken.status_code)
    assert 0 == between["release_count"]
    assert quote.json()["affordable"]
    assert quote.json()["noise_stddev"] == taken.json()["noise_stddev"]
    assert quote.json()["epsilon"] == taken.json()["epsilon_used"]


def test_version_and_probes(http: httpx.Client) -> None:
    """The version is the package's; a service that can write is ready."""
    assert {"name": "dpdau", "version": __version__} == http.get("/version").json()
    assert {"status": "ok"} == http.get("/healthz").json() == http.get("/readyz").json()


@pytest.mark.parametrize("path", PUBLIC_PATHS)
def test_public_routes_ask_for_no_key(keyless_http: httpx.Client, path: str) -> None:
    """Probes, counters, the API listing and the page's shell answer without a key."""
    assert 200 == keyless_http.get(path).status_code


@pytest.mark.parametrize(("method", "path", "scope"), ROUTES)
def test_every_other_route_asks_for_a_key_with_its_scope(
    shared: App, keyless_http: httpx.Client, method: str, path: str, scope: Scope | None
) -> None:
    """401 without a key or with a wrong one; 403 for every other scope; admin may do all."""
    for key in (None, "", "wrong", "x" * 600, "dpdau_" + "0" * 16 + "_" + "0" * 64, "é"):
        headers = {} if key is None else {b"X-API-Key": key.encode()}
        answer = keyless_http.request(method, path, headers=headers)
        assert (401, "not_authenticated") == refusal(answer)
        assert "APIKey" == answer.headers["www-authenticate"]
    for other in Scope:
        answer = keyless_http.request(method, path, headers=key_of(shared, other))
        allowed = scope is None or other in (scope, Scope.ADMIN)
        assert allowed == (answer.status_code not in (401, 403))
        if not allowed:
            assert (403, "not_authorized") == refusal(answer)


def test_an_ended_key_is_unknown(app: App, monkeypatch: pytest.MonkeyPatch) -> None:
    """A revoked key answers 401, once it is looked up again."""
    monkeypatch.setattr("dpdau.app.admission.KNOWN_SECONDS", 0.0)
    key_id, key = app.ledger.keys.create("gone", [Scope.READ], None, actor="tests")
    with service(app, key=key) as http:
        before = http.get("/budget/dau").status_code
        app.ledger.keys.revoke(key_id, actor="tests")

        assert (200, 401) == (before, http.get("/budget/dau").status_code)
