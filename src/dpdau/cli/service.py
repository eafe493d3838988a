"""Commands that set up, serve and check a deployment."""

import base64
import os
import secrets
import threading
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Final

import typer

from dpdau.cli import completion
from dpdau.cli.demo import DEMO_LAST, show_demo
from dpdau.cli.session import JsonOption, print_json, settings
from dpdau.errors import DpdauError, InvalidSettingError

if TYPE_CHECKING:
    from dpdau.settings import Settings

_HEADER: Final = "# The secrets of one deployment: keep this file, out of version control.\n"


def register(app: typer.Typer) -> None:
    """Adds the commands of this file."""
    for command in (init, serve, doctor):
        app.command()(command)


def init(
    encrypt: Annotated[
        bool, typer.Option("--encrypt", help="Encrypt the activity store at rest (AES-256-GCM).")
    ] = False,
) -> None:
    """Make the secrets (dpdau.toml, 0600) and the data directory."""
    from dpdau.settings import CONFIG_FILE

    made = write_secrets(CONFIG_FILE)
    loaded = settings()
    _create_keyring(loaded, encrypt=encrypt)
    typer.echo(f"{CONFIG_FILE}: {'made, with new secrets' if made else 'kept as it is'}")
    typer.echo(f"{loaded.DATA_DIR}: ready{', store encrypted' if encrypt else ''}")
    typer.echo("Next: dpdau ingest --from FILE, then dpdau dau --day YYYY-MM-DD")


def serve(
    host: Annotated[str, typer.Option("--host", help="Address to bind.")] = "127.0.0.1",
    port: Annotated[int, typer.Option("--port", min=1, max=65535, help="Port to bind.")] = 8000,
    demo: Annotated[
        bool, typer.Option("--demo", help="Load real demo data, show its numbers, then serve it.")
    ] = False,
    no_auth: Annotated[
        bool, typer.Option("--no-auth", help="Ask for no API key; loopback only.")
    ] = False,
    unsafe_debug: Annotated[
        bool,
        typer.Option("--unsafe-debug", help="Put exact counts into answers; loopback only."),
    ] = False,
    consume: Annotated[
        int,
        typer.Option(
            "--consume", min=0, max=64, help="Take events from Kafka too, with so many members."
        ),
    ] = 0,
    grpc_port: Annotated[
        int | None,
        typer.Option("--grpc-port", min=1, max=65535, help="Serve gRPC too; over GRPC_PORT."),
    ] = None,
    grpc_without_tls: Annotated[
        bool,
        typer.Option(
            "--grpc-without-tls",
            help="Let others reach gRPC without a certificate: behind a proxy that ends TLS.",
        ),
    ] = False,
) -> None:
    """Run the HTTP service, and gRPC beside it where it has a port."""
    from dpdau.api.server import serve as serve_http
    from dpdau.app import App
    from dpdau.app.admission import require_loopback
    from dpdau.app.reception import Reception
    from dpdau.cli.observing import observe
    from dpdau.schedule import Schedule
    from dpdau.telemetry import Metrics, configure_logs

    require_loopback(host, no_auth=no_auth, unsafe_debug=unsafe_debug)
    loaded = demo_settings(settings().DATA_DIR) if demo else settings()
    url = f"http://{f'[{host}]' if ':' in host else host}:{port}"
    app = App.open(
        loaded, serve_at=url, metrics=Metrics(), unsafe_debug=unsafe_debug, opening=not demo
    )
    with app.closing():
        if not no_auth and loaded.SERVICE_API_KEY is None and not app.ledger.keys.list():
            raise InvalidSettingError(
                "Expected SERVICE_API_KEY or a stored key, found neither; run `dpdau init` or "
                "`dpdau keys create`.",
                setting="SERVICE_API_KEY",
            )
        if loaded.SPARK_MASTER is not None:
            from dpdau.app.lake import start_spark

            start_spark(app)
        if demo:
            show_demo(app)
        rpc_port = grpc_port or loaded.GRPC_PORT
        _banner(url, loaded, rpc_port=rpc_port, no_auth=no_auth, is_demo=demo)
        configure_logs()
        threading.Thread(target=app.prepare, daemon=True).start()
        if consume:
            from dpdau.app.consuming import Consumption

            consumption = Consumption(app, workers=consume)
            app.attach(consumption)
            consumption.start()
        # Where events only pass through to Kafka, there is no day to close.
        owns = bool(consume) or not app.intake.passes_on
        observe(app, owns=owns, opening=not demo, unsafe_debug=unsafe_debug)
        if owns:
            schedule = Schedule(app)
            app.attach(schedule)
            schedule.start()
        stopping, reception = None, Reception.of(app)
        if rpc_port is not None:
            from dpdau.cli.grpc_front import serve_grpc

            stopping = serve_grpc(
                app,
                loaded,
                host=host,
                port=rpc_port,
                without_tls=grpc_without_tls,
                no_auth=no_auth,
                unsafe_debug=unsafe_debug,
                reception=reception,
            )
        serve_http(
            app,
            host=host,
            port=port,
            no_auth=no_auth,
            unsafe_debug=unsafe_debug,
            reception=reception,
            stopping=stopping,
        )


def doctor(
    check: Annotated[
        str | None,
        typer.Option("--check", help="Only this check, by name.", autocompletion=completion.checks),
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """Check settings, permissions, clock, disk, ledger chain, key ages, backups, ports and extras,
    and say what to do."""
    from dpdau.cli.checks import CHECKS, Status, run_check
    from dpdau.errors import NotFoundError

    if check is not None and check not in CHECKS:
        raise NotFoundError(f"Expected a check of {', '.join(CHECKS)}, found {check!r}.")
    findings = [run_check(name) for name in ([check] if check else CHECKS)]
    if as_json:
        print_json([finding.to_json() for finding in findings])
    else:
        from dpdau.cli.output import OUT, finding_lines

        for finding in findings:
            OUT.print(*finding_lines(finding), sep="\n", soft_wrap=True)
    problems = [finding for finding in findings if finding.status is Status.PROBLEM]
    if problems:
        raise typer.Exit(max(finding.exit_code for finding in problems))


def write_secrets(path: Path) -> bool:
    """Makes a settings file with new secrets, unless one is there; 0600 from its first byte."""
    body = (
        f"{_HEADER}"
        f'HASH_SALT_SECRET = "b64:{base64.b64encode(secrets.token_bytes(32)).decode()}"\n'
        f'SERVICE_API_KEY = "{secrets.token_urlsafe(32)}"\n'
    )
    try:
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        handle = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    except FileExistsError:
        return False
    except OSError as error:
        raise InvalidSettingError(f"{path}: cannot be written: {error.strerror}.") from None
    with os.fdopen(handle, "w", encoding="utf-8") as file:
        file.write(body)
        file.flush()
        os.fsync(file.fileno())
    return True


def demo_settings(data_dir: Path) -> "Settings":
    """Settings of the demo: its own data directory under `DATA_DIR`, with its own secrets."""
    from dpdau.settings import load

    folder = data_dir / "demo"
    config = folder / "dpdau.toml"
    write_secrets(config)
    return load(config, DATA_DIR=folder)


def _create_keyring(loaded: "Settings", *, encrypt: bool) -> None:
    from dpdau.app import create

    try:
        create(loaded, encrypt_store=encrypt)
    except DpdauError as error:
        if encrypt and error.code == "invalid_setting":
            raise InvalidSettingError(f"{loaded.DATA_DIR}: {error.message}") from None
        raise


def _banner(
    url: str, loaded: "Settings", *, rpc_port: int | None, no_auth: bool, is_demo: bool
) -> None:
    """Where the service is, with which key, where the data lives, and how it is stopped."""
    from dpdau.cli.places import lasting

    key = loaded.SERVICE_API_KEY
    shown = "set (hidden)" if key else "a stored key"
    if no_auth:
        shown = "none is asked for (--no-auth)"
    elif is_demo and key:
        shown = key.get_secret_value()
    kept = lasting(loaded.DATA_DIR)
    note = "; delete the folder to begin anew" if is_demo and kept.lasts else ""
    lines = [
        ("dashboard", url),
        ("API docs", f"{url}/docs"),
        ("metrics", f"{url}/metrics"),
        *([] if rpc_port is None else [("gRPC", f"port {rpc_port}")]),
        ("API key", shown),
        ("data", f"{loaded.DATA_DIR.absolute()} ({kept.words}{note})"),
    ]
    if is_demo and key and not no_auth:
        header = f"X-API-Key: {key.get_secret_value()}"
        lines.append(("try", f"curl -H '{header}' '{url}/mau?end={DEMO_LAST.isoformat()}'"))
    lines.append(("stop", "Ctrl-C"))
    for name, value in lines:
        typer.echo(f"  {name:10} {value}", err=not is_demo)
