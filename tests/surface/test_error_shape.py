"""A user id that a request holds is in no answer, log line or metric, on any route or refusal."""

import io
import json
import logging
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import quote

import httpx
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from prometheus_client import generate_latest

from dpdau.api.bodies import BodyReader
from dpdau.app import App
from dpdau.app.admission import RATE_LIMIT
from dpdau.domain import Scope
from dpdau.errors import OUTCOMES, OverloadedError
from dpdau.settings import Settings
from dpdau.telemetry import Metrics
from in_process import service
from products import API_KEY, DAY, event, product

CANARY = "canary-user-e3d1c5b7"
CODES_OF_THE_FRAMEWORK = {"method_not_allowed", "internal"}


@pytest.fixture
def app(tmp_path: Path) -> Iterator[App]:
    """A product that counts, with room for one DAU release."""
    with product(tmp_path, DAU_BUDGET_TOTAL=0.3, DIMENSIONS="platform") as opened:
        opened.metrics = Metrics()
        yield opened


def table(*, arrow: bool) -> bytes:
    """A table with the id in a user id, the name of a column and a value that is refused."""
    columns = {"user_id": [CANARY, CANARY * 20], "op": ["+", CANARY], CANARY: [CANARY] * 2}
    rows = pa.table({**columns, "day": [DAY.isoformat(), CANARY]})
    sink = io.BytesIO()
    if arrow:
        with pa.ipc.new_stream(sink, rows.schema) as writer:
            writer.write_table(rows)
    else:
        pq.write_table(rows, sink)
    return sink.getvalue()


def requests() -> list[tuple[str, str, dict[str, Any]]]:
    """Requests with the id in the path, the query, a header and the body, on every route."""
    day = DAY.isoformat()
    wrong = {"user_id": CANARY, "op": CANARY, "day": CANARY, "metadata": {"platform": CANARY}}
    ndjson = {"Content-Type": "application/x-ndjson"}
    arrow, parquet = (
        {"Content-Type": f"application/vnd.apache.{kind}"} for kind in ("arrow.stream", "parquet")
    )
    plan = {"metric": "dau", "day": day, "segment": f"{CANARY}={CANARY}"}
    return [
        ("POST", "/event", {"json": {"event": event(CANARY, metadata={CANARY: CANARY})}}),
        ("POST", "/event", {"json": {"event": wrong}}),
        ("POST", "/event", {"json": {"event": event(CANARY * 20)}}),
        ("POST", "/event", {"json": {CANARY: CANARY}}),
        ("POST", "/event", {"content": CANARY, "headers": {"Content-Type": CANARY}}),
        ("POST", "/events", {"json": [event(CANARY), wrong, CANARY, {CANARY: 1}]}),
        ("POST", "/events", {"content": f"{CANARY}\n{json.dumps(wrong)}", "headers": ndjson}),
        ("POST", "/events", {"content": CANARY, "headers": {"Content-Encoding": "gzip"} | ndjson}),
        ("POST", "/events", {"content": CANARY, "headers": {"Content-Encoding": CANARY} | ndjson}),
        ("POST", "/events", {"content": f"{CANARY} " * 5000, "headers": ndjson}),
        ("POST", "/events", {"json": [], "headers": {"Idempotency-Key": CANARY * 20}}),
        ("POST", "/events", {"content": table(arrow=True), "headers": arrow}),
        ("POST", "/events", {"content": table(arrow=True)[:-70], "headers": arrow}),
        ("POST", "/events", {"content": table(arrow=False), "headers": parquet}),
        ("POST", "/events", {"content": table(arrow=False)[9:], "headers": parquet}),
        ("POST", "/events", {"content": f"PAR1{CANARY}PAR1", "headers": parquet}),
        ("POST", "/events", {"content": CANARY, "headers": arrow}),
        ("GET", "/events", {"params": {CANARY: CANARY}}),
        ("DELETE", f"/users/{CANARY}", {}),
        ("DELETE", f"/users/{CANARY}/", {}),
        ("DELETE", f"/users/{CANARY * 20}", {}),
        ("DELETE", f"/users/{CANARY}%FF", {}),
        ("GET", f"/users/{CANARY}", {}),
        ("GET", f"/erasures/{CANARY}", {}),
        ("GET", f"/dau/{CANARY}", {}),
        ("GET", f"/dau/{day}", {"params": {CANARY: CANARY}}),
        ("GET", f"/dau/{day}", {}),
        ("GET", "/dau/2026-03-09", {}),
        ("GET", "/dau/2026-03-15", {}),
        ("GET", "/wau", {"params": {"end": CANARY}}),
        ("GET", "/mau", {"params": {"end": day, "window": CANARY}}),
        ("GET", "/mau", {"params": {"end": day, "fresh": CANARY}}),
        ("GET", "/growth", {"params": {"end": CANARY, "window": CANARY}}),
        ("GET", "/growth", {"params": {"end": day, "segment": CANARY}}),
        ("GET", "/series", {"params": {"from": CANARY, "to": CANARY, "metrics": CANARY}}),
        ("GET", "/series", {"params": {"from": day, "to": day, "metrics": CANARY}}),
        ("GET", f"/dau/{day}", {"params": {"segment": CANARY}}),
        ("GET", f"/dau/{day}", {"params": {"segment": f"{CANARY}={CANARY}"}}),
        ("GET", "/series", {"params": {"from": day, "to": day, "segment": f"{CANARY}=x"}}),
        ("GET", "/budget/dau", {"params": {"day": CANARY}}),
        ("GET", f"/budget/{CANARY}", {}),
        ("GET", "/releases", {"params": {"after": CANARY}}),
        ("GET", "/releases", {"params": {"limit": CANARY}}),
        ("GET", "/plans", {"params": {"after": CANARY}}),
        ("POST", "/plans", {"json": plan}),
        ("POST", "/plans", {"json": {**plan, "metric": CANARY}}),
        ("POST", "/plans", {"json": {"metric": "dau", "day": CANARY, CANARY: CANARY}}),
        ("POST", "/plans", {"params": {"dry_run": CANARY}, "json": plan}),
        ("PUT", f"/{CANARY}", {}),
        ("GET", f"/{CANARY}", {"params": {CANARY: CANARY}}),
        ("GET", "/version", {"headers": {"X-API-Key": CANARY}}),
        ("GET", "/healthz", {"params": {CANARY: CANARY}}),
        ("GET", "/readyz", {"headers": {"User-Agent": CANARY}}),
    ]


def test_no_id_in_any_answer_log_or_metric(
    app: App, caplog: pytest.LogCaptureFixture, capfd: pytest.CaptureFixture[str]
) -> None:
    """With a good key, a key without scopes, no key, and over the rate: the id is nowhere."""
    caplog.set_level(logging.DEBUG)
    # The tests' own client logs each URL; it is not a part of the product.
    logging.getLogger("httpx").setLevel(logging.WARNING)
    _, reading = app.ledger.keys.create("reader", [Scope.READ], None, actor="tests")
    answers: list[httpx.Response] = []
    metrics = ""
    for key, rate in (
        (API_KEY, RATE_LIMIT),
        (reading, RATE_LIMIT),
        (None, RATE_LIMIT),
        (None, "1/hour"),
    ):
        app.metrics = Metrics()
        limits = {"rate_limit": rate, "ingest_rate_limit": rate, "max_body_bytes": 20_000}
        with service(app, key=key, **limits) as http:
            answers += [http.request(method, path, **more) for method, path, more in requests()]
        metrics += generate_latest(app.metrics.registry).decode()
    logging.getLogger("httpx").setLevel(logging.NOTSET)

    statuses = {one.status_code for one in answers}
    assert {200, 202, 401, 403, 404, 405, 409, 413, 415, 422, 429} == statuses
    shown = [f"{one.headers}{one.text}" for one in answers]
    logged = [f"{record.getMessage()}{record.__dict__}" for record in caplog.records]
    written = "".join(capfd.readouterr())
    assert [] == [text for text in [*shown, *logged, metrics, written] if CANARY in text]


def test_an_overloaded_service_refuses_in_the_same_shape(
    app: App, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With no room for one more event: 429 `overloaded`, with a time to come again, and no id."""
    monkeypatch.setattr(BodyReader, "hold", full)
    with service(app) as http:
        answers = [
            http.request(method, path, **more)
            for method, path, more in requests()
            if path in ("/event", "/events") and method == "POST"
        ]

    refused = [one for one in answers if one.status_code == 429]
    assert len(refused) > len(answers) // 2
    for one in refused:
        assert ("overloaded", 1) == (one.json()["code"], one.json()["retry_after_seconds"])
        assert "1" == one.headers["retry-after"]
        assert CANARY not in f"{one.headers}{one.text}"


def full(_reader: BodyReader, more: int) -> None:
    """No room for another byte."""
    if more > 0:
        raise OverloadedError("Expected room, found none.", retry_after_seconds=1)


def test_every_refusal_has_one_shape_and_a_known_code(app: App) -> None:
    """Each answer from 400 on is a problem document whose code is a leaf of the tree."""
    known = {leaf.code for leaf in OUTCOMES} | CODES_OF_THE_FRAMEWORK
    with service(app, max_body_bytes=20_000) as http:
        for method, path, more in requests():
            answer = http.request(method, path, **more)
            if answer.status_code < 400:
                continue
            body = answer.json()
            assert "application/problem+json" == answer.headers["content-type"]
            assert ["type", "title", "status", "code", "detail"] == list(body)[:5]
            assert body["code"] in known
            assert answer.status_code == body["status"]


@pytest.fixture(scope="module")
def http(tmp_path_factory: pytest.TempPathFactory) -> Iterator[httpx.Client]:
    """A client of a service over an empty product, for requests that are refused."""
    with pytest.MonkeyPatch.context() as patch:
        for name in [name for name in os.environ if name in Settings.model_fields]:
            patch.delenv(name)
        root = tmp_path_factory.mktemp("echo")
        with product(root, DIMENSIONS="platform") as app, service(app) as client:
            yield client


def operations() -> list[tuple[str, str]]:
    """Every operation of the published document."""
    snapshot = Path(__file__).with_name("openapi.json")
    paths = json.loads(snapshot.read_text("utf-8"))["paths"]
    return [(path, method) for path, methods in paths.items() for method in methods]


WORDS = st.text("abcdefghijklmnopqrstuvwxyz0123456789@.=:~-+ ", min_size=4, max_size=30).map(
    lambda text: f"zq{text}qz"
)
FORMS = st.sampled_from(["{}", "{}=x", "x={}", "{}={}", "dau,{}", "2026-03-10{}"])
HEADERS = ("X-API-Key", "Content-Type", "Content-Encoding", "Idempotency-Key", "User-Agent")


def parameters(path: str, method: str) -> list[str]:
    """The query parameters that an operation takes."""
    snapshot = Path(__file__).with_name("openapi.json")
    operation = json.loads(snapshot.read_text("utf-8"))["paths"][path][method]
    return [one["name"] for one in operation.get("parameters", []) if one["in"] == "query"]


@pytest.mark.parametrize(("path", "method"), operations())
def test_no_refusal_repeats_the_request(http: httpx.Client, path: str, method: str) -> None:
    """Whatever text is in path, query, header or body: no answer from 400 on has it, in any form.

    A good value is put where the text is not, so that each parameter is reached.
    """
    good = {"from": DAY.isoformat(), "to": DAY.isoformat(), "end": DAY.isoformat()}
    places = ["path", "unknown", "body", "member", "field", *HEADERS, *parameters(path, method)]

    @given(word=WORDS, form=FORMS, place=st.sampled_from(places))
    @settings(max_examples=30, derandomize=True, database=None)
    def check(word: str, form: str, place: str) -> None:
        text = form.replace("{}", word)
        filled = {
            "{metric}": "dau",
            "{day}": DAY.isoformat(),
            "{user_id}": "u",
            "{erasure_id}": "e",
        }
        if place == "path":
            filled = dict.fromkeys(filled, quote(text, safe=""))
        parts = [filled.get(part, part) for part in path.split("/")]
        headers = {"Content-Type": "application/json"}
        params = {name: good[name] for name in parameters(path, method) if name in good}
        body: Any = {"metric": "dau", "day": DAY.isoformat()}
        if place in HEADERS:
            headers[place] = text
        elif place == "unknown":
            params[text] = text
        elif place == "body":
            body = text
        elif place == "member":
            body[text] = text
        elif place == "field":
            body |= {"segment": text, "day": text}
        elif place != "path":
            params[place] = text
        answer = http.request(
            method, "/".join(parts), params=params, headers=headers, content=json.dumps(body)
        )
        if answer.status_code < 400:
            return
        shown = f"{answer.headers}{answer.text}{json.dumps(answer.json(), ensure_ascii=False)}"
        assert word not in shown
        assert quote(word, safe="") not in shown

    check()
