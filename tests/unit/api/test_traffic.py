"""What surrounds a request: the access log, latencies, headers, and the last catch."""

import io
import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace

import httpx
import pytest
from prometheus_client.parser import text_string_to_metric_families

from dpdau.api.traffic import LATENCY_SAMPLES_MAX, LatencyWindow
from dpdau.app import App
from dpdau.app.alerts import Alerts
from dpdau.app.watch import Watch
from dpdau.errors import StoreUnavailableError
from dpdau.telemetry import Metrics
from in_process import captured_logs, service
from products import event, product

CANARY = "canary-user-5b1f"


@pytest.fixture
def log() -> Iterator[io.StringIO]:
    """Everything that is logged, as JSON lines."""
    with captured_logs() as stream:
        yield stream


def lines(log: io.StringIO, event_name: str) -> list[dict[str, object]]:
    """The lines of one kind."""
    found = [json.loads(line) for line in log.getvalue().splitlines()]
    return [one for one in found if one["event"] == event_name]


def test_a_request_is_one_line_with_the_route_and_no_path(
    shared_http: httpx.Client, log: io.StringIO
) -> None:
    """The line has method, template, status, duration and caller; no path, query or address."""
    shared_http.delete(f"/users/{CANARY}")
    shared_http.get(f"/erasures/{CANARY}", params={"q": CANARY})
    shared_http.get(f"/nowhere/{CANARY}")
    shared_http.put(f"/users/{CANARY}")

    seen = [(one["method"], one["route"], one["status"]) for one in lines(log, "request")]
    assert [
        ("DELETE", "/users/{user_id:path}", 202),
        ("GET", "/erasures/{erasure_id}", 404),
        ("GET", "none", 404),
        ("PUT", "/users/{user_id:path}", 405),
    ] == seen
    assert CANARY not in log.getvalue()
    assert "127.0.0.1" not in log.getvalue()
    assert "bootstrap" == lines(log, "request")[0]["caller"]


def test_a_bug_is_logged_by_place_and_shown_as_nothing(
    shared_http: httpx.Client,
    shared: App,
    log: io.StringIO,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """An unexpected error answers 500 `internal`; its message, with an id, is in no log line."""

    def fail(user_id: str) -> None:
        raise RuntimeError(f"cannot erase {user_id}")

    monkeypatch.setattr(shared, "erase", fail)

    answer = shared_http.delete(f"/users/{CANARY}")

    assert (500, "internal") == (answer.status_code, answer.json()["code"])
    assert "application/problem+json" == answer.headers["content-type"]
    failed = lines(log, "failed")
    assert ("RuntimeError", "/users/{user_id:path}") == (failed[0]["error"], failed[0]["route"])
    assert any("test_traffic.py" in frame for frame in failed[0]["frames"])
    assert CANARY not in log.getvalue() + answer.text


def test_every_answer_carries_the_same_headers(shared_http: httpx.Client) -> None:
    """Nothing is cached, sniffed or referred, on success and on refusal."""
    for path in ("/budget/dau", "/budget/yau", "/nowhere", "/", "/healthz"):
        headers = shared_http.get(path).headers
        assert ("no-store", "nosniff", "no-referrer") == (
            headers["cache-control"],
            headers["x-content-type-options"],
            headers["referrer-policy"],
        )


def test_latency_percentiles_over_a_bounded_window() -> None:
    """Nearest rank: p50 and p99 of 1..100; old samples leave."""
    metrics = Metrics()
    window = LatencyWindow(metrics)
    value = metrics.registry.get_sample_value

    assert 0.0 == value("dp_request_latency_ms_p50")
    for milliseconds in range(1, 101):
        window.add(float(milliseconds))
    assert (50.0, 99.0) == (
        value("dp_request_latency_ms_p50"),
        value("dp_request_latency_ms_p99"),
    )
    for _ in range(LATENCY_SAMPLES_MAX):
        window.add(7.0)
    assert (7.0, 7.0) == (value("dp_request_latency_ms_p50"), value("dp_request_latency_ms_p99"))


def test_counters_by_route_and_status(tmp_path: Path) -> None:
    """Requests, refusals and latencies are counted under templates, on the app's own registry."""
    with product(tmp_path) as app:
        app.metrics = Metrics()
        with service(app) as http:
            http.post("/event", json={"event": event(CANARY)})
            http.delete(f"/users/{CANARY}")
            http.get("/budget/yau")
            http.get(f"/nowhere/{CANARY}")
            text = http.get("/metrics").text

    assert 'http_requests_total{handler="/event",method="POST",status="202"} 1.0' in text
    assert 'http_requests_total{handler="/budget/{metric}",method="GET",status="422"} 1.0' in text
    assert 'http_requests_total{handler="none",method="GET",status="404"} 1.0' in text
    assert 'http_request_duration_seconds_bucket{handler="/event",le="0.5",method="POST"}' in text
    assert 'dpdau_refusals_total{code="invalid_plan"} 1.0' in text
    assert "dp_request_latency_ms_p99 " in text
    assert CANARY not in text


def test_failures_of_the_service_are_counted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A bug counts, a refusal does not, and neither does a service that says it is not ready."""

    def fail(*_: object) -> None:
        raise StoreUnavailableError("no room")

    with product(tmp_path) as app:
        app.metrics = Metrics()
        monkeypatch.setattr(app, "erase", fail)
        monkeypatch.setattr(app, "check_ready", fail)
        with service(app) as http:
            statuses = [
                http.get("/budget/yau").status_code,
                http.get("/readyz").status_code,
                http.delete(f"/users/{CANARY}").status_code,
            ]
        counted = app.metrics.registry.get_sample_value("dpdau_failures_total", {"front": "http"})

    assert [422, 503, 503] == statuses
    assert 1 == counted


def metrics_after(root: Path, events: int) -> dict[str, set[tuple[str, str, float]]]:
    """What `/metrics` says after one batch; of what measures time, only how often it did."""
    with product(root) as app:
        app.metrics = Metrics()
        alerts = Alerts({}, clock=app.calendar.clock)
        watch = Watch(app, metrics=app.metrics, alerts=alerts, owns=True, opening=False)
        with service(app) as http:
            batch = [event(f"{CANARY}-{number}") for number in range(events)]
            assert events == http.post("/events", json=batch).json()["accepted"]
            http.get("/dau/2026-03-10")
            watch.turn()
            text = http.get("/metrics", headers={"X-API-Key": ""}).text
    return {
        family.name: {
            (sample.name, str(sorted(sample.labels.items())), sample.value)
            for sample in family.samples
            if not sample.name.endswith(("_sum", "_bucket", "_p50", "_p99"))
        }
        for family in text_string_to_metric_families(text)
        if not family.name.endswith("_created")
    }


def test_metrics_do_not_follow_the_number_of_events(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """After 3 and after 700 events the counters are the same, and they are a closed list."""
    # The disk is shared with everybody on this machine.
    monkeypatch.setattr(shutil, "disk_usage", lambda _path: SimpleNamespace(free=7, total=10))
    few, many = metrics_after(tmp_path / "few", 3), metrics_after(tmp_path / "many", 700)

    assert few == many
    assert {
        "dpdau_releases",
        "dpdau_refusals",
        "dpdau_erasures",
        "dpdau_failures",
        "dpdau_watch_timestamp_seconds",
        "dpdau_ledger_sound",
        "dpdau_ledger_verified_timestamp_seconds",
        "dpdau_release_overdue_seconds",
        "dpdau_disk_free_ratio",
        "dpdau_backup_timestamp_seconds",
        "dpdau_erasures_outstanding",
        "dpdau_budget_spent_ratio",
        "dpdau_kafka_lag",
        "dpdau_ledger_corrupt",
        "dpdau_ledger_transactions",
        "dpdau_ledger_transaction_seconds",
        "http_requests",
        "http_request_duration_seconds",
        "dp_request_latency_ms_p50",
        "dp_request_latency_ms_p99",
    } == set(few)


def test_the_access_log_has_no_sizes(tmp_path: Path, log: io.StringIO) -> None:
    """An ingest request is one line on any level, without a number of events or bytes."""
    with product(tmp_path) as app, service(app) as http:
        http.post("/events", json=[event(f"u{number}") for number in range(7)])

    written = [json.loads(one) for one in log.getvalue().splitlines()]
    members = {"event", "level", "logger", "timestamp", "method", "route", "status", "caller"}
    assert [members | {"duration_ms"}] == [set(one) for one in written if one["logger"] == "api"]
