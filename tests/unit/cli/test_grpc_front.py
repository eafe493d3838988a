"""`dpdau serve` with a gRPC port: one app behind both fronts."""

import sys
from pathlib import Path

import grpc
import pytest

from dpdau.app.reception import Reception
from dpdau.cli.grpc_front import serve_grpc
from dpdau.errors import InvalidSettingError
from dpdau.rpc import server as rpc
from dpdau.rpc.v1 import dpdau_pb2 as v1
from dpdau.rpc.v1.dpdau_pb2_grpc import DpdauStub
from products import product, product_settings
from rpc_service import KEY

OPTIONS = {"host": "127.0.0.1", "without_tls": False, "no_auth": False, "unsafe_debug": False}


def test_it_serves_until_the_app_is_closed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The service answers, takes no call after the stop has begun, and is closed with the app."""
    made: list[rpc.RpcServer] = []

    class Noted(rpc.RpcServer):
        def __init__(self, *args: object, **more: object) -> None:
            super().__init__(*args, **more)  # type: ignore[arg-type]
            made.append(self)

    monkeypatch.setattr(rpc, "RpcServer", Noted)
    with product(tmp_path) as app:
        stop = serve_grpc(app, app.settings, port=0, reception=Reception.of(app), **OPTIONS)  # type: ignore[arg-type]
        with grpc.insecure_channel(f"127.0.0.1:{made[0].port}") as channel:
            stub = DpdauStub(channel)
            assert "dpdau" == stub.Version(v1.VersionRequest(), metadata=KEY).name
            stop()
            with pytest.raises(grpc.RpcError) as refused:
                stub.Version(v1.VersionRequest(), metadata=KEY)

    # A call that the client sent before it heard of the stop is cancelled.
    assert refused.value.code() in {grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.CANCELLED}


def test_the_extra_is_named_where_it_is_missing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without grpcio the start is refused with what to install."""
    monkeypatch.delitem(sys.modules, "dpdau.rpc.server")
    monkeypatch.setitem(sys.modules, "grpc", None)
    with product(tmp_path) as app, pytest.raises(InvalidSettingError, match=r"dp-dau-mau\[grpc\]"):
        serve_grpc(app, app.settings, port=0, reception=Reception.of(app), **OPTIONS)  # type: ignore[arg-type]


def test_a_certificate_needs_its_key(tmp_path: Path) -> None:
    """One of the two settings alone is refused by name."""
    with pytest.raises(InvalidSettingError, match="GRPC_TLS_KEY"):
        product_settings(tmp_path, GRPC_TLS_CERTIFICATE="certificate.crt")
