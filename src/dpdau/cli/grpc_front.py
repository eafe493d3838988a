"""The gRPC front of `dpdau serve`, where a port is set for it."""

from collections.abc import Callable
from typing import TYPE_CHECKING

from dpdau.errors import InvalidSettingError

if TYPE_CHECKING:
    from dpdau.app import App
    from dpdau.app.reception import Reception
    from dpdau.settings import Settings


def serve_grpc(
    app: "App",
    loaded: "Settings",
    *,
    host: str,
    port: int,
    without_tls: bool,
    no_auth: bool,
    unsafe_debug: bool,
    reception: "Reception",
) -> Callable[[], None]:
    """Serves gRPC until the app is closed; gives what makes it take no further call.

    Raises:
        InvalidSettingError: The extra `grpc` is missing, or the address or certificate is wrong.
    """
    try:
        from dpdau.rpc.server import RpcServer, Tls
    except ModuleNotFoundError as error:
        raise InvalidSettingError(
            f"Expected the package {error.name} for GRPC_PORT, found none; install "
            "`dp-dau-mau[grpc]`.",
            setting="GRPC_PORT",
        ) from None

    certificate, key = loaded.GRPC_TLS_CERTIFICATE, loaded.GRPC_TLS_KEY
    server = RpcServer(
        app,
        host=host,
        port=port,
        tls=Tls(certificate, key) if certificate is not None and key is not None else None,
        without_tls=without_tls,
        no_auth=no_auth,
        unsafe_debug=unsafe_debug,
        reception=reception,
    )
    app.attach(server)
    return server.begin_stop
