"""The gRPC service: who may do what, how refusals look, health, reflection, TLS and its logs."""

import datetime as dt
import json
import threading
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import grpc
import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID
from grpc_health.v1 import health_pb2
from grpc_health.v1.health_pb2_grpc import HealthStub
from grpc_reflection.v1alpha.proto_reflection_descriptor_database import (
    ProtoReflectionDescriptorDatabase,
)
from prometheus_client import generate_latest

from dpdau import __version__
from dpdau.app import App, readiness
from dpdau.app.reception import Reception
from dpdau.domain import Scope
from dpdau.errors import OUTCOMES, DpdauError, InvalidSettingError, StoreUnavailableError
from dpdau.rpc import health
from dpdau.rpc import server as rpc
from dpdau.rpc.methods import METHODS, SERVICE
from dpdau.rpc.patience import Patience
from dpdau.rpc.problems import Refusals
from dpdau.rpc.server import MESSAGE_BYTES_MAX, RpcServer, Tls
from dpdau.rpc.v1 import dpdau_pb2 as v1
from dpdau.rpc.v1.dpdau_pb2_grpc import DpdauStub
from dpdau.telemetry import Metrics
from in_process import captured_logs, service
from products import API_KEY, DAY, event, product
from rpc_service import KEY, Sender, listed, problem_of, rpc_server, rpc_service

CANARY = "canary-user-8d1f33c0"
SECONDS_MAX = 30.0
SCOPES = {"Ingest": Scope.INGEST} | {name: one.scope for name, one in METHODS.items()}
ASKED = v1.ReleaseRequest(metric="dau", day=DAY.isoformat())


@pytest.fixture(scope="module")
def app(tmp_path_factory: pytest.TempPathFactory) -> Iterator[App]:
    """A product with a key of each scope."""
    with product(tmp_path_factory.mktemp("rpc"), DIMENSIONS="platform") as opened:
        yield opened


@pytest.fixture(scope="module")
def channel(app: App) -> Iterator[grpc.Channel]:
    """A channel to its service."""
    with rpc_server(app) as (_, made):
        yield made


@pytest.fixture(scope="module")
def stub(channel: grpc.Channel) -> DpdauStub:
    """The methods of the service."""
    return DpdauStub(channel)


def refusal_of(channel: grpc.Channel, method: str, content: bytes, metadata: object) -> str:
    """How a call with one message ends, whatever the method."""
    call = channel.stream_stream(f"/{SERVICE}/{method}")
    try:
        list(call(iter([content]), metadata=metadata, timeout=30))
    except grpc.RpcError as error:
        return str(error.code().name)
    return "OK"


def test_every_method_of_the_service_is_served(channel: grpc.Channel) -> None:
    """What the .proto file declares is what is served."""
    declared = v1.DESCRIPTOR.services_by_name["Dpdau"].methods_by_name

    assert set(declared) == set(SCOPES)
    assert "UNIMPLEMENTED" == refusal_of(channel, "Nothing", b"", KEY)


@pytest.mark.parametrize("method", sorted(SCOPES))
def test_a_key_needs_the_scope(channel: grpc.Channel, app: App, method: str) -> None:
    """Without a key, with an unknown one, and with all scopes but the one of the method it is
    refused before the message is read."""
    garbage = b"\xff\xff"
    needed = SCOPES[method]
    others = [one for one in Scope if one not in (needed, Scope.ADMIN)]
    _, key = app.ledger.keys.create(f"not-{method}", others, None)
    found = [
        refusal_of(channel, method, garbage, metadata)
        for metadata in ((), (("x-api-key", "k" * 20),), (("x-api-key", key),))
    ]
    last = "INVALID_ARGUMENT" if needed is None else "PERMISSION_DENIED"

    assert ["UNAUTHENTICATED", "UNAUTHENTICATED", last] == found


def test_a_refusal_is_the_problem_of_http(stub: DpdauStub, app: App) -> None:
    """Status, code, detail and facts are what HTTP answers for the same question."""
    asked = v1.ReleaseRequest(metric="mau", day=DAY.isoformat(), window=65)
    with pytest.raises(grpc.RpcError) as refused:
        stub.Price(asked, metadata=KEY)
    with service(app) as http:
        body = {"metric": "mau", "day": DAY.isoformat(), "window": 64, "segment": "color=red"}
        told = http.post("/plans?dry_run=true", json=body).json()
    asked = v1.ReleaseRequest(metric="mau", day=DAY.isoformat(), segment="color=red")
    with pytest.raises(grpc.RpcError) as unknown:
        stub.Price(asked, metadata=KEY)

    assert grpc.StatusCode.INVALID_ARGUMENT == refused.value.code()
    assert "invalid_plan" == problem_of(refused.value)["code"]
    assert told.keys() == problem_of(unknown.value).keys()
    assert (told["type"], told["status"]) == (
        problem_of(unknown.value)["type"],
        problem_of(unknown.value)["status"],
    )


@pytest.mark.parametrize("leaf", sorted(OUTCOMES, key=lambda one: one.code))
def test_every_error_has_its_status(leaf: type[DpdauError]) -> None:
    """Each leaf of the tree ends with the status of the table and its own problem document."""
    refusal = Refusals(Metrics()).of(leaf("what", retry_after_seconds=3, fact=1))
    trailing = dict(refusal.trailing)
    document = json.loads(trailing["dpdau-problem-bin"])

    assert OUTCOMES[leaf].grpc_code == refusal.status.name
    assert (leaf.code, OUTCOMES[leaf].http_status, "what", 1) == (
        document["code"],
        document["status"],
        document["detail"],
        document["fact"],
    )
    may_be_repeated = document["status"] == 503 or leaf.code in ("rate_limited", "overloaded")
    assert may_be_repeated == ("grpc-retry-pushback-ms" in trailing)


def test_requests_that_cannot_be(stub: DpdauStub) -> None:
    """A wrong metric, day, view or segment is the caller's, and is not repeated to them."""
    for call, request in (
        (stub.Release, v1.ReleaseRequest(metric=CANARY, day="2026-03-10")),
        (stub.Release, v1.ReleaseRequest(metric="dau", day=CANARY)),
        (stub.Release, v1.ReleaseRequest(metric="dau", day="2026-03-10", segment=CANARY)),
        (stub.Month, v1.MonthRequest(month=CANARY)),
        (stub.PriceMonth, v1.MonthRequest(month=CANARY)),
        (stub.Budget, v1.BudgetRequest(metric="dau", day=CANARY)),
        (stub.Budget, v1.BudgetRequest(metric=CANARY)),
    ):
        with pytest.raises(grpc.RpcError) as refused:
            call(request, metadata=KEY)
        assert grpc.StatusCode.INVALID_ARGUMENT == refused.value.code()
        assert CANARY not in str(refused.value.trailing_metadata())
    with pytest.raises(grpc.RpcError):
        list(
            stub.Series(
                v1.SeriesRequest(first="2026-03-10", last="2026-03-10", view="x"), metadata=KEY
            )
        )


def test_the_version(stub: DpdauStub) -> None:
    """Any key may ask for it."""
    assert ("dpdau", __version__) == (
        stub.Version(v1.VersionRequest(), metadata=KEY).name,
        stub.Version(v1.VersionRequest(), metadata=KEY).version,
    )


def test_a_message_has_a_limit(channel: grpc.Channel) -> None:
    """A larger message is refused, also where it is small until it is unpacked."""
    call = channel.stream_stream(f"/{SERVICE}/Ingest")
    for compression in (grpc.Compression.NoCompression, grpc.Compression.Gzip):
        with pytest.raises(grpc.RpcError) as refused:
            list(call(iter([bytes(MESSAGE_BYTES_MAX + 1)]), metadata=KEY, compression=compression))
        assert grpc.StatusCode.RESOURCE_EXHAUSTED == refused.value.code()


def test_rates_are_limited(app: App) -> None:
    """Calls beyond the window of the address are told when to come again."""
    with rpc_service(app, rate_limit="1/minute") as stub:
        stub.Version(v1.VersionRequest(), metadata=KEY)
        with pytest.raises(grpc.RpcError) as refused:
            stub.Version(v1.VersionRequest(), metadata=KEY)

    assert grpc.StatusCode.RESOURCE_EXHAUSTED == refused.value.code()
    assert "rate_limited" == problem_of(refused.value)["code"]
    assert "60000" == dict(refused.value.trailing_metadata())["grpc-retry-pushback-ms"]


def test_health_follows_the_store(app: App, monkeypatch: pytest.MonkeyPatch) -> None:
    """The process is healthy; the service is, while it can write. No key is asked for."""
    monkeypatch.setattr(readiness, "READY_SECONDS", 0.0)
    status = health_pb2.HealthCheckResponse
    with rpc_server(app) as (_, made):
        probe = HealthStub(made)

        def found(name: str) -> int:
            return int(probe.Check(health_pb2.HealthCheckRequest(service=name)).status)

        assert (status.SERVING, status.SERVING) == (found(""), found(SERVICE))

        def refuse() -> None:
            raise StoreUnavailableError("Expected a disk.")

        monkeypatch.setattr(app, "check_ready", refuse)
        assert (status.SERVING, status.NOT_SERVING) == (found(""), found(SERVICE))


def test_a_watcher_hears_of_changes_and_of_the_stop(
    app: App, monkeypatch: pytest.MonkeyPatch
) -> None:
    """First how it is, then each change; at the stop that it serves no more, and the end."""
    monkeypatch.setattr(readiness, "READY_SECONDS", 0.0)
    monkeypatch.setattr(health, "WATCH_SECONDS", 0.01)
    status = health_pb2.HealthCheckResponse
    is_broken = threading.Event()

    def prove() -> None:
        if is_broken.is_set():
            raise StoreUnavailableError("Expected a disk.")

    monkeypatch.setattr(app, "check_ready", prove)
    with rpc_server(app) as (server, made):
        asked = health_pb2.HealthCheckRequest(service=SERVICE)
        told = HealthStub(made).Watch(asked, timeout=SECONDS_MAX)
        heard = [next(told).status]
        is_broken.set()
        heard.append(next(told).status)
        is_broken.clear()
        heard.append(next(told).status)
        server.begin_stop()
        heard += [one.status for one in told]

    up, down = status.SERVING, status.NOT_SERVING
    assert [up, down, up, down] == heard


def test_watchers_hold_no_thread(app: App, monkeypatch: pytest.MonkeyPatch) -> None:
    """More watchers than the pool has threads, and the service answers; too many are refused."""
    monkeypatch.setattr(health, "WATCHERS_MAX", 40)
    with rpc_server(app) as (_, made):
        probe = HealthStub(made)
        asked = health_pb2.HealthCheckRequest()
        open_ones = [probe.Watch(asked, timeout=SECONDS_MAX) for _ in range(40)]
        assert {health_pb2.HealthCheckResponse.SERVING} == {next(one).status for one in open_ones}
        assert DpdauStub(made).Version(v1.VersionRequest(), metadata=KEY, timeout=SECONDS_MAX)
        with pytest.raises(grpc.RpcError) as refused:
            next(probe.Watch(asked, timeout=SECONDS_MAX))
        for one in open_ones:
            one.cancel()

    assert grpc.StatusCode.RESOURCE_EXHAUSTED == refused.value.code()


def test_an_unknown_service_has_no_health(channel: grpc.Channel) -> None:
    """A check of it is refused; a watcher is told so, as the protocol says."""
    probe, asked = HealthStub(channel), health_pb2.HealthCheckRequest(service="other")
    with pytest.raises(grpc.RpcError) as refused:
        probe.Check(asked)
    watching = probe.Watch(asked, timeout=SECONDS_MAX)

    assert grpc.StatusCode.NOT_FOUND == refused.value.code()
    assert health_pb2.HealthCheckResponse.SERVICE_UNKNOWN == next(watching).status
    watching.cancel()


@pytest.mark.parametrize("method", [f"/{SERVICE}/Version", "/grpc.health.v1.Health/Check"])
def test_a_call_that_says_nothing_is_ended(
    app: App, monkeypatch: pytest.MonkeyPatch, method: str
) -> None:
    """More of them than the pool has threads end by themselves, and then others are served."""
    patience = partial(Patience, 0.1)
    monkeypatch.setattr(rpc, "Patience", patience)
    with rpc_server(app) as (_, made):
        silent = Sender()
        calls = [
            made.stream_stream(method)(iter(silent), metadata=KEY, timeout=SECONDS_MAX)
            for _ in range(40)
        ]
        codes = {one.code() for one in calls}
        assert DpdauStub(made).Version(v1.VersionRequest(), metadata=KEY, timeout=SECONDS_MAX)
        for _ in calls:
            silent.queue.put(None)

    assert {grpc.StatusCode.CANCELLED} == codes


def test_both_fronts_share_the_window(app: App) -> None:
    """What was asked over HTTP counts for gRPC too: one window for the address and the key."""
    reception = Reception.of(app, rate_limit="2/hour")
    with service(app, reception=reception) as http, rpc_service(app, reception=reception) as stub:
        assert 200 == http.get("/version").status_code
        assert "dpdau" == stub.Version(v1.VersionRequest(), metadata=KEY).name
        with pytest.raises(grpc.RpcError) as refused:
            stub.Version(v1.VersionRequest(), metadata=KEY)
        assert 429 == http.get("/version").status_code

    assert "rate_limited" == problem_of(refused.value)["code"]


@pytest.mark.parametrize("host", ["::1", "[::1]"])
def test_an_ipv6_host_is_bound(app: App, host: str) -> None:
    """With brackets or without."""
    made = RpcServer(app, host=host, port=0)
    try:
        with grpc.insecure_channel(f"[::1]:{made.port}") as six:
            assert DpdauStub(six).Version(v1.VersionRequest(), metadata=KEY, timeout=SECONDS_MAX)
    finally:
        made.close()


def test_reflection_asks_for_a_key(channel: grpc.Channel) -> None:
    """With a key the services are listed; without one nothing is."""

    class Keyed(grpc.StreamStreamClientInterceptor):  # type: ignore[misc]
        def intercept_stream_stream(self, continuation, details, requests):  # type: ignore[no-untyped-def]
            return continuation(details._replace(metadata=KEY), requests)

    keyed = ProtoReflectionDescriptorDatabase(grpc.intercept_channel(channel, Keyed()))
    assert {SERVICE, "grpc.health.v1.Health"} <= set(keyed.get_services())
    with pytest.raises(grpc.RpcError) as refused:
        ProtoReflectionDescriptorDatabase(channel).get_services()
    assert grpc.StatusCode.UNAUTHENTICATED == refused.value.code()


def test_a_bug_tells_nothing(app: App, monkeypatch: pytest.MonkeyPatch) -> None:
    """An error that is none of ours ends as internal; its message is in no answer and no log."""

    def fail(*_: object, **__: object) -> None:
        raise RuntimeError(CANARY)

    monkeypatch.setattr(app, "erase", fail)
    monkeypatch.setattr(app, "metrics", Metrics())
    with (
        captured_logs() as logs,
        rpc_service(app) as stub,
        pytest.raises(grpc.RpcError) as refused,
    ):
        stub.Erase(v1.EraseRequest(user_id=CANARY), metadata=KEY)
    failed = app.metrics.registry.get_sample_value("dpdau_failures_total", {"front": "grpc"})

    assert 1 == failed

    assert grpc.StatusCode.INTERNAL == refused.value.code()
    assert CANARY not in str(refused.value.trailing_metadata()) + logs.getvalue()
    assert '"RuntimeError"' in logs.getvalue()


def test_no_user_id_and_no_key_is_logged(tmp_path: Path) -> None:
    """What a call holds is in no log line, no refusal and no metric."""
    with captured_logs() as logs, product(tmp_path) as app:
        app.metrics = Metrics()
        with rpc_server(app) as (_, made):
            calls = DpdauStub(made)
            good = [event(CANARY), event(CANARY, op="?"), event(CANARY + "x" * 300)]
            (reply,) = calls.Ingest(iter([listed(good)]), metadata=KEY)
            calls.Erase(v1.EraseRequest(user_id=CANARY), metadata=KEY)
            with pytest.raises(grpc.RpcError) as refused:
                calls.Erase(v1.EraseRequest(user_id=CANARY * 20), metadata=KEY)
            broken = v1.EraseRequest(user_id=CANARY).SerializeToString()[:-1] + b"\xff"
            assert "INVALID_ARGUMENT" == refusal_of(made, "Erase", broken, KEY)
        told = str(reply) + str(refused.value) + str(refused.value.trailing_metadata())
        counted = generate_latest(app.metrics.registry).decode()

    # What a caller can mend is no failure of the service.
    assert 'dpdau_failures_total{front="grpc"} 0.0' in counted
    assert (1, 2) == (reply.accepted, reply.rejected_count)
    for secret in (CANARY, API_KEY):
        assert secret not in logs.getvalue() + told + counted
    assert 'grpc_calls_total{code="OK",method="Erase"} 1.0' in counted
    line = json.loads(next(one for one in logs.getvalue().splitlines() if '"Ingest"' in one))
    assert ("Ingest", "OK", "bootstrap") == (line["method"], line["code"], line["caller"])


def test_the_exact_value_leaves_only_when_asked(tmp_path: Path) -> None:
    """It is in an answer only where product and service were started for it."""
    with product(tmp_path, unsafe_debug=True) as app:
        with rpc_service(app, unsafe_debug=True) as stub:
            assert (0, True) == (
                (answer := stub.Release(ASKED, metadata=KEY)).exact_value,
                answer.unsafe,
            )
        with rpc_service(app) as stub:
            assert not stub.Release(ASKED, metadata=KEY).HasField("exact_value")


@pytest.fixture(scope="module")
def tls(tmp_path_factory: pytest.TempPathFactory) -> Tls:
    """A throwaway certificate of localhost and its key."""
    folder = tmp_path_factory.mktemp("tls")
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "localhost")])
    made = dt.datetime(2020, 1, 1, tzinfo=dt.UTC)
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(1)
        .not_valid_before(made)
        .not_valid_after(made + dt.timedelta(days=36500))
        .add_extension(x509.SubjectAlternativeName([x509.DNSName("localhost")]), critical=False)
        .sign(key, hashes.SHA256())
    )
    files = Tls(folder / "certificate.crt", folder / "private.key")
    files.certificate.write_bytes(certificate.public_bytes(serialization.Encoding.PEM))
    files.key.write_bytes(
        key.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.NoEncryption(),
        )
    )
    return files


def test_tls_proves_the_service(app: App, tls: Tls) -> None:
    """Who trusts the certificate is served; who does not, or speaks plain, is not."""
    made = RpcServer(app, host="127.0.0.1", port=0, tls=tls)
    try:
        trusted = grpc.ssl_channel_credentials(tls.certificate.read_bytes())
        with grpc.secure_channel(f"localhost:{made.port}", trusted) as secure:
            assert "dpdau" == DpdauStub(secure).Version(v1.VersionRequest(), metadata=KEY).name
        with (
            grpc.insecure_channel(f"127.0.0.1:{made.port}") as plain,
            pytest.raises(grpc.RpcError) as refused,
        ):
            DpdauStub(plain).Version(v1.VersionRequest(), metadata=KEY, timeout=10)
        assert grpc.StatusCode.UNAVAILABLE == refused.value.code()
    finally:
        made.close()


def test_addresses_that_are_refused(app: App, tls: Tls, tmp_path: Path) -> None:
    """Without TLS only loopback, unless by name; a wrong certificate or a taken port is told."""
    swapped = Tls(tls.key, tls.certificate)
    missing = Tls(tmp_path / "nothing", tls.key)
    with rpc_server(app) as (other, _):
        for options in (
            {"host": "0.0.0.0", "port": 0},
            {"host": "0.0.0.0", "port": 0, "without_tls": True, "no_auth": True},
            {"host": "127.0.0.1", "port": 0, "tls": swapped},
            {"host": "127.0.0.1", "port": 0, "tls": missing},
            {"host": "127.0.0.1", "port": other.port},
        ):
            with pytest.raises(InvalidSettingError):
                RpcServer(app, **options)  # type: ignore[arg-type]
    RpcServer(app, host="0.0.0.0", port=0, without_tls=True).close()
