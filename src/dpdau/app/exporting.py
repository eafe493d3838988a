"""Traces and metrics to a collector of OpenTelemetry, by OTLP over HTTP.

The SDK reads its own variables, as OTEL_SERVICE_NAME, OTEL_RESOURCE_ATTRIBUTES, OTEL_TRACES_SAMPLER
and OTEL_EXPORTER_OTLP_HEADERS. Spans go to this collector alone: no library's own are turned on,
because a path or a statement may hold a user id.
"""

import threading
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from itertools import pairwise
from typing import Any, Final

from prometheus_client import CollectorRegistry
from prometheus_client import Metric as Family

from dpdau import __version__
from dpdau.app.rules import system_clock
from dpdau.errors import DpdauError, InvalidSettingError
from dpdau.settings import Settings
from dpdau.telemetry import Note, log, trace_with

SERVICE_NAME: Final = "dpdau"
CLOSE_SECONDS_MAX: Final = 2.0
_LOG = log("otel")


class Exporting:
    """Exports until it is closed; one in a process.

    Args:
        settings: Where to, and how often.
        registry: The metrics of the product: what a scrape sees, and nothing else.

    Raises:
        InvalidSettingError: The extra `otel` is not installed.
    """

    def __init__(self, settings: Settings, registry: CollectorRegistry) -> None:
        try:
            from opentelemetry.exporter.otlp.proto.http.metric_exporter import OTLPMetricExporter
            from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
            from opentelemetry.sdk.resources import OTELResourceDetector, Resource
            from opentelemetry.sdk.trace import TracerProvider
            from opentelemetry.sdk.trace.export import BatchSpanProcessor
        except ImportError:
            raise InvalidSettingError(
                "OTEL_EXPORTER_OTLP_ENDPOINT: expected the extra `otel`, found that it is not "
                "installed; run `pip install 'dp-dau-mau[otel]'`.",
                setting="OTEL_EXPORTER_OTLP_ENDPOINT",
            ) from None
        assert settings.OTEL_EXPORTER_OTLP_ENDPOINT is not None, "somebody asked for it"
        base = settings.OTEL_EXPORTER_OTLP_ENDPOINT.rstrip("/")
        own = Resource({"service.name": SERVICE_NAME, "service.version": __version__})
        self._resource = own.merge(OTELResourceDetector().detect())
        # At exit, the order is that of `close`: the process may be forked or killed in tests.
        self._provider = TracerProvider(resource=self._resource, shutdown_on_exit=False)
        self._provider.add_span_processor(
            BatchSpanProcessor(OTLPSpanExporter(endpoint=f"{base}/v1/traces"))
        )
        self._registry = registry
        self._exporter = OTLPMetricExporter(endpoint=f"{base}/v1/metrics")
        self._interval_seconds = settings.OTEL_METRIC_EXPORT_INTERVAL / 1000
        self._started_ns = _now_ns()
        self._stopped = threading.Event()
        self._thread = threading.Thread(target=self._run, name="otel metrics", daemon=True)
        self._thread.start()
        trace_with(OtelTracer(self._provider.get_tracer(SERVICE_NAME, __version__)))

    def close(self) -> None:
        """Exports what there is, once; may be called twice."""
        if self._stopped.is_set():
            return
        trace_with(None)
        self._stopped.set()
        self._thread.join(CLOSE_SECONDS_MAX)
        self._provider.force_flush(int(CLOSE_SECONDS_MAX * 1000))
        self._provider.shutdown()
        self._exporter.shutdown()

    def _run(self) -> None:
        """Exports the metrics now and then, and once at the end."""
        while not self._stopped.wait(self._interval_seconds):
            self._export()
        self._export()

    def _export(self) -> None:
        try:
            self._exporter.export(
                metrics_data(
                    self._registry.collect(), self._resource, (self._started_ns, _now_ns())
                )
            )
        except Exception as error:  # noqa: BLE001 - the outermost loop of a worker.
            _LOG.warning("metrics not exported", error=type(error).__qualname__)


class OtelTracer:
    """Makes spans with the SDK; see `telemetry.Tracer`.

    Args:
        tracer: A tracer of the SDK.
    """

    def __init__(self, tracer: Any) -> None:
        from opentelemetry.trace import SpanKind
        from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

        self._tracer = tracer
        self._server = SpanKind.SERVER
        self._propagator = TraceContextTextMapPropagator()

    @contextmanager
    def work(self, name: str, facts: Mapping[str, str]) -> Iterator[None]:
        """See `Tracer.work`."""
        with self._current(name, attributes=dict(facts)) as made:
            try:
                yield
            except Exception as error:
                # Its message may hold a private value.
                code = error.code if isinstance(error, DpdauError) else type(error).__qualname__
                self._failed(made, code)
                raise

    @contextmanager
    def request(self, headers: Mapping[str, str]) -> Iterator[Note]:
        """See `Tracer.request`."""
        parent = self._propagator.extract(headers)
        with self._current("request", context=parent, kind=self._server) as made:

            def note(name: str, facts: Mapping[str, str | int], *, failed: bool) -> None:
                made.update_name(name)
                made.set_attributes(facts)
                if failed:
                    self._failed(made, "failed")

            yield note

    def _current(self, name: str, **options: Any) -> Any:
        """A span that others are made in; of an error it notes nothing by itself."""
        return self._tracer.start_as_current_span(
            name, record_exception=False, set_status_on_exception=False, **options
        )

    @staticmethod
    def _failed(made: Any, code: str) -> None:
        from opentelemetry.trace import StatusCode

        made.set_attribute("error.type", code)
        made.set_status(StatusCode.ERROR)


def _now_ns() -> int:
    """Now, as OTLP writes it."""
    return int(system_clock().timestamp() * 1e9)


def metrics_data(families: Iterable[Family], resource: Any, span_ns: tuple[int, int]) -> Any:
    """What a registry holds, as OTLP has it: sums, gauges and histograms since the start.

    Args:
        families: What `CollectorRegistry.collect` gives.
        resource: Of which process.
        span_ns: When it was started, and now.
    """
    from opentelemetry.sdk.metrics.export import MetricsData, ResourceMetrics, ScopeMetrics
    from opentelemetry.sdk.util.instrumentation import InstrumentationScope

    found = [one for one in (_metric(family, span_ns) for family in families) if one is not None]
    scope = ScopeMetrics(InstrumentationScope(SERVICE_NAME, __version__), found, "")
    return MetricsData([ResourceMetrics(resource, [scope], "")])


def _metric(family: Family, span_ns: tuple[int, int]) -> Any:
    """One family, or None where it has no values yet."""
    from opentelemetry.sdk.metrics import export as otel

    if family.type == "histogram":
        points: Sequence[Any] = _histograms(family, span_ns)
        data: Any = otel.Histogram(points, otel.AggregationTemporality.CUMULATIVE)
    else:
        is_sum = family.type == "counter"
        wanted = f"{family.name}_total" if is_sum else family.name
        points = [
            otel.NumberDataPoint(sample.labels, span_ns[0], span_ns[1], sample.value)
            for sample in family.samples
            if sample.name == wanted
        ]
        data = (
            otel.Sum(points, otel.AggregationTemporality.CUMULATIVE, is_monotonic=True)
            if is_sum
            else otel.Gauge(points)
        )
    return otel.Metric(family.name, family.documentation, "", data) if points else None


def _histograms(family: Family, span_ns: tuple[int, int]) -> list[Any]:
    """The histograms of a family, one for each set of labels."""
    from opentelemetry.sdk.metrics.export import HistogramDataPoint

    bounds: dict[frozenset[tuple[str, str]], list[tuple[float, float]]] = {}
    sums: dict[frozenset[tuple[str, str]], float] = {}
    for sample in family.samples:
        labels = {name: value for name, value in sample.labels.items() if name != "le"}
        key = frozenset(labels.items())
        if sample.name.endswith("_bucket"):
            bounds.setdefault(key, []).append((float(sample.labels["le"]), sample.value))
        elif sample.name.endswith("_sum"):
            sums[key] = sample.value
    points = []
    for key, found in bounds.items():
        up_to = [0.0, *(value for _bound, value in sorted(found))]
        points.append(
            HistogramDataPoint(
                attributes=dict(key),
                start_time_unix_nano=span_ns[0],
                time_unix_nano=span_ns[1],
                count=int(up_to[-1]),
                sum=sums[key],
                bucket_counts=[int(b - a) for a, b in pairwise(up_to)],
                explicit_bounds=[bound for bound, _value in sorted(found)][:-1],
                # A registry keeps neither; OTLP leaves both open.
                min=None,  # type: ignore[arg-type]
                max=None,  # type: ignore[arg-type]
            )
        )
    return points
