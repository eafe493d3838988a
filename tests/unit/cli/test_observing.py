"""A service that is started watches itself, tells what must not wait, and exports its traces."""

import json
import threading
from pathlib import Path

import pytest

from dpdau.app import App
from dpdau.cli.observing import Together, observe
from dpdau.domain import Metric, Scope
from dpdau.telemetry import Metrics, tracing
from products import DAY, NOW, ZeroNoise, product_settings
from receivers import web_sink


def opened(root: Path, **changes: object) -> App:
    """A product as a service opens it."""
    return App.open(
        product_settings(root, **changes),
        clock=lambda: NOW,
        noise=ZeroNoise(),
        metrics=Metrics(),
        reported=False,
    )


def test_a_service_tells_what_it_is_started_with(tmp_path: Path) -> None:
    """--unsafe-debug is told at once, and after it what was done while nothing ran."""
    with web_sink() as sink:
        for start in (False, True):
            with opened(tmp_path, ALERT_WEBHOOK_URL=sink.url).closing() as app:
                observe(app, owns=True, opening=False, unsafe_debug=start)
            if not start:
                with opened(tmp_path).closing() as app:
                    app.ledger.keys.create("web", [Scope.INGEST], None)
        told = [json.loads(sink.next().body)["kind"] for _ in range(2)]

    assert ["unsafe_debug", "key_created"] == told


def test_a_service_shows_its_state(tmp_path: Path) -> None:
    """One that holds activity tells of it; one that passes events on tells nothing of the kind."""
    shown = []
    for owns in (True, False):
        with opened(tmp_path).closing() as app:
            observe(app, owns=owns, opening=True, unsafe_debug=False)
            assert app.metrics is not None
            registry = app.metrics.registry
        shown.append(registry.get_sample_value("dpdau_ledger_sound"))

    assert [1, None] == shown


def test_parts_that_hang_are_left_together(monkeypatch: pytest.MonkeyPatch) -> None:
    """Closing waits for all of them at once, and for a time that is known."""
    monkeypatch.setattr("dpdau.cli.observing.CLOSE_SECONDS_MAX", 0.1)
    goes_on, closed = threading.Event(), threading.Event()

    class Hanging:
        def close(self) -> None:
            goes_on.wait(30)

    class Quick:
        def close(self) -> None:
            closed.set()

    Together([Hanging(), Hanging(), Quick()]).close()
    was_waited_for = not goes_on.is_set()
    goes_on.set()

    assert was_waited_for
    assert closed.is_set()


def test_traces_are_exported_where_an_endpoint_is_set(tmp_path: Path) -> None:
    """With an endpoint a release is a span; with OTEL_SDK_DISABLED nothing is sent."""
    pytest.importorskip("opentelemetry.sdk")
    paths = []
    with web_sink() as sink:
        for is_off in (False, True):
            values = {"OTEL_EXPORTER_OTLP_ENDPOINT": sink.url, "OTEL_SDK_DISABLED": str(is_off)}
            with opened(tmp_path, **values).closing() as app:
                observe(app, owns=True, opening=False, unsafe_debug=False)
                app.release(Metric.DAU, DAY)
                assert is_off is (tracing() is None)
            while not sink.posted.empty():
                paths.append((is_off, sink.posted.get().path))

    assert {(False, "/v1/traces"), (False, "/v1/metrics")} == set(paths)
