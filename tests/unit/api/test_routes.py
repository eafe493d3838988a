"""Every route: what it answers, who may ask, and in which order it refuses."""

import csv
import datetime as dt
import gzip
import io
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pyarrow as pa
import pytest

from dpdau import __version__
from dpdau.activity.embedded import EmbeddedStore
from dpdau.api.routes import CSV_COLUMNS
from dpdau.app import App
from dpdau.domain import Scope
from dpdau.errors import LedgerCorruptError, StoreUnavailableError
from in_process import service
from products import DAY, event, product, send

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
PUBLIC_PATHS = ["/healthz", "/readyz", "/metrics", "/docs", "/openapi.json", "/"]


@pytest.fixture
def app(tmp_path: Path) -> Iterator[App]:
    """A product with one declared dimension."""
    with product(tmp_path, DIMENSIONS="platform") as opened:
        yield opened


@pytest.fixture
def http(app: App) -> Iterator[httpx.Client]:
    """A client of a service over it, with the bootstrap key."""
    with service(app) as client:
        yield client


def key_of(app: App, *scopes: Scope) -> dict[str, str]:
    """The header of a new stored key."""
    _, key = app.ledger.keys.create("tests", scopes, None, actor="tests")
    return {"X-API-Key": key}


def refusal(answer: httpx.Response) -> tuple[int, str]:
    """Status and code of a problem document."""
    assert "application/problem+json" == answer.headers["content-type"]
    body = answer.json()
    assert {"type", "title", "status", "code", "detail"} <= set(body)
    assert answer.status_code == body["status"]
    return answer.status_code, body["code"]


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


@pytest.mark.parametrize(
    ("path", "headers", "content", "expected"),
    [
        ("/event", {"Content-Type": ""}, b"{}", (415, "unsupported_media")),
        ("/event", {"Content-Type": "text/plain"}, b"{}", (415, "unsupported_media")),
        ("/event", {"Content-Type": "application/x-ndjson"}, b"{}", (415, "unsupported_media")),
        ("/events", {"Content-Type": "image/png"}, b"[]", (415, "unsupported_media")),
        ("/events", {"Content-Encoding": "br"}, b"[]", (415, "unsupported_media")),
        ("/events", {}, b"[" + b" " * 2000 + b"]", (413, "too_large")),
        (
            "/events",
            {"Content-Encoding": "gzip"},
            gzip.compress(b" " * 2000, mtime=0),
            (413, "too_large"),
        ),
        (
            "/events",
            {"Content-Encoding": "gzip"},
            gzip.compress(b"[]", mtime=0)[:-4],
            (422, BAD_EVENT),
        ),
        ("/events", {"Content-Encoding": "zstd"}, b"no zstd", (422, BAD_EVENT)),
        ("/events", {}, b'{"user_id": "u"}', (422, BAD_EVENT)),
        ("/event", {}, b"{", (422, BAD_EVENT)),
        ("/event", {}, b'{"event": {}, "events": []}', (422, BAD_EVENT)),
        ("/events", {"Idempotency-Key": "x" * 257}, b"[]", (422, BAD_EVENT)),
        ("/events", {"Idempotency-Key": ""}, b"[]", (422, BAD_EVENT)),
    ],
)
def test_bodies_that_are_refused(
    shared_http: httpx.Client,
    path: str,
    headers: dict[str, str],
    content: bytes,
    expected: tuple[int, str],
) -> None:
    """Type, encoding, size (as sent and decompressed) and shape are refused, each with its code."""
    media = {"Content-Type": "application/json"}

    assert expected == refusal(
        shared_http.post(path, content=content, headers={**media, **headers})
    )


def test_a_body_without_a_length_is_limited_too(shared_http: httpx.Client) -> None:
    """A chunked body is cut off at the limit."""
    chunks = (b" " * 400 for _ in range(4))

    answer = shared_http.post(
        "/events", content=chunks, headers={"Content-Type": "application/json"}
    )

    assert (413, "too_large") == refusal(answer)


@pytest.mark.parametrize(
    "path",
    [
        "/dau/yesterday",
        "/dau/0",
        "/dau/1793491200",
        f"/dau/{CLOSED_DAY}T00:00:00Z",
        "/wau?end=0",
        "/budget/dau?day=0",
        f"/series?from=0&to={CLOSED_DAY}",
        "/dau/2026-02-30",
        f"/dau/{CLOSED_DAY}?window=7",
        f"/dau/{CLOSED_DAY}?segment=platform",
        f"/dau/{CLOSED_DAY}?segment=color%3Dred",
        f"/dau/{CLOSED_DAY}?segmnt=platform%3Dios",
        "/dau/9999-12-31",
        "/wau",
        "/mau?end=0001-01-02",
        f"/mau?end={CLOSED_DAY}&window=0",
        f"/mau?end={CLOSED_DAY}&window=65",
        f"/series?from={CLOSED_DAY}",
        f"/series?from={CLOSED_DAY}&to=2026-03-01",
        f"/series?from={CLOSED_DAY}&to={CLOSED_DAY}&metrics=dau,yau",
        f"/series?from={CLOSED_DAY}&to={CLOSED_DAY}&format=xml",
        "/budget/yau",
        "/budget/dau?day=x",
        "/releases?limit=0",
        "/releases?after=nothing",
        "/plans?after=nothing",
    ],
)
def test_questions_that_are_refused(shared_http: httpx.Client, path: str) -> None:
    """A wrong or unknown parameter answers 422 with one code."""
    assert (422, "invalid_plan") == refusal(shared_http.get(path))


@pytest.mark.parametrize(
    ("path", "expected"),
    [
        ("/budget/canary-user", "'dau', 'wau', 'mau', 'plan' or 'live'"),
        (f"/dau/{CLOSED_DAY}?segment=canary-user%3Dx", "(platform)"),
        (f"/series?from={CLOSED_DAY}&to={CLOSED_DAY}&segment=canary-user%3Dx", "(platform)"),
        (f"/mau?end={CLOSED_DAY}&segment=canary-user", "dimension"),
    ],
)
def test_words_that_are_not_known_are_not_repeated(
    shared_http: httpx.Client, path: str, expected: str
) -> None:
    """A refused metric or dimension answers with what is known, not with what was asked for."""
    answer = shared_http.get(path)

    assert (422, "invalid_plan") == refusal(answer)
    assert expected in answer.json()["detail"] or "pattern" in answer.json()["detail"]
    assert "canary-user" not in answer.text


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"{",
        b"[]",
        b'{"metric": "dau"}',
        b'{"metric": "dau", "day": 0}',
        b'{"metric": "dau", "day": "0"}',
        b'{"metric": "dau", "day": "2026-03-10", "window": true}',
        b'{"metric": "dau", "day": "2026-03-10", "x":1}',
    ],
)
def test_plans_that_are_refused(shared_http: httpx.Client, body: bytes) -> None:
    """A body that is no plan answers 422."""
    answer = shared_http.post("/plans", content=body, headers={"Content-Type": "application/json"})

    assert (422, "invalid_plan") == refusal(answer)


def test_an_open_day_is_not_ready(shared_http: httpx.Client) -> None:
    """A day that has not closed answers 409 and says when it closes."""
    answer = shared_http.get(f"/dau/{OPEN_DAY}")

    assert (409, "not_ready") == refusal(answer)
    assert "2026-03-17T00:00:00+00:00" == answer.json()["closes_at"]


def test_a_spent_budget_refuses_with_its_block(tmp_path: Path) -> None:
    """The charge that does not fit answers 429 with the budget; nothing is charged."""
    with product(tmp_path, DAU_BUDGET_TOTAL=0.3) as app, service(app) as http:
        http.get(f"/dau/{CLOSED_DAY}")
        answer = http.get("/dau/2026-03-09")
        after = http.get("/budget/dau").json()

    assert (429, "budget_exhausted") == refusal(answer)
    assert "retry-after" not in answer.headers
    assert after == answer.json()["budget"]


def test_a_store_that_cannot_write_answers_503(
    app: App, http: httpx.Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Ingest and readiness answer 503 with Retry-After; liveness does not."""

    def fail(*_: object, **__: object) -> None:
        raise StoreUnavailableError("Expected a disk with room, found none.")

    monkeypatch.setattr(EmbeddedStore, "apply_many", fail)
    monkeypatch.setattr(app, "check_ready", fail)

    taken, ready = http.post("/event", json={"event": event("u1")}), http.get("/readyz")

    assert [(503, "store_unavailable"), (503, "unavailable")] == [refusal(taken), refusal(ready)]
    assert ["1", "1"] == [one.headers["retry-after"] for one in (taken, ready)]
    assert 200 == http.get("/healthz").status_code


def test_a_service_that_is_not_ready_says_nothing_of_why(
    app: App, http: httpx.Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The probe asks for no key: neither message nor facts of the failure are in its answer."""

    def fail() -> None:
        raise LedgerCorruptError("Expected /srv/secret-place/ledger.", path="/srv/secret-place")

    monkeypatch.setattr(app, "check_ready", fail)

    answer = http.get("/readyz", headers={"X-API-Key": ""})

    assert (503, "unavailable") == refusal(answer)
    assert ["type", "title", "status", "code", "detail"] == list(answer.json())
    assert "secret-place" not in f"{answer.headers}{answer.text}"


def test_exact_values_leave_only_where_asked_for(tmp_path: Path) -> None:
    """Only an app and a service that were both started unsafe show the exact value, and say so."""
    shown = {}
    with product(tmp_path, unsafe_debug=True) as app:
        send(app, [event("u1")])
        for unsafe in (False, True):
            with service(app, unsafe_debug=unsafe) as http:
                shown[unsafe] = http.get(f"/dau/{CLOSED_DAY}").json()

    assert (None, False) == (shown[False]["exact_value"], "unsafe" in shown[False])
    assert (1, True) == (shown[True]["exact_value"], shown[True]["unsafe"])


def test_refusals_come_in_the_documented_order(tmp_path: Path) -> None:
    """With several faults at once, the first of 401, 403, 413/415, 422, 409, 429 is answered."""
    far = {"metric": "dau", "day": OPEN_DAY}
    json_type = {"Content-Type": "application/json"}
    with product(tmp_path, DAU_BUDGET_TOTAL=0.3) as app:
        reading, releasing = key_of(app, Scope.READ), key_of(app, Scope.RELEASE)
        with service(app, key=None, max_body_bytes=200) as http:
            http.get(f"/dau/{CLOSED_DAY}", headers=releasing)
            large = b" " * 300
            wrong = "/plans?dry_run=perhaps"
            answers = [
                http.post(wrong, content=large),
                http.post(wrong, content=large, headers=reading),
                http.post(wrong, content=large, headers=releasing),
                http.post(wrong, content=large, headers={**releasing, **json_type}),
                http.post(wrong, json=far, headers=releasing),
                http.post("/plans", json=far, headers=releasing),
                http.post("/plans", json={**far, "day": "2026-03-09"}, headers=releasing),
            ]

    assert [401, 403, 415, 413, 422, 409, 429] == [one.status_code for one in answers]
