"""Serves `dpdau.v1.Dpdau` over an `App`, with health and reflection, until it is told to stop.

The synchronous server of grpcio: a call has a thread of a pool for as long as it is open. Every
method is registered as a stream of bytes, so that a caller is let in before a message is read.
"""

import ssl
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Final

import grpc
from grpc_health.v1 import health
from grpc_reflection.v1alpha import reflection
from prometheus_client import Counter

from dpdau.app import App
from dpdau.app.admission import (
    INGEST_RATE_LIMIT,
    RATE_LIMIT,
    is_loopback,
    require_loopback,
)
from dpdau.app.reception import Reception
from dpdau.domain import Scope
from dpdau.errors import DpdauError, InvalidPlanError, InvalidSettingError
from dpdau.rpc.guard import Guard, Visitor, key_of
from dpdau.rpc.health import Health
from dpdau.rpc.messages import message_of, parsed
from dpdau.rpc.methods import INGEST, METHODS, SERVICE, Desk, Method
from dpdau.rpc.patience import Patience
from dpdau.rpc.problems import Refusal, Refusals
from dpdau.rpc.streams import STREAMS_MAX, Streams
from dpdau.rpc.v1 import dpdau_pb2 as v1
from dpdau.telemetry import Metrics, Note, log, log_line, tracing

MESSAGE_BYTES_MAX: Final = 4 << 20
CALLS_MAX: Final = 256
"""Calls that are served or wait for a thread; one beyond is refused."""
DRAIN_SECONDS_MAX: Final = 30
_THREADS: Final = STREAMS_MAX + 16
_OPTIONS: Final = (
    ("grpc.so_reuseport", 0),
    ("grpc.max_receive_message_length", MESSAGE_BYTES_MAX),
    ("grpc.max_concurrent_streams", CALLS_MAX),
    ("grpc.keepalive_time_ms", 60_000),
    ("grpc.keepalive_timeout_ms", 20_000),
)
_TRACE_KEYS: Final = frozenset({"traceparent"})
_FAILURES: Final = frozenset({"DATA_LOSS", "INTERNAL", "UNAVAILABLE", "UNKNOWN"})
"""What HTTP answers with 500 or more."""
_REFLECTION: Final = "/grpc.reflection."
_LOG = log("rpc")


@dataclass(frozen=True, slots=True)
class Tls:
    """The files of a certificate chain and of its private key, in PEM."""

    certificate: Path
    key: Path

    def credentials(self) -> Any:
        """What the server proves itself by.

        Raises:
            InvalidSettingError: A file cannot be read, or they do not belong together.
        """
        try:
            ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER).load_cert_chain(self.certificate, self.key)
            pair = (self.key.read_bytes(), self.certificate.read_bytes())
        except (OSError, ssl.SSLError) as error:
            raise InvalidSettingError(
                "Expected a PEM certificate chain in GRPC_TLS_CERTIFICATE and its private key in "
                f"GRPC_TLS_KEY, found: {error.strerror or error}.",
                setting="GRPC_TLS_CERTIFICATE",
            ) from None
        return grpc.ssl_server_credentials([pair])


class RpcServer:
    """The gRPC service over an app; serves from when it is made until `close`.

    Args:
        app: The product; stays open.
        host: Address to bind.
        port: Port to bind; 0 takes a free one.
        tls: How it proves itself; without, the host has to be loopback.
        without_tls: Binds another host without TLS all the same, for a proxy that ends TLS.
        no_auth: Asks for no key; loopback only.
        unsafe_debug: Lets exact values out where the app gives them; loopback only.
        rate_limit: Calls of one client address, and of one key, as `1000/second`.
        ingest_rate_limit: The same for each request of a stream of events.
        reception: What another front of the service shares, with limits of its own; without, one
            is made with the limits above.
        drain_seconds: How long calls in flight may take to finish when it stops.

    Guarantee: a user id that a call holds is in no refusal, log line or metric, and no metric
    follows the number of events in a call.

    Raises:
        InvalidSettingError: The address cannot be bound, or must not be.
    """

    def __init__(
        self,
        app: App,
        *,
        host: str,
        port: int,
        tls: Tls | None = None,
        without_tls: bool = False,
        no_auth: bool = False,
        unsafe_debug: bool = False,
        rate_limit: str = RATE_LIMIT,
        ingest_rate_limit: str = INGEST_RATE_LIMIT,
        reception: Reception | None = None,
        drain_seconds: float = DRAIN_SECONDS_MAX,
    ) -> None:
        require_loopback(host, no_auth=no_auth, unsafe_debug=unsafe_debug)
        if tls is None and not without_tls and not is_loopback(host):
            raise InvalidSettingError(
                "Expected GRPC_TLS_CERTIFICATE and GRPC_TLS_KEY, or --grpc-without-tls behind a "
                f"proxy that ends TLS, for a host that others can reach, found {host!r}."
            )
        credentials = None if tls is None else tls.credentials()
        self._drain_seconds = drain_seconds
        self._lock = threading.Lock()
        self._stopped: threading.Event | None = None
        metrics = app.metrics or Metrics()
        guard = Guard(app, no_auth=no_auth)
        if reception is None:
            reception = Reception.of(
                app, rate_limit=rate_limit, ingest_rate_limit=ingest_rate_limit
            )
        self._patience = Patience()
        self._streams = Streams(app)
        self._calls = _Calls(
            guard,
            Desk(app, unsafe_debug),
            self._streams,
            metrics,
            reception=reception,
            patience=self._patience,
        )
        self._health = Health(reception.readiness, self._patience)
        self._pool = ThreadPoolExecutor(_THREADS, thread_name_prefix="rpc")
        self._server = grpc.server(
            self._pool,
            interceptors=[_KeyedReflection(guard, Refusals(metrics), self._patience)],
            options=_OPTIONS,
            maximum_concurrent_rpcs=CALLS_MAX,
        )
        self._server.add_generic_rpc_handlers([self._calls.handlers(), self._health.handlers()])
        reflection.enable_server_reflection(
            (SERVICE, health.SERVICE_NAME, reflection.SERVICE_NAME), self._server
        )
        self.port: Final = self._bind(host, port, credentials)
        self._patience.start()
        self._health.start()
        self._server.start()
        _LOG.info("serving", front="grpc", host=host, port=self.port, tls=tls is not None)

    def begin_stop(self) -> None:
        """Takes no further call, and has those that are open end soon; does not wait."""
        with self._lock:
            if self._stopped is None:
                self._health.begin_stop()
                self._stopped = self._server.stop(self._drain_seconds)
                self._streams.stop()

    def close(self) -> None:
        """Stops, and waits for the calls that are open; may be called twice."""
        self.begin_stop()
        assert self._stopped is not None
        self._stopped.wait(self._drain_seconds + 1)
        self._patience.stop()
        self._pool.shutdown(wait=False)

    def _bind(self, host: str, port: int, credentials: Any) -> int:
        name = host.strip("[]")
        address = f"[{name}]:{port}" if ":" in name else f"{name}:{port}"
        try:
            if credentials is None:
                return int(self._server.add_insecure_port(address))
            return int(self._server.add_secure_port(address, credentials))
        except RuntimeError:
            raise InvalidSettingError(
                f"Expected an address that can be bound for gRPC, found {host} port {port}.",
                host=host,
                port=port,
            ) from None


class _Calls:
    """What every call meets: who it is, what it asks, how it ends, and its line in the log."""

    def __init__(
        self,
        guard: Guard,
        desk: Desk,
        streams: Streams,
        metrics: Metrics,
        *,
        reception: Reception,
        patience: Patience,
    ) -> None:
        self._guard = guard
        self._desk = desk
        self._streams = streams
        self._refusals = Refusals(metrics)
        self._taking = reception.taking
        self._asking = reception.asking
        self._patience = patience
        self._failures = metrics.failures.labels("grpc")
        self._counts = Counter(
            "grpc_calls",
            "Calls by method and status.",
            ["method", "code"],
            registry=metrics.registry,
        )

    def handlers(self) -> Any:
        """The methods as the server takes them: streams of bytes, whatever they are declared as."""
        behaviors = {name: partial(self._ask, name, method) for name, method in METHODS.items()}
        streams = {**behaviors, INGEST: self._ingest}
        return grpc.method_handlers_generic_handler(
            SERVICE,
            {name: grpc.stream_stream_rpc_method_handler(one) for name, one in streams.items()},
        )

    def _ask(
        self, name: str, method: Method, requests: Iterator[bytes], context: Any
    ) -> Iterator[bytes]:
        """A call with one request."""
        with self._under_way(name, context) as call:
            call.caller = self._guard.admit(Visitor.of(context), method.scope, self._asking).name
            messages = self._patience.messages(requests, context)
            asked = parsed(method.request, next(messages, None))
            if asked is None:
                name_of_message = method.request.DESCRIPTOR.full_name
                raise InvalidPlanError(f"Expected a message {name_of_message}, found none.")
            if context.is_active():  # Nobody pays for an answer that they no longer wait for.
                for answer in method.answers(self._desk, asked):
                    yield answer.SerializeToString()

    def _ingest(self, requests: Iterator[bytes], context: Any) -> Iterator[bytes]:
        """A stream of batches."""
        with self._under_way(INGEST, context) as call:
            visitor = Visitor.of(context)
            before = partial(self._guard.admit, visitor, Scope.INGEST, self._taking)
            call.caller = before().name
            messages = self._patience.messages(requests, context)
            with self._streams.opened(messages, before) as stream:
                if not context.add_callback(stream.end):
                    return
                for report in stream.reports():
                    yield message_of(v1.IngestReply, report.to_json()).SerializeToString()

    @contextmanager
    def _under_way(self, name: str, context: Any) -> "Iterator[_Call]":
        """Ends a call that is refused, and notes how each one ended."""
        call = _Call()
        started = time.perf_counter()
        refusal: Refusal | None = None
        with _traced(context) as note:
            try:
                yield call
                call.code = "OK"
            except DpdauError as error:
                refusal = self._refusals.of(error)
            except Exception as error:  # noqa: BLE001 - the outermost loop of a call.
                # Reading from a call that its caller has ended raises, too.
                if context.is_active():
                    refusal = self._refusals.of_bug(error, name)
            finally:
                if refusal is not None:
                    call.code = refusal.status.name
                has_failed = call.code in _FAILURES
                if has_failed:
                    self._failures.inc()
                self._counts.labels(name, call.code).inc()
                facts: dict[str, str | int | float | None] = {
                    "method": name,
                    "code": call.code,
                    "duration_ms": round((time.perf_counter() - started) * 1000, 3),
                    "caller": call.caller,
                }
                log_line("rpc", "call", facts)
                note(
                    f"{SERVICE}/{name}",
                    {
                        "rpc.system": "grpc",
                        "rpc.method": name,
                        "rpc.response.status_code": call.code,
                    },
                    failed=has_failed,
                )
        if refusal is not None:
            _refuse(context, refusal)


def _traced(context: Any) -> AbstractContextManager[Note]:
    """The span of a call, where somebody traces."""
    tracer = tracing()
    if tracer is None:
        return nullcontext(_note_nothing)
    sent = context.invocation_metadata()
    return tracer.request({name: value for name, value in sent if name in _TRACE_KEYS})


def _note_nothing(name: str, facts: Mapping[str, str | int], *, failed: bool) -> None:
    """Where nobody traces."""


@dataclass(slots=True)
class _Call:
    """What is known about one call, for its line in the log."""

    code: str = "CANCELLED"
    caller: str | None = None


class _KeyedReflection(grpc.ServerInterceptor):  # type: ignore[misc]
    """Asks for a key, of any scope, before reflection: its streams would hold all threads.

    The library calls `intercept_service` before a message is read.
    """

    def __init__(self, guard: Guard, refusals: Refusals, patience: Patience) -> None:
        self._guard = guard
        self._refusals = refusals
        self._patience = patience

    def intercept_service(self, continuation: Callable[[Any], Any], details: Any) -> Any:
        """The handler of a call."""
        handler = continuation(details)
        if handler is None or not details.method.startswith(_REFLECTION):
            return handler

        def behavior(requests: Any, context: Any) -> Iterator[Any]:
            # In a thread of the pool: this method itself holds up every other call.
            try:
                self._guard.caller(key_of(details.invocation_metadata))
            except DpdauError as error:
                _refuse(context, self._refusals.of(error))
            messages = self._patience.messages(requests, context)
            yield from handler.stream_stream(messages, context)

        return grpc.stream_stream_rpc_method_handler(
            behavior, handler.request_deserializer, handler.response_serializer
        )


def _refuse(context: Any, refusal: Refusal) -> None:
    """Ends a call; raises what the library takes for its end."""
    context.set_trailing_metadata(refusal.trailing)
    context.abort(refusal.status, refusal.detail)
