"""What every route refuses, how, and in which order."""

import gzip
from pathlib import Path

import httpx
import pytest

from dpdau.activity.embedded import EmbeddedStore
from dpdau.app import App
from dpdau.domain import Scope
from dpdau.errors import LedgerCorruptError, StoreUnavailableError
from in_process import key_of, refusal, service
from products import DAY, event, product, send

OPEN_DAY = "2026-03-15"
CLOSED_DAY = DAY.isoformat()
BAD_EVENT = "invalid_event"


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
