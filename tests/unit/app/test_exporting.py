"""Traces and metrics reach a collector, and hold nothing of anybody."""

import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import grpc
import httpx
import pytest

import dpdau
from dpdau.app import App
from dpdau.app.exporting import Exporting
from dpdau.domain import Metric
from dpdau.errors import InvalidSettingError
from dpdau.rpc.v1 import dpdau_pb2 as v1
from dpdau.telemetry import Metrics, span, trace_with, tracing
from in_process import transport
from products import API_KEY, DAY, NOW, ZeroNoise, event, product_settings
from receivers import WebSink, web_sink
from rpc_service import KEY, listed, rpc_service

pytest.importorskip("opentelemetry.sdk")
USER = "ada.lovelace@example.org"
PARENT = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
SENT = {"traceparent": PARENT, "tracestate": f"user={USER}"}
HEADERS = {"X-API-Key": API_KEY}


class Collector:
    """What a collector got, decoded."""

    def __init__(self, sink: WebSink) -> None:
        from opentelemetry.proto.collector.metrics.v1 import metrics_service_pb2 as metrics
        from opentelemetry.proto.collector.trace.v1 import trace_service_pb2 as traces

        self.raw = b""
        self.resource: dict[str, Any] = {}
        self.spans: list[Any] = []
        self.metrics: dict[str, Any] = {}
        while not sink.posted.empty():
            posted = sink.posted.get()
            self.raw += posted.body
            if posted.path == "/v1/traces":
                for one in traces.ExportTraceServiceRequest.FromString(posted.body).resource_spans:
                    self.resource = facts(one.resource)
                    self.spans += [made for scope in one.scope_spans for made in scope.spans]
            else:
                assert "/v1/metrics" == posted.path
                request = metrics.ExportMetricsServiceRequest.FromString(posted.body)
                for found in request.resource_metrics:
                    kept = [metric for scope in found.scope_metrics for metric in scope.metrics]
                    self.metrics |= {metric.name: metric for metric in kept}

    def named(self, name: str) -> Any:
        """The first span with a name."""
        assert name in {one.name for one in self.spans}
        return next(one for one in self.spans if one.name == name)


def facts(holder: Any) -> dict[str, Any]:
    """Attributes as names and values."""
    return {one.key: getattr(one.value, one.value.WhichOneof("value")) for one in holder.attributes}


@contextmanager
def exported(root: Path, sink: WebSink) -> Iterator[App]:
    """A product whose traces and metrics go to a sink; what waits is sent at the end."""
    metrics = Metrics()
    settings = product_settings(root, OTEL_EXPORTER_OTLP_ENDPOINT=sink.url)
    opened = App.open(
        settings, clock=lambda: NOW, noise=ZeroNoise(), metrics=metrics, reported=False
    )
    with opened.closing() as app:
        app.attach(Exporting(settings, metrics.registry))
        yield app


@pytest.fixture(autouse=True)
def _nobody_traces_afterwards(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """The tracer of a test is gone after it; batches are sent at the end alone."""
    monkeypatch.setenv("OTEL_BSP_SCHEDULE_DELAY", "600000")
    yield
    trace_with(None)


def test_requests_and_their_work_are_spans_of_one_trace(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A request goes on with its caller's trace, and has the release and the ledger in it."""
    monkeypatch.setenv("OTEL_SERVICE_NAME", "numbers")
    with web_sink() as sink:
        with (
            exported(tmp_path, sink) as app,
            transport(app) as way,
            httpx.Client(transport=way, base_url="http://here", headers=HEADERS) as client,
        ):
            client.post("/event", json={"event": event(USER)})
            answer = client.get(f"/dau/{DAY}", headers=SENT)
            gone = client.delete(f"/users/{USER}")
            lost = client.get(f"/nowhere/{USER}?user={USER}")
        got = Collector(sink)
    request = got.named("GET /dau/{day}")
    release, step = got.named("release"), got.named("ledger step")
    erasure = got.named("DELETE /users/{user_id:path}")

    assert (200, 404) == (answer.status_code, lost.status_code)
    assert gone.is_success
    assert ("numbers", "0.1.0") == (got.resource["service.name"], got.resource["service.version"])
    assert PARENT.split("-")[1:3] == [request.trace_id.hex(), request.parent_span_id.hex()]
    assert (request.span_id, release.span_id) == (release.parent_span_id, step.parent_span_id)
    assert {
        "http.request.method": "GET",
        "http.route": "/dau/{day}",
        "http.response.status_code": 200,
    } == facts(request)
    assert {"metric": "dau"} == facts(release)
    assert erasure.trace_id != request.trace_id
    assert {"commit", "POST /event", "GET none"} <= {one.name for one in got.spans}
    # Neither in a name, nor in an attribute, nor anywhere else.
    assert b"ada" not in got.raw and b"lovelace" not in got.raw
    assert not any(one.events for one in got.spans)


def test_calls_are_spans(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """A call of gRPC has its method and its status; a refusal of the caller is no failure."""
    asked = v1.ReleaseRequest(metric="dau", day=str(DAY))
    with web_sink() as sink:
        with exported(tmp_path, sink) as app, rpc_service(app) as service:
            metadata = (*KEY, *SENT.items())
            service.Release(asked, metadata=metadata)
            list(service.Ingest(iter([listed([event(USER)]), listed([event("b")])]), metadata=KEY))
            with pytest.raises(grpc.RpcError):
                service.Release(asked)
        got = Collector(sink)
    call, step = got.named("dpdau.v1.Dpdau/Release"), got.named("ledger step")

    assert {
        "rpc.system": "grpc",
        "rpc.method": "Release",
        "rpc.response.status_code": "OK",
    } == facts(call)
    assert PARENT.split("-")[1] == call.trace_id.hex() == step.trace_id.hex()
    assert ["OK", "OK", "UNAUTHENTICATED"] == sorted(
        facts(one)["rpc.response.status_code"]
        for one in got.spans
        if one.name.startswith("dpdau.v1.Dpdau/")
    )
    assert not any("error.type" in facts(one) for one in got.spans)
    assert b"lovelace" not in got.raw
    assert b"ada" not in got.raw
    assert [] == caplog.messages


def test_metrics_are_those_of_a_scrape(tmp_path: Path) -> None:
    """Counters are sums, gauges are gauges, histograms have the same buckets; no more, no less."""
    with web_sink() as sink:
        with exported(tmp_path, sink) as app:
            app.release(Metric.DAU, DAY)
            app.release(Metric.DAU, DAY)
            assert app.metrics is not None
            app.metrics.budget_spent.labels("dau", "2026-03").set(0.5)
            scraped = {family.name for family in app.metrics.registry.collect() if family.samples}
            registry = app.metrics.registry
        got = Collector(sink)
    releases = got.metrics["dpdau_releases"].sum
    seconds = got.metrics["dpdau_ledger_transaction_seconds"].histogram.data_points
    step = next(one for one in seconds if facts(one) == {"name": "step"})
    known = registry.get_sample_value

    assert scraped == set(got.metrics)
    assert releases.is_monotonic
    assert {("dau", "false"): 1.0, ("dau", "true"): 1.0} == {
        tuple(facts(one).values()): one.as_double for one in releases.data_points
    }
    assert ["dpdau_budget_spent_ratio"] == [
        name
        for name, metric in got.metrics.items()
        if metric.WhichOneof("data") == "gauge" and metric.gauge.data_points
    ]
    name = "dpdau_ledger_transaction_seconds"
    assert known(f"{name}_count", {"name": "step"}) == step.count == sum(step.bucket_counts)
    assert known(f"{name}_sum", {"name": "step"}) == pytest.approx(step.sum)
    assert len(step.explicit_bounds) + 1 == len(step.bucket_counts)
    assert 0 < step.start_time_unix_nano <= step.time_unix_nano


def test_an_error_is_told_by_its_kind(tmp_path: Path) -> None:
    """The message of an error may hold anything, so it is in no span."""
    with web_sink() as sink:
        with exported(tmp_path, sink):
            with pytest.raises(ValueError), span("outer", table="masks"), span("inner"):
                raise ValueError(USER)
            with pytest.raises(InvalidSettingError), span("known"):
                raise InvalidSettingError(USER)
        got = Collector(sink)

    assert {"error.type": "ValueError", "table": "masks"} == facts(got.named("outer"))
    assert "invalid_setting" == facts(got.named("known"))["error.type"]
    assert USER.encode() not in got.raw


def test_a_collector_that_is_away_harms_nothing(tmp_path: Path) -> None:
    """The product works and closes, whatever becomes of its traces."""
    with web_sink(400) as sink, exported(tmp_path, sink) as app:
        answer = app.release(Metric.DAU, DAY)

    assert 0 == answer.release.estimate


def test_nothing_traces_unless_it_is_asked_for() -> None:
    """Without an endpoint there is no tracer, and no module loads the SDK with itself."""
    source = Path(dpdau.__file__).parent
    loading = re.compile(r"^(?:from|import) opentelemetry", re.M)

    assert tracing() is None
    assert span("one") is span("another", metric="dau")
    assert [] == [path for path in source.rglob("*.py") if loading.search(path.read_text("utf-8"))]
